"""One picture at a time in a warm process, by PyTorch: eager float32 as found, or in bf16 with channels last.

usage: python one_torch.py MODELS PICTURES THREADS COUNT [--tuned]
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import torch
from PIL import Image
from predict_torchvision import TRANSFORM
from safetensors.torch import load_file
from torchvision import models
from warm_clock import tell_latency


def main() -> None:
    folder, pictures, threads, count, *flags = sys.argv[1:]
    torch.set_num_threads(int(threads))
    classes = Path(folder, "labels.txt").read_text("utf-8").splitlines()
    model = models.resnet50(num_classes=len(classes))
    model.load_state_dict(load_file(Path(folder, "model.safetensors")))
    model.eval()
    if flags:
        model = model.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def answer(jpeg: bytes) -> tuple[str, float]:
        batch = TRANSFORM(Image.open(io.BytesIO(jpeg)).convert("RGB"))[None]
        with torch.autocast("cpu", torch.bfloat16, enabled=bool(flags)):
            logits = model(batch.to(memory_format=torch.channels_last) if flags else batch)
        best = logits.float().softmax(1)[0].max(0)
        return classes[int(best.indices)], float(best.values)

    tell_latency(answer, [path.read_bytes() for path in sorted(Path(pictures).glob("*.jpg"))], int(count))


if __name__ == "__main__":
    main()
