"""What looking at the files of a folder found, kept between runs for those that have not changed since."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import PIL

from foldertune.images import accepted_formats, most_pixels
from foldertune.machine import num_cores, processor_name, version_of
from foldertune.notes import find_note, keep_note
from foldertune.records import Picture

# What pixels depend on beside a file. The number is raised whenever decoding or preparing gives others: looks and packs of earlier
# versions are then made again, as they are where the libraries that decode were changed.
READING = [3, PIL.__version__, version_of("pillow-heif")]
# A file that was changed so shortly before it was looked at could be changed again without another time: file systems count
# in steps of up to two seconds. It is looked at again.
_SETTLED_S = 2.0
_FEW = 32  # pictures, whose decoding tells no rate
_USUAL_PER_S = 100.0  # of one thread, where nothing tells; a guess, between photographs of phones and small pictures


class Looks:
    """Pictures of one folder by their relative paths: their identity as files, and what was found."""

    def __init__(self, folder: Path, *, workers: int = 1) -> None:
        """workers: threads that look at files."""
        self._folder, self._where = folder, _where(folder)
        stored = find_note("looks", self._where)
        self._known: dict[str, list[Any]] = stored if isinstance(stored, dict) else {}
        self._seen: dict[str, list[Any]] = {}
        self._rate_of, self._threads = [*self._where, processor_name(), workers], max(1, min(workers, num_cores()))
        self._num_looked, self._looked_s, self._counting = 0, 0.0, threading.Lock()

    def at(self, picture: Picture, check: Callable[[Path, Picture], Picture]) -> Picture:
        """The picture as it was found, or as `check` finds it now. Called by several threads."""
        identity = self._identity(picture.path)
        known = self._known.get(picture.path)
        if known and identity and known[0] == identity:
            self._seen[picture.path] = known
            _, width, height, sha256 = known
            return replace(picture, width=width, height=height, sha256=sha256)
        began = time.monotonic()
        checked = check(self._folder, picture)
        with self._counting:
            self._num_looked, self._looked_s = self._num_looked + 1, self._looked_s + time.monotonic() - began
        if identity and checked.readable:  # why another cannot be read may be gone the next time
            self._seen[picture.path] = [identity, checked.width, checked.height, checked.sha256]
        return checked

    def keep(self) -> None:
        """Keep what was found for the next run."""
        if self._num_looked >= _FEW:
            keep_note("decoding", self._rate_of, self._per_s)
        if self._seen != self._known:
            keep_note("looks", self._where, self._seen)

    @property
    def decode_per_s(self) -> float:
        """Pictures that this machine looks at in a second: now, or when it last did, where there were too few to tell."""
        known = find_note("decoding", self._rate_of) if self._num_looked < _FEW else None
        if isinstance(known, float):
            return known
        return self._per_s if self._num_looked else self._threads * _USUAL_PER_S

    @property
    def _per_s(self) -> float:
        return self._threads * max(1, self._num_looked) / max(1e-3, self._looked_s)

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
    return [str(folder.absolute()), READING, most_pixels(), accepted_formats()]
