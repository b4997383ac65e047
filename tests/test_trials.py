"""Heads fitted again on parts of the pictures: against scikit-learn, against leaks, and the corrected interval against its formula."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from foldertune.evaluation.metrics import wilson_interval
from foldertune.records import Picture, Split
from foldertune.training.head import refit_folds, refit_head
from foldertune.training.trials import (
    FEW_TEST_PICTURES,
    Features,
    corrected_interval,
    cross_validate,
    held_out_aurocs,
    wants_cross_validation,
)


def clusters(
    num: int, num_classes: int, *, seed: int = 0, spread: float = 1.0, dimensions: int = 24
) -> tuple[Any, Any]:
    random = np.random.Generator(np.random.Philox(seed))
    labels = np.arange(num) % num_classes
    centres = np.random.Generator(np.random.Philox(99)).normal(size=(num_classes, dimensions))
    return (centres[labels] + spread * random.normal(size=(num, dimensions))).astype(np.float32), labels


def features_of(num_classes: int = 5, *, spread: float = 1.0, **sizes: int) -> Features:
    found = {
        split: clusters(num, num_classes, seed=place, spread=spread) for place, (split, num) in enumerate(sizes.items())
    }
    values: dict[Split, Any] = {split: found[split][0] for split in ("train", "val", "test")}
    labels: dict[Split, Any] = {split: found[split][1] for split in ("train", "val", "test")}
    return Features(values, labels, num_classes)


def pictures_of(found: Features) -> dict[Split, list[Picture]]:
    pictures: dict[Split, list[Picture]] = {}
    row = 0
    for split, labels in found.labels.items():
        pictures[split] = [
            Picture(row + place, f"{row + place}.jpg", str(k), split, sha256=f"{row + place:x}")
            for place, k in enumerate(labels)
        ]
        row += len(labels)
    return pictures


def test_refit_head_agrees_with_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    x, y = clusters(150, 3)
    weight, bias = refit_head(x, y, num_classes=3, strength=0.1)
    mean, scale = x.mean(0), float(x.std(0).mean())
    reference = LogisticRegression(C=0.1, max_iter=5000, tol=1e-8).fit((x - mean) / scale, y)
    found = x @ weight.T + bias
    expected = (x - mean) / scale @ reference.coef_.T + reference.intercept_
    np.testing.assert_allclose(
        found - found.mean(1, keepdims=True), expected - expected.mean(1, keepdims=True), atol=5e-3
    )


def test_refit_folds_agrees_with_fitting_each_fold_alone() -> None:
    x, y = clusters(120, 3)
    folds = np.arange(120) // 3 % 4
    (found,) = refit_folds(x, y, folds[None], num_classes=3, strength=0.1)
    # The folds share the scale of all rows, so that the same strength means the same: it is handed on.
    scale = float(x.std(0).mean())
    for fold in range(4):
        inside = folds != fold
        own = float(x[inside].std(0).mean())
        weight, bias = refit_head(x[inside], y[inside], num_classes=3, strength=0.1 * (own / scale) ** 2)
        logits = x[~inside] @ weight.T + bias
        expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        np.testing.assert_allclose(found[~inside], expected, atol=0.01)


def test_held_out_aurocs_tell_classes_apart_and_need_enough_of_them() -> None:
    found = held_out_aurocs(features_of(train=200, val=100, test=0), strength=0.1)
    assert set(found) == {"distance", "energy", "max softmax"}
    assert all(0.5 < value <= 1 for value in found.values())
    assert held_out_aurocs(features_of(train=200, val=100, test=0), strength=0.1) == found
    assert held_out_aurocs(features_of(3, train=200, val=100, test=0), strength=0.1) == {}
    assert held_out_aurocs(features_of(train=200, val=15, test=0), strength=0.1) == {}


def test_cross_validate_is_near_the_accuracy_on_new_pictures_and_the_same_twice() -> None:
    found = features_of(spread=4.0, train=150, val=50, test=100)
    crossed = cross_validate(found, pictures_of(found), strength=0.1, seed=3)
    x, y = clusters(4000, 5, seed=50, spread=4.0)
    weight, bias = refit_head(found.values["train"], found.labels["train"], num_classes=5, strength=0.1)
    assert crossed.accuracy.value == pytest.approx(float(((x @ weight.T + bias).argmax(1) == y).mean()), abs=0.05)
    assert crossed.accuracy.low < crossed.accuracy.value < crossed.accuracy.high
    assert np.mean([recall.value for recall in crossed.recalls]) == pytest.approx(crossed.accuracy.value, abs=0.01)
    assert (crossed.num_pictures, crossed.num_folds, crossed.num_repeats) == (300, 5, 3)
    assert cross_validate(found, pictures_of(found), strength=0.1, seed=3) == crossed


def test_cross_validate_copies_with_false_labels_help_nobody_who_keeps_them_together() -> None:
    """Noise that was copied: with the copies on both sides a head knows the answer."""
    random = np.random.Generator(np.random.Philox(5))
    once, labels = random.normal(size=(100, 60)).astype(np.float32), random.integers(2, size=100)
    values: dict[Split, Any] = {"train": once, "val": once[:0], "test": once}
    found = Features(values, {"train": labels, "val": labels[:0], "test": labels}, 2)
    pictures = pictures_of(found)
    parted = cross_validate(found, pictures, strength=1.0, seed=0)
    grouped = {
        split: tuple(replace(picture, group=f"like {picture.row % 100}") for picture in pictures[split])
        for split in pictures
    }
    together = cross_validate(found, grouped, strength=1.0, seed=0)
    assert parted.accuracy.value > 0.7
    assert together.accuracy.value < 0.65


def test_corrected_interval_by_its_formula() -> None:
    from scipy.stats import t

    shares = [0.80, 0.85, 0.9, 0.82, 0.88]
    found = corrected_interval(shares, test_share=0.2, num_pictures=1000)
    spread = t.ppf(0.975, 4) * np.sqrt((1 / 5 + 0.25) * np.var(shares, ddof=1))
    assert (found.value, found.low) == pytest.approx((0.85, 0.85 - spread))
    assert found.high == min(1, 0.85 + spread)
    certain = corrected_interval([1.0] * 5, test_share=0.2, num_pictures=40)
    assert (certain.low, certain.high) == (wilson_interval(40, 40).low, 1.0)


def test_wants_cross_validation_where_a_class_has_few_test_pictures() -> None:
    assert wants_cross_validation(features_of(train=100, val=20, test=5 * FEW_TEST_PICTURES - 1))
    assert not wants_cross_validation(features_of(train=100, val=20, test=5 * FEW_TEST_PICTURES))
    assert not wants_cross_validation(features_of(train=0, val=20, test=10))
