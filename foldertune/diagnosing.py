"""The case of a run, read from its folder alone, and what is found wrong with it. Works on finished, interrupted and diverged runs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from foldertune.data.table import read_dataset
from foldertune.diagnosis.case import Case, Cause, Copy, Figures
from foldertune.diagnosis.learning import diagnose_case
from foldertune.errors import DataError, SettingsError
from foldertune.records import Dataset, Event, Evidence, plain
from foldertune.run import RunFolder, event, read_json, write_json

if TYPE_CHECKING:
    from numpy.typing import NDArray


def case_of(run: RunFolder) -> Case:
    """All that the folder of a run tells of how it learned. Raises DataError for a run that has not come to a plan."""
    facts = run.open()
    if not run.plan_json.exists():
        raise DataError(f"The run {run.path} has no plan yet, so there is nothing to diagnose. Train first.")
    dataset = read_dataset(run.dataset_csv, facts["dataset"])
    told = _told(run)
    examined, learned = told.get("examined", {}), told.get("learned", {})
    metrics = read_json(run.metrics) if run.metrics.exists() else {}
    kept, answers = str(metrics.get("kept", "")), _answers(run)
    copies = _copies(dataset, examined.get("copies", ()), answers)
    leaked = {copy.other for copy in copies if copy.split == "val"}
    return Case(
        run=str(run.path),
        folder=str(facts["folder"]),
        asked=facts.get("settings", {}),
        plan=_whole_plan(run),
        history=tuple(run.read_history()),
        figures=_figures(metrics),
        kept=kept,
        classes=dataset.classes,
        class_counts={split: dataset.class_counts(split) for split in ("train", "val", "test")},
        copies=copies,
        split_source=dataset.split_source,
        uncopied_accuracy=_accuracy_without(leaked, dataset, answers),
        labels=examined.get("labels") or {},
        inputs=examined.get("inputs") or {},
        machine=examined.get("machine") or {},
        learned=learned,
        suspects=_suspects(dataset, examined.get("labels") or {}),
        diverged="" if run.metrics.exists() else str(told.get("diverged", {}).get("text", "")),
    )


def diagnose_run(run: RunFolder) -> tuple[Cause, ...]:
    """What was wrong with a run, the gravest first."""
    return diagnose_case(case_of(run))


def findings_document(causes: tuple[Cause, ...]) -> dict[str, Any]:
    """What findings.json holds and `diagnose --json` prints."""
    return {"findings": [{**plain(cause.finding), "remedies": plain(cause.remedies)} for cause in causes]}


def write_findings(run: RunFolder) -> Event:
    """Diagnose a run, write findings.json, and tell of it."""
    causes = diagnose_run(run)
    write_json(run.findings, findings_document(causes))
    return diagnosed(causes)


def diagnosed(causes: tuple[Cause, ...]) -> Event:
    told = [
        {"kind": each.finding.kind, "severity": each.finding.severity, "sentence": each.finding.sentence, "remedy": each.finding.remedy}
        for each in causes
    ]  # fmt: skip
    return event("diagnosed", findings=told)


def mended_settings(run: RunFolder, finding: str) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """What was asked of a run, changed as what mends a finding says; and the changes. None in them leaves a setting to the plan."""
    causes = {cause.finding.kind: cause for cause in diagnose_run(run)}
    if finding not in causes:
        has = f"It has: {', '.join(causes)}." if causes else "Nothing was found wrong with it."
        raise SettingsError(
            f"The run {run.path} has no finding {finding!r}. {has} `foldertune diagnose` tells of each."
        )
    remedies = causes[finding].remedies
    remedy = next((each for each in remedies if each.changes), remedies[0])
    if not remedy.changes:
        raise SettingsError(
            f"No setting mends {finding}: {remedy.reason}. What does: `{remedy.command}`; then train on the mended folder."
        )
    settings = {**run.open().get("settings", {}), **remedy.changes}
    return {name: value for name, value in settings.items() if value is not None}, remedy.changes


def _told(run: RunFolder) -> dict[str, Mapping[str, Any]]:
    """The facts of the last event of each kind that a diagnosis needs; lines that are no events are passed over."""
    found: dict[str, Mapping[str, Any]] = {}
    with contextlib.suppress(OSError):
        for line in run.events.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            with contextlib.suppress(ValueError, TypeError, KeyError):
                told = json.loads(line)
                if told["kind"] in ("examined", "learned", "diverged"):
                    found[told["kind"]] = told["facts"]
                if told["kind"] in ("started", "epoch"):
                    found.pop("diverged", None)  # a resumed run has another end
    return found


# Of plans that were written before these were settings.
_EARLIER = {
    "label_smoothing": 0.0,
    "batch_norm": "frozen",
    "first_learning": 0,
    "preset": "auto",
    "orientation": "upright",
}


def _whole_plan(run: RunFolder) -> dict[str, Any]:
    return {**_EARLIER, **run.read_plan().values()}


def _figures(metrics: Mapping[str, Any]) -> dict[str, dict[str, Figures]]:
    return {
        model: {
            split: Figures(
                accuracy=found["accuracy"]["value"],
                log_loss=found["log_loss"],
                num_pictures=found["num_pictures"],
                recall={row["label"]: row["recall"] for row in found["per_class"] if row["num_pictures"]},
                num_by_class={row["label"]: row["num_pictures"] for row in found["per_class"]},
            )
            for split, found in splits.items()
        }
        for model, splits in metrics.get("evaluations", {}).items()
    }


def _answers(run: RunFolder) -> dict[int, bool]:
    """By row of a validation or test picture: whether the kept model answers it right."""
    with contextlib.suppress(OSError, ValueError, KeyError), np.load(run.predictions) as stored:
        right: NDArray[np.bool_] = stored["probabilities"].argmax(1) == stored["labels"]
        return {int(row): bool(value) for row, value in zip(stored["rows"], right, strict=True)}
    return {}


def _copies(dataset: Dataset, pairs: Any, answers: Mapping[int, bool]) -> tuple[Copy, ...]:
    """Files of the same content on both sides, and the copies that were found when the run was made."""
    teaching = {picture.sha256: picture.row for picture in dataset.of("train")}
    parted = {(int(one), int(other)) for one, other in pairs}
    judged = [*dataset.of("val"), *dataset.of("test")]
    parted |= {(teaching[picture.sha256], picture.row) for picture in judged if picture.sha256 in teaching}
    return tuple(
        Copy(
            dataset.pictures[one].path,
            dataset.pictures[other].path,
            str(dataset.pictures[other].split),
            answers.get(other),
        )
        for one, other in sorted(parted)
        if max(one, other) < len(dataset.pictures)
    )


def _accuracy_without(paths: set[str], dataset: Dataset, answers: Mapping[int, bool]) -> float | None:
    others = [answers[p.row] for p in dataset.of("val") if p.path not in paths and p.row in answers]
    return sum(others) / len(others) if others else None


def _suspects(dataset: Dataset, labels: Mapping[str, Any]) -> tuple[Evidence, ...]:
    pictures = dataset.of("train")
    return tuple(
        Evidence(
            pictures[place].path,
            share,
            f"answered {dataset.classes[answer]} with {share:.0%} by a model that had not seen it",
            label=pictures[place].label,
            suggested=dataset.classes[answer],
        )
        for place, answer, share in labels.get("suspects", ())
        if place < len(pictures) and answer < len(dataset.classes)
    )
