"""From the baseline to a fine-tuned network: the plan's values as a course, the sources that it asks for, and the best weights."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file

from foldertune.data.augment import strength_of
from foldertune.data.loader import ActivationSource, CanvasSource, PictureSource, SharedSource
from foldertune.data.pictures import canvas_size, pack_canvases
from foldertune.engines import Engine, LaterEngine, fitting_engine, make_engine
from foldertune.engines.form import form_of
from foldertune.errors import InterruptedRunError
from foldertune.forecast import SETTLED_IN_THE_END
from foldertune.models.architecture import shape_of, stage_shape
from foldertune.records import EpochRecord, Event, Plan, Progress, Split, Work
from foldertune.run import event
from foldertune.team import ALONE, Team
from foldertune.training.baseline import Material
from foldertune.training.blend import blend
from foldertune.training.examine import answers_plain, moved_shares
from foldertune.training.features import Extraction, Seen
from foldertune.training.loop import Fitted, fit
from foldertune.training.statistics import adapting_norms, measure_statistics, sample
from foldertune.training.trainer import Course, Labelled, autocast

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from foldertune.models.network import Network
    from foldertune.preprocess import Preprocess
    from foldertune.stopping import StopRequest

# The lowest stage that learns, by the plan's word. Of "head" only the probe makes use.
FIRST_STAGE = {"all": 0, "upper": 4, "head": 5}


@dataclass(frozen=True, slots=True)
class Workplace:
    """What fine-tuning works with, apart from the plan. weights_id names the frozen weights in cache keys."""

    network: Network
    preprocess: Preprocess
    material: Material
    weights_id: str
    cache: Path
    baseline: Path  # the baseline as a whole model
    team: Team = ALONE


def course_of(plan: Plan, *, deadline_s: float, team: Team = ALONE) -> Course:
    """The plan's values as the training loop wants them."""
    values = plan.values()
    known = {item.name for item in fields(Course)}
    taken: dict[str, Any] = {name: value for name, value in values.items() if name in known}
    if values["device"] == "cpu":
        taken["workers"] = 0  # threads that make batches would only take the cores from the layers
    return Course(
        **taken,
        first_stage=FIRST_STAGE[values["tune"]],
        save_s=60 * values["save_minutes"],
        deadline_s=deadline_s,
        team=team,
    )


def fine_tune(
    place: Workplace, plan: Plan, *, deadline_s: float, folder: Path, stop: StopRequest
) -> Generator[Progress | EpochRecord | Event, None, Fitted]:
    """Train from the network's present weights; ends with the best validated weights in the network.

    In a team it is the first process that goes on from there to the weights that are kept.
    """
    course, team = course_of(plan, deadline_s=deadline_s, team=place.team), place.team
    if plan["head_start"] == "zero":
        for parameter in place.network.get_submodule(place.network.head_name).parameters():
            torch.nn.init.zeros_(parameter)
    below = frozen_below(place, course)
    train = yield from team.led(training_source(place, plan, course, below))
    val = yield from team.led(validation_source(place, course, below))
    fitted = yield from fit(place.network, course, train, val, folder=folder, stop=stop)
    place.network.load_state_dict(fitted.tensors, strict=False)
    if not _settled(place.network, train, course, stop):
        raise _interrupted(folder, stop)
    if not team.is_first:
        return fitted
    start = load_file(place.baseline)
    yield _learned(place, train, course, start)
    if plan["blend"]:

        def logits() -> NDArray[np.float32]:
            found = validation_logits(place.network, val, course, stop)
            if found is None:
                raise _interrupted(folder, stop)
            return found

        share = blend(place.network, start, logits, val.labels)
        yield event("blended", share=share)
    return fitted


def _learned(place: Workplace, train: Labelled, course: Course, start: Mapping[str, Tensor]) -> Event:
    """How far each stage has moved from where it began, and what the network says of what it learned from, as it is."""
    network = place.network
    plain = train.unchanged or PictureSource(place.material.packs["train"], place.preprocess, device=course.device)
    with autocast(course):
        loss, accuracy, number = answers_plain(network, plain, train.labels, seed=course.seed)
    return event(
        "learned",
        moved=moved_shares(network, start),
        first_learning=max(course.first_stage, course.first_learning),
        plain_loss=loss,
        plain_accuracy=accuracy,
        num_plain=number,
    )


def _interrupted(folder: Path, stop: StopRequest) -> InterruptedRunError:
    return InterruptedRunError(
        f"Interrupted after the last epoch, which is saved. Go on with `foldertune train --resume {folder.parent}`.",
        128 + stop.signal,
    )


def _settled(network: Network, train: Labelled, course: Course, stop: StopRequest) -> bool:
    """Measure the statistics for the weights that are kept, on more pictures than for each validation; False if interrupted."""
    norms = adapting_norms(network, course.batch_norm, first_stage=course.first_stage)
    if not norms:
        return True
    places = sample(train.labels, SETTLED_IN_THE_END, seed=course.seed)
    source = SharedSource(train.unchanged or train.source, course.team)
    with autocast(course):
        return measure_statistics(network, norms, source, places, stop=stop, team=course.team)


def validation_logits(network: Network, val: Labelled, course: Course, stop: StopRequest) -> NDArray[np.float32] | None:
    """(N, K): what the network says of the validation pictures, in the precision of training. None if asked to stop."""
    parts = [np.zeros((0, network.num_classes), np.float32)]
    network.eval()
    with torch.inference_mode(), autocast(course):
        for start in range(0, len(val.labels), 32):
            if stop.signal:
                return None
            places = np.arange(start, min(start + 32, len(val.labels)))
            x = network.run_stages(val.source.batch(places, 0), first=course.first_stage)
            parts.append(network.classify(network.pool(x)).float().cpu().numpy())
    return np.concatenate(parts)


def training_source(place: Workplace, plan: Plan, course: Course, below: Extraction | None) -> Work[Labelled]:
    """What is learned from: augmented pictures, or stored activations of them where the lower stages stay (`below`)."""
    labels = place.material.labels["train"]
    if below is not None:
        pictures = place.material.pictures["train"]
        seen = Seen(strength_of(plan.values()), course.seed, canvas_size(pictures, place.preprocess))
        pack = yield from below.views(
            pictures, lambda: _canvas_source(place, plan, course), seen=seen, num_views=plan["views"]
        )
        return Labelled(_activations(pack, len(labels), course), labels)
    full = yield from _canvas_source(place, plan, course)
    unchanged = PictureSource(place.material.packs["train"], place.preprocess, device=course.device)
    return Labelled(full, labels, unchanged)


def _canvas_source(place: Workplace, plan: Plan, course: Course) -> Work[CanvasSource]:
    pictures, preprocess = place.material.pictures["train"], place.preprocess
    canvases = yield from pack_canvases(
        place.material.dataset.folder, pictures, preprocess, cache=place.cache, workers=plan["workers"]
    )
    strength = strength_of(plan.values())
    smaller = preprocess.with_changes(image_size=plan["train_size"])
    return CanvasSource(canvases, pictures, smaller, strength=strength, seed=course.seed, device=course.device)


def validation_source(place: Workplace, course: Course, below: Extraction | None) -> Work[Labelled]:
    """What an epoch is judged by: pictures as the model will be asked about them, or their activations."""
    split: Split = "val"
    pictures, labels, pack = (getattr(place.material, name)[split] for name in ("pictures", "labels", "packs"))
    if below is None:
        return Labelled(PictureSource(pack, place.preprocess, device=course.device), labels)
    stored = yield from below.activations(pictures, pack)
    return Labelled(_activations(stored, len(pictures), course), labels)


def _activations(pack: Any, num_pictures: int, course: Course) -> ActivationSource:
    return ActivationSource(pack, num_pictures=num_pictures, first_stage=course.first_stage, device=course.device)


def frozen_below(place: Workplace, course: Course) -> Extraction | None:
    """The frozen stages on the fastest engine; None where every stage runs in training."""
    if course.first_stage == 0:
        return None
    network, below = place.network, course.first_stage - 1

    def make() -> Engine:
        form = form_of(network, place.preprocess, outputs=("activation",), stage=below)
        return make_engine(form, device=course.device, precision=course.precision)

    return Extraction(
        LaterEngine(fitting_engine(course.device, course.precision), make),
        place.preprocess,
        shape=stage_shape(shape_of(network.name), below, image_px=place.preprocess.image_size),
        weights_id=f"{place.weights_id} stage {below}",
        precision=course.precision,
        cache=place.cache,
    )
