"""What a run ends with: every model of the table is measured at the temperature that suits it on validation."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from foldertune.evaluation.metrics import careful_temperature, log_loss, softmax, wilson_interval
from foldertune.evaluation_text import evaluation_lines
from foldertune.records import Interval, Picture
from foldertune.run import RunFolder
from foldertune.training.outcome import measure, to_be_mapped
from foldertune.training.verdict import Verdict


def test_measure_gives_each_model_its_own_temperature() -> None:
    random = np.random.default_rng(0)
    labels = {split: random.integers(0, 3, 60) for split in ("val", "test")}
    pictures: dict[str, tuple[Picture, ...]] = {"val": (), "test": ()}
    material: Any = SimpleNamespace(labels=labels, pictures=pictures, dataset=SimpleNamespace(classes=("a", "b", "c")))

    def answers(split: str, loudness: float) -> Any:
        logits = np.eye(3)[labels[split]] + random.normal(scale=0.8, size=(60, 3))
        return (loudness * logits).astype(np.float32)

    logits: Any = {
        model: {split: answers(split, loudness) for split in labels}
        for model, loudness in (("baseline", 20.0), ("fine-tuned", 0.1))
    }
    verdict = Verdict("fine-tuned", Interval(0.1, 0.0, 0.2), 0.5, "")
    result = measure(material, logits, verdict)
    for model, temperature in (
        ("baseline", careful_temperature(logits["baseline"]["val"], labels["val"])),
        ("fine-tuned", 0.5),
    ):
        expected = log_loss(softmax(logits[model]["test"] / temperature), labels["test"])
        assert result.evaluations[model]["test"].log_loss == pytest.approx(expected, rel=1e-6)


def test_measure_gives_the_accuracy_without_pictures_that_stand_in_two_splits() -> None:
    labels = {"val": np.arange(8) % 2, "test": np.arange(10) % 2}
    pictures = {
        split: tuple(Picture(row, f"{split}/{row}.png", "ab"[label]) for row, label in enumerate(labels[split]))
        for split in labels
    }
    material: Any = SimpleNamespace(labels=labels, pictures=pictures, dataset=SimpleNamespace(classes=("a", "b")))
    right = {split: 4.0 * np.eye(2)[labels[split]] for split in labels}
    right["test"][6:] = right["test"][6:, ::-1]  # the last four are answered wrongly
    logits: Any = {"baseline": {split: values.astype(np.float32) for split, values in right.items()}}
    verdict = Verdict("baseline", Interval(0.0, 0.0, 0.0), 1.0, "")
    leaked = {f"test/{row}.png" for row in range(4)} | {"val/0.png"}
    found = measure(material, logits, verdict, leaked=leaked).evaluations["baseline"]
    assert found["test"].accuracy.value == 0.6
    assert found["test"].num_leaked == 4
    assert found["test"].without_leaks == wilson_interval(2, 6)
    assert found["val"].without_leaks is None
    none = measure(material, logits, verdict).evaluations["baseline"]["test"]
    assert (none.num_leaked, none.without_leaks) == (0, None)
    assert any("without the 4 that are also in another split" in line for line in evaluation_lines(found["test"]))


def test_to_be_mapped_are_mistakes_of_the_kept_model_and_nothing_without_test_pictures(tmp_path: Path) -> None:
    labels = {"val": np.arange(8) % 2, "test": np.arange(10) % 2}
    pictures = {
        split: tuple(Picture(row, f"{split}/{row}.png", "ab"[label]) for row, label in enumerate(labels[split]))
        for split in labels
    }
    material: Any = SimpleNamespace(
        labels=labels, pictures={**pictures, "train": ()}, dataset=SimpleNamespace(classes=("a", "b"))
    )
    answers = {split: 4.0 * np.eye(2)[labels[split]] for split in labels}
    answers["test"][7:] = answers["test"][7:, ::-1]
    verdict = Verdict("baseline", Interval(0.0, 0.0, 0.0), 1.0, "")
    logits: Any = {"baseline": {split: values.astype(np.float32) for split, values in answers.items()}}
    found = to_be_mapped(RunFolder(tmp_path), material, measure(material, logits, verdict))
    assert [(each.path, each.class_number) for each in found] == [(f"test/{row}.png", 1 - row % 2) for row in (7, 8, 9)]
    logits["baseline"]["test"] = np.zeros((0, 2), np.float32)
    material.labels["test"], material.pictures["test"] = labels["test"][:0], ()
    assert to_be_mapped(RunFolder(tmp_path), material, measure(material, logits, verdict)) == ()
