"""Augmentation in two batched operations: one affine map and one colour matrix per picture, on the device that trains.

Every picture's changes are drawn from a counter-based generator keyed by (seed, epoch, the picture's number): they do not depend on
the batch, the number of threads, what was drawn before or which other pictures there are, so that a resumed run draws the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from foldertune.preprocess import Interpolation


# Raised whenever the same draw gives other pictures: stored views of earlier versions are then made again.
AUGMENTING = 2


@dataclass(frozen=True, slots=True)
class Strength:
    """How far one strength goes. Angles in degrees, the others as fractions."""

    flip: bool = True
    least_area: float = 1.0  # the smallest share of the picture that a random resized crop keeps
    aspect: float = 1.0  # the crop's width over height lies in [1 / aspect, aspect]
    rotation_deg: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue_deg: float = 0.0
    quarter_turns: bool = False  # any of the four, for pictures that have no upright side
    random_operations: int = 0  # RandAugment-like: so many more of shear, shift and colour, each drawn at random


STRENGTHS: dict[str, Strength] = {
    "none": Strength(flip=False),
    "light": Strength(least_area=0.7, aspect=1.15),
    "standard": Strength(
        least_area=0.5, aspect=4 / 3, rotation_deg=10, brightness=0.2, contrast=0.2, saturation=0.2, hue_deg=5
    ),
    "heavy": Strength(
        least_area=0.35,
        aspect=4 / 3,
        rotation_deg=20,
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        hue_deg=10,
        random_operations=2,
    ),
}


@dataclass(frozen=True, slots=True)
class Sampling:
    """How pixels of a canvas become those of the square: its side, the filter, and samples per pixel and side."""

    out_px: int
    interpolation: Interpolation = "bilinear"
    oversampling: int = 1


_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def strength_of(plan: Mapping[str, Any]) -> Strength:
    """What a plan's values ask for; plans of earlier versions say nothing of flip and hue."""
    strength = STRENGTHS[plan["augmentation"]]
    return replace(
        strength,
        quarter_turns=plan["orientation"] == "any" and plan["augmentation"] != "none",
        flip=strength.flip and plan.get("flip", True),
        hue_deg=strength.hue_deg if plan.get("hue", True) else 0.0,
    )


def extents(sizes: Sequence[tuple[int, int]], fit: str) -> NDArray[np.float64]:
    """The window of each picture that the square shows, in canvas units: (B, 2), x and y; 1 is the whole side.

    sizes: (width, height) of each picture. crop shows the central square, squash the whole, letterbox more than the whole.
    """
    width_over_height = np.array([width / height for width, height in sizes])
    ratios = np.stack([1 / width_over_height, width_over_height], axis=1)
    if fit == "squash":
        return np.ones_like(ratios)
    shown: NDArray[np.float64] = np.minimum(ratios, 1) if fit == "crop" else np.maximum(ratios, 1)
    return shown


def draw(
    strength: Strength,
    numbers: Sequence[int],
    *,
    seed: int,
    epoch: int,
    windows: NDArray[np.float64],
    zoom: float = 1.0,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The changes of each picture.

    numbers: of the pictures, (B,) below 2 ** 32.
    windows: (B, 2) from `extents`.   zoom: side of the central view over the window's, used where nothing is cropped.
    Returns (affine, colour): affine (B, 2, 3) maps output to canvas coordinates in [-1, 1], as torch's affine_grid wants;
    colour (B, 3, 4) maps (R, G, B, 1) with channels in [0, 1] to new channels.
    """
    affine = np.empty((len(numbers), 2, 3), np.float32)
    colour = np.empty((len(numbers), 3, 4), np.float32)
    for place, number in enumerate(numbers):
        random = np.random.Generator(np.random.Philox(key=[seed, (epoch << 32) | int(number)]))
        affine[place] = _draw_affine(strength, random, windows[place], zoom)
        colour[place] = _draw_colour(strength, random)
    return affine, colour


def augment(
    pictures: Tensor,
    affine: Tensor,
    colour: Tensor,
    *,
    fill: Tensor,
    sampling: Sampling,
) -> Tensor:
    """Apply drawn changes in one resampling, so that training sees pictures as sharp as those that it is asked about.

    Bilinear enlarging is that of `prepare`; bicubic is torch's (a = -0.75 where Pillow has -0.5), a little sharper.

    pictures: (B, H, W, 3) uint8 canvases.
    Returns (B, 3, out_px, out_px) float in [0, 1]; outside of the canvas is `fill` (3,).
    """
    background = fill.view(1, 3, 1, 1)
    x = pictures.permute(0, 3, 1, 2).float() / 255 - background  # zero padding then means the fill colour
    side = sampling.out_px * sampling.oversampling
    grid = F.affine_grid(affine, [len(pictures), 3, side, side], align_corners=False)
    # Up to the border the outermost pixels go on, as a resize has it; without this the fill would shine through them.
    # Filled in on the device: to be copied there, two numbers would make the processor wait for it.
    sides = torch.stack([torch.full((), float(px), device=x.device) for px in (x.shape[3], x.shape[2])])
    edge = 1 - 1 / sides
    grid = torch.where(grid.abs() <= 1, grid.clamp(-edge, edge), grid)
    x = F.grid_sample(x, grid, mode=sampling.interpolation, padding_mode="zeros", align_corners=False)
    x = F.avg_pool2d(x, sampling.oversampling) + background
    flat = torch.baddbmm(colour[:, :, 3:], colour[:, :, :3], x.flatten(2))
    return flat.view_as(x).clamp_(0, 1)


def oversampling_of(canvas_px: int, out_px: int) -> int:
    """Samples per output pixel and side that a canvas of this shorter side asks for, so that no pixel of it is passed over."""
    return max(1, math.ceil(canvas_px / out_px - 0.05))


def _draw_affine(
    strength: Strength, random: np.random.Generator, window: NDArray[np.float64], zoom: float
) -> NDArray[np.float64]:
    """Mirror, crop, shear and turn in the units of the square window, then scale to the canvas."""
    cropped = strength.least_area < 1
    area = random.uniform(strength.least_area, 1.0) if cropped else zoom * zoom
    ratio = math.exp(random.uniform(-1, 1) * math.log(strength.aspect))
    side = np.array([math.sqrt(area * ratio), math.sqrt(area / ratio)]).clip(max=1.0)
    room = (1 - window * side).clip(min=0.0)
    centre = random.uniform(-1, 1, 2) * room if cropped else np.zeros(2)
    angle = math.radians(random.uniform(-1, 1) * strength.rotation_deg)
    if strength.quarter_turns:
        angle += math.pi / 2 * random.integers(4)
    mirror = -1.0 if strength.flip and random.random() < 0.5 else 1.0
    shear = np.zeros(2)
    for _ in range(strength.random_operations):
        kind, amount = random.integers(4), random.uniform(-0.25, 0.25)
        if kind < 2:
            shear[kind] += amount
        elif kind == 2:
            centre = centre + random.uniform(-0.1, 0.1, 2)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    linear = np.diag(window) @ turn @ np.array([[1.0, shear[0]], [shear[1], 1.0]]) @ np.diag(side * (mirror, 1.0))
    return np.concatenate([linear, centre[:, None]], axis=1)


def _draw_colour(strength: Strength, random: np.random.Generator) -> NDArray[np.float64]:
    """Brightness, contrast about mid-grey, saturation about the luma, and a turn of hue, as one matrix."""
    brightness, contrast, saturation, hue = random.uniform(-1, 1, 4)
    for _ in range(strength.random_operations):
        kind, amount = random.integers(4), random.uniform(-0.5, 0.5)
        brightness, contrast, saturation = (
            value + amount * (kind == place) for place, value in enumerate((brightness, contrast, saturation))
        )
    grey = np.outer(np.ones(3), _LUMA)
    keep = 1 + saturation * strength.saturation
    linear = _hue_turn(math.radians(hue * strength.hue_deg)) @ (keep * np.eye(3) + (1 - keep) * grey)
    gain, factor = 1 + brightness * strength.brightness, 1 + contrast * strength.contrast
    offset = 0.5 * (1 - factor)
    return np.concatenate([gain * factor * linear, np.full((3, 1), gain * offset)], axis=1)


def _hue_turn(angle: float) -> NDArray[np.float64]:
    """Rotation of RGB about the grey axis (1, 1, 1), which keeps grey grey."""
    axis = np.full(3, 1 / math.sqrt(3))
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    outer = np.outer(axis, axis)
    return math.cos(angle) * np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * outer
