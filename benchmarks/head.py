"""How long does the head take on 3,000 features, its regularisation chosen, against scikit-learn? Seconds inside of the process.

Both choose among the same eleven strengths by log loss out of fold. scikit-learn tries each on five folds; ours tries those that can
be the best, from 1,000 rows on with two folds, and the chosen one on all five. The rows are features of as many distinct
pictures, evenly from all folders, every one's classes beside the others'.

usage: python benchmarks/head.py FOLDER ... --weights FILE.safetensors [--rows 3000] [--times 5]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from contest import Contestant, hold, our_variables, peer
from environments import PEERS, peer_variables
from picture_sets import copy_set, pictures_below
from predict import our_versions
from tables import IN_TURN, Scale, load_now, parser_of, publish, render, rows_of
from tables import page as page_of

OURS = "foldertune"


def main() -> None:
    parser = parser_of(__doc__, "head")
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=3000)
    given = parser.parse_args()
    given.weights, load = given.weights.absolute(), load_now()
    with tempfile.TemporaryDirectory() as scratch:
        table = compare(given, Path(scratch))
    text = page_of("The head", [f"{given.threads} threads. {IN_TURN}", table], arguments=sys.argv, load=load)
    publish("head", text, write=not given.no_page)


def compare(given: argparse.Namespace, place: Path) -> str:
    """The table of the fits on features of distinct pictures."""
    from foldertune.training.head import STRENGTHS

    sources = [path for folder in given.folders for path in pictures_below(folder)]
    chosen = copy_set(place / "row-pictures", sources, min(given.rows, len(sources)))
    script = str(PEERS.parent / "ours" / "our_features.py")
    command = [sys.executable, script, str(chosen), str(given.weights), str(place / "made.npz")]
    subprocess.run(command, check=True, env=our_variables(peer_variables(given.threads)), stdout=subprocess.DEVNULL)
    with np.load(place / "made.npz") as data:
        features, names = data["features"], data["labels"]
    labels = np.unique(names, return_inverse=True)[1]
    np.savez(place / "rows.npz", features=features, labels=labels)
    variables = peer_variables(given.threads)
    ours = Contestant(OURS, [sys.executable, str(PEERS.parent / "ours" / "our_head.py"), str(place / "rows.npz")])
    ours.variables, ours.versions = our_variables(variables), our_versions()
    arguments = [place / "rows.npz", str(given.threads), *map(str, STRENGTHS)]
    packages = ("scikit-learn", "numpy", "scipy")
    theirs = peer("LogisticRegressionCV", "head_scikit_learn.py", arguments, within="scikit-learn", packages=packages)
    # It fits the folds in as many processes as there are threads, which would else take all threads each.
    theirs.variables = {name: "1" for name in variables if name.endswith("_NUM_THREADS")}
    hold([ours, theirs], times=given.times, variables=variables)
    for each in (ours, theirs):
        if each.runs:
            told = each.runs[-1].told
            each.remark = f"chose C = {told['strength']:.3g}, log loss out of fold {told['log_loss']:.4f}"
    size = f"{len(features):,} rows of {features.shape[1]:,} values, {labels.max() + 1} classes.\n\n"
    return size + render(rows_of([ours, theirs], "seconds"), Scale("s", 2), ours=OURS)


if __name__ == "__main__":
    main()
