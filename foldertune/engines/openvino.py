"""The network on OpenVINO: the fastest float32 on processors of the x86 kind. Used for frozen features and activations.

float32 means float32: OpenVINO's own default on machines with bf16 is bf16, so the precision is always set.
"""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

_HINTS = {"float32": "f32", "bf16": "bf16"}


class OpenVinoEngine:
    """A traced graph of (B, S, S, 3) uint8 pictures -> one or more float32 arrays.

    The graph is a torch module of one input; batch norms are folded by the compiler.
    """

    name = "openvino"

    def __init__(self, graph: nn.Module, image_size: int, *, precision: str = "float32") -> None:
        import torch

        openvino = _without_telemetry()
        example = torch.zeros(1, image_size, image_size, 3, dtype=torch.uint8)
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # the tracer warns of shapes that it fixes; ours are fixed on purpose
            # Without the tracer's check, which runs everything twice more and takes as long as all the rest together.
            traced = torch.jit.trace(graph.eval(), example, check_trace=False)  # type: ignore[no-untyped-call]
            model = openvino.convert_model(traced, example_input=example)
        model.reshape([-1, image_size, image_size, 3])
        options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": _HINTS[precision]}
        self._request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()

    def run_all(self, pictures: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Every output of the graph for a batch; the arrays are the caller's own."""
        result = self._request.infer([pictures], share_inputs=True)
        return [np.array(value, dtype=np.float32) for value in result.values()]

    def run(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The first output for a batch."""
        return self.run_all(pictures)[0]


def _without_telemetry() -> Any:
    """The library, silenced: unless told otherwise, each conversion is reported to Google Analytics and noted in ~/intel.

    openvino.tools.ovc takes a stub of its own where the package openvino_telemetry cannot be imported.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None is how an import is refused
    import openvino

    return openvino
