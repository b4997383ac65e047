"""Intervals against scikit-learn draw by draw, scipy, and the formula of DeLong; then coverage, then determinism."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldertune.evaluation.calibration import expected_calibration_error
from foldertune.evaluation.intervals import (
    Area,
    area,
    area_interval,
    grouped_share,
    loss_interval,
    mean_area_interval,
    mirrored_interval,
    resample,
    share_interval,
)
from foldertune.evaluation.metrics import log_loss, softmax, wilson, wilson_interval


def invented(num_pictures: int, num_classes: int, *, seed: int = 0, skill: float = 1.5) -> tuple[Any, Any]:
    random = np.random.Generator(np.random.Philox(seed))
    labels = random.integers(num_classes, size=num_pictures)
    logits = random.normal(size=(num_pictures, num_classes)) + skill * np.eye(num_classes)[labels]
    return softmax(logits), labels


@pytest.mark.parametrize("grouped", [False, True])
def test_resample_every_draw_agrees_with_measuring_the_drawn_pictures(grouped: bool) -> None:
    from sklearn.metrics import f1_score

    probabilities, labels = invented(60, 4)
    groups = np.arange(60) // 3 if grouped else None
    num_units = 20 if grouped else 60
    found = resample(probabilities, labels, groups=groups, num_draws=25, seed=7)
    random = np.random.Generator(np.random.Philox(key=[7, 0x626F6F74]))
    drawn = random.integers(num_units, size=(25, num_units))
    for number, units in enumerate(drawn):
        places = np.concatenate([np.arange(60)[(np.arange(60) // 3 if grouped else np.arange(60)) == u] for u in units])
        p, y = probabilities[places], labels[places]
        assert found.log_loss[number] == pytest.approx(log_loss(p, y))
        assert found.macro_f1[number] == pytest.approx(f1_score(y, p.argmax(1), average="macro"))
        assert found.calibration_error[number] == pytest.approx(expected_calibration_error(p, y))


def test_resample_ten_thousand_pictures_of_a_hundred_classes_takes_seconds() -> None:
    probabilities, labels = invented(10_000, 100)
    resample(*invented(50, 3))  # what is loaded at the first use
    began = time.monotonic()
    found = resample(probabilities, labels)
    assert time.monotonic() - began < 10
    assert len(found.macro_f1) == 2000


def test_resample_twice_is_the_same() -> None:
    one, other = (resample(*invented(80, 3), num_draws=50) for _ in range(2))
    assert (one.macro_f1 == other.macro_f1).all()
    assert (one.log_loss == other.log_loss).all()


def test_resample_groups_that_are_copies_make_the_interval_as_wide_as_the_groups_alone() -> None:
    probabilities, labels = invented(50, 3)
    once = resample(probabilities, labels).log_loss.std()
    copied = np.repeat(probabilities, 4, axis=0), np.repeat(labels, 4)
    assert resample(*copied, groups=np.repeat(np.arange(50), 4)).log_loss.std() == pytest.approx(once, rel=0.1)
    assert resample(*copied).log_loss.std() == pytest.approx(once / 2, rel=0.1)


def test_share_interval_of_an_accuracy_is_near_wilsons() -> None:
    random = np.random.Generator(np.random.Philox(1))
    drawn = random.binomial(200, 0.85, 5000) / 200
    found, wilson = share_interval(0.85, drawn, 200), wilson_interval(170, 200)
    assert found.low == pytest.approx(wilson.low, abs=0.006)
    assert found.high == pytest.approx(wilson.high, abs=0.006)


def test_share_interval_where_no_draw_differs_is_wilsons() -> None:
    found, wilson = share_interval(1.0, np.ones(100), 12), wilson_interval(12, 12)
    assert (found.low, found.high) == (wilson.low, 1.0)


def test_loss_interval_holds_the_value_and_mirrored_interval_starts_at_zero() -> None:
    random = np.random.Generator(np.random.Philox(2))
    drawn = 0.4 * np.exp(random.normal(0, 0.1, 5000))
    found = loss_interval(0.4, drawn)
    assert (found.low, found.high) == pytest.approx((0.4 * np.exp(-0.196), 0.4 * np.exp(0.196)), rel=0.02)
    mirrored = mirrored_interval(0.02, np.linspace(0.01, 0.07, 1000))
    assert mirrored.low == 0
    assert mirrored.value <= mirrored.high


# -------------------------------------------------------------------------------------------------------------------------- AUC


def found_area(scores: Any, positive: Any) -> Area:
    found = area(np.asarray(scores, float), np.asarray(positive, bool))
    assert found is not None
    return found


@pytest.mark.parametrize("ties", [False, True])
def test_area_agrees_with_scikit_learn_and_its_variance_with_delong(ties: bool) -> None:
    from sklearn.metrics import roc_auc_score

    random = np.random.Generator(np.random.Philox(5))
    positive = random.random(140) < 0.3
    scores = random.normal(size=140) + positive
    scores = scores.round(1) if ties else scores
    found = found_area(scores, positive)
    assert found.value == pytest.approx(roc_auc_score(positive, scores))
    # DeLong's components, pair by pair.
    ups, downs = scores[positive], scores[~positive]
    psi = (ups[:, None] > downs).astype(float) + 0.5 * (ups[:, None] == downs)
    variance = psi.mean(1).var(ddof=1) / len(ups) + psi.mean(0).var(ddof=1) / len(downs)
    assert np.square(found.influence).sum() == pytest.approx(variance)


def test_area_of_one_class_alone_is_none() -> None:
    assert area(np.arange(4.0), np.ones(4, bool)) is None


def test_area_interval_of_perfect_scores_is_newcombes() -> None:
    # Newcombe's method at the end: the least area whose own standard error reaches 1, solved here by a fine search.
    found = area_interval(found_area([0, 1, 2, 3, 4, 5, 6, 7], [0, 0, 0, 0, 0, 1, 1, 1]))
    values = np.linspace(0.01, 0.9999, 200_000)
    middle = 8 / 2 - 1
    spread = np.sqrt(
        values * (1 - values) * (1 + middle * (1 - values) / (2 - values) + middle * values / (1 + values)) / 15
    )
    expected = values[np.argmin(np.abs(1 - values - 1.959964 * spread))]
    assert found.value == found.high == 1
    assert found.low == pytest.approx(expected, abs=1e-3)


@given(st.integers(0, 300))
def test_area_interval_holds_its_value_and_turns_with_the_scores(seed: int) -> None:
    random = np.random.Generator(np.random.Philox(seed))
    positive = np.arange(20) < 2 + seed % 15
    scores = random.normal(size=20)
    found, turned = area_interval(found_area(scores, positive)), area_interval(found_area(-scores, positive))
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert (turned.value, turned.low, turned.high) == pytest.approx((1 - found.value, 1 - found.high, 1 - found.low))


def test_area_interval_groups_that_are_copies_are_as_wide_as_the_groups_alone() -> None:
    random = np.random.Generator(np.random.Philox(6))
    positive = np.arange(100) < 50
    scores = random.normal(size=100) + 2 * positive
    once = area_interval(found_area(scores, positive))
    copied = found_area(np.repeat(scores, 3), np.repeat(positive, 3))
    grouped = area_interval(copied, np.repeat(np.arange(100), 3))
    assert grouped.high - grouped.low == pytest.approx(once.high - once.low, rel=0.05)
    assert area_interval(copied).low > grouped.low


def test_mean_area_interval_of_the_same_area_twice_is_that_area() -> None:
    random = np.random.Generator(np.random.Philox(8))
    positive = np.arange(200) < 100
    found = found_area(random.normal(size=200) + positive, positive)
    one, mean = area_interval(found), mean_area_interval([found, found])
    assert (mean.value, mean.low, mean.high) == pytest.approx((one.value, one.low, one.high))


def test_intervals_cover_the_figures_of_a_known_population() -> None:
    """Nominal 95 % in 150 samples: between 90 and 99 % is what chance leaves (benchmarks/coverage.py has more of them)."""
    from sklearn.metrics import f1_score, roc_auc_score

    p, y = invented(200_000, 3, skill=2.0)
    truths = f1_score(y, p.argmax(1), average="macro"), log_loss(p, y), roc_auc_score(y == 0, p[:, 0])
    held = np.zeros(3)
    for start in range(150):
        part = slice(200 * start, 200 * start + 200)
        drawn = resample(p[part], y[part], num_draws=400, seed=start)
        figures = (
            share_interval(f1_score(y[part], p[part].argmax(1), average="macro"), drawn.macro_f1, 200),
            loss_interval(log_loss(p[part], y[part]), drawn.log_loss),
            area_interval(found_area(p[part][:, 0], y[part] == 0)),
        )
        held += [each.low <= truth <= each.high for each, truth in zip(figures, truths, strict=True)]
    assert (held / 150 >= 0.90).all()
    assert (held / 150 <= 0.99).all()


# Shares of pictures in groups


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_grouped_share_without_groups_is_wilsons(right: list[bool]) -> None:
    assert grouped_share(np.array(right)) == wilson_interval(sum(right), len(right))


def test_grouped_share_of_pictures_that_come_thrice_is_that_of_a_third_of_them() -> None:
    """Exactly so many: G / (G - 1) is all that an estimate adds."""
    right = np.random.default_rng(1).random(90) < 0.8
    found = grouped_share(np.repeat(right, 3), np.repeat(np.arange(90), 3))
    plain = wilson(float(right.mean()), 90 * 89 / 90)
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high))


def test_grouped_share_where_all_are_right_counts_each_group_once() -> None:
    found = grouped_share(np.ones(60, np.bool_), np.repeat(np.arange(6), 10))
    assert found == wilson_interval(6, 6)
    assert grouped_share(np.ones(5, np.bool_), np.zeros(5, np.int64)) == wilson_interval(1, 1)


def test_grouped_share_is_never_narrower_than_for_independent_pictures() -> None:
    """Groups that are more alike than chance makes them, such as one right and one wrong each, are no reason to be surer."""
    right = np.tile([True, False], 40)
    found, plain = grouped_share(right, np.repeat(np.arange(40), 2)), wilson_interval(40, 80)
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high))


@pytest.mark.parametrize("size", [1, 4, 12])
def test_grouped_share_holds_the_truth_where_pictures_of_a_group_agree(size: int) -> None:
    random, held, plain_held, num = np.random.default_rng(2), 0, 0, 600
    for _ in range(num):
        of_group = random.beta(0.8 * 2, 0.2 * 2, 40)  # how easy a patient is; 0.8 on average
        right = random.random((40, size)) < of_group[:, None]
        groups = np.repeat(np.arange(40), size)
        found, plain = grouped_share(right.ravel(), groups), wilson_interval(int(right.sum()), right.size)
        held += found.low <= 0.8 <= found.high
        plain_held += plain.low <= 0.8 <= plain.high
    assert held / num > 0.92
    assert size == 1 or plain_held < held
