"""Frozen features of a folder's pictures with their labels and splits, as `foldertune train` has them before anything is fine-tuned."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foldertune import journey
from foldertune.bench import open_bench
from foldertune.cache import cache_folder
from foldertune.examination import look
from foldertune.forecast import situation_of
from foldertune.machine import find_machine, keep_freed_memory
from foldertune.planning import decide
from foldertune.records import SPLITS, Dataset, Picture, Split, finish
from foldertune.settings import Wish, check_settings
from foldertune.training.baseline import Material, prepare_material


@dataclass(frozen=True, slots=True)
class Frozen:
    """features (N, D) and labels (N,) by split, in the order of the material's pictures."""

    dataset: Dataset
    material: Material
    features: dict[Split, NDArray[np.float32]]

    @property
    def labels(self) -> dict[Split, NDArray[np.int64]]:
        return dict(self.material.labels)

    @property
    def pictures(self) -> dict[Split, tuple[Picture, ...]]:
        return dict(self.material.pictures)


def frozen_features(folder: Path, weights_file: Path, *, seed: int = 1) -> Frozen:
    """Decoded and computed once for each cache; a second call reads them there."""
    keep_freed_memory()
    settings = check_settings({"weights": str(weights_file.absolute()), "seed": seed})
    wish = Wish(folder.absolute(), settings, {})
    weights, machine = finish(journey.find_weights(wish)), find_machine("auto")
    dataset = finish(look(wish)).dataset
    plan = decide(situation_of(dataset, machine, weights.preprocess), settings)
    bench = open_bench(plan.values(), weights, dataset, machine)
    cache = cache_folder()
    material = finish(prepare_material(dataset, bench.preprocess, cache=cache, workers=plan["workers"]))
    extraction = bench.extraction(cache)
    features = {split: finish(extraction.features(material.pictures[split], material.packs[split])) for split in SPLITS}
    return Frozen(dataset, material, features)
