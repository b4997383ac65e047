"""The bench that a run works at: the network with its weights, its frozen engine, and what is measured on them for the plan."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foldertune.forecast import Probe, Situation, Survey, situation_of
from foldertune.machine import Machine, OthersWatch, held_memory_mib, keep_to_cores, processor_name, version_of
from foldertune.notes import noted
from foldertune.planning import decide
from foldertune.records import Dataset, Picture, Plan
from foldertune.settings import Wish
from foldertune.team import ALONE, Team

if TYPE_CHECKING:
    from foldertune.engines import LaterEngine
    from foldertune.models.network import Network
    from foldertune.models.weights import ResolvedWeights
    from foldertune.preprocess import Preprocess
    from foldertune.training.features import Extraction
    from foldertune.training.trainer import Course

# What a process may hold before it measures memory for others, beside six copies of the network: with the libraries and a ResNet-50,
# in torch and in its engine, one held 1,043 MiB. The rest is a guess.
_PLAIN_MIB, _PLAIN_COPIES = 1_500.0, 6
SWAPPED = 128  # pictures that are mirrored to see where they lie, more where there are many classes
LEAST_OF_EACH, MOST_CLASSES = 6, 100  # two pictures more than say something of a class
PROBED_BATCH = 16  # pictures of a training step that is measured on a processor, at most
# How fast a machine is depends on what else it does: what was measured on another day is measured again.
_A_DAY_S = 24 * 60 * 60


@dataclass(slots=True)
class Bench:
    """The network with its weights, and the engine that runs it frozen."""

    network: Network
    weights: ResolvedWeights
    preprocess: Preprocess
    engine: LaterEngine | None  # let go before fine-tuning, for its memory
    precision: str
    dataset: Dataset
    machine: Machine
    start_s: float
    weights_id: str  # names the frozen weights in cache keys
    team: Team

    def extraction(self, cache: Path) -> Extraction:
        """Features of pictures by the frozen engine."""
        from foldertune.training.features import Extraction

        assert self.engine is not None
        return Extraction(
            self.engine,
            self.preprocess,
            shape=(self.network.feature_size,),
            weights_id=self.weights_id,
            precision=self.precision,
            cache=cache,
        )


def open_bench(
    values: Mapping[str, Any], weights: ResolvedWeights, dataset: Dataset, machine: Machine, *, team: Team = ALONE
) -> Bench:
    """The network and the engine that a plan's values name; in a team the first process has the engine."""
    import torch

    from foldertune.engines import LaterEngine, fitting_engine, make_engine
    from foldertune.engines.form import form_of
    from foldertune.models import build
    from foldertune.models.weights import load_weights

    began = time.monotonic()
    keep_to_cores()
    torch.manual_seed(values["seed"])
    network = build(values["model"], num_classes=len(dataset.classes))
    if weights.path is not None:
        load_weights(network, weights.path, replace_head=True)
    preprocess = weights.preprocess.with_changes(image_size=values["image_size"], fit=values["fit"])
    engine, device, precision = None, machine.device, values["precision"]
    if team.is_first:
        engine = LaterEngine(
            fitting_engine(device, precision),
            lambda: make_engine(
                form_of(network, preprocess, outputs=("features",)), device=device, precision=precision
            ),
        )
    # Random layers are drawn one after another, so that they depend on how many classes the head has.
    drawn = ("random", values["seed"], len(dataset.classes), torch.__version__)
    weights_id = f"{values['model']} {weights.sha256 or drawn}"
    start_s = time.monotonic() - began
    return Bench(network, weights, preprocess, engine, precision, dataset, machine, start_s, weights_id, team)


def probed_plan(wish: Wish, bench: Bench, decode_per_s: float) -> tuple[Plan, Probe]:
    """The plan with its forecast, and what was measured for it, now or within a day."""
    situation = situation_of(bench.dataset, bench.machine, bench.weights.preprocess)
    situation = replace(situation, survey=surveyed(wish, bench, situation), num_parameters=bench.network.num_parameters)
    # Before it is known how fast all layers learn, a plan takes all: that speed is what decides about them.
    draft = decide(situation, wish.settings)
    probe = replace(probed(bench, draft), decode_per_s=decode_per_s)
    situation = replace(situation, probe=probe, whole=probe if draft["tune"] == "all" else None)
    plan = decide(situation, wish.settings, sources=wish.sources)
    if plan["tune"] not in (draft["tune"], "head"):
        # Not kept: this process has held more memory already than that work takes.
        probe = replace(probed(bench, plan, keep=False), decode_per_s=decode_per_s)
        plan = decide(replace(situation, probe=probe), wish.settings, sources=wish.sources)
    return plan, probe


def probed(bench: Bench, plan: Plan, *, keep: bool = True) -> Probe:
    """How fast the plan's work is here; of decoding nothing is said.

    keep: for later runs, unless others took cores meanwhile or this process held much already.
    """
    import torch

    from foldertune.data.pictures import canvas_size
    from foldertune.training.finetune import course_of
    from foldertune.training.probe import measure

    assert bench.engine is not None
    size, course, engine = bench.team.size, course_of(plan, deadline_s=0), bench.engine
    wanted = math.ceil(course.batch_size / size)  # of one process
    # On a processor a picture of a larger batch costs nearly what one of these costs (at 32 a twentieth less, docs/log.md): measured
    # once, it serves for all of them.
    on_cpu = course.device == "cpu"
    course = replace(course, learning_rate=0.0, batch_size=min(wanted, PROBED_BATCH) if on_cpu else wanted)
    canvas = canvas_size(bench.dataset.of("train"), bench.preprocess)
    work = [
        bench.network.name, bench.network.num_classes, bench.preprocess.to_dict(), plan["train_size"], canvas, size,
    ]  # fmt: skip
    machine = [processor_name(), bench.machine.num_cores, torch.get_num_threads(), bench.machine.device_name]

    def measured() -> Probe:
        probe = measure(bench.network, engine, course, bench.preprocess, train_size=plan["train_size"], canvas=canvas)
        rates = {"train_per_s": size * probe.train_per_s, "validate_per_s": size * probe.validate_per_s}
        return replace(probe, **rates, start_s=bench.start_s + engine.made_in_s)

    def good_for_later() -> bool:
        copies_mib = _PLAIN_COPIES * 4 * bench.network.num_parameters / 2**20
        return keep and held_mib < _PLAIN_MIB + copies_mib and not others.took_cores()

    depends_on = [work, _costs(course), machine, _versions()]
    others, held_mib = OthersWatch(), held_memory_mib()
    probe = noted("probe", depends_on, measured, record=Probe, max_age_s=_A_DAY_S, keep=good_for_later)
    more = wanted / course.batch_size - 1
    return replace(probe, memory_mib=probe.memory_mib + more * probe.kept_mib)


def _costs(course: Course) -> list[Any]:
    """What of a course a step's time depends on."""
    return [
        course.batch_size, course.optimizer, course.ema, course.batch_norm, course.precision, course.device,
        course.first_stage, course.first_learning,
    ]  # fmt: skip


def surveyed(wish: Wish, bench: Bench, situation: Situation) -> Survey | None:
    """What the pretrained network says of some training pictures, where the plan asks for it; see `training.survey`."""
    from foldertune.training.survey import LEAST_PICTURES, NUM_PICTURES, survey, swapped_share

    draft = decide(situation, wish.settings)
    if draft["preset"] != "auto" or draft["weights"] == "random" or draft["tune"] == "head":
        return None
    pictures = bench.dataset.of("train")
    if len(pictures) < LEAST_PICTURES:
        return None
    places = np.linspace(0, len(pictures) - 1, min(NUM_PICTURES, len(pictures))).round().astype(int)
    chosen, some = (
        [pictures[place] for place in places],
        of_each_class(pictures, SWAPPED),
    )

    def looked() -> Survey:
        assert bench.engine is not None
        loaded = _prepared(bench, chosen, workers=draft["workers"])
        found = survey(bench.network, bench.engine, bench.preprocess, loaded, precision=draft["precision"])
        labels = np.array([bench.dataset.classes.index(picture.label) for picture in some])
        mirrored = swapped_share(bench.engine, _prepared(bench, some, workers=draft["workers"]), labels)
        return replace(found, swapped=mirrored)

    hashes = [[picture.sha256, picture.label] for picture in (*chosen, *some)]
    depends_on = [bench.weights_id, bench.preprocess.to_dict(), draft["precision"], hashes, _versions()]
    return noted("survey", depends_on, looked, record=Survey)


def of_each_class(pictures: Sequence[Picture], most: int) -> list[Picture]:
    """Some pictures of each class, evenly from all of it: about so many in all, but at least six of each class.

    Of more than a hundred classes the first hundred: what is tried on them costs time for each.
    """
    by_class: dict[str, list[Picture]] = {}
    for picture in pictures:
        by_class.setdefault(picture.label, []).append(picture)
    count, chosen = max(LEAST_OF_EACH, most // max(1, len(by_class))), list[Picture]()
    for members in list(by_class.values())[:MOST_CLASSES]:
        places = np.linspace(0, len(members) - 1, min(count, len(members))).round().astype(int)
        chosen += [members[place] for place in places]
    return chosen


def _prepared(bench: Bench, pictures: Sequence[Picture], *, workers: int) -> np.ndarray:
    """(N, S, S, 3) uint8"""
    from foldertune.data.pack import load_pictures
    from foldertune.preprocess import decode_px, prepare

    loaded = load_pictures(
        bench.dataset.folder,
        pictures,
        lambda picture: prepare(picture, bench.preprocess),
        at_least_px=decode_px(bench.preprocess),
        workers=workers,
    )
    return np.stack(list(loaded))


def _versions() -> list[str]:
    return [version_of(name) for name in ("foldertune", "torch", "openvino", "pillow")]
