"""What the frozen network says of each picture, computed once: feature vectors for the head, activations for the upper stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foldertune.data.augment import AUGMENTING, Strength
from foldertune.data.loader import CanvasSource
from foldertune.data.pack import Pack, Packing, find_pack, pack_key
from foldertune.engines import Engine
from foldertune.machine import version_of
from foldertune.preprocess import Preprocess
from foldertune.records import Picture, Work

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    Pixels = Callable[[NDArray[np.int64], int], NDArray[np.uint8]]  # (places, view) -> (B, S, S, 3)

_BATCH = 16  # pictures at once: more gains nothing on a processor and costs memory


class Extraction:
    """Where the outputs of one frozen network are kept: keyed by pictures, weights and preprocessing."""

    def __init__(
        self,
        engine: Engine,
        preprocess: Preprocess,
        *,
        shape: tuple[int, ...],
        weights_id: str,
        precision: str,
        cache: Path,
    ) -> None:
        """shape: of the engine's first output for one picture."""
        self._engine, self._preprocess, self._shape, self.cache = engine, preprocess, shape, cache
        self._identity = {
            "weights": weights_id, "precision": precision, "engine": [engine.name, version_of(engine.name)],
            "preprocess": preprocess.to_dict(),
        }  # fmt: skip

    def key(self, pictures: Sequence[Picture], *, kind: str, **depends_on: Any) -> str:
        """The name of a pack of what this network says of pictures."""
        return pack_key(pictures, kind=kind, **depends_on, **self._identity)

    def features(self, pictures: Sequence[Picture], packed: Pack) -> Work[NDArray[np.float32]]:
        """(N, D) float32 of prepared pictures: the engine's first output."""
        key = self.key(pictures, kind="features")
        made = yield from self._outputs(
            "features", key, lambda places, _: packed.read(places), len(pictures), np.float32
        )
        return made.read_all()

    def activations(self, pictures: Sequence[Picture], packed: Pack) -> Work[Pack]:
        """Activations of prepared pictures as they are: N records of (C, h, w) float16."""
        key = self.key(pictures, kind="activations")
        return (
            yield from self._outputs(
                "activations", key, lambda places, _: packed.read(places), len(pictures), np.float16
            )
        )

    def views(self, pictures: Sequence[Picture], source: CanvasSource, *, num_views: int, seed: int) -> Work[Pack]:
        """Activations of augmented views, view after view: V * N records of (C, h, w) float16, the engine's first output.

        float16 halves the space; its rounding is far below what augmentation does.
        """
        key = self._views_key(pictures, source.strength, num_views=num_views, seed=seed)

        def pixels(places: NDArray[np.int64], view: int) -> NDArray[np.uint8]:
            changed = source.pictures(places, view + 1).permute(0, 2, 3, 1)
            return changed.mul(255).round().byte().cpu().numpy()

        return (yield from self._outputs("activations", key, pixels, len(pictures), np.float16, num_views=num_views))

    def find_views(self, pictures: Sequence[Picture], strength: Strength, *, num_views: int, seed: int) -> Pack | None:
        """What `views` would give, where the cache has it: nothing need be decoded then."""
        key = self._views_key(pictures, strength, num_views=num_views, seed=seed)
        return find_pack(self.cache, key, self._shape, np.float16, num_views * len(pictures))

    def _views_key(self, pictures: Sequence[Picture], strength: Strength, *, num_views: int, seed: int) -> str:
        rows = [picture.row for picture in pictures]  # augmentation is drawn by them
        changes = [AUGMENTING, asdict(strength)]
        return self.key(pictures, kind="views", views=num_views, augmentation=changes, seed=seed, rows=rows)

    def _outputs(
        self, stage: str, key: str, pixels: Pixels, num_pictures: int, dtype: DTypeLike, *, num_views: int = 1
    ) -> Work[Pack]:
        """The engine's first output of every view of every picture, from the cache where it is there."""
        shape, total = self._shape, num_views * num_pictures
        if found := find_pack(self.cache, key, shape, dtype, total):
            return found
        packing = Packing(self.cache, key, shape, dtype, total)
        while packing.num_done < total:
            view, place = divmod(packing.num_done, num_pictures)
            # Always the same batches, also where a killed process had written a part of one: batches may change the last bits.
            done = place % _BATCH
            places = np.arange(place - done, min(place - done + _BATCH, num_pictures))
            packing.append(self._engine.run(pixels(places, view))[done:])
            yield from packing.told(stage)
        return packing.close()
