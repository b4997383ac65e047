"""How long do frozen features of 1,000 pictures take, and the head on 3,000 of them, against a torchvision loop and scikit-learn?

Features: whole processes, from the folder to the written file, nothing in any cache. The head: seconds of the fit inside of its
process, the regularisation chosen among the same eleven strengths. scikit-learn tries each on five folds; ours tries those that can be
the best, from 1,000 rows on with two folds, and the chosen one on all five. The rows are features of as many distinct
pictures, of FOLDER and of --further folders, every one's classes beside the others'.

usage: python benchmarks/features.py FOLDER --weights FILE [--further FOLDER ...] [--pictures 1000] [--rows 3000] [--times 5]
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
from predict import TORCH, our_versions
from tables import IN_TURN, Scale, load_now, publish, render, rows_of
from tables import page as page_of

OURS = "foldertune"


def main() -> None:
    from foldertune.machine import num_cores

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--further", type=Path, nargs="*", default=[], help="more folders, for rows to fit the head on")
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--threads", type=int, default=num_cores())
    parser.add_argument("--no-page", action="store_true", help="print, and do not write docs/figures/features.md")
    given = parser.parse_args()
    given.weights, load = given.weights.absolute(), load_now()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        pictures = copy_set(place / "pictures", pictures_below(given.folder), given.pictures)
        features = compare_features(given, place, pictures)
        heads = compare_heads(given, place)
    sections = [
        f"{given.threads} threads. {IN_TURN}",
        f"## Frozen features of {given.pictures} pictures, whole processes\n\n{features}",
        f"## The head, its regularisation chosen, inside of the process\n\n{heads}",
    ]
    text = page_of("Frozen features and the head", sections, arguments=sys.argv, load=load)
    publish("features", text, write=not given.no_page)


def compare_features(given: argparse.Namespace, place: Path, pictures: Path) -> str:
    """The table; leaves the features of both in `place`."""
    variables = peer_variables(given.threads)
    script = str(PEERS.parent / "ours" / "our_features.py")
    command = [sys.executable, script, str(pictures), str(given.weights), str(place / "ours.npz")]
    ours = Contestant(OURS, command, our_versions(), variables=our_variables(variables))
    arguments = [pictures, given.weights, place / "theirs.npz", str(given.threads)]
    theirs = peer(
        "torchvision loop, eager float32", "features_torchvision.py", arguments, within="torchvision", packages=TORCH
    )
    hold([ours, theirs], times=given.times, variables=variables)
    if ours.runs:
        ours.remark = " in ".join(ours.runs[-1].told[name] for name in ("engine", "precision"))
    text = render(rows_of([ours, theirs]), Scale("s", 1), ours=OURS)
    if ours.runs and theirs.runs:
        text += f"\nCosine of ours and theirs, the least of all pictures: {least_cosine(place / 'ours.npz', place / 'theirs.npz'):.4f}.\n"
    return text


def least_cosine(ours: Path, theirs: Path) -> float:
    """Of the features of one picture in two files."""
    with np.load(ours) as first, np.load(theirs) as second:
        a, b = first["features"][np.argsort(first["names"])], second["features"][np.argsort(second["names"])]
    return float(((a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))).min())


def compare_heads(given: argparse.Namespace, place: Path) -> str:
    """The table of the fits on features of distinct pictures."""
    from foldertune.training.head import STRENGTHS

    sources = [path for folder in (given.folder, *given.further) for path in pictures_below(folder)]
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
