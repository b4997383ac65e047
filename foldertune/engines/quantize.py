"""int8: the ranges of all layers, measured on training pictures, so that products run on whole numbers. By NNCF.

Weights per channel, activations per layer; biases are corrected for what rounding shifts. Source: Nagel et al. 2019,
"Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2, here with data.
"""

from __future__ import annotations

import contextlib
import io
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foldertune.engines.graph import PICTURES
from foldertune.engines.openvino import library

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# The first layer stays in floating point: a thirtieth of the products of a ResNet-50, and most of the error. On plants logits were off by
# 12 % of their spread with it in int8 and by 5 % without (docs/log.md).
_FIRST_LAYER = r"^(conv1|patches)(/.*)?$"


def quantize(graph: Path, target: Path, pictures: NDArray[np.uint8], *, engine: str, transformer: bool = False) -> None:
    """Write the int8 form of a float32 .onnx graph to `target`: for OpenVINO an .xml, with a .bin beside it; else an .onnx.

    pictures: (N, S, S, 3), as the network sees them; 150 gave what 300 gave.   transformer: whether the network is a ViT.
    """
    openvino = library()
    import nncf
    from nncf.quantization import range_estimator
    from openvino import passes

    nncf.set_log_level(logging.ERROR)
    options: dict[str, Any] = {
        "preset": nncf.QuantizationPreset.MIXED,  # activations may be lopsided, which those of a ReLU are
        "subset_size": len(pictures),
        "model_type": nncf.ModelType.TRANSFORMER if transformer else None,
        # The whole range that was seen. NNCF's own means of ranges over pictures cut what few pictures show: on clothes 98.2 % of
        # answers stayed, of the whole ranges 99.1 % (docs/log.md).
        "advanced_parameters": nncf.AdvancedQuantizationParameters(
            activations_range_estimator_params=range_estimator.RangeEstimatorParametersSet.MINMAX
        ),
        "ignored_scope": nncf.IgnoredScope(patterns=[_FIRST_LAYER], validate=False),
    }
    singles = [pictures[place : place + 1] for place in range(len(pictures))]
    with contextlib.redirect_stdout(io.StringIO()):  # its bars, which would stand between the answers
        if engine == "openvino":
            model = openvino.Core().read_model(graph)
            folding = passes.Manager()
            folding.register_pass(passes.ConstantFolding())
            folding.run_passes(model)  # else NNCF takes the biases, which are read reshaped, for something else
            openvino.save_model(nncf.quantize(model, nncf.Dataset(singles), **options), target, compress_to_fp16=False)
            return
        import onnx

        named = nncf.Dataset([{PICTURES: single} for single in singles])
        onnx.save(nncf.quantize(onnx.load(graph), named, **options), target)
