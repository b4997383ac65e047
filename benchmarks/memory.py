"""Does `predict` grow with the number of pictures? Answers N pictures in one process and watches its memory.

usage: python benchmarks/memory.py MODEL PICTURE_FOLDER [--pictures 5000]
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import psutil
from machine_facts import describe

from foldertune.evaluation.predict import open_model, picture_files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("pictures_in", type=Path)
    parser.add_argument("--pictures", type=int, default=5_000)
    given = parser.parse_args()
    print(describe())
    files = list(picture_files([given.pictures_in]))
    endless = itertools.islice(itertools.cycle(files), given.pictures)
    process, after_500 = psutil.Process(), 0.0
    for number, _ in enumerate(open_model(given.model).predict(endless), start=1):
        if number % 500 == 0:
            memory = process.memory_info().rss / 2**20
            after_500 = after_500 or memory
            print(f"{number:6,} pictures: {memory:7.1f} MiB, {memory - after_500:+.1f} since the first 500", flush=True)


if __name__ == "__main__":
    main()
