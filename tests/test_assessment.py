"""The whole evaluation: every figure has its interval, groups widen them, pictures follow their figures, old records open."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foldertune import evaluation_text
from foldertune.errors import SettingsError
from foldertune.evaluation.answer_table import COLUMNS, answer_rows, check_table_path, write_answer_table
from foldertune.evaluation.assessment import MOST_ROWS, Answered, assess, confused_pairs, group_numbers
from foldertune.evaluation.metrics import evaluate_probabilities, softmax, wilson_interval
from foldertune.evaluation.refusal import fit_refusal
from foldertune.evaluation.standards import Standards
from foldertune.evaluation_text import promise_words
from foldertune.records import Evaluation, Picture, plain, restored
from foldertune.scores import KeptPromise

NAMES = ("ant", "bee", "cat", "dog", "eel", "fox")


def answers(num: int, num_classes: int, *, seed: int = 0) -> tuple[Any, Any]:
    random = np.random.Generator(np.random.Philox(seed))
    labels = random.integers(num_classes, size=num)
    return softmax(1.5 * random.normal(size=(num, num_classes)) + 3 * np.eye(num_classes)[labels]), labels


def rows_of(labels: Any, *, group: Any = lambda row: "") -> list[Picture]:
    return [Picture(row, f"{NAMES[k]}/{row}.jpg", NAMES[k], "test", group=group(row)) for row, k in enumerate(labels)]


def assessed(num: int, num_classes: int, *, group: Any = lambda row: "") -> Evaluation:
    val, (found, labels) = answers(400, num_classes, seed=9), answers(num, num_classes)
    lines = {"sensitive": 0.2} if num_classes == 2 else {}
    standards = Standards(fit_refusal(*val), lines, 1.3)
    raw = softmax(1.3 * np.log(found))
    given = Answered(found, labels, rows_of(labels, group=group), raw, np.arange(num) % 10 == 0)
    return assess(given, classes=NAMES[:num_classes], split="test", standards=standards)


@pytest.mark.parametrize("num_classes", [2, 6])
def test_assess_every_number_has_its_interval_about_it(num_classes: int) -> None:
    found, (probabilities, labels) = assessed(300, num_classes), answers(300, num_classes)
    plainly = evaluate_probabilities(probabilities, labels, classes=NAMES[:num_classes], split="test")
    for name in ("accuracy", "macro_f1", "log_loss", "confusion", "top5"):
        assert getattr(found, name) == getattr(plainly, name)
    pairs: list[Any] = [
        (found.macro_f1, found.macro_f1_interval), (found.log_loss, found.log_loss_interval),
        *((row.recall, row.recall_interval) for row in found.per_class),
        *((row.precision, row.precision_interval) for row in found.per_class),
    ]  # fmt: skip
    pairs += [(found.top5, found.top5_interval)] if num_classes > 5 else []
    for value, interval in pairs:
        assert interval is not None
        assert interval.value == pytest.approx(value)
        assert interval.low < value < interval.high
    calibration = found.calibration
    assert calibration is not None
    assert calibration.error.low <= calibration.error.value <= calibration.error.high
    assert (calibration.temperature, calibration.error_before is not None) == (1.3, True)
    assert [each.promise for each in found.promises] == [0.01, 0.02, 0.05, 0.10]
    assert {each.num_unlike for each in found.promises} == {30}
    assert (found.two_classes is not None) == (num_classes == 2)
    assert found == assessed(300, num_classes)


def test_assess_class_without_pictures_or_answers_has_no_interval() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1]], np.float32)
    found = assess(Answered(probabilities, np.array([0, 1])), classes=NAMES[:3], split="test", standards=Standards())
    ant, bee, cat = found.per_class
    assert ant.auc is not None
    assert bee.recall_interval is not None
    assert bee.precision_interval is None
    assert (cat.recall_interval, cat.precision_interval, cat.auc) == (None, None, None)
    assert found.promises == ()


def test_assess_groups_widen_what_is_resampled() -> None:
    alone, together = assessed(300, 3), assessed(300, 3, group=lambda row: f"patient {row % 12}")
    assert alone.accuracy.value == together.accuracy.value
    assert together.accuracy.low < alone.accuracy.low
    assert together.accuracy.high > alone.accuracy.high
    recalls = [[score.recall_interval for score in each.per_class] for each in (alone, together)]
    assert recalls[0] != recalls[1]
    assert alone.log_loss_interval is not None
    assert together.log_loss_interval is not None
    assert alone.log_loss_interval != together.log_loss_interval
    assert group_numbers(rows_of([0, 1, 1])) is None
    mixed = [replace(picture, group="g" * (picture.row > 1)) for picture in rows_of([0, 1, 1, 0])]
    numbers = group_numbers(mixed)
    assert numbers is not None
    assert len(set(numbers.tolist())) == 3
    assert numbers[2] == numbers[3]


def test_confused_pairs_name_their_pictures_the_surest_first() -> None:
    probabilities = np.array([[0.1, 0.9, 0], [0.4, 0.6, 0], [0.8, 0.2, 0], [0.7, 0.3, 0], [0, 0.2, 0.8]])
    labels = np.array([0, 0, 0, 1, 1])
    found = confused_pairs(probabilities, labels, rows_of(labels), NAMES[:3])
    assert [(pair.label, pair.answer, pair.num_pictures, pair.rows) for pair in found] == [
        ("ant", "bee", 2, (0, 1)), ("bee", "ant", 1, (3,)), ("bee", "cat", 1, (4,)),
    ]  # fmt: skip
    assert found[0].paths == ("ant/0.jpg", "ant/1.jpg")
    many = confused_pairs(np.tile([[0.4, 0.6]], (500, 1)), np.zeros(500, int), rows_of([0] * 500), NAMES[:2])
    assert (many[0].num_pictures, len(many[0].rows)) == (500, MOST_ROWS)


# Records


def test_evaluation_survives_json() -> None:
    for num_classes in (2, 6):
        found = assessed(200, num_classes)
        assert restored(Evaluation, json.loads(json.dumps(plain(found)))) == found


OLD = """{"split": "test", "num_pictures": 3, "accuracy": {"value": 0.667, "low": 0.21, "high": 0.94}, "top5": null, "macro_f1": 0.66,
"log_loss": 0.5, "per_class": [{"label": "ant", "precision": 1.0, "recall": 0.5, "f1": 0.667, "num_pictures": 2},
{"label": "bee", "precision": 0.5, "recall": 1.0, "f1": 0.667, "num_pictures": 1}], "confusion": [[1, 1], [0, 1]],
"classes": ["ant", "bee"]}"""


def test_evaluation_of_an_older_version_opens_and_prints() -> None:
    found = restored(Evaluation, json.loads(OLD))
    assert found.per_class[1].recall == 1.0
    assert found.confusion == ((1, 1), (0, 1))
    assert (found.calibration, found.promises, found.macro_f1_interval) == (None, (), None)
    lines = list(evaluation_text.evaluation_lines(found))
    assert lines[1] == "Accuracy     66.7% (95% interval 21.0% to 94.0%)"
    assert "class  precision  recall     F1  pictures" in lines


def test_evaluation_of_a_newer_version_opens_without_what_is_not_known() -> None:
    stored = {**json.loads(OLD), "beauty": 3}
    assert restored(Evaluation, stored) == restored(Evaluation, json.loads(OLD))
    del stored["accuracy"]
    with pytest.raises(TypeError):
        restored(Evaluation, stored)


# Words


def test_evaluation_lines_put_accuracy_first_and_have_a_line_for_each_figure() -> None:
    found = assessed(300, 6)
    lines = list(evaluation_text.evaluation_lines(found))
    words = [line.split("  ")[0] for line in lines[: lines.index("")]]
    assert words == [
        "300 pictures (test)",
        "Accuracy",
        "Top 5",
        "Macro F1",
        "Log loss",
        "AUC",
        "Calibration",
        "Unknown",
    ]
    assert all(len(line) < 180 for line in lines)
    (unknown,) = (line for line in lines if line.startswith("Unknown"))
    assert "at most 5% wrong" in unknown
    assert "30 of them as unlike what was learned" in unknown
    two = "\n".join(evaluation_text.evaluation_lines(assessed(300, 2)))
    assert "Asked whether a picture is bee" in two
    assert "sensitive (from 0.200 on, chosen on validation)" in two


def test_evaluation_lines_left_out_pictures_are_counted() -> None:
    found = replace(assessed(40, 3), left_out=("a.jpg", "b.jpg"))
    assert "Left out     2 that the model was trained or chosen by" in list(evaluation_text.evaluation_lines(found))


def test_promise_words_say_when_the_promise_is_broken() -> None:
    kept = KeptPromise(0.05, 0.6, wilson_interval(80, 100), wilson_interval(3, 80))
    broken = replace(kept, error=wilson_interval(20, 80))
    assert "promised at most 5% wrong: 80.0% are answered and 3.8% of these are wrong" in promise_words(kept, 100)
    assert "broken" not in promise_words(kept, 100)
    assert promise_words(broken, 100).endswith(
        "20 are refused. The promise is broken: these pictures are harder than those of validation"
    )
    assert promise_words(replace(kept, threshold=None, answered=wilson_interval(100, 100)), 100).endswith(
        ": all are answered"
    )
    assert promise_words(replace(kept, error=None), 100).endswith("none would be answered")


def test_calibration_words_say_whether_it_is_more_than_chance() -> None:
    calibration = assessed(300, 3).calibration
    assert calibration is not None
    worse = replace(calibration, error_if_perfect=calibration.error.value / 2)
    better = replace(calibration, error_if_perfect=2 * calibration.error.value)
    assert "more than the" in evaluation_text.calibration_words(worse)
    assert "within the" in evaluation_text.calibration_words(better)


# Table


def test_answer_table_has_a_line_per_picture_and_no_formula(tmp_path: Path) -> None:
    pictures = [Picture(4, "=cmd()\n.jpg", "ant", "test"), Picture(7, "'b.jpg", "bee", "val")]
    probabilities = np.array([[0.9, 0.1], [0.75, 0.25]])
    rows = answer_rows(pictures, probabilities, classes=("ant", "bee"), known=[True, False])
    write_answer_table(tmp_path / "t.csv", rows)
    text = (tmp_path / "t.csv").read_bytes().decode()
    assert text.split("\r\n") == [
        ",".join(COLUMNS),
        '4,"\'=cmd()\n.jpg",ant,test,ant,yes,0.900000,0.900000,yes',
        "7,''b.jpg,bee,val,ant,no,0.750000,0.250000,no",
        "",
    ]


@pytest.mark.parametrize(("name", "said"), [("t.txt", "Accepted: .csv"), ("none/t.csv", "does not exist")])
def test_check_table_path_where_no_table_can_be_written_is_refused(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        check_table_path(tmp_path / name)
