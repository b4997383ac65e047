"""The calibration error against a plain loop, its bins against counting, and what chance makes of it against the binomial itself."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from foldertune.errors import DataError
from foldertune.evaluation.calibration import (
    expected_calibration_error,
    perfect_calibration_quantile,
    reliability_bins,
)
from foldertune.evaluation.metrics import softmax, wilson_interval


def invented(num_pictures: int, num_classes: int, *, seed: int = 0, sureness: float = 1.0) -> tuple[Any, Any]:
    random = np.random.Generator(np.random.Philox(seed))
    labels = random.integers(num_classes, size=num_pictures)
    logits = random.normal(size=(num_pictures, num_classes)) + 1.5 * np.eye(num_classes)[labels]
    return softmax(sureness * logits), labels


def plain_error(probabilities: NDArray[Any], labels: NDArray[Any], num_bins: int) -> float:
    """The definition, word by word: bin m holds confidences in (m / M, (m + 1) / M]."""
    total = 0.0
    for number in range(num_bins):
        inside = [
            place
            for place, row in enumerate(probabilities)
            if number / num_bins < max(row) <= (number + 1) / num_bins or (number == 0 and max(row) == 0)
        ]
        if inside:
            confidence = sum(float(max(probabilities[place])) for place in inside) / len(inside)
            accuracy = sum(int(np.argmax(probabilities[place]) == labels[place]) for place in inside) / len(inside)
            total += len(inside) / len(labels) * abs(accuracy - confidence)
    return total


@pytest.mark.parametrize(("num_bins", "sureness"), [(15, 1.0), (10, 3.0), (1, 0.5), (40, 8.0)])
def test_expected_calibration_error_random_answers_agree_with_the_definition(num_bins: int, sureness: float) -> None:
    probabilities, labels = invented(700, 5, sureness=sureness)
    found = expected_calibration_error(probabilities, labels, num_bins=num_bins)
    assert found == pytest.approx(plain_error(probabilities, labels, num_bins), abs=1e-6)


def test_expected_calibration_error_by_hand() -> None:
    # 0.9 four times, three right; 0.6 twice, none right: 4/6 * 0.15 + 2/6 * 0.6.
    probabilities = np.array([[0.9, 0.1]] * 4 + [[0.6, 0.4]] * 2)
    labels = np.array([0, 0, 0, 1, 1, 1])
    assert expected_calibration_error(probabilities, labels) == pytest.approx(0.3)
    assert expected_calibration_error(np.eye(3), np.arange(3)) == 0


def test_expected_calibration_error_no_pictures_is_refused() -> None:
    with pytest.raises(DataError, match="no picture to measure on"):
        expected_calibration_error(np.zeros((0, 2)), np.zeros(0, np.int64))
    with pytest.raises(DataError, match="no picture to measure on"):
        perfect_calibration_quantile(np.zeros(0))


@settings(max_examples=25)
@given(st.integers(1, 60), st.integers(2, 6), st.integers(0, 1000))
def test_expected_calibration_error_lies_in_bounds_and_follows_from_the_bins(num: int, k: int, seed: int) -> None:
    probabilities, labels = invented(num, k, seed=seed)
    found = expected_calibration_error(probabilities, labels)
    bins = reliability_bins(probabilities, labels)
    assert 0 <= found <= 1
    assert found == pytest.approx(sum(abs(b.confidence - b.accuracy.value) * b.num_pictures for b in bins) / num)
    assert sum(each.num_pictures for each in bins) == num
    for each in bins:
        assert each.low < each.confidence <= each.high + 1e-12
        assert each.accuracy == wilson_interval(round(each.accuracy.value * each.num_pictures), each.num_pictures)
    assert all(one.high <= other.low + 1e-12 for one, other in itertools.pairwise(bins))


def test_perfect_calibration_quantile_of_one_confidence_is_that_of_the_binomial() -> None:
    from scipy.stats import binom

    num, share = 100, 0.8
    errors = np.abs(binom.rvs(num, share, size=200_000, random_state=1) / num - share)
    expected = float(np.quantile(errors, 0.95))
    found = perfect_calibration_quantile(np.full(num, share), num_draws=20_000)
    assert found == pytest.approx(expected, abs=0.0101)  # one count of the hundred
    assert found == pytest.approx(1.96 * math.sqrt(share * (1 - share) / num), rel=0.1)


def test_perfect_calibration_quantile_is_kept_by_a_calibrated_model_and_broken_by_a_boaster() -> None:
    random = np.random.Generator(np.random.Philox(3))
    below = 0
    for seed in range(60):
        probabilities, _ = invented(372, 10, seed=seed)
        exact = probabilities.astype(np.float64) / probabilities.sum(1, keepdims=True, dtype=np.float64)
        labels = np.array([random.choice(10, p=row) for row in exact])
        limit = perfect_calibration_quantile(exact.max(1), num_draws=500)
        below += expected_calibration_error(exact, labels) <= limit
        assert expected_calibration_error(softmax(4 * np.log(exact)), labels) > limit
    assert 52 <= below <= 60  # 57 expected; fewer than 52 has a chance of 1 in 200


def test_perfect_calibration_quantile_twice_is_the_same_and_falls_with_pictures() -> None:
    confidences = np.random.Generator(np.random.Philox(4)).uniform(0.3, 1, 400)
    found = perfect_calibration_quantile(confidences)
    assert found == perfect_calibration_quantile(confidences[::-1].copy())
    assert perfect_calibration_quantile(np.tile(confidences, 16)) < found / 3
    assert perfect_calibration_quantile(np.ones(50)) == 0
