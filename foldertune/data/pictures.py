"""Packs of pictures, so that each is decoded once: the network's input, and canvases for augmentation to cut from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foldertune.data.pack import Pack, Packing, find_pack, in_batches, load_pictures, pack_key
from foldertune.preprocess import Preprocess, decode_px, prepare, stretch
from foldertune.records import Picture, Work

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Closer to the network's square the second resampling of a large picture would blur; farther from it two samples a pixel,
# which is what augmentation takes, are too few.
_CANVAS_OVER_SQUARE = 1.75


def pack_pictures(
    folder: Path, pictures: Sequence[Picture], preprocess: Preprocess, *, cache: Path, workers: int
) -> Work[Pack]:
    """The network's input of every picture: records of (S, S, 3) uint8."""
    key = pack_key(pictures, kind="pictures", preprocess=preprocess.to_dict())
    shape = (preprocess.image_size, preprocess.image_size, 3)
    if found := find_pack(cache, key, shape, np.uint8, len(pictures)):
        return found
    packing = Packing(cache, key, shape, np.uint8, len(pictures))

    def prepared(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return prepare(picture, preprocess)

    remaining = pictures[packing.num_done :]
    loaded = load_pictures(folder, remaining, prepared, at_least_px=decode_px(preprocess), workers=workers)
    return (yield from _fill(packing, loaded))


def pack_canvases(
    folder: Path, pictures: Sequence[Picture], preprocess: Preprocess, *, cache: Path, workers: int
) -> Work[Pack]:
    """Every whole picture at one size, for augmentation to cut from: records of (H, W, 3) uint8.

    The shorter side is what nine of ten pictures do not exceed, so that pictures of one size are stored as they are and resampled
    once, by the augmentation;
    large ones are reduced to 1.75 times the network's square. The affine map undoes what distortion there is.
    """
    width, height = canvas_size(pictures, preprocess)
    key = pack_key(pictures, kind="canvases", size=[width, height], interpolation=preprocess.interpolation)
    shape = (height, width, 3)
    if found := find_pack(cache, key, shape, np.uint8, len(pictures)):
        return found
    packing = Packing(cache, key, shape, np.uint8, len(pictures))

    def prepared(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return stretch(picture, (width, height), preprocess.interpolation)

    remaining = pictures[packing.num_done :]
    loaded = load_pictures(folder, remaining, prepared, at_least_px=2 * min(width, height), workers=workers)
    return (yield from _fill(packing, loaded))


def canvas_size(pictures: Sequence[Picture], preprocess: Preprocess) -> tuple[int, int]:
    """(width, height) of the stored canvases, in pixels."""
    ratio = float(np.median([picture.width / picture.height for picture in pictures]))
    ratio = min(max(ratio, 0.5), 2.0)
    # Nine of ten pictures lose nothing: one that is enlarged twice is softer than validation has it.
    own = round(float(np.percentile([min(picture.width, picture.height) for picture in pictures], 90)))
    shorter = min(own, round(_CANVAS_OVER_SQUARE * preprocess.image_size))
    return (round(shorter * ratio), shorter) if ratio >= 1 else (shorter, round(shorter / ratio))


def _fill(packing: Packing, records: Iterator[NDArray[Any]]) -> Work[Pack]:
    for batch in in_batches(records, 32):
        packing.append(batch)
        yield from packing.told("decode")
    return packing.close()
