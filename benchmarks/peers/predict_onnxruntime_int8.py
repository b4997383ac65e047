"""A folder of JPEGs answered by ONNX Runtime in int8; large JPEGs decoded scaled, by two threads ahead of the network.

usage: python predict_onnxruntime_int8.py MODELS PICTURES OUTPUT.csv THREADS
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from squares import jpegs, softmax, square, write_answers

BATCH, DECODERS, AHEAD = 8, 2, 24


def main() -> None:
    folder, pictures, output, threads = sys.argv[1:]
    paths = jpegs(pictures)
    with ThreadPoolExecutor(DECODERS) as pool:
        upcoming = iter(paths)
        decoding: deque[tuple[Path, Future[Any]]] = deque()

        def submit() -> None:
            if (path := next(upcoming, None)) is not None:
                decoding.append((path, pool.submit(square, path, draft=True)))

        for _ in range(AHEAD):
            submit()  # the first pictures are decoded while the model is loaded
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(threads)
        session = onnxruntime.InferenceSession(
            str(Path(folder, "int8.onnx")), options, providers=["CPUExecutionProvider"]
        )

        def answers() -> Iterator[tuple[Path, Any]]:
            while decoding:
                part = [decoding.popleft() for _ in range(min(BATCH, len(decoding)))]
                batch = np.stack([future.result() for _, future in part])
                for _ in part:
                    submit()
                found = softmax(session.run(None, {"pictures": batch})[0])
                yield from zip([path for path, _ in part], found, strict=True)

        write_answers(output, Path(folder, "labels.txt").read_text("utf-8").splitlines(), answers())


if __name__ == "__main__":
    main()
