"""How several trained networks stand to each other: figures of each, pairs of them, and which to take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from foldertune.errors import DataError
from foldertune.evaluation.answers import dataset_of, read_predictions
from foldertune.evaluation.choice import candidates
from foldertune.evaluation.judging import measure
from foldertune.evaluation.markup import in_words
from foldertune.evaluation.pairs import SURE, compare_rights, corrected, efficient, mean_accuracy
from foldertune.evaluation.saved_model import read_saved_model
from foldertune.evaluation.trials import Trial
from foldertune.guide import guide_says
from foldertune.models.architecture import cost_of, shape_of
from foldertune.models.inventory import head_of, tensors_of
from foldertune.records import SPLITS, Comparison, Contestant, Dataset, Evaluation, Interval, Pair, Work, restored
from foldertune.run import RunFolder, read_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_TIMES = 1.1  # as fast, to be called faster; a guess
MOST_OPEN = 10.0  # points that a faster network may be behind, to be advised; a guess


@dataclass(frozen=True, slots=True)
class Answers:
    """What a run answered to its test pictures: right (N,), and what belongs together, (N,)."""

    right: NDArray[np.bool_]
    groups: NDArray[np.int64]


def read_answers(run: RunFolder) -> Answers:
    """Raises DataError for a run without test pictures, or whose file of answers is damaged."""
    stored = read_predictions(run)
    test = stored.split == "test"
    if not test.any():
        raise DataError(
            f"{run.path} has no test pictures to compare on. Give a test folder, or leave the split to `compare`."
        )
    dataset = dataset_of(run)
    names = [dataset.pictures[row].group or f"\0{row}" for row in stored.rows[test]]
    _, groups = np.unique(names, return_inverse=True)
    return Answers(stored.probabilities[test].argmax(1) == stored.labels[test], groups)


def stand(trained: Mapping[str, Sequence[RunFolder]]) -> Work[Comparison]:
    """trained: finished runs of each network, all on one split.   Measures how fast each answers here.

    Of its folder, path and minutes the record says nothing yet. Raises DataError for runs that cannot be compared.
    """
    refuse_unlike(trained)
    answers = {model: [read_answers(run) for run in runs] for model, runs in trained.items()}
    rights = {model: np.stack([each.right for each in found]) for model, found in answers.items()}
    dataset = dataset_of(next(iter(trained.values()))[0])
    contestants = []
    for model, runs in trained.items():
        trial = yield from _timed(runs[0])
        accuracy = mean_accuracy(rights[model], answers[model][0].groups)
        contestants.append(_contestant(model, runs, (accuracy, rights[model]), (trial, dataset)))
    contestants.sort(key=lambda each: (-each.accuracy.value, each.log_loss))
    contestants = _with_efficiency(contestants)
    groups = next(iter(answers.values()))[0].groups
    pairs = _pairs([each.model for each in contestants], rights, groups)
    take, answer = which_to_take(contestants, pairs)
    return Comparison(
        folder="", path="", minutes=None, repeats=max(len(runs) for runs in trained.values()),
        num_pictures={split: len(dataset.of(split)) for split in SPLITS}, num_classes=len(dataset.classes),
        contestants=tuple(contestants), pairs=tuple(pairs), take=take, answer=answer,
    )  # fmt: skip


def refuse_unlike(trained: Mapping[str, Sequence[RunFolder]]) -> None:
    """Raise DataError where runs are not of one split of the very same pictures, or repeats not of the same weights."""
    everything = [run for runs in trained.values() for run in runs]
    if len({run.open()["dataset"]["fingerprint"] for run in everything}) > 1:
        raise DataError(
            f"The runs in {everything[0].path.parent} are of different pictures: the folder was changed meanwhile. Begin the "
            "comparison anew with another --run."
        )
    for model, runs in trained.items():
        if len({run.open()["weights"]["sha256"] for run in runs}) > 1:
            raise DataError(
                f"The runs of {model} began from different weights: the file was changed meanwhile. Begin the comparison anew with "
                "another --run."
            )


def _timed(run: RunFolder) -> Work[Trial | None]:
    """How fast the run's model answers here in float32, with the engine that is likely the fastest; None where that cannot be measured."""
    saved = read_saved_model(run.path)
    spec = next(spec for spec in candidates() if spec.precision == "float32")
    trials = yield from measure(saved, [spec])
    return next((trial for trial in trials if trial.spec == spec and not trial.refused), None)


def _contestant(
    model: str,
    runs: Sequence[RunFolder],
    measured: tuple[Interval, NDArray[np.bool_]],
    facts: tuple[Trial | None, Dataset],
) -> Contestant:
    (accuracy, right), (trial, dataset) = measured, facts
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
        accuracy=accuracy,
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


def which_to_take(contestants: Sequence[Contestant], pairs: Sequence[Pair]) -> tuple[str, str]:
    """The network to take, and the verdict in sentences. contestants: the most accurate first.   pairs: corrected."""
    best = contestants[0]
    if len(contestants) == 1:
        low, high = (f"{100 * end:.1f}" for end in (best.accuracy.low, best.accuracy.high))
        only = f"{best.model} alone was trained: {100 * best.accuracy.value:.1f} % ({low} to {high})"
        return best.model, f"{only}, with nothing to compare it with."
    by_name = {(pair.first, pair.second): pair for pair in pairs}
    level = [each for each in contestants[1:] if not by_name[best.model, each.model].shown]
    worse = [each for each in contestants[1:] if each not in level]
    if not level:
        return best.model, f"Take {best.model}: it is better than {_against(by_name, best, worse)}."
    names = in_words([each.model for each in level])
    parts = [
        f"No difference shown between {best.model} and {names}: {best.model} is ahead of {_against(by_name, best, level)}."
    ]
    if worse:
        parts.append(f"{best.model} is better than {_against(by_name, best, worse)}.")
    fastest = min([best, *level], key=lambda each: each.latency_ms or float("inf"))
    if not (best.latency_ms and fastest.latency_ms):
        return best.model, " ".join([f"Take {best.model}, the most accurate here.", *parts])
    times = best.latency_ms / fastest.latency_ms
    if times < LEAST_TIMES:
        choice = (
            f"Take {best.model}, the most accurate, and none of those that are not shown to be worse is clearly faster."
        )
        return best.model, " ".join([choice, *parts])
    at_most = max(0.0, 100 * by_name[best.model, fastest.model].difference.high)
    if at_most > MOST_OPEN:
        choice = (
            f"Take {best.model}, the most accurate here: {fastest.model} is {times:.1f} times as fast, but may be up to {at_most:.1f} "
            "points less accurate. More test pictures or --repeats would tell."
        )
        return best.model, " ".join([choice, *parts])
    choice = f"Take {fastest.model}, {times:.1f} times as fast as {best.model}, unless up to {at_most:.1f} points of accuracy matter more."
    return fastest.model, " ".join([choice, *parts])


def _against(by_name: Mapping[tuple[str, str], Pair], best: Contestant, others: Sequence[Contestant]) -> str:
    """Each of the others with the points that the best one is ahead."""
    told = []
    for each in others:
        ahead = by_name[best.model, each.model].difference
        told.append(f"{each.model} by {100 * ahead.value:.1f} points ({100 * ahead.low:.1f} to {100 * ahead.high:.1f})")
    return in_words(told)
