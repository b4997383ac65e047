"""From a folder to a run: look, split, plan, baseline, fine-tune, choose, evaluate, report. Read `journey` from top to bottom.

Each step writes what it found into the run folder before the next one starts, and reads it back where it is there already:
resuming is going the same way again.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from foldertune.bench import Bench, open_bench, probed_plan
from foldertune.cache import cache_folder, make_room
from foldertune.data.folder import refuse_at_sight
from foldertune.data.table import dataset_facts, read_dataset, write_dataset
from foldertune.diagnosing import write_findings
from foldertune.diagnosis.findings import by_importance
from foldertune.errors import DataError, DivergedError, InterruptedRunError
from foldertune.evaluation.curves import ended_early
from foldertune.examination import Journey, Kin, Looked, find_kin, look
from foldertune.forecast import Probe, seconds_beside_training, situation_of
from foldertune.inspection import (
    NEEDS_WEIGHTS,
    as_wished,
    asked_of,
    examination_of,
    inspected,
    network_findings,
    plain_findings,
    take_sides,
)
from foldertune.machine import find_machine, keep_freed_memory, num_cores
from foldertune.notes import find_note, keep_note
from foldertune.planning import DEFAULT_MODEL, DEFAULT_WEIGHTS, decide, refuse_too_little
from foldertune.records import Dataset, EpochRecord, Event, Finding, Plan, plain, restored
from foldertune.run import RunFolder, event, write_json
from foldertune.settings import Wish
from foldertune.stopping import StopRequest
from foldertune.team import ALONE, Team

if TYPE_CHECKING:
    from foldertune.models.weights import ResolvedWeights
    from foldertune.training.baseline import Baseline, Material
    from foldertune.training.finetune import Workplace
    from foldertune.training.head import Head
    from foldertune.training.trials import Trials


@dataclass(frozen=True, slots=True)
class Trip:
    """One going through a run: its folder, who may ask to stop, and who trains with us."""

    run: RunFolder
    stop: StopRequest
    team: Team


def journey(run: RunFolder, stop: StopRequest, team: Team = ALONE) -> Journey[None]:
    """Go through a run, from the beginning or from where it was left; yields everything that a watcher needs.

    The first process of a team goes this way, the others follow (follower.py).
    Raises InterruptedRunError with the state saved when `stop` asks for it, and the family of errors for everything else.
    """
    with run.locked():
        for told in _told_to_the_end(Trip(run, stop, team)):
            if isinstance(told, Event):
                run.append_event(told)
            elif stop.signal and told.stage != "train":
                raise InterruptedRunError(
                    f"Interrupted at '{told.stage}'; what was done is kept. Go on with `foldertune train --resume {run.path}`.",
                    128 + stop.signal,
                )
            yield told
        make_room(0)  # what this run needed beyond the bound goes, now that it is over


def _told_to_the_end(trip: Trip) -> Journey[None]:
    """`_steps`; a training that diverged is told of and diagnosed before its error goes on."""
    try:
        yield from _steps(trip)
    except DivergedError as error:
        yield event("diverged", text=str(error))
        yield write_findings(trip.run)
        raise


def _steps(trip: Trip) -> Journey[None]:
    run = trip.run
    facts = run.open()
    wish = Wish(Path(facts["folder"]), facts["settings"], facts["sources"])
    run.remove_orphans()
    keep_freed_memory()
    yield event("started", folder=str(wish.folder), run=str(run.path))

    if not run.dataset_csv.exists():
        refuse_at_sight(wish.folder)
    with trip.stop.standing_aside():  # what was downloaded of them is kept
        weights = yield from find_weights(wish)
    known = run.read_plan() if run.plan_json.exists() else None
    machine = find_machine(known["device"] if known else wish.settings.get("device", "auto"), run_folder=run.path)
    trip.team.refuse_device(machine.device)
    looked = yield from look_once(run, wish, weights)
    known = known or decide(situation_of(looked.dataset, machine, weights.preprocess), wish.settings)
    bench = open_bench(known.values(), weights, looked.dataset, machine, team=trip.team)
    plan = yield from make_plan(run, wish, bench, looked.decode_per_s)

    plan, material, baseline = yield from first_model(run, bench, plan, looked.kin)
    yield from find_faults(run, wish, bench, looked)
    del looked  # its glances are no longer needed
    bench.engine = None  # what it holds is needed from here on
    yield from second_model(trip, bench, plan, material, baseline)
    yield event("finished", run=str(run.path), minutes=run.open()["minutes"])
    trip.team.wait()


def plan_only(wish: Wish) -> Journey[Plan]:
    """What `journey` would do with a folder, without a run."""
    keep_freed_memory()
    refuse_at_sight(wish.folder)
    weights = yield from find_weights(wish)
    machine = find_machine(wish.settings.get("device", "auto"))
    looked = yield from look_and_tell(wish, weights)
    draft = decide(situation_of(looked.dataset, machine, weights.preprocess), wish.settings)
    bench = open_bench(draft.values(), weights, looked.dataset, machine)
    plan = probed_plan(wish, bench, looked.decode_per_s)[0]
    return (yield from _with_accuracy(plan, bench))


def _with_accuracy(plan: Plan, bench: Bench, fitted: Head | None = None) -> Journey[Plan]:
    """The plan whose forecast also tells the accuracy that it will reach.   fitted: the head of the baseline, where there is one."""
    from foldertune.training.expectation import expected_accuracy

    if plan.forecast is None:
        return plan
    extraction = bench.extraction(cache_folder())
    accuracy, why_not = yield from expected_accuracy(
        bench.dataset, plan.values(), extraction, bench.preprocess, fitted=fitted
    )
    return replace(plan, forecast=replace(plan.forecast, accuracy=accuracy, no_accuracy=why_not))


def find_weights(wish: Wish) -> Journey[ResolvedWeights]:
    """The weights on this machine, fetched where needed; first of all, because without them the rest is in vain."""
    from foldertune.models.weights import resolve_weights

    weights = resolve_weights(wish.settings.get("weights", DEFAULT_WEIGHTS), wish.settings.get("model", DEFAULT_MODEL))
    yield event("weights", source=weights.source, licence=weights.licence, assumed=list(weights.assumed))
    return weights


def look_once(run: RunFolder, wish: Wish, weights: ResolvedWeights) -> Journey[Looked]:
    """`look`, or what it found when this run began."""
    if run.dataset_csv.exists():
        facts = run.open()
        dataset = read_dataset(run.dataset_csv, facts["dataset"])
        yield _looked(dataset)
        kin = yield from find_kin(dataset, workers=wish.settings.get("workers", num_cores()))
        return Looked(dataset, kin, float(facts["decode_per_s"]))
    looked = yield from look_and_tell(wish, weights)
    run.update(dataset=dataset_facts(looked.dataset), decode_per_s=looked.decode_per_s)
    write_dataset(run.dataset_csv, looked.dataset)
    return looked


def look_and_tell(wish: Wish, weights: ResolvedWeights) -> Journey[Looked]:
    """`look`, and what should be known before anything is trained."""
    looked = yield from look(wish)
    for text in looked.notes:
        yield event("note", text=text)
    yield _looked(looked.dataset)
    seen = inspected(looked.dataset, looked.kin, asked=asked_of(wish))
    yield found_event(by_importance(plain_findings(seen, as_wished(weights.preprocess, wish))))
    return looked


def find_faults(run: RunFolder, wish: Wish, bench: Bench, looked: Looked) -> Journey[None]:
    """look.json: all that is wrong with the pictures, now that the network has seen them."""
    if run.look.exists():
        return
    seen = inspected(looked.dataset, looked.kin, asked=asked_of(wish))
    plain = list(plain_findings(seen, bench.preprocess))
    with_network: list[Finding] = []
    left_out = [f"{kind}: random weights see nothing." for kind in NEEDS_WEIGHTS]
    if bench.weights.path is not None:
        with_network, probabilities = yield from network_findings(seen, bench, changes=False)
        plain, left_out = take_sides(seen, plain, probabilities), []
    yield found_event(by_importance(with_network))
    write_json(run.look, examination_of(looked.dataset, [*plain, *with_network], left_out))


def found_event(findings: Sequence[Finding]) -> Event:
    """What was found, for a watcher; the rows are in look.json."""
    rows = [(each, len(each.evidence)) for each in findings]
    names = ("kind", "sentence", "severity", "score", "remedy")
    return event(
        "found", findings=[{**{name: getattr(each, name) for name in names}, "num_rows": num} for each, num in rows]
    )


def _looked(dataset: Dataset) -> Event:
    unreadable = {picture.path: picture.problem for picture in dataset.unreadable[:20]}
    return event("looked", **dataset_facts(dataset), unreadable=unreadable)


def make_plan(run: RunFolder, wish: Wish, bench: Bench, decode_per_s: float) -> Journey[Plan]:
    """Decide, measure a few steps of what was decided, decide again. A plan that exists is read: nothing is measured twice."""
    if run.plan_json.exists():
        plan = run.read_plan()
        refuse_other_weights(run, bench.weights)
    else:
        plan, probe = probed_plan(wish, bench, decode_per_s)
        refuse_too_little(plan, bench.machine)
        run.update(
            probe=asdict(probe),
            forecast=plan.forecast and asdict(plan.forecast),
            plan_warnings=plan.warnings,
            weights={"source": bench.weights.source, "sha256": bench.weights.sha256, "licence": bench.weights.licence},
        )
        run.write_plan(plan)
    yield event("planned", settings=plan.values(), forecast=plan.forecast, warnings=plan.warnings)
    return plan


def refuse_other_weights(run: RunFolder, weights: ResolvedWeights) -> None:
    """A run goes on from the weights that it began with: half of one network and half of another would be neither."""
    began = run.open().get("weights", {}).get("sha256")
    if began != weights.sha256:
        raise DataError(
            f"The weights {weights.source} are not those that {run.path} began with (sha256 {weights.sha256}, then {began}). "
            "Put the earlier file back, or start a new run."
        )


def first_model(run: RunFolder, bench: Bench, plan: Plan, kin: Kin) -> Journey[tuple[Plan, Material, Baseline]]:
    """The baseline, saved as a whole model that `predict` can use from now on; the plan now tells what accuracy it leads to."""
    from foldertune.models.weights import write_weights
    from foldertune.training.baseline import fit_baseline, head_logits, prepare_material
    from foldertune.training.examine import examination, inputs_noted
    from foldertune.training.outcome import write_model_facts

    assert bench.engine is not None
    cache = cache_folder()
    material = yield from prepare_material(bench.dataset, bench.preprocess, cache=cache, workers=plan["workers"])
    extraction = bench.extraction(cache)
    baseline = yield from fit_baseline(bench.network, material, extraction, seed=plan["seed"])
    write_weights(bench.network, run.baseline)  # anew when resumed: the same bits, whatever became of the file
    if not run.model.exists():  # when resumed it may be the kept model already
        write_model_facts(run, plan, bench.dataset.classes, bench.preprocess)
        write_weights(bench.network, run.model)
    head = baseline.head
    yield event(
        "baseline",
        val_accuracy=baseline.accuracy("val", material.labels["val"]),
        out_of_fold_accuracy=head.accuracy,
        out_of_fold_log_loss=head.log_loss,
        strength=head.strength,
    )
    plan = yield from _with_accuracy(plan, bench, head)
    run.update(forecast=plain(plan.forecast))
    if plan.forecast:
        yield event("expected", accuracy=plan.forecast.accuracy, no_accuracy=plan.forecast.no_accuracy)
    inputs = inputs_noted(
        bench.network, bench.engine, bench.preprocess, material, (bench.weights.path, bench.weights_id)
    )
    copies = [(pair.first, pair.second) for pair in kin.copies]
    yield event("examined", **examination(material, baseline, inputs, copies))
    # Looked at in the end, computed while the engine is here.
    test = yield from head_logits(head, "test", material, extraction)
    trials = yield from _trials(bench, material, head)
    return plan, material, replace(baseline, logits={**baseline.logits, "test": test}, trials=trials)


def _trials(bench: Bench, material: Material, head: Head) -> Journey[Trials]:
    """What the frozen features tell of unknown classes and of small test sets, now or in an earlier run."""
    from foldertune.training.baseline import all_features
    from foldertune.training.trials import TRIALS, Trials, try_features

    extraction, pictures = bench.extraction(cache_folder()), bench.dataset.readable
    rows = [(picture.label, picture.split, picture.group) for picture in pictures]
    key = extraction.key(pictures, kind="trials", version=TRIALS, rows=rows, strength=head.strength)
    stored = find_note("trials", key)
    if stored is not None:
        with contextlib.suppress(TypeError, KeyError, ValueError):  # of a version with other fields
            return restored(Trials, stored)
    found = yield from all_features(material, extraction)
    trials = try_features(found, material.pictures, strength=head.strength)
    keep_note("trials", key, plain(trials))
    return trials


def second_model(trip: Trip, bench: Bench, plan: Plan, material: Material, baseline: Baseline) -> Journey[None]:
    """Fine-tune where the plan says so, keep the better model, measure it on the test pictures, write it all down."""
    from foldertune.heatmaps import draw_maps
    from foldertune.models.weights import load_weights, write_weights
    from foldertune.training import outcome
    from foldertune.training.baseline import cool_head
    from foldertune.training.verdict import judge

    run = trip.run
    history = yield from _tuned(trip, bench, plan, material)
    logits = {"baseline": baseline.logits}
    if history:
        logits["fine-tuned"] = yield from outcome.logits_of(bench.network, bench.preprocess, plan, material)
    tuned = logits["fine-tuned"]["val"] if history else None
    verdict = judge(logits["baseline"]["val"], tuned, material.labels["val"], tie=plan["tie"])
    yield event("kept", **asdict(verdict))
    if verdict.kept == "baseline":
        load_weights(bench.network, run.baseline, replace_head=False)  # saved before fine-tuning changed the network
        # Its features may have been computed in a lower precision than `predict` answers in.
        logits["baseline"] = yield from outcome.logits_of(bench.network, bench.preprocess, plan, material)
    cool_head(bench.network, verdict.temperature)
    write_weights(bench.network, run.model)
    outcome.write_golden_answers(run, bench.network, bench.preprocess, material)

    minutes = run.minutes_spent(until=time.time())
    result = outcome.measure(material, logits, verdict, trials=baseline.trials, leaked=outcome.leaked_paths(run))
    shown = outcome.to_be_mapped(run, material, result)
    result = replace(result, maps=(yield from draw_maps(bench.network, bench.preprocess, material, shown)))
    told = outcome.write(run, material, plan, result, history=history, minutes=minutes)
    yield event("evaluated", kept=verdict.kept, models=outcome.summary(result))
    yield told
    run.update(
        state="finished", minutes=run.minutes_spent(until=time.time())
    )  # before the states go: killed between the two, nothing is trained again
    tidy(run)


def tidy(run: RunFolder) -> None:
    """Delete what only an unfinished run needs; for one that was killed on the way to it, when it is resumed."""
    if run.checkpoints.is_dir() and any(run.checkpoints.iterdir()):
        from foldertune.training import checkpoint

        checkpoint.remove_states(run.checkpoints)
        run.baseline.unlink(missing_ok=True)


def _tuned(trip: Trip, bench: Bench, plan: Plan, material: Material) -> Journey[list[EpochRecord]]:
    """The history of fine-tuning; the best weights are in the bench's network. Empty where only the head was asked for."""
    from foldertune.training.finetune import fine_tune

    run, head_alone = trip.run, plan["tune"] == "head"
    deadline_s = 0.0 if head_alone else _deadline_s(trip, plan, material)
    trip.team.wait()  # from here on the others find all that they need
    if head_alone:
        return []
    place = workplace_of(bench, material, run)
    steps = fine_tune(place, plan, deadline_s=deadline_s, folder=run.checkpoints, stop=trip.stop)
    while True:
        try:
            told = next(steps)
        except StopIteration as stopped:
            history = list(stopped.value.history)
            run.write_history(history)
            if why := ended_early(plan, history):
                yield event("ended_early", text=why)
            return history
        if isinstance(told, EpochRecord):
            # A killed run may have noted an epoch whose state it could not save any more; that epoch comes again.
            run.write_history([record for record in run.read_history() if record.epoch < told.epoch] + [told])
            yield event("epoch", **asdict(told), epochs=plan["epochs"])
        else:
            yield told


def workplace_of(bench: Bench, material: Material, run: RunFolder) -> Workplace:
    """What fine-tuning works with."""
    from foldertune.training.finetune import Workplace

    network, preprocess = bench.network, bench.preprocess
    return Workplace(network, preprocess, material, bench.weights_id, cache_folder(), run.baseline, bench.team)


def _deadline_s(trip: Trip, plan: Plan, material: Material) -> float:
    """Seconds that training may take within --max-minutes, decided once: what is left now, less what comes after training."""
    if plan["max_minutes"] is None:
        return math.inf
    from foldertune.training.blend import SHARES

    facts = trip.run.open()
    if "training_deadline_s" not in facts:
        counts = {split: len(labels) for split, labels in material.labels.items()}
        left = 60 * (plan["max_minutes"] - trip.run.minutes_spent(until=time.time()))
        left -= seconds_beside_training(Probe(**facts["probe"]), plan.values(), counts, num_blends=len(SHARES))
        trip.run.update(training_deadline_s=max(0.0, left))
    return float(trip.run.open()["training_deadline_s"])
