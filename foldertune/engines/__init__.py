"""The same forward pass on what this machine does best. An engine takes uint8 pictures; normalisation is inside the graph.

ENGINES says what each can do. Every one is made from a Form, or from a file that was made from one.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from foldertune.errors import MissingError, SettingsError
from foldertune.machine import cpu_has_bf16

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from foldertune.engines.form import Form

EngineName = Literal["openvino", "onnxruntime", "torch", "compiled"]
Arithmetic = Literal["float32", "bf16", "fp16", "int8"]
EXACTNESS: tuple[str, ...] = ("float32", "bf16", "fp16", "int8")  # from the most exact on


class Engine(Protocol):
    """(B, S, S, 3) uint8 pictures in, float32 arrays out; `run` gives the first output alone."""

    name: str

    def run_all(self, pictures: NDArray[np.uint8]) -> list[NDArray[np.float32]]: ...

    def run(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]: ...


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What an engine can do. module: what must be installed for it.   extra: which extra of Foldertune brings that, if one does."""

    name: EngineName
    precisions: tuple[Arithmetic, ...]
    devices: tuple[str, ...]
    module: str
    extra: str = ""
    note: str = ""

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.module) is not None


ENGINES: Mapping[str, EngineFacts] = {
    facts.name: facts
    for facts in (
        EngineFacts("openvino", ("float32", "bf16", "int8"), ("cpu",), "openvino", note="the fastest on x86 processors"),
        EngineFacts("onnxruntime", ("float32", "int8"), ("cpu",), "onnxruntime", "onnxruntime", "the second opinion on processors"),
        EngineFacts("torch", ("float32", "bf16", "fp16"), ("cpu", "cuda", "mps"), "torch", note="the reference, and the one for GPUs"),
        EngineFacts("compiled", ("float32", "bf16"), ("cpu", "cuda"), "torch", note="torch.compile: half a minute to start"),
    )
}  # fmt: skip


class LaterEngine:
    """An engine that is made when it is first asked for an answer: where the cache has all answers, never."""

    def __init__(self, name: str, make: Callable[[], Engine]) -> None:
        self.name, self.made_in_s = name, 0.0
        self._make = make
        self._made: Engine | None = None

    def run_all(self, pictures: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Every output for a batch."""
        return self._engine().run_all(pictures)

    def run(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The first output for a batch."""
        return self._engine().run(pictures)

    def _engine(self) -> Engine:
        if self._made is None:
            began = time.monotonic()
            self._made = self._make()
            self.made_in_s = time.monotonic() - began
        return self._made


def fitting_engine(device: str, precision: str) -> EngineName:
    """Which engine runs a frozen network: OpenVINO on a processor, PyTorch on anything else."""
    return "openvino" if device == "cpu" and precision in ENGINES["openvino"].precisions else "torch"


def make_engine(form: Form, *, engine: str = "auto", precision: str = "float32", device: str = "cpu") -> Engine:
    """An engine from the network's numbers, in memory. "auto": OpenVINO on a processor, PyTorch on anything else.

    int8 takes pictures to calibrate on: `quantize` makes a file, and `open_engine` opens it.
    Raises what `refuse_impossible` does.
    """
    if engine == "auto":
        engine = fitting_engine(device, precision)
    refuse_impossible(engine, precision, device=device)
    if engine in ("torch", "compiled"):
        from foldertune.engines.torch import TorchEngine, graph_of

        return TorchEngine(graph_of(form), device=device, precision=precision, compiled=engine == "compiled")
    from foldertune.engines.graph import onnx_graph

    return open_engine(onnx_graph(form).SerializeToString(), engine=engine, precision=precision)


def open_engine(model: Path | bytes, *, engine: str, precision: str) -> Engine:
    """OpenVINO or ONNX Runtime over a graph: an .onnx or .xml file, or the content of the former."""
    if engine == "openvino":
        from foldertune.engines.openvino import OpenVinoEngine

        return OpenVinoEngine(model, precision=precision)
    from foldertune.engines.onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(model)


def refuse_impossible(engine: str, precision: str, *, device: str = "cpu") -> None:
    """Raise SettingsError for a name or a combination that does not exist, MissingError for what this machine lacks."""
    if engine not in ENGINES:
        raise SettingsError(f"There is no engine {engine!r}. Accepted: auto, {', '.join(ENGINES)}.")
    facts = ENGINES[engine]
    if precision not in EXACTNESS:
        raise SettingsError(f"There is no precision {precision!r}. Accepted: auto, {', '.join(EXACTNESS)}.")
    if precision not in facts.precisions or device not in facts.devices:
        raise SettingsError(
            f"The engine {engine} does not compute in {precision} on {device}. "
            f"It offers {', '.join(facts.precisions)}, on {', '.join(facts.devices)}."
        )
    if not facts.installed:
        how = f"pip install 'foldertune[{facts.extra}]'" if facts.extra else f"pip install {facts.module}"
        raise MissingError(f"The engine {engine} is not installed. Install it: {how}; or leave --engine out.")
    if precision == "bf16" and device == "cpu" and not cpu_has_bf16():
        raise MissingError(
            "This processor does not multiply bfloat16, and emulating it would be slower. Take --precision float32 or int8."
        )
