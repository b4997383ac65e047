"""Maps of shown pictures: the same as of each picture alone, for the class that was asked about."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from foldertune.engines.torch import normalisation
from foldertune.evaluation.gallery import thumbnail
from foldertune.explanation.attribution import method_for
from foldertune.explanation.drawing import draw_map
from foldertune.explanation.geometry import Grid, Window
from foldertune.heatmaps import draw_maps
from foldertune.models import build
from foldertune.models.architecture import ViTShape
from foldertune.models.vit import ViT
from foldertune.preprocess import Preprocess
from foldertune.records import finish
from foldertune.training.exhibits import Exhibit

SIDE = 64


class Pictures:
    """A pack of noise pictures."""

    def read(self, places: Any) -> Any:
        return np.stack([np.random.default_rng(place).integers(0, 256, (SIDE, SIDE, 3), np.uint8) for place in places])


def small_network(name: str = "resnet18") -> Any:
    torch.manual_seed(3)
    if name == "vit":
        shape = ViTShape("vit_small_for_tests", num_blocks=8, width=24, num_heads=3, patch_px=16, image_px=SIDE)
        network: Any = ViT(shape, num_classes=3)
    else:
        network = build(name, num_classes=3)
    for value in network.parameters():
        if value.ndim > 1:
            torch.nn.init.normal_(value, std=0.03 if value.ndim == 4 and name != "vit" else 0.3)
    return network


@pytest.mark.parametrize("name", ["resnet18", "vit"])
def test_draw_maps_are_those_of_each_picture_alone(name: str) -> None:
    material: Any = SimpleNamespace(
        packs={"train": Pictures(), "test": Pictures()}, dataset=SimpleNamespace(classes=("a", "b", "c"))
    )
    preprocess = Preprocess(image_size=SIDE)
    exhibits = [Exhibit("test", place, f"test/{place}.jpg", place % 3) for place in range(14)]
    exhibits.append(Exhibit("train", 3, "train/3.jpg", 1))
    found = finish(draw_maps(small_network(name), preprocess, material, exhibits))
    assert list(found) == [(each.path, "abc"[each.class_number]) for each in exhibits]
    method, (scale, shift) = method_for(small_network(name)), normalisation(preprocess)
    for each in (exhibits[0], exhibits[13], exhibits[14]):
        picture = Pictures().read([each.place])[0]
        x = torch.from_numpy(picture).permute(2, 0, 1)[None].float() * scale + shift
        (grid,) = method.evidence(method.begin(x), [each.class_number])
        others = [method.evidence(method.begin(x), [number])[0] for number in range(3) if number != each.class_number]
        drawn = decoded(found[each.path, "abc"[each.class_number]])
        assert np.abs(drawn - seen_through(picture, grid)).mean() < 0.1
        assert max(np.abs(drawn - seen_through(picture, other)).mean() for other in others) > 1


def seen_through(picture: Any, grid: Grid) -> Any:
    drawn = draw_map(picture, grid, Window(0, 0, SIDE, SIDE), (), size=(SIDE, SIDE))
    return decoded(thumbnail(drawn))


def decoded(jpeg: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(jpeg))).astype(int)


def test_draw_maps_of_nothing_are_none() -> None:
    material: Any = SimpleNamespace(packs={}, dataset=SimpleNamespace(classes=("a",)))
    assert finish(draw_maps(small_network(), Preprocess(image_size=SIDE), material, [])) == {}
