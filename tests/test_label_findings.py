"""Suspects against a slow implementation of the paper's rule, planted wrong labels first; pictures that are like no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import invented_pictures
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from foldertune.diagnosis import labels as module
from foldertune.diagnosis.findings import Asked, by_importance
from foldertune.diagnosis.labels import (
    FAR_OUT,
    NUM_NEIGHBOURS,
    find_suspects,
    neighbour_distances,
    outlier_findings,
    suspect_findings,
    with_sides,
)
from foldertune.records import Evidence, Finding, Picture

ASKED = Asked(Path("photos"))


def slow_suspects(probabilities: NDArray[Any], labels: NDArray[Any]) -> set[tuple[int, int]]:
    """(place, suggested) by confident learning, written from the paper: as many as stand off the diagonal of the confident
    joint, of those that are answered otherwise the ones of the least self-confidence."""
    places = [place for place in range(len(labels)) if not any(map(np.isnan, probabilities[place]))]
    thresholds: dict[int, float] = {}
    for label in sorted({int(labels[place]) for place in places}):
        own = [probabilities[place][label] for place in places if labels[place] == label]
        thresholds[label] = sum(map(float, own)) / len(own)
    num_off_diagonal = 0
    for place in places:
        candidates = [label for label, least in thresholds.items() if probabilities[place][label] >= least]
        if candidates:
            num_off_diagonal += max(candidates, key=lambda label: probabilities[place][label]) != labels[place]
    answers = {place: max(range(len(probabilities[place])), key=probabilities[place].__getitem__) for place in places}
    wrong = [place for place in places if answers[place] != labels[place]]
    wrong.sort(key=lambda place: probabilities[place][labels[place]])
    return {(place, answers[place]) for place in wrong[:num_off_diagonal]}


def clouds(
    *, seed: int = 0, per_class: int = 60, num_classes: int = 4
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features of classes that overlap a little."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(num_classes), per_class)
    centres = 2.2 * random.normal(size=(num_classes, 12))
    return (centres[labels] + random.normal(size=(len(labels), 12))).astype(np.float32), labels


def held_out(features: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = cross_val_predict(
        LogisticRegression(max_iter=300), features, labels, cv=5, method="predict_proba"
    )
    return found


# ------------------------------------------------------------------------------------------------------------ suspects


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(0, 40))
def test_find_suspects_are_those_of_the_slow_rule(seed: int, num_classes: int, num_pictures: int) -> None:
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.full(num_classes, 0.4), num_pictures).reshape(num_pictures, num_classes)
    labels = random.integers(0, num_classes, num_pictures)
    probabilities[random.random(num_pictures) < 0.1] = np.nan
    found = find_suspects(probabilities, labels)
    assert {(each.place, each.suggested) for each in found} == slow_suspects(probabilities, labels)
    assert len({each.place for each in found}) == len(found)


@given(hnp.arrays(np.float32, st.tuples(st.integers(0, 12), st.just(3)), elements=st.floats(0, 1, width=32)))
def test_find_suspects_scores_are_shares_and_fall(probabilities: NDArray[np.float32]) -> None:
    scores = [each.score for each in find_suspects(probabilities, np.arange(len(probabilities)) % 3)]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)


@pytest.mark.parametrize("seed", range(3))
def test_find_suspects_ranks_planted_wrong_labels_first(seed: int) -> None:
    features, labels = clouds(seed=seed)
    wrong = np.random.default_rng(seed).choice(len(labels), 12, replace=False)
    given_labels = labels.copy()
    given_labels[wrong] = (labels[wrong] + 1) % 4
    found = find_suspects(held_out(features, given_labels), given_labels)
    first = {each.place for each in found[:24]}
    assert len(first & set(wrong.tolist())) >= 0.9 * len(wrong)
    right = [each.suggested == labels[each.place] for each in found if each.place in wrong]
    assert np.mean(right) >= 0.9


def test_find_suspects_without_wrong_labels_are_few() -> None:
    features, labels = clouds(seed=5)
    assert len(find_suspects(held_out(features, labels), labels)) <= 0.02 * len(labels)


def test_find_suspects_passes_over_pictures_that_nothing_is_known_of() -> None:
    probabilities = np.array([[0.9, 0.1], [0.1, 0.9], [np.nan, np.nan], [0.05, 0.95], [0.2, 0.8]])
    labels = np.array([0, 1, 0, 0, 1])
    assert [(each.place, each.suggested, each.score) for each in find_suspects(probabilities, labels)] == [(3, 1, 0.95)]
    assert find_suspects(np.full((3, 2), np.nan), np.array([0, 1, 1])) == []


def test_find_suspects_never_suggests_a_class_without_pictures() -> None:
    probabilities = np.array([[0.3, 0.1, 0.6], [0.4, 0.2, 0.4], [0.1, 0.2, 0.7]])
    assert find_suspects(probabilities, np.array([0, 0, 1])) == []


def test_suspect_findings_name_both_classes_and_the_remedy() -> None:
    pictures = invented_pictures({"a": 3, "b": 2})
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.03, 0.97], [0.1, 0.9], [0.2, 0.8]])
    (finding,) = by_importance(
        suspect_findings(pictures, probabilities, np.array([0, 0, 0, 1, 1]), classes=("a", "b"), asked=ASKED)
    )
    (row,) = finding.evidence
    assert (row.path, row.label, row.suggested, row.note) == ("a/2.png", "a", "b", "97% b, 3% a")
    assert finding.sentence.startswith(
        "1 picture (20.0%) may be filed under the wrong class, most often 1 x 'a' that looks like 'b'."
    )
    assert finding.remedy == "foldertune look photos --write-patch patch.csv"
    assert (
        list(
            suspect_findings(pictures, np.eye(2)[[0, 0, 0, 1, 1]], np.array([0, 0, 0, 1, 1]), classes="ab", asked=ASKED)
        )
        == []
    )


# ------------------------------------------------------------------------------------------------------------ outliers


def test_neighbour_distances_are_those_of_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    features, _ = clouds(per_class=20)
    apart = cdist(features - features.mean(0), features - features.mean(0), "cosine")
    np.fill_diagonal(apart, np.inf)
    expected = np.sort(apart, axis=1)[:, :NUM_NEIGHBOURS].mean(1)
    assert neighbour_distances(features) == pytest.approx(expected, abs=1e-5)
    monkeypatch.setattr(module, "_ROWS", 7)
    assert neighbour_distances(features) == pytest.approx(expected, abs=1e-5)


def test_neighbour_distances_of_a_part_are_never_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    features, _ = clouds(per_class=20)
    monkeypatch.setattr(module, "MOST_HELD_AGAINST", 40)
    found = neighbour_distances(features)
    assert (found > 1e-3).all()
    assert found.shape == (80,)


def planted_outliers(num: int) -> NDArray[np.float32]:
    """Clouds far from their mean, in a narrow angle each, and pictures in directions of their own."""
    features, _ = clouds(seed=2, per_class=50)
    wide = np.zeros((len(features), 40), np.float32)
    wide[:, :12] = features
    wide += np.random.default_rng(0).normal(size=wide.shape).astype(np.float32) * 0.05
    strange = np.zeros((num, 40), np.float32)
    strange[np.arange(num), 12 + np.arange(num)] = 12
    return np.concatenate([wide, strange])


def test_outlier_findings_name_the_strange_ones_first_and_few_others() -> None:
    features = planted_outliers(5)
    (finding,) = by_importance(outlier_findings(invented_pictures({"a": 205}), features, asked=ASKED))
    assert {row.path for row in finding.evidence[:5]} == {f"a/{row}.png" for row in range(200, 205)}
    assert len(finding.evidence) <= 9
    scores = [row.score for row in finding.evidence]
    assert scores == sorted(scores, reverse=True)
    assert all(0.5 <= score <= 1 for score in scores)


def test_outlier_findings_are_those_beyond_tukeys_outer_fence() -> None:
    features = planted_outliers(3)
    distances = neighbour_distances(features)
    quartiles = np.percentile(distances, (25, 75))
    expected = np.flatnonzero(distances > quartiles[1] + FAR_OUT * (quartiles[1] - quartiles[0]))
    (finding,) = outlier_findings(invented_pictures({"a": 203}), features, asked=ASKED)
    assert {row.path for row in finding.evidence} == {f"a/{row}.png" for row in expected}


def test_outlier_findings_of_too_few_or_of_alike_pictures_are_none() -> None:
    features = planted_outliers(0)
    assert list(outlier_findings(invented_pictures({"a": 20}), features[:20], asked=ASKED)) == []
    same = np.ones((50, 8), np.float32)
    assert list(outlier_findings(invented_pictures({"a": 50}), same, asked=ASKED)) == []


@pytest.mark.parametrize(
    ("said", "side"),
    [
        ([[0.9, 0.05, 0.05], [0.8, 0.1, 0.1]], "a"),
        ([[0.1, 0.5, 0.4], [0.0, 0.6, 0.4]], "b"),
        ([[0.7, 0.3, 0.0], [0.6, 0.4, 0.0]], ""),
        ([[np.nan] * 3, [0.9, 0.1, 0.0]], ""),
        ([[0.04, 0.001, 0.959], [0.0, 0.0, 1.0]], ""),
    ],
    ids=["first", "second", "unsure", "judged by nobody", "a third class"],
)
def test_with_sides_says_for_which_of_two_classes_the_network_takes_a_picture(
    said: list[list[float]], side: str
) -> None:
    pictures = [Picture(0, "a/0.png", "a"), Picture(1, "b/1.png", "b")]
    row = Evidence("a/0.png", 0.9, "a and b: mirrored", other="b/1.png", label="a")
    conflict = Finding("label_conflict", "1 pair.", "warning", 0.9, (row,), "mend")
    other = Finding("near_duplicate", "1 pair.", "note", 0.9, (row,), "mend")
    found, same = with_sides([conflict, other], pictures, np.array(said), classes=("a", "b", "c"))
    (told,) = found.evidence
    assert (told.suggested, told.note) == (side, "a and b: mirrored" + (f"; looks like {side}" if side else ""))
    assert found.sentence == f"1 pair. The network takes {'a' if side else 'no'} side."
    assert same == other


def test_with_sides_counts_the_pairs_of_which_the_network_is_sure() -> None:
    pictures = [Picture(row, f"{label}/{row}.png", label) for row, label in enumerate("aab")]
    rows = tuple(Evidence(pictures[row].path, 0.9, "a and b", other=pictures[2].path) for row in (0, 1))
    said = np.array([[0.9, 0.1], [0.0, 1.0], [0.5, 0.5]])
    (found,) = with_sides(
        [Finding("label_conflict", "2 pairs.", "serious", 0.9, rows, "mend")], pictures, said, classes=("a", "b")
    )
    assert [row.suggested for row in found.evidence] == ["", ""]
    said[2] = (1.0, 0.0)
    (found,) = with_sides(
        [Finding("label_conflict", "2 pairs.", "serious", 0.9, rows, "mend")], pictures, said, classes=("a", "b")
    )
    assert [row.suggested for row in found.evidence] == ["a", ""]
    assert found.sentence == "2 pairs. The network takes a side in 1 of them."
