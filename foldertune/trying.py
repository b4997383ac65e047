"""The counter-experiment: the best remedies of a run, each for a short while from where the run began, against its own settings.

All start at the same baseline, with the same seed, split and cached features, and have the same seconds to learn. They are compared on the
validation pictures alone, picture by picture; the test pictures are not looked at.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from foldertune.bench import open_bench, surveyed
from foldertune.cache import cache_folder
from foldertune.data.table import read_dataset
from foldertune.diagnosing import diagnose_run
from foldertune.diagnosis.case import Cause, Remedy
from foldertune.errors import DataError, DivergedError, SettingsError
from foldertune.evaluation.metrics import (
    fit_temperature,
    paired_difference,
    paired_share_difference,
    picture_losses,
    softmax,
)
from foldertune.forecast import Probe, Situation, situation_of
from foldertune.machine import find_machine
from foldertune.planning import decide
from foldertune.records import Decision, EpochRecord, Interval, Plan, Progress, Work
from foldertune.run import RunFolder
from foldertune.settings import Wish
from foldertune.stopping import StopRequest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from foldertune.bench import Bench
    from foldertune.training.baseline import Material

MOST_TRIED = 3
DEFAULT_MINUTES = 5.0
_GUESSED_PER_S = 20.0  # pictures, of a run that closed no epoch; a guess
# Settings that follow from another one, and are decided anew with it.
_FOLLOWING = {
    "augmentation": ("orientation", "views", "train_size"),
    "tune": ("views", "batch_norm", "first_learning", "train_size"),
}
_FASTER = {"device", "workers"}
_OTHER_NETWORK = ("model", "weights")  # what would begin from another baseline


@dataclass(frozen=True, slots=True)
class Trial:
    """One way to go on from the baseline. kind, changes: the finding that it mends, and how; of the run's own settings "" and none.

    accuracy, log_loss: on the validation pictures, at the temperature that suits it; None where it diverged.   gained: accuracy over
    that of the run's own settings, loss_saved: log loss under theirs; with 95 % intervals, None of those settings themselves.
    seconds: of learning.
    """

    kind: str
    changes: Mapping[str, Any]
    reason: str
    epochs: int
    seconds: float
    accuracy: float | None
    log_loss: float | None
    gained: Interval | None = None
    loss_saved: Interval | None = None

    @property
    def sentence(self) -> str:
        """What it earned, in words."""
        if self.gained is None or self.loss_saved is None:
            return "diverged" if self.accuracy is None else "the run's own settings"
        points = (
            f"{100 * self.gained.value:+.1f} points ({100 * self.gained.low:+.1f} to {100 * self.gained.high:+.1f})"
        )
        saved = (
            f"log loss lower by {self.loss_saved.value:.3f} ({self.loss_saved.low:.3f} to {self.loss_saved.high:.3f})"
        )
        ways = [self.gained.low > 0 or self.loss_saved.low > 0, self.gained.high < 0 or self.loss_saved.high < 0]
        verdict = {(True, False): "better", (False, True): "worse"}.get((ways[0], ways[1]), "no difference shown")
        return f"{verdict}: {points}, {saved}"


@dataclass(frozen=True, slots=True)
class Tried:
    """All trials, the run's own settings first, and the remedies that were left out, each with the reason."""

    num_val: int
    trials: tuple[Trial, ...]
    left_out: tuple[str, ...]


def choose_remedies(causes: Sequence[Cause]) -> tuple[list[tuple[str, Remedy]], list[str]]:
    """The remedies to try, at most three: of the gravest findings first, of each its best first. And what is left out, with why."""
    chosen: list[tuple[str, Remedy]] = []
    left_out = []
    ranked = [
        (place, number, cause.finding.kind, remedy)
        for number, cause in enumerate(causes)
        if cause.finding.severity != "note"
        for place, remedy in enumerate(cause.remedies)
    ]
    for _, _, kind, remedy in sorted(ranked, key=lambda row: row[:2]):
        if not remedy.changes:
            left_out.append(f"{kind}: {remedy.reason} (no setting, and not to be tried)")
        elif set(remedy.changes) <= _FASTER:
            left_out.append(f"{kind}: {remedy.reason} (makes it faster, not better)")
        elif any(name in _OTHER_NETWORK for name in remedy.changes):
            left_out.append(f"{kind}: {remedy.reason} (begins from another network)")
        elif len(chosen) < MOST_TRIED and remedy.changes not in [other.changes for _, other in chosen]:
            chosen.append((kind, remedy))
        else:
            left_out.append(f"{kind}: {remedy.reason} (no time for more than {MOST_TRIED})")
    return chosen, left_out


def try_remedies(run: RunFolder, *, max_minutes: float = DEFAULT_MINUTES) -> Work[Tried]:
    """Train each remedy for its share of the minutes, and the run's own settings for as long. Writes nothing into the run.

    Raises SettingsError where there is no remedy to try or too little time, DataError where there is nothing to compare on.
    """
    chosen, left_out = choose_remedies(diagnose_run(run))
    plan = run.read_plan()
    _refuse(run, plan, chosen, max_minutes)
    bench, probe, wish = _bench_of(run, plan)
    began = time.monotonic()
    with TemporaryDirectory(prefix="foldertune-try-") as folder:
        baseline = Path(folder) / "baseline.safetensors"
        situation = _situation(bench, probe, wish)  # asks the engine, which goes before anything is trained
        material = yield from _from_baseline(bench, plan, baseline)
        changed = [_changed(plan, remedy.changes, situation, wish) for _, remedy in chosen]
        left_s = max(5.0, 60 * max_minutes - (time.monotonic() - began))
        each_s = left_s / (1 + len(changed))
        own_plan = _fitting(plan, run, each_s)
        plans = [own_plan]
        for (kind, remedy), one in zip(list(chosen), changed, strict=True):
            fitting = _fitting(one, run, each_s)
            if fitting.values() == own_plan.values():
                chosen.remove((kind, remedy))
                left_out.append(f"{kind}: {remedy.reason} (in so short a time it is what the run did itself)")
            else:
                plans.append(fitting)
        found = []
        for number, one in enumerate(plans):
            place = Path(folder) / str(number)
            place.mkdir()
            found.append((yield from _learned(bench, material, (one, each_s), (place, baseline))))
            shutil.rmtree(place)  # states of one trial at a time
    labels = material.labels["val"]
    own = found[0].losses(labels), found[0].right(labels)
    trials = [_trial("", Remedy("the run's own settings"), found[0], labels)]
    for (kind, remedy), outcome in zip(chosen, found[1:], strict=True):
        trials.append(_trial(kind, remedy, outcome, labels, own=own))
    return Tried(len(labels), tuple(trials), tuple(left_out))


def _refuse(run: RunFolder, plan: Plan, chosen: Sequence[Any], max_minutes: float) -> None:
    if not chosen:
        raise SettingsError(
            f"There is no remedy to try for {run.path}: no alarm of its diagnosis is mended by a setting. `foldertune diagnose {run.path}` "
            "tells what was found."
        )
    if not max_minutes > 0:
        raise SettingsError(f"Max minutes is {max_minutes:g}. Accepted: above 0.")
    if plan["tune"] == "head":
        raise SettingsError(
            f"{run.path} fitted a head alone, which takes seconds: train again with --tune all instead of trying remedies."
        )


def _bench_of(run: RunFolder, plan: Plan) -> tuple[Bench, Probe | None, Wish]:
    """What the run worked at. The same weights, or none."""
    from foldertune.models.weights import resolve_weights

    facts = run.open()
    weights = resolve_weights(plan["weights"], plan["model"])
    began = facts.get("weights", {}).get("sha256")
    if began != weights.sha256:
        raise DataError(
            f"The weights {weights.source} are not those that {run.path} began with (sha256 {weights.sha256}, then {began}). "
            "Put the earlier file back."
        )
    dataset = read_dataset(run.dataset_csv, facts["dataset"])
    if not dataset.folder.is_dir():
        raise DataError(
            f"The folder {dataset.folder} that {run.path} was trained on is not there any more. Put it back."
        )
    if not dataset.of("val"):
        raise DataError(f"{run.path} has no validation pictures to compare remedies on. Give some, and train again.")
    machine = find_machine(plan["device"], run_folder=run.path)
    probe = Probe(**facts["probe"]) if "probe" in facts else None
    wish = Wish(dataset.folder, facts["settings"], facts["sources"])
    return open_bench(plan.values(), weights, dataset, machine), probe, wish


def _from_baseline(bench: Bench, plan: Plan, baseline: Path) -> Work[Material]:
    """Decode, compute features and fit the head, all of which the cache has; and save where every trial begins."""
    from foldertune.models.weights import write_weights
    from foldertune.training.baseline import fit_baseline, prepare_material

    cache = cache_folder()
    material = yield from prepare_material(bench.dataset, bench.preprocess, cache=cache, workers=plan["workers"])
    yield from fit_baseline(bench.network, material, bench.extraction(cache), seed=plan["seed"])
    write_weights(bench.network, baseline)
    bench.engine = None
    return material


def _situation(bench: Bench, probe: Probe | None, wish: Wish) -> Situation:
    """What a plan is made from, as the run had it."""
    situation = situation_of(bench.dataset, bench.machine, bench.weights.preprocess)
    return replace(
        situation,
        survey=surveyed(wish, bench, situation),
        probe=probe,
        num_parameters=bench.network.num_parameters,
    )


def _changed(plan: Plan, changes: Mapping[str, Any], situation: Situation, wish: Wish) -> Plan:
    """The plan with some settings changed, those that follow from them, and no other."""
    kept = {name: value for name, value in {**wish.settings, **changes}.items() if value is not None}
    decided = decide(situation, kept).values()  # type: ignore[arg-type]  # names and values of settings
    names = set(changes) | {name for change in changes for name in _FOLLOWING.get(change, ())}
    if "preset" in changes:
        names = set(decided) - {"seed", "device", "precision", "image_size", "fit", "model", "weights", "workers"}
    return Plan(
        tuple(
            Decision(row.setting, decided[row.setting], "to be tried", "try") if row.setting in names else row
            for row in plan.decisions
        )
    )


def _fitting(plan: Plan, run: RunFolder, seconds: float) -> Plan:
    """The plan with as many epochs as fit into these seconds at the speed of the run."""
    history, counts = run.read_history(), run.open()["dataset"]["num_pictures"]
    per_s = max((record.pictures_per_s for record in history), default=_GUESSED_PER_S)
    epoch_s = counts["train"] / per_s + counts["val"] / (2 * per_s)
    epochs = max(1, min(plan["epochs"], math.floor(seconds / epoch_s)))
    return Plan(tuple(replace(row, value=epochs) if row.setting == "epochs" else row for row in plan.decisions))


@dataclass(frozen=True, slots=True)
class _Outcome:
    """logits (N, K) of validation; None where it diverged."""

    logits: NDArray[np.float32] | None
    epochs: int
    seconds: float

    def probabilities(self, labels: NDArray[np.int64]) -> NDArray[np.floating] | None:
        return None if self.logits is None else softmax(self.logits / fit_temperature(self.logits, labels))

    def losses(self, labels: NDArray[np.int64]) -> NDArray[np.float64] | None:
        found = self.probabilities(labels)
        return None if found is None else picture_losses(found, labels)

    def right(self, labels: NDArray[np.int64]) -> NDArray[np.bool_] | None:
        return None if self.logits is None else self.logits.argmax(1) == labels


def _learned(bench: Bench, material: Material, asked: tuple[Plan, float], places: tuple[Path, Path]) -> Work[_Outcome]:
    """Fine-tune from the baseline. asked: the plan and its seconds.   places: a folder for states, and the baseline."""
    from foldertune.models.weights import load_weights
    from foldertune.training.finetune import (
        Workplace,
        course_of,
        fine_tune,
        frozen_below,
        validation_logits,
        validation_source,
    )

    (plan, seconds), (folder, baseline) = asked, places
    load_weights(bench.network, baseline, replace_head=False)
    place = Workplace(bench.network, bench.preprocess, material, bench.weights_id, cache_folder(), baseline)
    work = fine_tune(place, plan, deadline_s=seconds, folder=folder, stop=StopRequest())
    history: list[EpochRecord] = []
    began = time.monotonic()
    try:
        while True:
            told = next(work)
            if isinstance(told, EpochRecord):
                history.append(told)
            elif isinstance(told, Progress) or told.kind == "note":
                yield told
    except StopIteration:
        pass
    except DivergedError:
        return _Outcome(None, len(history), time.monotonic() - began)
    course = course_of(plan, deadline_s=seconds)
    val = yield from validation_source(place, course, frozen_below(place, course))
    logits = validation_logits(bench.network, val, course, StopRequest())
    spent = history[-1].elapsed_s if history else 0.0
    return _Outcome(logits, len(history), spent)


def _trial(
    kind: str,
    remedy: Remedy,
    outcome: _Outcome,
    labels: NDArray[np.int64],
    *,
    own: tuple[NDArray[np.float64] | None, NDArray[np.bool_] | None] | None = None,
) -> Trial:
    losses, right = outcome.losses(labels), outcome.right(labels)
    accuracy = None if right is None else float(right.mean())
    loss = None if losses is None else float(losses.mean())
    trial = Trial(kind, remedy.changes, remedy.reason, outcome.epochs, outcome.seconds, accuracy, loss)
    if own is None or own[0] is None or own[1] is None or losses is None or right is None:
        return trial
    gained = paired_share_difference(int((right & ~own[1]).sum()), int((own[1] & ~right).sum()), len(labels))
    return replace(trial, gained=gained, loss_saved=paired_difference(own[0], losses))
