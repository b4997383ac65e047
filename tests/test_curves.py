"""Curves are read back as XML; ticks are held to their properties."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from invented import epoch

from foldertune.evaluation.charts import HEIGHT, WIDTH, nice_ticks
from foldertune.evaluation.curves import draw_history, ended_early, epoch_ticks
from foldertune.records import Decision, Plan


def test_draw_history_is_well_formed_and_keeps_to_its_box() -> None:
    history = [epoch(number) for number in range(1, 31)]
    for drawing in ElementTree.fromstring(draw_history(history)):
        points = [line.get("points", "").split() for line in drawing.iter("polyline")]
        assert [len(line) for line in points] == [30, 30]
        places = [tuple(map(float, point.split(","))) for line in points for point in line]
        assert all(50 <= x <= WIDTH - 10 and 40 <= y <= HEIGHT - 40 for x, y in places)
        assert "epoch 3" in (drawing.findtext("desc") or "")


def test_draw_history_missing_and_infinite_values_are_left_out() -> None:
    history = [epoch(1, val_loss=None, val_accuracy=None), epoch(2), epoch(3, train_loss=float("nan")), epoch(4)]
    loss, accuracy = ElementTree.fromstring(draw_history(history))
    assert [len(line.get("points", "").split()) for line in loss.iter("polyline")] == [3, 3]
    assert [len(line.get("points", "").split()) for line in accuracy.iter("polyline")] == [4, 3]


def test_draw_history_never_validated_has_one_line_and_no_best_epoch() -> None:
    history = [epoch(number, val_loss=None, val_accuracy=None, best=False) for number in (1, 2)]
    loss, _ = ElementTree.fromstring(draw_history(history))
    assert [line.get("points", "").count(",") for line in loss.iter("polyline")] == [2, 0]
    assert "chosen" not in draw_history(history)


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_nice_ticks_any_range_is_covered_by_a_few_even_steps(low: float, extent: float) -> None:
    ticks = nice_ticks(low, low + extent)
    steps = np.diff(ticks)
    slack = 1e-6 * max(1.0, abs(low), extent)
    assert 2 <= len(ticks) <= 8
    assert ticks[0] <= low + slack
    assert ticks[-1] >= low + extent - slack
    np.testing.assert_allclose(steps, steps[0], rtol=1e-4)


def test_nice_ticks_shares_end_at_one() -> None:
    assert nice_ticks(0.91, 1.0, most=1.0) == [0.9, 0.92, 0.94, 0.96, 0.98, 1.0]
    assert len(nice_ticks(1.0, 1.0, most=1.0)) >= 2


@given(st.integers(1, 10_000))
def test_epoch_ticks_any_length_gives_whole_epochs_that_fit(num_epochs: int) -> None:
    ticks = epoch_ticks(num_epochs)
    assert ticks[0] == 1
    assert ticks == sorted(set(ticks))
    assert len(ticks) <= 11
    assert ticks[-1] <= num_epochs


@pytest.mark.parametrize(
    ("last", "limit", "said"),
    [
        (4, None, ""),
        (
            2,
            3.0,
            "Training ended in epoch 2 of 4, perhaps in the middle of it: the time limit of 3 minutes allowed no more.",
        ),
        (2, None, "Training ended in epoch 2 of 4: validation did not improve any more."),
        (0, 3.0, ""),
    ],
)
def test_ended_early_says_where_and_why(last: int, limit: float | None, said: str) -> None:
    plan = Plan((Decision("epochs", 4, "r", "r"), Decision("max_minutes", limit, "r", "r")))
    assert ended_early(plan, [epoch(number) for number in range(1, last + 1)]) == said
