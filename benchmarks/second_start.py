"""How soon does a training take its first step, the first time and when the same folder is trained on again with other settings?

Whole processes, from their start to the first optimizer step. There is no peer: none keeps anything between runs.

usage: python benchmarks/second_start.py FOLDER --weights FILE.safetensors [--times 5]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from contest import Contestant, hold, our_variables
from environments import PEERS, peer_variables
from tables import IN_TURN, Scale, load_now, parser_of, publish, render, rows_of
from tables import page as page_of

FIRST = "the first training"
CASES = {
    FIRST: (["--fresh"], "empty cache"),
    "another learning rate": (["learning_rate=2e-4"], ""),
    "other epochs and augmentation": (["epochs=9", 'augmentation="heavy"'], ""),
    "another batch size": (["batch_size=24"], "its speed is that of a picture in batches of 16"),
}


def main() -> None:
    parser = parser_of(__doc__, "second-start")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    given = parser.parse_args()
    load, variables = load_now(), peer_variables(given.threads)
    with tempfile.TemporaryDirectory() as scratch:
        script, cache = PEERS.parent / "ours" / "our_first_step.py", Path(scratch) / "cache"
        contestants = []
        for name, (words, remark) in CASES.items():
            command = [sys.executable, str(script), str(given.folder), str(given.weights), str(cache), *words]
            contestants.append(Contestant(name, command, "", remark, our_variables(variables)))
        hold(contestants, times=given.times, variables=variables)
    sections = [
        f"{given.folder.name}, {given.threads} threads. {IN_TURN}",
        render(rows_of(contestants), Scale("s", 2), ours=FIRST),
    ]
    publish(
        "second-start", page_of("To the first step", sections, arguments=sys.argv, load=load), write=not given.no_page
    )


if __name__ == "__main__":
    main()
