"""Accuracy against a cost: a chart of networks with their intervals, and the line of what is not beaten."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from foldertune.evaluation.charts import Axis, Chart, Line, Point, draw, value_axis
from foldertune.evaluation.markup import between, escape, percent
from foldertune.evaluation.pairs import efficient
from foldertune.records import Interval


@dataclass(frozen=True, slots=True)
class Spot:
    """One network: its accuracy, and what it costs in the unit of the drawing, above 0."""

    name: str
    accuracy: Interval
    cost: float


def draw_scatter(key: str, title: str, unit: str, spots: Sequence[Spot]) -> str:
    """An SVG element, costs on a logarithmic axis; nothing without a cost to show.

    key: of its ids in the page.   unit: of the costs, such as "milliseconds for one picture".
    """
    shown = [spot for spot in spots if spot.cost > 0]
    if not shown:
        return ""
    front = efficient([spot.accuracy.value for spot in shown], [spot.cost for spot in shown])
    best = tuple(sorted((_point(spot, unit) for spot, one in zip(shown, front, strict=True) if one), key=lambda p: p.x))
    others = tuple(_point(spot, unit) for spot, one in zip(shown, front, strict=True) if not one)
    lines = (
        Line("beaten by none", "strong", best),
        *([Line("beaten", "mark", others, joined=False)] if others else []),
    )
    return draw(
        Chart(
            key=key, heading=escape(title), title=escape(title),
            description=" ".join(f"{point.said[:1].upper()}{point.said[1:]}." for point in (*best, *others)),
            x=cost_axis([spot.cost for spot in shown], escape(unit)),
            y=value_axis([end for spot in shown for end in (spot.accuracy.low, spot.accuracy.high)], shares=True),
            lines=lines,
        )
    )  # fmt: skip


def _point(spot: Spot, unit: str) -> Point:
    said = f"{escape(spot.name)}: {percent(spot.accuracy.value)} right ({between(spot.accuracy)}), {spot.cost:.3g} {escape(unit)}"
    return Point(
        math.log10(spot.cost), spot.accuracy.value, said, spot.accuracy.low, spot.accuracy.high, escape(spot.name)
    )


def cost_axis(costs: Sequence[float], title: str) -> Axis:
    """An axis of the logarithms of some costs above 0, with round costs written to it."""
    ticks = log_ticks(min(costs), max(costs))
    return Axis(math.log10(ticks[0]), math.log10(ticks[-1]), tuple((math.log10(t), f"{t:.6g}") for t in ticks), title)


def log_ticks(low: float, high: float) -> list[float]:
    """Numbers 1, 2 and 5 times a power of ten, from at most `low` to at least `high`, two or more; both above 0."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    steps = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    first = max(place for place, step in enumerate(steps) if step <= 0.999 * low)
    last = min(place for place, step in enumerate(steps) if step >= 1.001 * high)
    return steps[first : last + 1]
