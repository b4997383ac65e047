"""A folder of JPEGs answered by the pipeline of Hugging Face, as its documentation shows it.

usage: python predict_transformers.py MODELS PICTURES OUTPUT.csv THREADS
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import torch
import torchvision_operators  # noqa: F401
from transformers import pipeline


def main() -> None:
    folder, pictures, output, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    paths = [str(path) for path in sorted(Path(pictures).glob("*.jpg"))]
    classify = pipeline("image-classification", model=str(Path(folder, "hugging-face")), device="cpu")
    with Path(output).open("w") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "class", "probability"])
        for path, answers in zip(paths, classify(paths, top_k=1), strict=True):
            writer.writerow([path, answers[0]["label"], f"{answers[0]['score']:.6f}"])


if __name__ == "__main__":
    main()
