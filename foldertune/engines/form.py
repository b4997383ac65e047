"""A trained network as numbers: what every engine is made from, and what no engine may answer differently from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from foldertune.models.inventory import COUNTER, tensors_of
from foldertune.models.weights import read_weights
from foldertune.preprocess import Preprocess

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from foldertune.models.network import Network

GRAPH = 1  # raised whenever the same form gives another graph: what was made of the former one is then made again
Output = Literal["logits", "features", "activation"]


@dataclass(frozen=True, slots=True)
class Form:
    """Uint8 pictures (B, S, S, 3) -> the chosen outputs, in the order asked; normalisation is a part of the network.

    "logits": (B, K).   "features": (B, D), pooled.   "activation": the output of stage `stage`, (B, C, h, w) for a ResNet.
    tensors: by the names of `models.inventory`, float32, without counters.
    """

    model: str
    tensors: Mapping[str, NDArray[np.float32]]
    preprocess: Preprocess
    outputs: tuple[Output, ...] = ("logits",)
    stage: int = 0


def form_of(
    network: Network, preprocess: Preprocess, *, outputs: tuple[Output, ...] = ("logits",), stage: int = 0
) -> Form:
    """A torch network as it is now. The form shares memory with a network on the CPU: make the engine before learning goes on."""
    state = network.state_dict().items()
    tensors: dict[str, Any] = {
        name: value.detach().cpu().contiguous().numpy() for name, value in state if not name.endswith(COUNTER)
    }
    return Form(network.name, tensors, preprocess, outputs, stage)


def read_form(path: Path, *, model: str, num_classes: int, preprocess: Preprocess) -> Form:
    """The network of a weights file, without torch. Raises DataError and SettingsError as `read_weights` does."""
    tensors = read_weights(path, tensors_of(model, num_classes=num_classes), model=model)
    kept = {name: values for name, values in tensors.items() if not name.endswith(COUNTER)}
    return Form(model, kept, preprocess)
