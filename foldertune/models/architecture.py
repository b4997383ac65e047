"""The shapes of the networks, and what they cost, without importing torch.

Parameters and multiply-adds are computed from these descriptions; resnet.py and vit.py are built from them too, and
a test compares the two.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from foldertune.errors import SettingsError


@dataclass(frozen=True, slots=True)
class ResNetShape:
    """A column of table 1 of the ResNet paper.

    blocks: residual blocks per stage.   bottleneck: three convolutions in each, else two.
    """

    depth: int
    blocks: tuple[int, int, int, int]
    bottleneck: bool

    @property
    def expansion(self) -> int:
        return 4 if self.bottleneck else 1

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels that leave each stage."""
        return tuple(64 * 2**stage * self.expansion for stage in range(4))

    @property
    def feature_size(self) -> int:
        return self.channels[-1]


@dataclass(frozen=True, slots=True)
class ViTShape:
    """A row of table 1 of the ViT paper: equal blocks of `width` values per token, on patches of `patch_px` square."""

    name: str
    num_blocks: int
    width: int
    num_heads: int
    patch_px: int = 16
    image_px: int = 224

    @property
    def num_tokens(self) -> int:
        """Patches of the picture, and the class token."""
        return (self.image_px // self.patch_px) ** 2 + 1


Shape = ResNetShape | ViTShape
LAYER_NORM_EPSILON = 1e-6  # of ViTs: the authors' JAX code, and so all published weights; torch's default is 1e-5

RESNETS: Mapping[int, ResNetShape] = {
    18: ResNetShape(18, (2, 2, 2, 2), bottleneck=False),
    34: ResNetShape(34, (3, 4, 6, 3), bottleneck=False),
    50: ResNetShape(50, (3, 4, 6, 3), bottleneck=True),
    101: ResNetShape(101, (3, 4, 23, 3), bottleneck=True),
    152: ResNetShape(152, (3, 8, 36, 3), bottleneck=True),
}
SHAPES: Mapping[str, Shape] = {
    **{f"resnet{depth}": shape for depth, shape in RESNETS.items()},
    "vit_base": ViTShape("vit_base", num_blocks=12, width=768, num_heads=12),
    "vit_large": ViTShape("vit_large", num_blocks=24, width=1024, num_heads=16),
}


def shape_of(name: str) -> Shape:
    """The architecture's description. Raises SettingsError with the names nearest to an unknown one."""
    if name not in SHAPES:
        near = difflib.get_close_matches(name.lower(), SHAPES, n=2, cutoff=0.5)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise SettingsError(f"There is no model '{name}'. Accepted: {', '.join(SHAPES)}.{hint}")
    return SHAPES[name]


def stage_shape(shape: Shape, stage: int, *, image_px: int) -> tuple[int, ...]:
    """What leaves a stage for one picture: (C, side, side) of a ResNet, (1 + tokens, D) of a ViT; stage 0 is the stem."""
    if isinstance(shape, ViTShape):
        return ((image_px // shape.patch_px) ** 2 + 1, shape.width)
    side = _halved(_halved(image_px))  # the stem and its max pool
    for _ in range(1, stage):
        side = _halved(side)
    return (shape.channels[stage - 1] if stage else 64, side, side)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a part of a network holds and computes: parameters, and multiply-adds for one picture."""

    parameters: int
    multiply_adds: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.parameters + other.parameters, self.multiply_adds + other.multiply_adds)


def cost_of(shape: Shape, *, image_px: int = 224, num_classes: int = 1000) -> Cost:
    """Parameters and multiply-adds of the whole network.

    Counted: convolutions, linear layers and the two products of attention. Norms, activations and pooling count
    no multiply-adds, as is usual where "4.1 G" is said of ResNet-50.
    """
    if isinstance(shape, ResNetShape):
        return _resnet_cost(shape, image_px) + _linear(shape.feature_size, num_classes)
    return _vit_cost(shape, image_px) + _linear(shape.width, num_classes)


def _linear(num_in: int, num_out: int, *, times: int = 1) -> Cost:
    return Cost(num_in * num_out + num_out, num_in * num_out * times)


def _conv_norm(num_in: int, num_out: int, *, kernel: int, side: int) -> Cost:
    """A convolution without bias whose output is side x side, and its batch norm (a scale and a shift per channel)."""
    weights = num_in * num_out * kernel**2
    return Cost(weights + 2 * num_out, weights * side**2)


def _halved(side: int) -> int:
    """The side after a stride of 2 with "same" padding."""
    return (side + 1) // 2


def _resnet_cost(shape: ResNetShape, image_px: int) -> Cost:
    side = _halved(image_px)
    cost = _conv_norm(3, 64, kernel=7, side=side)
    num_in, side = 64, _halved(side)  # the max pool
    for stage, num_blocks in enumerate(shape.blocks):
        width, num_out = 64 * 2**stage, shape.channels[stage]
        for block in range(num_blocks):
            side_in, side = side, _halved(side) if stage > 0 and block == 0 else side
            if shape.bottleneck:  # v1.5: the 1x1 still sees the larger side
                cost += _conv_norm(num_in, width, kernel=1, side=side_in)
                cost += _conv_norm(width, width, kernel=3, side=side)
                cost += _conv_norm(width, num_out, kernel=1, side=side)
            else:
                cost += _conv_norm(num_in, width, kernel=3, side=side)
                cost += _conv_norm(width, width, kernel=3, side=side)
            if num_in != num_out or side != side_in:
                cost += _conv_norm(num_in, num_out, kernel=1, side=side)
            num_in = num_out
    return cost


def _vit_cost(shape: ViTShape, image_px: int) -> Cost:
    width, num_patches = shape.width, (image_px // shape.patch_px) ** 2
    num_tokens = num_patches + 1
    norm = Cost(2 * width, 0)
    cost = _linear(3 * shape.patch_px**2, width, times=num_patches)
    cost += Cost(
        width + shape.num_tokens * width, 0
    )  # class token and positions, which keep the size they were trained at
    attention = _linear(width, 3 * width, times=num_tokens) + _linear(width, width, times=num_tokens)
    attention += Cost(0, 2 * num_tokens**2 * width)  # queries with keys, and the result with values
    mlp = _linear(width, 4 * width, times=num_tokens) + _linear(4 * width, width, times=num_tokens)
    for _ in range(shape.num_blocks):
        cost += norm + attention + norm + mlp
    return cost + norm
