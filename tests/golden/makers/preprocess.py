"""Makes tests/golden/preprocess.json: what torchvision's Resize and CenterCrop make of a computed picture.

Run with a Python that has torchvision: `python tests/golden/makers/preprocess.py`.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize  # type: ignore[import-not-found,unused-ignore]

SIZES = ((320, 240), (240, 320), (257, 255), (61, 400), (500, 97), (224, 224), (30, 20))  # width, height
CASES = ((224, 0.875, "bilinear"), (224, 0.95, "bicubic"), (97, 0.875, "bicubic"), (64, 1.0, "bilinear"))


def picture(width: int, height: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(height, width, 3): waves of another frequency in each channel, with sharp edges."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = [np.sin(x / 7 + y / 11), np.cos(x / 3) * np.sin(y / 5), np.sign(np.sin(x / 13) * np.sin(y / 17))]
    return (127.5 + 127 * np.stack(waves, axis=2)).astype(np.uint8)


def torchvision_square(
    pixels: np.ndarray[Any, np.dtype[np.uint8]], side: int, crop_fraction: float, interpolation: str
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(side, side, 3), as the published evaluations make it."""
    resize = Resize(round(side / crop_fraction), InterpolationMode(interpolation))
    return np.asarray(Compose([resize, CenterCrop(side)])(Image.fromarray(pixels)))


def summary(square: np.ndarray[Any, np.dtype[np.uint8]]) -> list[float]:
    """Means of the four quarters and the whole, per channel: 15 numbers that any shift or other filter moves."""
    half = square.shape[0] // 2
    parts = (square, square[:half, :half], square[:half, half:], square[half:, :half], square[half:, half:])
    return [round(float(value), 4) for part in parts for value in part.mean((0, 1))]


if __name__ == "__main__":
    rows = [
        {"size": size, "case": case, "means": summary(torchvision_square(picture(*size), *case))}
        for size in SIZES
        for case in CASES
    ]
    document = {"torchvision": version("torchvision"), "pillow": version("pillow"), "rows": rows}
    path = Path(__file__).parent.parent / "preprocess.json"
    lines = ",\n  ".join(json.dumps(row) for row in rows)
    head = json.dumps({key: document[key] for key in ("torchvision", "pillow")})[1:-1]
    path.write_text(f'{{{head}, "rows": [\n  {lines}\n]}}\n', encoding="utf-8")
