"""The network on PyTorch: the reference that every other engine is held against, and the only one on a GPU.

`Graph` is what all engines run: uint8 pictures in, normalisation inside, so that no caller can get it wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from foldertune.models.network import Network
    from foldertune.preprocess import Preprocess

Output = Literal["logits", "features", "activation"]


class Graph(nn.Module):
    """Pictures -> the chosen outputs, in the order asked.

    "logits": (B, K); "features": (B, D), pooled; "activation": output of stage `stage`, (B, C, h, w) for a ResNet.
    """

    def __init__(
        self, network: Network, preprocess: Preprocess, *, outputs: Sequence[Output] = ("logits",), stage: int = 0
    ) -> None:
        super().__init__()
        self.network = network
        self.outputs = tuple(outputs)
        self.stage = stage
        scale, shift = normalisation(preprocess)
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        """pictures: (B, S, S, 3) uint8."""
        x = pictures.permute(0, 3, 1, 2).float() * cast("Tensor", self.scale) + cast("Tensor", self.shift)
        found: dict[str, Tensor] = {}
        if "activation" in self.outputs:
            x = self.network.run_stages(x, last=self.stage)
            found["activation"] = x
        if self.outputs != ("activation",):
            first = self.stage + 1 if "activation" in self.outputs else 0
            found["features"] = self.network.pool(self.network.run_stages(x, first=first))
            if "logits" in self.outputs:
                found["logits"] = self.network.classify(found["features"])
        return tuple(found[name] for name in self.outputs)


def normalisation(preprocess: Preprocess) -> tuple[Tensor, Tensor]:
    """(scale, shift), each (3, 1, 1), such that bytes * scale + shift is the normalised picture."""
    mean, std = torch.tensor(preprocess.mean), torch.tensor(preprocess.std)
    return (1 / (255 * std)).view(3, 1, 1), (-mean / std).view(3, 1, 1)


class TorchEngine:
    """A graph in evaluation mode on a device, channels-last, in float32 unless told otherwise."""

    name = "torch"

    def __init__(self, graph: nn.Module, *, device: str = "cpu", autocast: torch.dtype | None = None) -> None:
        self._graph = graph.eval().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs
        self._device = device
        self._autocast = autocast

    def run_all(self, pictures: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Every output of the graph for a batch of (B, S, S, 3) uint8 pictures."""
        batch = torch.from_numpy(np.ascontiguousarray(pictures)).to(self._device)
        enabled = self._autocast is not None
        with torch.inference_mode(), torch.autocast(self._device, self._autocast, enabled=enabled):
            outputs = self._graph(batch)
        return [output.float().cpu().numpy() for output in outputs]

    def run(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The first output for a batch."""
        return self.run_all(pictures)[0]
