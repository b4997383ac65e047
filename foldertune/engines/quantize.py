"""int8: the ranges of all layers, measured on training pictures, so that products run on whole numbers. By NNCF.

Weights per channel, activations per layer; biases are corrected for what rounding shifts. Source: Nagel et al. 2019,
"Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2, here with data.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foldertune.engines.graph import PICTURES
from foldertune.engines.openvino import library, silence_telemetry
from foldertune.errors import MissingError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# The first layer stays in floating point: a thirtieth of the products of a ResNet-50, and most of the error. On plants logits were off by
# 12 % of their spread with it in int8 and by 5 % without (docs/log.md).
_FIRST_LAYER = r"^(conv1|patches)(/.*)?$"


_QUIET = threading.Lock()


def quantize(graph: Path, target: Path, pictures: NDArray[np.uint8], *, engine: str, transformer: bool = False) -> None:
    """Write the int8 form of a float32 .onnx graph to `target`: for OpenVINO an .xml, with a .bin beside it; else an .onnx.

    pictures: (N, S, S, 3), as the network sees them; 150 gave what 300 gave.   transformer: whether the network is a ViT.
    Raises MissingError where NNCF is not installed, OSError where the form cannot be written.
    """
    silence_telemetry()
    try:
        import nncf
        from nncf.quantization import range_estimator
    except ImportError as error:
        raise MissingError(
            f"int8 is prepared with NNCF, which cannot be imported ({error}). Install it: pip install nncf; or take "
            "--precision float32."
        ) from error
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
    if engine == "openvino":
        model = _read_folded(graph)
        with _without_bars():
            quantized = nncf.quantize(model, nncf.Dataset(singles), **options)
        try:
            library().save_model(quantized, target, compress_to_fp16=False)
        except RuntimeError as error:  # how OpenVINO says that a file cannot be written
            raise OSError(" ".join(str(error).split())[:200]) from error
        return
    import onnx

    named = nncf.Dataset([{PICTURES: single} for single in singles])
    with _without_bars():
        quantized = nncf.quantize(onnx.load(graph), named, **options)
    onnx.save(quantized, target)


def _read_folded(graph: Path) -> Any:
    """The graph with its constants folded: else NNCF takes the biases, which are read reshaped, for something else."""
    from openvino import passes

    model = library().Core().read_model(graph)
    folding = passes.Manager()
    folding.register_pass(passes.ConstantFolding())
    folding.run_passes(model)
    return model


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """NNCF without its bars and notes, which would stand between the answers.

    It has no switch for the bars. Redirecting stdout would swallow what other threads print meanwhile, so its own class for them is
    exchanged: for the whole process too, hence one thread at a time.
    """
    import nncf
    from nncf.common.logging import track_progress

    nncf.set_log_level(logging.ERROR)
    with _QUIET:
        bars = track_progress.Progress
        track_progress.Progress = lambda *columns, **options: bars(*columns, **{**options, "disable": True})
        try:
            yield
        finally:
            track_progress.Progress = bars
