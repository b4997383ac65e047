"""One picture at a time in a warm process, by OpenVINO.

usage: python one_openvino.py MODELS PICTURES THREADS COUNT float32|bf16|int8
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import openvino
from squares import jpegs, softmax, square
from warm_clock import tell_latency


def main() -> None:
    folder, pictures, threads, count, precision = sys.argv[1:]
    classes = Path(folder, "labels.txt").read_text("utf-8").splitlines()
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": int(threads),
    }
    name = "int8.xml" if precision == "int8" else "float32.xml"
    request = openvino.Core().compile_model(str(Path(folder, name)), "CPU", options).create_infer_request()

    def answer(jpeg: bytes) -> tuple[str, float]:
        batch = square(io.BytesIO(jpeg), draft=True)[None]
        probabilities = softmax(request.infer([batch], share_inputs=True)[0])[0]
        best = int(probabilities.argmax())
        return classes[best], float(probabilities[best])

    tell_latency(answer, [path.read_bytes() for path in jpegs(pictures)], int(count))


if __name__ == "__main__":
    main()
