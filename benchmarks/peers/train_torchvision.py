"""The script that most people would write: torchvision's ResNet-50, random crops and flips, AdamW over every layer at one rate.

Prints one JSON line per epoch, with the test accuracy.

usage: python train_torchvision.py FOLDER WEIGHTS.safetensors THREADS --epochs 8 --rate 1e-4 --seed 1 --precision bf16
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torchvision_operators  # noqa: F401
from safetensors.torch import load_file
from torchvision import datasets, models, transforms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("threads", type=int)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--precision", default="float32")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for record in fine_tune(given):
        print(json.dumps(record), flush=True)


def fine_tune(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    torch.manual_seed(given.seed)
    normalise = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    varied = [transforms.RandomResizedCrop(224, (0.5, 1.0)), transforms.RandomHorizontalFlip()]
    plain = [transforms.Resize(256), transforms.CenterCrop(224)]
    train = datasets.ImageFolder(
        given.folder / "train", transforms.Compose([*varied, transforms.ToTensor(), normalise])
    )
    test = datasets.ImageFolder(given.folder / "test", transforms.Compose([*plain, transforms.ToTensor(), normalise]))
    network = models.resnet50()
    network.load_state_dict(load_file(given.weights), strict=False)
    network.fc = torch.nn.Linear(2048, len(train.classes))
    network = network.to(memory_format=torch.channels_last)
    batches = torch.utils.data.DataLoader(train, 16, shuffle=True, num_workers=1, drop_last=False)
    optimizer = torch.optim.AdamW(network.parameters(), lr=given.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, given.rate, total_steps=given.epochs * len(batches))
    lower = torch.autocast("cpu", torch.bfloat16, enabled=given.precision == "bf16")
    for epoch in range(1, given.epochs + 1):
        network.train()
        for pictures, labels in batches:
            with lower:
                answers = network(pictures.to(memory_format=torch.channels_last))
                loss = torch.nn.functional.cross_entropy(answers, labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        network.eval()
        correct = 0
        with torch.inference_mode(), lower:
            for pictures, labels in torch.utils.data.DataLoader(test, 16, num_workers=1):
                correct += int((network(pictures.to(memory_format=torch.channels_last)).argmax(1) == labels).sum())
        yield {"epoch": epoch, "test_accuracy": correct / len(test)}


if __name__ == "__main__":
    main()
