"""The same forward pass on what this machine does best. An engine takes uint8 pictures; normalisation is inside the graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn


class Engine(Protocol):
    """(B, S, S, 3) uint8 pictures in, float32 arrays out; `run` gives the first output alone."""

    name: str

    def run_all(self, pictures: NDArray[np.uint8]) -> list[NDArray[np.float32]]: ...

    def run(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]: ...


def make_engine(graph: nn.Module, image_size: int, *, device: str = "cpu", precision: str = "float32") -> Engine:
    """The fastest engine for a graph: OpenVINO on a processor, PyTorch on anything else. The graph is moved to the device."""
    import torch

    from foldertune.engines.torch import TorchEngine

    if device == "cpu" and precision in {"float32", "bf16"}:
        from foldertune.engines.openvino import OpenVinoEngine

        return OpenVinoEngine(graph, image_size, precision=precision)
    lower = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return TorchEngine(graph, device=device, autocast=lower)
