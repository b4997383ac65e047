"""How long does `look` take on 10,000 photographs, features included, and how long again on the unchanged folder? Whole processes.

The pictures are JPEGs of 500 x 375, each another random part of a picture of FOLDER, in its classes. Each round begins with an empty cache.

usage: python benchmarks/look.py FOLDER --weights FILE.safetensors [--pictures 10000] [--times 1]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from contest import our_variables
from environments import peer_variables
from picture_sets import QUALITY, pictures_below, spread_over
from PIL import Image
from tables import load_now, page, parser_of, publish

SIZE = (500, 375)


def main() -> None:
    parser = parser_of(__doc__, "look")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=10_000)
    given = parser.parse_args()
    load, rounds = load_now(), []
    with tempfile.TemporaryDirectory() as scratch:
        folder = made_set(given.folder, Path(scratch) / "pictures", given.pictures)
        for number in range(given.times):
            cache = Path(scratch) / f"cache-{number}"
            rounds.append((seconds_of(folder, cache, given), seconds_of(folder, cache, given)))
            print(*(f"{value:.1f} s" for value in rounds[-1]), flush=True)
    columns = list(zip(*rounds, strict=True))
    rows = [
        f"| {name} | {statistics.median(values):.1f} | {min(values):.1f} to {max(values):.1f} | {len(values)} |"
        for name, values in zip(("first", "again, nothing changed"), columns, strict=True)
    ]
    head = "| look | median, s | least to most | n |\n|---|---|---|---|\n"
    said = f"{given.pictures:,} JPEGs of {SIZE[0]} x {SIZE[1]}, {given.threads} threads.\n\n"
    publish(
        "look",
        page("Looking at a folder", [said + head + "\n".join(rows)], arguments=sys.argv, load=load),
        write=not given.no_page,
    )


def made_set(source: Path, folder: Path, count: int) -> Path:
    """So many different pictures of one size."""
    random = np.random.default_rng(0)
    for number, path in enumerate(spread_over(pictures_below(source), count)):
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        width = image.width * random.uniform(0.55, 0.95)
        height = min(float(image.height), width * SIZE[1] / SIZE[0])
        left, top = random.uniform(0, image.width - width), random.uniform(0, image.height - height)
        target = folder / path.parent.name / f"{number:05}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        image.resize(SIZE, box=(left, top, left + width, top + height)).save(target, quality=QUALITY)
    return folder


def seconds_of(folder: Path, cache: Path, given: argparse.Namespace) -> float:
    """Wall time of one whole process."""
    command = [sys.executable, "-m", "foldertune", "look", str(folder), "--weights", str(given.weights.absolute())]
    variables = our_variables(peer_variables(given.threads)) | {"FOLDERTUNE_CACHE": str(cache)}
    began = time.monotonic()
    subprocess.run(
        command, check=True, env={**os.environ, **variables}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return time.monotonic() - began


if __name__ == "__main__":
    main()
