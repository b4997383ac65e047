"""A folder of JPEGs answered by Ultralytics, which takes networks of torchvision for classification.

Ultralytics sets the number of threads of torch itself, to one less than the cores, in `predict`; --threads sets it back.

usage: python predict_ultralytics.py MODELS PICTURES OUTPUT.csv THREADS [--threads]
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import torch
import torchvision_operators  # noqa: F401
from ultralytics import YOLO


def main() -> None:
    folder, pictures, output, threads, *flags = sys.argv[1:]
    model = YOLO(Path(folder, "ultralytics.pt"), task="classify")
    # imgsz is the resized side here: with it Ultralytics uses the transforms that are stored with the model.
    results = model.predict(pictures, imgsz=256, device="cpu", stream=True, verbose=False)
    if flags:
        torch.set_num_threads(int(threads))
    with Path(output).open("w") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "class", "probability"])
        for result in results:
            best = result.probs.top1
            writer.writerow([result.path, result.names[best], f"{float(result.probs.top1conf):.6f}"])


if __name__ == "__main__":
    main()
