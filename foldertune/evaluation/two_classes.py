"""Two classes asked as a test: sensitivity, specificity, and where to draw the line. Pure, without torch.

The positive class is the second in alphabetical order, as class number 1 is in scikit-learn; sensitivity is its recall, specificity that
of the other. Lines are drawn on validation pictures and reported on others.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foldertune.evaluation.intervals import area, area_interval, grouped_share
from foldertune.evaluation.metrics import Floats, Integers
from foldertune.scores import Interval, OperatingPoint, TwoClasses

LEAST_SENSITIVITY = 0.95
NUM_ROC_POINTS = 200


def chosen_lines(probabilities: Floats, labels: Integers) -> dict[str, float]:
    """Thresholds of the positive class's probability, chosen on these pictures; empty where they lack one of the classes.

    "sensitive": the highest that finds 95 % of the positive pictures.   "balanced": the largest sum of sensitivity and
    specificity (Youden 1950). Each lies halfway to the next lower probability, where other pictures fall to either side alike.
    """
    positive = np.asarray(labels) == 1
    scores = np.asarray(probabilities, np.float64)[:, 1]
    if positive.all() or not positive.any():
        return {}
    steps = np.unique(scores)[::-1]
    found = np.array([(scores[positive] >= step).mean() for step in steps])
    spared = np.array([(scores[~positive] < step).mean() for step in steps])
    places = {"sensitive": int(np.argmax(found >= LEAST_SENSITIVITY)), "balanced": int(np.argmax(found + spared))}
    return {name: _halfway(steps, place) for name, place in places.items()}


def _halfway(steps: NDArray[np.float64], place: int) -> float:
    return float((steps[place] + (steps[place + 1] if place + 1 < len(steps) else 0.0)) / 2)


def two_classes(
    probabilities: Floats, labels: Integers, *, positive: str, lines: dict[str, float], groups: Integers | None = None
) -> TwoClasses | None:
    """The figures of a test between two classes; None where the pictures lack one of them.   lines: of `chosen_lines`."""
    is_positive = np.asarray(labels) == 1
    scores = np.asarray(probabilities)[:, 1]
    found = area(scores, is_positive)
    if found is None:
        return None
    default = np.asarray(probabilities).argmax(1) == 1
    rows = [("default", 0.5, "", default), *((name, line, "val", scores >= line) for name, line in lines.items())]
    points = [
        OperatingPoint(name, line, chosen_on, *_both(answered, is_positive, groups))
        for name, line, chosen_on, answered in rows
    ]
    return TwoClasses(positive, area_interval(found, groups), tuple(points), _roc(scores, is_positive))


def _both(
    answered: NDArray[np.bool_], positive: NDArray[np.bool_], groups: Integers | None
) -> tuple[Interval, Interval]:
    """Sensitivity and specificity."""
    sides = ((answered[positive], positive), (~answered[~positive], ~positive))
    sensitivity, specificity = (grouped_share(right, None if groups is None else groups[of]) for right, of in sides)
    return sensitivity, specificity


def _roc(scores: Floats, positive: NDArray[np.bool_]) -> tuple[tuple[float, float], ...]:
    from sklearn.metrics import roc_curve

    false, true, _ = roc_curve(positive, scores, drop_intermediate=True)
    places = np.unique(np.linspace(0, len(false) - 1, NUM_ROC_POINTS).round().astype(int))
    return tuple((float(false[place]), float(true[place])) for place in places)
