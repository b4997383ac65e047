"""Loss and accuracy over the epochs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from foldertune.evaluation.charts import Axis, Chart, Line, Point, draw, side_by_side, value_axis
from foldertune.records import EpochRecord, Plan


def ended_early(plan: Plan, history: Sequence[EpochRecord]) -> str:
    """Why training ended before the last epoch of its plan, a sentence; empty where it did not."""
    values = plan.values()
    epochs, limit = values.get("epochs", 0), values.get("max_minutes")
    if not history or history[-1].epoch >= epochs:
        return ""
    why = f"the time limit of {limit:g} minutes allowed no more" if limit else "validation did not improve any more"
    return f"Training ended in epoch {history[-1].epoch} of {epochs}{', perhaps in the middle of it' if limit else ''}: {why}."


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
    charts = []
    for key, heading, train, val, shares in pairs:
        lines = (
            Line("training", "quiet", _points(history, train, f"training {key}", shares=shares)),
            Line("validation", "strong", _points(history, val, f"validation {key}", shares=shares)),
        )
        values = [point.y for line in lines for point in line.points]
        chart = Chart(
            key=key, heading=heading, title=f"{heading} per epoch", description=describe(lines, heading, best, shares=shares),
            x=Axis(1, last, tuple((epoch, str(epoch)) for epoch in epoch_ticks(last)), "epoch"),
            y=value_axis(values, shares=shares), lines=lines, upright=(best, "best epoch") if best else None,
        )  # fmt: skip
        charts.append(draw(chart))
    return side_by_side(charts)


def epoch_ticks(num_epochs: int) -> list[int]:
    """Whole epochs to write at the axis, at most ten, the first among them."""
    step = next(size for size in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000) if num_epochs / size <= 10)
    return sorted({1, *range(step, num_epochs + 1, step)} - ({2} if step > 2 else set()))


def describe(lines: Sequence[Line], heading: str, best_epoch: int, *, shares: bool) -> str:
    """The chart in words.   best_epoch: 0 for none."""
    sentences = [
        f"{line.label.capitalize()} {heading.lower()} goes from {_shown(line.points[0].y, shares=shares)} in epoch "
        f"{line.points[0].x:g} to {_shown(line.points[-1].y, shares=shares)} in epoch {line.points[-1].x:g}."
        for line in lines
        if line.points
    ]
    best = f"Of the epochs, {best_epoch} was chosen." if best_epoch else ""
    return " ".join([*sentences, best]).strip() or "No values."


def _points(history: Sequence[EpochRecord], field: str, name: str, *, shares: bool) -> tuple[Point, ...]:
    pairs = [(record.epoch, getattr(record, field)) for record in history]
    return tuple(
        Point(epoch, float(value), f"epoch {epoch}, {name}: {_shown(value, shares=shares)}")
        for epoch, value in pairs
        if value is not None and math.isfinite(value)
    )


def _shown(value: float, *, shares: bool) -> str:
    return f"{100 * value:.1f} %" if shares else f"{value:.3f}"
