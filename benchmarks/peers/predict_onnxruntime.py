"""A folder of JPEGs answered by ONNX Runtime in float32, pictures by Pillow: an expert's plain script.

usage: python predict_onnxruntime.py MODELS PICTURES OUTPUT.csv THREADS
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from squares import jpegs, softmax, square, write_answers

BATCH = 8


def main() -> None:
    folder, pictures, output, threads = sys.argv[1:]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(threads)
    session = onnxruntime.InferenceSession(
        str(Path(folder, "float32.onnx")), options, providers=["CPUExecutionProvider"]
    )
    paths = jpegs(pictures)

    def answers() -> Iterator[tuple[Path, Any]]:
        for start in range(0, len(paths), BATCH):
            part = paths[start : start + BATCH]
            batch = np.stack([square(path, draft=False) for path in part])
            yield from zip(part, softmax(session.run(None, {"pictures": batch})[0]), strict=True)

    write_answers(output, Path(folder, "labels.txt").read_text("utf-8").splitlines(), answers())


if __name__ == "__main__":
    main()
