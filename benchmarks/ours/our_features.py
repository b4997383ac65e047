"""Frozen features of every picture below a folder, as `foldertune train` makes them: scan, decode once, the fastest engine.

usage: python our_features.py FOLDER WEIGHTS.safetensors OUTPUT.npz
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np


def main() -> None:
    folder, weights_file, output = map(Path, sys.argv[1:])
    from foldertune import journey
    from foldertune.bench import open_bench
    from foldertune.data.pictures import pack_pictures
    from foldertune.engines import fitting_engine
    from foldertune.examination import look
    from foldertune.forecast import situation_of
    from foldertune.machine import find_machine, keep_freed_memory
    from foldertune.planning import decide
    from foldertune.records import finish
    from foldertune.settings import Wish, check_settings

    keep_freed_memory()
    settings = check_settings({"weights": str(weights_file), "seed": 1})
    wish = Wish(folder, settings, {})
    with tempfile.TemporaryDirectory() as scratch:  # a cache in which nothing is found
        os.environ["FOLDERTUNE_CACHE"] = scratch
        weights, machine = finish(journey.find_weights(wish)), find_machine("auto")
        dataset = finish(look(wish)).dataset
        plan = decide(situation_of(dataset, machine, weights.preprocess), settings)
        bench = open_bench(plan.values(), weights, dataset, machine)
        pictures, cache = dataset.readable, Path(scratch)
        packed = finish(pack_pictures(dataset.folder, pictures, bench.preprocess, cache=cache, workers=plan["workers"]))
        features = finish(bench.extraction(cache).features(pictures, packed))
    np.savez(
        output,
        features=features,
        names=[Path(picture.path).name for picture in pictures],
        labels=[p.label for p in pictures],
    )
    print(json.dumps({"engine": fitting_engine(machine.device, plan["precision"]), "precision": plan["precision"]}))


if __name__ == "__main__":
    main()
