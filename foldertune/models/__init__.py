"""The networks: what is known about each (catalog), how each computes (resnet, vit), how weights arrive (weights)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from foldertune.models.network import Network


def build(name: str, *, num_classes: int, v1: bool = False) -> Network:
    """A new network with random weights; seed torch first if the weights must repeat.

    name: a name of the catalogue, such as "resnet50".   num_classes: K, from 1.
    v1: for bottleneck ResNets, the stride on the first 1x1 convolution as in the paper, instead of the 3x3 (v1.5).
    Raises SettingsError for a name that is not in the catalogue, and for v1 where there is no bottleneck.
    """
    from foldertune.errors import SettingsError
    from foldertune.models.architecture import ResNetShape, shape_of

    shape = shape_of(name)
    if num_classes < 1:
        raise SettingsError(f"A network was asked for with {num_classes} classes. Accepted: 1 and more.")
    if v1 and not (isinstance(shape, ResNetShape) and shape.bottleneck):
        raise SettingsError(f"{name} has no v1 form. Accepted with v1: resnet50, resnet101 and resnet152.")
    if isinstance(shape, ResNetShape):
        from foldertune.models.resnet import ResNet

        return ResNet(shape.depth, num_classes=num_classes, v1=v1)
    from foldertune.models.vit import ViT

    return ViT(shape, num_classes=num_classes)
