"""Weights and pictures for parity tests: sawtooth ramps, a function of name and shape only, so that every machine makes the same.

The arithmetic is on whole numbers, so the values are the same bits everywhere. Scales keep activations near 1 in any depth.
"""

from __future__ import annotations

import math
import zlib

import torch
from torch import Tensor, nn

PERIOD = 65_521  # a prime, so that no shape's rows repeat


def sawtooth(name: str, shape: tuple[int, ...]) -> Tensor:
    """Values in [-1, 1) that climb by a step of the name's own and fall back; variance close to 1/3."""
    mark = zlib.crc32(name.encode())
    step, start = 1 + mark % (PERIOD - 1), mark // PERIOD % PERIOD
    index = torch.arange(math.prod(shape), dtype=torch.int64)
    return ((index * step + start) % PERIOD).double().mul(2 / PERIOD).sub(1).float().reshape(shape)


def ramp(name: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor of a network by its name: weights scaled by fan-in, norms near the identity, variances positive."""
    wave, last = sawtooth(name, shape), name.rpartition(".")[2]
    if last == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    if last == "running_var":
        return 1 + wave / 2
    if len(shape) > 1 and last == "weight":
        return wave * math.sqrt(3 / math.prod(shape[1:]))
    return (0.7 if last == "weight" else 0.0) + wave / 5


def fill_with_ramps(network: nn.Module) -> None:
    network.load_state_dict({name: ramp(name, tuple(value.shape)) for name, value in network.state_dict().items()})


def ramp_pictures(image_px: int, *, num_pictures: int = 2) -> Tensor:
    """(B, 3, S, S), as if normalised."""
    return 2 * sawtooth("pictures", (num_pictures, 3, image_px, image_px))
