"""What the pretrained network says of the pictures before anything is learned: have they an upright side, are they of its world?

Leaves from above and crops of a microscope have no upright side, and turning them while training gives four times the pictures;
shoes and X-rays have one, and turning them would teach what never comes. Pictures far from the pretraining ones want
statistics and a head of their own, near ones do best with what is there (docs/log.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from foldertune.diagnosis.changes import find_conflicts
from foldertune.forecast import Survey
from foldertune.machine import cpu_has_bf16
from foldertune.training.head import logistic_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from foldertune.engines import Engine
    from foldertune.models.network import Network
    from foldertune.preprocess import Preprocess

NUM_PICTURES = 32
LEAST_PICTURES = 16
_STRENGTH = 0.01  # of the regression: in the middle of those that the head tries
_BATCH = 16
# Of 255, mean over pictures. Measured: X-rays 0, clothes 43, plants 51; single pictures of the latter two 8 and more.
_GREY = 4.0


def survey(
    network: Network, engine: Engine, preprocess: Preprocess, pictures: NDArray[np.uint8], *, precision: str = "float32"
) -> Survey:
    """engine: the same network, its first output features.   pictures: (N, S, S, 3), 16 and more; fewer tell nothing.

    precision: bf16 where the machine has it; the distance is the same to the third digit.
    """
    # As good as all of them: 0.26 to 0.27 on clothes, 0.47 to 0.48 on plants (docs/log.md).
    some = pictures[:: len(pictures) // LEAST_PICTURES]
    return Survey(
        upright_share(engine, pictures), distance(network, preprocess, some, precision=precision), is_grey(pictures)
    )


def is_grey(pictures: NDArray[np.uint8]) -> bool:
    """Whether the channels of pictures (N, S, S, 3) say the same, but for what storing as JPEG changes."""
    return float((pictures.max(3) - pictures.min(3)).mean()) < _GREY


def upright_share(engine: Engine, pictures: NDArray[np.uint8]) -> float:
    """How often frozen features tell by how many quarter turns a picture was turned, in [0, 1]; 0.25 is a guess.

    Judged on pictures that the regression has not seen, each half by the other. After Gidaris et al. 2018, "Unsupervised
    representation learning by predicting image rotations".
    """
    turned = np.concatenate([np.rot90(pictures, turns, axes=(1, 2)) for turns in range(4)])
    features = torch.from_numpy(_features(engine, turned))
    features = (features - features.mean(0)) / (float(features.std(0).mean()) or 1.0)
    turns = torch.arange(4).repeat_interleave(len(pictures))
    half = torch.arange(len(pictures)).repeat(4) % 2
    correct = 0
    for held_out in (0, 1):
        seen = half != held_out
        weight, bias = logistic_path(features[seen], turns[seen], [_STRENGTH], num_classes=4)[0]
        correct += int(((features[~seen] @ weight.T + bias).argmax(1) == turns[~seen]).sum())
    return correct / len(turned)


def swapped_share(engine: Engine, pictures: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
    """The largest share of a class whose mirrored pictures lie among those of another class; 0 where there is none.

    pictures: (N, S, S, 3), of every class a few.   labels: (N,).
    """
    conflicts = find_conflicts(_features(engine, pictures), _features(engine, pictures[:, :, ::-1]), labels)
    return conflicts[0].share if conflicts else 0.0


def _features(engine: Engine, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, D)"""
    starts = range(0, len(pictures), _BATCH)
    return np.concatenate([engine.run(np.ascontiguousarray(pictures[start : start + _BATCH])) for start in starts])


@torch.no_grad()  # inference tensors could not learn any more
def distance(
    network: Network, preprocess: Preprocess, pictures: NDArray[np.uint8], *, precision: str = "float32"
) -> float | None:
    """How far the pictures are from the pretraining ones: mean |log(variance here / variance there)| over the inputs of all
    batch norms; 0 is the same world. None for a network without batch norms. The network stays as it is.
    """
    from foldertune.engines.torch import Graph

    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return None
    found: list[float] = []

    def note(norm: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        there = norm.get_buffer("running_var")
        alive = there > 1e-3 * there.mean()  # channels that pretraining left unused say nothing
        here = inputs[0].float().var((0, 2, 3))
        found.append(float((here[alive] / there[alive]).log().abs().clamp(max=3).mean()))

    device = next(network.parameters()).device
    handles = [norm.register_forward_pre_hook(note) for norm in norms]
    graph = Graph(network, preprocess, outputs=("features",)).eval().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs
    try:
        emulated = (
            device.type == "cpu" and not cpu_has_bf16()
        )  # the precision is the GPU's, where the network is not yet
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16" and not emulated):
            graph(torch.from_numpy(pictures).to(device))
    finally:
        for handle in handles:
            handle.remove()
    return float(np.mean(found))
