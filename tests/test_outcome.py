"""What a run ends with: every model of the table is measured at the temperature that suits it on validation."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from foldertune.evaluation.metrics import fit_temperature, log_loss, softmax
from foldertune.records import Interval
from foldertune.training.outcome import measure
from foldertune.training.verdict import Verdict


def test_measure_gives_each_model_its_own_temperature() -> None:
    random = np.random.default_rng(0)
    labels = {split: random.integers(0, 3, 60) for split in ("val", "test")}
    material: Any = SimpleNamespace(labels=labels, dataset=SimpleNamespace(classes=("a", "b", "c")))

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
        ("baseline", fit_temperature(logits["baseline"]["val"], labels["val"])),
        ("fine-tuned", 0.5),
    ):
        expected = log_loss(softmax(logits[model]["test"] / temperature), labels["test"])
        assert result.evaluations[model]["test"].log_loss == pytest.approx(expected, rel=1e-6)
