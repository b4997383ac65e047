"""The head of Foldertune on features that are there: its strength chosen out of fold, then fitted on all; seconds in the process.

usage: python our_head.py FEATURES.npz
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np

from foldertune.training.head import fit_head


def main() -> None:
    with np.load(sys.argv[1]) as data:
        features, labels = data["features"], data["labels"]
    num_classes = int(labels.max()) + 1
    fit_head(features[:200], labels[:200], num_classes=num_classes, seed=1)  # what is loaded at the first use
    began = time.perf_counter()
    head = fit_head(features, labels, num_classes=num_classes, seed=1)
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": round(seconds, 3), "strength": head.strength, "log_loss": round(head.log_loss, 4)}))


if __name__ == "__main__":
    main()
