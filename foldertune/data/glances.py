"""Glances: what one look at a picture tells beside its size, made while the folder is looked at, and kept.

A small grey square by which copies are found, a tiny coloured one, and a few numbers of light, sharpness and of the file itself. Nothing
here needs a network.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foldertune.data.pack import Packing, in_batches, load_contents
from foldertune.data.stock import Ware, names_of, stocked
from foldertune.images import FileFacts, decode_with_facts
from foldertune.records import Light, Picture, Work

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

SKETCH_PX, THUMB_PX = 96, 8
LOOKED_PX = 256  # a large JPEG is looked at in a reduced size: the whole file is still read and decoded
MOST_GLANCES = (
    20_000  # that are held while a folder is looked at, 200 MiB; the pictures after these are decoded once more
)
GLANCING = 2  # raised whenever the same file gives another glance
_DETAIL_PX = 224  # side of the square whose detail is measured, where the picture has so many
_TEXT_BYTES = 512
_RECORD_BYTES = SKETCH_PX**2 + 3 * THUMB_PX**2 + _TEXT_BYTES


@dataclass(frozen=True, slots=True)
class Glance:
    """sketch: (96, 96) grey.   thumb: (8, 8, 3) RGB. Both show the whole picture without its shape."""

    sketch: NDArray[np.uint8]
    thumb: NDArray[np.uint8]
    light: Light
    file: FileFacts


@dataclass(frozen=True, slots=True)
class Glances:
    """Those of N pictures, in their order: sketches (N, 96, 96), thumbs (N, 8, 8, 3)."""

    sketches: NDArray[np.uint8]
    thumbs: NDArray[np.uint8]
    lights: tuple[Light, ...]
    files: tuple[FileFacts, ...]


Glanced = dict[str, Glance]  # by the content of their pictures


def glance(picture: NDArray[np.uint8], file: FileFacts) -> Glance:
    """What a decoded picture (H, W, 3) and its file tell."""
    from PIL import Image

    image = Image.fromarray(picture)
    small, grey = image.resize((SKETCH_PX, SKETCH_PX), Image.Resampling.BILINEAR), image.convert("L")
    thumb = np.asarray(small.resize((THUMB_PX, THUMB_PX), Image.Resampling.BOX))
    sketch = np.asarray(small.convert("L"))
    side = max(8, min(_DETAIL_PX, *picture.shape[:2]))  # a small picture is not a blurred one
    red, green, blue = np.moveaxis(np.asarray(small), 2, 0)  # the largest of three planes takes a tenth of .max(2)
    chroma = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    levels = np.cumsum(np.bincount(sketch.ravel(), minlength=256))
    light = Light(
        mean=float(sketch.mean()),
        spread=float(sketch.std()),
        low=float(np.searchsorted(levels, 0.05 * sketch.size)),
        high=float(np.searchsorted(levels, 0.95 * sketch.size)),
        chroma=float(chroma.mean()),
        detail=_detail(grey.resize((side, side), Image.Resampling.BILINEAR)),
    )
    return Glance(sketch, thumb, light, file)


def _detail(grey: Image) -> float:
    """Root mean square of the Laplacian over the standard deviation."""
    square = np.asarray(grey).astype(np.float32)
    laplacian = 4 * square[1:-1, 1:-1] - square[:-2, 1:-1] - square[2:, 1:-1] - square[1:-1, :-2] - square[1:-1, 2:]
    return float(np.sqrt(np.square(laplacian).mean())) / max(float(square.std()), 1.0)


def glance_at(
    folder: Path, pictures: Sequence[Picture], *, glanced: Glanced, cache: Path, workers: int
) -> Work[Glances]:
    """Glances of readable pictures, in their order. Of those that the cache knows nothing is read.

    glanced: those that were made while the folder was looked at.
    """
    ware = Ware("glances", (_RECORD_BYTES,), np.uint8, {"version": GLANCING})

    def loaded(chosen: Sequence[Picture]) -> Iterator[Glance]:
        return load_contents(folder, chosen, _look, workers=workers)

    def make(places: Sequence[int], packing: Packing) -> Work[None]:
        wanted = [pictures[place] for place in places[packing.num_done :]]
        left = loaded([picture for picture in wanted if picture.sha256 not in glanced])
        found = (glanced[picture.sha256] if picture.sha256 in glanced else next(left) for picture in wanted)
        for batch in in_batches(map(_record, found), 32):
            packing.append(batch)
            yield from packing.told("look")

    records = (yield from stocked(cache, ware, names_of(pictures), make)).read_all()
    return _glances(records)


def _look(content: bytes) -> Glance:
    pixels, _, file = decode_with_facts(content, at_least_px=LOOKED_PX)
    return glance(pixels, file)


def _record(found: Glance) -> NDArray[np.uint8]:
    """One glance as bytes of one length, as packs want them."""
    text = _text(found.light, found.file)
    if len(text) > _TEXT_BYTES:  # a camera whose name is all escapes
        text = _text(found.light, replace(found.file, camera=""))
    padded = np.frombuffer(text.ljust(_TEXT_BYTES), np.uint8)
    return np.concatenate([found.sketch.ravel(), found.thumb.ravel(), padded])


def _text(light: Light, file: FileFacts) -> bytes:
    facts = {"light": [round(value, 3) for value in asdict(light).values()], "file": asdict(file)}
    return json.dumps(facts, separators=(",", ":")).encode("ascii")


def _glances(records: NDArray[np.uint8]) -> Glances:
    ends = np.cumsum([SKETCH_PX**2, 3 * THUMB_PX**2])
    sketches, thumbs, texts = np.split(records, ends, axis=1)
    facts = [json.loads(text.tobytes()) for text in texts]
    return Glances(
        sketches.reshape(-1, SKETCH_PX, SKETCH_PX),
        thumbs.reshape(-1, THUMB_PX, THUMB_PX, 3),
        tuple(Light(*each["light"]) for each in facts),
        tuple(FileFacts(**each["file"]) for each in facts),
    )
