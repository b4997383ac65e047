"""Groups: pictures that belong together by their names, such as those of one patient, or by the moment at which they were taken."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from foldertune.errors import DataError, SettingsError
from foldertune.images import FileFacts
from foldertune.records import Picture

BURST_S = 2.0  # between two pictures of one camera: who presses again so soon has the same thing before him; a guess
# A clock that stands still, or a camera that takes a picture every second, is no burst: it would chain everything. Guesses.
LONGEST_S, MOST_OF_A_BURST = 30.0, 20


def check_pattern(pattern: str) -> re.Pattern[str]:
    """The regular expression of --group-by. Raises SettingsError where it is none."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise SettingsError(
            f"Group by is {pattern!r}, which is no regular expression ({error}). Accepted: one that matches a part of each path, "
            r"such as 'person\d+'."
        ) from error


def group_pictures(pictures: Sequence[Picture], pattern: str) -> tuple[Picture, ...]:
    """The pictures with a group for each whose path the pattern matches: its first bracket, or all that matches.

    Raises DataError where it matches no path.
    """
    matcher = check_pattern(pattern)

    def grouped(picture: Picture) -> Picture:
        found = matcher.search(picture.path)
        name = (found[1] if matcher.groups else found[0]) if found else ""
        return replace(picture, group=name) if name else picture

    found = tuple(grouped(picture) for picture in pictures)
    if pictures and all(now is before for now, before in zip(found, pictures, strict=True)):
        raise DataError(
            f"Group by {pattern!r} matches none of {len(pictures):,} paths, such as {pictures[0].path!r}. "
            "Give a pattern that matches a part of them, or leave it out."
        )
    return found


def find_bursts(pictures: Sequence[Picture], files: Sequence[FileFacts]) -> list[tuple[int, int]]:
    """Rows of pictures that follow each other within two seconds, by the clock of one camera; a burst ends after 30 s or 20 pictures."""
    taken: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for picture, file in zip(pictures, files, strict=True):
        if file.camera and file.taken_s is not None:
            taken[file.camera].append((file.taken_s, picture.row))
    pairs = []
    for moments in taken.values():
        moments.sort()
        began_s, length = moments[0][0], 1
        for (first_s, row), (second_s, following) in pairwise(moments):
            if second_s - first_s <= BURST_S and second_s - began_s <= LONGEST_S and length < MOST_OF_A_BURST:
                pairs.append((row, following))
                length += 1
            else:
                began_s, length = second_s, 1
    return sorted(pairs)
