"""Which model is kept: a tie keeps the baseline, a gain must be earned, and confidence alone wins nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from foldertune.evaluation.metrics import careful_temperature, fit_temperature, log_loss, softmax
from foldertune.records import plain
from foldertune.training.verdict import judge

NUM_CLASSES = 3
Floats = NDArray[np.float32]


def answers(num_pictures: int, *, right: float, margin: float = 2.0, noise: float = 1.0, seed: int = 0) -> Floats:
    """Logits (N, 3) for labels 0, 1, 2, 0, ... of which a share is right, spread evenly, sure by `margin`."""
    random = np.random.default_rng(seed)
    labels = numbers(num_pictures)
    wrong = np.arange(num_pictures) * 7 % num_pictures >= right * num_pictures
    logits = random.normal(scale=noise * 0.3, size=(num_pictures, NUM_CLASSES))
    logits[np.arange(num_pictures), (labels + wrong) % NUM_CLASSES] += margin
    return logits.astype(np.float32)


def numbers(num_pictures: int) -> NDArray[np.int64]:
    return (np.arange(num_pictures) % NUM_CLASSES).astype(np.int64)


CASES: dict[str, tuple[Floats, Floats, str]] = {
    "the same answers": (answers(300, right=0.8), answers(300, right=0.8), "baseline"),
    "the same, only louder": (answers(300, right=0.8), np.float32(5) * answers(300, right=0.8), "baseline"),
    "the same, only quieter": (answers(300, right=0.8), np.float32(0.25) * answers(300, right=0.8), "baseline"),
    "much better": (answers(300, right=0.7), answers(300, right=0.95, seed=1), "fine-tuned"),
    "much worse": (answers(300, right=0.95), answers(300, right=0.7, seed=1), "baseline"),
    "as accurate, and surer where right": (
        answers(300, right=0.8, noise=3), answers(300, right=0.8, margin=3, noise=0.5, seed=1), "fine-tuned",
    ),
    "as accurate, and less sure": (
        answers(300, right=0.8, margin=3, noise=0.5), answers(300, right=0.8, noise=3, seed=1), "baseline",
    ),
    "better on 3 pictures only": (answers(3, right=0.3), answers(3, right=1.0, seed=1), "fine-tuned"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_judge_of_each_case_keeps_the_one_that_earned_it(case: str) -> None:
    baseline, tuned, kept = CASES[case]
    labels = numbers(len(baseline))
    verdict = judge(baseline, tuned, labels)
    assert verdict.kept == kept
    assert verdict.sentence.startswith(f"The {kept} " + ("model is kept" if kept == "fine-tuned" else "is kept"))
    for share in ((logits.argmax(1) == labels).mean() for logits in (baseline, tuned)):
        assert f"{share:.1%}" in verdict.sentence
    chosen = tuned if kept == "fine-tuned" else baseline
    assert verdict.temperature == pytest.approx(careful_temperature(chosen, labels))


def test_judge_gain_is_the_difference_of_log_losses_each_at_its_own_temperature() -> None:
    labels, pair = numbers(200), (answers(200, right=0.7), answers(200, right=0.9, seed=1))
    losses = [log_loss(softmax(logits / fit_temperature(logits, labels)), labels) for logits in pair]
    gain = judge(*pair, labels).gain
    assert gain.value == pytest.approx(losses[0] - losses[1], abs=1e-6)
    assert gain.low < gain.value < gain.high


def test_judge_a_lower_log_loss_within_chance_at_a_lower_accuracy_keeps_the_baseline() -> None:
    labels = numbers(30)
    baseline, tuned = answers(30, right=0.8, noise=3), answers(30, right=0.7, margin=3, noise=0.5, seed=2)
    verdict = judge(baseline, tuned, labels)
    assert verdict.gain.low < 0 < verdict.gain.value  # the premise: better, but not beyond chance
    assert (tuned.argmax(1) == labels).mean() < (baseline.argmax(1) == labels).mean()
    assert verdict.kept == "baseline"


@pytest.mark.parametrize("num_pictures", [0, 60])
def test_judge_of_nothing_fine_tuned_keeps_the_baseline_and_says_so(num_pictures: int) -> None:
    verdict = judge(answers(num_pictures, right=0.8), None, numbers(num_pictures))
    assert (verdict.kept, verdict.gain.value) == ("baseline", 0.0)
    assert "nothing was fine-tuned" in verdict.sentence


def test_judge_of_one_validation_picture_keeps_the_baseline_and_writes_no_infinity() -> None:
    logits = np.array([[2.0, 0.0]], np.float32)
    verdict = judge(logits, -logits, np.array([1]))
    assert verdict.kept == "baseline"
    assert "one validation picture compares nothing" in verdict.sentence
    json.dumps(plain(verdict), allow_nan=False)


def test_judge_without_validation_pictures_keeps_the_baseline_and_says_so() -> None:
    empty = np.zeros((0, NUM_CLASSES), np.float32)
    verdict = judge(empty, empty, np.zeros(0, np.int64))
    assert (verdict.kept, verdict.temperature) == ("baseline", 1.0)
    assert "no validation pictures" in verdict.sentence


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(2, 60), st.floats(0.2, 5))
def test_judge_of_a_scaled_copy_keeps_the_baseline(seed: int, num_pictures: int, factor: float) -> None:
    """Scaling logits changes no answer, and the temperature takes it back where it is not at its limits."""
    labels = numbers(num_pictures)
    noise = np.random.default_rng(seed).normal(size=(num_pictures, NUM_CLASSES))
    baseline = (noise + np.eye(NUM_CLASSES)[labels]).astype(np.float32)
    tuned = baseline * np.float32(factor)
    assume(all(0.06 < fit_temperature(logits, labels) < 19 for logits in (baseline, tuned)))
    verdict = judge(baseline, tuned, labels)
    assert verdict.kept == "baseline"
    assert abs(verdict.gain.value) < 1e-4


TIED = [
    answers(60, right=0.8) + np.random.default_rng(seed).normal(0, 0.4, (60, 3)).astype(np.float32) for seed in (1, 2)
]


def test_judge_of_a_tie_keeps_whom_the_plan_says_and_gives_the_reason() -> None:
    baseline, tuned = TIED
    if judge(baseline, tuned, numbers(60)).kept == "fine-tuned":  # whichever is better by chance comes first
        baseline, tuned = tuned, baseline
    verdict = judge(baseline, tuned, numbers(60), tie="fine-tuned")
    assert verdict.gain.low < 0 < verdict.gain.high  # the premise
    assert judge(baseline, tuned, numbers(60)).kept == "baseline"
    assert verdict.kept == "fine-tuned"
    assert "cannot tell the two apart" in verdict.sentence


def test_judge_of_a_tie_on_few_pictures_keeps_the_baseline_all_the_same() -> None:
    few = [logits[:49] for logits in TIED]
    for baseline, tuned in (few, few[::-1]):
        if judge(baseline, tuned, numbers(49)).kept == "baseline":
            assert judge(baseline, tuned, numbers(49), tie="fine-tuned").kept == "baseline"


def test_judge_of_a_worse_model_beyond_chance_keeps_the_baseline_whatever_the_plan_says() -> None:
    baseline, tuned = answers(300, right=0.95), answers(300, right=0.7, seed=1)
    assert judge(baseline, tuned, numbers(300), tie="fine-tuned").kept == "baseline"
