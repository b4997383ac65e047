"""What each optimizer step found: loss, correct answers, gradient norm. On a GPU they are read one step late.

A number that is read makes the processor wait until the device has come that far, and then the device for the processor. One step
later it has long arrived.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from foldertune.team import Team


@dataclass(frozen=True, slots=True)
class Reading:
    """One step. step: its number, from 1.   loss: summed over its pictures.   norm: of the gradient, before clipping."""

    step: int
    num_pictures: int
    loss: float
    num_correct: int
    norm: float


class Meter:
    """Sums over the batches of a step and the processes of a team, and the readings of steps that are not yet told."""

    def __init__(self, device: str) -> None:
        self.late = device == "cuda"
        self._device = device if self.late else "cpu"
        self._waiting: deque[tuple[int, int, Tensor, Any]] = deque()
        self.forget()

    def forget(self) -> None:
        """Drop what was seen of the step that was begun."""
        self._num_pictures = 0
        self._sums = torch.zeros(2, dtype=torch.float64, device=self._device)

    def see(self, num_pictures: int, loss: Tensor, num_seen: int, num_correct: Tensor) -> None:
        """num_pictures: of the whole batch.   loss, num_correct: mean and count over the `num_seen` that are this process's."""
        self._num_pictures += num_pictures
        mean, count = (value.to(self._device).double() for value in (loss, num_correct))
        self._sums += torch.stack([mean * num_seen, count])

    def close(self, step: int, norm: Tensor, team: Team) -> Tensor:
        """The step was gone through; returns (loss, number correct, norm) of all processes."""
        team.add_up([self._sums])
        numbers = torch.cat([self._sums, norm.detach().to(self._device).double().view(1)])
        arrived = None
        if self.late:
            numbers = numbers.to("cpu", non_blocking=True)
            if numbers.is_pinned():
                arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's stubs
                arrived.record()
        self._waiting.append((step, self._num_pictures, numbers, arrived))
        self.forget()
        return numbers

    def readings(self, *, everything: bool = False) -> Iterator[Reading]:
        """The steps that have not been told yet, in order; on a GPU without the last one, unless everything is asked for."""
        while len(self._waiting) > (self.late and not everything):
            step, num_pictures, numbers, arrived = self._waiting.popleft()
            if arrived is not None:
                arrived.synchronize()
            loss, num_correct, norm = numbers.tolist()
            yield Reading(step, num_pictures, loss, int(num_correct), norm)
