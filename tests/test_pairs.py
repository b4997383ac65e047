"""Two networks on the same pictures: the test against scipy's, the interval against simulation, the correction by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, t, ttest_rel

from foldertune.evaluation.intervals import grouped_share
from foldertune.evaluation.metrics import wilson_interval
from foldertune.evaluation.pairs import SURE, compare_rights, corrected, efficient, mean_accuracy, picture_variance


def drawn(random: np.random.Generator, accuracy: float, *, repeats: int, num: int = 200) -> np.ndarray:
    return random.random((repeats, num)) < accuracy


def test_with_repeats_that_agree_p_and_interval_are_those_of_the_paired_t_test_or_the_exact_one() -> None:
    random = np.random.default_rng(1)
    one, other = np.repeat(drawn(random, 0.9, repeats=1), 3, 0), np.repeat(drawn(random, 0.8, repeats=1), 3, 0)
    found = compare_rights(("a", one), ("b", other))
    expected = ttest_rel(one[0].astype(float), other[0].astype(float))
    ups, downs = int((one[0] & ~other[0]).sum()), int((other[0] & ~one[0]).sum())
    assert found.p == pytest.approx(max(float(expected.pvalue), binomtest(ups, ups + downs).pvalue), rel=1e-9)
    low, high = expected.confidence_interval(0.95)
    # The interval of so few pictures is another formula, and as wide to a twentieth.
    assert (found.difference.low, found.difference.high) == pytest.approx((low, high), abs=0.05 * (high - low))
    assert found.difference.low <= low
    assert found.difference.high >= high
    assert found.difference.value == pytest.approx(one.mean() - other.mean())


def test_trained_once_p_is_no_lower_than_mcnemars_exact_and_the_interval_is_wider_than_the_pictures_alone() -> None:
    random = np.random.default_rng(2)
    one, other = drawn(random, 0.9, repeats=1), drawn(random, 0.82, repeats=1)
    found = compare_rights(("a", one), ("b", other))
    ups, downs = int((one & ~other).sum()), int((other & ~one).sum())
    assert found.p >= binomtest(ups, ups + downs).pvalue
    assert (found.only_first, found.only_second) == (ups, downs)
    plain = ttest_rel(one[0].astype(float), other[0].astype(float)).confidence_interval(0.95)
    assert found.difference.low < plain[0]
    assert found.difference.high > plain[1]


def test_trained_once_and_no_picture_differs_no_difference_is_shown_and_the_interval_has_a_width() -> None:
    right = drawn(np.random.default_rng(3), 0.9, repeats=1)
    found = compare_rights(("a", right), ("b", right.copy()))
    assert found.p == 1.0
    assert not found.shown
    assert found.difference.low < 0 < found.difference.high


def test_repeats_that_agree_show_no_more_than_one_training_of_each() -> None:
    """Else a training that chance does not touch would be made surer by repeating it."""
    one = np.ones((3, 50), np.bool_)
    other = one.copy()
    other[:, :5] = False
    found = compare_rights(("a", one), ("b", other))
    assert found.p == pytest.approx(binomtest(5, 5).pvalue)
    assert not found.shown
    same = compare_rights(("a", one), ("b", one.copy()))
    assert same.p == 1.0
    assert same.difference.low < 0 < same.difference.high


def test_one_network_that_wanders_has_the_freedom_of_its_own_repeats() -> None:
    """Welch: two repeats of the one that wanders have one degree of freedom, however steady the other is."""
    steady = np.zeros((2, 100), np.bool_)
    wandering = np.stack([np.arange(100) < 10, np.arange(100) < 60])
    found = compare_rights(("a", wandering), ("b", steady))
    variances = wandering.mean(0).var(ddof=1) / 100, wandering.mean(1).var(ddof=1) / 2
    freedom = sum(variances) ** 2 / (variances[0] ** 2 / 99 + variances[1] ** 2 / 1)
    assert found.p == pytest.approx(2 * t.sf(0.35 / math.sqrt(sum(variances)), freedom))


def test_answers_of_other_pictures_or_another_number_of_repeats_are_our_own_mistake() -> None:
    with pytest.raises(ValueError, match=r"\(2, 9\) answers cannot be paired with \(1, 9\)"):
        compare_rights(("a", np.ones((2, 9), np.bool_)), ("b", np.ones((1, 9), np.bool_)))


@pytest.mark.parametrize("repeats", [1, 3])
def test_swapped_networks_give_the_mirrored_difference(repeats: int) -> None:
    random = np.random.default_rng(4)
    one, other = drawn(random, 0.9, repeats=repeats), drawn(random, 0.8, repeats=repeats)
    there, back = compare_rights(("a", one), ("b", other)), compare_rights(("b", other), ("a", one))
    assert there.p == pytest.approx(back.p)
    assert there.difference.low == pytest.approx(-back.difference.high)
    assert there.difference.value == pytest.approx(-back.difference.value)
    assert (there.only_first, there.only_second) == (back.only_second, back.only_first)


def test_repeats_whose_accuracy_wanders_make_the_interval_hold_what_the_networks_do_on_average() -> None:
    """Networks of equal mean accuracy, each training of which has its own: called different in about 5 of 100."""
    random, calls, num = np.random.default_rng(5), 0, 400
    for _ in range(num):
        hard = random.random(300)  # of each picture, the same for all
        runs = [hard < accuracy for accuracy in 0.85 + 0.03 * random.standard_normal(6)]
        noisy = [right ^ (random.random(300) < 0.02) for right in runs]
        calls += compare_rights(("a", np.array(noisy[:3])), ("b", np.array(noisy[3:]))).shown
    assert calls / num < SURE + 2.6 * math.sqrt(SURE * (1 - SURE) / num)


def test_pictures_of_one_group_count_as_one_witness() -> None:
    differences = np.repeat([1.0, 0.0, -1.0, 0.0, 1.0, 1.0], 10)
    groups = np.repeat(np.arange(6), 10)
    found = picture_variance(differences, groups)
    means = differences.reshape(6, 10).mean(1)
    assert found.freedom == 5
    assert found.variance == pytest.approx(means.var(ddof=1) / 6)
    assert found.variance > picture_variance(differences).variance


def test_groups_of_one_picture_each_are_as_no_groups() -> None:
    differences = np.random.default_rng(6).normal(size=50)
    by_groups, plain = picture_variance(differences, np.arange(50)), picture_variance(differences)
    assert by_groups.variance == pytest.approx(plain.variance)
    assert by_groups.freedom == plain.freedom


@pytest.mark.parametrize("groups", [None, np.zeros(1, np.int64)])
def test_one_picture_shows_nothing(groups: np.ndarray | None) -> None:
    found = compare_rights(("a", np.array([[True]])), ("b", np.array([[False]])), groups)
    assert not found.shown
    assert (found.difference.low, found.difference.high) == (-1.0, 1.0)


def test_corrected_is_holms_example() -> None:
    assert corrected([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert corrected([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_corrected_is_never_below_what_was_given_keeps_the_order_and_stays_a_probability(values: list[float]) -> None:
    found = corrected(values)
    assert all(value <= after <= 1 for value, after in zip(values, found, strict=True))
    order = sorted(range(len(values)), key=lambda place: values[place])
    assert [found[place] for place in order] == sorted(found)


def test_mean_accuracy_of_one_training_is_wilsons() -> None:
    right = drawn(np.random.default_rng(7), 0.9, repeats=1)
    assert mean_accuracy(right) == wilson_interval(int(right.sum()), right.size)
    assert mean_accuracy(np.repeat(right, 3, 0)) == wilson_interval(int(right.sum()), right.size)


def test_mean_accuracy_goes_by_groups() -> None:
    right = np.repeat(np.random.default_rng(9).random(50) < 0.8, 4)[None]
    groups = np.repeat(np.arange(50), 4)
    assert mean_accuracy(right, groups) == grouped_share(right[0], groups)
    assert mean_accuracy(right, groups).low < mean_accuracy(right).low


def test_mean_accuracy_holds_what_a_network_does_on_average_over_trainings_and_pictures() -> None:
    random, held, num = np.random.default_rng(8), 0, 400
    for _ in range(num):
        accuracies = np.clip(0.8 + 0.04 * random.standard_normal(3), 0, 1)
        found = mean_accuracy(random.random((3, 150)) < accuracies[:, None])
        held += found.low <= 0.8 <= found.high
    assert held / num > 0.93


def test_efficient_is_what_nothing_beats_and_equals_stand_together() -> None:
    assert efficient([0.9, 0.8, 0.8, 0.95], [2.0, 1.0, 3.0, 9.0]) == [True, True, False, True]
    assert efficient([0.9, 0.9], [1.0, 1.0]) == [True, True]
    assert efficient([0.9, 0.9], [1.0, 2.0]) == [True, False]
