"""The map drawn over its picture: what is hot keeps its colours' place, what the network did not see is hatched."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from foldertune.explanation.geometry import Grid, Window, heat_in_picture
from foldertune.records import Box

if TYPE_CHECKING:
    from numpy.typing import NDArray

LONGEST_PX, SHORTEST_PX = 960, 384  # of the longer side: larger pictures are reduced, smaller ones enlarged
# From cold to hot: from dark to light without a turn, so that it can be read without seeing its hues.
RAMP = (
    (0.0, (48, 16, 108)),
    (0.25, (124, 24, 134)),
    (0.5, (214, 52, 92)),
    (0.75, (250, 132, 34)),
    (1.0, (255, 236, 120)),
)
_MOST_OPAQUE = 0.38  # of the hottest place: at 0.55 what was answered could no longer be seen there
_GREY, _DIM = 0.6, 0.82  # how much of its colour and light the picture keeps where it is cold
_HATCH_PX = 9


def draw_map(
    picture: NDArray[np.uint8], grid: Grid, window: Window, boxes: Sequence[Box], *, size: tuple[int, int]
) -> NDArray[np.uint8]:
    """The picture with its map, as large as it is drawn.

    picture: what `drawn_picture` gave.   size: (width, height) of the whole picture, whose pixels the window and the boxes are in.
    """
    height, width = picture.shape[:2]
    scale = (width / size[0], height / size[1])
    heat, seen = heat_in_picture(grid, window.scaled(*scale), (width, height))
    drawn = _overlaid(picture.astype(np.float32), heat.astype(np.float32), seen)
    return _with_boxes(drawn.round().astype(np.uint8), boxes, scale)


def drawn_picture(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture (h, w, 3) at the size that it is drawn at: 384 to 960 pixels on its longer side, in its own shape."""
    from PIL import Image

    height, width = picture.shape[:2]
    factor = min(max(width, height, SHORTEST_PX), LONGEST_PX) / max(width, height)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


def jpeg(picture: NDArray[np.uint8], *, quality: int = 88) -> bytes:
    """The content of a JPEG file, without metadata."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=quality, optimize=True)
    return stream.getvalue()


def coloured(heat: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """The colour of each value in [0, 1]: (..., 3), 0 to 255."""
    stops = [place for place, _ in RAMP]
    return np.stack(
        [np.interp(heat, stops, [colour[channel] for _, colour in RAMP]) for channel in range(3)], axis=-1
    ).astype(np.float32)


def _overlaid(picture: NDArray[np.float32], heat: NDArray[np.float32], seen: NDArray[np.bool_]) -> NDArray[np.float32]:
    """picture: (H, W, 3), 0 to 255.   heat, seen: (H, W)."""
    warm = heat[..., None]
    grey = picture @ np.array([0.299, 0.587, 0.114], np.float32)
    cool = _DIM * (grey[..., None] + _GREY * (picture - grey[..., None]))
    below = cool + warm * (picture - cool)  # where it is hot the picture shines in its own colours
    opacity = _MOST_OPAQUE * np.clip(warm * 1.15 - 0.06, 0, 1)  # what is nearly cold stays clear
    drawn = below + opacity * (coloured(heat) - below)
    down, across = np.ogrid[: heat.shape[0], : heat.shape[1]]
    stripes = ((down + across) // _HATCH_PX % 2).astype(np.float32)[..., None]
    hidden = 0.35 * grey[..., None] + 40 + 32 * stripes
    drawn = np.where(seen[..., None], drawn, hidden)
    return np.clip(drawn, 0, 255).astype(np.float32)


def _with_boxes(drawn: NDArray[np.uint8], boxes: Sequence[Box], scale: tuple[float, float]) -> NDArray[np.uint8]:
    """White frames with a dark rim, which show on any picture; the first box has the thicker one."""
    from PIL import Image, ImageDraw

    image = Image.fromarray(drawn)
    pen = ImageDraw.Draw(image)
    for number, box in reversed(list(enumerate(boxes))):
        left, right = round(box.left * scale[0]), max(0, round(box.right * scale[0]) - 1)
        top, bottom = round(box.top * scale[1]), max(0, round(box.bottom * scale[1]) - 1)
        edges = (min(left, right), min(top, bottom), right, bottom)
        thick = 3 if number == 0 else 2
        pen.rectangle(edges, outline=(12, 12, 16), width=thick + 2)
        if edges[2] - edges[0] > 2 and edges[3] - edges[1] > 2:
            inner = (edges[0] + 1, edges[1] + 1, edges[2] - 1, edges[3] - 1)
            pen.rectangle(inner, outline=(255, 255, 255), width=thick)
    return np.asarray(image)
