"""How does fine-tuning go, epoch by epoch, with the automatic plan or with some of its values changed? Test accuracy after each.

The test pictures are looked at on purpose, to choose a recipe by three sets of pictures; `foldertune train` never does. It repeats
what docs/log.md tells epoch by epoch, which was measured with a forerunner of this script that is not kept.

--change takes what concerns fine-tuning alone; all other settings are those of `foldertune train`.

usage: python benchmarks/epochs.py FOLDER --weights FILE.safetensors [--seed 1] [--tune upper] [--change train_size=224 epochs=4]
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine_facts import describe

from foldertune import journey
from foldertune.bench import open_bench, probed_plan
from foldertune.data.loader import PictureSource
from foldertune.evaluation.metrics import log_loss, softmax
from foldertune.examination import look
from foldertune.forecast import situation_of
from foldertune.machine import find_machine, keep_freed_memory
from foldertune.models.weights import write_weights
from foldertune.planning import decide
from foldertune.records import EpochRecord, Plan, finish
from foldertune.settings import Wish, check_settings
from foldertune.stopping import StopRequest
from foldertune.training.baseline import fit_baseline, prepare_material
from foldertune.training.finetune import Workplace, course_of, fine_tune
from foldertune.training.trainer import autocast

CHANGEABLE = (
    "train_size", "epochs", "batch_size", "accumulate", "learning_rate", "layer_decay",
    "head_factor", "weight_decay",
    "warmup_share", "label_smoothing", "optimizer", "augmentation", "orientation", "batch_norm", "first_learning",
    "head_start", "views", "blend", "keep_within", "ema", "imbalance", "eval_steps",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tune", choices=["all", "upper"], help="the layers that learn; else as the plan has it")
    parser.add_argument("--change", nargs="*", default=[], metavar="SETTING=VALUE", help=", ".join(CHANGEABLE))
    given = parser.parse_args()
    print(describe(), flush=True)
    keep_freed_memory()
    for told in run(given):
        print(told, flush=True)


def run(given: argparse.Namespace) -> Iterator[str]:
    asked = {"weights": str(given.weights), "seed": given.seed, "tune": given.tune}
    settings = check_settings({name: value for name, value in asked.items() if value is not None})
    wish = Wish(given.folder, settings, {})
    weights, machine = finish(journey.find_weights(wish)), find_machine("auto")
    looked = finish(look(wish))
    dataset, decode_per_s = looked.dataset, looked.decode_per_s
    draft = decide(situation_of(dataset, machine, weights.preprocess), settings)
    bench = open_bench(draft.values(), weights, dataset, machine)
    plan = changed(probed_plan(wish, bench, decode_per_s)[0], given.change)

    scratch = tempfile.TemporaryDirectory()
    cache = Path(scratch.name) / "cache"  # nothing of an experiment may be found by a later run
    material = finish(prepare_material(dataset, bench.preprocess, cache=cache, workers=plan["workers"]))
    finish(fit_baseline(bench.network, material, bench.extraction(cache), seed=plan["seed"]))
    bench.engine = None
    with scratch as place_of_states:
        states = Path(place_of_states) / "states"
        states.mkdir()
        baseline = Path(place_of_states) / "baseline.safetensors"
        write_weights(bench.network, baseline)
        place = Workplace(bench.network, bench.preprocess, material, bench.weights_id, cache, baseline)
        yield f"baseline: {judged(place, plan)}"
        began = time.monotonic()
        steps = fine_tune(place, plan, deadline_s=math.inf, folder=states, stop=StopRequest())
        for told in steps:
            if isinstance(told, EpochRecord):
                spent = time.monotonic() - began
                seen = f"train {told.train_accuracy:.3f}, val {told.val_accuracy or 0:.3f}, {told.pictures_per_s:.1f} pictures/s"
                yield f"epoch {told.epoch}, {spent:.0f} s: {seen}; {judged(place, plan)}"
                began = time.monotonic() - spent  # looking at the test pictures is not training
        yield f"the best, settled, {time.monotonic() - began:.0f} s: {judged(place, plan)}"


def changed(plan: Plan, changes: list[str]) -> Plan:
    """The plan with some values replaced, as JSON where they are that, else as text."""
    values: dict[str, Any] = {}
    for change in changes:
        name, _, text = change.partition("=")
        if name not in CHANGEABLE:
            raise SystemExit(f"{name} is none of {', '.join(CHANGEABLE)}")
        try:
            values[name] = json.loads(text)
        except ValueError:
            values[name] = text
    return replace(
        plan,
        decisions=tuple(
            replace(row, value=values[row.setting]) if row.setting in values else row for row in plan.decisions
        ),
    )


def judged(place: Workplace, plan: Plan) -> str:
    """What the network says of the test pictures, in the precision of training."""
    labels = place.material.labels["test"]
    source = PictureSource(place.material.packs["test"], place.preprocess, device=plan["device"])
    place.network.eval()
    parts = []
    with torch.inference_mode(), autocast(course_of(plan, deadline_s=math.inf)):
        for start in range(0, len(labels), 32):
            x = source.batch(np.arange(start, min(start + 32, len(labels))), 0)
            parts.append(place.network(x).float().cpu().numpy())
    logits = np.concatenate(parts)
    return f"test {(logits.argmax(1) == labels).mean():.3f}, log loss {log_loss(softmax(logits), labels):.3f}"


if __name__ == "__main__":
    main()
