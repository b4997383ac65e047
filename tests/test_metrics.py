"""Figures against scikit-learn, scipy and hand counts; then properties; then determinism."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from foldertune.errors import DataError, WorkFailedError
from foldertune.evaluation.metrics import (
    careful_temperature,
    evaluate_probabilities,
    fit_temperature,
    log_loss,
    paired_difference,
    paired_share_difference,
    picture_losses,
    softmax,
    wilson_interval,
    worst_mistakes,
)
from foldertune.records import Evaluation

Answers = tuple[NDArray[np.float32], NDArray[np.int64]]


def invented(num_pictures: int, num_classes: int, *, seed: int = 0, skill: float = 1.5) -> Answers:
    random = np.random.Generator(np.random.Philox(seed))
    labels = random.integers(num_classes, size=num_pictures)
    logits = random.normal(size=(num_pictures, num_classes))
    logits[np.arange(num_pictures), labels] += skill
    return softmax(logits), labels


def measured(probabilities: NDArray[Any], labels: NDArray[Any]) -> Evaluation:
    names = [f"class {number}" for number in range(probabilities.shape[1])]
    return evaluate_probabilities(probabilities, labels, classes=names, split="test")


@st.composite
def answers(draw: st.DrawFn) -> Answers:
    num_pictures, num_classes = draw(st.integers(1, 40)), draw(st.integers(2, 8))
    finite = st.floats(-30, 30, width=32)
    logits = draw(arrays.arrays(np.float32, (num_pictures, num_classes), elements=finite))
    labels = draw(arrays.arrays(np.int64, num_pictures, elements=st.integers(0, num_classes - 1)))
    return softmax(logits), labels


# --------------------------------------------------------------------------------------------- evaluate_probabilities


@pytest.mark.parametrize(("num_pictures", "num_classes"), [(1, 2), (40, 2), (200, 7), (300, 40)])
def test_evaluate_probabilities_random_answers_agree_with_scikit_learn(num_pictures: int, num_classes: int) -> None:
    from sklearn import metrics

    probabilities, labels = invented(num_pictures, num_classes)
    found, predicted = measured(probabilities, labels), probabilities.argmax(1)
    assert found.accuracy.value == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert found.macro_f1 == pytest.approx(metrics.f1_score(labels, predicted, average="macro"))
    exact = probabilities.astype(np.float64) / probabilities.sum(1, keepdims=True, dtype=np.float64)
    numbers = np.arange(num_classes)
    assert found.log_loss == pytest.approx(metrics.log_loss(labels, exact, labels=numbers), abs=1e-6)
    if num_classes > 5:
        assert found.top5 == pytest.approx(metrics.top_k_accuracy_score(labels, probabilities, k=5, labels=numbers))
    else:
        assert found.top5 is None


def test_evaluate_probabilities_random_answers_agree_with_counting_by_hand() -> None:
    probabilities, labels = invented(120, 6, seed=3)
    found, predicted = measured(probabilities, labels), probabilities.argmax(1)
    for i in range(6):
        for j in range(6):
            assert found.confusion[i][j] == sum(a == i and b == j for a, b in zip(labels, predicted, strict=True))
    for number, score in enumerate(found.per_class):
        hits = found.confusion[number][number]
        answered = sum(row[number] for row in found.confusion)
        assert score.recall == pytest.approx(hits / sum(found.confusion[number]))
        assert score.precision == pytest.approx(hits / answered)
        assert score.f1 == pytest.approx(2 * hits / (answered + score.num_pictures))


def test_evaluate_probabilities_class_without_pictures_keeps_its_place() -> None:
    names = ("ant", "bee", "cat", "dog")
    probabilities = np.eye(4, dtype=np.float32)[[0, 2, 2, 3]]
    found = evaluate_probabilities(probabilities, np.array([0, 2, 2, 2]), classes=names, split="test")
    assert [score.label for score in found.per_class] == list(names)
    assert [score.num_pictures for score in found.per_class] == [1, 0, 3, 0]
    bee = found.per_class[1]
    assert (bee.precision, bee.recall, bee.f1) == (0.0, 0.0, 0.0)
    assert found.confusion == ((1, 0, 0, 0), (0, 0, 0, 0), (0, 0, 2, 1), (0, 0, 0, 0))
    # The bee occurs nowhere and does not count; the dog was answered wrongly and does, with F1 0.
    assert found.macro_f1 == pytest.approx((1 + 0.8 + 0) / 3)


def test_evaluate_probabilities_no_pictures_is_refused() -> None:
    with pytest.raises(DataError, match="no picture to measure on"):
        measured(np.zeros((0, 3), np.float32), np.zeros(0, np.int64))


def test_evaluate_probabilities_not_a_number_is_refused() -> None:
    with pytest.raises(WorkFailedError, match="not numbers"):
        measured(np.full((2, 3), np.nan, np.float32), np.array([0, 1]))


@pytest.mark.parametrize("labels", [[0], [0, 3], [-1, 0]])
def test_evaluate_probabilities_labels_that_do_not_fit_are_refused(labels: list[int]) -> None:
    with pytest.raises(ValueError, match=r"do not fit|must lie in"):
        measured(np.full((2, 3), 1 / 3), np.array(labels))


def test_evaluate_probabilities_wrong_number_of_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="3 columns and there are 2 classes"):
        evaluate_probabilities(np.full((1, 3), 1 / 3), np.array([0]), classes=("a", "b"), split="test")


@given(answers(), st.randoms(use_true_random=False))
def test_evaluate_probabilities_order_of_pictures_changes_nothing(given_: Answers, random: Any) -> None:
    probabilities, labels = given_
    order = list(range(len(labels)))
    random.shuffle(order)
    one, other = measured(probabilities, labels), measured(probabilities[order], labels[order])
    assert one.confusion == other.confusion
    assert one.accuracy == other.accuracy
    assert one.per_class == other.per_class
    assert one.top5 == other.top5
    assert one.log_loss == pytest.approx(other.log_loss, rel=1e-12)


@given(answers())
def test_evaluate_probabilities_figures_lie_in_their_bounds(given_: Answers) -> None:
    probabilities, labels = given_
    found = measured(probabilities, labels)
    confusion = np.array(found.confusion)
    assert confusion.sum() == found.num_pictures == len(labels)
    assert confusion.sum(1).tolist() == [score.num_pictures for score in found.per_class]
    assert confusion.sum(0).tolist() == np.bincount(probabilities.argmax(1), minlength=len(confusion)).tolist()
    assert found.accuracy.value == pytest.approx(np.trace(confusion) / len(labels))
    assert 0 <= found.accuracy.low <= found.accuracy.value <= found.accuracy.high <= 1
    assert 0 <= found.macro_f1 <= 1
    assert found.log_loss >= 0
    if found.top5 is not None:
        assert found.accuracy.value <= found.top5 <= 1


def test_evaluate_probabilities_twice_gives_the_same_record() -> None:
    probabilities, labels = invented(500, 30)
    assert measured(probabilities, labels) == measured(probabilities.copy(), labels.copy())


# ------------------------------------------------------------------------------------------------------ wilson_interval


@pytest.mark.parametrize(("num_correct", "num_pictures"), [(0, 1), (1, 1), (0, 10), (7, 10), (323, 372), (5000, 5000)])
def test_wilson_interval_counts_agree_with_scipy(num_correct: int, num_pictures: int) -> None:
    from scipy.stats import binomtest

    found = wilson_interval(num_correct, num_pictures)
    expected = binomtest(num_correct, num_pictures).proportion_ci(0.95, method="wilson")
    assert found.value == num_correct / num_pictures
    assert found.low == pytest.approx(expected.low, abs=1e-12)
    assert found.high == pytest.approx(expected.high, abs=1e-12)


def test_wilson_interval_no_pictures_is_refused() -> None:
    with pytest.raises(DataError, match="at least one readable picture"):
        wilson_interval(0, 0)


def test_wilson_interval_more_correct_than_pictures_is_refused() -> None:
    with pytest.raises(ValueError, match="impossible"):
        wilson_interval(3, 2)


@given(st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_any_counts_hold_the_share_and_narrow_with_pictures(counts: tuple[int, int]) -> None:
    num_correct, num_pictures = counts
    found, more = wilson_interval(num_correct, num_pictures), wilson_interval(4 * num_correct, 4 * num_pictures)
    mirrored = wilson_interval(num_pictures - num_correct, num_pictures)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert more.high - more.low < found.high - found.low
    assert mirrored.low == pytest.approx(1 - found.high, abs=1e-9)


# ------------------------------------------------------------------------------------------------- softmax and log_loss


def test_softmax_large_logits_agree_with_scipy() -> None:
    from scipy.special import softmax as reference

    logits = np.array([[1000.0, 999.0, -1000.0], [-1e4, -1e4, -1e4], [0.5, -0.25, 3.0]], np.float32)
    found = softmax(logits)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, reference(logits.astype(np.float64), axis=1), atol=1e-7)


@given(arrays.arrays(np.float64, (4, 5), elements=st.floats(-100, 100)), st.floats(-1e4, 1e4))
def test_softmax_a_shift_of_all_logits_changes_nothing(logits: NDArray[np.float64], shift: float) -> None:
    found = softmax(logits)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(softmax(logits + shift), found, atol=1e-6)


def test_log_loss_certain_and_wrong_costs_what_the_clipping_says() -> None:
    probabilities = np.array([[1.0, 0.0], [0.25, 0.75]])
    assert log_loss(probabilities, np.array([1, 1])) == pytest.approx((-math.log(1e-7) - math.log(0.75)) / 2)
    assert log_loss(probabilities[:1], np.array([0])) == 0
    assert picture_losses(probabilities, np.array([0, 0])) == pytest.approx([0, -math.log(0.25)])


def test_log_loss_no_pictures_is_refused() -> None:
    with pytest.raises(DataError):
        log_loss(np.zeros((0, 2)), np.zeros(0, np.int64))


# ------------------------------------------------------------------------------------------------------ fit_temperature


@pytest.mark.parametrize("factor", [0.2, 1.0, 6.0])
def test_fit_temperature_invented_logits_agree_with_a_grid(factor: float) -> None:
    from scipy.special import log_softmax

    random = np.random.Generator(np.random.Philox(5))
    labels = random.integers(4, size=400)
    logits = factor * (random.normal(size=(400, 4)) + 1.5 * np.eye(4)[labels])
    grid = np.geomspace(0.05, 20, 4001)
    losses = [-log_softmax(logits / value, axis=1)[np.arange(400), labels].mean() for value in grid]
    assert fit_temperature(logits, labels) == pytest.approx(
        grid[int(np.argmin(losses))], rel=3e-3 if factor > 1 else 0.05
    )


def confidence(logits: NDArray[np.float64], temperature: float) -> float:
    from scipy.special import softmax

    return float(softmax(logits / temperature, axis=1).max(1).mean())


@pytest.mark.parametrize(("num_pictures", "num_wrong"), [(1, 0), (16, 0), (16, 1), (90, 0), (300, 3)])
def test_fit_temperature_makes_no_model_surer_than_its_right_answers_speak_for(
    num_pictures: int, num_wrong: int
) -> None:
    labels = np.arange(num_pictures) % 4
    logits = np.eye(4)[(labels + (np.arange(num_pictures) < num_wrong)) % 4] * 0.7
    temperature = fit_temperature(logits, labels)
    most = (num_pictures - num_wrong + 1) / (num_pictures + 2)
    assert confidence(logits, 1.0) < most  # the logits say little: so many right answers speak for more
    assert confidence(logits, temperature) == pytest.approx(most, abs=1e-6)


def test_fit_temperature_of_a_model_that_is_sure_and_always_right_takes_some_of_it_back() -> None:
    labels = np.arange(16) % 4
    logits = np.eye(4)[labels] * 6.0
    assert confidence(logits, 1.0) > 0.99
    assert confidence(logits, fit_temperature(logits, labels)) == pytest.approx(17 / 18, abs=1e-6)


def test_fit_temperature_scaled_logits_scale_the_temperature() -> None:
    random = np.random.Generator(np.random.Philox(6))
    labels = random.integers(3, size=300)
    logits = random.normal(size=(300, 3)) + np.eye(3)[labels]
    assert fit_temperature(3 * logits, labels) == pytest.approx(3 * fit_temperature(logits, labels), rel=1e-4)


def test_fit_temperature_always_right_or_always_wrong_stays_in_bounds() -> None:
    logits, labels = 0.5 * np.eye(3)[[0, 1, 2]], np.array([0, 1, 2])
    assert 0.05 < fit_temperature(logits, labels) < 1
    assert fit_temperature(logits, np.array([1, 2, 0])) == pytest.approx(20, rel=0.01)


@pytest.mark.parametrize(("num_pictures", "scale"), [(40, 1.2), (4000, 1.2), (400, 4.0)])
def test_careful_temperature_goes_below_one_only_beyond_chance(num_pictures: int, scale: float) -> None:
    """The likelihood ratio test against 1, by scipy."""
    from scipy.special import log_softmax
    from scipy.stats import chi2

    random = np.random.Generator(np.random.Philox(8))
    labels = random.integers(4, size=num_pictures)
    logits = scale * (random.normal(size=(num_pictures, 4)) + 1.5 * np.eye(4)[labels])
    right = np.arange(num_pictures), labels
    fitted = fit_temperature(logits, labels)
    gained = log_softmax(logits / fitted, axis=1)[right].sum() - log_softmax(logits, axis=1)[right].sum()
    beyond = chi2.sf(2 * gained, 1) < 0.05
    assert (fitted < 1, beyond) == {1.2: (True, num_pictures == 4000), 4.0: (False, True)}[scale]
    assert careful_temperature(logits, labels) == (fitted if beyond or fitted >= 1 else 1.0)


def test_careful_temperature_of_three_pictures_is_no_reason_to_be_surer() -> None:
    logits, labels = 0.5 * np.eye(3)[[0, 1, 2]], np.array([0, 1, 2])
    assert careful_temperature(logits, labels) == 1.0
    assert careful_temperature(logits, np.array([1, 2, 0])) == pytest.approx(20, rel=0.01)
    assert careful_temperature(np.zeros((0, 3)), np.zeros(0, np.int64)) == 1.0


def test_fit_temperature_no_pictures_gives_one() -> None:
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0, np.int64)) == 1.0


@settings(max_examples=25)
@given(answers())
def test_fit_temperature_any_logits_do_not_raise_the_loss_but_to_take_confidence_back(given_: Answers) -> None:
    from scipy.special import log_softmax

    probabilities, labels = given_
    logits = np.log(np.maximum(probabilities, 1e-12)).astype(np.float64)
    right = np.arange(len(labels)), labels
    temperature = fit_temperature(logits, labels)
    assert 0.05 <= temperature <= 20
    before, after = (-log_softmax(logits / value, axis=1)[right].mean() for value in (1.0, temperature))
    most = (int((logits.argmax(1) == labels).sum()) + 1) / (len(labels) + 2)
    taken_back = temperature > 19.9 or confidence(logits, temperature) == pytest.approx(most, abs=1e-5)
    assert after <= before + 1e-5 or taken_back


# ---------------------------------------------------------------------------------------------------- paired_difference


def test_paired_difference_random_losses_agree_with_scipy() -> None:
    from scipy.stats import norm, sem

    random = np.random.Generator(np.random.Philox(7))
    one, other = random.gamma(1, 1, 250), random.gamma(1, 0.8, 250)
    found = paired_difference(one, other)
    low, high = norm.interval(0.95, loc=(one - other).mean(), scale=sem(one - other))
    assert found.value == pytest.approx((one - other).mean())
    assert (found.low, found.high) == pytest.approx((low, high))


@given(arrays.arrays(np.float64, (2, 12), elements=st.floats(0, 20)))
def test_paired_difference_exchanged_models_change_the_sign(losses: NDArray[np.float64]) -> None:
    one, other = paired_difference(losses[0], losses[1]), paired_difference(losses[1], losses[0])
    assert one.low <= one.value <= one.high
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))


def test_paired_difference_one_picture_proves_nothing() -> None:
    found = paired_difference(np.array([2.0]), np.array([0.5]))
    assert (found.value, found.low, found.high) == (1.5, -math.inf, math.inf)


def test_paired_difference_nothing_or_uneven_losses_are_refused() -> None:
    with pytest.raises(DataError):
        paired_difference(np.zeros(0), np.zeros(0))
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_difference(np.zeros(3), np.zeros(2))


# ------------------------------------------------------------------------------------------------------- worst_mistakes


def test_paired_share_difference_is_the_difference_of_the_two_accuracies() -> None:
    found = paired_share_difference(9, 4, 200)
    assert found.value == pytest.approx(0.025)
    # By hand: (9.5 - 4.5) / 202 = 0.02475, and 1.96 * sqrt(9.5 + 4.5 - 25 / 202) / 202 = 0.03614.
    assert found.low == pytest.approx(-0.01139, abs=1e-5)
    assert found.high == pytest.approx(0.06090, abs=1e-5)
    turned = paired_share_difference(4, 9, 200)
    assert (turned.value, turned.low, turned.high) == pytest.approx((-found.value, -found.high, -found.low))


def test_paired_share_difference_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(4)
    for lost, won in ((0.03, 0.02), (0.1, 0.1), (0.005, 0.0)):
        counts = random.multinomial(186, [lost, won, 1 - lost - won], 4000)
        intervals = [paired_share_difference(int(first), int(second), 186) for first, second, _ in counts]
        covered = np.mean([each.low <= lost - won <= each.high for each in intervals])
        assert covered > 0.94, (lost, won)


def test_paired_share_difference_without_a_difference_still_doubts() -> None:
    few, many = paired_share_difference(0, 0, 50), paired_share_difference(0, 0, 5000)
    assert few.value == 0
    assert few.low < many.low < 0 < many.high < few.high


def test_paired_share_difference_of_impossible_counts_is_refused() -> None:
    with pytest.raises(DataError, match="There is no picture to compare on"):
        paired_share_difference(0, 0, 0)
    with pytest.raises(ValueError, match="3 and 2 of 4 pictures are impossible"):
        paired_share_difference(3, 2, 4)


def test_worst_mistakes_wrong_answers_come_most_confident_first() -> None:
    probabilities = np.array([[0.6, 0.4], [0.1, 0.9], [0.6, 0.4], [0.2, 0.8], [0.95, 0.05]], np.float32)
    labels = np.array([1, 0, 1, 1, 0])
    assert worst_mistakes(probabilities, labels, count=10) == [1, 0, 2]
    assert worst_mistakes(probabilities, labels, count=2) == [1, 0]
    assert worst_mistakes(probabilities, probabilities.argmax(1), count=5) == []


@given(answers(), st.integers(0, 50))
def test_worst_mistakes_any_answers_are_wrong_and_sorted(given_: Answers, count: int) -> None:
    probabilities, labels = given_
    found = worst_mistakes(probabilities, labels, count=count)
    predicted = probabilities.argmax(1)
    keys = [(-probabilities[position, predicted[position]], position) for position in found]
    assert all(predicted[position] != labels[position] for position in found)
    assert keys == sorted(keys)
    assert len(found) == min(count, int((predicted != labels).sum()))


def test_metrics_import_brings_no_heavy_package() -> None:
    program = "import sys, foldertune.evaluation.metrics; print({'torch', 'sklearn', 'scipy'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
