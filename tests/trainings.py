"""Small trainings for tests: a ResNet-18 on made pictures of 32 px, a step in some 20 ms."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foldertune.data.augment import STRENGTHS
from foldertune.data.loader import CanvasSource, PictureSource
from foldertune.data.pack import PackWriter
from foldertune.models import build
from foldertune.models.network import Network
from foldertune.preprocess import Preprocess
from foldertune.records import EpochRecord, Event, Picture, Progress
from foldertune.stopping import StopRequest
from foldertune.training.loop import Fitted, fit
from foldertune.training.trainer import Course, Labelled

IMAGE_PX = 32
NUM_CLASSES = 3
COURSE = Course(epochs=5, batch_size=4, learning_rate=3e-4, seed=7, layer_decay=0.7, label_smoothing=0.1)


def made_pictures(num_pictures: int, *, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Noise about a colour and a stripe of the class: (N, 32, 32, 3) uint8, (N,)."""
    random = np.random.default_rng(seed)
    labels = np.arange(num_pictures) % NUM_CLASSES
    pictures = random.integers(0, 120, (num_pictures, IMAGE_PX, IMAGE_PX, 3))
    for place, label in enumerate(labels):
        pictures[place, :, 8 * label : 8 * label + 8, label] += 120
    return pictures.astype(np.uint8), labels.astype(np.int64)


def made_split(folder: Path, num_pictures: int, *, augmentation: str = "none", seed: int = 0) -> Labelled:
    """A source over made pictures. Its pack lies in `folder`."""
    pictures, labels = made_pictures(num_pictures, seed=seed)
    writer = PackWriter(folder, f"{num_pictures}-{augmentation}-{seed}", pictures.shape[1:], np.uint8, num_pictures)
    writer.append(pictures[writer.num_done :]) if writer.num_done < num_pictures else None
    pack, preprocess = writer.close(), Preprocess(image_size=IMAGE_PX)
    if augmentation == "none":
        return Labelled(PictureSource(pack, preprocess, device="cpu"), labels)
    rows = [Picture(row, f"{row}.png", "x", "train", width=IMAGE_PX, height=IMAGE_PX) for row in range(num_pictures)]
    source = CanvasSource(pack, rows, preprocess, strength=STRENGTHS[augmentation], seed=COURSE.seed, device="cpu")
    return Labelled(source, labels)


class Stored:
    """Activations of the stage below `first_stage`, as they are; (N, ...)."""

    def __init__(self, x: Tensor, first_stage: int) -> None:
        self.x, self.first_stage, self.num_pictures = x, first_stage, len(x)

    def batch(self, places: NDArray[np.int64], epoch: int) -> Tensor:
        return self.x[torch.from_numpy(places)]


def made_features(num_pictures: int, *, num_features: int = 512, seed: int = 0) -> Labelled:
    """What the last stage gives, invented: for trainings of the head alone, whose steps and states cost next to nothing."""
    random, labels = np.random.default_rng(seed), np.arange(num_pictures) % NUM_CLASSES
    x = random.random((num_pictures, num_features, 1, 1)) + np.eye(NUM_CLASSES, num_features)[labels][:, :, None, None]
    return Labelled(Stored(torch.from_numpy(x).float(), 5), labels.astype(np.int64))


def made_network() -> Network:
    torch.manual_seed(3)
    return build("resnet18", num_classes=NUM_CLASSES)


class ThinNetwork(Network):
    """Every kind of layer that learns, and next to no weights: a step costs a hundredth of a ResNet-18's."""

    name, head_name, feature_size, num_classes = "thin", "head", 8, NUM_CLASSES

    def __init__(self) -> None:
        super().__init__()
        widths = [3, 8, 8, 8, 8, 8]
        self.body = nn.ModuleList(
            nn.Sequential(nn.Conv2d(widths[n], widths[n + 1], 3, 2, 1, bias=False), nn.BatchNorm2d(8)) for n in range(5)
        )
        self.head = nn.Linear(8, NUM_CLASSES)

    def run_stage(self, stage: int, x: Tensor) -> Tensor:
        result: Tensor = self.body[stage](x).relu()
        return result

    def pool(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))

    def classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(features)
        return logits

    def stage_of(self, name: str) -> int:
        return int(name.split(".")[1]) if name.startswith("body") else 5


def thin_network() -> Network:
    torch.manual_seed(3)
    return ThinNetwork()


@dataclasses.dataclass
class Training:
    """One training that tests stop, resume and look at. `told`: everything that it yielded, all attempts together."""

    folder: Path
    train: Labelled
    val: Labelled
    course: Course = COURSE
    make: Callable[[], Network] = made_network
    network: Network = dataclasses.field(init=False)
    told: list[Progress | EpochRecord | Event] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.network = self.make()

    def run(self, *, stop: StopRequest | None = None, watch: Callable[[Any], None] = lambda told: None) -> Fitted:
        """To the end; `watch` sees everything that is told."""
        self.folder.mkdir(parents=True, exist_ok=True)
        steps = fit(self.network, self.course, self.train, self.val, folder=self.folder, stop=stop or StopRequest())
        while True:
            try:
                told = next(steps)
            except StopIteration as stopped:
                fitted: Fitted = stopped.value
                return fitted
            self.told.append(told)
            watch(told)

    def run_until(self, num_batches: int, *, signal: int = 15) -> Fitted:
        """As a user would stop it: the request comes while the batch of this number trains."""
        stop, seen = StopRequest(), iter(range(1, 1_000_000))

        def watch(told: Any) -> None:
            if isinstance(told, Progress) and next(seen) == num_batches:
                stop.signal = signal

        return self.run(stop=stop, watch=watch)

    def again(self, folder: Path | None = None, **changes: Any) -> Training:
        """A new process's view of the same training: a fresh network, the same folder unless another is given."""
        course = dataclasses.replace(self.course, **changes)
        return dataclasses.replace(self, folder=folder or self.folder, told=[], course=course)

    @property
    def records(self) -> list[EpochRecord]:
        return [told for told in self.told if isinstance(told, EpochRecord)]

    @property
    def warnings(self) -> Iterator[str]:
        return (told.facts["text"] for told in self.told if isinstance(told, Event) and told.kind == "warning")
