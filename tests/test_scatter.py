"""Accuracy against cost, drawn: axes that hold everything, words for whoever cannot see it, names that stay text."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldertune.evaluation.charts import BOTTOM, HEIGHT, LEFT, TOP, WIDTH
from foldertune.evaluation.scatter import Spot, draw_scatter, log_ticks
from foldertune.records import Interval

SPOTS = [
    Spot("resnet18", Interval(0.90, 0.87, 0.93), 4.2),
    Spot("resnet50", Interval(0.93, 0.90, 0.95), 11.0),
    Spot("resnet101", Interval(0.92, 0.89, 0.95), 21.0),
]


@given(st.floats(1e-3, 1e5), st.floats(1.0, 1e4))
def test_log_ticks_hold_everything_and_rise(low: float, factor: float) -> None:
    ticks = log_ticks(low, low * factor)
    assert len(ticks) >= 2
    assert ticks == sorted(set(ticks))
    assert ticks[0] <= low
    assert ticks[-1] >= low * factor


@pytest.mark.parametrize(
    ("low", "high", "ticks"), [(4.2, 21, [2, 5, 10, 20, 50]), (3, 3, [2, 5]), (10, 10, [5, 10, 20])]
)
def test_log_ticks_are_1_2_and_5(low: float, high: float, ticks: list[float]) -> None:
    assert log_ticks(low, high) == pytest.approx(ticks)


def test_every_network_is_drawn_in_the_picture_and_told_in_words() -> None:
    drawn = draw_scatter("latency", "Accuracy against time", "milliseconds", SPOTS)
    root = ElementTree.fromstring(drawn)
    spots = [each for each in root.iter("circle") if each.find("title") is not None]
    assert [(each.findtext("title") or "").partition(":")[0] for each in spots] == ["resnet18", "resnet50", "resnet101"]
    assert [each.get("class") for each in spots] == ["strong", "strong", "mark"]  # the last one is beaten
    for each in spots:
        assert LEFT <= float(each.get("cx", -1)) <= WIDTH
        assert TOP <= float(each.get("cy", -1)) <= HEIGHT - BOTTOM
    names = [each.text for each in root.iter("text")]
    assert {"resnet18", "resnet50", "resnet101", "milliseconds", "beaten by none", "beaten"} <= set(names)
    words = (root.findtext("desc") or "").replace("\u00a0", " ")
    assert "Resnet50: 93.0 % right (90.0 % to 95.0 %), 11 milliseconds." in words


def test_higher_accuracy_stands_higher_and_higher_cost_further_right() -> None:
    drawn = draw_scatter("x", "t", "u", SPOTS)
    places = re.findall(r'<circle class="\w+" cx="([\d.]+)" cy="([\d.]+)" r="[\d.]+"><title>', drawn)
    (x18, y18), (x50, y50), (x101, y101) = [(float(x), float(y)) for x, y in places]
    assert x18 < x50 < x101
    assert y50 < y101 < y18


def test_what_has_no_cost_is_not_drawn() -> None:
    assert draw_scatter("x", "t", "u", [Spot("a", Interval(0.9, 0.8, 1.0), 0.0)]) == ""
    assert draw_scatter("x", "t", "u", [*SPOTS, Spot("a", Interval(0.9, 0.8, 1.0), 0.0)]).count("<title>resnet") == 3


def test_names_stay_text() -> None:
    drawn = draw_scatter("x", "<b>&", "<i>", [Spot("<script>", Interval(0.9, 0.8, 1.0), 1.0)])
    ElementTree.fromstring(drawn)
    assert "<script>" not in drawn
