"""From findings to a patch: what would mend each, one line per picture, for a person to read before it is used.

What is certain is written ready to be used: one of two identical files of a class, the member of a leak that does not judge. What may be a
mistake of ours waits, with a ? before its action.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from foldertune.data.patch import PatchLine
from foldertune.diagnosis.copies import SAME_GROUP
from foldertune.records import SPLITS, Dataset, Evidence, Finding, Picture, Split

Groups = dict[tuple[str, Split | None], list[Picture]]  # by the name of the group and the split
# Pictures that are better left out, if they are what they seem.
_DOUBTFUL = ("outlier", "blank", "dark", "overexposed", "blurred")


def propose(dataset: Dataset, findings: Sequence[Finding], kept: Iterable[PatchLine] = ()) -> list[PatchLine]:
    """Lines for what was found, after those of a patch that was in force; one line for each action and picture."""
    pictures = {picture.path: picture for picture in dataset.pictures}
    groups: Groups = {}
    for picture in dataset.readable:
        groups.setdefault((picture.group, picture.split), []).append(picture)
    lines = {(line.action, line.path): line for line in kept}
    found: dict[tuple[str, str], PatchLine] = {}
    for finding in findings:
        for line in _lines(finding, pictures, groups):
            known = found.setdefault((line.action, line.path), line)
            if known.proposed and not line.proposed:  # what one finding doubts another one may know
                found[line.action, line.path] = line
    for finding in findings:
        if finding.kind == "label_conflict":  # one of the two goes: to relabel it as well would be refused
            for path in (path for row in finding.evidence for path in (row.path, row.other)):
                found.pop(("relabel", path), None)
    return [*lines.values(), *(line for key, line in found.items() if key not in lines)]


def _lines(finding: Finding, pictures: Mapping[str, Picture], groups: Groups) -> Iterator[PatchLine]:
    for row in finding.evidence:
        if row.path not in pictures:
            continue  # a class
        if finding.kind == "label_suspect":
            reason = f"looks like {row.suggested}: {row.note}"
            yield _line("relabel", pictures[row.path], reason, value=row.suggested, proposed=True)
        elif finding.kind == "exact_duplicate":
            yield _line("exclude", pictures[row.other], f"same content as {row.path}")
        elif finding.kind == "near_duplicate":
            worse, better = sorted((pictures[row.other], pictures[row.path]), key=lambda one: one.width * one.height)
            yield _line("exclude", worse, f"same picture as {better.path} ({row.note})", proposed=True)
        elif finding.kind == "split_leak":
            yield from _leak(row, pictures)
            yield from _leaking_group(row, pictures, groups)
        elif finding.kind == "label_conflict":
            for path in (path for path in (row.path, row.other) if pictures[path].label != row.suggested):
                yield _line("exclude", pictures[path], f"one picture, two classes: {row.note}", proposed=True)
        elif finding.kind in _DOUBTFUL:
            yield _line("exclude", pictures[row.path], f"{finding.kind}: {row.note}", proposed=True)


def _leak(row: Evidence, pictures: Mapping[str, Picture]) -> Iterator[PatchLine]:
    """What teaches goes, or what chooses, so that the judging pictures stay as they were given."""
    first, second = pictures[row.path], pictures[row.other]
    goes, stays = sorted((first, second), key=lambda picture: SPLITS.index(picture.split or "train"))
    if SAME_GROUP not in row.note:
        yield _line("exclude", goes, f"also in {stays.split}: {stays.path}")


def _leaking_group(row: Evidence, pictures: Mapping[str, Picture], groups: Groups) -> Iterator[PatchLine]:
    """All of the group that stands with the first: with one of it left the leak stays. That may be much, so a person decides."""
    if SAME_GROUP in row.note:
        first, judged = pictures[row.path], pictures[row.other]
        for each in groups.get((judged.group, first.split), ()):
            reason = f"of the group {judged.group}, as {judged.path} in {judged.split}"
            yield _line("exclude", each, reason, proposed=True)


def _line(action: str, picture: Picture, reason: str, *, value: str = "", proposed: bool = False) -> PatchLine:
    was = picture.label if action == "relabel" else ""
    return PatchLine(action, picture.path, value, was, reason, picture.sha256, proposed)
