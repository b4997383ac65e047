"""The network on OpenVINO: the fastest on processors of the x86 kind.

float32 means float32: OpenVINO's own default on machines with bf16 is bf16, so the precision is always set.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foldertune.machine import cpu_has_bf16, num_cores

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HINTS = {"float32": "f32", "bf16": "bf16"}


class OpenVinoEngine:
    """A graph of (B, S, S, 3) uint8 pictures -> one or more float32 arrays."""

    name = "openvino"

    def __init__(self, model: Path | bytes, *, precision: str = "float32") -> None:
        core = library().Core()
        options: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _HINTS[_floating(precision)],
            "INFERENCE_NUM_THREADS": num_cores(),  # a container's share, which OpenVINO does not look at
        }
        self._request = core.compile_model(core.read_model(model), "CPU", options).create_infer_request()
        self._lock = threading.Lock()  # one request holds one batch; a batch has all cores anyway

    def run_all(self, pictures: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Every output of the graph for a batch; the arrays are the caller's own."""
        with self._lock:
            result = self._request.infer([np.ascontiguousarray(pictures)], share_inputs=True)
            return [np.array(value, dtype=np.float32) for value in result.values()]

    def run(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The first output for a batch."""
        return self.run_all(pictures)[0]


def _floating(precision: str) -> str:
    """The arithmetic of whatever is floating point in a graph; what is left of it in int8 is not worth float32."""
    if precision == "int8":
        return "bf16" if cpu_has_bf16() else "float32"
    return precision


def library() -> Any:
    """OpenVINO, silenced: unless told otherwise, some of its calls are reported to Google Analytics and noted in ~/intel.

    Its tools and NNCF take a stub of their own where the package openvino_telemetry cannot be imported.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None is how an import is refused
    import openvino

    return openvino
