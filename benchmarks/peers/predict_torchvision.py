"""A folder of JPEGs answered by torchvision's ResNet-50, as tutorials do it, or tuned as far as torch goes without compiling.

usage: python predict_torchvision.py MODELS PICTURES OUTPUT.csv THREADS [--tuned]
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import torch
import torchvision_operators  # noqa: F401
from PIL import Image
from safetensors.torch import load_file
from torchvision import models, transforms

TRANSFORM = transforms.Compose(
    [
        transforms.Resize(256),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
)


class Pictures(torch.utils.data.Dataset[tuple[torch.Tensor, str]]):
    def __init__(self, folder: str) -> None:
        self.paths = sorted(Path(folder).glob("*.jpg"))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, str]:
        return TRANSFORM(Image.open(self.paths[place]).convert("RGB")), str(self.paths[place])


def main() -> None:
    folder, pictures, output, threads, *flags = sys.argv[1:]
    tuned = "--tuned" in flags
    torch.set_num_threads(int(threads))
    classes = Path(folder, "labels.txt").read_text("utf-8").splitlines()
    model = models.resnet50(num_classes=len(classes))
    model.load_state_dict(load_file(Path(folder, "model.safetensors")))
    model.eval()
    if tuned:
        model = model.to(memory_format=torch.channels_last)
    loader = torch.utils.data.DataLoader(
        Pictures(pictures), batch_size=8 if tuned else 32, num_workers=1 if tuned else 2
    )
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=tuned), Path(output).open("w") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "class", "probability"])
        for batch, paths in loader:
            logits = model(batch.to(memory_format=torch.channels_last) if tuned else batch)
            best = logits.float().softmax(1).max(1)
            for path, probability, label in zip(paths, best.values.tolist(), best.indices.tolist(), strict=True):
                writer.writerow([path, classes[label], f"{probability:.6f}"])


if __name__ == "__main__":
    main()
