"""What is known about each network and its published weights, without importing torch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from foldertune.errors import SettingsError


@dataclass(frozen=True, slots=True)
class ResNetShape:
    """A column of table 1 of the ResNet paper. blocks: how many per stage; bottleneck: of three convolutions, else two."""

    depth: int
    blocks: tuple[int, int, int, int]
    bottleneck: bool

    @property
    def expansion(self) -> int:
        return 4 if self.bottleneck else 1

    @property
    def feature_size(self) -> int:
        return 512 * self.expansion


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


RESNETS: Mapping[int, ResNetShape] = {
    18: ResNetShape(18, (2, 2, 2, 2), bottleneck=False),
    34: ResNetShape(34, (3, 4, 6, 3), bottleneck=False),
    50: ResNetShape(50, (3, 4, 6, 3), bottleneck=True),
    101: ResNetShape(101, (3, 4, 23, 3), bottleneck=True),
    152: ResNetShape(152, (3, 8, 36, 3), bottleneck=True),
}
SHAPES: Mapping[str, ResNetShape | ViTShape] = {
    **{f"resnet{depth}": shape for depth, shape in RESNETS.items()},
    "vit_base": ViTShape("vit_base", num_blocks=12, width=768, num_heads=12),
    "vit_large": ViTShape("vit_large", num_blocks=24, width=1024, num_heads=16),
}


def shape_of(name: str) -> ResNetShape | ViTShape:
    """The architecture's description. Raises SettingsError with the names nearest to an unknown one."""
    if name not in SHAPES:
        near = difflib.get_close_matches(name.lower(), SHAPES, n=2, cutoff=0.5)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise SettingsError(f"There is no model '{name}'. Accepted: {', '.join(SHAPES)}.{hint}")
    return SHAPES[name]
