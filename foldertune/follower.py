"""What the other processes of a team do: wait until the first has made everything ready, train with it, wait for its end."""

from __future__ import annotations

import math
from pathlib import Path

from foldertune.bench import open_bench
from foldertune.cache import cache_folder
from foldertune.data.table import read_dataset
from foldertune.journey import find_weights, workplace_of
from foldertune.machine import find_machine, keep_freed_memory
from foldertune.records import Plan, finish
from foldertune.run import RunFolder
from foldertune.settings import Wish
from foldertune.stopping import StopRequest
from foldertune.team import Team


def follow(run: RunFolder, stop: StopRequest, team: Team) -> None:
    """Go through a run beside the first process. Nothing is written: the run and the cache have all that is read here.

    Raises what the first process raises for what all decide together, and WorkFailedError when another process is gone.
    """
    keep_freed_memory()
    team.wait()  # until there are a plan, a baseline and prepared pictures
    plan = run.read_plan()
    if plan["tune"] != "head":
        _train_along(run, plan, stop, team)
    team.wait()  # until the first has evaluated and written


def _train_along(run: RunFolder, plan: Plan, stop: StopRequest, team: Team) -> None:
    from foldertune.models.weights import load_weights
    from foldertune.training.baseline import prepare_material
    from foldertune.training.finetune import fine_tune

    facts = run.open()
    wish = Wish(Path(facts["folder"]), facts["settings"], facts["sources"])
    machine = find_machine(plan["device"], run_folder=run.path)
    dataset = read_dataset(run.dataset_csv, facts["dataset"])
    bench = open_bench(plan.values(), finish(find_weights(wish)), dataset, machine, team=team)
    load_weights(bench.network, run.baseline, replace_head=False)
    material = finish(prepare_material(dataset, bench.preprocess, cache=cache_folder(), workers=0))
    deadline_s = float(facts.get("training_deadline_s", math.inf))
    place = workplace_of(bench, material, run)
    finish(fine_tune(place, plan, deadline_s=deadline_s, folder=run.checkpoints, stop=stop))
