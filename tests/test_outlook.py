"""The range of accuracy that is forecast: against simulated runs and the exact beta-binomial, then its properties."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import betabinom

from foldertune.outlook import FAR, HEAD, LEVEL, NEAR, UNKNOWN, Judged, Left, expected_range, left_by

JUDGED = Judged(accuracy=0.8, num_pictures=200, num_seen=200, num_train=200, num_test=60)
ALL_LEFT = Left(0.0, 0.0, "nothing changes")
shares = st.floats(0.0, 1.0)
counts = st.integers(1, 3_000)


@pytest.mark.parametrize("num_test", [1, 7, 30, 372])
@pytest.mark.parametrize(("right", "num"), [(0, 20), (15, 20), (20, 20), (176, 200), (1_900, 2_000)])
def test_expected_range_without_a_gain_is_that_of_the_beta_binomial(right: int, num: int, num_test: int) -> None:
    found = expected_range(replace(JUDGED, accuracy=right / num, num_pictures=num, num_test=num_test), ALL_LEFT)
    exact = betabinom(num_test, num - right + 0.5, right + 0.5)
    # Where a chance lies within a thousandth of what is asked, the grid of errors may fall on the other side of it.
    for wrong, chance in ((1 - found.high, (1 - LEVEL) / 2), (1 - found.low, (1 + LEVEL) / 2)):
        count = round(wrong * num_test)
        assert exact.cdf(count) >= chance - 1e-3
        assert exact.cdf(count - 1) < chance + 1e-3
    assert found.value == pytest.approx(np.clip(1 - exact.mean() / num_test, found.low, found.high), abs=1e-3)


@pytest.mark.parametrize("left", [HEAD, NEAR, FAR, UNKNOWN])
@pytest.mark.parametrize(("accuracy", "num", "num_test"), [(0.8, 154, 35), (0.95, 900, 200), (0.5, 60, 15)])
def test_expected_range_holds_nine_of_ten_simulated_runs(left: Left, accuracy: float, num: int, num_test: int) -> None:
    random = np.random.Generator(np.random.Philox(3))
    right = round(accuracy * num)
    found = expected_range(
        replace(JUDGED, accuracy=right / num, num_pictures=num, num_seen=num, num_train=num, num_test=num_test), left
    )
    errors = random.beta(num - right + 0.5, right + 0.5, 100_000) * np.exp(
        random.normal(left.middle, left.spread, 100_000)
    )
    reached = 1 - random.binomial(num_test, np.minimum(1.0, errors)) / num_test
    below, above = (reached < found.low - 1e-9).mean(), (reached > found.high + 1e-9).mean()
    assert below <= 0.05 + 0.003
    assert above <= 0.05 + 0.003
    # Not wider than that takes: one answer less on either side would miss too many.
    assert (reached < found.low + 1 / num_test - 1e-9).mean() > 0.05 - 0.003
    assert found.high == 1 or (reached > found.high - 1 / num_test + 1e-9).mean() > 0.05 - 0.003
    assert found.value == pytest.approx(1 - np.minimum(1.0, errors).mean(), abs=0.003)


@given(shares, st.floats(1.0, 3_000.0), counts, st.sampled_from([HEAD, NEAR, FAR, UNKNOWN]))
def test_expected_range_lies_in_the_unit_interval_around_what_is_expected(
    accuracy: float, num: float, num_test: int, left: Left
) -> None:
    found = expected_range(replace(JUDGED, accuracy=accuracy, num_pictures=num, num_test=num_test), left)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert (found.level, found.head_accuracy, found.num_test) == (LEVEL, accuracy, num_test)


@given(shares, st.integers(10, 3_000), counts)
def test_expected_range_of_the_head_alone_holds_its_accuracy_to_one_picture(
    accuracy: float, num: int, num_test: int
) -> None:
    found = expected_range(replace(JUDGED, accuracy=accuracy, num_pictures=num, num_test=num_test), HEAD)
    assert found.low - 1 / num_test <= accuracy <= found.high + 1 / num_test


@pytest.mark.parametrize("left", [HEAD, NEAR, FAR])
@pytest.mark.parametrize("accuracy", [0.6, 0.8, 0.95])
@pytest.mark.parametrize("changed", ["num_pictures", "num_test"])
def test_expected_range_grows_as_pictures_become_fewer(left: Left, accuracy: float, changed: str) -> None:
    widths = []
    for num in (4_000, 1_000, 250, 60, 15):
        other: dict[str, Any] = {"num_pictures": 4_000, "num_test": 4_000, changed: num}
        found = expected_range(replace(JUDGED, accuracy=accuracy, **other), left)
        widths.append(found.high - found.low)
    assert widths == sorted(widths)
    assert widths[-1] > 1.1 * widths[0]


def test_expected_range_of_a_sample_is_wider_and_expects_more_and_says_so() -> None:
    whole = expected_range(replace(JUDGED, num_test=4_000), HEAD)
    some = expected_range(replace(JUDGED, num_test=4_000, num_seen=2_000, num_train=8_000), HEAD)
    assert some.value > whole.value
    assert some.high - some.low > whole.high - whole.low
    assert some.why == f"{HEAD.why}; 2,000 of 8,000 training pictures stand for all"
    assert whole.why == HEAD.why


def test_expected_range_repeats_itself() -> None:
    assert expected_range(JUDGED, FAR) == expected_range(JUDGED, FAR)


@pytest.mark.parametrize(
    ("values", "left"),
    [
        ({"tune": "head", "tie": "baseline"}, HEAD),
        ({"tune": "all", "tie": "baseline"}, NEAR),
        ({"tune": "upper", "tie": "baseline"}, NEAR),
        ({"tune": "all", "tie": "fine-tuned"}, FAR),
        ({"tune": "upper", "tie": "fine-tuned"}, FAR),
        ({"tune": "all", "tie": "baseline", "preset": "documented"}, UNKNOWN),
    ],
)
def test_left_by_follows_what_a_plan_trains_and_how_far_its_pictures_are(values: dict[str, Any], left: Left) -> None:
    assert left_by({"preset": "auto", **values}) is left
