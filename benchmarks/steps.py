"""How many optimizer steps a second, of the whole network and of upper stages from cached activations, against plain torch loops?

ResNet-50 at 224 px, equal batch size; as planned at 192 px, as `foldertune train` learns on a processor. Batches are in memory,
activations are read from the file that holds them; one step of warm-up in each process.

usage: python benchmarks/steps.py [--batch 16] [--steps 8] [--times 5]
"""

from __future__ import annotations

import sys

from contest import Contestant, hold, our_variables, peer
from environments import PEERS, peer_variables
from predict import TORCH
from tables import IN_TURN, Scale, load_now, parser_of, publish, render, rows_of
from tables import page as page_of

PLAIN = "plain loop, NCHW, float32"
OURS = {
    "foldertune, all layers": ("all", 1, "batch statistics, as theirs"),
    "foldertune, as planned": (
        "as-planned",
        1,
        "at 192 px, frozen batch norms; the stem and the first stage do not learn",
    ),
    "foldertune, last stage from cached activations": (
        "upper",
        4,
        "frozen batch norms; activations read from their file",
    ),
}


def main() -> None:
    from importlib.metadata import version

    from foldertune.machine import cpu_has_bf16

    parser = parser_of(__doc__, "steps")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=8, help="of each process, after the first")
    given = parser.parse_args()
    load, variables = load_now(), peer_variables(given.threads)
    precision = "bf16, channels-last" if cpu_has_bf16() else "float32, channels-last"
    contestants = []
    for name, (mode, more, remark) in OURS.items():
        command = [
            sys.executable,
            str(PEERS.parent / "ours" / "our_steps.py"),
            mode,
            str(given.batch),
            str(more * given.steps),
        ]
        told = "; ".join(filter(None, [precision, remark]))
        contestants.append(Contestant(name, command, f"torch {version('torch')}", told, our_variables(variables)))
    arguments = [str(given.batch), str(given.steps), str(given.threads)]
    for name, flags in ((PLAIN, []), ("plain loop, channels-last, bf16", ["--tuned"])):
        contestants.append(
            peer(name, "steps_torchvision.py", [*arguments, *flags], within="torchvision", packages=TORCH)
        )
    hold(contestants, times=given.times, variables=variables)
    rows = rows_of(contestants, "steps_per_s")
    scale = Scale("steps/s", 2, rate=True)
    sections = [
        f"Batches of {given.batch}, {given.threads} threads, {given.steps} steps in each process after one of warm-up. {IN_TURN}"
    ]
    sections += [f"## Against {name}\n\n{render(rows, scale, ours=name)}" for name in list(OURS)[::2]]
    publish("steps", page_of("Training steps", sections, arguments=sys.argv, load=load), write=not given.no_page)


if __name__ == "__main__":
    main()
