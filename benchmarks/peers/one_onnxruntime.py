"""One picture at a time in a warm process, by ONNX Runtime.

usage: python one_onnxruntime.py MODELS PICTURES THREADS COUNT float32|int8
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import onnxruntime
from squares import jpegs, softmax, square
from warm_clock import tell_latency


def main() -> None:
    folder, pictures, threads, count, precision = sys.argv[1:]
    classes = Path(folder, "labels.txt").read_text("utf-8").splitlines()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(threads)
    session = onnxruntime.InferenceSession(
        str(Path(folder, f"{precision}.onnx")), options, providers=["CPUExecutionProvider"]
    )

    def answer(jpeg: bytes) -> tuple[str, float]:
        batch = square(io.BytesIO(jpeg), draft=True)[None]
        probabilities = softmax(session.run(None, {"pictures": batch})[0])[0]
        best = int(probabilities.argmax())
        return classes[best], float(probabilities[best])

    tell_latency(answer, [path.read_bytes() for path in jpegs(pictures)], int(count))


if __name__ == "__main__":
    main()
