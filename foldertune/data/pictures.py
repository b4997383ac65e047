"""Packs of pictures, so that each is decoded once: the network's input, and canvases for augmentation to cut from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foldertune.data.pack import Pack, Packing, in_batches, load_pictures
from foldertune.data.stock import Ware, names_of, stocked
from foldertune.preprocess import Preprocess, decode_px, prepare, stretch
from foldertune.records import Picture, Work

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Closer to the network's square the second resampling of a large picture would blur; farther from it two samples a pixel,
# which is what augmentation takes, are too few.
_CANVAS_OVER_SQUARE = 1.75
_STEP_PX, _STEPS_OF_RATIO = 32, 8  # steps of a mixed set's shorter side, and of its ratio from 1 to 2


def pack_pictures(
    folder: Path, pictures: Sequence[Picture], preprocess: Preprocess, *, cache: Path, workers: int
) -> Work[Pack]:
    """The network's input of every picture: records of (S, S, 3) uint8."""
    side = preprocess.image_size
    ware = Ware("pictures", (side, side, 3), np.uint8, {"preprocess": preprocess.to_dict()})

    def loaded(chosen: Sequence[Picture]) -> Iterator[NDArray[np.uint8]]:
        return load_pictures(
            folder,
            chosen,
            lambda pixels: prepare(pixels, preprocess),
            at_least_px=decode_px(preprocess),
            workers=workers,
        )

    return (yield from _stocked(cache, ware, pictures, loaded))


def pack_canvases(
    folder: Path, pictures: Sequence[Picture], preprocess: Preprocess, *, cache: Path, workers: int
) -> Work[Pack]:
    """Every whole picture at one size, for augmentation to cut from: records of (H, W, 3) uint8.

    The shorter side is what nine of ten pictures do not exceed, so that pictures of one size are stored as they are and resampled
    once, by the augmentation;
    large ones are reduced to 1.75 times the network's square. The affine map undoes what distortion there is.
    """
    width, height = canvas_size(pictures, preprocess)
    size, interpolation = (width, height), preprocess.interpolation
    ware = Ware("canvases", (height, width, 3), np.uint8, {"interpolation": interpolation})

    def loaded(chosen: Sequence[Picture]) -> Iterator[NDArray[np.uint8]]:
        return load_pictures(
            folder,
            chosen,
            lambda pixels: stretch(pixels, size, interpolation),
            at_least_px=2 * min(size),
            workers=workers,
        )

    return (yield from _stocked(cache, ware, pictures, loaded))


def canvas_size(pictures: Sequence[Picture], preprocess: Preprocess) -> tuple[int, int]:
    """(width, height) of the stored canvases, in pixels.

    What half of the pictures share is taken as it is; else in coarse steps, so that a picture more or less does not change the size of all
    canvases, which would be made again.
    """
    ratios = [picture.width / picture.height for picture in pictures]
    sides = [min(picture.width, picture.height) for picture in pictures]
    ratio = float(np.median(ratios))
    # Nine of ten pictures lose nothing: one that is enlarged twice is softer than validation has it.
    own = float(np.percentile(sides, 90))
    if 2 * ratios.count(ratio) < len(pictures):
        ratio = 2 ** (round(_STEPS_OF_RATIO * math.log2(ratio)) / _STEPS_OF_RATIO)
    if 2 * sides.count(round(own)) < len(pictures):
        own = math.ceil(own / _STEP_PX) * _STEP_PX
    ratio = min(max(ratio, 0.5), 2.0)
    shorter = min(round(own), round(_CANVAS_OVER_SQUARE * preprocess.image_size))
    return (round(shorter * ratio), shorter) if ratio >= 1 else (shorter, round(shorter / ratio))


def _stocked(
    cache: Path,
    ware: Ware,
    pictures: Sequence[Picture],
    loaded: Callable[[Sequence[Picture]], Iterator[NDArray[np.uint8]]],
) -> Work[Pack]:
    def make(places: Sequence[int], packing: Packing) -> Work[None]:
        for batch in in_batches(loaded([pictures[place] for place in places[packing.num_done :]]), 32):
            packing.append(batch)
            yield from packing.told("decode")

    return (yield from stocked(cache, ware, names_of(pictures), make))
