"""From rows to a first model: pictures decoded once, features of the frozen network, and the head that they give."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from foldertune.data.pack import Pack
from foldertune.data.pictures import pack_pictures
from foldertune.data.split import fold_of_units, units
from foldertune.data.stock import kept_values
from foldertune.preprocess import Preprocess
from foldertune.records import SPLITS, Dataset, Picture, Split, Work
from foldertune.training.features import Extraction
from foldertune.training.head import FITTING, NUM_FOLDS, Head, fit_head
from foldertune.training.trials import NO_TRIALS, Features, Trials

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from foldertune.models.network import Network


@dataclass(frozen=True, slots=True)
class Material:
    """The pictures of each split, prepared for the network, with their class numbers."""

    dataset: Dataset
    pictures: Mapping[Split, tuple[Picture, ...]]
    labels: Mapping[Split, NDArray[np.int64]]
    packs: Mapping[Split, Pack]


def prepare_material(dataset: Dataset, preprocess: Preprocess, *, cache: Path, workers: int) -> Work[Material]:
    """Decode and prepare every readable picture, once; found in the cache the next time."""
    pictures = {split: dataset.of(split) for split in SPLITS}
    labels = {split: class_numbers(pictures[split], dataset.classes) for split in SPLITS}
    packs: dict[Split, Pack] = {}
    for split in SPLITS:
        packs[split] = yield from pack_pictures(
            dataset.folder, pictures[split], preprocess, cache=cache, workers=workers
        )
    return Material(dataset, pictures, labels, packs)


@dataclass(frozen=True, slots=True)
class Baseline:
    """head: fitted on the training pictures.   logits: (N, K) by split.   trials: what its features tell beside."""

    head: Head
    logits: Mapping[Split, NDArray[np.float32]]
    trials: Trials = NO_TRIALS

    def accuracy(self, split: Split, labels: NDArray[np.int64]) -> float | None:
        return float((self.logits[split].argmax(1) == labels).mean()) if len(labels) else None


def fit_baseline(network: Network, material: Material, extraction: Extraction, *, seed: int) -> Work[Baseline]:
    """Fit a head on frozen features, put it into the network, and see how it does on the validation pictures."""
    pictures, labels = material.pictures["train"], material.labels["train"]
    features = yield from extraction.features(pictures, material.packs["train"])
    head = yield from head_of(pictures, features, labels, extraction, num_classes=network.num_classes, seed=seed)
    put_head(network, head)
    return Baseline(head, {"val": (yield from head_logits(head, "val", material, extraction))})


def head_of(
    pictures: Sequence[Picture], features: NDArray[np.float32], labels: NDArray[np.int64], extraction: Extraction,
    *, num_classes: int, seed: int,
) -> Work[Head]:  # fmt: skip
    """The head of these pictures, found in the cache or fitted; out of fold those that belong together are not parted."""
    folds = folds_of(pictures, seed=seed)
    drawn = {} if folds is None else {"folds": folds.tolist()}
    key = extraction.key(
        pictures, kind="head", version=FITTING, labels=labels.tolist(), classes=num_classes, seed=seed, **drawn
    )
    return (yield from kept_head(
        lambda: fit_head(features, labels, num_classes=num_classes, seed=seed, folds=folds),
        shape=HeadShape(len(labels), num_classes, features.shape[1]), key=key, cache=extraction.cache,
    ))  # fmt: skip


def folds_of(pictures: Sequence[Picture], *, seed: int) -> NDArray[np.int64] | None:
    """(N,): folds that part no copies, bursts and groups; None where nothing belongs together, so that any folds will do."""
    together = units(pictures)
    if len(together) == len(pictures):
        return None
    by_row = fold_of_units(together, NUM_FOLDS, seed=seed)
    return np.array([by_row[picture.row] for picture in pictures], np.int64)


def class_numbers(pictures: Sequence[Picture], classes: Sequence[str]) -> NDArray[np.int64]:
    """(N,): the number of each picture's class."""
    numbers = {name: number for number, name in enumerate(classes)}
    return np.array([numbers[picture.label] for picture in pictures], np.int64)


@dataclass(frozen=True, slots=True)
class HeadShape:
    """Pictures N, classes K and features D that a head was fitted on; how its numbers lie in one row."""

    num_pictures: int
    num_classes: int
    num_features: int

    @property
    def parts(self) -> tuple[tuple[int, ...], ...]:
        """Weight, bias, strength with log loss and accuracy, probabilities."""
        n, k, d = self.num_pictures, self.num_classes, self.num_features
        return (k, d), (k,), (3,), (n, k)

    @property
    def num_values(self) -> int:
        return sum(math.prod(part) for part in self.parts)


def kept_head(fit: Callable[[], Head], *, shape: HeadShape, key: str, cache: Path) -> Work[Head]:
    """The head as the cache has it under this key, or fitted now and kept there."""

    def row() -> NDArray[np.float64]:
        head = fit()
        facts = [head.strength, head.log_loss, head.accuracy]
        parts = (head.weight.numpy(), head.bias.numpy(), facts, head.probabilities)
        return np.concatenate([np.asarray(part, np.float64).ravel() for part in parts])

    values = yield from kept_values(row, shape=(shape.num_values,), dtype=np.float64, key=key, cache=cache)
    ends = np.cumsum([math.prod(part) for part in shape.parts])[:-1]
    parts = zip(np.split(values, ends), shape.parts, strict=True)
    lines, line, facts, probabilities = (part.reshape(form) for part, form in parts)
    strength, loss, accuracy = facts.tolist()
    weight, bias = torch.from_numpy(lines.astype(np.float32)), torch.from_numpy(line.astype(np.float32))
    return Head(weight, bias, strength, loss, accuracy, probabilities.astype(np.float32))


def all_features(material: Material, extraction: Extraction) -> Work[Features]:
    """Frozen features of every readable picture."""
    values: dict[Split, NDArray[np.float32]] = {}
    for split in SPLITS:
        values[split] = yield from extraction.features(material.pictures[split], material.packs[split])
    return Features(values, material.labels, len(material.dataset.classes))


def head_logits(head: Head, split: Split, material: Material, extraction: Extraction) -> Work[NDArray[np.float32]]:
    """(N, K): what the fitted head says of a split's frozen features."""
    features = yield from extraction.features(material.pictures[split], material.packs[split])
    logits: NDArray[np.float32] = features @ head.weight.numpy().T + head.bias.numpy()
    return logits


@torch.no_grad()
def put_head(network: Network, head: Head) -> None:
    """Make the fitted head the network's own."""
    layer = network.get_submodule(network.head_name)
    layer.get_parameter("weight").copy_(head.weight)
    layer.get_parameter("bias").copy_(head.bias)


@torch.no_grad()
def cool_head(network: Network, temperature: float) -> None:
    """Divide the logits by a temperature for good, by scaling the head: the answers stay, the confidence becomes honest."""
    layer = network.get_submodule(network.head_name)
    layer.get_parameter("weight").div_(temperature)
    layer.get_parameter("bias").div_(temperature)
