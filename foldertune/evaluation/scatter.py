"""Accuracy against a cost as SVG, with intervals and the front of what is not beaten. Colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from foldertune.evaluation.curves import nice_ticks
from foldertune.evaluation.markup import escape
from foldertune.evaluation.pairs import efficient
from foldertune.records import Interval

WIDTH, HEIGHT = 520, 320
LEFT, RIGHT, TOP, BOTTOM = 58, 24, 40, 52
_LETTER = 7.2  # width of one, about


@dataclass(frozen=True, slots=True)
class Spot:
    """One network: its accuracy, and what it costs in the unit of the drawing, above 0."""

    name: str
    accuracy: Interval
    cost: float


def draw_scatter(key: str, title: str, unit: str, spots: Sequence[Spot]) -> str:
    """An SVG element with title and description, costs on a logarithmic axis; nothing without a cost to show.

    key: of its ids in the page.   unit: of the costs, such as "milliseconds for one picture".
    """
    shown = [spot for spot in spots if spot.cost > 0]
    if not shown:
        return ""
    front = efficient([spot.accuracy.value for spot in shown], [spot.cost for spot in shown])
    ticks = nice_ticks(min(s.accuracy.low for s in shown), max(s.accuracy.high for s in shown), most=1.0)
    costs = log_ticks(min(s.cost for s in shown), max(s.cost for s in shown))
    span = math.log(costs[-1] / costs[0])

    def place(spot: Spot, accuracy: float) -> tuple[float, float]:
        x = LEFT + math.log(spot.cost / costs[0]) / span * (WIDTH - LEFT - RIGHT)
        return x, _height(accuracy, ticks)

    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{key}-title {key}-desc">',
        f'<title id="{key}-title">{escape(title)}</title>',
        f'<desc id="{key}-desc">{_describe(shown, front, unit)}</desc>',
        f'<text class="heading" x="{LEFT}" y="18">{escape(title)}</text>',
        *_axes(ticks, costs, unit),
        *_front([place(spot, spot.accuracy.value) for spot, best in zip(shown, front, strict=True) if best]),
    ]
    for spot, best in zip(shown, front, strict=True):
        x, y = place(spot, spot.accuracy.value)
        style = "validation" if best else "training"
        ends = [_height(end, ticks) for end in (spot.accuracy.low, spot.accuracy.high)]
        parts.append(f'<line class="{style} whisk" x1="{x:.1f}" x2="{x:.1f}" y1="{ends[0]:.1f}" y2="{ends[1]:.1f}"/>')
        told = f"{spot.name}: {100 * spot.accuracy.value:.1f} %, {spot.cost:.3g} {unit}"
        parts.append(f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="6"><title>{escape(told)}</title></circle>')
        right = x + 12 + _LETTER * len(spot.name) > WIDTH - 4
        anchor, shift = ("end", -11) if right else ("start", 11)
        parts.append(f'<text x="{x + shift:.1f}" y="{y + 4:.1f}" text-anchor="{anchor}">{escape(spot.name)}</text>')
    return "\n".join([*parts, "</svg>"])


def log_ticks(low: float, high: float) -> list[float]:
    """Numbers 1, 2 and 5 times a power of ten, from at most `low` to at least `high`, two or more; both above 0."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    steps = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    first = max(place for place, step in enumerate(steps) if step <= 0.999 * low)
    last = min(place for place, step in enumerate(steps) if step >= 1.001 * high)
    return steps[first : last + 1]


def _height(accuracy: float, ticks: Sequence[float]) -> float:
    share = (accuracy - ticks[0]) / (ticks[-1] - ticks[0])
    return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)


def _axes(ticks: Sequence[float], costs: Sequence[float], unit: str) -> Iterator[str]:
    for tick in ticks:
        y = _height(tick, ticks)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="axis" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{100 * tick:.3g} %</text>'
    span = math.log(costs[-1] / costs[0])
    for cost in costs:
        x = LEFT + math.log(cost / costs[0]) / span * (WIDTH - LEFT - RIGHT)
        yield f'<text class="axis" x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{cost:.6g}</text>'
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield f'<text class="axis" x="{middle:.0f}" y="{HEIGHT - 10}" text-anchor="middle">{escape(unit)}</text>'


def _front(places: Sequence[tuple[float, float]]) -> list[str]:
    """A line through what nothing beats, the cheapest first."""
    if len(places) < 2:
        return []
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in sorted(places))
    return [f'<polyline class="front" points="{path}"/>']


def _describe(spots: Sequence[Spot], front: Sequence[bool], unit: str) -> str:
    told = [
        f"{spot.name} answers {100 * spot.accuracy.value:.1f} % correctly at {spot.cost:.3g} {unit}" for spot in spots
    ]
    best = [spot.name for spot, one in zip(spots, front, strict=True) if one]
    return escape(f"{'; '.join(told)}. Not beaten in both: {', '.join(best)}.")
