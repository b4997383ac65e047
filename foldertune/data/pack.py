"""Packs: pictures decoded once, features computed once. One file of equal records, in the order of the rows that it was made for.

A pack is keyed by everything that its content depends on. It grows record by record in `KEY.part` and becomes `KEY.pack` when
complete, so that a killed process loses at most the record that it was writing. Every record has its place: two processes
that make the same pack at once write the same bytes to the same places. What is trusted of a file: `data.frames`.
Records are read with plain reads, not mapped: mapped pages would count as this process's memory.
Where the cache takes nothing more, memory holds the records of this run.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from foldertune.cache import Hold, make_room, memory_takes, open_held, touch
from foldertune.data.frames import DamagedError, Frames
from foldertune.data.looks import READING, forget_looks
from foldertune.errors import DataError, ImageError, WorkFailedError
from foldertune.images import decode, read_picture_bytes
from foldertune.machine import memory_mib
from foldertune.records import Event, Picture, Progress
from foldertune.run import event, fsync_folder

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray


@dataclass(frozen=True)
class Pack:
    """N records of one shape and type in a file. Once it is opened nobody evicts it, until it is forgotten."""

    path: Path
    shape: tuple[int, ...]  # of one record
    dtype: np.dtype[Any]
    num_records: int

    @cached_property
    def frames(self) -> Frames:
        return Frames(self.path.stem, self.shape, self.dtype, self.num_records)

    @cached_property
    def _hold(self) -> Hold:
        return Hold(self.path)

    def open(self) -> int:
        """The descriptor of the open file. Raises OSError where there is none."""
        return self._hold.descriptor

    def read(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[Any]:
        """The records at `indices`, in that order: (len(indices), *shape). Raises WorkFailedError where the file is damaged."""
        records = np.empty((len(indices), *self.shape), self.dtype)
        try:
            for place, index in enumerate(indices):
                memoryview(records[place]).cast("B")[:] = self.frames.read(self.open(), int(index))
        except DamagedError as error:
            raise WorkFailedError(f"The cache file {self.path} {error}. {self._discard()}") from error
        except OSError as error:
            raise WorkFailedError(
                f"The cache file {self.path} cannot be read: {error.strerror}. Delete it where it is still there, then start "
                "again or go on with --resume: it is made anew."
            ) from error
        return records

    def _discard(self) -> str:
        """Delete a file that is damaged; what to do next."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError:
            return "Delete it, then start again or go on with --resume: it is made anew."
        return "It was deleted: start again or go on with --resume, and it is made anew."

    def read_all(self) -> NDArray[Any]:
        return self.read(range(self.num_records))


@dataclass(frozen=True)
class MemoryPack(Pack):
    """The same in memory, for one run; `path` is where it would lie."""

    records: NDArray[Any] = field(compare=False, repr=False)  # (N, *shape)

    def read(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[Any]:
        chosen: NDArray[Any] = self.records[np.asarray(indices, np.int64)]
        return chosen

    def read_all(self) -> NDArray[Any]:
        return self.records


def pack_key(names: Iterable[str], *, kind: str, **depends_on: Any) -> str:
    """The name of a pack: its kind, for people, and a hash of it, of the names of its records and of whatever else they depend
    on (JSON-ready).
    """
    digest = hashlib.sha256(json.dumps([READING, {"kind": kind, **depends_on}], sort_keys=True).encode())
    for name in names:
        digest.update(name.encode())
    return f"{kind}-{digest.hexdigest()[:32]}"


def find_pack(folder: Path, key: str, shape: tuple[int, ...], dtype: DTypeLike, num_records: int) -> Pack | None:
    """The complete pack of this name, or None. One that does not prove itself is not trusted and is made again."""
    pack = Pack(folder / f"{key}.pack", shape, np.dtype(dtype), num_records)
    with contextlib.suppress(OSError):
        if pack.frames.look_whole(pack.open()):
            touch(pack.path)
            return pack
    return None


class PackWriter:
    """Adds records to the unfinished file of a pack; `num_done` records are there already from an earlier try."""

    def __init__(self, folder: Path, key: str, shape: tuple[int, ...], dtype: DTypeLike, num_records: int) -> None:
        self._pack = Pack(folder / f"{key}.pack", shape, np.dtype(dtype), num_records)
        self._frames = self._pack.frames
        self._part = folder / f"{key}.part"
        with self._explained():
            folder.mkdir(parents=True, exist_ok=True)
            self._stream = os.fdopen(open_held(self._part, os.O_RDWR | os.O_CREAT), "r+b", buffering=0)
            self.num_done = self._begin()

    def _begin(self) -> int:
        """How many records can be trusted, with room for the others. What begins as no part of this pack begins anew."""
        descriptor, frames = self._stream.fileno(), self._frames
        is_part = frames.begins_right(descriptor)
        num_done = frames.num_whole(descriptor) if is_part else 0
        if not make_room(frames.num_bytes - frames.offset(num_done), self._part.parent):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if not is_part:  # what lies behind it is written over; it may be another process's, which began just now
            self._write(memoryview(frames.header), 0)
        return num_done

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # where it could not be opened
            self._stream.close()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise WorkFailedError(
                f"The cache file {self._part} could not be written: {error.strerror}. Free space there or mend its "
                "permissions, or set FOLDERTUNE_CACHE to another folder."
            ) from error

    def append(self, records: NDArray[Any]) -> None:
        """records: (B, *shape), cast to the pack's type."""
        with self._explained():
            self._write(self._frames.framed(records, self.num_done), self._frames.offset(self.num_done))
        self.num_done += len(records)

    def _write(self, view: memoryview, offset: int) -> None:
        self._stream.seek(offset)  # over what a killed process or a full disk left of a record
        while len(view):
            view = view[self._stream.write(view) :]

    def read(self, index: int) -> NDArray[Any]:
        """A record that was added. Raises DamagedError or OSError where it cannot be had back."""
        return np.frombuffer(self._frames.read(self._stream.fileno(), index), self._pack.dtype).reshape(
            self._pack.shape
        )

    def close(self) -> Pack:
        """The finished pack, opened."""
        if self.num_done != self._pack.num_records:
            raise WorkFailedError(
                f"The pack {self._pack.path} has {self.num_done} of {self._pack.num_records} records."
            )
        with self._explained():
            self._stream.truncate(self._frames.num_bytes)
            os.fsync(self._stream.fileno())
            if os.name == "nt":
                self._stream.close()  # nothing that is open can be renamed there
            with contextlib.suppress(FileNotFoundError):  # another process has finished the same pack
                self._part.replace(self._pack.path)
            self._pack.open()
            self._stream.close()
            fsync_folder(self._pack.path.parent)
        return self._pack

    def discard(self) -> None:
        """Leave nothing behind."""
        self._stream.close()
        with contextlib.suppress(OSError):
            self._part.unlink(missing_ok=True)


class MemoryWriter:
    """A PackWriter's work in memory."""

    def __init__(self, pack: Pack) -> None:
        records = np.empty((pack.num_records, *pack.shape), pack.dtype)
        self._pack = MemoryPack(pack.path, pack.shape, pack.dtype, pack.num_records, records)
        self.num_done = 0

    def append(self, records: NDArray[Any]) -> None:
        self._pack.records[self.num_done : self.num_done + len(records)] = records
        self.num_done += len(records)

    def close(self) -> Pack:
        return self._pack


class Packing:
    """The making of a pack: in the cache, where it goes on from an earlier try; where the cache takes nothing more, in memory.

    Raises WorkFailedError, with the place, the need and what to do, where neither has room.
    """

    def __init__(self, folder: Path, key: str, shape: tuple[int, ...], dtype: DTypeLike, num_records: int) -> None:
        self._pack = Pack(folder / f"{key}.pack", shape, np.dtype(dtype), num_records)
        self._note = ""
        self._writer: PackWriter | MemoryWriter
        try:
            self._writer = PackWriter(folder, key, shape, dtype, num_records)
        except WorkFailedError as error:
            self._writer = self._in_memory(error)

    @property
    def num_done(self) -> int:
        return self._writer.num_done

    def append(self, records: NDArray[Any]) -> None:
        """records: (B, *shape), cast to the pack's type."""
        try:
            self._writer.append(records)
        except WorkFailedError as error:
            self._move_to_memory(error)
            self._writer.append(records)

    def told(self, stage: str) -> Iterator[Event | Progress]:
        """How far it is, and once that memory has taken the cache's place."""
        if self._note:
            yield event("note", text=self._note)
            self._note = ""
        yield Progress(stage, self.num_done, self._pack.num_records)

    def close(self) -> Pack:
        """The finished pack."""
        try:
            return self._writer.close()
        except WorkFailedError as error:
            self._move_to_memory(error)
            return self._writer.close()

    def _move_to_memory(self, error: WorkFailedError) -> None:
        written, memory = self._writer, self._in_memory(error)
        assert isinstance(written, PackWriter)
        try:
            for index in range(written.num_done):
                memory.append(written.read(index)[None])
        except (DamagedError, OSError, ValueError):  # of a file that is closed
            raise error from None
        written.discard()
        self._writer = memory

    def _in_memory(self, error: WorkFailedError) -> MemoryWriter:
        cause, need_mib = error.__cause__, self._pack.frames.num_bytes / 2**20
        if not isinstance(cause, OSError):
            raise error
        if not memory_takes(need_mib, memory_mib()[1]):
            raise WorkFailedError(
                f"{error} {math.ceil(need_mib):,} MiB are needed, and memory has no room for them."
            ) from error
        self._note = (
            f"The cache folder {self._pack.path.parent} takes nothing more ({cause.strerror}): memory takes its place in this "
            "run, and the next one makes everything again. Free space there or mend its permissions, or set FOLDERTUNE_CACHE "
            "to another folder."
        )
        return MemoryWriter(self._pack)


T = TypeVar("T")
Prepare = Callable[["NDArray[np.uint8]"], "NDArray[np.uint8]"]


def load_pictures(
    folder: Path, pictures: Iterable[Picture], prepared: Prepare, *, at_least_px: int, workers: int
) -> Iterator[NDArray[np.uint8]]:
    """Each picture decoded and `prepared`, in order. `workers` threads work a few pictures ahead.

    Raises DataError for a picture that is not what it was when the folder was looked at: labels and caches belong to that content.
    """

    def decoded(content: bytes) -> NDArray[np.uint8]:
        return prepared(decode(content, at_least_px=at_least_px))

    yield from load_contents(folder, pictures, decoded, workers=workers)


def load_contents(
    folder: Path, pictures: Iterable[Picture], made: Callable[[bytes], T], *, workers: int
) -> Iterator[T]:
    """What is `made` of each file's content, in order, and of the same content as ever: else as `load_pictures`."""

    def load(picture: Picture) -> T:
        try:
            return made(_same_bytes(folder, picture))
        except ImageError as error:
            forget_looks(folder)  # else a new run would believe again what was noted of it
            raise DataError(
                f"{picture.path} has changed since {folder} was looked at: {error}. Put it back, or start a new run."
            ) from error

    yield from ahead(load, pictures, workers=workers)


def _same_bytes(folder: Path, picture: Picture) -> bytes:
    content = read_picture_bytes(folder / picture.path, inside=folder)
    if picture.sha256 not in ("", hashlib.sha256(content).hexdigest()):
        # Also what no time or size tells: on Windows st_ctime is when a file was made, so a copy over it that keeps times hides.
        raise ImageError("other content")
    return content


def ahead(work: Callable[[Any], Any], items: Iterable[Any], *, workers: int) -> Iterator[Any]:
    """`map` over threads that keeps the order and never holds more than a few results."""
    if workers == 0:
        yield from map(work, items)
        return
    pending: list[Any] = []
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) > 8 * workers:
                    yield pending.pop(0).result()
            while pending:
                yield pending.pop(0).result()
        finally:
            for future in pending:
                future.cancel()


def in_batches(items: Iterable[NDArray[Any]], size: int) -> Iterator[NDArray[Any]]:
    """Stack single records into batches of at most `size`."""
    batch: list[NDArray[Any]] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield np.stack(batch)
            batch = []
    if batch:
        yield np.stack(batch)
