"""What looking at the files of a folder found, kept between runs for those that have not changed since."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import PIL

from foldertune.images import accepted_formats, most_pixels
from foldertune.notes import find_note, keep_note
from foldertune.records import Picture

READING = 3  # raised whenever decoding or preparing gives other pixels: looks and packs of earlier versions are then made again
# A file that was changed so shortly before it was looked at could be changed again without another time: file systems count
# in steps of up to two seconds. It is looked at again.
_SETTLED_S = 2.0
_FEW = 32  # pictures, whose decoding tells no rate


class Looks:
    """Pictures of one folder by their relative paths: their identity as files, and what was found."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._where = folder, _where(folder)
        stored = find_note("looks", self._where)
        known = stored if isinstance(stored, dict) else {}
        self._known: dict[str, list[Any]] = known.get("pictures", {})
        self._decode_per_s: float = known.get("decode_per_s", 0.0)
        self._seen: dict[str, list[Any]] = {}
        self._num_looked, self._began = 0, time.monotonic()

    def at(self, picture: Picture, check: Callable[[Path, Picture], Picture]) -> Picture:
        """The picture as it was found, or as `check` finds it now. Called by several threads."""
        identity = self._identity(picture.path)
        known = self._known.get(picture.path)
        if known and identity and known[0] == identity:
            self._seen[picture.path] = known
            _, width, height, sha256 = known
            return replace(picture, width=width, height=height, sha256=sha256)
        checked = check(self._folder, picture)
        self._num_looked += 1
        if identity and checked.readable:  # why another cannot be read may be gone the next time
            self._seen[picture.path] = [identity, checked.width, checked.height, checked.sha256]
        return checked

    def keep(self) -> None:
        """Keep what was found for the next run."""
        if self._num_looked >= _FEW:
            self._decode_per_s = self._num_looked / (time.monotonic() - self._began)
        if self._num_looked or len(self._seen) != len(self._known):
            keep_note("looks", self._where, {"pictures": self._seen, "decode_per_s": self._decode_per_s})

    @property
    def decode_per_s(self) -> float:
        """Pictures that were looked at in a second, the last time that there were enough of them."""
        return self._decode_per_s or max(1, self._num_looked) / max(1e-3, time.monotonic() - self._began)

    def _identity(self, path: str) -> list[int]:
        """What tells a file from another one, or from itself before a change; empty where that is not sure."""
        try:
            facts = os.stat(self._folder / path)  # noqa: PTH116  # a Path for each file is slow
        except (OSError, ValueError):
            return []
        if time.time() - max(facts.st_mtime, facts.st_ctime) < _SETTLED_S:
            return []
        return [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino]


def forget_looks(folder: Path) -> None:
    """Look at every file of the folder the next time: one of them was not what its identity says."""
    keep_note("looks", _where(folder), {})


def _where(folder: Path) -> list[Any]:
    """The folder, and all that decides beside a file whether it can be read."""
    return [str(folder.absolute()), READING, PIL.__version__, most_pixels(), accepted_formats()]
