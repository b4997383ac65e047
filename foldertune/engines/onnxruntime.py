"""The network on ONNX Runtime, an extra: the second opinion on processors, and the engine of those without OpenVINO."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foldertune.machine import num_cores

if TYPE_CHECKING:
    from numpy.typing import NDArray


class OnnxRuntimeEngine:
    """A graph of (B, S, S, 3) uint8 pictures -> one or more float32 arrays; its precision is that of the graph."""

    name = "onnxruntime"

    def __init__(self, model: Path | bytes) -> None:
        import onnxruntime

        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_cores()
        options.log_severity_level = 3  # errors; its warnings are about nodes that it moved
        given = model if isinstance(model, bytes) else str(model)
        self._session = onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def run_all(self, pictures: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Every output of the graph for a batch."""
        found: list[NDArray[np.float32]] = self._session.run(None, {self._input: np.ascontiguousarray(pictures)})
        return found

    def run(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The first output for a batch."""
        return self.run_all(pictures)[0]
