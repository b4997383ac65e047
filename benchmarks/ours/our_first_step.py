"""`foldertune train` up to its first optimizer step, where the process ends.

usage: python our_first_step.py FOLDER WEIGHTS.safetensors CACHE [--fresh] [SETTING=VALUE ...]        --fresh: with an empty cache
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path


def main() -> None:
    folder, weights, cache, *rest = sys.argv[1:]
    if "--fresh" in rest:
        shutil.rmtree(cache, ignore_errors=True)
    os.environ["FOLDERTUNE_CACHE"] = cache
    from foldertune.api import going, start
    from foldertune.records import Progress

    pairs = [word.split("=", 1) for word in rest if "=" in word]
    with tempfile.TemporaryDirectory() as scratch:
        run = start(
            folder, run=Path(scratch) / "run", weights=weights, **{name: json.loads(text) for name, text in pairs}
        )
        for told in going(run):
            if isinstance(told, Progress) and told.stage == "train":
                break
        shutil.rmtree(scratch)
        os._exit(0)  # what stands after the first step is not measured


if __name__ == "__main__":
    main()
