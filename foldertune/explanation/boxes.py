"""Boxes around the hot parts of a map: weakly supervised localization. Pure.

Source: Zhou et al. 2016, "Learning Deep Features for Discriminative Localization", section 3.2: what is above a share of the map's
largest value falls into connected parts, and each part has a box. They keep the largest part; here every part that matters stays.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from foldertune.explanation.geometry import Grid, Window
from foldertune.records import Box

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Of the largest value. Zhou et al. take 0.2, for maps that are less smooth; measured here: docs/figures/explain.md.
HOT = 0.5
MOST_BOXES = 5
# Of all heat above the threshold; a part below is not worth a box. A guess.
_LEAST_SHARE = 0.02


def hot_boxes(grid: Grid, window: Window, size: tuple[int, int], *, hot: float = HOT) -> tuple[Box, ...]:
    """At most five boxes, the part with most heat first. Empty where nothing speaks for the class.

    window, size: (width, height) of the upright picture in its own pixels; boxes are in those too.
    """
    from scipy.ndimage import find_objects, label

    heat = np.maximum(grid.whole(), 0.0) * _inside(grid.side_px, window, size)
    if not heat.max() > 0:
        return ()
    heat = heat / heat.max()
    parts, num_parts = label(heat >= hot, structure=np.ones((3, 3), np.int64))
    places = np.arange(1, num_parts + 1)
    sums = np.bincount(parts.ravel(), weights=heat.ravel(), minlength=num_parts + 1)[1:]
    found = []
    for number, (down, across) in zip(places, find_objects(parts), strict=True):
        share = float(sums[number - 1] / sums.sum())
        if share >= _LEAST_SHARE:
            peak = float(heat[parts == number].max())
            found.append(_box((across, down), window, grid.side_px, size, (share, peak)))
    return tuple(sorted(found, key=lambda box: (-box.share, box.top, box.left))[:MOST_BOXES])


def _inside(side: int, window: Window, size: tuple[int, int]) -> NDArray[np.bool_]:
    """(S, S): which pixels of the square show the picture; the others are bars of letterbox."""
    across = window.left + (np.arange(side) + 0.5) * (window.right - window.left) / side
    down = window.top + (np.arange(side) + 0.5) * (window.bottom - window.top) / side
    inside: NDArray[np.bool_] = ((down >= 0) & (down <= size[1]))[:, None] & ((across >= 0) & (across <= size[0]))
    return inside


def _box(slices: tuple[Any, Any], window: Window, side: int, size: tuple[int, int], facts: tuple[float, float]) -> Box:
    """Slices (across, down) of the square as whole pixels of the picture, at least one wide and high."""
    edges = []
    for part, start, end, most in (
        (slices[0], window.left, window.right, size[0]),
        (slices[1], window.top, window.bottom, size[1]),
    ):
        per = (end - start) / side
        low = min(most - 1, max(0, math.floor(start + part.start * per + 1e-6)))
        high = max(low + 1, min(most, math.ceil(start + part.stop * per - 1e-6)))
        edges.append((low, high))
    (left, right), (top, bottom) = edges
    return Box(left, top, right, bottom, share=facts[0], peak=facts[1])
