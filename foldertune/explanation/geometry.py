"""Where the network's square lies in the picture, and a coarse map read at any place of it. Pure.

Places are continuous: the first pixel of a row reaches from 0 to 1, its centre is 0.5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from foldertune.preprocess import Preprocess

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Window:
    """What the network's square shows of an upright picture, in pixels of the picture.

    It reaches beyond the picture where letterbox adds bars, and the picture reaches beyond it where the crop cuts.
    """

    left: float
    top: float
    right: float
    bottom: float

    def scaled(self, factor_x: float, factor_y: float) -> Window:
        """The same window in a picture of another size."""
        return Window(self.left * factor_x, self.top * factor_y, self.right * factor_x, self.bottom * factor_y)

    def seen_share(self, width: int, height: int) -> float:
        """The share of a picture of this size that the network sees, in [0, 1]."""
        across = min(self.right, width) - max(self.left, 0.0)
        down = min(self.bottom, height) - max(self.top, 0.0)
        return min(1.0, across * down / (width * height))


def window_of(width: int, height: int, preprocess: Preprocess) -> Window:
    """Where `preprocess.prepare` takes the square from, for a picture of width x height pixels.

    The arithmetic is that of `prepare`, rounding included; tests/test_explain_geometry.py holds the two together.
    """
    side = preprocess.image_size
    if preprocess.fit == "squash":
        return Window(0.0, 0.0, float(width), float(height))
    if preprocess.fit == "letterbox":
        scale = side / max(width, height)
        inner_x, inner_y = max(1, round(width * scale)), max(1, round(height * scale))
        bar_x, bar_y = (side - inner_x) // 2, (side - inner_y) // 2
        per_x, per_y = width / inner_x, height / inner_y
        return Window(-bar_x * per_x, -bar_y * per_y, (side - bar_x) * per_x, (side - bar_y) * per_y)
    shorter = preprocess.resized_px
    new_width = shorter if width <= height else max(shorter, int(shorter * width / height))
    new_height = max(shorter, int(shorter * height / width)) if width <= height else shorter
    left, top = round((new_width - side) / 2), round((new_height - side) / 2)
    per_x, per_y = width / new_width, height / new_height
    right, bottom = min(float(width), (left + side) * per_x), min(float(height), (top + side) * per_y)
    return Window(left * per_x, top * per_y, right, bottom)


@dataclass(frozen=True, slots=True)
class Grid:
    """A coarse map over the network's square.

    values: (h, w), how much each cell speaks for the class; below zero, against it.   first_px: the centre of the first cell.
    step_px: from one centre to the next.   side_px: of the square.
    """

    values: Floats
    first_px: float
    step_px: float
    side_px: int

    def at(self, down: Floats, across: Floats) -> Floats:
        """The map at places of the square, in its pixels: (R,) and (C,) give (R, C).

        Between the centres it is the mean of the cells, weighted by a Gaussian of half a cell: smooth, and nowhere beyond
        what the cells say.
        """
        rows, columns = self._weights(down, self.values.shape[0]), self._weights(across, self.values.shape[1])
        return rows @ self.values @ columns.T

    def whole(self) -> Floats:
        """(S, S): the map at every pixel of the square."""
        places = np.arange(self.side_px) + 0.5
        return self.at(places, places)

    def with_values(self, values: Floats) -> Grid:
        """Other values in the same places."""
        return Grid(values, self.first_px, self.step_px, self.side_px)

    def _weights(self, places: Floats, num_cells: int) -> Floats:
        """(P, num_cells), rows sum to 1."""
        centres = self.first_px + self.step_px * np.arange(num_cells)
        # Beyond the outer centres it stays as it is there: going on, the mean would rise towards the picture's edge.
        within = np.clip(places, centres[0], centres[-1])
        exponent = -2 * ((within[:, None] - centres) / self.step_px) ** 2
        weights = np.exp(exponent - exponent.max(1, keepdims=True))
        summed: Floats = weights / weights.sum(1, keepdims=True)
        return summed


def heat_in_picture(grid: Grid, window: Window, size: tuple[int, int]) -> tuple[Floats, NDArray[np.bool_]]:
    """The map at every pixel of a picture of `size` = (width, height), and where the network saw the picture at all.

    Heat: (height, width) in [0, 1], 1 at the hottest place that was seen; all 0 where nothing speaks for the class.
    The window is that of a picture of this size.
    """
    width, height = size
    across, seen_x = _places(width, window.left, window.right, grid.side_px)
    down, seen_y = _places(height, window.top, window.bottom, grid.side_px)
    seen = seen_y[:, None] & seen_x[None, :]
    heat = np.where(seen, np.maximum(grid.at(down, across), 0.0), 0.0)
    return heat / (heat.max() or 1.0), seen


def _places(num_px: int, start: float, end: float, side: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Where in the square each pixel's centre lies, and whether it lies in it."""
    places = (np.arange(num_px) + 0.5 - start) * (side / (end - start))
    seen = (places >= 0) & (places <= side)
    if not seen.any():  # a window narrower than a pixel
        seen[min(num_px - 1, math.floor((start + end) / 2))] = True
    return np.clip(places, 0, side), seen
