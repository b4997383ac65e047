"""The quick classifier: against scikit-learn's ridge, by rows and by columns alike, and blind to what it judges."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from foldertune.diagnosis.least_squares import SHRINKAGE, held_out_scores


def sample(
    num: int, width: int, *, num_classes: int = 3
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    random = np.random.default_rng(num)
    labels = np.arange(num) % num_classes
    return random.normal(size=(num, width)) + labels[:, None] * 0.5, labels, random.integers(0, 4, num)


@pytest.mark.parametrize(("num", "width"), [(60, 5), (60, 45), (60, 200)])
def test_held_out_scores_are_those_of_ridge_regression_on_the_other_folds(num: int, width: int) -> None:
    values, labels, folds = sample(num, width)
    expected = np.zeros((num, 3))
    for fold in range(4):
        here = folds == fold
        mean, scale = values[~here].mean(0), values[~here].std(0) + 1e-6
        ridge = Ridge(alpha=SHRINKAGE * int((~here).sum()))
        ridge.fit((values[~here] - mean) / scale, np.eye(3)[labels[~here]])
        expected[here] = ridge.predict((values[here] - mean) / scale)
    found = held_out_scores(values, labels, folds, num_classes=3)
    assert found == pytest.approx(expected, abs=1e-6)
    assert found.sum(1) == pytest.approx(1)
    assert np.array_equal(held_out_scores(values, labels, folds, num_classes=3), found)


def test_held_out_scores_of_a_picture_do_not_depend_on_its_own_fold() -> None:
    values, labels, folds = sample(40, 6)
    changed = labels.copy()
    changed[folds == 2] = 0
    found = [held_out_scores(values, each, folds, num_classes=3)[folds == 2] for each in (labels, changed)]
    assert np.array_equal(*found)


def test_held_out_scores_of_asked_ones_are_judged_in_place_of_those_that_were_learned() -> None:
    values, labels, folds = sample(40, 6)
    same = held_out_scores(values, labels, folds, num_classes=3)
    assert np.array_equal(held_out_scores(values, labels, folds, num_classes=3, asked=values), same)
    assert not np.allclose(held_out_scores(values, labels, folds, num_classes=3, asked=-values), same)


def test_held_out_scores_where_nothing_can_be_learned_are_zero_or_the_shares() -> None:
    values, labels, _ = sample(12, 4)
    assert (held_out_scores(values, labels, np.zeros(12, np.int64), num_classes=3) == 0).all()
    still = held_out_scores(np.ones((12, 4)), labels, np.arange(12) // 3, num_classes=3)
    assert still == pytest.approx(1 / 3)
