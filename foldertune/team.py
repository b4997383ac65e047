"""The processes that share one training, as torchrun starts them: what each takes, what they add up, how they agree.

Every process holds the whole network and takes the same steps; only the pictures of a batch are shared out. What is decided, by a clock
or by a request to stop, all of them learn at the same place. Without torchrun a team is one process, and nothing here does anything.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from foldertune.errors import SettingsError, WorkFailedError
from foldertune.machine import num_cores

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from foldertune.stopping import StopRequest

Items = TypeVar("Items", "NDArray[Any]", "Tensor")
T = TypeVar("T")
R = TypeVar("R")
# The first process looks, plans and evaluates alone while the others wait; one that dies is noticed at once, by its closed connection.
_LONGEST_WAIT = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Team:
    """This process and its company. rank: in [0, size); the first, 0, is the one that writes, prints and looks at the clock.

    Every method but `share` must be called by all processes at the same place. Each raises WorkFailedError when one of them is gone.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, batch: Items) -> Items:
        """This process's part of a batch; the parts are as equal as it goes, and may be empty."""
        return batch[self.rank * len(batch) // self.size : (self.rank + 1) * len(batch) // self.size]

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Put the sum over all processes in the place of each tensor; all of one type and device. All end with the same bits."""
        import torch
        import torch.distributed as dist

        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])  # one message instead of one for each layer
        with _company():
            dist.all_reduce(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def sum(self, *numbers: float) -> list[float]:
        """The sum over all processes of each number."""
        return list(numbers) if self.size == 1 else self._agreed(numbers, "SUM")

    def first(self, number: float) -> float:
        """The first process's number."""
        return number if self.size == 1 else self._agreed([number if self.is_first else 0.0], "SUM")[0]

    def heard(self, stop: StopRequest) -> int:
        """The signal by which any process was asked to stop, 0 for none; from now on every process's request has it."""
        if self.size == 1:
            return stop.signal
        found = int(self._agreed([stop.signal], "MAX")[0])
        if found:  # else one that came meanwhile would be lost
            stop.signal = found
        return found

    def wait(self) -> None:
        """Go on when all processes have come here."""
        if self.size > 1:
            self._agreed([0.0], "SUM")

    def led(self, work: Generator[T, None, R]) -> Generator[T, None, R]:
        """Work whose results stay in files: the first process does it, then the others find it done."""
        if not self.is_first:
            self.wait()
        result = yield from work
        if self.is_first:
            self.wait()
        return result

    def text(self, text: str) -> str:
        """The first process's text."""
        content = os.fsencode(text)
        size = int(self.first(len(content)))
        numbers = [float(byte) for byte in content] if self.is_first else [0.0] * size
        return text if self.size == 1 else os.fsdecode(bytes(map(int, self._agreed(numbers, "SUM"))))

    def refuse_device(self, device: str) -> None:
        """Raise SettingsError where there are more processes than devices for them."""
        import torch

        if self.size == 1 or device == "cpu":
            return
        num_devices = torch.cuda.device_count() if device == "cuda" else 1
        if self.size > num_devices:
            found = f"{num_devices} device{'s' * (num_devices != 1)}"
            raise SettingsError(
                f"There are {self.size} processes for {found} of the kind {device}, and each needs its own. "
                f"Start {num_devices} with --nproc-per-node, or pass --device cpu."
            )

    def _agreed(self, numbers: Sequence[float], how: str) -> list[float]:
        """Numbers of the processor, in 64 bits: a device never waits for them."""
        import torch
        import torch.distributed as dist

        found = torch.tensor(numbers, dtype=torch.float64)
        with _company():
            dist.all_reduce(found, getattr(dist.ReduceOp, how))
        return found.tolist()


ALONE = Team()


def num_started() -> int:
    """How many processes torchrun has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_WORLD_SIZE" in os.environ else 1


@cache
def join() -> Team:
    """The team of this process; the first call waits for the others. Raises SettingsError where they are on several machines."""
    size, here = num_started(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if size == 1:
        return ALONE
    if size != here:
        raise SettingsError(
            f"There are {size} processes on several machines, {here} of them on this one. Foldertune trains on one machine: "
            "start torchrun with --standalone --nproc-per-node, without --nnodes."
        )
    import torch
    import torch.distributed as dist

    team = Team(int(os.environ["RANK"]), size)
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(team.rank % torch.cuda.device_count())  # where they are too few, `refuse_device` says so
        backend = "cpu:gloo,cuda:nccl"
    _stay_inside()
    with _company():
        dist.init_process_group(backend, store=_store(), rank=team.rank, world_size=size, timeout=_LONGEST_WAIT)
    atexit.register(_leave)
    if os.environ.get("OMP_NUM_THREADS", "1") == "1":  # what torchrun sets where the user did not
        torch.set_num_threads(max(1, num_cores() // size))
    return team


def may_speak() -> bool:
    """Whether this process is the first of the team to tell why it ends: one sentence is enough."""
    if num_started() == 1:
        return True
    try:
        return bool(_store().add("spoken", 1) == 1)
    except (RuntimeError, ValueError, OSError):
        return True


def num_restarts() -> tuple[int, int]:
    """How often torchrun has started this command again so far, and how often it may."""
    count = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return int(count), int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0"))


def _leave() -> None:
    """Take leave in order: with gloo's threads left to the interpreter's end, 8 processes of 60 aborted there."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


@cache
def _store() -> Any:
    """A table that the processes share, also before all have come and after one has failed."""
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]  # exported, but not by its stubs
    from torch.distributed.rendezvous import rendezvous

    shared = next(rendezvous("env://"))[0]
    # torchrun's table outlives its processes: read too soon, it would have the addresses of those that were killed.
    return PrefixStore(f"attempt {num_restarts()[0]}", shared)


def _stay_inside() -> None:
    """Let the processes talk over the loopback, unless the user names another interface: all of them are here."""
    names = {name for _, name in socket.if_nameindex()} if hasattr(socket, "if_nameindex") else set()
    for name in ("lo", "lo0"):
        if name in names:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", name)


@contextlib.contextmanager
def _company() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise WorkFailedError(
            "Another process of this training has ended, so that this one cannot go on. The run keeps its last saved state: "
            "go on with `train --resume`, under torchrun or without."
        ) from error
