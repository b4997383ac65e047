"""What the experts' scripts without torch share: a picture file as the network's square, and the file of answers."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

RESIZED_PX, CROP_PX = 256, 224
DRAFT_PX = 2 * RESIZED_PX  # closer than twice the target, a scaled decode costs fidelity


def jpegs(folder: str | Path) -> list[Path]:
    return sorted(Path(folder).glob("*.jpg"))


def square(file: Any, *, draft: bool) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(224, 224, 3) uint8 RGB: shorter side to 256, centre. `file` is a path or a stream; `draft` decodes large JPEGs scaled."""
    with Image.open(file) as opened:
        if draft:
            opened.draft("RGB", (DRAFT_PX, DRAFT_PX))
        picture = opened.convert("RGB")
    width, height = picture.size
    shorter = min(width, height)
    size = (int(RESIZED_PX * width / shorter), int(RESIZED_PX * height / shorter))
    left, top = round((size[0] - CROP_PX) / 2), round((size[1] - CROP_PX) / 2)
    # Only what the crop keeps; the same pixels as a whole resize and a crop, but for the rounding of one in a thousand.
    across, down = width / size[0], height / size[1]
    box = (left * across, top * down, (left + CROP_PX) * across, (top + CROP_PX) * down)
    return np.asarray(picture.resize((CROP_PX, CROP_PX), Image.Resampling.BILINEAR, box=box))


def softmax(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    raised = np.exp(logits - logits.max(1, keepdims=True))
    shares: np.ndarray[Any, Any] = raised / raised.sum(1, keepdims=True)
    return shares


def write_answers(output: str | Path, classes: list[str], rows: Iterable[tuple[Path, np.ndarray[Any, Any]]]) -> None:
    """path,class,probability for each (path, probabilities (K,))."""
    with Path(output).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "class", "probability"])
        for path, probabilities in rows:
            best = int(probabilities.argmax())
            writer.writerow([path, classes[best], f"{probabilities[best]:.6f}"])
