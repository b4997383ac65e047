"""The pictures that a report shows: mistakes, what was mixed up, what findings point at. Never many: the file stays small."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from foldertune.data.pack import load_pictures
from foldertune.errors import DataError
from foldertune.evaluation.faults import shown_rows
from foldertune.evaluation.gallery import Mistake, MixedPair, thumbnail
from foldertune.evaluation.metrics import worst_mistakes
from foldertune.records import SPLITS, Finding, Split
from foldertune.scores import ConfusedPair
from foldertune.training.baseline import Material

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NUM_MISTAKES = 24
MOST_OF_FINDINGS = 80
MOST_OF_PAIRS = 96
_MOST_OF_A_PAIR = 24
_WHOLE_PX = 160  # that a picture is decoded to at least, where its file allows decoding to less
_PAIR_PX = 112  # the longer side of a pair's pictures, which are shown small


@dataclass(frozen=True, slots=True)
class Exhibit:
    """A shown picture, and the class that a map of it is to tell of. place: in the pack of its split."""

    split: Split
    place: int
    path: str
    class_number: int


def find_mistakes(
    material: Material, probabilities: NDArray[np.float32], findings: Sequence[Finding] = ()
) -> tuple[Mistake, ...]:
    """The worst of the test split.   probabilities: (N, K).   findings: in the data, which say whose label is doubted."""
    places = worst_mistakes(probabilities, material.labels["test"], count=NUM_MISTAKES)
    doubted = {row.path for each in findings if each.kind == "label_suspect" for row in each.evidence}
    found = (_mistake(material, probabilities, place) for place in places)
    return tuple(replace(one, doubted=one.path in doubted) for one in found)


def mixed_pairs(
    material: Material, probabilities: NDArray[np.float32], confused: Sequence[ConfusedPair]
) -> tuple[MixedPair, ...]:
    """Every pair with some of its pictures of the test split."""
    places = {picture.path: place for place, picture in enumerate(material.pictures["test"])}
    numbers = shared_out([min(len(pair.paths), _MOST_OF_A_PAIR) for pair in confused], MOST_OF_PAIRS)
    return tuple(
        MixedPair(
            pair.label, pair.answer, pair.num_pictures,
            tuple(_mistake(material, probabilities, places[path], side_px=_PAIR_PX) for path in pair.paths[:number]),
        )
        for pair, number in zip(confused, numbers, strict=True)
    )  # fmt: skip


def shared_out(counts: Sequence[int], total: int) -> list[int]:
    """How many of each may be shown: all, or as evenly as goes, the first ones one more."""
    given = [0] * len(counts)
    while total > 0 and any(one < most for one, most in zip(given, counts, strict=True)):
        for number, most in enumerate(counts):
            if given[number] < most and total > 0:
                given[number] += 1
                total -= 1
    return given


def finding_thumbnails(material: Material, findings: Sequence[Finding]) -> dict[str, bytes]:
    """Of the pictures that findings show, by path; of the first findings where there are too many."""
    places = _places(material)
    paths = dict.fromkeys(path for each in findings for row in shown_rows(each) for path in (row.path, row.other))
    found = itertools.islice((path for path in paths if path in places), MOST_OF_FINDINGS)
    return {path: thumbnail(_whole(material, *places[path])) for path in found}


def _whole(material: Material, split: Split, place: int) -> NDArray[np.uint8]:
    """A picture as it is in its file, also what the network does not see of it; its input where the file is not what it was."""
    picture = material.pictures[split][place]
    try:
        (pixels,) = load_pictures(material.dataset.folder, [picture], lambda one: one, at_least_px=_WHOLE_PX, workers=0)
    except DataError:
        return pixels_of(material, split, place)
    return pixels


def mapped_pictures(
    material: Material, probabilities: NDArray[np.float32], findings: Sequence[Finding]
) -> tuple[Exhibit, ...]:
    """Those whose map a report shows: of mistakes what speaks for the answer, of doubted labels what speaks for the class they are like."""
    classes = {label: number for number, label in enumerate(material.dataset.classes)}
    answers, places = probabilities.argmax(1), _places(material)
    worst = worst_mistakes(probabilities, material.labels["test"], count=NUM_MISTAKES)
    mistakes = [Exhibit("test", place, material.pictures["test"][place].path, int(answers[place])) for place in worst]
    doubted = [row for each in findings if each.kind == "label_suspect" for row in shown_rows(each)]
    suspects = [Exhibit(*places[row.path], row.path, classes[row.suggested]) for row in doubted if row.path in places]
    return tuple(dict.fromkeys([*mistakes, *suspects]))


def _places(material: Material) -> Mapping[str, tuple[Split, int]]:
    return {picture.path: (split, place) for split in SPLITS for place, picture in enumerate(material.pictures[split])}


def _mistake(material: Material, probabilities: NDArray[np.float32], place: int, *, side_px: int = 160) -> Mistake:
    """side_px: the longer side of its thumbnail."""
    answer, picture = int(probabilities[place].argmax()), material.pictures["test"][place]
    small = thumbnail(pixels_of(material, "test", place), side_px=side_px)
    return Mistake(
        picture.path, picture.label, material.dataset.classes[answer], float(probabilities[place, answer]), small
    )


def pixels_of(material: Material, split: Split, place: int) -> NDArray[np.uint8]:
    """The network's input of one picture, (S, S, 3)."""
    pixels: NDArray[np.uint8] = material.packs[split].read([place])[0]
    return pixels
