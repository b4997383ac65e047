"""What a run ends with: the logits of both models, their figures on the test pictures, and the files that tell of them."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foldertune.diagnosing import diagnose_run, diagnosed, findings_document
from foldertune.engines import make_engine
from foldertune.engines.form import form_of
from foldertune.evaluation.answer_table import answer_rows, write_answer_table
from foldertune.evaluation.assessment import Answered, assess
from foldertune.evaluation.calibration import confidence_and_right
from foldertune.evaluation.card import render_card
from foldertune.evaluation.gallery import Maps
from foldertune.evaluation.golden import NUM_GOLDEN, Golden, write_golden
from foldertune.evaluation.metrics import careful_temperature, softmax, wilson_interval
from foldertune.evaluation.refusal import answered_curve, fit_refusal
from foldertune.evaluation.report import ReportFacts, render_report
from foldertune.evaluation.standards import Standards, standards_document
from foldertune.evaluation.two_classes import chosen_lines
from foldertune.evaluation.unlike import Unlike, chosen_kind, fit_unlike, write_unlike
from foldertune.models.config import OURS, config_for
from foldertune.records import (
    SPLITS,
    EpochRecord,
    Evaluation,
    Event,
    Evidence,
    Finding,
    Plan,
    Progress,
    Split,
    Work,
    plain,
)
from foldertune.run import RunFolder, environment, read_json, write_json, write_text, written_whole
from foldertune.training.baseline import Material
from foldertune.training.exhibits import Exhibit, find_mistakes, finding_thumbnails, mapped_pictures, mixed_pairs
from foldertune.training.trials import NO_TRIALS, Trials
from foldertune.training.verdict import Verdict

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from foldertune.models.network import Network
    from foldertune.preprocess import Preprocess

Logits = Mapping[Split, "NDArray[np.float32]"]
_BATCH = 16


def logits_of(network: Network, preprocess: Preprocess, plan: Plan, material: Material) -> Work[Logits]:
    """What the network answers to the validation and test pictures, in float32, as `predict` will answer."""
    engine = make_engine(form_of(network, preprocess), device=plan["device"])
    splits: tuple[Split, ...] = ("val", "test")
    total, done = sum(len(material.labels[split]) for split in splits), 0
    found: dict[Split, NDArray[np.float32]] = {}
    for split in splits:
        parts = [np.zeros((0, network.num_classes), np.float32)]
        for start in range(0, len(material.labels[split]), _BATCH):
            places = range(start, min(start + _BATCH, len(material.labels[split])))
            parts.append(engine.run(material.packs[split].read(places)))
            done += len(places)
            yield Progress("evaluate", done, total)
        found[split] = np.concatenate(parts)
    return found


def write_golden_answers(run: RunFolder, network: Network, preprocess: Preprocess, material: Material) -> None:
    """golden.npz: what PyTorch answers in float32 on the processor, to validation pictures, or to training ones without them."""
    pack = material.packs["val"] if len(material.labels["val"]) else material.packs["train"]
    places = np.linspace(0, pack.num_records - 1, min(NUM_GOLDEN, pack.num_records)).round().astype(int)
    pictures = pack.read(places)
    engine = make_engine(form_of(network, preprocess), engine="torch")
    logits = [engine.run(pictures[start : start + _BATCH]) for start in range(0, len(pictures), _BATCH)]
    write_golden(run.golden, Golden(pictures, np.concatenate(logits)))


def write_model_facts(run: RunFolder, plan: Plan, classes: Sequence[str], preprocess: Preprocess) -> None:
    """What stands beside the weights: config.json, preprocess.json, labels.txt."""
    write_json(run.config, config_for(plan["model"], classes=classes, preprocess=preprocess))
    write_json(run.preprocess, preprocess.to_dict())
    write_text(run.labels, "".join(f"{name}\n" for name in classes))


@dataclass(frozen=True, slots=True)
class Result:
    """probabilities of the kept model by split, evaluations by model and split, the verdict, and what validation fixed for the kept one.

    refused: by split, (N,), the pictures that are unlike what the kept model learned.   maps: of the pictures that the report shows.
    """

    probabilities: Logits
    evaluations: Mapping[str, Mapping[Split, Evaluation]]
    verdict: Verdict
    standards: Standards
    unlike: Unlike
    refused: Mapping[Split, NDArray[np.bool_]]
    maps: Maps = field(default_factory=dict)


def measure(
    material: Material,
    logits: Mapping[str, Logits],
    verdict: Verdict,
    *,
    trials: Trials = NO_TRIALS,
    leaked: Collection[str] = (),
) -> Result:
    """Every model on every split that it has logits for, each at the temperature that suits it on validation.

    trials: what the frozen features told beside; its cross-validation is part of every record of the test pictures.
    leaked: paths of pictures that stand in two splits; test pictures among them are also left out for a second accuracy.
    """
    temperatures = {model: _temperature(model, by_split, material, verdict) for model, by_split in logits.items()}
    probabilities: dict[str, dict[Split, NDArray[np.float32]]] = {
        model: {split: softmax(values / temperatures[model]) for split, values in by_split.items()}
        for model, by_split in logits.items()
    }
    standards = {
        model: _standards(by_split["val"], material.labels["val"], temperatures[model])
        for model, by_split in probabilities.items()
    }
    kept = {split: values / verdict.temperature for split, values in logits[verdict.kept].items()}
    kind = chosen_kind(trials.aurocs)
    unlike = fit_unlike(kept["val"], material.labels["val"], kind=kind, aurocs=trials.aurocs)
    refused = {split: unlike.above(values) for split, values in kept.items()}

    def assessed(model: str, split: Split) -> Evaluation:
        # What was chosen on validation pictures says nothing on themselves.
        held = standards[model] if split != "val" else Standards(temperature=temperatures[model])
        found = Answered(
            probabilities[model][split], material.labels[split], material.pictures[split], softmax(logits[model][split]),
            refused[split] if model == verdict.kept else None,
        )  # fmt: skip
        evaluation = assess(found, classes=material.dataset.classes, split=split, standards=held)
        if split != "test":
            return evaluation
        evaluation = replace(evaluation, cross_validation=trials.again)
        return _without_leaks(evaluation, found, leaked)

    evaluations = {
        model: {split: assessed(model, split) for split, values in by_split.items() if len(values)}
        for model, by_split in logits.items()
    }
    return Result(probabilities[verdict.kept], evaluations, verdict, standards[verdict.kept], unlike, refused)


def _without_leaks(evaluation: Evaluation, found: Answered, leaked: Collection[str]) -> Evaluation:
    """The record with the accuracy on the pictures that stand in one split only."""
    clean = np.array([picture.path not in leaked for picture in found.pictures], np.bool_)
    if clean.all() or not clean.any():
        return evaluation
    right = found.probabilities.argmax(1) == found.labels
    without = wilson_interval(int(right[clean].sum()), int(clean.sum()))
    return replace(evaluation, num_leaked=int((~clean).sum()), without_leaks=without)


def leaked_paths(run: RunFolder) -> set[str]:
    """Pictures that stand in two splits, as the look at the folder found."""
    rows = [row for each in read_data_findings(run) if each.kind == "split_leak" for row in each.evidence]
    return {path for row in rows for path in (row.path, row.other)}


def _standards(probabilities: NDArray[np.float32], labels: NDArray[np.int64], temperature: float) -> Standards:
    """What validation fixes. probabilities: (N, K) of the validation pictures, at that temperature."""
    lines = chosen_lines(probabilities, labels) if probabilities.shape[1] == 2 else {}
    return Standards(fit_refusal(probabilities, labels), lines, temperature)


def _temperature(model: str, logits: Logits, material: Material, verdict: Verdict) -> float:
    return verdict.temperature if model == verdict.kept else careful_temperature(logits["val"], material.labels["val"])


def summary(result: Result) -> dict[str, Any]:
    """The test accuracy of each model, with its interval."""
    return {model: plain(found["test"].accuracy) for model, found in result.evaluations.items() if "test" in found}


def write(
    run: RunFolder, material: Material, plan: Plan, result: Result, *, history: list[EpochRecord], minutes: float
) -> Event:
    """What a run leaves beside its weights: figures, predictions, findings, report, card, and what the model needs to refuse answers.

    Returns what is told of the findings.
    """
    write_unlike(run.unlike, result.unlike)
    write_json(run.config, {**read_json(run.config), OURS: standards_document(result.standards)})
    write_json(run.metrics, {"kept": result.verdict.kept, "verdict": result.verdict, "evaluations": result.evaluations})
    _write_predictions(run, material, result)
    causes = diagnose_run(run)
    write_json(run.findings, findings_document(causes))
    if "test" not in result.evaluations[result.verdict.kept]:
        return diagnosed(causes)
    facts = report_facts(run, material, plan, result, history=history, minutes=minutes)
    facts = replace(facts, findings=tuple(cause.finding for cause in causes))
    run_facts = run.open()
    write_text(run.report, render_report(facts))
    source = run_facts["weights"]["source"]
    card = render_card(
        # The card is published with the model: a file's name, not where it lay.
        facts, model=plan["model"], weights_source=Path(source).name if Path(source).is_absolute() else source,
        licence=run_facts["weights"]["licence"], preprocess=_read_preprocess(run),
    )  # fmt: skip
    write_text(run.card, card)
    return diagnosed(causes)


def to_be_mapped(run: RunFolder, material: Material, result: Result) -> tuple[Exhibit, ...]:
    """The pictures whose maps the report shows; none where there is no report."""
    if "test" not in result.evaluations[result.verdict.kept]:
        return ()
    return mapped_pictures(material, result.probabilities["test"], read_data_findings(run))


def report_facts(
    run: RunFolder, material: Material, plan: Plan, result: Result, *, history: list[EpochRecord], minutes: float
) -> ReportFacts:
    """All that the report and the card tell."""
    dataset, found = material.dataset, read_data_findings(run)
    return ReportFacts(
        title=dataset.folder.name,
        created=time.strftime("%Y-%m-%d %H:%M"),
        verdict=result.verdict.sentence,
        plan=plan,
        history=tuple(history),
        evaluations={model: found["test"] for model, found in result.evaluations.items()},
        kept=result.verdict.kept,
        num_pictures={split: len(material.labels[split]) for split in SPLITS},
        classes=dataset.classes,
        mistakes=find_mistakes(material, result.probabilities["test"], found),
        unreadable=dataset.unreadable,
        skipped=dataset.skipped,
        warnings=(*dataset.warnings, *plan.warnings),
        environment=environment(),
        minutes=minutes,
        class_counts={split: dataset.class_counts(split) for split in SPLITS},
        data_findings=found,
        thumbnails=finding_thumbnails(material, found),
        answered=_answered(material, result),
        pairs=mixed_pairs(
            material, result.probabilities["test"], result.evaluations[result.verdict.kept]["test"].confused
        ),
        maps=result.maps,
        run=str(run.path),
        tells_unlike=bool(result.unlike.kind),
    )


def _answered(material: Material, result: Result) -> tuple[tuple[float, float], ...]:
    """The error among the answers by the share answered, of the test pictures."""
    confidences, right = confidence_and_right(result.probabilities["test"], material.labels["test"])
    return answered_curve(confidences, right, unlike=result.refused["test"])


def read_data_findings(run: RunFolder) -> tuple[Finding, ...]:
    """What look.json holds; nothing for runs of versions that wrote none."""
    if not run.look.exists():
        return ()
    return tuple(
        Finding(**{**row, "evidence": tuple(Evidence(**each) for each in row["evidence"])})
        for row in read_json(run.look)["findings"]
    )


def _write_predictions(run: RunFolder, material: Material, result: Result) -> None:
    """Rows (N,), split (N,), labels (N,), probabilities (N, K): the row numbers are those of dataset.csv. And the same as a table."""
    splits = [split for split in SPLITS if split in result.probabilities]
    with written_whole(run.predictions) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(
            stream,
            rows=np.array([picture.row for split in splits for picture in material.pictures[split]]),
            split=np.array([split for split in splits for _ in material.pictures[split]]),
            labels=np.concatenate([material.labels[split] for split in splits]),
            probabilities=np.concatenate([result.probabilities[split] for split in splits]),
        )
    rows: list[list[object]] = []
    for split in splits:
        shares = result.probabilities[split]
        sure = shares.max(1, initial=0.0) >= result.standards.refusal.default_threshold
        known = sure & ~result.refused[split]
        rows += answer_rows(material.pictures[split], shares, classes=material.dataset.classes, known=known)
    write_answer_table(run.predictions_csv, rows)


def _read_preprocess(run: RunFolder) -> Mapping[str, Any]:
    found: Mapping[str, Any] = read_json(run.preprocess)
    return found
