"""How long do frozen features of 1,000 pictures take, against a torchvision loop? Whole processes, nothing in any cache.

usage: python benchmarks/features.py FOLDER --weights FILE.safetensors [--pictures 1000] [--times 5]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from contest import Contestant, hold, our_variables, peer
from environments import PEERS, peer_variables
from picture_sets import copy_set, pictures_below
from predict import TORCH, our_versions
from tables import IN_TURN, Scale, load_now, parser_of, publish, render, rows_of
from tables import page as page_of

OURS = "foldertune"


def main() -> None:
    parser = parser_of(__doc__, "features")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=1000)
    given = parser.parse_args()
    given.weights, load = given.weights.absolute(), load_now()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        pictures = copy_set(place / "pictures", pictures_below(given.folder), given.pictures)
        features = compare_features(given, place, pictures)
    sections = [
        f"{given.threads} threads. {IN_TURN}",
        f"## Frozen features of {given.pictures} pictures, whole processes\n\n{features}",
    ]
    text = page_of("Frozen features", sections, arguments=sys.argv, load=load)
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


if __name__ == "__main__":
    main()
