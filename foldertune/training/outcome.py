"""What a run ends with: the logits of both models, their figures on the test pictures, and the files that tell of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foldertune.engines import make_engine
from foldertune.engines.form import form_of
from foldertune.evaluation.card import render_card
from foldertune.evaluation.golden import NUM_GOLDEN, Golden, write_golden
from foldertune.evaluation.metrics import evaluate_probabilities, fit_temperature, softmax, worst_mistakes
from foldertune.evaluation.report import Mistake, ReportFacts, render_report, thumbnail
from foldertune.models.config import config_for
from foldertune.records import SPLITS, EpochRecord, Evaluation, Plan, Progress, Split, Work, plain
from foldertune.run import RunFolder, environment, write_json, write_text, written_whole
from foldertune.training.baseline import Material
from foldertune.training.verdict import Verdict

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from foldertune.models.network import Network
    from foldertune.preprocess import Preprocess

Logits = Mapping[Split, "NDArray[np.float32]"]
_BATCH = 16
_NUM_MISTAKES = 24


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
    """probabilities of the kept model by split, evaluations by model and split, and the verdict."""

    probabilities: Logits
    evaluations: Mapping[str, Mapping[Split, Evaluation]]
    verdict: Verdict


def measure(material: Material, logits: Mapping[str, Logits], verdict: Verdict) -> Result:
    """Every model on every split that it has logits for, each at the temperature that suits it on validation."""
    classes = material.dataset.classes
    probabilities = {
        model: {
            split: softmax(values / _temperature(model, by_split, material, verdict))
            for split, values in by_split.items()
        }
        for model, by_split in logits.items()
    }
    evaluations: dict[str, dict[Split, Evaluation]] = {
        model: {
            split: evaluate_probabilities(shares, material.labels[split], classes=classes, split=split)
            for split, shares in by_split.items()
            if len(shares)
        }
        for model, by_split in probabilities.items()
    }
    return Result(probabilities[verdict.kept], evaluations, verdict)


def _temperature(model: str, logits: Logits, material: Material, verdict: Verdict) -> float:
    return verdict.temperature if model == verdict.kept else fit_temperature(logits["val"], material.labels["val"])


def summary(result: Result) -> dict[str, Any]:
    """The test accuracy of each model, with its interval."""
    return {model: plain(found["test"].accuracy) for model, found in result.evaluations.items() if "test" in found}


def write(
    run: RunFolder, material: Material, plan: Plan, result: Result, *, history: list[EpochRecord], minutes: float
) -> None:
    """metrics.json, predictions.npz, report.html and README.md of a run."""
    write_json(run.metrics, {"kept": result.verdict.kept, "verdict": result.verdict, "evaluations": result.evaluations})
    _write_predictions(run, material, result)
    if "test" not in result.evaluations[result.verdict.kept]:
        return
    facts = report_facts(run, material, plan, result, history=history, minutes=minutes)
    run_facts = run.open()
    write_text(run.report, render_report(facts))
    source = run_facts["weights"]["source"]
    card = render_card(
        # The card is published with the model: a file's name, not where it lay.
        facts, model=plan["model"], weights_source=Path(source).name if Path(source).is_absolute() else source,
        licence=run_facts["weights"]["licence"], preprocess=_read_preprocess(run),
    )  # fmt: skip
    write_text(run.card, card)


def report_facts(
    run: RunFolder, material: Material, plan: Plan, result: Result, *, history: list[EpochRecord], minutes: float
) -> ReportFacts:
    """All that the report and the card tell."""
    dataset = material.dataset
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
        mistakes=tuple(_mistakes(material, result)),
        unreadable=dataset.unreadable,
        skipped=dataset.skipped,
        warnings=(*dataset.warnings, *plan.warnings),
        environment=environment(),
        minutes=minutes,
        class_counts={split: dataset.class_counts(split) for split in SPLITS},
    )


def _mistakes(material: Material, result: Result) -> list[Mistake]:
    probabilities, labels = result.probabilities["test"], material.labels["test"]
    classes = material.dataset.classes
    mistakes = []
    for place in worst_mistakes(probabilities, labels, count=_NUM_MISTAKES):
        answer = int(probabilities[place].argmax())
        picture = material.pictures["test"][place]
        pixels = material.packs["test"].read([place])[0]
        mistakes.append(
            Mistake(
                picture.path, picture.label, classes[answer], float(probabilities[place, answer]), thumbnail(pixels)
            )
        )
    return mistakes


def _write_predictions(run: RunFolder, material: Material, result: Result) -> None:
    """Rows (N,), split (N,), labels (N,), probabilities (N, K): the row numbers are those of dataset.csv."""
    splits = [split for split in SPLITS if split in result.probabilities]
    with written_whole(run.predictions) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(
            stream,
            rows=np.array([picture.row for split in splits for picture in material.pictures[split]]),
            split=np.array([split for split in splits for _ in material.pictures[split]]),
            labels=np.concatenate([material.labels[split] for split in splits]),
            probabilities=np.concatenate([result.probabilities[split] for split in splits]),
        )


def _read_preprocess(run: RunFolder) -> Mapping[str, Any]:
    from foldertune.run import read_json

    found: Mapping[str, Any] = read_json(run.preprocess)
    return found
