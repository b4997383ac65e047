"""What the frozen network says of each picture, computed once: feature vectors for the head, activations for the upper stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foldertune.data.augment import AUGMENTING, Strength
from foldertune.data.loader import CanvasSource
from foldertune.data.pack import Pack, Packing, pack_key
from foldertune.data.stock import Make, Ware, names_of, numbers_of, one_after_another, stocked
from foldertune.engines import Engine
from foldertune.engines.form import GRAPH
from foldertune.machine import version_of
from foldertune.preprocess import Preprocess
from foldertune.records import Picture, Work

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    Pixels = Callable[[NDArray[np.int64]], NDArray[np.uint8]]  # places -> (B, S, S, 3)

_BATCH = 16  # pictures at once: more gains nothing on a processor and costs memory


@dataclass(frozen=True, slots=True)
class Seen:
    """How augmented views are drawn. canvas: (width, height) of what they are cut from."""

    strength: Strength
    seed: int
    canvas: tuple[int, int]


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
            "graph": GRAPH, "weights": weights_id, "precision": precision, "engine": [engine.name, version_of(engine.name)],
            "preprocess": preprocess.to_dict(),
        }  # fmt: skip

    def key(self, pictures: Sequence[Picture], *, kind: str, **depends_on: Any) -> str:
        """The name of what this network says of all these pictures together."""
        return pack_key(names_of(pictures), kind=kind, **depends_on, **self._identity)

    def features(self, pictures: Sequence[Picture], packed: Pack) -> Work[NDArray[np.float32]]:
        """(N, D) float32 of prepared pictures: the engine's first output."""
        made = yield from self._prepared("features", pictures, packed, np.float32)
        return made.read_all()

    def activations(self, pictures: Sequence[Picture], packed: Pack) -> Work[Pack]:
        """Activations of prepared pictures as they are: N records of (C, h, w) float16."""
        return (yield from self._prepared("activations", pictures, packed, np.float16))

    def views(
        self, pictures: Sequence[Picture], canvases: Callable[[], Work[CanvasSource]], *, seen: Seen, num_views: int
    ) -> Work[Pack]:
        """Activations of augmented views, view after view: V * N records of (C, h, w) float16, the engine's first output.

        canvases: what the views are cut from, asked for only where the cache lacks some. float16 halves the space; its rounding is
        far below what augmentation does.
        """
        changes = {"augmentation": [AUGMENTING, asdict(seen.strength)], "seed": seen.seed, "canvas": list(seen.canvas)}
        names = [f"{name} {number}" for name, number in zip(names_of(pictures), numbers_of(pictures), strict=True)]
        source: CanvasSource | None = None

        def of_view(view: int) -> Make:
            def pixels(places: NDArray[np.int64]) -> NDArray[np.uint8]:
                assert source is not None
                changed = source.pictures(places, view + 1).permute(0, 2, 3, 1)
                return changed.mul(255).round().byte().cpu().numpy()

            def make(places: Sequence[int], packing: Packing) -> Work[None]:
                nonlocal source
                source = source or (yield from canvases())
                yield from self._answer(pixels, places, packing, stage="activations")

            return make

        packs = []
        for view in range(num_views):
            ware = self._ware("views", np.float16, view=view, **changes)
            packs.append((yield from stocked(self.cache, ware, names, of_view(view))))
        return one_after_another(packs)

    def _prepared(self, kind: str, pictures: Sequence[Picture], packed: Pack, dtype: DTypeLike) -> Work[Pack]:
        def make(places: Sequence[int], packing: Packing) -> Work[None]:
            yield from self._answer(packed.read, places, packing, stage=kind)

        return (yield from stocked(self.cache, self._ware(kind, dtype), names_of(pictures), make))

    def _ware(self, kind: str, dtype: DTypeLike, **depends_on: Any) -> Ware:
        return Ware(kind, self._shape, dtype, {**depends_on, **self._identity})

    def _answer(self, pixels: Pixels, places: Sequence[int], packing: Packing, *, stage: str) -> Work[None]:
        """Add the engine's first output for the pictures at these places."""
        while packing.num_done < len(places):
            done = packing.num_done % _BATCH
            first = packing.num_done - done
            batch = list(places[first : first + _BATCH])
            # Always batches of one size, the last one filled up: another size may change the last bits, and a picture's
            # features should not tell with which others, or after what interruption, they were computed.
            filled = np.array(batch + batch[-1:] * (_BATCH - len(batch)))
            packing.append(self._engine.run(pixels(filled))[done : len(batch)])
            yield from packing.told(stage)
