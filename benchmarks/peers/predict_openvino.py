"""A folder of JPEGs answered by OpenVINO: as many streams as threads, each with a thread that decodes and infers its own batches.

No core ever waits for another: while one thread decodes, the others infer. The compiled model is cached on the disk, and
the first pictures are decoded while it is loaded.

usage: python predict_openvino.py MODELS PICTURES OUTPUT.csv THREADS float32|bf16|int8
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import local
from typing import Any

import numpy as np
from squares import jpegs, softmax, square, write_answers

BATCH = 4


def compiled(folder: str, threads: int, precision: str) -> Any:
    import openvino

    # Of what is not int8 the hint decides: without it OpenVINO takes bf16 wherever the processor has it.
    options = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "NUM_STREAMS": threads,
        "INFERENCE_NUM_THREADS": threads,
        "CACHE_DIR": str(Path(folder, "openvino-cache")),
    }
    name = "int8.xml" if precision == "int8" else "float32.xml"
    # Types are looked up first by one thread alone: where two did so at once, OpenVINO 2026.4.1 waited for ever in 4 of 131 starts.
    openvino.Tensor(np.zeros((1, 1), np.uint8), shared_memory=True).get_element_type().to_dtype()
    return openvino.Core().compile_model(str(Path(folder, name)), "CPU", options)


def main() -> None:
    folder, pictures, output, threads, precision = sys.argv[1:]
    paths, own = jpegs(pictures), local()
    with ThreadPoolExecutor(1) as loading, ThreadPoolExecutor(int(threads)) as pool:
        model = loading.submit(compiled, folder, int(threads), precision)

        def answer(part: list[Path]) -> Any:
            batch = np.stack([square(path, draft=True) for path in part])
            if not hasattr(own, "request"):
                own.request = model.result().create_infer_request()
            return softmax(own.request.infer([batch], share_inputs=True)[0])

        def answers() -> Iterator[tuple[Path, Any]]:
            parts = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
            for part, found in zip(parts, pool.map(answer, parts), strict=True):
                yield from zip(part, found, strict=True)

        write_answers(output, Path(folder, "labels.txt").read_text("utf-8").splitlines(), answers())


if __name__ == "__main__":
    main()
