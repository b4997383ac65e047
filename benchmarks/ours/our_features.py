"""Frozen features of every picture below a folder, as `foldertune train` makes them: scan, decode once, the fastest engine.

usage: python our_features.py FOLDER WEIGHTS.safetensors OUTPUT.npz
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np


def main() -> None:
    folder, weights_file, output = map(Path, sys.argv[1:])
    from foldertune import journey
    from foldertune.data.pictures import pack_pictures
    from foldertune.forecast import situation_of
    from foldertune.machine import find_machine, keep_freed_memory
    from foldertune.planning import decide
    from foldertune.records import finish
    from foldertune.settings import check_settings
    from foldertune.training.features import Extraction

    keep_freed_memory()
    settings = check_settings({"weights": str(weights_file), "seed": 1})
    wish = journey.Wish(folder, settings, {})
    weights, machine = finish(journey.find_weights(wish)), find_machine("auto")
    dataset, _ = finish(journey.look(wish))
    plan = decide(situation_of(dataset, machine, weights.preprocess), settings)
    bench = journey.open_bench(plan.values(), weights, dataset, machine)
    assert bench.engine is not None
    pictures = dataset.readable
    with tempfile.TemporaryDirectory() as scratch:  # a cache in which nothing is found
        cache = Path(scratch)
        packed = finish(pack_pictures(dataset.folder, pictures, bench.preprocess, cache=cache, workers=plan["workers"]))
        extraction = Extraction(
            bench.engine, bench.preprocess, weights_id=bench.weights_id, precision=plan["precision"], cache=cache
        )
        features = finish(extraction.features(pictures, packed))
    np.savez(
        output,
        features=features,
        names=[Path(picture.path).name for picture in pictures],
        labels=[p.label for p in pictures],
    )
    print(json.dumps({"engine": bench.engine.name, "precision": plan["precision"]}))


if __name__ == "__main__":
    main()
