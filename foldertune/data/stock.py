"""What the cache has of each picture, whatever pack it lies in: only pictures that are new there are decoded or computed.

Another seed, a picture more or a picture less asks for other lists of the same pictures. So a record is found by what it is made of, not
by the list that it was made for: each pack holds what was missing when it was made, and a note for every ware tells which records
lie in which pack. A note that is lost costs time, nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foldertune.data.looks import READING
from foldertune.data.pack import MemoryPack, Pack, Packing, find_pack, pack_key
from foldertune.notes import find_note, keep_note
from foldertune.records import Event, Picture, Work

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

# Each part is an open file, of which a system may allow 256, and has to be looked at. What lies in further ones is made once more, as one.
_MOST_PARTS = 16

Make = Callable[[Sequence[int], Packing], Work[None]]  # adds the records of these places, from `num_done` on
Part = tuple[Pack, Sequence[str]]  # with the names of its records


@dataclass(frozen=True, slots=True)
class Ware:
    """One kind of record. depends_on: what a record depends on besides its name (JSON-ready)."""

    kind: str
    shape: tuple[int, ...]
    dtype: DTypeLike
    depends_on: Mapping[str, Any]


@dataclass(frozen=True)
class GatheredPack(Pack):
    """Records of several packs in an order of their own; `path` is the first one's."""

    parts: tuple[Pack, ...]
    where: NDArray[np.int64] = field(compare=False, repr=False)  # (N, 2): which part, and which record of it

    def read(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[Any]:
        chosen = self.where[np.asarray(indices, np.int64)]
        records = np.empty((len(chosen), *self.shape), self.dtype)
        for number in np.unique(chosen[:, 0]):
            here = chosen[:, 0] == number
            records[here] = self.parts[number].read(chosen[here, 1])
        return records


def names_of(pictures: Iterable[Picture]) -> list[str]:
    """What a picture's records are found by: its content, or its place in the folder where that has not been read."""
    return [picture.sha256 or f"{picture.row} {picture.path}" for picture in pictures]


def numbers_of(pictures: Iterable[Picture]) -> list[int]:
    """A number of 32 bits for each picture that depends on no other: what its augmentation is drawn by.

    Copies of one picture count on, so that they are changed in different ways.
    """
    seen: Counter[str] = Counter()
    numbers = []
    for picture in pictures:
        first = int(picture.sha256[:8], 16) if picture.sha256 else picture.row
        numbers.append((first + seen[picture.sha256] * bool(picture.sha256)) % 2**32)
        seen[picture.sha256] += 1
    return numbers


def stocked(cache: Path, ware: Ware, names: Sequence[str], make: Make) -> Work[Pack]:
    """The record of every name, in that order. `make` is asked for those that the cache lacks, by their places in `names`."""
    wanted = {name: place for place, name in reversed(list(enumerate(names)))}
    parts = _in_stock(cache, ware, wanted)
    found = {name for _, held in parts for name in held}
    missing = [name for name in dict.fromkeys(names) if name not in found]
    if missing or not parts:
        key = pack_key(missing, kind=ware.kind, ware=_identity(ware))
        pack = find_pack(cache, key, ware.shape, ware.dtype, len(missing))
        if pack is None:
            packing = Packing(cache, key, ware.shape, ware.dtype, len(missing))
            yield from make([wanted[name] for name in missing], packing)
            pack = packing.close()
        parts.append((pack, missing))
        _note(cache, ware, pack, missing)
    return _joined(parts, names)


def kept_values(
    make: Callable[[], NDArray[Any]], *, shape: tuple[int, ...], dtype: DTypeLike, key: str, cache: Path
) -> Work[NDArray[Any]]:
    """One array as the cache has it under this key, or made now and kept there."""
    pack = find_pack(cache, key, shape, dtype, 1)
    if pack is None:
        values = np.asarray(make(), dtype)
        packing = Packing(cache, key, shape, dtype, 1)
        if packing.num_done == 0:  # else a process was killed between writing the record and closing the file
            packing.append(values[None])
        yield from (told for told in packing.told("") if isinstance(told, Event))  # one record is no progress to show
        packing.close()
        return values
    found: NDArray[Any] = pack.read_all()[0]
    return found


def lacking(cache: Path, ware: Ware, names: Sequence[str]) -> set[str]:
    """The names whose records the cache does not have, and `stocked` would ask for."""
    wanted = {name: place for place, name in reversed(list(enumerate(names)))}
    return set(names).difference(*(held for _, held in _in_stock(cache, ware, wanted)))


def one_after_another(packs: Sequence[Pack]) -> Pack:
    """All records of packs of one shape and type, those of the first pack first."""
    where = [(number, index) for number, pack in enumerate(packs) for index in range(pack.num_records)]
    return packs[0] if len(packs) == 1 else _gathered(packs, where)


def _in_stock(cache: Path, ware: Ware, wanted: Mapping[str, int]) -> list[Part]:
    """Packs that hold something of what is wanted, those that hold most of it first; each adds something."""
    noted = _noted(cache, ware)
    by_use = sorted(noted, key=lambda key: sum(name in wanted for name in noted[key]), reverse=True)
    parts: list[Part] = []
    lacking = set(wanted)
    for key in by_use:
        held = noted[key]
        if len(parts) == _MOST_PARTS:
            break
        if not lacking.isdisjoint(held) and (pack := find_pack(cache, key, ware.shape, ware.dtype, len(held))):
            parts.append((pack, held))
            lacking.difference_update(held)
    return parts


def _joined(parts: Sequence[Part], names: Sequence[str]) -> Pack:
    if len(parts) == 1 and list(parts[0][1]) == list(names):
        return parts[0][0]
    place_of = {name: (number, index) for number, (_, held) in enumerate(parts) for index, name in enumerate(held)}
    return _gathered([pack for pack, _ in parts], [place_of[name] for name in names])


def _gathered(packs: Sequence[Pack], where: Sequence[tuple[int, int]]) -> GatheredPack:
    first = packs[0]
    places = np.array(where, np.int64).reshape(-1, 2)
    return GatheredPack(first.path, first.shape, first.dtype, len(places), tuple(packs), places)


def _noted(cache: Path, ware: Ware) -> dict[str, list[str]]:
    """The names of the records in each pack of a ware."""
    found = find_note("stock", _identity(ware), folder=cache)
    return found if isinstance(found, dict) else {}


def _note(cache: Path, ware: Ware, pack: Pack, names: Sequence[str]) -> None:
    """Note what a new pack holds, and forget packs that are gone."""
    if isinstance(pack, MemoryPack) or not names:
        return
    others = {key: held for key, held in _noted(cache, ware).items() if (cache / f"{key}.pack").exists()}
    keep_note("stock", _identity(ware), {**others, pack.path.stem: list(names)}, folder=cache)


def _identity(ware: Ware) -> list[Any]:
    return [READING, ware.kind, list(ware.shape), np.dtype(ware.dtype).str, dict(ware.depends_on)]
