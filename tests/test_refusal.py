"""Thresholds for promised error rates against a plain search with scipy; then what they promise, then the file they travel in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldertune.errors import SettingsError
from foldertune.evaluation.metrics import softmax
from foldertune.evaluation.refusal import (
    NO_REFUSAL,
    PROMISES,
    SURENESS,
    Promise,
    Refusal,
    answered_curve,
    fit_refusal,
    kept_promises,
    promised_threshold,
)
from foldertune.evaluation.standards import NO_STANDARDS, Standards, read_standards, standards_document


def answered(num: int, *, seed: int = 0) -> tuple[Any, Any]:
    """Confidences, and whether the answers are right: as often as the confidence says."""
    random = np.random.Generator(np.random.Philox(seed))
    confidences = random.uniform(0.4, 1.0, num).round(2)  # with ties
    return confidences, random.random(num) < confidences


def plain_threshold(confidences: Any, right: Any, error: float) -> float | None:
    from scipy.stats import beta

    found = None
    for threshold in sorted(set(confidences.tolist()), reverse=True):
        given_ = confidences >= threshold
        num, wrong = int(given_.sum()), int((given_ & ~right).sum())
        if wrong < num and beta.ppf(SURENESS, wrong + 1, num - wrong) <= error:
            found = threshold
    return 0.0 if found == confidences.min() else found


@settings(max_examples=40)
@given(st.integers(1, 120), st.integers(0, 1000), st.sampled_from(PROMISES))
def test_promised_threshold_agrees_with_a_plain_search(num: int, seed: int, error: float) -> None:
    confidences, right = answered(num, seed=seed)
    assert promised_threshold(confidences, right, error) == plain_threshold(confidences, right, error)


def test_promised_threshold_of_a_model_without_mistakes_answers_all_and_of_few_pictures_promises_nothing() -> None:
    assert promised_threshold(np.linspace(0.5, 1, 100), np.ones(100, bool), 0.05) == 0.0
    assert (
        promised_threshold(np.linspace(0.5, 1, 23), np.ones(23, bool), 0.05) is None
    )  # 0.7 ** (1 / 23) < 0.95 needs 24
    assert promised_threshold(np.linspace(0.5, 1, 24), np.ones(24, bool), 0.05) == 0.0
    assert promised_threshold(np.linspace(0.5, 1, 100), np.zeros(100, bool), 0.05) is None


def test_promised_threshold_holds_on_other_pictures_more_often_than_the_plain_share() -> None:
    kept = {0.7: 0, 0.5: 0}
    for seed in range(100):
        confidences, right = answered(300, seed=seed)
        others, others_right = answered(4000, seed=10_000 + seed)
        for sureness in kept:
            threshold = promised_threshold(confidences, right, 0.10, sureness=sureness)
            given_ = others >= (1.1 if threshold is None else threshold)
            kept[sureness] += (~others_right[given_]).sum() <= 0.10 * max(1, given_.sum())
    assert kept[0.7] > kept[0.5]
    assert kept[0.7] >= 60


def test_fit_refusal_without_pictures_promises_nothing_and_stricter_promises_ask_for_more() -> None:
    empty = fit_refusal(np.zeros((0, 3)), np.zeros(0, np.int64))
    assert [each.threshold for each in empty.promises] == [None] * len(PROMISES)
    assert empty.default_threshold == 0.0
    random = np.random.Generator(np.random.Philox(2))
    labels = random.integers(4, size=600)
    probabilities = softmax(2 * random.normal(size=(600, 4)) + 4 * np.eye(4)[labels])
    found = fit_refusal(probabilities, labels)
    thresholds = [2.0 if each.threshold is None else each.threshold for each in found.promises]
    assert thresholds == sorted(thresholds, reverse=True)
    assert found.threshold(0.05) == found.default_threshold == found.promises[2].threshold


def test_refusal_unknown_promise_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(SettingsError, match=r"no threshold for the promise 0\.03. Accepted: none, 0\.01, 0\.05"):
        Refusal(10, (Promise(0.01, None), Promise(0.05, 0.4))).threshold(0.03)
    with pytest.raises(SettingsError, match=r"saved without promises.*--promise none"):
        NO_REFUSAL.threshold(0.05)


def test_answered_curve_ends_with_all_answers() -> None:
    confidences, right = answered(333)
    curve = answered_curve(confidences, right)
    assert curve[-1][0] == 1.0
    assert curve[-1][1] == pytest.approx(1 - right.mean())
    shares = [share for share, _ in curve]
    assert shares == sorted(shares)
    assert len(curve) == 50


def test_answered_curve_each_point_is_what_a_threshold_gives() -> None:
    """Against the plain way: take the pictures from a confidence on, and count."""
    confidences, right = answered(61)
    unlike = np.arange(61) % 7 == 0
    curve = answered_curve(confidences, right, unlike=unlike)
    thresholds = sorted((each for each, other in zip(confidences, unlike, strict=True) if not other), reverse=True)
    expected = set()
    for threshold in thresholds:
        given = [
            good
            for each, good, other in zip(confidences, right, unlike, strict=True)
            if each >= threshold and not other
        ]
        expected.add((round(len(given) / 61, 9), round(1 - sum(given) / len(given), 9)))
    assert {(round(share, 9), round(error, 9)) for share, error in curve} <= expected
    assert round(curve[0][0], 9) == min(expected)[0]
    assert curve[-1][0] == pytest.approx(52 / 61)
    assert answered_curve(confidences, right, unlike=np.ones(61, np.bool_)) == ()


def test_kept_promises_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.45, 0.55]])
    refusal = Refusal(50, (Promise(0.05, 0.7), Promise(0.10, None)))
    one, other = kept_promises(
        refusal, probabilities, np.array([0, 1, 1, 0]), unlike=np.array([True, False, False, False])
    )
    assert (one.promise, one.threshold, one.num_unlike) == (0.05, 0.7, 1)
    assert one.answered.value == 0.5
    assert one.error is not None
    assert one.error.value == 0.5
    assert other.answered.value == 0.75  # nothing promised: only what is unlike is refused
    (none,) = kept_promises(Refusal(50, (Promise(0.05, 0.99),)), probabilities, np.array([0, 1, 1, 0]))
    assert none.error is None


def test_standards_survive_json_and_old_models_have_none(tmp_path: Path) -> None:
    confidences, right = answered(400)
    refusal = Refusal(
        400, tuple(Promise(e, promised_threshold(confidences, right, e)) for e in PROMISES), ((0.5, 0.01),)
    )
    standards = Standards(refusal, {"sensitive": 0.25}, 1.5)
    assert read_standards(json.loads(json.dumps(standards_document(standards))), tmp_path) == standards
    assert read_standards({}, tmp_path) == NO_STANDARDS


@pytest.mark.parametrize(
    "document",
    [
        {"refusal": 3},
        {"refusal": {"num_pictures": 3}},
        {"refusal": {"num_pictures": 3, "promises": [{"error": 7, "threshold": 0.5}]}},
        {"refusal": {"num_pictures": 3, "promises": [{"error": 0.1, "threshold": float("nan")}]}},
        {"lines": [1]},
        {"temperature": "warm"},
    ],
)
def test_standards_that_make_no_sense_are_refused_with_their_place(document: Any) -> None:
    with pytest.raises(SettingsError, match=r"config.json says of validation.*Mend it, or take the key out"):
        read_standards(document, "config.json")
