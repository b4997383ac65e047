"""Maps for the pictures that a report shows: what in them speaks for a class, drawn small. `foldertune explain` checks them as well."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from foldertune.engines import make_engine
from foldertune.engines.form import form_of
from foldertune.engines.torch import exact, normalisation
from foldertune.evaluation.gallery import thumbnail
from foldertune.explanation.attribution import Begun, Method, method_for
from foldertune.explanation.drawing import draw_map
from foldertune.explanation.geometry import Window
from foldertune.models.resnet import ResNet
from foldertune.records import Progress, Work
from foldertune.training.exhibits import pixels_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from foldertune.models.network import Network
    from foldertune.preprocess import Preprocess
    from foldertune.training.baseline import Material
    from foldertune.training.exhibits import Exhibit

_BATCH = 12


def draw_maps(
    network: Network, preprocess: Preprocess, material: Material, exhibits: Sequence[Exhibit]
) -> Work[dict[tuple[str, str], bytes]]:
    """JPEGs by the path of the picture and the class that the map tells of, as the prepared picture is seen by the network.

    The network moves to the processor, where maps are always computed, and no longer learns.
    """
    if not exhibits:
        return {}
    method = method_for(network.cpu())
    begin = _beginning(network, preprocess, method)
    found: dict[tuple[str, str], bytes] = {}
    for start in range(0, len(exhibits), _BATCH):
        batch = exhibits[start : start + _BATCH]
        pictures = np.stack([pixels_of(material, each.split, each.place) for each in batch])
        with exact(), torch.enable_grad():
            grids = method.evidence(begin(pictures), [each.class_number for each in batch])
        for each, picture, grid in zip(batch, pictures, grids, strict=True):
            height, width = picture.shape[:2]
            drawn = draw_map(picture, grid, Window(0.0, 0.0, width, height), (), size=(width, height))
            found[each.path, material.dataset.classes[each.class_number]] = thumbnail(drawn)
        yield Progress("explain", start + len(batch), len(exhibits))
    return found


def _beginning(network: Network, preprocess: Preprocess, method: Method) -> Callable[[NDArray[np.uint8]], Begun]:
    """What computes the lower layers for pictures (B, S, S, 3): of a ResNet the engine that also predicts, a third of torch's time."""
    if isinstance(network, ResNet):
        engine = make_engine(form_of(network, preprocess, outputs=("activation",), stage=network.num_stages - 2))
        return lambda pictures: Begun(torch.from_numpy(engine.run(pictures)), pictures.shape[1])
    scale, shift = normalisation(preprocess)
    return lambda pictures: method.begin(torch.from_numpy(pictures).permute(0, 3, 1, 2).float() * scale + shift)
