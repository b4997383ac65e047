"""Pictures decoded once, features computed once: one file of equal records, in the order of the rows that it was made for.

A pack is keyed by everything that its content depends on. It grows record by record in `KEY.part` and becomes `KEY.pack` when
complete, so that a killed process loses at most the record that it was writing. Every record has its place: two processes
that make the same pack at once write the same bytes to the same places.
Records are read with plain reads, not mapped: mapped pages would count as this process's memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foldertune.errors import DataError, ImageError, WorkFailedError
from foldertune.images import decode, read_picture_bytes
from foldertune.preprocess import Preprocess, decode_px, prepare, stretch
from foldertune.records import Picture, Progress, Work
from foldertune.run import fsync_folder

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

# Closer to the network's square the second resampling of a large picture would blur; farther from it two samples a pixel,
# which is what augmentation takes, are too few.
_CANVAS_OVER_SQUARE = 1.75
_READING = 3  # raised whenever decoding or preparing gives other pixels: packs of earlier versions are then made again


@dataclass(frozen=True)
class Pack:
    """N records of one shape and type in a file."""

    path: Path
    shape: tuple[int, ...]  # of one record
    dtype: np.dtype[Any]
    num_records: int

    @property
    def record_bytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def read(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[Any]:
        """The records at `indices`, in that order: (len(indices), *shape)."""
        records = np.empty((len(indices), *self.shape), self.dtype)
        with self.path.open("rb", buffering=0) as stream:
            for place, index in enumerate(indices):
                stream.seek(int(index) * self.record_bytes)
                view = memoryview(records[place]).cast("B")
                while len(view):
                    got = stream.readinto(view)
                    if not got:
                        raise WorkFailedError(
                            f"The cache file {self.path} is shorter than it was. Delete it and start again."
                        )
                    view = view[got:]
        return records

    def read_all(self) -> NDArray[Any]:
        return self.read(range(self.num_records))


def pack_key(pictures: Sequence[Picture], **depends_on: Any) -> str:
    """The name of a pack: a hash of the pictures' own hashes and of whatever else the records depend on (JSON-ready)."""
    digest = hashlib.sha256(json.dumps([_READING, depends_on], sort_keys=True).encode())
    for picture in pictures:
        digest.update(picture.sha256.encode())
    return digest.hexdigest()[:32]


def find_pack(folder: Path, key: str, shape: tuple[int, ...], dtype: DTypeLike, num_records: int) -> Pack | None:
    """The complete pack of this name, or None. One of another size is not trusted and is made again."""
    pack = Pack(folder / f"{key}.pack", shape, np.dtype(dtype), num_records)
    with contextlib.suppress(OSError):
        if pack.path.stat().st_size == num_records * pack.record_bytes:
            os.utime(pack.path)  # whoever clears the cache by age keeps what is in use
            return pack
    return None


class PackWriter:
    """Adds records to the unfinished file of a pack; `num_done` records are there already from an earlier try."""

    def __init__(self, folder: Path, key: str, shape: tuple[int, ...], dtype: DTypeLike, num_records: int) -> None:
        self._pack = Pack(folder / f"{key}.pack", shape, np.dtype(dtype), num_records)
        self._part = folder / f"{key}.part"
        with self._explained():
            folder.mkdir(parents=True, exist_ok=True)
            self._part.touch()
            self._stream = self._part.open("r+b", buffering=0)
            self.num_done = min(self._part.stat().st_size // self._pack.record_bytes, num_records)
            self._stream.seek(self.num_done * self._pack.record_bytes)  # over what a killed process left of a record

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
        view = np.ascontiguousarray(records, self._pack.dtype).data.cast("B")
        with self._explained():
            while len(view):
                view = view[self._stream.write(view) :]
        self.num_done += len(records)

    def close(self) -> Pack:
        """The finished pack."""
        with self._stream, self._explained():
            if self.num_done != self._pack.num_records:
                raise WorkFailedError(
                    f"The pack {self._pack.path} has {self.num_done} of {self._pack.num_records} records."
                )
            self._stream.truncate(self.num_done * self._pack.record_bytes)
            os.fsync(self._stream.fileno())
        with self._explained():
            with contextlib.suppress(FileNotFoundError):  # another process has finished the same pack
                self._part.replace(self._pack.path)
            fsync_folder(self._pack.path.parent)
        return self._pack


Prepare = Callable[["NDArray[np.uint8]"], "NDArray[np.uint8]"]


def load_pictures(
    folder: Path, pictures: Iterable[Picture], prepared: Prepare, *, at_least_px: int, workers: int
) -> Iterator[NDArray[np.uint8]]:
    """Each picture decoded and `prepared`, in order. `workers` threads work a few pictures ahead.

    Raises DataError for a picture that is not what it was when the folder was looked at: labels and caches belong to that content.
    """

    def load(picture: Picture) -> NDArray[np.uint8]:
        try:
            return prepared(decode(_same_bytes(folder, picture), at_least_px=at_least_px))
        except ImageError as error:
            raise DataError(
                f"{picture.path} has changed since {folder} was looked at: {error}. Put it back, or start a new run."
            ) from error

    yield from ahead(load, pictures, workers=workers)


def _same_bytes(folder: Path, picture: Picture) -> bytes:
    content = read_picture_bytes(folder / picture.path, inside=folder)
    if picture.sha256 not in ("", hashlib.sha256(content).hexdigest()):
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


def pack_pictures(
    folder: Path, pictures: Sequence[Picture], preprocess: Preprocess, *, cache: Path, workers: int
) -> Work[Pack]:
    """The network's input of every picture: records of (S, S, 3) uint8."""
    key = pack_key(pictures, kind="pictures", preprocess=preprocess.to_dict())
    shape = (preprocess.image_size, preprocess.image_size, 3)
    if found := find_pack(cache, key, shape, np.uint8, len(pictures)):
        return found
    writer = PackWriter(cache, key, shape, np.uint8, len(pictures))

    def prepared(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return prepare(picture, preprocess)

    remaining = pictures[writer.num_done :]
    return (
        yield from _fill(
            writer,
            load_pictures(folder, remaining, prepared, at_least_px=decode_px(preprocess), workers=workers),
            len(pictures),
        )
    )


def pack_canvases(
    folder: Path, pictures: Sequence[Picture], preprocess: Preprocess, *, cache: Path, workers: int
) -> Work[Pack]:
    """Every whole picture at one size, for augmentation to cut from: records of (H, W, 3) uint8.

    The shorter side is what nine of ten pictures do not exceed, so that pictures of one size are stored as they are and resampled
    once, by the augmentation;
    large ones are reduced to 1.75 times the network's square. The affine map undoes what distortion there is.
    """
    width, height = canvas_size(pictures, preprocess)
    key = pack_key(pictures, kind="canvases", size=[width, height], interpolation=preprocess.interpolation)
    shape = (height, width, 3)
    if found := find_pack(cache, key, shape, np.uint8, len(pictures)):
        return found
    writer = PackWriter(cache, key, shape, np.uint8, len(pictures))

    def prepared(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return stretch(picture, (width, height), preprocess.interpolation)

    remaining = pictures[writer.num_done :]
    least = 2 * min(width, height)
    return (
        yield from _fill(
            writer, load_pictures(folder, remaining, prepared, at_least_px=least, workers=workers), len(pictures)
        )
    )


def canvas_size(pictures: Sequence[Picture], preprocess: Preprocess) -> tuple[int, int]:
    """(width, height) of the stored canvases, in pixels."""
    ratio = float(np.median([picture.width / picture.height for picture in pictures]))
    ratio = min(max(ratio, 0.5), 2.0)
    # Nine of ten pictures lose nothing: one that is enlarged twice is softer than validation has it.
    own = round(float(np.percentile([min(picture.width, picture.height) for picture in pictures], 90)))
    shorter = min(own, round(_CANVAS_OVER_SQUARE * preprocess.image_size))
    return (round(shorter * ratio), shorter) if ratio >= 1 else (shorter, round(shorter / ratio))


def _fill(writer: PackWriter, records: Iterator[NDArray[Any]], total: int) -> Work[Pack]:
    for batch in in_batches(records, 32):
        writer.append(batch)
        yield Progress("decode", writer.num_done, total)
    return writer.close()
