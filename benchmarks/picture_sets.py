"""Sets of JPEGs to be answered, made from the pictures of a folder, so that every set has the size and the form that a claim names."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

QUALITY = 90
ENDINGS = (".jpg", ".jpeg", ".png")


def pictures_below(folder: Path) -> list[Path]:
    """Every picture file below a folder, sorted. Raises SystemExit where there is none."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
    if not found:
        raise SystemExit(f"There is no picture below {folder}. Give a folder with {', '.join(ENDINGS)} files.")
    return found


def spread_over(sources: Sequence[Path], count: int) -> list[Path]:
    """So many of them, evenly chosen; some come again where there are fewer."""
    if count >= len(sources):
        return [sources[number % len(sources)] for number in range(count)]
    return [sources[number * len(sources) // count] for number in range(count)]


def make_set(folder: Path, sources: Sequence[Path], count: int, size: tuple[int, int]) -> Path:
    """`count` JPEGs of one size (width, height) in a new folder."""
    folder.mkdir(parents=True)
    for number, source in enumerate(spread_over(sources, count)):
        with Image.open(source) as opened:
            opened.convert("RGB").resize(size).save(folder / f"{number:04}.jpg", quality=QUALITY)
    return folder


def copy_set(folder: Path, sources: Sequence[Path], count: int) -> Path:
    """Copies of `count` pictures below a new folder, in subfolders as their own folders are named."""
    for number, source in enumerate(spread_over(sources, count)):
        place = folder / source.parent.name
        place.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place / f"{number:05}{source.suffix.lower()}")
    return folder
