"""Pictures that seem to be filed under the wrong class, and those that are like no other. Pure: probabilities and features in.

Confident learning: a class is a candidate for a picture where the model that has not seen the picture gives it at least the
probability that it gives, on the average, to pictures of that class. Source: Northcutt, Jiang and Chuang 2021, "Confident learning:
estimating uncertainty in dataset labels", arXiv:1911.00068.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from foldertune.diagnosis.findings import Asked, counted
from foldertune.records import Evidence, Finding, Picture

NUM_NEIGHBOURS = 10
MOST_HELD_AGAINST = (
    20_000  # pictures that each is held against, evenly from all: 20,000 squared takes seconds, ten times that minutes
)
# Distances that end so many interquartile ranges above the upper quartile are "far out": Tukey 1977, "Exploratory data analysis".
FAR_OUT = 3.0
# The share of what the network gives to the two classes of one picture, from which on it takes a side; a guess.
SIDED = 0.8
_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Suspect:
    """place: of the picture.   suggested: the class number that it seems to have.   score: how improbable its own class is, in [0, 1].

    On planted wrong labels that finds more than the distance to the suggested class, and more yet in a second round by a head that has
    not learned from the suspects of the first (docs/log.md).
    """

    place: int
    suggested: int
    score: float


def find_suspects(probabilities: NDArray[np.floating], labels: NDArray[np.integer]) -> list[Suspect]:
    """Pictures that seem to be filed under a wrong class, the most suspicious first.

    As many as have another class for their most probable candidate; of those that are answered otherwise, the ones whose own class is
    the least probable.

    probabilities: (N, K), each row by a model that has not seen the picture; rows of NaN are passed over.   labels: (N,).
    """
    judged = np.flatnonzero(~np.isnan(probabilities).any(1))
    p, y = probabilities[judged].astype(np.float64), labels[judged]
    usual = np.full(p.shape[1], np.inf)  # of each class: the mean probability of it on its own pictures
    for number in np.unique(y):
        usual[number] = p[y == number, number].mean()
    confident = np.where(p >= usual, p, -np.inf)
    num_suspects = int(((confident.argmax(1) != y) & np.isfinite(confident.max(1))).sum())
    answers, own = p.argmax(1), p[np.arange(len(p)), y]
    wrong = np.flatnonzero(answers != y)
    chosen = wrong[np.argsort(own[wrong], kind="stable")][:num_suspects]
    found = [Suspect(int(judged[place]), int(answers[place]), round(float(1 - own[place]), 4)) for place in chosen]
    return sorted(found, key=lambda suspect: (-suspect.score, suspect.place))


def suspect_findings(
    pictures: Sequence[Picture],
    probabilities: NDArray[np.floating],
    labels: NDArray[np.integer],
    *,
    classes: Sequence[str],
    asked: Asked,
) -> Iterator[Finding]:
    """pictures, probabilities, labels: row by row the same."""
    suspects = find_suspects(probabilities, labels)
    if not suspects:
        return
    ways = Counter((classes[labels[each.place]], classes[each.suggested]) for each in suspects).most_common(2)
    most = " and ".join(f"{count:,} x {filed!r} that looks like {seen!r}" for (filed, seen), count in ways)
    share = len(suspects) / max(1, len(labels))
    rows = tuple(
        Evidence(
            pictures[each.place].path,
            each.score,
            f"{probabilities[each.place, each.suggested]:.0%} {classes[each.suggested]}, "
            f"{probabilities[each.place, labels[each.place]]:.0%} {classes[labels[each.place]]}",
            label=pictures[each.place].label,
            suggested=classes[each.suggested],
        )
        for each in suspects
    )
    yield Finding(
        "label_suspect",
        f"{counted(len(suspects), 'picture')} ({share:.1%}) may be filed under the wrong class, most often {most}. Some are only hard: "
        "look at the first ones before anything is changed.",
        "warning",
        rows[0].score,
        rows,
        asked.patch(),
    )


def with_sides(
    found: Iterable[Finding],
    pictures: Sequence[Picture],
    probabilities: NDArray[np.floating],
    *,
    classes: Sequence[str],
) -> list[Finding]:
    """The same findings; of a picture under two classes also which of the two the network takes it for, where it is sure.

    Then that is the row's `suggested`, and the member with the other label is the one to doubt.

    pictures, probabilities: row by row the same; both members of a pair by a model that has seen neither.
    """
    said_of = dict(zip((picture.path for picture in pictures), probabilities, strict=True))
    label_of = {picture.path: picture.label for picture in pictures}

    def with_side(row: Evidence) -> Evidence:
        labels = [label_of[path] for path in (row.path, row.other)]
        said = said_of[row.path] + said_of[row.other]
        shares = said[[classes.index(label) for label in labels]]
        # Neither where it takes the picture for a third class, nor where nobody has judged it.
        if not shares.max() > SIDED * shares.sum() or shares.max() < said.max():
            return row
        side = labels[int(shares.argmax())]
        return replace(row, note=f"{row.note}; looks like {side}", suggested=side)

    def with_all_sides(conflict: Finding) -> Finding:
        rows = tuple(with_side(row) for row in conflict.evidence)
        num_sides = sum(bool(row.suggested) for row in rows)
        where = "" if len(rows) == 1 else f" in {num_sides:,} of them"
        told = f"The network takes a side{where}." if num_sides else "The network takes no side."
        return replace(conflict, evidence=rows, sentence=f"{conflict.sentence} {told}")

    return [with_all_sides(each) if each.kind == "label_conflict" else each for each in found]


def outlier_findings(pictures: Sequence[Picture], features: NDArray[np.float32], *, asked: Asked) -> Iterator[Finding]:
    """Pictures that are far from all others.   features: (N, D), row by row."""
    if len(pictures) <= 2 * NUM_NEIGHBOURS:
        return
    distances = neighbour_distances(features)
    lower, middle, upper = np.percentile(distances, (25, 50, 75))
    limit = upper + FAR_OUT * (upper - lower)
    far = np.flatnonzero(distances > limit)
    if not len(far):
        return
    rows = tuple(
        Evidence(
            pictures[place].path,
            round(float(min(1.0, 1 - limit / (2 * distances[place]))), 3),
            f"{distances[place] / max(middle, 1e-6):.1f} times as far from its neighbours as is usual",
            label=pictures[place].label,
        )
        for place in far[np.argsort(-distances[far], kind="stable")]
    )
    yield Finding(
        "outlier",
        f"{counted(len(far), 'picture')} {'is' if len(far) == 1 else 'are'} like no other: another kind of picture, or a rare case worth "
        "having more of.",
        "warning",
        rows[0].score,
        rows,
        asked.patch(),
    )


def neighbour_distances(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N,): the mean distance, 1 - cosine, of each picture to its ten nearest ones.   features: (N, D)."""
    centred = features - features.mean(0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)
    places = np.linspace(0, len(unit) - 1, min(MOST_HELD_AGAINST, len(unit))).round().astype(int)
    others, column = unit[places], {int(place): number for number, place in enumerate(places)}
    distances = np.empty(len(unit), np.float32)
    for start in range(0, len(unit), _ROWS):
        alike = unit[start : start + _ROWS] @ others.T
        for place in range(start, start + len(alike)):
            if place in column:
                alike[place - start, column[place]] = -np.inf  # itself
        nearest = np.partition(alike, -NUM_NEIGHBOURS, axis=1)[:, -NUM_NEIGHBOURS:]
        distances[start : start + _ROWS] = 1 - nearest.mean(1)
    return distances
