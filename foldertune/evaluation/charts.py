"""Charts as SVG, made by hand: no library to load, colours from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from foldertune.evaluation.markup import SPACE

# In units of the drawing. It is narrow, so that its letters can still be read where a phone makes it smaller.
WIDTH, HEIGHT = 420, 290
LEFT, RIGHT, TOP, BOTTOM = 54, 12, 48, 44
_INSET = 8  # between the ends of the axis below and the first and last point
_LETTER_PX = 6.9  # of the axis
_KEY_PX, _GAP_PX = 26, 14  # of the legend: the sample of a line, between two entries
_MANY = 40  # points of a line above which its dots are small


@dataclass(frozen=True, slots=True)
class Point:
    """A place in the values of both axes. said: what is told of it when it is pointed at; without that it has no dot.

    low, high: the ends of its interval on the upright axis.   label: written beside it.
    """

    x: float
    y: float
    said: str = ""
    low: float | None = None
    high: float | None = None
    label: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """The points of one thing. style: a class of the style sheet, "strong", "quiet" or "mark".   joined: by a line."""

    label: str
    style: str
    points: tuple[Point, ...]
    joined: bool = True


@dataclass(frozen=True, slots=True)
class Axis:
    """low, high: the values at its ends.   ticks: values with their texts.   title: below the axis; "" for none."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    title: str = ""

    def share(self, value: float) -> float:
        """How far along the axis a value lies, in [0, 1]; the middle of an axis that has one value alone."""
        return (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """What one chart shows. key: unlike that of any other on the page.   heading: above it.

    title, description: for whoever cannot see it.   upright: a value of the axis below to be marked, with its text.
    """

    key: str
    heading: str
    title: str
    description: str
    x: Axis
    y: Axis
    lines: tuple[Line, ...]
    upright: tuple[float, str] | None = None


def draw(chart: Chart) -> str:
    """The chart as an SVG element with title and description."""
    names = f"{chart.key}-title {chart.key}-desc"

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + _INSET + chart.x.share(x) * (WIDTH - LEFT - RIGHT - 2 * _INSET)
        return across, HEIGHT - BOTTOM - chart.y.share(y) * (HEIGHT - BOTTOM - TOP)

    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{names}">',
        f'<title id="{chart.key}-title">{chart.title}</title>',
        f'<desc id="{chart.key}-desc">{chart.description}</desc>',
        f'<text class="heading" x="{LEFT}" y="18">{chart.heading}</text>',
        *(_grid_line(place(chart.x.low, value)[1], text) for value, text in chart.y.ticks),
        *(_tick(place(value, chart.y.low)[0], text) for value, text in chart.x.ticks),
        f'<text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">{chart.x.title}</text>',
        _upright(place(chart.upright[0], chart.y.low)[0], chart.upright[1]) if chart.upright else "",
        *_legend(chart.lines),
    ]
    for line in chart.lines:
        parts += _stroke(line, place)
    return "\n".join(part for part in [*parts, "</svg>"] if part)


def side_by_side(charts: Sequence[str]) -> str:
    """Drawn charts in a row, or below each other where there is no room; nothing where there are none."""
    drawn = "\n".join(chart for chart in charts if chart)
    return f'<div class="charts">\n{drawn}\n</div>' if drawn else ""


def value_axis(values: Sequence[float], *, shares: bool, title: str = "") -> Axis:
    """An axis of round numbers around some values.   shares: they are fractions in [0, 1], shown as percent; others begin at 0."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    ticks = nice_ticks(low if shares else min(0.0, low), high, most=1.0 if shares else math.inf)
    return Axis(ticks[0], ticks[-1], tuple((tick, _tick_text(tick, ticks, shares=shares)) for tick in ticks), title)


def nice_ticks(low: float, high: float, *, most: float = math.inf) -> list[float]:
    """About five round numbers from at most `low` to at least `high`, never above `most`.

    Steps are 1, 2 or 5 times a power of ten. Source: Heckbert 1990, "Nice numbers for graph labels", Graphics Gems.
    """
    extent, size = high - low, max(abs(low), abs(high))
    if extent < max(1e-9, 1e-6 * size):  # as good as one value, which still wants an axis
        extent = max(size, 1.0) / 10
    power = 10.0 ** math.floor(math.log10(extent / 5))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= extent / 5 * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if last == first:
        first, last = first - 1, last + 1
    ticks = [round(number * step, 12) for number in range(first, last + 1)]
    return [tick for tick in ticks if tick <= most + 1e-9]


def _tick_text(tick: float, ticks: Sequence[float], *, shares: bool) -> str:
    step = (ticks[1] - ticks[0]) * (100 if shares else 1)
    decimals = max(0, math.ceil(-math.log10(step) - 1e-9))
    return f"{100 * tick:.{decimals}f}{SPACE}%" if shares else f"{tick:.{decimals}f}"


def _stroke(line: Line, place: Callable[[float, float], tuple[float, float]]) -> list[str]:
    """The line, its intervals, and a dot for each point that has something to say."""
    places = [place(point.x, point.y) for point in line.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts = [f'<polyline class="{line.style}" points="{path}"/>'] if line.joined else []
    radius = (3 if len(places) <= _MANY else 1.5) if line.joined else 4
    for point, (x, y) in zip(line.points, places, strict=True):
        if point.low is not None and point.high is not None:
            top, bottom = place(point.x, point.high)[1], place(point.x, point.low)[1]
            parts.append(
                f'<line class="interval {line.style}" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>'
            )
        if point.said:
            parts.append(
                f'<circle class="{line.style}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"><title>{point.said}</title></circle>'
            )
        if point.label:
            parts.append(_label(x, y, point.label))
    return parts


def _label(x: float, y: float, text: str) -> str:
    """To the right of a place, or to the left where there is no room."""
    anchor, shift = ("start", 9) if x + 9 + _LETTER_PX * len(text) < WIDTH else ("end", -9)
    return f'<text x="{x + shift:.1f}" y="{y + 4:.1f}" text-anchor="{anchor}">{text}</text>'


def _grid_line(y: float, text: str) -> str:
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="axis" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
    )


def _tick(x: float, text: str) -> str:
    return f'<text class="axis" x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{text}</text>'


def _upright(x: float, text: str) -> str:
    anchor, shift = ("end", -5) if x > WIDTH / 2 else ("start", 5)
    return (
        f'<line class="best" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{HEIGHT - BOTTOM}"/>'
        f'<text class="axis" x="{x + shift:.1f}" y="{HEIGHT - BOTTOM - 6}" text-anchor="{anchor}">{text}</text>'
    )


def _legend(lines: Sequence[Line]) -> list[str]:
    """What each line is, below the heading, from the left."""
    parts, x = [], float(LEFT)
    for line in lines:
        sample = (
            f'<line class="{line.style}" x1="{x:.1f}" x2="{x + 20:.1f}" y1="32" y2="32"/>'
            if line.joined
            else f'<circle class="{line.style}" cx="{x + 14:.1f}" cy="32" r="4"/>'
        )
        parts.append(f'{sample}<text class="axis" x="{x + _KEY_PX:.1f}" y="36">{line.label}</text>')
        x += _KEY_PX + _LETTER_PX * len(line.label) + _GAP_PX
    return parts
