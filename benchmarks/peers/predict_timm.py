"""A folder of JPEGs answered by timm, with its own dataset and loader.

usage: python predict_timm.py MODELS PICTURES OUTPUT.csv THREADS
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import torch
import torchvision_operators  # noqa: F401
from timm import create_model
from timm.data import create_dataset, create_loader


def main() -> None:
    folder, pictures, output, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    classes = Path(folder, "labels.txt").read_text("utf-8").splitlines()
    model = create_model("resnet50", num_classes=len(classes), checkpoint_path=str(Path(folder, "model.safetensors")))
    model.eval()
    dataset = create_dataset("", root=pictures)
    loader = create_loader(
        dataset, input_size=(3, 224, 224), batch_size=32, interpolation="bilinear", crop_pct=0.875, num_workers=2,
        mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), use_prefetcher=False, device=torch.device("cpu"),
    )  # fmt: skip
    names = dataset.filenames(basename=True)
    with torch.inference_mode(), Path(output).open("w") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "class", "probability"])
        for batch, _ in loader:
            best = model(batch).softmax(1).max(1)
            for probability, label in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                writer.writerow([names.pop(0), classes[label], f"{probability:.6f}"])


if __name__ == "__main__":
    main()
