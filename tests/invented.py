"""Invented facts of a run, for tests of what is written about one."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from foldertune.evaluation.assessment import Answered, assess
from foldertune.evaluation.gallery import Mistake, MixedPair, thumbnail
from foldertune.evaluation.metrics import evaluate_probabilities, softmax
from foldertune.evaluation.refusal import Promise, Refusal
from foldertune.evaluation.report import ReportFacts
from foldertune.evaluation.standards import Standards
from foldertune.records import (
    Comparison,
    Contestant,
    Decision,
    EpochRecord,
    Evaluation,
    Evidence,
    Finding,
    Forecast,
    Interval,
    Pair,
    Picture,
    Plan,
)

# A name that tries every way out of HTML, YAML and Markdown.
HOSTILE = "<script>alert('x')</script>\"'&\n\u202egnp.\u2028</style>\x00\udcff--> |`*"
NAMES = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu")


def invented(classes: tuple[str, ...], num_pictures: int, *, seed: int = 0, absent: int | None = None) -> Evaluation:
    random = np.random.Generator(np.random.Philox(seed))
    numbers = [number for number in range(len(classes)) if number != absent]
    labels = random.choice(numbers, num_pictures)
    logits = random.normal(size=(num_pictures, len(classes))) + 2.5 * np.eye(len(classes))[labels]
    return evaluate_probabilities(softmax(logits), labels, classes=classes, split="test")


def assessed(
    num_pictures: int, *, standards: Standards, num_unlike: int = 0, classes: tuple[str, str, str] = ("a", "b", "c")
) -> Evaluation:
    """An evaluation with calibration and promises."""
    random = np.random.Generator(np.random.Philox(7))
    labels = random.integers(0, 3, num_pictures)
    raw = random.normal(size=(num_pictures, 3)) + 2.0 * np.eye(3)[labels]
    pictures = [Picture(row, f"test/{row}.jpg", classes[label], split="test") for row, label in enumerate(labels)]
    unlike = np.arange(num_pictures) < num_unlike
    found = Answered(softmax(raw / 1.3), labels, pictures, softmax(raw), unlike)
    return assess(found, classes=classes, split="test", standards=standards)


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


def hostile_facts() -> ReportFacts:
    """Every part of a report, with names that try everything, and one that cannot be broken."""
    classes = (HOSTILE, "b" + HOSTILE, "w" * 150)
    standards = Standards(Refusal(90, (Promise(0.01, None), Promise(0.05, 0.8))), temperature=1.3)
    found = assessed(200, standards=standards, num_unlike=3, classes=classes)
    small = thumbnail(np.full((60, 80, 3), 120, np.uint8))
    mistakes = tuple(Mistake(f"test/{row}{HOSTILE}", HOSTILE, "w" * 150, 0.9, small) for row in range(15))
    pairs = tuple(MixedPair(pair.label, pair.answer, pair.num_pictures, mistakes[:9]) for pair in found.confused)
    rows = tuple(
        Evidence(f"train/{row}{HOSTILE}", 0.9, HOSTILE, label=HOSTILE, suggested="w" * 150) for row in range(8)
    )
    finding = Finding("label_suspect", HOSTILE, "warning", 0.9, rows, "foldertune look " + "x" * 300)
    return facts_of(
        classes, title=HOSTILE, verdict=HOSTILE, evaluations={"baseline": found, "fine-tuned": found}, pairs=pairs,
        mistakes=mistakes, maps={(mistakes[0].path, mistakes[0].answer): small, (rows[0].path, rows[0].suggested): small},
        data_findings=(finding,), findings=(dataclasses.replace(finding, severity="serious"),),
        thumbnails={row.path: small for row in rows}, answered=((0.01, 0.0), (0.5, 0.02), (0.98, 0.1)),
        warnings=("w" * 300,), environment={HOSTILE: "v" * 300}, run="runs/" + "r" * 200, tells_unlike=True,
        unreadable=(Picture(0, "p" * 200, HOSTILE, problem=HOSTILE),), skipped={"s" * 200: 2},
    )  # fmt: skip


def hostile_comparison() -> Comparison:
    """Three networks of a folder whose name tries everything, one of them left out."""
    rows = (("resnet101", 0.93, 21.0), ("resnet50", 0.92, 11.0), ("resnet18", 0.85, 4.2))
    contestants = tuple(
        Contestant(
            name, HOSTILE, (f"comparison/{name}", f"comparison/{name}-2"), ("baseline", "fine-tuned"),
            Interval(accuracy, accuracy - 0.03, accuracy + 0.02), (accuracy, accuracy), 0.9, 0.3, 3.0, 90.0, 11_000_000, 45.0, latency,
            50.0, "openvino", "takes it (for under 1,000 pictures; here are 800)", efficient=True,
        )
        for name, accuracy, latency in rows
    )  # fmt: skip
    pairs = (
        Pair("resnet101", "resnet50", Interval(0.01, -0.01, 0.03), 7.5, 4, 0.3, shown=False),
        Pair("resnet101", "resnet18", Interval(0.08, 0.04, 0.12), 30, 5, 0.0004, shown=True),
        Pair("resnet50", "resnet18", Interval(0.07, 0.03, 0.11), 28, 6, 0.002, shown=True),
    )
    return Comparison(
        f"/photos/{HOSTILE}", "comparison", {"train": 600, "val": 80, "test": 120}, 4, 2.5, 2, contestants, pairs, "resnet50",
        "Take resnet50, 1.9 times as fast as resnet101, unless up to 3.0 points of accuracy matter more.",
        (f"vit_base: The weights {HOSTILE} are not here.",),
    )  # fmt: skip
