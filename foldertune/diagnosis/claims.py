"""What a split would have claimed that takes pictures one by one and parts copies, bursts and groups. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from foldertune.diagnosis.findings import Asked, counted
from foldertune.records import Evidence, Finding, Interval, Picture

LEAST_RELATED = (
    0.01  # share of the pictures that have a relative, below which the two splits cannot differ much; a guess
)


def claim_findings(
    pictures: Sequence[Picture],
    probabilities: tuple[NDArray[np.floating], NDArray[np.floating]],
    labels: NDArray[np.integer],
    *,
    accuracies: tuple[Interval, Interval, Interval],
    asked: Asked,
) -> Iterator[Finding]:
    """Where parting what belongs together flatters the accuracy: by how much, and which pictures are answered so.

    probabilities: (N, K) each, by a head that has seen neither the picture nor its relatives, and by one that may have seen those.
    accuracies: of the first, of the second, and of the second less the first, paired.
    """
    apart, parted, gain = accuracies
    if gain.low <= 0:
        return
    rows = np.arange(len(labels))
    surer = (probabilities[1] - probabilities[0])[rows, labels]
    flattered = np.flatnonzero((probabilities[1].argmax(1) == labels) & (probabilities[0].argmax(1) != labels))
    evidence = tuple(
        Evidence(
            pictures[place].path,
            round(float(np.clip(surer[place], 0, 1)), 3),
            f"{probabilities[0][place, labels[place]]:.0%} sure of its class, {probabilities[1][place, labels[place]]:.0%} when a "
            "relative was seen",
            label=pictures[place].label,
        )
        for place in flattered[np.argsort(-surer[flattered], kind="stable")]
    )
    yield Finding(
        "random_split",
        f"A random split would have claimed {_between(parted)} where {_between(apart)} is true of pictures that the model has no "
        f"relative of: {counted(len(evidence), 'picture')} {'is' if len(evidence) == 1 else 'are'} answered right only because a copy, "
        "a neighbour of a burst or a member of the group was learned.",
        "warning",
        round(min(1.0, max(0.0, gain.value)), 3),
        evidence,
        asked.train(),
    )


def _between(share: Interval) -> str:
    return f"{share.value:.1%} ({share.low:.1%} to {share.high:.1%})"
