"""What is looked at beside learning, so that a run can be diagnosed later: inputs, labels, copies, the machine, and how far weights moved.

All of it together costs a few seconds of a run: 48 pictures through the frozen network, 96 in the end, and the rest is arithmetic.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from foldertune.diagnosis.contradictions import find_contradictions
from foldertune.engines.torch import normalisation
from foldertune.machine import has_gpu_driver, num_cores, version_of
from foldertune.models.tensor_file import read_header, read_tensors
from foldertune.notes import noted
from foldertune.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from foldertune.records import Dataset
from foldertune.training.statistics import sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from foldertune.data.loader import Source
    from foldertune.engines import Engine
    from foldertune.models.network import Network
    from foldertune.training.baseline import Baseline, Material

NUM_INPUTS = 48
LEAST_INPUTS = 8
NUM_PLAIN = 96
_LEAST_CLASSES = 100  # of a classifier that knows the world's colours, as that of ImageNet
# How networks are normally fed; `given` comes from the weights.
USUAL: Mapping[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "ImageNet mean and std": (IMAGENET_MEAN, IMAGENET_STD),
    "mean 0.5, std 0.5": ((0.5,) * 3, (0.5,) * 3),
    "mean 0, std 1": ((0.0,) * 3, (1.0,) * 3),
    "bytes of 0 to 255": ((0.0,) * 3, (1 / 255,) * 3),
}


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the pretrained network says of how it is fed.

    scales: for each way to feed it, log of the variance that its first batch norm meets over the one that it met when it was made,
    median over channels; 0 is as it was made. None for a network without batch norms.
    order_t: t of the paired difference, swapped less given, of how sure its own classifier is with red and blue swapped; above 0
    speaks for a wrong order of colours. None without such a classifier, or for grey pictures.
    red_over_blue: energy of the first layer's weights for red over that for blue; above 1 in a network that was trained on photographs
    in the order red, green, blue.
    """

    num_pictures: int
    scales: Mapping[str, float] | None
    order_t: float | None
    red_over_blue: float | None = None


def examine_inputs(
    network: Network, engine: Engine, preprocess: Preprocess, pictures: NDArray[np.uint8], weights: Path | None
) -> Inputs | None:
    """network: with its pretrained weights.   engine: the same, features.   pictures: (N, S, S, 3).   weights: its file."""
    if weights is None or len(pictures) < LEAST_INPUTS:
        return None
    first = next(value for value in network.parameters() if value.ndim == 4)  # (C, 3, height, width)
    energy = first.detach().float().square().sum((0, 2, 3)).cpu()
    red_over_blue = float(energy[0] / energy[2].clamp(min=1e-12)) if len(energy) == 3 else None
    return Inputs(
        len(pictures), _scales(network, preprocess, pictures), _order_t(engine, pictures, weights), red_over_blue
    )


@torch.no_grad()
def _scales(network: Network, preprocess: Preprocess, pictures: NDArray[np.uint8]) -> dict[str, float] | None:
    norms = [
        module
        for name, module in network.named_modules()
        if isinstance(module, nn.BatchNorm2d) and not network.stage_of(name)
    ]
    if not norms:
        return None
    found: list[float] = []

    def note(norm: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        there = norm.get_buffer("running_var")
        alive = there > 1e-3 * there.mean()  # channels that pretraining left unused say nothing
        here = inputs[0].float().var((0, 2, 3))
        found.append(float((here[alive].clamp(min=1e-12) / there[alive]).log().median()))

    device = next(network.parameters()).device
    x = torch.from_numpy(np.ascontiguousarray(pictures[:32])).to(device).permute(0, 3, 1, 2).float()
    was_learning = network.training
    network.eval()
    handle = norms[0].register_forward_pre_hook(note)
    try:
        for mean, std in ((preprocess.mean, preprocess.std), *USUAL.values()):
            scale, shift = normalisation(preprocess.with_changes(mean=mean, std=std))
            network.run_stages(x * scale.to(device) + shift.to(device), last=0)
    finally:
        handle.remove()
        network.train(was_learning)
    return dict(zip(("given", *USUAL), found, strict=True))


def _order_t(engine: Engine, pictures: NDArray[np.uint8], weights: Path) -> float | None:
    """How much surer the weights' own classifier is of pictures with red and blue swapped, in standard errors."""
    coloured = pictures[
        (pictures.max(3).astype(int) - pictures.min(3)).mean((1, 2)) > 4
    ]  # of 255: as in survey.is_grey
    classifier = _classifier(weights)
    if classifier is None or len(coloured) < LEAST_INPUTS:
        return None
    weight, bias = classifier
    energies, entropies = [], []
    for given in (coloured, np.ascontiguousarray(coloured[..., ::-1])):
        features = np.concatenate([engine.run(given[start : start + 16]) for start in range(0, len(given), 16)])
        logits = torch.from_numpy(features.astype(np.float32) @ weight.T + bias)
        logs = logits.log_softmax(1)
        energies.append(logits.logsumexp(1).numpy())
        entropies.append(-(logs.exp() * logs).sum(1).numpy())
    return (_t(energies[1] - energies[0]) + _t(entropies[0] - entropies[1])) / 2


def _t(differences: NDArray[np.float32]) -> float:
    error = float(differences.std(ddof=1)) / len(differences) ** 0.5
    return float(differences.mean()) / error if error > 1e-9 else 0.0


def _classifier(weights: Path) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """The head that the weights came with: (K, D), (K,)."""
    header = read_header(weights)
    for head in ("fc", "head"):
        names = {part: f"{head}.{part}" for part in ("weight", "bias")}
        facts = {name: header[name] for name in names.values() if name in header}
        if len(facts) == 2 and facts[names["weight"]].shape[0] >= _LEAST_CLASSES:
            tensors = read_tensors(weights, facts)
            return tensors[names["weight"]], tensors[names["bias"]]
    return None


def inputs_noted(
    network: Network, engine: Engine, preprocess: Preprocess, material: Material, named: tuple[Path | None, str]
) -> Inputs | None:
    """`examine_inputs` on training pictures, kept for later runs.   named: the weights' file, and what names them in cache keys."""
    weights, weights_id = named
    pack = material.packs["train"]
    places = np.linspace(0, pack.num_records - 1, min(NUM_INPUTS, pack.num_records)).round().astype(int)
    if weights is None or len(places) < LEAST_INPUTS:
        return None
    hashes = [material.pictures["train"][place].sha256 for place in places]
    versions = [version_of(name) for name in ("foldertune", "torch")]

    def look() -> Inputs:
        found = examine_inputs(network, engine, preprocess, pack.read(places), weights)
        assert found is not None
        return found

    return noted("inputs", [weights_id, preprocess.to_dict(), hashes, versions], look, record=Inputs)


def examination(
    material: Material, baseline: Baseline, inputs: Inputs | None, copies: Iterable[tuple[int, int]]
) -> dict[str, Any]:
    """What the event "examined" tells.   copies: rows of pictures that show the same."""
    found = find_contradictions(baseline.head.probabilities, material.labels["train"])
    best, name = best_device()
    return {
        "labels": found,
        "inputs": inputs,
        "copies": parted_copies(material.dataset, copies),
        "machine": {
            "best_device": best,
            "best_device_name": name,
            "has_gpu_driver": has_gpu_driver(sys.platform),
            "num_cores": num_cores(),
            "num_threads": torch.get_num_threads(),
        },
    }


def best_device() -> tuple[str, str]:
    """The fastest device here and its name, without waking a GPU that is not used."""
    if torch.cuda.is_available():
        return "cuda", "GPU"
    return ("mps", "Apple GPU") if torch.backends.mps.is_available() else ("cpu", "processor")


def parted_copies(dataset: Dataset, copies: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Rows (of train, of val or test) that show the same picture.   copies: rows of two pictures each."""
    parted = set()
    for one, other in copies:
        splits = [dataset.pictures[row].split for row in (one, other)]
        if (splits[0] == "train") != (splits[1] == "train"):
            parted.add((one, other) if splits[0] == "train" else (other, one))
    return sorted(parted)


def moved_shares(network: Network, start: Mapping[str, torch.Tensor]) -> list[float]:
    """How far the weights of each stage, and of the head after them, are from `start`: length of the difference over their length."""
    state = network.state_dict()
    squares = np.zeros((network.num_stages + 1, 2))
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1 and name in start:
            before = start[name].to(parameter.device).float()
            stage = network.stage_of(name)
            squares[stage] += [
                float((state[name].float() - before).square().sum()),
                float(before.square().sum()),
            ]
    return [float((moved / max(length, 1e-30)) ** 0.5) for moved, length in squares]


def answers_plain(
    network: Network, source: Source, labels: NDArray[np.int64], *, seed: int
) -> tuple[float, float, int]:
    """(log loss, accuracy, number) on some training pictures as validation would see them.   source: of pictures.   labels: (N,)."""
    places = sample(labels, NUM_PLAIN, seed=seed)[:NUM_PLAIN]
    loss, correct = 0.0, 0
    network.eval()
    with torch.inference_mode():
        for part in np.array_split(places, -(-len(places) // 32)):
            logits = network.classify(network.pool(network.run_stages(source.batch(part, 0)))).float()
            right = torch.from_numpy(labels[part]).to(logits.device)
            loss += float(F.cross_entropy(logits, right, reduction="sum"))
            correct += int((logits.argmax(1) == right).sum())
    return loss / len(places), correct / len(places), len(places)
