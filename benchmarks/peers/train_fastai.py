"""fastai as its quick start shows it: `fine_tune(5)`, batches of 16, its own augmentation; the test pictures are looked at each epoch.

Prints one JSON line per epoch, with the test accuracy; the first is that of the frozen epoch.

usage: python train_fastai.py FOLDER WEIGHTS.safetensors THREADS --epochs 5 --seed 1
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import torchvision_operators  # noqa: F401
from fastai.callback.schedule import Learner  # noqa: F401  # gives learners their fine_tune
from fastai.learner import Callback
from fastai.metrics import accuracy
from fastai.torch_core import set_seed
from fastai.vision.augment import Resize, aug_transforms
from fastai.vision.core import imagenet_stats
from fastai.vision.data import ImageDataLoaders, Normalize
from fastai.vision.learner import vision_learner
from safetensors.torch import load_file
from torchvision import models


class Teller(Callback):  # type: ignore[misc]
    """Prints the accuracy of each epoch."""

    order = 90  # after the recorder

    def after_epoch(self) -> None:
        told = {"epoch": Teller.num_told, "test_accuracy": float(self.learn.recorder.values[-1][-1])}
        Teller.num_told += 1
        print(json.dumps(told), flush=True)

    num_told = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("threads", type=int)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    set_seed(given.seed)
    loaders = ImageDataLoaders.from_folder(
        given.folder, train="train", valid="test", bs=16, item_tfms=Resize(224),
        batch_tfms=[*aug_transforms(), Normalize.from_stats(*imagenet_stats)],
    )  # fmt: skip
    learner = vision_learner(loaders, models.resnet50, pretrained=False, metrics=accuracy, cbs=Teller())
    learner.model[0].load_state_dict(pretrained_body(given.weights))
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(given.epochs)


def pretrained_body(weights: Path) -> dict[str, Any]:
    """The pretrained weights without pool and head, in the order of fastai's body."""
    network = models.resnet50()
    network.load_state_dict(load_file(weights), strict=False)
    return torch.nn.Sequential(*list(network.children())[:-2]).state_dict()


if __name__ == "__main__":
    main()
