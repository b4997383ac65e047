"""The versions and the machine, as one line for the head of a benchmark's output."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path


def describe() -> str:
    from foldertune.machine import cpu_has_bf16, memory_mib, num_cores

    names = ("foldertune", "torch", "openvino", "numpy", "pillow")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    arithmetic = "with bf16" if cpu_has_bf16() else "without bf16"
    memory = memory_mib()[0] / 1024
    return f"{_processor()}, {num_cores()} cores {arithmetic}, {memory:.0f} GiB, Python {platform.python_version()}; {versions}"


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Median, least and most."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f}, n = {len(values)})"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
