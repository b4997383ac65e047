"""Which pictures teach, which choose, which judge: 70, 15 and 15 %, seeded, per class, with copies, bursts and groups on one side."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from foldertune.records import SPLITS, Dataset, Picture, Split

SHARES: dict[Split, float] = {"train": 0.70, "val": 0.15, "test": 0.15}
_JUDGING: tuple[Split, ...] = ("test", "val")  # in the order in which they are filled


def split_pictures(dataset: Dataset, *, seed: int, together: Sequence[tuple[int, int]] = ()) -> Dataset:
    """The data set with a split for every readable picture.

    together: rows of two pictures that must not be parted: copies, or neighbours in a burst. Identical files and those of one
    group never are.
    Splits that the folder gives are kept as they are. Where it gives training pictures but no val or no test, each missing one
    takes 15 % of the training pictures. Pictures of labels.csv without a split count as training pictures when others have one.
    """
    given = {picture.split for picture in dataset.readable} - {None}
    if not given:
        assigned = assign(dataset.readable, SPLITS, seed=seed, together=together)
        return _with_splits(dataset, assigned, "made")
    pool = [picture for picture in dataset.readable if picture.split in (None, "train")]
    missing: list[Split] = [name for name in ("val", "test") if name not in given]
    assigned = assign(pool, ("train", *missing), seed=seed, together=together)
    return _with_splits(dataset, assigned, "made from train" if missing else dataset.split_source)


def fold_of_units(found: Sequence[Sequence[Picture]], num_folds: int, *, seed: int = 0) -> dict[int, int]:
    """A fold for each row: every class is spread as evenly as whole units allow. The largest units go first."""
    filled: dict[str, list[int]] = defaultdict(lambda: [0] * num_folds)
    totals, folds = [0] * num_folds, {}
    for unit in sorted(_in_random_order(list(map(list, found)), seed), key=len, reverse=True):
        labels = Counter(picture.label for picture in unit)
        best = min(range(num_folds), key=lambda fold: (sum(filled[label][fold] for label in labels), totals[fold]))
        for label, count in labels.items():
            filled[label][best] += count
        totals[best] += len(unit)
        folds.update({picture.row: best for picture in unit})
    return folds


def with_groups(dataset: Dataset, together: Sequence[tuple[int, int]]) -> Dataset:
    """The data set with a group for pictures that belong together and have none: intervals count them once."""
    names = {
        picture.row: f"like {unit[0].path}"
        for unit in units(dataset.readable, together)
        if len(unit) > 1
        for picture in unit
    }
    pictures = tuple(
        replace(picture, group=picture.group or names.get(picture.row, "")) for picture in dataset.pictures
    )
    return replace(dataset, pictures=pictures)


def _with_splits(dataset: Dataset, assigned: dict[int, Split], source: str) -> Dataset:
    pictures = tuple(replace(picture, split=assigned.get(picture.row, picture.split)) for picture in dataset.pictures)
    return replace(dataset, pictures=pictures, split_source=source)


def assign(
    pictures: Sequence[Picture], names: Sequence[Split], *, seed: int, together: Sequence[tuple[int, int]] = ()
) -> dict[int, Split]:
    """A split for each row. What belongs together stays together; every class is spread as evenly as that allows.

    names: the splits to fill. In a random order, each unit goes to test while that brings test nearer to its 15 % of every
    class, then to val in the same way, and the rest teaches. A class of one or two units only teaches; from the third on it is
    tested, from the fourth validated, unless one unit holds most of it. One new picture moves only those at the two borders,
    not all that come after it.
    """
    found = _in_random_order(units(pictures, together), seed)
    wanted: dict[Split, dict[str, float]] = {}
    for name in _JUDGING:
        if name in names:
            wanted[name] = _wanted(found, SHARES[name], least_units=3 + len(wanted))
    totals = Counter(picture.label for picture in pictures)
    filled: dict[Split, Counter[str]] = {name: Counter() for name in SPLITS}
    assigned: dict[int, Split] = {}
    for unit in found:
        counts = Counter(picture.label for picture in unit)
        nearer = (name for name in wanted if _gain(counts, filled[name], wanted[name], totals) > 0)
        split: Split = next(nearer, "train")
        filled[split].update(counts)
        assigned.update({picture.row: split for picture in unit})
    return assigned


def _wanted(found: Sequence[Sequence[Picture]], share: float, *, least_units: int) -> dict[str, float]:
    """How many pictures of each class a split should have: its share, at least one unit, none of too small a class."""
    sizes: dict[str, list[int]] = defaultdict(list)
    for unit in found:
        for label, count in Counter(picture.label for picture in unit).items():
            sizes[label].append(count)
    return {
        label: max(share * sum(counts), min(counts)) if len(counts) >= least_units else 0.0
        for label, counts in sizes.items()
    }


def _gain(counts: Counter[str], filled: Counter[str], wanted: dict[str, float], totals: Counter[str]) -> float:
    """How much nearer a unit brings a split to what it should have: half the fall of the squared distance, in shares of each class."""
    return sum(
        count * (wanted[label] - filled[label] - count / 2) / totals[label] ** 2 for label, count in counts.items()
    )


def units(pictures: Iterable[Picture], together: Sequence[tuple[int, int]] = ()) -> list[list[Picture]]:
    """Pictures that must not be parted: those with the same content, those of the same group, and given pairs, chained."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    pictures = list(pictures)
    for picture in pictures:
        if picture.group:
            parent[root(f"group {picture.group}")] = root(f"file {picture.sha256}")
    by_row = {picture.row: picture.sha256 for picture in pictures}
    for one, other in together:
        if one in by_row and other in by_row:
            parent[root(f"file {by_row[one]}")] = root(f"file {by_row[other]}")
    found: dict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        found[root(f"file {picture.sha256}")].append(picture)
    return list(found.values())


def _in_random_order(found: list[list[Picture]], seed: int) -> list[list[Picture]]:
    """By a hash of seed and content: names, places and the other pictures do not matter."""

    def key(unit: list[Picture]) -> str:
        return hashlib.sha256(f"{seed} {min(picture.sha256 for picture in unit)}".encode()).hexdigest()

    return sorted(found, key=key)
