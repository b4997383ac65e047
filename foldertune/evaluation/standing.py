"""How several trained networks stand to each other: figures of each, pairs of them, and which to take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from foldertune.data.table import read_dataset
from foldertune.errors import DataError
from foldertune.evaluation.choice import candidates
from foldertune.evaluation.judging import measure
from foldertune.evaluation.pairs import SURE, compare_rights, corrected, efficient, mean_accuracy
from foldertune.evaluation.saved_model import read_saved_model
from foldertune.evaluation.trials import Trial
from foldertune.models.advice import guide_says
from foldertune.models.architecture import cost_of, shape_of
from foldertune.models.inventory import head_of, tensors_of
from foldertune.records import SPLITS, Comparison, Contestant, Dataset, Evaluation, Pair, Work, restored
from foldertune.run import RunFolder, read_json

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Answers:
    """What a run answered to its test pictures: right (N,), and what belongs together, (N,)."""

    rows: NDArray[np.int64]
    right: NDArray[np.bool_]
    groups: NDArray[np.int64]


def read_answers(run: RunFolder) -> Answers:
    """Raises DataError for a run without test pictures."""
    with np.load(run.predictions) as stored:
        test = stored["split"] == "test"
        rows, labels = stored["rows"][test], stored["labels"][test]
        right = stored["probabilities"][test].argmax(1) == labels
    if not len(rows):
        raise DataError(
            f"{run.path} has no test pictures to compare on. Give a test folder, or leave the split to `compare`."
        )
    dataset = read_dataset(run.dataset_csv, run.open()["dataset"])
    names = [dataset.pictures[row].group or f"\0{row}" for row in rows]
    _, groups = np.unique(names, return_inverse=True)
    return Answers(rows, right, groups)


def stand(trained: Mapping[str, Sequence[RunFolder]]) -> Work[Comparison]:
    """trained: finished runs of each network, all on one split.   Measures how fast each answers here.

    Of its folder, path and minutes the record says nothing yet.
    """
    answers = {model: [read_answers(run) for run in runs] for model, runs in trained.items()}
    first = next(iter(answers.values()))[0]
    for model, found in answers.items():
        if any(not np.array_equal(each.rows, first.rows) for each in found):
            raise DataError(f"The runs of {model} have other test pictures than the first. Begin the comparison anew.")
    rights = {model: np.stack([each.right for each in found]) for model, found in answers.items()}
    dataset = _dataset_of(next(iter(trained.values()))[0])
    contestants = []
    for model, runs in trained.items():
        trial = yield from _timed(runs[0])
        contestants.append(_contestant(model, runs, rights[model], (trial, dataset)))
    contestants.sort(key=lambda each: (-each.accuracy.value, each.log_loss))
    contestants = _with_efficiency(contestants)
    pairs = _pairs([each.model for each in contestants], rights, first.groups)
    return Comparison(
        folder="", path="", minutes=None, repeats=max(len(runs) for runs in trained.values()),
        num_pictures={split: len(dataset.of(split)) for split in SPLITS}, num_classes=len(dataset.classes),
        contestants=tuple(contestants), pairs=tuple(pairs), answer=which_to_take(contestants, pairs),
    )  # fmt: skip


def _dataset_of(run: RunFolder) -> Dataset:
    return read_dataset(run.dataset_csv, run.open()["dataset"])


def _timed(run: RunFolder) -> Work[Trial | None]:
    """How fast the run's model answers here in float32, with the engine that is likely the fastest; None where that cannot be measured."""
    saved = read_saved_model(run.path)
    spec = next(spec for spec in candidates() if spec.precision == "float32")
    trials = yield from measure(saved, [spec])
    return next((trial for trial in trials if trial.spec == spec and not trial.refused), None)


def _contestant(
    model: str, runs: Sequence[RunFolder], right: NDArray[np.bool_], facts: tuple[Trial | None, Dataset]
) -> Contestant:
    trial, dataset = facts
    metrics = [read_json(run.metrics) for run in runs]
    tested = [restored(Evaluation, each["evaluations"][each["kept"]]["test"]) for each in metrics]
    histories = [run.read_history() for run in runs]
    head = [shape for name, shape in tensors_of(model, num_classes=1).items() if name.startswith(f"{head_of(model)}.")]
    per_class = sum(int(np.prod(shape)) for shape in head)
    return Contestant(
        model=model,
        weights=str(runs[0].open()["weights"]["source"]),
        runs=tuple(str(run.path) for run in runs),
        kept=tuple(str(each["kept"]) for each in metrics),
        accuracy=mean_accuracy(right),
        accuracies=tuple(right.mean(1).tolist()),
        macro_f1=float(np.mean([each.macro_f1 for each in tested])),
        log_loss=float(np.mean([each.log_loss for each in tested])),
        minutes=float(np.mean([run.open()["minutes"] for run in runs])),
        learning_s=float(np.mean([rows[-1].elapsed_s if rows else 0.0 for rows in histories])),
        parameters=cost_of(shape_of(model)).parameters + (len(dataset.classes) - 1000) * per_class,
        size_mb=runs[0].model.stat().st_size / 1e6,
        latency_ms=trial.latency_ms if trial else 0.0,
        pictures_per_s=trial.pictures_per_s if trial else 0.0,
        engine=trial.spec.name if trial else "",
        advice=guide_says(model, len(dataset.readable)),
    )


def _with_efficiency(contestants: Sequence[Contestant]) -> list[Contestant]:
    costs = [each.latency_ms or float("inf") for each in contestants]
    marks = efficient([each.accuracy.value for each in contestants], costs)
    return [replace(each, efficient=mark) for each, mark in zip(contestants, marks, strict=True)]


def _pairs(models: Sequence[str], rights: Mapping[str, NDArray[np.bool_]], groups: NDArray[np.int64]) -> list[Pair]:
    found = [
        compare_rights((one, rights[one]), (other, rights[other]), groups) for one, other in combinations(models, 2)
    ]
    values = corrected([pair.p for pair in found])
    return [replace(pair, p=p, shown=p < SURE) for pair, p in zip(found, values, strict=True)]


def which_to_take(contestants: Sequence[Contestant], pairs: Sequence[Pair]) -> str:
    """The verdict in sentences. contestants: the most accurate first.   pairs: corrected."""
    best = contestants[0]
    if len(contestants) == 1:
        low, high = (f"{100 * end:.1f}" for end in (best.accuracy.low, best.accuracy.high))
        return f"Only {best.model} could be trained: {100 * best.accuracy.value:.1f} % ({low} to {high}), with nothing to compare it with."
    by_name = {(pair.first, pair.second): pair for pair in pairs}
    level = [each for each in contestants[1:] if not by_name[best.model, each.model].shown]
    worse = [each for each in contestants[1:] if each not in level]
    if not level:
        return f"Take {best.model}: it is better than {_against(by_name, best, worse)}."
    parts = [
        f"No difference shown between {best.model} and {_names(level)}: {best.model} is ahead of {_against(by_name, best, level)}."
    ]
    if worse:
        parts.append(f"{best.model} is better than {_against(by_name, best, worse)}.")
    fastest = min([best, *level], key=lambda each: each.latency_ms or float("inf"))
    if fastest is best:
        return " ".join(
            [f"Take {best.model}, the most accurate and the fastest of those that are not shown to be worse.", *parts]
        )
    times = best.latency_ms / fastest.latency_ms if best.latency_ms else 0.0
    at_most = max(0.0, 100 * by_name[best.model, fastest.model].difference.high)
    choice = f"Take {fastest.model}, {times:.1f} times as fast as {best.model}, unless up to {at_most:.1f} points of accuracy matter more."
    return " ".join([choice, *parts])


def _against(by_name: Mapping[tuple[str, str], Pair], best: Contestant, others: Sequence[Contestant]) -> str:
    """Each of the others with the points that the best one is ahead."""
    told = []
    for each in others:
        ahead = by_name[best.model, each.model].difference
        told.append(f"{each.model} by {100 * ahead.value:.1f} points ({100 * ahead.low:.1f} to {100 * ahead.high:.1f})")
    return told[0] if len(told) == 1 else f"{', '.join(told[:-1])} and {told[-1]}"


def _names(contestants: Sequence[Contestant]) -> str:
    names = [each.model for each in contestants]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
