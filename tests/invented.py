"""Invented facts of a run, for tests of what is written about one."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from foldertune.evaluation.assessment import Answered, assess
from foldertune.evaluation.gallery import Mistake, MixedPair, thumbnail
from foldertune.evaluation.metrics import evaluate_probabilities, softmax
from foldertune.evaluation.report import ReportFacts
from foldertune.evaluation.standards import Standards
from foldertune.records import Decision, EpochRecord, Evaluation, Forecast, Picture, Plan

# A name that tries every way out of HTML, YAML and Markdown.
HOSTILE = "<script>alert('x')</script>\"'&\n\u202egnp.\u2028</style>\x00\udcff--> |`*"
NAMES = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu")


def invented(classes: tuple[str, ...], num_pictures: int, *, seed: int = 0, absent: int | None = None) -> Evaluation:
    random = np.random.Generator(np.random.Philox(seed))
    numbers = [number for number in range(len(classes)) if number != absent]
    labels = random.choice(numbers, num_pictures)
    logits = random.normal(size=(num_pictures, len(classes))) + 2.5 * np.eye(len(classes))[labels]
    return evaluate_probabilities(softmax(logits), labels, classes=classes, split="test")


def assessed(num_pictures: int, *, standards: Standards, num_unlike: int = 0) -> Evaluation:
    """An evaluation with calibration and promises, of three classes."""
    random = np.random.Generator(np.random.Philox(7))
    labels = random.integers(0, 3, num_pictures)
    raw = random.normal(size=(num_pictures, 3)) + 2.0 * np.eye(3)[labels]
    pictures = [Picture(row, f"test/{row}.jpg", "abc"[label], split="test") for row, label in enumerate(labels)]
    unlike = np.arange(num_pictures) < num_unlike
    found = Answered(softmax(raw / 1.3), labels, pictures, softmax(raw), unlike)
    return assess(found, classes=tuple("abc"), split="test", standards=standards)


def epoch(number: int, **changes: Any) -> EpochRecord:
    record = EpochRecord(
        epoch=number, step=80 * number, train_loss=1.2 / number, train_accuracy=1 - 0.3 / number,
        val_loss=0.9 / number, val_accuracy=0.95 - 0.15 / number, learning_rate=3e-4, gradient_norm=2.5,
        pictures_per_s=31.25, elapsed_s=24.0 * number, best=number in (1, 3),
    )  # fmt: skip
    return dataclasses.replace(record, **changes)


def facts_of(classes: tuple[str, ...], **changes: Any) -> ReportFacts:
    found = {"baseline": invented(classes, 300), "fine-tuned": invented(classes, 300, seed=1)}
    decisions = (
        Decision("batch_size", 16, "given by the user", "given", "user"),
        Decision("learning_rate", 3e-4, "higher than the guide's 5e-5", "auto-rate"),
        Decision("max_minutes", None, "no time limit was given", "default"),
    )
    small = thumbnail(np.zeros((40, 60, 3), np.uint8))
    mistake = Mistake("test/a/1.jpg", classes[0], classes[1], 0.973, small)
    pairs = tuple(
        MixedPair(label, answer, 3, (mistake,))
        for label, answer in ((classes[0], classes[1]), (classes[1], classes[0]))
    )
    facts = ReportFacts(
        title="clothing", created="2026-11-23 14:51 UTC", verdict="The fine-tuned model is kept.",
        plan=Plan(decisions, Forecast(4.1, 1890, 210), ("The plan worries about memory.",)),
        history=tuple(map(epoch, (1, 2, 3, 4))), evaluations=found, kept="fine-tuned",
        num_pictures={"train": 1275, "val": 186, "test": 300}, classes=classes,
        run="runs/clothing", mistakes=(mistake,), pairs=pairs, maps={(mistake.path, mistake.answer): small},
        unreadable=(Picture(7, "train/a/broken.jpg", classes[0], problem="the file is cut short"),),
        skipped={"hidden file": 3}, warnings=("Few pictures.",),
        environment={"python": "3.12.4", "torch": "2.13.0"}, minutes=4.3,
        class_counts={"train": dict.fromkeys(classes, 111), "test": dict.fromkeys(classes, 30)},
    )  # fmt: skip
    return dataclasses.replace(facts, **changes)
