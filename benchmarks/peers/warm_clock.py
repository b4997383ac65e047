"""One answer after the other in a warm process: how long each takes."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

WARM_UP = 10


def tell_latency(answer: Callable[[bytes], Any], jpegs: Sequence[bytes], count: int, **parts: float) -> None:
    """Print as JSON the median and the 90th percentile of `count` answers, in milliseconds, and whatever else was measured."""
    took = times_ms(lambda number: answer(jpegs[number % len(jpegs)]), count)
    found = {"median_ms": statistics.median(took), "p90_ms": sorted(took)[int(0.9 * len(took))], **parts}
    print(json.dumps({name: round(value, 3) for name, value in found.items()}))


def times_ms(call: Callable[[int], Any], count: int) -> list[float]:
    """Of `count` calls with 0, 1, 2 ..., after a warm-up."""
    took = []
    for number in range(count + WARM_UP):
        began = time.perf_counter()
        call(number)
        if number >= WARM_UP:
            took.append(1000 * (time.perf_counter() - began))
    return took
