"""Optimizer steps per second of the loop that most people write: torchvision's ResNet-50, NCHW, float32, AdamW; a batch in memory.

usage: python steps_torchvision.py BATCH STEPS THREADS [--tuned]     tuned: channels-last and bf16
"""

from __future__ import annotations

import json
import sys
import time

import torch
import torchvision_operators  # noqa: F401
from torchvision import models

NUM_CLASSES = 10


def main() -> None:
    batch_size, num_steps, threads = map(int, sys.argv[1:4])
    tuned = bool(sys.argv[4:])
    torch.set_num_threads(threads)
    model = models.resnet50(num_classes=NUM_CLASSES).train()
    pictures, labels = torch.randn(batch_size, 3, 224, 224), torch.arange(batch_size) % NUM_CLASSES
    if tuned:
        model = model.to(memory_format=torch.channels_last)
        pictures = pictures.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    began = 0.0
    for step in range(num_steps + 1):
        if step == 1:
            began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=tuned):
            loss = torch.nn.functional.cross_entropy(model(pictures), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    print(json.dumps({"steps_per_s": round(num_steps / (time.perf_counter() - began), 3)}))


if __name__ == "__main__":
    main()
