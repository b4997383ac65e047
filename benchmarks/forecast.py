"""Does the accuracy of a run lie in the range that `foldertune plan` forecasts? Runs on random subsets of sets of pictures.

Each seed draws one subset, of the folders in turn: some of the classes (three and more), 200 to 500 pictures evenly of them; all splits of
a folder are one pool, and the word `digits` stands for scikit-learn's handwritten digits. The subset is planned and then trained as a user
would, with what is not known here passed on to both. Results are stored one by one: a second start goes on with what is missing.

usage: python benchmarks/forecast.py FOLDER ... --weights FILE.safetensors --seeds 11 12 13 14 15 16 17 18 19 20 [FLAGS]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from contest import our_variables, say
from environments import peer_variables, place
from machine_facts import describe
from picture_sets import pictures_below
from store import Store
from tables import load_now, page, parser_of, publish
from time_to_accuracy import sha256_of

from foldertune import outlook
from foldertune.digits import write_digits
from foldertune.evaluation.metrics import wilson_interval

CHOSEN_ON = (101,)  # the seed of a run by which outlook's shares were chosen (docs/log.md)
FEWEST_CLASSES, FEWEST_OF_EACH, SIZES = 3, 12, (200, 500)
DIGITS = "digits"
WANTED = 0.8
_LONGEST_S = 3600.0

ByClass = Mapping[str, Sequence[Path]]


def main() -> None:
    parser = parser_of(__doc__, "forecast", rounds=False)
    parser.add_argument("folders", nargs="+", help=f"folders with one subfolder per class, or {DIGITS}")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", required=True, help="one run each")
    given, further = parser.parse_known_args()
    if known := sorted(set(given.seeds) & set(CHOSEN_ON)):
        parser.error(f"by seeds {known} the forecast was chosen; give others")
    given.weights, load = given.weights.absolute(), load_now()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for folder, seed in zip(cycle(given.folders), given.seeds, strict=False):
            rows.append(run_of(folder, seed, given, further, Path(scratch)))
            say(f"{rows[-1]['set']}, seed {seed}: {json.dumps(rows[-1])}")
    sections = [__doc__.split("\n\nusage")[0], verdict_of(rows), table_of(rows)]
    text = page("The forecast of accuracy", sections, arguments=sys.argv, load=load)
    publish("forecast", text, write=not given.no_page)


def run_of(folder: str, seed: int, given: argparse.Namespace, further: Sequence[str], scratch: Path) -> dict[str, Any]:
    """What was forecast for one subset and what came of it, stored or run now."""
    pool = pool_of(folder, scratch)
    facts = {
        "set": {name: [len(paths), sum(path.stat().st_size for path in paths)] for name, paths in pool.items()},
        "seed": seed, "weights": sha256_of(given.weights), "flags": list(further), "threads": given.threads,
        "machine": describe(), "shares": [repr(each) for each in (outlook.HEAD, outlook.NEAR, outlook.FAR, outlook.UNKNOWN)],
    }  # fmt: skip
    chosen = drawn(pool, seed)

    def work() -> dict[str, Any]:
        return trained(chosen, seed, given, further)

    found, stored = Store(place("results")).resume(facts, work)
    return {"set": Path(folder).name, "seed": seed, **found, "stored": stored}


def pool_of(folder: str, scratch: Path) -> dict[str, list[Path]]:
    """All pictures of a folder by class, whatever split they lie in."""
    top = Path(folder)
    if folder == DIGITS:
        top = scratch / DIGITS
        if not top.exists():
            list(write_digits(top))
    pool: dict[str, list[Path]] = {}
    for path in pictures_below(top):
        pool.setdefault(path.parent.name, []).append(path)
    return pool


def drawn(pool: ByClass, seed: int) -> dict[str, list[Path]]:
    """Some classes, and evenly of them some pictures: the seed's own."""
    random = np.random.Generator(np.random.Philox(seed))
    num_classes = int(random.integers(min(FEWEST_CLASSES, len(pool)), len(pool) + 1))
    each = max(FEWEST_OF_EACH, int(random.integers(SIZES[0], SIZES[1] + 1)) // num_classes)
    chosen = sorted(random.permutation(sorted(pool))[:num_classes].tolist())
    return {
        name: [pool[name][number] for number in sorted(random.permutation(len(pool[name]))[:each].tolist())]
        for name in chosen
    }


def trained(chosen: ByClass, seed: int, given: argparse.Namespace, further: Sequence[str]) -> dict[str, Any]:
    """`plan` and then `train` in processes of their own, with a cache of their own."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, run = Path(scratch) / "pictures", Path(scratch) / "run"
        for name, paths in chosen.items():
            (folder / name).mkdir(parents=True)
            for path in paths:  # of which split it was: names may come again
                shutil.copyfile(path, folder / name / f"{path.parent.parent.name}-{path.name}")
        variables = {**our_variables(peer_variables(given.threads)), "FOLDERTUNE_CACHE": str(Path(scratch) / "cache")}
        flags = [str(folder), "--weights", str(given.weights), "--seed", str(seed), *further]
        began = time.monotonic()
        forecast = said_by(["plan", *flags], variables)["forecast"]
        planned_s = time.monotonic() - began
        said_by(["train", *flags, "--run", str(run)], variables)
        metrics, facts = (json.loads((run / name).read_text("utf-8")) for name in ("metrics.json", "run.json"))
        plan = {row["setting"]: row["value"] for row in json.loads((run / "plan.json").read_text("utf-8"))}
        return {
            "num_classes": len(chosen),
            "num_pictures": sum(map(len, chosen.values())),
            "tune": plan["tune"],
            "accuracy": forecast["accuracy"],
            "told_again": facts["forecast"]["accuracy"] == forecast["accuracy"],
            "baseline": metrics["evaluations"]["baseline"]["test"]["accuracy"]["value"],
            "kept": metrics["kept"],
            "reached": metrics["evaluations"][metrics["kept"]]["test"]["accuracy"]["value"],
            "plan_s": round(planned_s, 1),
            "train_s": round(60 * facts["minutes"], 1),
            "forecast_s": round(60 * forecast["minutes"], 1),
        }


def said_by(arguments: Sequence[str], variables: Mapping[str, str]) -> Any:
    """The document that one of our commands prints. Raises SystemExit with its words where it fails."""
    command = [sys.executable, "-m", "foldertune", *arguments, "--json"]
    done = subprocess.run(command, env=dict(variables), capture_output=True, text=True, timeout=_LONGEST_S, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed with exit code {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def is_inside(row: Mapping[str, Any]) -> bool:
    """Whether what was reached lies in the range; shares of the same pictures, so equal ends count."""
    found = row["accuracy"]
    return bool(found["low"] - 1e-9 <= row["reached"] <= found["high"] + 1e-9)


def verdict_of(rows: Sequence[Mapping[str, Any]]) -> str:
    inside = sum(map(is_inside, rows))
    found = wilson_interval(inside, len(rows))
    width = float(np.mean([row["accuracy"]["high"] - row["accuracy"]["low"] for row in rows]))
    again = sum(row["told_again"] for row in rows)
    return (
        f"The range holds what was reached in {inside} of {len(rows)} runs ({found.value:.0%}, 95 % interval {found.low:.0%} to "
        f"{found.high:.0%}); wanted in at least {WANTED:.0%} of ten. It is {width:.3f} wide in the mean. `train` told the range of `plan` "
        f"again in {again}. Times: `plan` with an empty cache, then `train`, and what `plan` forecast for it."
    )


def table_of(rows: Sequence[Mapping[str, Any]]) -> str:
    heads = (
        "set", "seed", "classes", "pictures", "tested", "out of fold", "range", "expected", "baseline", "reached", "inside",
        "layers", "plan", "train", "forecast",
    )  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        found = row["accuracy"]
        lines.append(
            f"| {row['set']} | {row['seed']} | {row['num_classes']} | {row['num_pictures']} | {found['num_test']} "
            f"| {found['head_accuracy']:.3f} | {found['low']:.3f} to {found['high']:.3f} | {found['value']:.3f} | {row['baseline']:.3f} "
            f"| {row['kept']}, {row['reached']:.3f} | {'yes' if is_inside(row) else '**no**'} | {row['tune']} "
            f"| {row['plan_s']:.0f} s | {row['train_s']:.0f} s | {row['forecast_s']:.0f} s |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
