"""What is found by looking at a folder: the data set with its splits, what belongs together, and what is wrong with it."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from foldertune.cache import cache_folder
from foldertune.data.folder import refuse_unusable, scan
from foldertune.data.glances import Glanced, Glances, glance_at
from foldertune.data.groups import find_bursts
from foldertune.data.looks import Looks
from foldertune.data.patch import PatchLine, apply_patch, read_patch
from foldertune.data.split import split_pictures, with_groups
from foldertune.diagnosis.duplicates import COPYING, Pair, find_pairs
from foldertune.machine import num_cores
from foldertune.notes import find_note, keep_note
from foldertune.records import Dataset, Event, Progress
from foldertune.settings import Wish

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")
Told = Event | Progress
LEAST_PX = 72  # shorter side of a picture that is held against others; a guess, above what digits and icons have
Journey = Generator[Told, None, T]


@dataclass(frozen=True, slots=True)
class Kin:
    """What of a data set belongs together. glances: of its readable pictures, in their order.

    copies: rows of pictures that show the same.   bursts: rows of pictures that one camera took within two seconds.
    """

    glances: Glances
    copies: tuple[Pair, ...]
    bursts: tuple[tuple[int, int], ...]

    @property
    def together(self) -> list[tuple[int, int]]:
        """Rows of pictures that must not be parted."""
        return [*((pair.first, pair.second) for pair in self.copies), *self.bursts]


@dataclass(frozen=True, slots=True)
class Looked:
    """A folder as it was looked at. dataset: with splits, groups and the patch.   patch: its lines.   notes: what it did."""

    dataset: Dataset
    kin: Kin
    decode_per_s: float
    patch: tuple[PatchLine, ...] = ()
    notes: tuple[str, ...] = ()


def look(wish: Wish) -> Journey[Looked]:
    """Read every picture once, apply the patch, find what belongs together, and split."""
    workers = wish.settings.get("workers", num_cores())
    looks, glanced = Looks(wish.folder, workers=workers), Glanced()
    notes: tuple[str, ...] = ()
    patch = read_patch(Path(wish.settings["patch"])) if wish.settings.get("patch") else ()
    group_by = wish.settings.get("group_by", "")
    found = yield from scan(wish.folder, workers=workers, group_by=group_by, looks=looks, glanced=glanced)
    if patch:
        found, notes = apply_patch(found, patch)
        refuse_unusable(found)
    kin = yield from find_kin(found, glanced=glanced, workers=workers)
    dataset = split_pictures(found, seed=wish.settings.get("seed", 0), together=kin.together)
    return Looked(with_groups(dataset, kin.together), kin, looks.decode_per_s, patch, notes)


def find_kin(dataset: Dataset, *, glanced: Glanced | None = None, workers: int) -> Journey[Kin]:
    """What belongs together, from the glances of the cache, or from the files where it lacks some."""
    pictures = dataset.readable
    glances = yield from glance_at(
        dataset.folder, pictures, glanced=glanced or {}, cache=cache_folder(), workers=workers
    )
    # Of files with the same content one speaks for all of them. Small pictures have no fine structure to be known by: of 1,797
    # handwritten digits of 64 pixels hundreds look the same.
    large = [place for place, picture in enumerate(pictures) if min(picture.width, picture.height) >= LEAST_PX]
    firsts = {pictures[place].sha256: place for place in reversed(large)}
    places = sorted(firsts.values())
    rows = [pictures[place].row for place in places]
    pairs = yield from known_pairs([pictures[place].sha256 for place in places], glances.sketches[places])
    copies = tuple(replace(pair, first=rows[pair.first], second=rows[pair.second]) for pair in pairs)
    return Kin(glances, copies, tuple(find_bursts(pictures, glances.files)))


def known_pairs(names: Sequence[str], sketches: NDArray[np.uint8]) -> Journey[list[Pair]]:
    """`find_pairs` of pictures with these contents, as it was kept, or as it is found now and kept for the next look."""
    stored = find_note("copies", [COPYING, list(names)])
    if isinstance(stored, list):
        with contextlib.suppress(TypeError):  # of a version with other fields
            return [Pair(**row) for row in stored]
    found = yield from find_pairs(sketches)
    keep_note("copies", [COPYING, list(names)], [asdict(pair) for pair in found])
    return found
