"""Folders of small pictures for tests of the data side."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from foldertune.data.folder import scan
from foldertune.records import Dataset, Picture, finish


def picture_bytes(number: int, *, kind: str = "PNG", size: tuple[int, int] = (8, 6)) -> bytes:
    """A small picture; another number gives other pixels."""
    random = np.random.Generator(np.random.Philox(number))
    stream = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), np.uint8)).save(stream, kind)
    return stream.getvalue()


def put(folder: Path, paths: Iterable[str], *, start: int = 0) -> Path:
    """A different small picture at each relative path."""
    for number, path in enumerate(paths, start):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(picture_bytes(number))
    return folder


def put_classes(folder: Path, counts: Mapping[str, int], *, start: int = 0) -> Path:
    """FOLDER/class/0.png and so on."""
    return put(folder, (f"{name}/{number}.png" for name in counts for number in range(counts[name])), start=start)


def look(folder: Path, *, workers: int = 0) -> Dataset:
    return finish(scan(folder, workers=workers))


def paths_of(dataset: Dataset) -> list[str]:
    return [picture.path for picture in dataset.pictures]


def state_of(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything that a look could change: names, sizes, times and bytes; not the times of reading."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(root, name)
            facts = path.lstat()
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            found[str(path)] = (facts.st_mtime_ns, facts.st_mode, content)
    return found


def table_of(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, strict=True))


def invented_pictures(counts: Mapping[str, int], *, group: str = "") -> list[Picture]:
    """Rows without files: every one of another content."""
    labels = [name for name, count in counts.items() for _ in range(count)]
    return [
        Picture(row, f"{label}/{row}.png", label, group=group, width=4, height=3, sha256=f"{row:064x}")
        for row, label in enumerate(labels)
    ]
