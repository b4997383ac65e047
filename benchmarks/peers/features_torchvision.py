"""Frozen features of every picture below a folder, by the loop that most people write: ImageFolder, DataLoader, eager float32.

usage: python features_torchvision.py FOLDER WEIGHTS.safetensors OUTPUT.npz THREADS
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import torchvision_operators  # noqa: F401
from predict_torchvision import TRANSFORM
from safetensors.torch import load_file
from torchvision import datasets, models


def main() -> None:
    folder, weights, output, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    pictures = datasets.ImageFolder(folder, TRANSFORM)
    model = models.resnet50()
    model.load_state_dict(load_file(weights), strict=False)
    model.fc = torch.nn.Identity()
    model.eval()
    with torch.inference_mode():
        loader = torch.utils.data.DataLoader(pictures, batch_size=32, num_workers=2)
        features = torch.cat([model(batch) for batch, _ in loader]).numpy()
    np.savez(output, features=features, names=[Path(path).name for path, _ in pictures.samples])


if __name__ == "__main__":
    main()
