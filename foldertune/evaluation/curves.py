"""Loss and accuracy over the epochs as SVG, made by hand: no library to load, colours from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from foldertune.records import EpochRecord

# In units of the drawing, which are pixels where there is room for them.
WIDTH, HEIGHT = 520, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 40, 44

Points = Sequence[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart. points: (epoch, value), in order of epochs; style: a class of the style sheet."""

    label: str
    style: str
    points: Points


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """What one chart shows. num_epochs: the right end of its axis; best_epoch: 0 for none."""

    key: str
    title: str
    lines: tuple[Line, ...]
    num_epochs: int
    best_epoch: int
    shares: bool  # values are fractions in [0, 1], shown as percent

    def shown(self, value: float) -> str:
        return f"{100 * value:.1f} %" if self.shares else f"{value:.3f}"


def draw_history(history: Sequence[EpochRecord]) -> str:
    """Both charts side by side; nothing below two epochs. Values that are missing or not finite are left out."""
    if len(history) < 2:
        return ""
    best = max((record.epoch for record in history if record.best), default=0)
    last = max(record.epoch for record in history)
    pairs = (
        ("loss", "Loss", "train_loss", "val_loss", False),
        ("accuracy", "Accuracy", "train_accuracy", "val_accuracy", True),
    )
    charts = [
        Chart(
            key=key, title=title, num_epochs=last, best_epoch=best, shares=shares,
            lines=(
                Line("training", "training", _points(history, train)),
                Line("validation", "validation", _points(history, val)),
            ),
        )
        for key, title, train, val, shares in pairs
    ]  # fmt: skip
    return '<div class="charts">\n' + "\n".join(draw(chart) for chart in charts) + "\n</div>"


def draw(chart: Chart) -> str:
    """One chart as an SVG element with title and description."""
    values = [value for line in chart.lines for _, value in line.points]
    names = f"{chart.key}-title {chart.key}-desc"
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    ticks = nice_ticks(low if chart.shares else min(0.0, low), high, most=1.0 if chart.shares else math.inf)

    def place_x(epoch: float) -> float:
        share = (epoch - 1) / (chart.num_epochs - 1) if chart.num_epochs > 1 else 0.5
        return LEFT + 8 + share * (WIDTH - LEFT - RIGHT - 16)

    def place_y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - ticks[0]) / (ticks[-1] - ticks[0]) * (HEIGHT - BOTTOM - TOP)

    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{names}">',
        f'<title id="{chart.key}-title">{chart.title} per epoch</title>',
        f'<desc id="{chart.key}-desc">{describe(chart)}</desc>',
        f'<text class="heading" x="{LEFT}" y="18">{chart.title}</text>',
        *(_grid_line(place_y(tick), _tick_text(tick, ticks, shares=chart.shares)) for tick in ticks),
        *(_epoch_tick(place_x(epoch), epoch) for epoch in epoch_ticks(chart.num_epochs)),
        f'<text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">epoch</text>',
        _best_mark(place_x(chart.best_epoch)) if chart.best_epoch else "",
        *(_legend(place, line) for place, line in enumerate(chart.lines)),
    ]
    for line in chart.lines:
        places = [(place_x(epoch), place_y(value)) for epoch, value in line.points]
        parts += _stroke(line, places, [f"epoch {epoch}, {line.label}: {chart.shown(v)}" for epoch, v in line.points])
    return "\n".join(part for part in [*parts, "</svg>"] if part)


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


def epoch_ticks(num_epochs: int) -> list[int]:
    """Whole epochs to write at the axis, at most ten, the first among them."""
    step = next(size for size in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000) if num_epochs / size <= 10)
    return sorted({1, *range(step, num_epochs + 1, step)} - ({2} if step > 2 else set()))


def describe(chart: Chart) -> str:
    """The chart in words, for whoever cannot see it."""
    sentences = [
        f"{line.label.capitalize()} {chart.title.lower()} goes from {chart.shown(line.points[0][1])} in epoch "
        f"{line.points[0][0]} to {chart.shown(line.points[-1][1])} in epoch {line.points[-1][0]}."
        for line in chart.lines
        if line.points
    ]
    best = f"Of the epochs, {chart.best_epoch} was chosen." if chart.best_epoch else ""
    return " ".join([*sentences, best]).strip() or "No values."


def _points(history: Sequence[EpochRecord], field: str) -> Points:
    pairs = [(record.epoch, getattr(record, field)) for record in history]
    return [(epoch, float(value)) for epoch, value in pairs if value is not None and math.isfinite(value)]


def _stroke(line: Line, places: Sequence[tuple[float, float]], titles: Sequence[str]) -> list[str]:
    """The line and a dot for each of its points; a dot tells its value when pointed at."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    radius = 3 if len(places) <= 40 else 1.5
    dots = [
        f'<circle class="{line.style}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"><title>{title}</title></circle>'
        for (x, y), title in zip(places, titles, strict=True)
    ]
    return [f'<polyline class="{line.style}" points="{path}"/>', *dots]


def _grid_line(y: float, text: str) -> str:
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="axis" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
    )


def _tick_text(tick: float, ticks: Sequence[float], *, shares: bool) -> str:
    step = (ticks[1] - ticks[0]) * (100 if shares else 1)
    decimals = max(0, math.ceil(-math.log10(step) - 1e-9))
    return f"{100 * tick:.{decimals}f} %" if shares else f"{tick:.{decimals}f}"


def _epoch_tick(x: float, epoch: int) -> str:
    return f'<text class="axis" x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{epoch}</text>'


def _best_mark(x: float) -> str:
    anchor, shift = ("end", -5) if x > WIDTH / 2 else ("start", 5)
    return (
        f'<line class="best" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{HEIGHT - BOTTOM}"/>'
        f'<text class="axis" x="{x + shift:.1f}" y="{HEIGHT - BOTTOM - 6}" text-anchor="{anchor}">chosen epoch</text>'
    )


def _legend(place: int, line: Line) -> str:
    x = WIDTH - RIGHT - 210 + 105 * place
    return (
        f'<line class="{line.style}" x1="{x}" x2="{x + 22}" y1="14" y2="14"/>'
        f'<text class="axis" x="{x + 28}" y="18">{line.label}</text>'
    )
