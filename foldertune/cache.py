"""The cache folder: what is kept there between runs, how much it may become, and what goes first. docs/cache.md is its page.

An entry is a pack (`KIND-KEY.pack`), an unfinished one (`.part`), a note (`.json`), or a folder in `engines/`. Everything else in
the folder, such as weights put there by hand and the environments of start.py, is not ours to delete; neither is what a link leads to.

Whoever uses an entry holds a shared lock on the entry itself; what is locked is not deleted. The system takes the lock back when
the process ends, however it ends, so nothing has to be tidied up, and several processes may read the same pack, which
filelock's exclusive lock files would forbid. Windows has no such locks and needs none: there an open file cannot be deleted.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import sys
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from foldertune.errors import MissingError, SettingsError

if sys.platform != "win32":
    import fcntl

_GIB = 2**30
BOUND = "FOLDERTUNE_CACHE_GIB"
# 20 GiB hold what some 14,000 training pictures leave at two views each (1.5 MB a picture, as forecast.py has it); a tenth
# of the disk, so that a cache nobody thinks of does not fill a small one.
_MOST_BYTES, _SHARE_OF_DISK = 20 * _GIB, 0.1
# As long as unused entries can go, so much stays free: room for the states of a run (1.4 GB for a ResNet-50) and for others.
_SPARE_BYTES = 2 * _GIB
# Of free memory that a pack may take where the cache takes none; a guess, the rest is for what comes after it.
_MEMORY_SHARE = 0.5
_PACK = re.compile(r"(?:(?P<kind>[a-z0-9_]+)-)?[0-9a-f]{32}\.(?P<state>pack|part|json)")
_LEFT = re.compile(r"\.part-\d+-[a-z0-9_]+-[0-9a-f]{32}\.json")  # of a note whose writer was killed
_ENGINES = "engines"
_GOING = ".gone-"  # a folder that is being deleted: never half of an entry under the entry's own name


@dataclass(frozen=True, slots=True)
class Entry:
    """Something in the cache that can be deleted at any time: it is made again when it is needed.

    kind: what a pack or a note holds, "unfinished" for a part of one, "earlier" for one of an earlier version, or "engines".
    """

    path: Path
    kind: str
    num_bytes: int
    last_used: float  # seconds since 1970


@dataclass(frozen=True, slots=True)
class Contents:
    """What the cache holds, the entry first that was used longest ago."""

    folder: Path
    bound_bytes: int
    num_bytes: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Clearing:
    """What was deleted, and what stays because a process uses it or the system refuses."""

    folder: Path
    num_deleted: int
    freed_bytes: int
    num_kept: int
    kept_bytes: int


def cache_folder() -> Path:
    """Where decoded pictures and features are kept between runs: FOLDERTUNE_CACHE, else the user's cache folder."""
    if given := os.environ.get("FOLDERTUNE_CACHE"):
        return Path(given)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "foldertune" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "foldertune"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "foldertune"


def bound_bytes(folder: Path | None = None) -> int:
    """How large the cache may be: FOLDERTUNE_CACHE_GIB, else 20 GiB or a tenth of its disk, whichever is less."""
    given = os.environ.get(BOUND)
    if not given:
        total = shutil.disk_usage(existing_parent(folder or cache_folder())).total
        return min(_MOST_BYTES, int(_SHARE_OF_DISK * total))
    try:
        gib = float(given)
    except ValueError:
        gib = math.nan
    if not 0 <= gib < math.inf:
        raise SettingsError(f"{BOUND} is {given!r}. Accepted: the largest size of the cache in GiB, a number from 0.")
    return int(gib * _GIB)


def existing_parent(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists. Raises MissingError where its whole drive is not there."""
    found = next((parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists()), None)
    if found is None:
        raise MissingError(
            f"Neither {path} nor any folder above it exists: its drive is not there. Give a place on one that is; the cache's "
            "is set by FOLDERTUNE_CACHE."
        )
    return found


def memory_takes(num_bytes: float, free_bytes: float) -> bool:
    """Whether so much may be kept in memory instead."""
    return num_bytes <= _MEMORY_SHARE * free_bytes


# ------------------------------------------------------------------------------------------------------------------ entries


def find_contents(folder: Path | None = None) -> Contents:
    """Everything that the cache holds. Raises MissingError for a folder that cannot be read; one that is not there is empty."""
    folder = folder or cache_folder()
    try:
        found = sorted(_entries(folder), key=lambda entry: (entry.last_used, entry.path))
    except OSError as error:
        raise MissingError(
            f"The cache folder {folder} cannot be read: {error.strerror}. Mend its permissions, or set FOLDERTUNE_CACHE to "
            "another folder."
        ) from error
    return Contents(folder, bound_bytes(folder), sum(entry.num_bytes for entry in found), tuple(found))


def _entries(folder: Path) -> Iterator[Entry]:
    for item in _scanned(folder):
        name, left = _PACK.fullmatch(item.name), _LEFT.fullmatch(item.name)
        if (name or left) and item.is_file(follow_symlinks=False):
            kind = "unfinished" if not name or name["state"] == "part" else name["kind"] or "earlier"
            with contextlib.suppress(FileNotFoundError):  # another process has finished or deleted it
                facts = item.stat(follow_symlinks=False)
                yield Entry(Path(item.path), kind, facts.st_size, facts.st_mtime)
        elif item.name == _ENGINES and item.is_dir(follow_symlinks=False):
            for child in _scanned(Path(item.path)):
                if child.is_dir(follow_symlinks=False):
                    yield Entry(Path(child.path), _ENGINES, *_measure(Path(child.path)))


def _scanned(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as items:
            return list(items)
    except FileNotFoundError:
        return []


def _measure(folder: Path) -> tuple[int, float]:
    """Bytes of all files in a folder, and the newest time of anything in it."""
    num_bytes, newest = 0, 0.0
    for place, _, names in os.walk(folder):  # which follows no links
        for path in (place, *(os.path.join(place, name) for name in names)):  # noqa: PTH118  # a Path for each file is slow
            with contextlib.suppress(FileNotFoundError):
                facts = os.lstat(path)
                newest = max(newest, facts.st_mtime)
                num_bytes += facts.st_size * (path != place)
    return num_bytes, newest


# -------------------------------------------------------------------------------------------------------------------- using


def touch(path: Path) -> None:
    """Note that an entry is used now: what was used longest ago goes first."""
    with contextlib.suppress(OSError):  # in a cache that can only be read
        os.utime(path)


def open_held(path: Path, flags: int) -> int:
    """The descriptor of an entry, opened with `flags` of os.open; nobody deletes the entry before it is closed."""
    flags |= getattr(os, "O_BINARY", 0)
    if sys.platform == "win32":
        return os.open(path, flags)
    while True:
        descriptor = os.open(path, flags, 0o666)
        try:
            with contextlib.suppress(OSError):  # a file system without locks: what is open there can be read to its end
                fcntl.flock(descriptor, fcntl.LOCK_SH)
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):  # noqa: PTH116  # Path has no stat of a descriptor beside it
                return descriptor
        except FileNotFoundError:
            if not flags & os.O_CREAT:
                os.close(descriptor)
                raise
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # deleted while it was opened: what is there now is another


class Hold:
    """An entry, file or folder, that nobody deletes until this is closed or forgotten."""

    def __init__(self, path: Path) -> None:
        """Raises FileNotFoundError where there is no such entry."""
        self.descriptor = -1  # of a folder on Windows, whose files are open and thereby held
        if sys.platform != "win32" or not path.is_dir():
            self.descriptor = open_held(path, os.O_RDONLY)
        self.close = weakref.finalize(self, _close, self.descriptor)


def _close(descriptor: int) -> None:
    if descriptor >= 0:
        os.close(descriptor)


# ----------------------------------------------------------------------------------------------------------------- deleting


def room_bytes(folder: Path | None = None) -> int:
    """What could be written into the cache at most: the free space of its disk, and what its entries hold."""
    folder = folder or cache_folder()
    held = 0
    with contextlib.suppress(OSError):
        held = sum(entry.num_bytes for entry in _entries(folder))
    return _free_bytes(folder) + held


def make_room(num_bytes: int, folder: Path | None = None) -> bool:
    """Delete unused entries, those first that were used longest ago, until `num_bytes` more fit into the bound and onto the disk.

    Whether the disk has that room now. The bound alone refuses nothing: what a run needs it gets, and what is beyond the
    bound goes when nobody uses it any more.
    """
    folder = folder or cache_folder()
    bound = bound_bytes(folder)
    entries: list[Entry] = []
    with contextlib.suppress(OSError):  # a folder that cannot be read takes nothing either, which the writer will say
        entries = sorted(_entries(folder), key=lambda entry: entry.last_used)
    held = sum(entry.num_bytes for entry in entries)
    for entry in entries:
        if held + num_bytes <= bound and _free_bytes(folder) >= num_bytes + _SPARE_BYTES:
            break
        held -= entry.num_bytes * _delete(entry)
    return _free_bytes(folder) >= num_bytes


def clear(folder: Path | None = None) -> Clearing:
    """Delete every entry that no process uses."""
    contents = find_contents(folder)
    gone = [entry.num_bytes for entry in contents.entries if _delete(entry)]
    freed = sum(gone)
    kept = len(contents.entries) - len(gone)
    return Clearing(contents.folder, len(gone), freed, kept, contents.num_bytes - freed)


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(existing_parent(folder)).free


def _delete(entry: Entry) -> bool:
    """Delete an entry unless a process uses it; whether it is gone."""
    try:
        with _unused(entry):
            if entry.kind == _ENGINES:
                _delete_folder(entry.path)
            else:
                entry.path.unlink()
    except FileNotFoundError:
        return True  # another process was faster
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _unused(entry: Entry) -> Iterator[None]:
    """Nobody begins to use the entry while inside. Raises BlockingIOError where somebody does already."""
    if sys.platform == "win32":
        yield  # deleting or renaming what is open fails there
        return
    # For writing, because NFS grants an exclusive lock to writers alone; folders cannot be opened so.
    flags = os.O_RDONLY if entry.kind == _ENGINES else os.O_RDWR
    descriptor = os.open(entry.path, flags | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            pass  # a file system without locks: readers keep what they have opened
        yield
    finally:
        os.close(descriptor)


def _delete_folder(path: Path) -> None:
    going = path
    if not path.name.startswith(_GOING):
        going = path.with_name(f"{_GOING}{os.getpid()}-{time.monotonic_ns()}-{path.name}")
        path.rename(going)
    shutil.rmtree(going)  # which deletes links, not what they lead to
