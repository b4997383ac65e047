"""What keeping freed memory does for training speed: ResNet-50, batch 16, interleaved A B A B in fresh processes.

usage: python benchmarks/allocator.py [--rounds 3] [--image-size 224] [--precision bf16|float32]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from machine_facts import describe, spread

STEPS = 6


def pictures_per_s(image_size: int, precision: str, *, keep: bool) -> float:
    """One process's training rate, after one step of warm-up."""
    import numpy as np
    import torch

    from foldertune.data.loader import Source
    from foldertune.machine import keep_freed_memory
    from foldertune.models import build
    from foldertune.training.trainer import Course, Labelled, Trainer

    class Blank:
        first_stage, num_pictures = 0, 16

        def batch(self, places: object, epoch: int) -> torch.Tensor:
            return torch.rand(16, 3, image_size, image_size).contiguous(memory_format=torch.channels_last)

    if keep:
        keep_freed_memory()
    source: Source = Blank()
    course = Course(epochs=1, batch_size=16, learning_rate=0.0, seed=0, precision=precision)
    trainer = Trainer(build("resnet50", num_classes=10).eval(), course, Labelled(source, np.zeros(16, np.int64)))
    x, labels = source.batch(np.arange(16), 0), torch.zeros(16, dtype=torch.int64)
    began = 0.0
    for step in range(STEPS + 1):
        if step == 1:
            began = time.perf_counter()
        trainer.micro_batch(x, labels, share=1.0)
        trainer.step()
    return STEPS * 16 / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--one", choices=["keep", "plain"])
    given = parser.parse_args()
    if given.one:
        print(pictures_per_s(given.image_size, given.precision, keep=given.one == "keep"))
        return
    print(describe())
    found: dict[str, list[float]] = {"plain": [], "keep": []}
    for _ in range(given.rounds):
        for kind, rates in found.items():
            command = [
                sys.executable,
                __file__,
                "--one",
                kind,
                "--image-size",
                str(given.image_size),
                "--precision",
                given.precision,
            ]
            rates.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    for kind, rates in found.items():
        print(f"{kind}: {spread(rates)} pictures per second")
    print(
        f"ratio of medians: {sorted(found['keep'])[given.rounds // 2] / sorted(found['plain'])[given.rounds // 2]:.2f}"
    )


if __name__ == "__main__":
    main()
