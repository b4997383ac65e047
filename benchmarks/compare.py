"""How often does `compare` call two trainings of one network equal? Wanted: at least 95 of 100.

Each set is split once and one network is trained on it several times, as `foldertune compare --repeats` does. Every two trainings are
then held against each other as if they were of two networks; and every two of them against every other two. Trainings are kept, so that a
run that was cut off goes on.

usage: python benchmarks/compare.py FOLDER ... --weights FILE.safetensors [--model resnet50] [--repeats 8] [--seed 100] [SETTINGS of train]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from environments import place
from tables import load_now, parser_of, publish
from tables import page as page_of

from foldertune.evaluation.metrics import paired_share_difference
from foldertune.evaluation.pairs import TRAINING_SHARE, compare_rights
from foldertune.evaluation.standing import read_answers
from foldertune.run import RunFolder

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A way to compare, and of each pair whether it is called equal and how wide its interval is.
Row = tuple[str, list[tuple[bool, float]]]
HEAD = "| compared | pairs | called equal | median width of the interval, points |\n|---|---|---|---|"


def main() -> None:
    parser = parser_of(__doc__, "compare", rounds=False)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--seed", type=int, default=100, help="of the first training and of the split")
    given, further = parser.parse_known_args()
    settings = settings_of(further)
    load = load_now()
    found = [section(folder, given, settings) for folder in given.folders]
    sections = [text for text, _ in found]
    if len(found) > 1:
        sections.append(f"## All sets\n\n{HEAD}\n" + "\n".join(pool([rows for _, rows in found])))
    text = page_of("Two trainings of one network, compared", sections, arguments=sys.argv, load=load)
    publish("compare", text, write=not given.no_page)


def settings_of(flags: Sequence[str]) -> dict[str, Any]:
    """Flags of `compare` with their values, such as --epochs 4, by the names of Python."""
    names = [flag.removeprefix("--").replace("-", "_") for flag in flags[::2]]
    return {name: int(value) if value.isdigit() else value for name, value in zip(names, flags[1::2], strict=True)}


def pool(sets: Sequence[Sequence[Row]]) -> Iterator[str]:
    """The lines of all sets in one."""
    for rows in zip(*sets, strict=True):
        yield _line(rows[0][0], [pair for _, pairs in rows for pair in pairs])


def section(folder: Path, given: argparse.Namespace, settings: Mapping[str, Any]) -> tuple[str, list[Row]]:
    """All trainings of one set, and every two of them."""
    from foldertune.comparing import comparing
    from foldertune.terminal import show

    told = "-".join(f"{name}-{value}" for name, value in settings.items())
    run = place("compare") / f"{folder.name}-{given.model}-{given.seed}-{given.repeats}-{told}"
    run.parent.mkdir(parents=True, exist_ok=True)
    found = show(
        comparing(
            folder, models=[given.model], weights=given.weights, repeats=given.repeats, run=run,
            seed=given.seed, **settings,
        )
    )  # fmt: skip
    (only,) = found.contestants
    answers = [read_answers(RunFolder(Path(each))) for each in only.runs]
    rights = np.stack([each.right for each in answers])
    kept = ", ".join(f"{kind} {only.kept.count(kind)}" for kind in sorted(set(only.kept)))
    spread = float(np.std(only.accuracies, ddof=1))
    rows = list(table(rights, answers[0].groups))
    chance = variance_ratio(rights)
    told = "\n\n".join(
        [
            f"## {folder.name}",
            f"{rights.shape[1]} test pictures, {len(rights)} trainings; kept: {kept}. Accuracy "
            f"{100 * min(only.accuracies):.1f} to {100 * max(only.accuracies):.1f} %, standard deviation {100 * spread:.2f} points; two of "
            f"them differ in {100 * disagreement(rights):.1f} % of the pictures. Differences of their accuracies have {chance:.1f} "
            "times the variance that they would have if each picture fell by itself.",
            "\n".join([HEAD, *(_line(*row) for row in rows)]),
        ]
    )
    return told, rows


def table(rights: NDArray[np.bool_], groups: NDArray[np.int64]) -> Iterator[Row]:
    """Every pair in each way to compare. rights: (R, N)."""
    numbers = range(len(rights))
    singles = list(combinations(numbers, 2))
    plain = []
    for one, other in singles:
        ups, downs = int((rights[one] & ~rights[other]).sum()), int((rights[other] & ~rights[one]).sum())
        found = paired_share_difference(ups, downs, rights.shape[1])
        plain.append((found.low <= 0 <= found.high, found.high - found.low))
    yield ("two trainings, by the pictures alone (what `compare` does not do)", plain)
    once = [compare_rights(("a", rights[[one]]), ("b", rights[[other]]), groups) for one, other in singles]
    yield (
        f"two trainings, as `compare` does (with {1 + TRAINING_SHARE:g} times the variance of the pictures)",
        [(not pair.shown, pair.difference.high - pair.difference.low) for pair in once],
    )
    twos = [(one, other) for one in singles for other in singles if one < other and not set(one) & set(other)]
    two = [compare_rights(("a", rights[list(one)]), ("b", rights[list(other)]), groups) for one, other in twos]
    yield (
        "two against two others, as with --repeats 2",
        [(not pair.shown, pair.difference.high - pair.difference.low) for pair in two],
    )


def disagreement(rights: NDArray[np.bool_]) -> float:
    """The share of pictures that one of two trainings alone answers right, on average over all pairs."""
    return float(np.mean([(rights[one] ^ rights[other]).mean() for one, other in combinations(range(len(rights)), 2)]))


def variance_ratio(rights: NDArray[np.bool_]) -> float:
    """Variance of the difference of two trainings over that of pictures that flip independently; 0 where none differs. rights: (R, N)."""
    flips = disagreement(rights) / rights.shape[1]
    return 2 * float(rights.mean(1).var(ddof=1)) / flips if flips else 0.0


def _line(name: str, found: list[tuple[bool, float]]) -> str:
    if not found:
        return f"| {name} | 0 | - | - |"
    equal = sum(same for same, _ in found) / len(found)
    return f"| {name} | {len(found)} | {equal:.1%} | {100 * float(np.median([width for _, width in found])):.1f} |"


if __name__ == "__main__":
    main()
