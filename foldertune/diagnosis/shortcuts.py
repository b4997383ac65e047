"""Shortcuts: what tells the classes apart beside the objects, and would be learned in their place. Pure; scikit-learn where it works.

Each property of a picture that has nothing to do with what it shows is asked to tell the classes apart, on pictures that it was not fitted
to. How well it does is the area under the ROC curve of one class against the others: 0.5 is a guess, 1 is always. docs/log.md has what
three sets of photographs reach (marks 0.77, files 0.85, borders 0.86, thumbnails 0.96) and what planted shortcuts reach.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldertune.diagnosis.findings import Asked, counted
from foldertune.diagnosis.least_squares import held_out_scores
from foldertune.diagnosis.watermarks import mark_scores
from foldertune.images import FileFacts
from foldertune.records import SEVERITIES, Evidence, Finding, Light, Picture, Severity

LEAST_OF_A_CLASS = 8  # fewer pictures are told apart by chance
# From which area on a property is told, and from which on it is grave.
_OF_FILES, _GRAVE = 0.87, 0.93
_OF_MARKS, _OF_BORDERS, _OF_THUMBS = 0.82, 0.9, 0.95
_SURE = 0.7  # what the area has to exceed by three standard errors
_SMALL_PX = 96  # shorter side, below which a picture is no photograph but the thing itself; a guess
_MOST_KINDS = 24  # cameras and sizes that are told apart; the rest count as one
_BORDER_PX, _BORDER_PARTS = 4, 24  # of a sketch: depth, and parts along each side


@dataclass(frozen=True, slots=True)
class Appearances:
    """Readable pictures with their class numbers (N,), folds (N,), lights, files, sketches (N, P, P) and thumbs (N, 8, 8, 3).

    folds: copies have the same; each property is judged on the fold that it was not fitted to.
    """

    pictures: Sequence[Picture]
    labels: NDArray[np.int64]
    folds: NDArray[np.int64]
    lights: Sequence[Light]
    files: Sequence[FileFacts]
    sketches: NDArray[np.uint8]
    thumbs: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Property:
    """Something that may tell classes apart. least: the area from which on it is told.   shown: its value for one picture, in words."""

    name: str
    least: float
    scores: NDArray[
        np.float64
    ]  # (N, K): how much each picture looks like each class by this alone, held out; NaN is not judged
    shown: Callable[[int], str]
    grave: Severity = "serious"
    grave_from: float = _GRAVE


def shortcut_findings(seen: Appearances, classes: Sequence[str], *, asked: Asked) -> Iterator[Finding]:
    """One finding for each property that tells a class from the others, with the class that it tells best."""
    counts = np.bincount(seen.labels, minlength=len(classes))
    judged = [number for number in range(len(classes)) if counts[number] >= LEAST_OF_A_CLASS]
    if len(judged) < 2:
        return
    for each in _properties(seen, len(classes)):
        areas, told = {}, []
        for number in judged:
            here = ~np.isnan(each.scores[:, number])
            own = seen.labels[here] == number
            areas[number] = area_under_curve(each.scores[here, number], own)
            if _is_told(areas[number], int(own.sum()), len(own), each.least):
                told.append(number)
        if told:
            told.sort(key=lambda number: -areas[number])
            told = told[:1] if len(classes) == 2 else told  # of two, what tells one tells the other
            yield _finding(each, seen, classes, {number: areas[number] for number in told}, asked)


def area_under_curve(scores: NDArray[np.floating[Any]], positive: NDArray[np.bool_]) -> float:
    """The chance that a positive one has the higher score; equals count half.   scores, positive: (N,)."""
    from scipy.stats import rankdata

    num_positive = int(positive.sum())
    num_negative = len(positive) - num_positive
    if not num_positive or not num_negative:
        return 0.5
    ranks = rankdata(scores)[positive].sum()
    return float((ranks - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative))


def _is_told(area: float, num_positive: int, num_pictures: int, least: float) -> bool:
    return area >= least and area - 3 * _standard_error(area, num_positive, num_pictures - num_positive) > _SURE


def _standard_error(area: float, num_positive: int, num_negative: int) -> float:
    """Of an area under the curve. Source: Hanley and McNeil 1982, doi 10.1148/radiology.143.1.7063747."""
    q1, q2, square = area / (2 - area), 2 * area**2 / (1 + area), area**2
    variance = area * (1 - area) + (num_positive - 1) * (q1 - square) + (num_negative - 1) * (q2 - square)
    return math.sqrt(max(0.0, variance) / (num_positive * num_negative))


# --------------------------------------------------------------------------------------------------------------- properties


def _properties(seen: Appearances, num_classes: int) -> Iterator[Property]:
    files, pictures = seen.files, seen.pictures

    def judged(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return _by_tree(values, seen, num_classes)

    def linear(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return held_out_scores(values, seen.labels, seen.folds, num_classes=num_classes)

    kinds: dict[str, list[str]] = {
        "The file type": [file.format for file in files],
        "The camera": [file.camera or "no camera" for file in files],
        "The size in pixels": [f"{picture.width} x {picture.height} pixels" for picture in pictures],
        "How the file is stored": [
            f"{file.bits} bits, {'transparent' if file.transparent else 'opaque'}, EXIF orientation {file.orientation}"
            for file in files
        ],
    }
    for name, words in kinds.items():
        if len(set(words)) > 1:
            yield Property(name, _OF_FILES, judged(_one_hot(words)), words.__getitem__)
    shapes = np.array([[picture.width / picture.height, picture.width * picture.height] for picture in pictures])
    if len(np.unique(shapes, axis=0)) > 1:
        yield Property(
            "The shape", _OF_FILES, judged(shapes), lambda place: f"{shapes[place, 0]:.2f} times as wide as high"
        )
    if float(np.median([min(picture.width, picture.height) for picture in pictures])) < _SMALL_PX:
        return  # such as digits: where everything stands, and how much of it, is what they show
    sizes = np.array(
        [[file.num_bytes, file.num_bytes / max(1.0, area)] for file, area in zip(files, shapes[:, 1], strict=True)]
    )
    yield Property(
        "The size of the file",
        _OF_FILES,
        judged(sizes),
        lambda place: f"{sizes[place, 0]:,.0f} bytes, {sizes[place, 1]:.2f} a pixel",
    )
    yield _mark(seen, num_classes)
    lights: NDArray[np.float64] = np.array(
        [[each.mean, each.spread, each.low, each.high, each.chroma] for each in seen.lights]
    )
    yield Property(
        "The light", _OF_BORDERS, judged(lights), lambda place: f"mean {lights[place, 0]:.0f}, spread {lights[place, 1]:.0f} of 255",
        "warning",
    )  # fmt: skip
    detail = np.array([[each.detail] for each in seen.lights])
    yield Property(
        "The sharpness", _OF_FILES, judged(detail), lambda place: f"detail {detail[place, 0]:.2f}", "warning"
    )
    border = linear(_borders(seen.sketches))
    yield Property("The border", _OF_BORDERS, border, lambda _: "by its border alone", "warning")
    thumbs = linear(seen.thumbs.reshape(len(pictures), -1).astype(np.float64))
    yield Property(
        "A thumbnail of 8 x 8 pixels", _OF_THUMBS, thumbs, lambda _: "by its colours and light alone", "note"
    )


def _mark(seen: Appearances, num_classes: int) -> Property:
    scores, places = mark_scores(seen.sketches, seen.labels, seen.folds, num_classes=num_classes)
    return Property(
        "A mark at one place", _OF_MARKS, scores, lambda place: f"at the {places[seen.labels[place]]}, like the others of its class",
        grave_from=_OF_MARKS,
    )  # fmt: skip


def _borders(sketches: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(N, 96): the outermost pixels of the four sides, in 24 parts each."""
    depth, parts = _BORDER_PX, _BORDER_PARTS
    rows = np.concatenate([sketches[:, :depth], sketches[:, -depth:]], axis=1)
    columns = np.concatenate([sketches[:, :, :depth], sketches[:, :, -depth:]], axis=2)
    size = sketches.shape[1] // parts
    level = rows.reshape(len(sketches), 2, depth, parts, size).mean((2, 4))
    upright = columns.reshape(len(sketches), parts, size, 2, depth).mean((2, 4))
    return np.concatenate([level.reshape(len(sketches), -1), upright.reshape(len(sketches), -1)], axis=1)


def _one_hot(words: Sequence[str]) -> NDArray[np.float64]:
    """(N, kinds): the most frequent kinds, one column each."""
    kinds = [word for word, _ in Counter(words).most_common(_MOST_KINDS)]
    return np.array([[float(word == kind) for kind in kinds] for word in words])


def _by_tree(values: NDArray[np.float64], seen: Appearances, num_classes: int) -> NDArray[np.float64]:
    """(N, K): probabilities of each picture by a small tree that was fitted to the other folds."""
    from sklearn.tree import DecisionTreeClassifier

    found = np.zeros((len(values), num_classes))
    for fold in np.unique(seen.folds):
        here = seen.folds == fold
        if len(np.unique(seen.labels[~here])) < 2:
            continue
        tree = DecisionTreeClassifier(max_depth=5, min_samples_leaf=4, class_weight="balanced", random_state=0)
        tree.fit(values[~here], seen.labels[~here])
        found[np.ix_(np.flatnonzero(here), tree.classes_)] = tree.predict_proba(values[here])
    return found


# ------------------------------------------------------------------------------------------------------------------- wording


def _row(each: Property, picture: Picture, place: int, number: int, label: str) -> Evidence:
    score = float(np.clip(each.scores[place, number], 0, 1))
    return Evidence(picture.path, round(score, 3), each.shown(place), label=label)


def _finding(
    each: Property, seen: Appearances, classes: Sequence[str], areas: dict[int, float], asked: Asked
) -> Finding:
    best = next(iter(areas))
    others = f", and {counted(len(areas) - 1, 'other class')}" if len(areas) > 1 and len(classes) > 2 else ""
    rows = [
        _row(each, seen.pictures[place], place, number, classes[number])
        for number in areas
        for place in map(int, np.flatnonzero((seen.labels == number) & ~np.isnan(each.scores[:, number])))
    ]
    rows.sort(key=lambda row: -row.score)
    return Finding(
        "shortcut",
        f"{each.name} alone tells {classes[best]!r}{others} from the rest: asked which of two pictures is one, it is right "
        f"{areas[best]:.0%} of the time. A network learns that in place of the object, and fails where it is missing. "
        "Get pictures of all classes in the same way; until then, vary them much while training.",
        each.grave if areas[best] >= each.grave_from else max(each.grave, "warning", key=SEVERITIES.index),
        round(2 * areas[best] - 1, 3),
        tuple(rows),
        asked.train("--augmentation", "heavy"),
    )
