"""What this machine has: cores, memory, disk, device, arithmetic. Facts for planning, and the two things that we tune at start."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import functools
import math
import os
import platform
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from foldertune.cache import cache_folder, existing_parent, room_bytes
from foldertune.errors import MissingError

_MIB = 2**20
_STRAY_CORES = 0.25  # what may be going on beside a measurement without spoiling it; a guess
# Where a GPU's driver shows itself: the second is WSL's, which has no /proc/driver.
_DRIVER_FILES = ("/proc/driver/nvidia", "/dev/dxg")
_CONTROL_GROUP = Path("/sys/fs/cgroup")  # as seen from inside of a container
# Where version 2 says something, and where version 1 does: the limit, what is used, and of what; quota and period.
_MEMORY = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)
_QUOTA = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))


@dataclass(frozen=True, slots=True)
class Machine:
    """The facts that planning reads. Memory and disk in MiB; device memory is that of the accelerator, else of the machine."""

    device: str  # "cpu", "cuda" or "mps"
    device_name: str
    num_cores: int
    memory_mib: float  # all that this process may use
    free_memory_mib: float
    device_memory_mib: float
    free_disk_mib: float  # where the run is
    bf16: bool  # the device has native bfloat16 arithmetic
    free_cache_mib: float = math.inf  # what the cache could take, without all that it holds now
    cache_beside_run: bool = False  # both lie on one disk

    @property
    def accelerated(self) -> bool:
        return self.device != "cpu"


def num_cores() -> int:
    """Cores that this process may use: its affinity, and the share of processor time that a container is given."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    for names in _QUOTA:
        with contextlib.suppress(OSError, ValueError):
            quota, period = " ".join((_CONTROL_GROUP / name).read_text() for name in names).split()
            if int(quota) > 0:  # without a limit "max", which is no number, or -1
                cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(1, cores)


def keep_to_cores() -> None:
    """Let torch take no more threads than this process may use cores: of a container's share it knows nothing."""
    import torch

    torch.set_num_threads(min(torch.get_num_threads(), num_cores()))


class OthersWatch:
    """Sees whether other processes take cores from this one, from now on.

    What the load average tells comes a minute late: an installation that had filled one of two cores made steps three times as slow, and
    the average was under what one training by itself gives.
    """

    def __init__(self) -> None:
        self._began = _seconds_worked()

    def took_cores(self) -> bool:
        """Whether others, or the machine that this one is a guest of, took more than a quarter of a core that was not left over."""
        everyone, own, passed = (now - began for now, began in zip(_seconds_worked(), self._began, strict=True))
        others = (everyone - own) / max(passed, 1e-9)
        return others + num_cores() > (os.cpu_count() or 1) + _STRAY_CORES


def _seconds_worked() -> tuple[float, float, float]:
    """Seconds of all processors, in work or stolen from this machine; of this process, in all its threads; of the clock."""
    import psutil

    times = psutil.cpu_times()
    worked = sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal"))
    return worked, time.process_time(), time.monotonic()


def memory_mib() -> tuple[float, float]:
    """Memory in all and free, in MiB, within the limit of the control group where there is one."""
    import psutil

    memory = psutil.virtual_memory()
    total, free = memory.total / _MIB, memory.available / _MIB
    for names in _MEMORY:
        with contextlib.suppress(OSError, ValueError):
            limit, used, facts = ((_CONTROL_GROUP / name).read_text() for name in names)
            left_mib = (int(limit) - int(used)) / _MIB + _given_back_mib(facts)
            total, free = min(total, int(limit) / _MIB), max(0.0, min(free, left_mib))
    return total, free


def _given_back_mib(facts: str) -> float:
    """What the control group counts as used and the system gives back when asked: files that were read a while ago."""
    lines = facts.splitlines()
    return next((int(line.split()[1]) / _MIB for line in lines if line.startswith("inactive_file ")), 0.0)


def has_gpu_driver(system: str) -> bool:
    """Whether a GPU's driver shows itself, told in a millisecond where importing torch takes seconds. system: `sys.platform`."""
    if system == "win32":
        return shutil.which("nvidia-smi") is not None or ctypes.util.find_library("nvcuda") is not None
    return any(Path(name).exists() for name in _DRIVER_FILES)


@functools.cache
def gpu_name() -> str:
    """The first GPU, as its driver calls it; empty where there is none."""
    if not has_gpu_driver(sys.platform):
        return ""
    import torch

    return str(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else ""


def held_memory_mib() -> float:
    """What this process holds now, in MiB."""
    import psutil

    return float(psutil.Process().memory_info().rss / _MIB)


def forget_peak_memory() -> None:
    """Let `peak_memory_mib` count from now on, where the system can: what was held and given back before is no matter."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mib() -> float:
    """The most memory that this process has held so far, or since `forget_peak_memory`, in MiB."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        # Not getrusage: what that counts begins with the memory of the process which started this one.
        return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
    if sys.platform == "win32":
        import psutil

        return float(psutil.Process().memory_info().peak_wset / _MIB)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / _MIB if sys.platform == "darwin" else peak / 1024


def free_disk_mib(path: Path) -> float:
    """Free space where `path` is or will be, in MiB."""
    return shutil.disk_usage(existing_parent(path)).free / _MIB


def _disk_of(path: Path) -> int:
    return existing_parent(path).stat().st_dev


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 natively; without it, bf16 is emulated and slower than float32.

    Read from the kernel's list of processor features, which Linux alone has; elsewhere the answer is no.
    """
    with contextlib.suppress(OSError):
        features = Path("/proc/cpuinfo").read_text()
        return any(f" {name}" in features for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return False


def processor_name() -> str:
    """What the processor calls itself, as exactly as the system tells."""
    with contextlib.suppress(OSError):
        lines = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
        facts = {key.strip(): value.strip() for key, _, value in lines}
        if "model name" in facts:
            return f"{facts['model name']}, family {facts.get('cpu family', '')}, model {facts.get('model', '')}"
    return platform.processor() or platform.machine()


def version_of(library: str) -> str:
    """The version of an installed package; empty where it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(library)
    except PackageNotFoundError:
        return ""


def find_machine(device: str = "auto", *, run_folder: Path = Path()) -> Machine:
    """The machine as planning sees it. `device` is auto, cpu, cuda or mps; one that is not there raises MissingError."""
    import torch

    present = ["cpu"]
    if torch.cuda.is_available():
        present.insert(0, "cuda")
    elif torch.backends.mps.is_available():
        present.insert(0, "mps")
    if device == "auto":
        device = present[0]
    if device not in present:
        raise MissingError(
            f"The device {device} is not here. This machine has: {', '.join(present)}. Pass --device {present[0]}, or leave it out."
        )
    total, free = memory_mib()
    name, device_memory, bf16 = "processor", free, cpu_has_bf16()
    if device == "cuda":
        name, device_memory = torch.cuda.get_device_name(), torch.cuda.mem_get_info()[0] / _MIB
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device == "mps":
        name, bf16 = "Apple GPU", False
    return Machine(
        device=device,
        device_name=name,
        num_cores=num_cores(),
        memory_mib=total,
        free_memory_mib=free,
        device_memory_mib=device_memory,
        free_disk_mib=free_disk_mib(run_folder),
        bf16=bf16,
        free_cache_mib=room_bytes() / _MIB,
        cache_beside_run=_disk_of(run_folder) == _disk_of(cache_folder()),
    )


def keep_freed_memory() -> None:
    """Tell glibc to keep large freed blocks instead of giving them back to the system after every layer.

    Each training step frees and takes the same hundreds of megabytes; handing them back costs a page fault per 4 KiB the
    next time. How much that is depends on the machine (docs/log.md; benchmarks/allocator.py measures it). Other
    C libraries have no such call, and nothing happens there.
    """
    if sys.platform != "linux":
        return
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # M_* of glibc's malloc.h
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(mmap_threshold, 2**30)
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(top_pad, 64 * _MIB)


def give_back_memory() -> None:
    """Hand freed memory back to the system, which `keep_freed_memory` keeps: before other work that measures what is free."""
    import gc

    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)
