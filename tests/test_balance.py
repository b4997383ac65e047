"""Findings on how many pictures there are."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldertune.diagnosis.balance import FEW_OF_A_CLASS, FEW_PICTURES, IMBALANCE, STRONG_IMBALANCE, balance_findings
from foldertune.diagnosis.findings import Asked, by_importance
from foldertune.records import Finding

ASKED = Asked(Path("photos"))


def found(counts: dict[str, int]) -> dict[str, Finding]:
    return {finding.kind: finding for finding in balance_findings(counts, asked=ASKED)}


def test_balance_of_many_even_classes_is_no_finding() -> None:
    assert found({"a": 250, "b": 250}) == {}
    assert found({"a": 600, "b": 201}) == {}


def test_balance_names_few_pictures_and_small_classes() -> None:
    told = found({"large": 100, "small": 60, "tiny": 19})
    assert list(told) == ["too_few", "imbalance"]
    few = told["too_few"]
    assert few.sentence == (
        "179 pictures are few: expect wide intervals. 500 and more give acceptable results, 1,000 of each class good ones. "
        "'tiny' has fewer than 20 pictures; add some, or merge similar classes."
    )
    assert few.severity == "warning"
    assert [(row.path, row.note) for row in few.evidence] == [("tiny", "19 pictures")]
    assert few.remedy == "foldertune train photos --tune head"


@pytest.mark.parametrize(("count", "severity"), [(4, "serious"), (5, "warning"), (19, "warning"), (20, None)])
def test_balance_of_a_class_that_is_not_even_tested_is_serious(count: int, severity: str | None) -> None:
    told = found({"a": 600, "b": count}).get("too_few")
    assert (told and told.severity) == severity


def test_balance_of_few_pictures_without_small_classes_names_all_classes_the_smallest_first() -> None:
    rows = found({"a": 40, "b": 30})["too_few"].evidence
    assert [(row.path, row.label) for row in rows] == [("b", "b"), ("a", "a")]
    assert rows[0].score > rows[1].score


@pytest.mark.parametrize(
    ("counts", "severity"),
    [({"a": 600, "b": 201}, None), ({"a": 600, "b": 200}, "warning"), ({"a": 2000, "b": 201}, "warning"),
     ({"a": 2000, "b": 200}, "serious"), ({"a": 600, "b": 0}, "serious")],
)  # fmt: skip
def test_imbalance_begins_where_the_plan_weighs_the_loss(counts: dict[str, int], severity: str | None) -> None:
    assert (IMBALANCE, STRONG_IMBALANCE, FEW_OF_A_CLASS, FEW_PICTURES) == (3, 10, 20, 500)
    told = found(counts).get("imbalance")
    assert (told and told.severity) == severity
    if told:
        assert told.sentence.startswith(
            f"The classes are uneven: 'a' has {counts['a']:,} pictures, 'b' {counts['b']}. "
        )
        assert [row.path for row in told.evidence] == ["b", "a"]
        assert told.remedy == "foldertune train photos --imbalance weights"


@given(st.dictionaries(st.text(max_size=5), st.integers(0, 3000), min_size=1, max_size=8))
def test_balance_of_any_counts_makes_findings_of_the_list_with_rows_in_order(counts: dict[str, int]) -> None:
    for finding in by_importance(balance_findings(counts, asked=ASKED)):
        scores = [row.score for row in finding.evidence]
        assert scores == sorted(scores, reverse=True)
        assert all(0 <= score <= 1 for score in scores)
