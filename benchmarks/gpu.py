"""Pictures per second of training a ResNet-50 on a GPU: ours, and a plain loop in channels-last and bf16 with torch's DataLoader.

Both learn every layer from the same JPEG files of 500 x 375 with AdamW. What is timed is an epoch from its first batch to its last,
with ours after the pictures were decoded once, as in every epoch but the first; that decoding is told beside it.
"compute" is the plain step alone on one batch that stays on the GPU: no loop that reads pictures can be faster than it.
"compiled" is the same with torch.compile, after its first steps, which are told in seconds.
The kinds are interleaved, in one process.

usage: python benchmarks/gpu.py [--pictures 2048] [--batch-size 64] [--times 5]
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tables import Row, Scale, load_now, page, parser_of, publish, render
from torch import Tensor

from foldertune.data.augment import STRENGTHS
from foldertune.data.loader import CanvasSource, batches_ahead, on_device
from foldertune.data.pictures import pack_canvases
from foldertune.machine import num_cores
from foldertune.models import build
from foldertune.preprocess import Preprocess
from foldertune.records import Picture, finish
from foldertune.training.trainer import Course, Labelled, Trainer

OURS = "ours"
NUM_CLASSES, WIDTH, HEIGHT, SIDE = 10, 500, 375, 224
WARM_UP = 5  # steps


def main() -> None:
    parser = parser_of(__doc__, "gpu")
    parser.add_argument("--pictures", type=int, default=2048)
    parser.add_argument("--batch-size", type=int, default=64)
    given, load = parser.parse_args(), load_now()
    if not torch.cuda.is_available():
        print("There is no GPU here that torch can use, so nothing was measured; run this where there is one.")
        return
    told = [f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}; batches of {given.batch_size}."]
    with tempfile.TemporaryDirectory() as scratch:
        pictures = made_pictures(Path(scratch), given.pictures)
        kinds = {
            OURS: ours(Path(scratch), pictures, given.batch_size, told),
            "plain loop": plain(Path(scratch), pictures, given.batch_size),
            "compute": compute(given.batch_size, told, compiled=False),
            "compute, compiled": compute(given.batch_size, told, compiled=True),
        }
        rates: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(given.times):
            for kind, epoch in kinds.items():
                rates[kind].append(epoch())
    rows = [Row(kind, found) for kind, found in rates.items()]
    table = render(rows, Scale("pictures a second", 0, rate=True), ours=OURS)
    publish("gpu", page("Training on a GPU", [*told, table], arguments=sys.argv, load=load), write=not given.no_page)


def made_pictures(folder: Path, num_pictures: int) -> list[Picture]:
    """JPEG files of smooth noise, which are about as large as photographs."""
    random, pictures = np.random.default_rng(0), []
    for row in range(num_pictures):
        coarse = Image.fromarray(random.integers(0, 256, (HEIGHT // 5, WIDTH // 5, 3), dtype=np.uint8))
        name = f"{row:05d}.jpg"
        coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(folder / name, quality=90)
        pictures.append(Picture(row, name, str(row % NUM_CLASSES), "train", width=WIDTH, height=HEIGHT))
    return pictures


def timed(num_pictures: int, work: Callable[[], None]) -> float:
    """Pictures per second, from an idle GPU to an idle GPU."""
    torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return num_pictures / (time.perf_counter() - began)


def ours(folder: Path, pictures: list[Picture], batch_size: int, told: list[str]) -> Callable[[], float]:
    """The loop of training/loop.py without its saving and validating."""
    preprocess = Preprocess(image_size=SIDE)
    began = time.perf_counter()
    canvases = finish(pack_canvases(folder, pictures, preprocess, cache=folder / "cache", workers=min(num_cores(), 8)))
    told.append(f"Decoding once: {len(pictures) / (time.perf_counter() - began):,.0f} pictures a second.")
    source = CanvasSource(canvases, pictures, preprocess, strength=STRENGTHS["standard"], seed=0, device="cuda")
    labels = np.arange(len(pictures)) % NUM_CLASSES
    course = Course(
        epochs=1000, batch_size=batch_size, learning_rate=1e-4, seed=0, precision="bf16", device="cuda", batch_norm="batch"
    )  # fmt: skip
    trainer = Trainer(build("resnet50", num_classes=NUM_CLASSES), course, Labelled(source, labels))
    trainer.learning_mode()
    order = np.arange(len(pictures))

    def epoch() -> None:
        for places, x in batches_ahead(source, order, batch_size, epoch=1, start=0, workers=min(num_cores(), 8)):
            trainer.mark()
            trainer.micro_batch(x, on_device(labels[places], "cuda"), share=1.0)
            trainer.step()
            list(trainer.meter.readings())

    timed(len(pictures), epoch)
    return lambda: timed(len(pictures), epoch)


class Files(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """What a plain script does with each file, in Pillow."""

    def __init__(self, folder: Path, pictures: list[Picture]) -> None:
        self.folder, self.pictures = folder, pictures
        self.mean, self.std = (
            torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        )

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        random = np.random.default_rng()
        with Image.open(self.folder / self.pictures[place].path) as opened:
            picture = opened.convert("RGB")
        side = int(HEIGHT * random.uniform(0.7, 1.0))
        left, top = int(random.integers(WIDTH - side)), int(random.integers(HEIGHT - side + 1))
        picture = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
        if random.random() < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        x = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
        return (x - self.mean) / self.std, int(self.pictures[place].label)


def plain_step(*, compiled: bool) -> Callable[[Tensor, Tensor], float]:
    """Eager, channels-last, bf16, AdamW; the loss is read at every step, as such scripts do."""
    network: Any = build("resnet50", num_classes=NUM_CLASSES).cuda().to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    run = torch.compile(network) if compiled else network

    def step(x: Tensor, labels: Tensor) -> float:
        with torch.autocast("cuda", torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(run(x), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return float(loss.detach())

    return step


def plain(folder: Path, pictures: list[Picture], batch_size: int) -> Callable[[], float]:
    """The files through a DataLoader of as many workers as there are cores."""
    step = plain_step(compiled=False)
    loader = torch.utils.data.DataLoader(
        Files(folder, pictures),
        batch_size,
        shuffle=True,
        num_workers=num_cores(),
        pin_memory=True,
        persistent_workers=True,
    )

    def epoch() -> None:
        for x, labels in loader:
            step(x.cuda(non_blocking=True).to(memory_format=torch.channels_last), labels.cuda(non_blocking=True))

    timed(len(pictures), epoch)
    return lambda: timed(len(pictures), epoch)


def compute(batch_size: int, told: list[str], *, compiled: bool) -> Callable[[], float]:
    """Twenty steps on a batch that is there."""
    step = plain_step(compiled=compiled)
    x = torch.rand(batch_size, 3, SIDE, SIDE, device="cuda").to(memory_format=torch.channels_last)
    labels = torch.arange(batch_size, device="cuda") % NUM_CLASSES

    def steps(number: int) -> None:
        for _ in range(number):
            step(x, labels)

    seconds = WARM_UP * batch_size / timed(WARM_UP * batch_size, lambda: steps(WARM_UP))
    if compiled:
        told.append(f"Compiling, with {WARM_UP} steps: {seconds:.0f} s.")
    return lambda: timed(20 * batch_size, lambda: steps(20))


if __name__ == "__main__":
    main()
