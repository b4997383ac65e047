"""What a random split would have claimed: told where the two differ, with the pictures that make the difference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from folders import invented_pictures

from foldertune.diagnosis.claims import claim_findings
from foldertune.diagnosis.findings import Asked, by_importance
from foldertune.records import Finding, Interval

APART = np.array([[0.4, 0.6], [0.45, 0.55], [0.9, 0.1], [0.2, 0.8]])
PARTED = np.array([[0.9, 0.1], [0.6, 0.4], [0.95, 0.05], [0.1, 0.9]])


def found(gain: Interval) -> list[Finding]:
    accuracies = (Interval(0.5, 0.3, 0.7), Interval(1.0, 0.9, 1.0), gain)
    made = claim_findings(
        invented_pictures({"a": 3, "b": 1}), (APART, PARTED), np.array([0, 0, 0, 1]), accuracies=accuracies, asked=Asked(Path("p"))
    )  # fmt: skip
    return list(by_importance(made))


def test_claim_findings_name_both_accuracies_and_the_pictures_between_them() -> None:
    (finding,) = found(Interval(0.5, 0.1, 0.9))
    assert finding.sentence.startswith(
        "A random split would have claimed 100.0% (90.0% to 100.0%) where 50.0% (30.0% to 70.0%) is true of pictures that the model "
        "has no relative of: 2 pictures are answered right only because "
    )
    assert [(row.path, row.score, row.note) for row in finding.evidence] == [
        ("a/0.png", 0.5, "40% sure of its class, 90% when a relative was seen"),
        ("a/1.png", 0.15, "45% sure of its class, 60% when a relative was seen"),
    ]
    assert (finding.kind, finding.severity, finding.score) == ("random_split", "warning", 0.5)


def test_claim_findings_that_may_be_chance_are_none() -> None:
    assert found(Interval(0.5, 0.0, 0.9)) == []
