"""The charts of confidence are read back as XML and held against the numbers that they show."""

from __future__ import annotations

import dataclasses
from xml.etree import ElementTree

import pytest
from invented import assessed

from foldertune.evaluation.charts import BOTTOM, HEIGHT, TOP
from foldertune.evaluation.confidence import answering_sentence, calibration_sentence, confidence_part
from foldertune.evaluation.refusal import Promise, Refusal
from foldertune.evaluation.standards import NO_STANDARDS, Standards
from foldertune.scores import Interval

PROMISED = Standards(Refusal(90, (Promise(0.01, None), Promise(0.05, 0.8), Promise(0.10, 0.6))), temperature=1.3)
CURVE = ((0.02, 1.0), (0.25, 0.02), (0.5, 0.04), (0.95, 0.125))


def drawings(part: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(f"<div>{part}</div>".replace("&nbsp;", " ")).iter("svg"))


def shares_of(drawing: ElementTree.Element, kind: str, highest: float) -> list[float]:
    """The values of the dots, read back from where they lie."""
    heights = [float(dot.get("cy", "")) for dot in drawing.iter("circle") if dot.get("class") == kind and list(dot)]
    return [highest * (HEIGHT - BOTTOM - y) / (HEIGHT - BOTTOM - TOP) for y in heights]


def test_confidence_part_dots_and_intervals_lie_where_the_bins_say() -> None:
    found = assessed(200, standards=PROMISED)
    reliability, _ = drawings(confidence_part(found, CURVE))
    assert found.calibration is not None
    bins = found.calibration.bins
    assert shares_of(reliability, "strong", 1.0) == pytest.approx([each.accuracy.value for each in bins], abs=1e-3)
    lengths = [
        float(line.get("y2", "")) - float(line.get("y1", ""))
        for line in reliability.iter("line")
        if line.get("class") == "interval strong"
    ]
    assert lengths == pytest.approx(
        [(HEIGHT - BOTTOM - TOP) * (each.accuracy.high - each.accuracy.low) for each in bins], abs=0.2
    )


def test_confidence_part_promises_are_marked_where_they_came_out() -> None:
    found = assessed(200, standards=PROMISED)
    _, answering = drawings(confidence_part(found, CURVE))
    kept = [each for each in found.promises if each.threshold is not None]
    highest = float((answering.findall("text[@text-anchor='end']")[-1].text or "").split("\u00a0")[0]) / 100
    marks = shares_of(answering, "mark", highest)
    assert marks == pytest.approx([each.error.value for each in kept if each.error], abs=1e-3)
    # The surest twentieth is not drawn: one wrong picture of two would set the scale.
    assert shares_of(answering, "strong", highest) == pytest.approx([0.02, 0.04, 0.125], abs=1e-3)
    assert "At most 5\u00a0% promised" in (answering.findtext("desc") or "")


def test_confidence_part_tables_hold_every_number() -> None:
    found = assessed(200, standards=PROMISED)
    part = confidence_part(found, CURVE).replace("\u00a0", " ")
    assert found.calibration is not None
    for each in found.calibration.bins:
        assert f"{100 * each.confidence:.1f} %" in part
        assert f"{100 * each.accuracy.low:.1f} % to {100 * each.accuracy.high:.1f} %" in part
    for answered, error in CURVE:
        assert f">{100 * answered:.1f} %</th>" in part
        assert f">{100 * error:.1f} %</td>" in part
    assert "cannot be promised" in part
    assert "80.0 %" in part


def test_confidence_part_without_measurements_is_empty() -> None:
    found = dataclasses.replace(assessed(30, standards=NO_STANDARDS), calibration=None)
    assert confidence_part(found, ()) == ""


def test_calibration_sentence_tells_chance_from_fault() -> None:
    calibration = assessed(200, standards=PROMISED).calibration
    assert calibration is not None
    honest = dataclasses.replace(calibration, error=Interval(0.02, 0.01, 0.03), error_if_perfect=0.05)
    assert "no more than chance" in calibration_sentence(honest)
    assert ": more than chance" in calibration_sentence(dataclasses.replace(honest, error_if_perfect=0.01))
    assert "divided by 1.30" in calibration_sentence(honest)
    for nothing in (None, 1.0):
        assert "divided" not in calibration_sentence(dataclasses.replace(honest, temperature=nothing))


def test_answering_sentence_says_which_promise_the_test_pictures_do_not_bear_out() -> None:
    promises = assessed(200, standards=PROMISED).promises
    made = next(each for each in promises if each.threshold is not None)
    promised = f"At most {100 * made.promise:g} % was promised from the validation pictures and not kept"
    for low, told in ((made.promise + 0.01, True), (made.promise, False)):
        changed = dataclasses.replace(made, error=Interval(made.promise + 0.1, low, made.promise + 0.2))
        assert (promised in answering_sentence([changed]).replace("\u00a0", " ")) == told


def test_answering_sentence_names_what_cannot_be_promised_and_what_is_unlike() -> None:
    promises = assessed(200, standards=PROMISED, num_unlike=3).promises
    text = answering_sentence(promises).replace("\u00a0", " ")
    assert "An error of 1 % could not be promised" in text
    assert "3 test pictures look like nothing that was learned and are never answered" in text
    one = answering_sentence(assessed(200, standards=PROMISED, num_unlike=1).promises).replace("\u00a0", " ")
    assert "1 test picture looks like nothing" in one
    assert "nothing that was learned" not in answering_sentence(assessed(200, standards=PROMISED).promises)
