"""Optimizer steps per second of Foldertune's trainer on a ResNet-50, batches in memory; of upper stages, activations from their file.

usage: python our_steps.py all|as-planned|upper BATCH STEPS
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from foldertune.data.loader import ActivationSource, Source
from foldertune.data.pack import PackWriter
from foldertune.machine import cpu_has_bf16, keep_freed_memory
from foldertune.models import build
from foldertune.training.trainer import Course, Labelled, Trainer

NUM_CLASSES = 10
IMAGE_PX = {"all": 224, "as-planned": 192}
UPPER_STAGE, UPPER_SHAPE = 4, (1024, 14, 14)
STEM_AND_FIRST_STAGE = 2  # the plan lets learning begin above them


class Blank:
    """One batch of random pictures, again and again."""

    first_stage = 0

    def __init__(self, batch_size: int, side: int) -> None:
        self.num_pictures = batch_size
        pictures = torch.randn(batch_size, 3, side, side)
        self._pictures = pictures.contiguous(memory_format=torch.channels_last)

    def batch(self, places: object, epoch: int) -> torch.Tensor:
        return self._pictures


def main() -> None:
    mode, batch_size, num_steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as scratch:
        source: Source = stored(Path(scratch), batch_size) if mode == "upper" else Blank(batch_size, IMAGE_PX[mode])
        course = Course(
            epochs=1, batch_size=batch_size, learning_rate=1e-4, seed=1,
            precision="bf16" if cpu_has_bf16() else "float32",
            first_stage=UPPER_STAGE if mode == "upper" else 0,
            batch_norm="batch" if mode == "all" else "frozen",
            first_learning=STEM_AND_FIRST_STAGE if mode == "as-planned" else 0,
        )  # fmt: skip
        network = build("resnet50", num_classes=NUM_CLASSES).eval()
        trainer = Trainer(network, course, Labelled(source, np.zeros(batch_size * (num_steps + 1), np.int64)))
        trainer.learning_mode()
        places, labels = np.arange(batch_size), torch.arange(batch_size) % NUM_CLASSES
        began = 0.0
        for step in range(num_steps + 1):
            if step == 1:
                began = time.perf_counter()
            trainer.micro_batch(source.batch(places, step), labels, share=1.0)
            trainer.step()
    print(
        json.dumps({"steps_per_s": round(num_steps / (time.perf_counter() - began), 3), "precision": course.precision})
    )


def stored(folder: Path, batch_size: int) -> ActivationSource:
    """Activations of one batch as the cache keeps them."""
    random = np.random.Generator(np.random.Philox(1))
    records = random.random((batch_size, *UPPER_SHAPE), np.float32)
    writer = PackWriter(folder, "activations", UPPER_SHAPE, np.float16, batch_size)
    writer.append(records)
    return ActivationSource(writer.close(), num_pictures=batch_size, first_stage=UPPER_STAGE, device="cpu")


if __name__ == "__main__":
    main()
