"""What is known about each network, for the catalogue and for whoever must choose. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from foldertune.models.advice import ADVICE
from foldertune.models.architecture import SHAPES, ResNetShape, Shape, ViTShape, cost_of, shape_of
from foldertune.models.published import PUBLISHED, WeightsFacts

__all__ = ["ModelFacts", "WeightsFacts", "list_models", "model_facts"]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """One network of the catalogue. weights[0] is what `imagenet` means for it."""

    name: str
    title: str
    family: Literal["resnet", "vit"]
    timm_name: str  # "architecture" in config.json
    depth: int  # layers with weights for ResNets (shortcut projections not counted), blocks for ViTs
    layers: str  # how that number comes about
    stages: tuple[int, ...]  # blocks per stage, without the stem
    channels: tuple[int, ...]  # channels, or values per token, that leave each of these stages
    feature_size: int
    parameters: int  # with 1000 classes
    multiply_adds: int  # at 224 px with 1000 classes
    size_mb: float  # float32, 10^6 bytes
    input_px: int
    weights: tuple[WeightsFacts, ...]
    strengths: tuple[str, ...]
    take_when: tuple[str, ...]
    paper: str


def list_models() -> tuple[ModelFacts, ...]:
    """Every network of the catalogue, smallest of each family first."""
    return tuple(model_facts(name) for name in SHAPES)


def model_facts(name: str) -> ModelFacts:
    """What is known about one network. Raises SettingsError with the accepted names for an unknown one."""
    shape, advice = shape_of(name), ADVICE[name]
    cost, is_resnet = cost_of(shape), isinstance(shape, ResNetShape)
    return ModelFacts(
        name=name,
        title=f"ResNet-{shape.depth}" if isinstance(shape, ResNetShape) else _vit_title(shape),
        family="resnet" if is_resnet else "vit",
        timm_name=name if isinstance(shape, ResNetShape) else f"{name}_patch{shape.patch_px}_{shape.image_px}",
        depth=shape.depth if isinstance(shape, ResNetShape) else shape.num_blocks,
        layers=_layers(shape),
        stages=shape.blocks if isinstance(shape, ResNetShape) else (shape.num_blocks // 4,) * 4,
        channels=shape.channels if isinstance(shape, ResNetShape) else (shape.width,) * 4,
        feature_size=shape.feature_size if isinstance(shape, ResNetShape) else shape.width,
        parameters=cost.parameters,
        multiply_adds=cost.multiply_adds,
        size_mb=round(cost.parameters * 4 / 1e6, 1),
        input_px=224,
        weights=PUBLISHED[name],
        strengths=advice.strengths,
        take_when=advice.take_when,
        paper="He, Zhang, Ren, Sun 2015, arXiv:1512.03385"
        if is_resnet
        else "Dosovitskiy et al. 2020, arXiv:2010.11929",
    )


def _vit_title(shape: ViTShape) -> str:
    return f"ViT-{shape.name.removeprefix('vit_').capitalize()}/{shape.patch_px}"


def _layers(shape: Shape) -> str:
    if isinstance(shape, ViTShape):
        return f"{shape.num_blocks} blocks of attention and MLP on {shape.num_tokens - 1} patches and a class token"
    num_blocks, per_block = sum(shape.blocks), 3 if shape.bottleneck else 2
    num_projections = 4 if shape.bottleneck else 3
    return (
        f"{shape.depth} with weights: 1 stem convolution, {num_blocks * per_block} convolutions in {num_blocks} blocks "
        f"of {per_block}, 1 fully connected; the {num_projections} projections on shortcuts are not counted"
    )
