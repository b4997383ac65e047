"""Scores of unlike pictures against scipy and a plain loop; the limit's promise; the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foldertune.errors import DataError
from foldertune.evaluation.unlike import (
    FEWEST,
    Unlike,
    chosen_kind,
    energy,
    fit_unlike,
    known_scores,
    read_unlike,
    write_unlike,
)


def known(num: int, num_classes: int = 5, *, seed: int = 0) -> tuple[Any, Any]:
    random = np.random.Generator(np.random.Philox(seed))
    labels = np.arange(num) % num_classes
    return random.normal(size=(num, num_classes)) + 6 * np.eye(num_classes)[labels], labels


def strange(num: int, num_classes: int = 5, *, seed: int = 1) -> Any:
    """Logits as large as those of known pictures, towards no class: halfway between two."""
    random = np.random.Generator(np.random.Philox(seed))
    towards = (
        np.eye(num_classes)[np.arange(num) % num_classes] + np.eye(num_classes)[(np.arange(num) + 1) % num_classes]
    )
    return random.normal(size=(num, num_classes)) + 6 * towards


def test_energy_agrees_with_scipy() -> None:
    from scipy.special import logsumexp

    logits = 50 * known(20)[0]
    np.testing.assert_allclose(energy(logits), -logsumexp(logits, axis=1))


def test_distance_agrees_with_mahalanobis_by_scipy() -> None:
    from scipy.spatial.distance import mahalanobis

    logits, labels = known(200)
    found = fit_unlike(logits, labels, kind="distance")
    centred = logits - logits.mean(1, keepdims=True)
    common = np.mean([row[label] for row, label in zip(centred, labels, strict=True)]) * (np.eye(5) - 0.2) * 5 / 4
    means = np.stack([(centred[labels == k].sum(0) + common[k]) / (40 + 1) for k in range(5)])
    rest = centred - means[labels]
    spread = rest.T @ rest / 195
    inverse = np.linalg.inv(0.7 * spread + 0.3 * np.trace(spread) / 5 * np.eye(5))
    rows = strange(7)
    rows = rows - rows.mean(1, keepdims=True)
    for row, score in zip(rows, found.scores(rows), strict=True):
        nearest = min(mahalanobis(row, mean, inverse) ** 2 for mean in means)
        assert score == pytest.approx(nearest / mahalanobis(row, np.zeros(5), inverse) ** 2, rel=1e-4)


@pytest.mark.parametrize("kind", ["distance", "energy"])
def test_fit_unlike_loses_about_one_in_twenty_known_pictures(kind: str) -> None:
    lost = []
    for seed in range(40):
        found = fit_unlike(*known(100, seed=seed), kind=kind)
        lost.append(found.above(known(1000, seed=1000 + seed)[0]).mean())
    assert 0.02 < np.mean(lost) < 0.06


def test_fit_unlike_distance_refuses_what_lies_between_classes() -> None:
    logits, labels = known(300)
    found = fit_unlike(logits, labels, kind="distance")
    assert found.above(strange(200)).mean() > 0.7
    assert fit_unlike(logits, labels, kind="energy").above(strange(200)).mean() < 0.2  # they are as loud as known ones


def test_fit_unlike_a_shift_of_all_logits_changes_no_distance() -> None:
    logits, labels = known(100)
    found = fit_unlike(logits, labels, kind="distance")
    np.testing.assert_allclose(found.scores(logits + 100), found.scores(logits), rtol=1e-6)


def test_fit_unlike_class_without_pictures_is_not_taken_for_something_else() -> None:
    logits, labels = known(400)
    found = fit_unlike(logits[labels != 3], labels[labels != 3], kind="distance")
    assert found.above(logits[labels == 3]).mean() < 0.15


def test_fit_unlike_few_pictures_or_no_kind_tell_nothing_apart() -> None:
    logits, labels = known(FEWEST - 1)
    assert not fit_unlike(logits, labels, kind="distance").above(strange(50)).any()
    assert not fit_unlike(*known(100), kind="").above(strange(50)).any()
    assert fit_unlike(*known(FEWEST), kind="distance").limit < np.inf


def test_known_scores_do_not_come_from_the_picture_itself() -> None:
    logits, labels = known(30, num_classes=3)
    logits[0] = [-40, 55, 0]  # of class 0
    scores, own = known_scores(logits, labels, "distance"), fit_unlike(logits, labels, kind="distance").scores(logits)
    assert scores[0] > own[0]
    assert (known_scores(logits, labels, "distance") == scores).all()


def test_chosen_kind_is_the_better_one_that_does_more_than_guess() -> None:
    assert chosen_kind({"max softmax": 0.7, "energy": 0.75, "distance": 0.8}) == "distance"
    assert chosen_kind({"max softmax": 0.7, "energy": 0.75, "distance": 0.6}) == "energy"
    assert chosen_kind({"max softmax": 0.9, "energy": 0.45, "distance": 0.5}) == ""
    assert chosen_kind({}) == ""


@pytest.mark.parametrize("kind", ["distance", "energy", ""])
def test_unlike_survives_its_file(tmp_path: Path, kind: str) -> None:
    found = fit_unlike(*known(100), kind=kind, aurocs={"max softmax": 0.6, "distance": 0.8})
    write_unlike(tmp_path / "unlike.npz", found)
    read = read_unlike(tmp_path / "unlike.npz", num_classes=5)
    assert (read.kind, read.limit, dict(read.aurocs)) == (found.kind, found.limit, dict(found.aurocs))
    assert (read.scores(strange(20)) == found.scores(strange(20))).all()


def test_read_unlike_absent_damaged_and_of_another_model(tmp_path: Path) -> None:
    path = tmp_path / "unlike.npz"
    assert read_unlike(path, num_classes=5).kind == Unlike().kind == ""
    path.write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(DataError, match=r"unlike\.npz is damaged.*delete it"):
        read_unlike(path, num_classes=5)
    write_unlike(path, fit_unlike(*known(100), kind="distance"))
    with pytest.raises(DataError, match="belongs to another model"):
        read_unlike(path, num_classes=4)
