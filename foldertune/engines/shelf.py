"""Where a model's prepared forms lie between processes: a folder of the cache, one sub-folder per form, complete or absent.

Prepared forms are made on this machine from model.safetensors and never leave it; whatever is missing or damaged is made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from foldertune import cache
from foldertune.errors import WorkFailedError
from foldertune.run import fsync_folder, write_json

_VERSION = 1  # of the forms; raised whenever the same weights give another graph
_CHOICE = "trials.json"


class Shelf:
    """The forms of one model. `key` names all that they depend on.   num_bytes: of the model's weights, as one form takes about."""

    def __init__(self, key: str, *, num_bytes: int = 0) -> None:
        self._folder, self._num_bytes = cache.cache_folder() / "engines" / key, num_bytes
        self._spare: Path | None = None  # where the cache cannot be written: for this process alone
        self._hold: cache.Hold | None = None  # as long as this lives, nobody clears the folder

    def find(self, name: str) -> Path | None:
        """The folder of a complete form, or None."""
        with contextlib.suppress(OSError):
            self._hold = self._hold or cache.Hold(self._folder)
            cache.touch(self._folder)
        places = [folder / name for folder in (self._folder, self._spare) if folder]
        return next((place for place in places if place.is_dir()), None)

    def add(self, name: str, write: Callable[[Path], None]) -> Path:
        """The folder of a form: what `write` puts into an empty folder that it is given. Another process may be first."""
        if found := self.find(name):
            return found
        try:
            cache.make_room(self._num_bytes)
            return self._added(self._folder, name, write)
        except OSError:  # read-only or full: the work goes on without being remembered
            self._spare = Path(tempfile.mkdtemp(prefix="foldertune-"))
            weakref.finalize(self, shutil.rmtree, self._spare, ignore_errors=True)
            return self._added(self._spare, name, write)

    def drop(self, name: str) -> None:
        """Remove a form that turned out to be damaged."""
        if found := self.find(name):
            shutil.rmtree(found, ignore_errors=True)

    def _added(self, folder: Path, name: str, write: Callable[[Path], None]) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        hold = cache.Hold(folder)
        target, temporary = folder / name, Path(tempfile.mkdtemp(prefix=".part-", dir=folder))
        try:
            write(temporary)
            for path in temporary.iterdir():
                with path.open("rb+") as written:
                    os.fsync(written.fileno())
            with contextlib.suppress(OSError):  # another process was first: its form is as good
                temporary.rename(target)
            fsync_folder(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            hold.close()
        self.find(name)
        if not target.is_dir():
            raise OSError(f"{target} could not be made")
        return target

    def read_trials(self) -> dict[str, Any]:
        """What was remembered by `write_trials`; empty where nothing was, or it cannot be read."""
        with contextlib.suppress(OSError, ValueError):
            found = json.loads((self._folder / _CHOICE).read_text(encoding="utf-8"))
            if isinstance(found, dict):
                return found
        return {}

    def write_trials(self, trials: dict[str, Any]) -> None:
        """Remember something about this model on this machine, where the cache can be written."""
        with contextlib.suppress(OSError, WorkFailedError):
            self._folder.mkdir(parents=True, exist_ok=True)
            write_json(self._folder / _CHOICE, trials)


def shelf_key(path: Path, **depends_on: Any) -> str:
    """A name for the weights file at `path` as it is now, and for whatever else its forms depend on (JSON-ready).

    The file is known by its place, size and times, not by its content, whose hash would take a tenth of a second and more at
    every start. Each engine is held against known answers when it is opened.
    """
    facts = path.stat()
    identity = [_VERSION, str(path.resolve()), facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, depends_on]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode("utf-8", "surrogateescape")).hexdigest()[:32]
