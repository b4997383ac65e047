"""How fast this machine is at this work: a few steps, measured before the plan says how long a run takes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from foldertune.data.augment import STRENGTHS
from foldertune.data.loader import CanvasSource, Source
from foldertune.errors import MissingError
from foldertune.forecast import Probe
from foldertune.machine import forget_peak_memory, peak_memory_mib
from foldertune.preprocess import Preprocess
from foldertune.records import Picture
from foldertune.training.trainer import Course, Labelled, Trainer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from foldertune.data.pack import Pack
    from foldertune.engines import Engine
    from foldertune.models.network import Network

_BATCH = 16


def measure(
    network: Network,
    engine: Engine,
    course: Course,
    preprocess: Preprocess,
    *,
    train_size: int,
    canvas: tuple[int, int],
) -> Probe:
    """Pictures per second of each part; the network's weights come out as they went in.

    train_size: side of the square while training.   canvas: (width, height) of the pictures that training cuts from.
    Of starting and decoding nothing is known here: the caller, who did both, puts it in.
    Raises MissingError where a step does not fit into the device's memory.
    """
    forget_peak_memory()
    side = preprocess.image_size
    pictures = np.zeros((_BATCH, side, side, 3), np.uint8)
    features_per_s = _BATCH / _steady_time(lambda: engine.run(pictures))
    source = _blank_source(network, course, preprocess.with_changes(image_size=train_size), canvas)
    try:
        train_per_s, validate_per_s, kept_mib = _training_rates(network, course, source, side)
    except torch.OutOfMemoryError as error:
        raise MissingError(
            f"A step of {course.batch_size} pictures at {train_size} px does not fit into the memory of the device {course.device}. "
            f"Take --batch-size {max(2, course.batch_size // 2)}, a smaller --image-size, or --device cpu."
        ) from error
    return Probe(
        start_s=0.0,
        decode_per_s=math.inf,
        features_per_s=features_per_s,
        train_per_s=train_per_s,
        validate_per_s=validate_per_s,
        memory_mib=peak_memory_mib(),
        kept_mib=kept_mib,
    )


def _training_rates(network: Network, course: Course, source: Source, side: int) -> tuple[float, float, float]:
    """Pictures per second of training and of looking, and the MiB that a step keeps.

    Training steps at rate 0 change no weight; gradients and optimizer state are dropped with the trainer.
    """
    places, labels = (
        np.arange(course.batch_size),
        torch.zeros(course.batch_size, dtype=torch.int64, device=course.device),
    )
    trainer = Trainer(network, course, Labelled(source, np.zeros(course.batch_size, np.int64)))
    x = source.batch(places, 0)
    if x.ndim == 4 and course.first_stage == 0:
        x = x.new_zeros(course.batch_size, 3, side, side).contiguous(memory_format=torch.channels_last)

    def step() -> None:  # with the making of the batch, as training on a processor does it
        trainer.micro_batch(source.batch(places, 0), labels, share=1.0)
        trainer.step()

    def look() -> None:
        with torch.inference_mode(), trainer.autocast():
            network.classify(network.pool(network.run_stages(x, first=course.first_stage)))

    trainer.learning_mode()
    kept_mib = _kept_mib(step, network)
    training = course.batch_size / _steady_time(step, is_warm=True)
    trainer.go_back()  # the statistics of batch norms have seen black pictures
    network.eval()
    return training, course.batch_size / _steady_time(look), kept_mib


def _kept_mib(step: Callable[[], object], network: Network) -> float:
    """What a step keeps of its pictures from the way up for the way back."""
    weights = {value.shape for value in network.parameters()}  # as they are, or in the precision of training
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if tensor.shape not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        step()
    return sum(kept.values()) / 2**20


def _blank_source(network: Network, course: Course, preprocess: Preprocess, canvas: tuple[int, int]) -> Source:
    """Black pictures, augmented as in training; above the first stage, activations of zeros."""
    if course.first_stage == 0:
        width, height = canvas
        pictures = [Picture(row, "", "", width=width, height=height) for row in range(course.batch_size)]
        canvases = cast("Pack", _BlankPack((height, width, 3)))
        return CanvasSource(
            canvases, pictures, preprocess, strength=STRENGTHS["standard"], seed=course.seed, device=course.device
        )
    return _BlankActivations(network, course, preprocess.image_size)


@dataclass(frozen=True, slots=True)
class _BlankPack:
    """As many zeros as are asked for, in the place of a pack."""

    shape: tuple[int, ...]
    num_records: int = 0

    def read(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        return np.zeros((len(indices), *self.shape), np.uint8)


class _BlankActivations:
    """A source of zeros in the shape that the first learning stage takes."""

    def __init__(self, network: Network, course: Course, image_size: int) -> None:
        self.first_stage, self.num_pictures = course.first_stage, course.batch_size
        picture = torch.zeros(1, 3, image_size, image_size, device=course.device)
        with torch.inference_mode():
            below = network.to(course.device).eval().run_stages(picture, last=course.first_stage - 1)
        self._shape = below.shape[1:]
        self._device = course.device

    def batch(self, places: np.ndarray, epoch: int) -> torch.Tensor:
        return torch.zeros(len(places), *self._shape, device=self._device)


def _steady_time(work: Callable[[], object], *, is_warm: bool = False) -> float:
    """Mean seconds of some work: one run warms up, then it runs for a quarter of a second, or four times."""
    if not is_warm:
        work()
    _synchronise()
    began, num_runs = time.perf_counter(), 0
    while num_runs == 0 or (num_runs < 4 and time.perf_counter() - began < 0.25):
        work()
        _synchronise()
        num_runs += 1
    return (time.perf_counter() - began) / num_runs


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
