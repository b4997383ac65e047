"""A run whose evidence is known: a coloured square at a random place tells the class, and nothing else does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

import foldertune

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 70, 230)}
PICTURE_PX, SQUARE_PX = 96, 40


def make_square(
    path: Path, colour: str, *, seed: int, size: tuple[int, int] = (PICTURE_PX, PICTURE_PX)
) -> tuple[int, int]:
    """A grey noise picture of `size` = (width, height) with one square; returns its left and top edge."""
    random = np.random.default_rng(seed)
    picture = np.repeat(random.integers(90, 160, (size[1], size[0], 1), np.uint8), 3, axis=2)
    left, top = (int(random.integers(0, most - SQUARE_PX + 1)) for most in size)
    picture[top : top + SQUARE_PX, left : left + SQUARE_PX] = COLOURS[colour]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
    return left, top


def make_run(place: Path) -> Path:
    """A finished run of a ResNet-18 with random layers and a fitted head, in `place`/run; its pictures lie in `place`/squares."""
    for number in range(36):
        colour = list(COLOURS)[number % 3]
        make_square(place / "squares" / colour / f"{number}.png", colour, seed=number)
    run = foldertune.train(
        place / "squares", run=place / "run", model="resnet18", weights="random", image_size=PICTURE_PX, tune="head",
        augmentation="none", fit="squash", device="cpu",
    )  # fmt: skip
    return run.path
