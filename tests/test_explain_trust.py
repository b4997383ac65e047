"""The checks of a map against scipy and exact cases, and the rule that makes one number of them."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from foldertune.explanation.geometry import Grid
from foldertune.explanation.trust import (
    NUM_ORDERS,
    NUM_STEPS,
    check_map,
    failures_of,
    rank_correlation,
    trust_of,
    uncovered,
)
from foldertune.records import Checks

SIDE = 64
GOOD = Checks(likeness=0.1, insertion=0.8, deletion=0.2, by_chance=0.5, luck=0.2, span=0.9)


def grid_of(values: np.ndarray) -> Grid:
    return Grid(values, 4.0, 8.0, SIDE)


@given(st.integers(0, 10_000), st.integers(2, 60), st.integers(2, 9))
def test_rank_correlation_with_ties_agrees_with_scipy(seed: int, num_values: int, num_levels: int) -> None:
    random = np.random.default_rng(seed)
    first, second = random.integers(0, num_levels, (2, num_values)).astype(float)
    if np.ptp(first) and np.ptp(second):
        assert rank_correlation(first, second) == pytest.approx(spearmanr(first, second).statistic, abs=1e-12)
    else:
        assert rank_correlation(first, second) == 0


def test_uncovered_shows_more_and_more_from_the_hottest_place_on() -> None:
    values = np.zeros((8, 8))
    values[2, 6] = 1
    picture, empty = np.full((SIDE, SIDE, 3), 200, np.uint8), np.full((SIDE, SIDE, 3), 10, np.uint8)
    found = uncovered(grid_of(values), picture, empty)
    assert found.shape == (NUM_STEPS - 1, SIDE, SIDE, 3)
    shown = found[..., 0] == 200
    assert shown.mean((1, 2)).tolist() == [step / NUM_STEPS for step in range(1, NUM_STEPS)]
    for less, more in itertools.pairwise(shown):
        assert (more | ~less).all()
    y, x = np.nonzero(shown[0])
    assert (y.mean() + 0.5, x.mean() + 0.5) == pytest.approx((20, 52), abs=4)


def scene() -> tuple[np.ndarray, np.ndarray]:
    """A picture whose bright corner is all that counts, and a map that points there."""
    picture = np.full((SIDE, SIDE, 3), 20, np.uint8)
    picture[:16, :16] = 250
    values = np.zeros((8, 8))
    values[:2, :2] = 1
    return picture, values + 0.01 * np.random.default_rng(0).random((8, 8))


def answer(pictures: np.ndarray) -> np.ndarray:
    """A classifier that looks at the corner alone."""
    return np.asarray(pictures[:, :16, :16].mean((1, 2, 3)) / 255)


def test_check_map_of_known_evidence_tells_right_from_wrong() -> None:
    picture, values = scene()
    others = [grid_of(np.random.default_rng(seed).random((8, 8))) for seed in range(3)]
    right = check_map(grid_of(values), others, picture, answer, seed=1)
    wrong = check_map(grid_of(-values), others, picture, answer, seed=1)
    assert right.insertion > right.by_chance > right.deletion
    # Uncovering by the turned map is covering by the map, backwards.
    assert (wrong.insertion, wrong.deletion) == pytest.approx((right.deletion, right.insertion))
    assert right.insertion > 0.85  # an eighth of the picture is the corner and more
    assert right.span == pytest.approx(250 / 255 - np.round(picture.mean()) / 255, abs=0.01)
    assert trust_of(right) > 0.6
    assert failures_of(right, "corner") == ()
    assert trust_of(wrong) == 0
    assert "no more than hiding parts at random" in failures_of(wrong, "corner")[0]


def test_check_map_asks_for_every_curve_once() -> None:
    asked = 0

    def counting(pictures: np.ndarray) -> np.ndarray:
        nonlocal asked
        asked += len(pictures)
        return answer(pictures)

    picture, values = scene()
    first = check_map(grid_of(values), [grid_of(values)], picture, counting, seed=1)
    assert asked == 2 + (2 + NUM_ORDERS) * (NUM_STEPS - 1)
    assert first == check_map(grid_of(values), [grid_of(values)], picture, answer, seed=1)
    assert first.likeness == pytest.approx(1)


def test_map_that_stays_when_layers_are_randomised_is_not_trusted() -> None:
    picture, values = scene()
    checks = check_map(grid_of(values), [grid_of(values)] * 3, picture, answer, seed=1)
    assert trust_of(checks) == pytest.approx(0)
    assert "rank correlation 1.00" in failures_of(checks, "corner")[0]


def test_answer_that_nothing_changes_is_not_trusted() -> None:
    picture, values = scene()
    checks = check_map(
        grid_of(values), [grid_of(-values)], picture, lambda pictures: np.full(len(pictures), 0.3), seed=1
    )
    assert checks.span == 0
    assert trust_of(checks) == 0
    (told,) = failures_of(checks, "corner")
    assert "changes by 0.0 points at most" in told


@pytest.mark.parametrize(
    ("changes", "trust", "num_failures"),
    [
        ({}, 0.9, 0),
        ({"likeness": -0.3}, 1.0, 0),
        ({"likeness": 0.6}, 0.4, 1),
        ({"insertion": 0.35, "deletion": 0.26}, 0.9 * 0.09 / 0.45, 1),
        ({"insertion": 0.2, "deletion": 0.8}, 0.0, 1),
        ({"span": 0.05, "insertion": 0.51, "deletion": 0.5}, 0.9 * 0.01 / 0.05, 1),
        ({"likeness": 0.9, "span": 0.0, "insertion": 0.5, "deletion": 0.5}, 0.0, 2),
    ],
)
def test_trust_follows_its_rule(changes: dict[str, float], trust: float, num_failures: int) -> None:
    checks = dataclasses.replace(GOOD, **changes)
    assert trust_of(checks) == pytest.approx(trust)
    assert len(failures_of(checks, "x")) == num_failures


@given(*[st.floats(0, 1)] * 4, st.floats(-1, 1))
def test_trust_is_a_share(insertion: float, deletion: float, luck: float, span: float, likeness: float) -> None:
    assert 0 <= trust_of(Checks(likeness, insertion, deletion, 0.5, luck, span)) <= 1
