"""What the centre crop throws away of each picture, and whether the classes need it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from foldertune.diagnosis.findings import Asked, counted
from foldertune.preprocess import Fit, Preprocess
from foldertune.records import Evidence, Finding, Interval, Picture

# Of the area that a square of the shorter side would show less than this of a picture, on the average of a class: 4:3 shows 0.75 and is no
# matter, 16:9 shows 0.56. A guess.
LEAST_SHOWN = 0.65


def area_shown(picture: Picture, preprocess: Preprocess) -> float:
    """The share of a picture's area that the network sees, in [0, 1]."""
    if preprocess.fit != "crop":
        return 1.0
    longer, shorter = max(picture.width, picture.height), min(picture.width, picture.height)
    return preprocess.crop_fraction**2 * shorter / longer


def is_lossy(pictures: Sequence[Picture], preprocess: Preprocess) -> bool:
    """Whether the crop shows so little of a class that it should be tried whether that matters."""
    return bool(_lossy(_shown(pictures, preprocess), preprocess))


def _shown(pictures: Sequence[Picture], preprocess: Preprocess) -> dict[str, float]:
    """The mean share of the pictures of each class that is seen."""
    shown: dict[str, list[float]] = {}
    for picture in pictures:
        shown.setdefault(picture.label, []).append(area_shown(picture, preprocess))
    return {label: float(np.mean(areas)) for label, areas in shown.items()}


def _lossy(means: Mapping[str, float], preprocess: Preprocess) -> list[str]:
    """Classes of which less is seen than should be, the worst first."""
    least = LEAST_SHOWN * preprocess.crop_fraction**2
    if preprocess.fit != "crop":
        return []
    return sorted((label for label in means if means[label] < least), key=means.__getitem__)


def framing_findings(
    pictures: Sequence[Picture],
    preprocess: Preprocess,
    *,
    gains: Mapping[Fit, Interval] | None,
    asked: Asked,
) -> Iterator[Finding]:
    """gains: what each other way to meet the square earns in accuracy, on a part of the pictures; None where that was not tried."""
    means = _shown(pictures, preprocess)
    if not (lossy := _lossy(means, preprocess)):
        return
    rows = tuple(
        Evidence(label, round(1 - means[label], 3), f"{means[label]:.0%} of each picture is seen", label=label)
        for label in lossy
    )
    worst = rows[0].label
    advice, fit, earns = _advice(gains)
    yield Finding(
        "crop_loss",
        f"The centre crop shows {means[worst]:.0%} of each picture of {worst!r}"
        + (f", and little of {counted(len(lossy) - 1, 'other class')}" if len(lossy) > 1 else "")
        + f". {advice}",
        "serious" if earns else "warning" if gains is None else "note",
        rows[0].score,
        rows,
        asked.train("--fit", fit),
    )


def _advice(gains: Mapping[Fit, Interval] | None) -> tuple[str, Fit, bool]:
    """A sentence, the way to take, and whether that is shown to be better."""
    if gains is None:
        return (
            "Letterbox and squash show all of it; which one is better was not tried here.",
            "letterbox",
            False,
        )
    best = max(gains, key=lambda fit: gains[fit].value)
    tried = ", ".join(f"{fit} {_points(gains[fit])}" for fit in gains)
    if gains[best].low > 0:
        return f"On a part of the pictures {best} is better by {_points(gains[best])} points of accuracy.", best, True
    return f"It was tried whether that matters: no difference shown ({tried} points).", "crop", False


def _points(gain: Interval) -> str:
    return f"{100 * gain.value:+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
