"""Changes of augmentation that turn one class into another: a mirrored left arrow is a right arrow. Pure: features in.

A change is a conflict where it exchanges two classes, or where the changed pictures of one lie among the pictures of another, as near to
them as they are to each other. A change that only makes pictures strange does neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from foldertune.diagnosis.findings import Asked, counted
from foldertune.diagnosis.least_squares import held_out_scores
from foldertune.records import Evidence, Finding, Picture

NUM_NEIGHBOURS = 5
LEAST_OF_A_CLASS = 4  # pictures, below which nothing is said of a class
LEAST_MOVED = 0.5  # share of a class's pictures that a change has to move into one other class; a guess
_MOST_CHANCE = (
    0.01  # that any pair of classes is exchanged by chance, where each picture would move by the toss of a coin
)
_NUM_FOLDS = 4
_MOST_CLASSES = 40  # each of which is held against every other one
_AS_NEAR = 90.0  # percentile of a class's own distances, within which a picture lies among its pictures
# The changes that are tried, each with the setting that leaves it out of training.
REMEDIES: Mapping[str, tuple[str, ...]] = {
    "mirrored": ("--no-flip",),
    "turned by 90 degrees": ("--orientation", "upright"),
    "turned by 180 degrees": ("--orientation", "upright"),
    "another hue": ("--no-hue",),
}


@dataclass(frozen=True, slots=True)
class Conflict:
    """A change moves `share` of the pictures of class number `label` among those of class number `other`; `places` are these."""

    label: int
    other: int
    share: float
    places: tuple[int, ...]


def find_conflicts(
    features: NDArray[np.float32], changed: NDArray[np.float32], labels: NDArray[np.integer]
) -> list[Conflict]:
    """What a change does to each class, the strongest conflict first.   features, changed: (N, D), before and after.   labels: (N,)."""
    if np.bincount(labels).max(initial=0) < LEAST_OF_A_CLASS:
        return []
    found = {(each.label, each.other): each for each in _swaps(features, changed, labels)}
    found |= {(each.label, each.other): each for each in _arrivals(features, changed, labels)}
    return sorted(found.values(), key=lambda conflict: (-conflict.share, conflict.label))


def _swaps(
    features: NDArray[np.float32], changed: NDArray[np.float32], labels: NDArray[np.integer]
) -> Iterator[Conflict]:
    """Pairs of classes that a change exchanges, as a classifier sees it that has not seen the pictures.

    Networks are taught to see mirrored pictures alike, so a mirrored left arrow lies near left ones; what little tells it from a right one
    speaks for the right one. A change that only makes pictures strange may send a class anywhere, but not two into each other.
    """
    from scipy.stats import binom

    large = [label for label in np.unique(labels) if (labels == label).sum() >= LEAST_OF_A_CLASS][:_MOST_CLASSES]
    num_pairs = len(large) * (len(large) - 1) // 2
    for label, other in combinations(large, 2):
        both = np.flatnonzero((labels == label) | (labels == other))
        second = (labels[both] == other).astype(np.int64)
        folds = _folds(second)
        before = held_out_scores(features[both], second, folds, num_classes=2).argmax(1)
        after = held_out_scores(features[both], second, folds, num_classes=2, asked=changed[both]).argmax(1)
        moved = [float((after != before)[second == number].mean()) for number in (0, 1)]
        wrong = [float((before != second)[second == number].mean()) for number in (0, 1)]
        if min(moved[0] - wrong[0], moved[1] - wrong[1]) < LEAST_MOVED:
            continue
        # Of pictures that became strange, about half move by chance, and among many pairs of classes some are lucky.
        chance = float(binom.sf(int((after != before).sum()) - 1, len(both), 0.5))
        if chance * num_pairs > _MOST_CHANCE:
            continue
        for number, (here, there) in enumerate(((label, other), (other, label))):
            places = both[(second == number) & (after != number)]
            yield Conflict(int(here), int(there), round(moved[number], 3), tuple(map(int, places)))


def _folds(labels: NDArray[np.integer]) -> NDArray[np.integer]:
    """(N,): the pictures of each class in turn."""
    folds = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        folds[own] = np.arange(len(own)) % _NUM_FOLDS
    return folds


def _arrivals(
    features: NDArray[np.float32], changed: NDArray[np.float32], labels: NDArray[np.integer]
) -> Iterator[Conflict]:
    """Classes whose changed pictures lie among those of another class, as near to them as they are to each other."""
    centre = features.mean(0)
    before, after = _unit(features - centre), _unit(changed - centre)
    alike = before @ before.T
    np.fill_diagonal(alike, -np.inf)
    moved = after @ before.T
    np.fill_diagonal(moved, -np.inf)  # its own picture, to which a mirrored one is always near
    answers, distances = _vote(alike, labels)
    new_answers, new_distances = _vote(moved, labels)
    for label in np.unique(labels):
        own = labels == label
        for other in np.unique(new_answers[own]):
            theirs = distances[labels == other]
            if other == label or min(own.sum(), len(theirs)) < LEAST_OF_A_CLASS:
                continue
            arrived = own & (new_answers == other) & (new_distances <= np.percentile(theirs, _AS_NEAR))
            share = float(arrived[own].mean() - (answers[own] == other).mean())
            if share >= LEAST_MOVED:
                yield Conflict(int(label), int(other), round(share, 3), tuple(map(int, np.flatnonzero(arrived))))


def conflict_findings(
    pictures: Sequence[Picture], conflicts: Mapping[str, Sequence[Conflict]], *, classes: Sequence[str], asked: Asked
) -> Iterator[Finding]:
    """One finding for each change that conflicts.   conflicts: by change, a key of REMEDIES.   pictures: that were tried."""
    for change, found in conflicts.items():
        if not found:
            continue
        rows = [
            Evidence(
                pictures[place].path, each.share, f"{change}, it lies among {classes[each.other]!r}",
                label=classes[each.label], suggested=classes[each.other],
            )
            for each in found
            for place in each.places
        ]  # fmt: skip
        worst = found[0]
        more = f" So it is with {counted(len(found) - 1, 'other pair')} of classes." if len(found) > 1 else ""
        yield Finding(
            "augmentation_conflict",
            f"A picture of {classes[worst.label]!r}, {change}, looks like {classes[worst.other]!r}: {worst.share:.0%} of those that were "
            f"tried.{more}",
            "serious" if change == "mirrored" else "warning",  # only the first is done by every plan
            min(1.0, worst.share),
            tuple(rows),
            asked.train(*REMEDIES[change]),
        )


def _unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-6)
    return unit


def _vote(alike: NDArray[np.float32], labels: NDArray[np.integer]) -> tuple[NDArray[np.integer], NDArray[np.float32]]:
    """For each row the most frequent class among the nearest columns, the nearest of equals, and their mean distance."""
    count = min(NUM_NEIGHBOURS, alike.shape[1] - 1)
    nearest = np.argsort(-alike, axis=1, kind="stable")[:, :count]
    votes = labels[nearest]
    weight = np.linspace(1.01, 1.0, count)  # of equally frequent ones the nearer
    tally = np.stack([((votes == number) * weight).sum(1) for number in range(int(labels.max()) + 1)], axis=1)
    distances: NDArray[np.float32] = 1 - np.take_along_axis(alike, nearest, axis=1).mean(1)
    return tally.argmax(1), distances
