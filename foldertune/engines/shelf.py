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
import uuid
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from foldertune import cache
from foldertune.engines.form import GRAPH
from foldertune.errors import WorkFailedError
from foldertune.run import fsync_folder, write_json

_CHOICE = "trials.json"


class Shelf:
    """The forms of one model. `key` names all that they depend on.   num_bytes: of the model's weights, as one form takes about."""

    def __init__(self, key: str, *, num_bytes: int = 0) -> None:
        self._folder, self._num_bytes = cache.cache_folder() / "engines" / key, num_bytes
        self._spare: Path | None = None  # where the cache cannot be written: for this process alone
        self._stuck: set[Path] = set()  # damaged forms that could not be removed
        self._hold: cache.Hold | None = None  # as long as this lives, nobody clears the folder

    def find(self, name: str) -> Path | None:
        """The folder of a complete form, or None."""
        with contextlib.suppress(OSError):
            self._hold = self._hold or cache.Hold(self._folder)
            cache.touch(self._folder)
        places = [folder / name for folder in (self._folder, self._spare) if folder]
        return next((place for place in places if _is_folder(place) and place not in self._stuck), None)

    def add(self, name: str, write: Callable[[Path], None]) -> Path:
        """The folder of a form: what `write` puts into an empty folder that it is given. Another process may be first.

        Raises WorkFailedError where neither the cache nor the folder for temporary files takes it, and what `write` raises.
        """
        if found := self.find(name):
            return found
        if self._folder / name not in self._stuck:
            with contextlib.suppress(OSError):  # read-only or full: the work goes on without being remembered
                cache.make_room(self._num_bytes)
                return self._added(self._folder, name, write)
        try:
            if self._spare is None:
                self._spare = Path(tempfile.mkdtemp(prefix="foldertune-"))
                weakref.finalize(self, shutil.rmtree, self._spare, ignore_errors=True)
            return self._added(self._spare, name, write)
        except OSError as error:
            raise WorkFailedError(
                f"A form of the model could be written neither to {self._folder} nor to "
                f"{self._spare or 'a folder for temporary files'}: {error.strerror or error}. It takes about "
                f"{self._num_bytes / 2**20:,.0f} MiB. Free space there, or set FOLDERTUNE_CACHE to another folder; "
                "--engine torch needs none."
            ) from error

    def drop(self, name: str) -> None:
        """Remove a form that turned out to be damaged. One that cannot be removed is not found again."""
        if found := self.find(name):
            going = found.with_name(f".part-{uuid.uuid4().hex}")  # never half of a form under its own name
            try:
                found.rename(going)
            except OSError:
                self._stuck.add(found)
            shutil.rmtree(going, ignore_errors=True)

    def _added(self, folder: Path, name: str, write: Callable[[Path], None]) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        hold = cache.Hold(folder)
        target, temporary = folder / name, folder / f".part-{uuid.uuid4().hex}"
        try:
            temporary.mkdir()  # which others may read as far as the user's mask lets them; one of tempfile they may not
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
        if not _is_folder(target):
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


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112  # Path's own raises where a folder above belongs to another user, up to Python 3.13


def shelf_key(path: Path, **depends_on: Any) -> str:
    """A name for the weights file at `path` as it is now, and for whatever else its forms depend on (JSON-ready).

    The file is known by its place, size and times, not by its content, whose hash would take a tenth of a second and more at
    every start. Each engine is held against known answers when it is opened.
    """
    facts = path.stat()
    identity = [GRAPH, str(path.resolve()), facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, depends_on]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode("utf-8", "surrogateescape")).hexdigest()[:32]
