"""Marks that stand at one place of the pictures of a class: names of shops, dates, letters of a machine. Pure.

What pictures of one class have in common at one place survives when they are averaged; what they show does not, because it lies
elsewhere in each. So the mean of the fine structure of each small square is the mark, and a picture has it if its square is like that mean.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_CELL_PX = 8  # of a sketch's 96
_AROUND_PX = 9  # fine structure is what stands out of the mean of so many pixels
_FAINT = 2.0  # levels of 255: squares that vary less are not blown up
_MOST_PICTURES, _MOST_CLASSES = 4000, 50  # that are looked at; a mark of a whole class shows in a part of its pictures


def mark_scores(
    sketches: NDArray[np.uint8], labels: NDArray[np.int64], folds: NDArray[np.int64], *, num_classes: int
) -> tuple[NDArray[np.float64], list[str]]:
    """How much each picture (N, K) has each class's mark, and where that stands, in words (K,).

    sketches: (N, 96, 96).   labels, folds: (N,). A picture is held against the mark of the folds that it is not in.
    Of very many pictures and classes only a part is looked at; the others have NaN.
    """
    chosen = _some(labels)
    structure = _structure(sketches[chosen])
    scores, places = np.full((len(sketches), num_classes), np.nan), [""] * num_classes
    half = folds[chosen] % 2
    for number in _largest(labels[chosen], num_classes):
        own = labels[chosen] == number
        found = np.zeros(structure.shape[:2], np.float32)  # (M, cells)
        for part in (0, 1):
            teaching = half != part
            if not (own & teaching).any() or not (~own & teaching).any():
                continue
            mark = structure[own & teaching].mean(0) - structure[~own & teaching].mean(0)
            found[half == part] = np.einsum("ncd,cd->nc", structure[half == part], mark)
        found = _with_neighbours(found)
        # Where it stands is chosen by one half and judged by the other, so that the best of many squares is not luck.
        for part in (0, 1):
            cell = _best_cell(found[half != part], own[half != part])
            scores[chosen[half == part], number] = found[half == part, cell]
            places[number] = _name(cell, structure.shape[1])
        scale = np.nanmax(np.abs(scores[:, number]), initial=0.0)
        scores[:, number] /= scale or 1.0
    return scores, places


def _some(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places of at most so many pictures, evenly from all classes."""
    order = np.argsort(labels, kind="stable")
    chosen: NDArray[np.int64] = np.sort(
        order[np.linspace(0, len(order) - 1, min(_MOST_PICTURES, len(order))).round().astype(int)]
    )
    return chosen


def _largest(labels: NDArray[np.int64], num_classes: int) -> list[int]:
    counts = np.bincount(labels, minlength=num_classes)
    return [int(number) for number in np.argsort(-counts, kind="stable")[:_MOST_CLASSES] if counts[number]]


def _structure(sketches: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(M, cells, pixels): what stands out of its surroundings in each square, of length up to 1."""
    from scipy.ndimage import uniform_filter

    across = sketches.shape[1] // _CELL_PX
    found = np.empty((len(sketches), across * across, _CELL_PX * _CELL_PX), np.float32)
    for start in range(0, len(sketches), 512):
        part = sketches[start : start + 512].astype(np.float32)
        part -= uniform_filter(part, (0, _AROUND_PX, _AROUND_PX), mode="nearest")
        cells = part.reshape(len(part), across, _CELL_PX, across, _CELL_PX).transpose(0, 1, 3, 2, 4)
        cells = cells.reshape(len(part), across * across, -1)
        lengths = np.linalg.norm(cells, axis=2, keepdims=True)
        found[start : start + 512] = cells / np.maximum(lengths, _CELL_PX * _FAINT)
    return found


def _with_neighbours(found: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sums over 2 x 2 squares, so that a mark that lies across several counts whole. (M, cells)"""
    across = round(found.shape[1] ** 0.5)
    grid = np.pad(found.reshape(-1, across, across), ((0, 0), (0, 1), (0, 1)))
    summed: NDArray[np.float32] = grid[:, :-1, :-1] + grid[:, 1:, :-1] + grid[:, :-1, 1:] + grid[:, 1:, 1:]
    return summed.reshape(len(found), -1)


def _best_cell(found: NDArray[np.float32], own: NDArray[np.bool_]) -> int:
    """The square that tells the class best, by the distance of the means in standard deviations."""
    if not own.any() or own.all():
        return 0
    spread = np.sqrt((found[own].var(0) + found[~own].var(0)) / 2) + 1e-6
    return int(((found[own].mean(0) - found[~own].mean(0)) / spread).argmax())


def _name(cell: int, num_cells: int) -> str:
    across = round(num_cells**0.5)
    row, column = divmod(cell, across)
    upright = ("top", "middle", "bottom")[min(2, 3 * row // across)]
    level = ("left", "centre", "right")[min(2, 3 * column // across)]
    return f"{upright} {level}"
