"""Pictures that are the same picture: resized, recompressed, mirrored, or with their edges cut off. Pure, and without any network.

Each picture is known by its sketch, a small grey square of the whole picture. Two sketches are held against each other twice: coarsely,
all against all in one product, and those that are alike by their fine structure, which two photographs of alike things do not share.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foldertune.records import Progress, Work

COPYING = 2  # raised whenever the same pictures give other pairs
COARSE_PX, FINE_PX = 16, 48
# Shares of each side that may have been cut off: what a picture is looked for with, and what then decides.
COARSE_MARGIN, FINE_MARGINS = 0.05, tuple(0.0125 * step for step in range(1, 9))
LEAST_COARSE = 0.9  # correlation of coarse sketches, from which on two pictures are looked at closely
# Correlation of their fine structure, from which on two are one picture: copies had 0.95 and more, X-rays of two people up to 0.68.
LEAST_FINE = 0.8
_MOST_ALIKE = 24  # pictures that one is held against closely
_FLAT = 2.0  # levels of 255: a sketch that varies less shows nothing
_VALUES = 2**23  # of the product of all with all, at once
_PAIRS = 2048  # held against each other closely, at once


@dataclass(frozen=True, slots=True)
class Pair:
    """Rows of two pictures that show the same, and how alike their fine structure is, in [0, 1]. how: what was done to one of them."""

    first: int
    second: int
    likeness: float
    how: str


@dataclass(frozen=True, slots=True)
class View:
    """A way to look at a sketch: mirrored or not, without a share of each side."""

    mirrored: bool
    margin: float

    @property
    def name(self) -> str:
        words = ["mirrored"] * self.mirrored + ["cropped"] * (self.margin > 0)
        return " and ".join(words) or "the same"


_COARSE_VIEWS = tuple(View(mirrored, margin) for margin in (0.0, COARSE_MARGIN) for mirrored in (False, True))


def find_pairs(sketches: NDArray[np.uint8]) -> Work[list[Pair]]:
    """Pairs of the same picture, each once, first < second, the most alike first.   sketches: (N, P, P), grey."""
    best: dict[tuple[int, int], Pair] = {}
    if not len(sketches):
        return []
    total = len(_COARSE_VIEWS) * len(sketches)
    for done, (view, rows, others) in _alike(sketches):
        for start in range(0, len(rows), _PAIRS):
            part = slice(start, start + _PAIRS)
            found = _likeness(sketches, view, rows[part], others[part])
            for row, other, likeness, how in zip(rows[part], others[part], *found, strict=True):
                place = (min(row, other), max(row, other))
                if likeness >= LEAST_FINE and (place not in best or likeness > best[place].likeness):
                    best[place] = Pair(int(place[0]), int(place[1]), float(likeness), how)
        yield Progress("copies", done, total)
    return sorted(best.values(), key=lambda pair: (-pair.likeness, pair.first, pair.second))


Alike = tuple[View, NDArray[np.int64], NDArray[np.int64]]


def _alike(sketches: NDArray[np.uint8]) -> Iterator[tuple[int, Alike]]:
    """Some pictures at a time, for each view: rows of those that, seen so, are coarsely like others as a whole. And how many were done."""
    whole, done = _directions(_seen(sketches, View(False, 0.0), COARSE_PX)), 0
    for view in _COARSE_VIEWS:
        seen = _directions(_seen(sketches, view, COARSE_PX))
        step = max(1, _VALUES // max(1, len(whole)))
        for start in range(0, len(seen), step):
            alike = seen[start : start + step] @ whole.T
            here = start + np.arange(len(alike))
            if view.margin:  # it matters which of the two was cut
                alike[here - start, here] = -1.0
            else:  # each pair once
                alike[np.arange(len(whole)) <= here[:, None]] = -1.0
            row, other = _most_alike(alike)
            done += len(alike)
            yield done, (view, start + row, other)


def _most_alike(alike: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of what is alike enough, of each row not more than a few: a copy is among the most alike."""
    enough = alike >= LEAST_COARSE
    crowded = np.flatnonzero(enough.sum(1) > _MOST_ALIKE)
    if len(crowded):
        many = alike[crowded]
        nearest = np.argpartition(many, -_MOST_ALIKE, axis=1)[:, -_MOST_ALIKE:]
        enough[crowded] = False
        enough[crowded[:, None], nearest] = True
    rows, columns = np.nonzero(enough)
    return rows, columns


def _likeness(
    sketches: NDArray[np.uint8], view: View, rows: NDArray[np.int64], others: NDArray[np.int64]
) -> tuple[NDArray[np.float32], list[str]]:
    """How alike the fine structure of two pictures is, the first seen in the way that fits best."""
    whole = _structure(_seen(sketches[others], View(False, 0.0), FINE_PX))
    margins = FINE_MARGINS if view.margin else (0.0,)
    views = [View(view.mirrored, margin) for margin in margins]
    chosen, places = np.unique(rows, return_inverse=True)  # one picture is held against many
    found = np.stack(
        [np.einsum("nd,nd->n", _structure(_seen(sketches[chosen], each, FINE_PX))[places], whole) for each in views]
    )
    return found.max(0), [views[place].name for place in found.argmax(0)]


def _seen(sketches: NDArray[np.uint8], view: View, side: int) -> NDArray[np.float32]:
    """(N, side, side): the mean of what each of its pixels covers."""
    taken = _averaging(sketches.shape[1], side, view.margin)
    seen = np.empty((len(sketches), side, side), np.float32)
    for start in range(0, len(sketches), _PAIRS):  # as numbers of 4 bytes all at once would take gigabytes
        seen[start : start + _PAIRS] = taken @ sketches[start : start + _PAIRS].astype(np.float32) @ taken.T
    return seen[:, :, ::-1] if view.mirrored else seen


def _averaging(given: int, side: int, margin: float) -> NDArray[np.float32]:
    """(side, given): rows that average the pixels between the margins, each over its part."""
    edges = np.linspace(margin * given, (1 - margin) * given, side + 1)
    pixels = np.arange(given)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    shares = np.maximum(overlap, 0.0)
    averaging: NDArray[np.float32] = (shares / shares.sum(1, keepdims=True)).astype(np.float32)
    return averaging


def _directions(seen: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, side * side) of length 1 without their mean, so that a product is a correlation; 0 where a picture shows nothing."""
    flat = seen.reshape(len(seen), -1)
    flat = flat - flat.mean(1, keepdims=True)
    spread = np.sqrt(np.square(flat).mean(1, keepdims=True))
    lengths = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.where(spread < _FLAT, 0.0, flat / np.maximum(lengths, 1e-6)).astype(np.float32)


def _structure(seen: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, side * side): what stands out of its surroundings of 5 x 5 pixels, of length 1."""
    padded = np.pad(seen, ((0, 0), (2, 2), (2, 2)), mode="edge")
    sums = np.cumsum(np.cumsum(np.pad(padded, ((0, 0), (1, 0), (1, 0))), axis=1), axis=2)
    around = (sums[:, 5:, 5:] - sums[:, :-5, 5:] - sums[:, 5:, :-5] + sums[:, :-5, :-5]) / 25
    out = (seen - around).reshape(len(seen), -1)
    lengths = np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-6)
    structure: NDArray[np.float32] = (out / lengths).astype(np.float32)
    return structure
