"""The network on OpenVINO: the fastest on processors of the x86 kind.

float32 means float32: OpenVINO's own default on machines with bf16 is bf16, so the precision is always set.
"""

from __future__ import annotations

import sys
import threading
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foldertune.machine import cpu_has_bf16, num_cores, processor_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

COMPILED = ".blob"  # how the name of a compiled form ends
_HINTS = {"float32": "f32", "bf16": "bf16"}
_CHECK_BYTES = 4  # of a CRC-32, at the end of a compiled form


class OpenVinoEngine:
    """A graph of (B, S, S, 3) uint8 pictures -> one or more float32 arrays."""

    name = "openvino"

    def __init__(self, model: Path | bytes, *, precision: str = "float32") -> None:
        """model: an .onnx or .xml file, the content of the former, or a file that `write_compiled` made in this precision."""
        openvino = library()
        core = openvino.Core()
        options: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _HINTS[_floating(precision)],
            "INFERENCE_NUM_THREADS": num_cores(),  # a container's share, which OpenVINO does not look at
        }
        if isinstance(model, Path) and model.suffix == COMPILED:
            self._content = openvino.Tensor(_whole(model), shared_memory=True)  # weights stay where they are
            self._compiled = core.import_model(self._content, "CPU", options)
        else:
            self._compiled = core.compile_model(core.read_model(model), "CPU", options)
        self._request = self._compiled.create_infer_request()
        self._lock = threading.Lock()  # one request holds one batch; a batch has all cores anyway

    def write_compiled(self, path: Path) -> None:
        """Write what compiling made, for the next process on a machine as this one: a fifth of a second less to start."""
        content = self._compiled.export_model().getvalue()
        path.write_bytes(content + zlib.crc32(content).to_bytes(_CHECK_BYTES, "little"))

    def run_all(self, pictures: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Every output of the graph for a batch; the arrays are the caller's own."""
        with self._lock:
            result = self._request.infer([np.ascontiguousarray(pictures)], share_inputs=True)
            return [np.array(value, dtype=np.float32) for value in result.values()]

    def run(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The first output for a batch."""
        return self.run_all(pictures)[0]


def compiled_for() -> list[Any]:
    """What a compiled form depends on beside the model: it is of no use elsewhere (JSON-ready)."""
    return [library().__version__, processor_name(), num_cores()]


def _whole(path: Path) -> NDArray[np.uint8]:
    """A compiled form, mapped into memory. OpenVINO would crash on one that was cut short: ValueError is raised for it."""
    content = np.memmap(path, np.uint8, "c")  # OpenVINO takes no array that is read-only, and never writes into it
    model, check = content[:-_CHECK_BYTES], content[-_CHECK_BYTES:]
    if zlib.crc32(model.data) != int.from_bytes(check.tobytes(), "little"):
        raise ValueError(f"{path} is damaged")
    return model


def _floating(precision: str) -> str:
    """The arithmetic of whatever is floating point in a graph; what is left of it in int8 is not worth float32."""
    if precision == "int8":
        return "bf16" if cpu_has_bf16() else "float32"
    return precision


def library() -> Any:
    """OpenVINO, silenced."""
    silence_telemetry()
    import openvino

    return openvino


def silence_telemetry() -> None:
    """Unless told otherwise, some calls of OpenVINO and of NNCF are reported to Google Analytics and noted in ~/intel.

    They take a stub of their own where the package openvino_telemetry cannot be imported.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None is how an import is refused
