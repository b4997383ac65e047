"""The network on PyTorch: the reference that every other engine is held against, and the only one on a GPU."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from foldertune.engines.form import Form, Output
from foldertune.models import build

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from foldertune.models.network import Network
    from foldertune.preprocess import Preprocess


class Graph(nn.Module):
    """Pictures -> the chosen outputs, in the order asked; see Form."""

    def __init__(
        self, network: Network, preprocess: Preprocess, *, outputs: tuple[Output, ...] = ("logits",), stage: int = 0
    ) -> None:
        super().__init__()
        self.network, self.outputs, self.stage = network, outputs, stage
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


def graph_of(form: Form) -> Graph:
    """The form as torch computes it, with a copy of its weights."""
    head = "head.weight" if "head.weight" in form.tensors else "fc.weight"
    network = build(form.model, num_classes=len(form.tensors[head]))
    network.load_state_dict({name: torch.from_numpy(values) for name, values in form.tensors.items()}, strict=False)
    return Graph(network, form.preprocess, outputs=form.outputs, stage=form.stage)


_EXACT = threading.RLock()  # an engine may run inside of what is exact already


@contextlib.contextmanager
def exact() -> Iterator[None]:
    """float32 that is float32: by default convolutions on CUDA run in TF32, which keeps 10 bits, and users may ask for as much elsewhere.

    What was set holds for the whole process, so it is put back, and one thread at a time is inside.
    """
    backends: Any = torch.backends  # whose stubs lack them
    cuda, cpu = backends.cudnn, backends.mkldnn
    kinds = [cuda.conv, cuda.rnn, backends.cuda.matmul, cpu.conv, cpu.matmul]
    with _EXACT:
        before = [kind.fp32_precision for kind in kinds]
        try:
            for kind in kinds:
                kind.fp32_precision = "ieee"
            yield
        finally:
            for kind, precision in zip(kinds, before, strict=True):
                kind.fp32_precision = precision


class TorchEngine:
    """A graph in evaluation mode on a device, channels-last."""

    def __init__(
        self, graph: nn.Module, *, device: str = "cpu", precision: str = "float32", compiled: bool = False
    ) -> None:
        self.name = "compiled" if compiled else "torch"
        graph = graph.eval().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs
        self._graph = torch.compile(graph, dynamic=True) if compiled else graph
        self._device = device
        self._lower = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
        self._lock = threading.Lock()

    def run_all(self, pictures: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Every output of the graph for a batch of (B, S, S, 3) uint8 pictures."""
        batch = torch.from_numpy(np.ascontiguousarray(pictures)).to(self._device)
        arithmetic = torch.autocast(self._device, self._lower) if self._lower else exact()
        with (
            arithmetic,
            self._lock,
            torch.inference_mode(),
        ):  # in this order: who is inside of `exact` already waits for the engine
            outputs = self._graph(batch)
        return [output.float().cpu().numpy() for output in outputs]

    def run(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The first output for a batch."""
        return self.run_all(pictures)[0]
