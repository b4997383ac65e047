"""Findings on pictures that are the same picture: twice in a class, under two classes, or on both sides of a split. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from foldertune.diagnosis.duplicates import Pair
from foldertune.diagnosis.findings import Asked, counted
from foldertune.records import SPLITS, Evidence, Finding, Picture, Severity


@dataclass(frozen=True, slots=True)
class Twins:
    """Two pictures that show the same. likeness: in [0, 1].   how: what was done to one of them."""

    first: Picture
    second: Picture
    likeness: float
    how: str

    @property
    def leaks(self) -> bool:
        """Whether they stand on two sides of a split."""
        return None not in self.splits and len(self.splits) > 1

    @property
    def splits(self) -> set[str | None]:
        return {self.first.split, self.second.split}

    @property
    def conflict(self) -> bool:
        return self.first.label != self.second.label


def copy_findings(
    pictures: Sequence[Picture], pairs: Sequence[Pair], *, given_splits: bool, asked: Asked
) -> Iterator[Finding]:
    """pictures: readable, with splits.   pairs: rows of those that show the same.   given_splits: whether the folder gave them."""
    twins = [*_same_content(pictures), *_same_picture(pictures, pairs)]
    if given_splits:
        yield from _leaks([*twins, *_same_group(pictures)], asked)
    yield from _conflicts([each for each in twins if each.conflict], asked)
    rest = [each for each in twins if not each.conflict and not (given_splits and each.leaks)]
    yield from _duplicates("exact_duplicate", [each for each in rest if each.how == _SAME_FILE], asked)
    yield from _duplicates("near_duplicate", [each for each in rest if each.how != _SAME_FILE], asked)


_SAME_FILE, SAME_GROUP = "the same content", "the same group"


def _same_content(pictures: Sequence[Picture]) -> Iterator[Twins]:
    """Each file with the first one of its content, in its own class and split and in every other that has it."""
    found: dict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        found[picture.sha256].append(picture)
    for same in found.values():
        firsts: dict[tuple[str, str | None], int] = {}
        for place, picture in enumerate(same):
            firsts.setdefault((picture.label, picture.split), place)
        pairs = {
            (min(place, first), max(place, first))
            for place in range(len(same))
            for first in firsts.values()
            if place != first
        }
        yield from (Twins(same[one], same[other], 1.0, _SAME_FILE) for one, other in sorted(pairs))


def _same_picture(pictures: Sequence[Picture], pairs: Sequence[Pair]) -> Iterator[Twins]:
    by_row = {picture.row: picture for picture in pictures}
    for pair in pairs:
        first, second = by_row.get(pair.first), by_row.get(pair.second)
        if first and second and first.sha256 != second.sha256:
            yield Twins(first, second, pair.likeness, pair.how)


def _same_group(pictures: Sequence[Picture]) -> Iterator[Twins]:
    """Of every group that a split parts: one that teaches, or chooses where none teaches, with each in another split."""
    groups: dict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        if picture.group:
            groups[picture.group].append(picture)
    for members in groups.values():
        first = min(members, key=lambda picture: SPLITS.index(picture.split or "train"))
        yield from (Twins(first, each, 1.0, SAME_GROUP) for each in members if each.split != first.split)


def _leaks(twins: Sequence[Twins], asked: Asked) -> Iterator[Finding]:
    leaks: dict[frozenset[str], Twins] = {}
    for each in twins:
        if each.leaks:
            leaks.setdefault(frozenset((each.first.path, each.second.path)), each)
    if not leaks:
        return
    found = list(leaks.values())
    judged = {picture.path for each in found for picture in (each.first, each.second) if picture.split != "train"}
    graver: Severity = "serious" if any("train" in each.splits for each in found) else "warning"
    flatters = (
        "The figures of this split flatter the model" if graver == "serious" else "Validation and test share them"
    )
    yield Finding(
        "split_leak",
        f"{counted(len(judged), 'picture')} of val or test {'is' if len(judged) == 1 else 'are'} also in another split, as "
        f"{_ways(found)}. {flatters}; the split is kept as it was given.",
        graver,
        round(max(each.likeness for each in found), 3),
        _evidence(found, lambda each: f"{each.first.split} and {each.second.split}: {each.how}"),
        asked.patch(),
    )


def _conflicts(twins: Sequence[Twins], asked: Asked) -> Iterator[Finding]:
    if not twins:
        return
    yield Finding(
        "label_conflict",
        f"{counted(len(twins), 'pair')} of pictures {'shows' if len(twins) == 1 else 'show'} the same and "
        f"{'is' if len(twins) == 1 else 'are'} filed under two classes: one label of each is wrong.",
        "serious" if len(twins) > 1 else "warning",
        round(max(each.likeness for each in twins), 3),
        _evidence(twins, lambda each: f"{each.first.label} and {each.second.label}: {each.how}"),
        asked.patch(),
    )


def _duplicates(kind: str, twins: Sequence[Twins], asked: Asked) -> Iterator[Finding]:
    if not twins:
        return
    ways = "" if kind == "exact_duplicate" else f" ({_ways(twins)})"
    alike = "have the same content" if kind == "exact_duplicate" else "show the same"
    yield Finding(
        kind,
        f"{counted(len(twins), 'pair')} of pictures of one class {alike}{ways}. They count twice while training, and stay on one side "
        "of every split that is made here.",
        "note",
        round(max(each.likeness for each in twins), 3),
        _evidence(twins, lambda each: each.how),
        asked.patch(),
    )


def _ways(twins: Sequence[Twins]) -> str:
    """How often each way occurs, the most frequent first: 12 x mirrored, 3 x cropped."""
    counts = Counter(each.how for each in twins)
    return ", ".join(f"{count:,} x {how}" for how, count in counts.most_common(4))


def _evidence(twins: Sequence[Twins], note: Callable[[Twins], str]) -> tuple[Evidence, ...]:
    rows = [
        Evidence(each.first.path, round(each.likeness, 3), note(each), other=each.second.path, label=each.first.label)
        for each in twins
    ]
    return tuple(sorted(rows, key=lambda row: (-row.score, row.path, row.other)))
