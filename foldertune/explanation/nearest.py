"""Which training pictures the network sees much as a given one: its own features of them, computed once and kept in the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foldertune.cache import cache_folder
from foldertune.data.pack import Packing, ahead, in_batches, load_pictures
from foldertune.data.stock import Ware, lacking, names_of, stocked
from foldertune.data.table import read_dataset
from foldertune.engines import Engine, LaterEngine
from foldertune.engines.form import GRAPH
from foldertune.errors import DataError, ImageError
from foldertune.evaluation.gallery import thumbnail
from foldertune.evaluation.saved_model import SavedModel
from foldertune.images import read_picture_bytes
from foldertune.machine import num_cores, version_of
from foldertune.preprocess import decode_px, prepare
from foldertune.records import Event, Neighbour, Picture, Progress, Work
from foldertune.run import event

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Training pictures that are compared, spread over all where there are more: 160 MB of a ResNet-50's features, and half an hour to
# compute once. A guess at what one waits for.
MOST_COMPARED = 20_000
_BATCH = 16
_THUMBNAIL_PX = 160
_GONE = "its file is gone or has changed"


@dataclass(frozen=True)
class Album:
    """The training pictures with their features. folder: of the pictures."""

    folder: Path
    pictures: tuple[Picture, ...]
    directions: NDArray[np.float32] = field(repr=False)  # (N, D), each of length 1

    def nearest(self, features: NDArray[np.float32], sha256: str, most: int) -> tuple[Neighbour, ...]:
        """The most similar pictures first, without the picture itself.

        features: (D,).   sha256: of the file that they are of.
        """
        similarity = self.directions @ _directions(features[None])[0]
        found: list[Neighbour] = []
        for place in np.argsort(-similarity, kind="stable"):
            picture = self.pictures[place]
            if len(found) == most:
                break
            if picture.sha256 != sha256:
                cosine = float(np.clip(similarity[place], -1, 1))
                found.append(Neighbour(picture.path, picture.label, cosine, self._note(picture)))
        return tuple(found)

    def holds(self, sha256: str) -> bool:
        """Whether a file with this content was learned from."""
        return any(picture.sha256 == sha256 for picture in self.pictures)

    def thumbnail(self, path: str) -> bytes:
        """A small JPEG of a training picture; empty where it is not what it was."""
        picture = next(each for each in self.pictures if each.path == path)
        try:
            (pixels,) = load_pictures(
                self.folder, [picture], lambda decoded: decoded, at_least_px=2 * _THUMBNAIL_PX, workers=0
            )
        except DataError:
            return b""
        return thumbnail(pixels, side_px=_THUMBNAIL_PX)

    def _note(self, picture: Picture) -> str:
        return "" if is_intact(self.folder, picture) else _GONE


def is_intact(folder: Path, picture: Picture) -> bool:
    """Whether a picture's file has the content that it had when the run began."""
    try:
        content = read_picture_bytes(folder / picture.path, inside=folder)
    except ImageError:
        return False
    return hashlib.sha256(content).hexdigest() == picture.sha256


def open_album(saved: SavedModel, make: Callable[[], Engine]) -> Generator[Progress | Event, None, Album | None]:
    """The run's training pictures; None, with a note, where the model came without them.

    make: an engine that gives features, asked for only where the cache lacks some.
    """
    if not saved.run.run_json.is_file():
        yield event(
            "note",
            text=f"{saved.run.path} is a model without its run, so there are no training pictures to compare with.",
        )
        return None
    try:
        dataset = read_dataset(saved.run.dataset_csv, saved.run.open().get("dataset", {}))
    except DataError as error:
        yield event("warning", text=f"No training pictures are compared: {error}")
        return None
    every = dataset.of("train")
    places = np.linspace(0, len(every) - 1, min(MOST_COMPARED, len(every))).round().astype(int)
    pictures = [every[place] for place in places]
    if len(pictures) < len(every):
        yield event(
            "note", text=f"{len(pictures):,} of {len(every):,} training pictures are compared, spread over all."
        )
    return (yield from _computed(saved, dataset.folder, pictures, make))


def _computed(
    saved: SavedModel, folder: Path, pictures: Sequence[Picture], make: Callable[[], Engine]
) -> Work[Album | None]:
    engine = LaterEngine("openvino", make)
    ware = Ware("features", (_num_features(saved),), np.float32, _identity(saved))
    cache, names = cache_folder(), names_of(pictures)
    new = lacking(cache, ware, names)
    unread = [picture for name, picture in zip(names, pictures, strict=True) if name in new]
    intact = ahead(lambda picture: is_intact(folder, picture), unread, workers=num_cores())
    gone = {picture.path for picture, is_there in zip(unread, intact, strict=True) if not is_there}
    if gone:
        text = f"{len(gone):,} of {len(pictures):,} training pictures in {folder} are gone or have changed, such as {min(gone)}."
        yield event("warning", text=f"{text} They are not compared.")
    kept = [picture for picture in pictures if picture.path not in gone]
    if not kept:
        return None

    def fill(places: Sequence[int], packing: Packing) -> Work[None]:
        wanted = [kept[place] for place in places[packing.num_done :]]
        loaded = load_pictures(
            folder, wanted, lambda pixels: prepare(pixels, saved.preprocess),
            at_least_px=decode_px(saved.preprocess), workers=num_cores(),
        )  # fmt: skip
        for batch in _filled(loaded):
            packing.append(engine.run(batch[0])[: batch[1]])
            yield from packing.told("features")

    pack = yield from stocked(cache, ware, names_of(kept), fill)
    return Album(folder, tuple(kept), _directions(pack.read_all()))


def _filled(loaded: Any) -> Generator[tuple[NDArray[np.uint8], int], None, None]:
    """Batches of one size, the last one filled up, with how many of it count: another size may change the last bits."""
    for batch in in_batches(loaded, _BATCH):
        filler = np.repeat(batch[-1:], _BATCH - len(batch), axis=0)
        yield np.concatenate([batch, filler]), len(batch)


def _num_features(saved: SavedModel) -> int:
    from foldertune.models.catalog import model_facts

    return model_facts(saved.model).feature_size


def _identity(saved: SavedModel) -> dict[str, Any]:
    from foldertune.models.hub import sha256_of

    return {
        "graph": GRAPH, "weights": f"{saved.model} {sha256_of(saved.run.model)}", "precision": "float32",
        "engine": ["openvino", version_of("openvino")], "preprocess": saved.preprocess.to_dict(),
    }  # fmt: skip


def _directions(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, D), each row divided by its length."""
    directions: NDArray[np.float32] = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    return directions
