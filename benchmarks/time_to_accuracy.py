"""How soon is the test accuracy reached that the peers end with, and how good is the model that is kept?

Ours: `foldertune train` in a fresh process with an empty cache, once for each seed. Each peer runs once for each set of
pictures; its accuracies are stored, and a second start goes on with what is missing. What is not known here goes to
`foldertune train`. Without peers (--peers none) it tells how good ours is and what it takes.

usage: python benchmarks/time_to_accuracy.py FOLDER --weights FILE.safetensors [--seeds 1 2 3] [--peers none] [--plain-rate 1e-4] [FLAGS]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from contest import Contestant, our_variables, peer, run_measured, say, started_bare
from environments import PEERS, PeerError, peer_variables, place, reason_of
from machine_facts import describe, spread
from picture_sets import pictures_below
from predict import TORCH
from store import Store
from tables import cell, load_now, parser_of, publish
from tables import page as page_of

PEERS_NAMED = ["fastai", "transformers", "transformers-at-plain-rate", "torchvision"]
_LONGEST_S = 7200.0  # of one of our runs
Epochs = list[dict[str, Any]]  # of a peer: epoch, test_accuracy, seconds since its process was started


def main() -> None:
    parser = parser_of(__doc__, "time-to-accuracy-FOLDER", rounds=False)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--peers", nargs="+", choices=[*PEERS_NAMED, "none"], default=PEERS_NAMED)
    parser.add_argument(
        "--plain-rate",
        type=float,
        default=1e-4,
        help="of the torchvision script, and of the Hugging Face Trainer beside its default",
    )
    parser.add_argument("--peer-epochs", type=int, help="other than 5, 5 and 8: for trying the benchmark itself out")
    given, further = parser.parse_known_args()
    given.folder, given.weights, load = given.folder.absolute(), given.weights.absolute(), load_now()
    ours = []
    for seed in given.seeds:
        ours.append(ours_once(given, seed, further))
        say(f"seed {seed}: {json.dumps(ours[-1])}")
    rows = [peer_row(name, found, ours) for name, found in peers_once(given)]
    num_test = len(pictures_below(given.folder / "test")) if (given.folder / "test").is_dir() else 0
    sections = [
        f"{given.folder.name}: {num_test} test pictures, {given.threads} threads. Whole processes from their start; peers once.",
        our_table(given.seeds, ours),
        "| peer | test accuracy by epoch | ends with | after, s | ours reaches that after, s | share of its time | versions |\n"
        "|---|---|---|---|---|---|---|\n" + "\n".join(rows) if rows else "",
        f"With {num_test} test pictures the 95 % interval of an accuracy of 0.9 is {half_width(0.9, num_test):.3f} to each side."
        if num_test else "",
    ]  # fmt: skip
    text = page_of(f"Time to accuracy: {given.folder.name}", sections, arguments=sys.argv, load=load)
    publish(f"time-to-accuracy-{given.folder.name}", text, write=not given.no_page)


def ours_once(given: argparse.Namespace, seed: int, further: Sequence[str]) -> dict[str, Any]:
    """One run of the command, timed from its start by its own events."""
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        command = [sys.executable, "-m", "foldertune", "train", str(given.folder), "--run", str(run)]
        command += ["--weights", str(given.weights), "--seed", str(seed), *further]
        variables = {**our_variables(peer_variables(given.threads)), "FOLDERTUNE_CACHE": str(Path(scratch) / "cache")}
        began = time.time()
        try:
            measured = run_measured(command, variables, longest_s=_LONGEST_S)
        except PeerError as error:
            raise SystemExit(f"{' '.join(command)} {error}") from error
        events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
        metrics = json.loads((run / "metrics.json").read_text())
        forecast = json.loads((run / "run.json").read_text())["forecast"]
        accuracy = {model: found["test"]["accuracy"]["value"] for model, found in metrics["evaluations"].items()}
        return {
            "baseline_s": round(next(event["time"] for event in events if event["kind"] == "baseline") - began, 1),
            "baseline_accuracy": accuracy["baseline"],
            "tuned_accuracy": accuracy.get("fine-tuned"),
            "kept": metrics["kept"],
            "kept_accuracy": accuracy[metrics["kept"]],
            "total_s": round(measured.seconds, 1),
            "forecast_s": round(60 * forecast["minutes"], 1),
            "memory_mib": round(measured.peak_mib),
            "forecast_memory_mib": round(forecast["memory_mib"]),
        }


def peers_once(given: argparse.Namespace) -> list[tuple[Contestant, Epochs]]:
    """Each peer with its epochs, stored or run now; one that fails has its problem and no epochs."""
    from foldertune.machine import cpu_has_bf16

    precision = "bf16" if cpu_has_bf16() else "float32"
    trainer, five = ("train_transformers.py", ("transformers", *TORCH)), ["--epochs", "5"]
    plain = ["--epochs", "8", "--rate", str(given.plain_rate), "--precision", precision]
    rate = f"{given.plain_rate:g}"
    wanted: dict[str, tuple[str, str, tuple[str, ...], list[str]]] = {
        "fastai": ("fastai fine_tune(5)", "train_fastai.py", ("fastai", *TORCH), five),
        "transformers": ("Hugging Face Trainer, its default rate (5e-5)", *trainer, five),
        "transformers-at-plain-rate": (f"Hugging Face Trainer, {rate}", *trainer, [*five, "--rate", rate]),
        "torchvision": (f"torchvision script, AdamW {rate}, {precision}", "train_torchvision.py", TORCH, plain),
    }
    variables, store = peer_variables(given.threads), Store(place("results"))
    found = []
    for key in given.peers:
        if key == "none":
            continue
        name, script, packages, usual = wanted[key]
        within = key.partition("-")[0]  # whose environment it runs in
        flags = [usual[0], str(given.peer_epochs or usual[1]), *usual[2:]]
        arguments = [given.folder, given.weights, str(given.threads), *flags]
        contestant = peer(name, script, arguments, within=within, packages=packages)
        epochs: Epochs = []
        if not contestant.problem:
            facts = {
                "set": set_identity(given.folder), "weights": sha256_of(given.weights), "peer": name, "script": sha256_of(PEERS / script),
                "flags": flags,
                "versions": contestant.versions, "threads": given.threads, "machine": describe().split(";")[0],
            }  # fmt: skip
            try:
                epochs, stored = store.resume(facts, partial(epochs_of, contestant.command, variables))
                contestant.remark = "stored" if stored else ""
            except PeerError as error:
                contestant.problem = str(error)
        say(f"{name}: {contestant.problem or json.dumps(epochs)} {contestant.remark}")
        found.append((contestant, epochs))
    return found


def epochs_of(command: Sequence[str], variables: Mapping[str, str]) -> Epochs:
    """What a peer prints of each epoch, with the seconds since its start. Raises PeerError where it fails or tells nothing."""
    began, epochs = time.monotonic(), []
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            started_bare(command, variables), env=dict(variables), stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith('{"epoch"'):
                epochs.append({**json.loads(line), "seconds": round(time.monotonic() - began, 1)})
                say(f"  {epochs[-1]}")
        if process.wait():
            errors.seek(0)
            raise PeerError(f"failed with exit code {process.returncode}: {reason_of(errors.read())}")
    if not epochs:
        raise PeerError("it told no accuracy")
    return epochs


def sha256_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def set_identity(folder: Path) -> str:
    """A hash of the names and sizes of the pictures below."""
    listed = [f"{path.relative_to(folder)} {path.stat().st_size}" for path in pictures_below(folder)]
    return hashlib.sha256("\n".join(listed).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def seconds_to(accuracy: float, ours: Mapping[str, Any]) -> float | None:
    """When one of our runs had a model at least as good: its baseline, or what it kept in the end. None where it never had."""
    if ours["baseline_accuracy"] >= accuracy:
        return float(ours["baseline_s"])
    return float(ours["total_s"]) if ours["kept_accuracy"] >= accuracy else None


def peer_row(contestant: Contestant, epochs: Epochs, ours: Sequence[Mapping[str, Any]]) -> str:
    """The row of one peer: its epochs, and how soon ours had the accuracy that it ends with."""
    if not epochs:
        return f"| {contestant.name} | **{cell(contestant.problem)}** | - | - | - | - | {contestant.versions} |"
    last = epochs[-1]
    accuracy, seconds = last["test_accuracy"], last["seconds"]
    reached = [found for each in ours if (found := seconds_to(accuracy, each)) is not None]
    told, share = f"in none of {len(ours)} runs", "-"
    if reached:
        median = statistics.median(reached)
        told = f"{median:.0f} ({min(reached):.0f} to {max(reached):.0f}), in {len(reached)} of {len(ours)} runs"
    if len(reached) == len(ours):
        share = f"{statistics.median(reached) / seconds:.2f}"
    by_epoch = ", ".join(f"{each['test_accuracy']:.3f}" for each in epochs)
    return f"| {contestant.name} | {by_epoch} | {accuracy:.3f} | {seconds:.0f} | {told} | {share} | {contestant.versions} |"


def our_table(seeds: Sequence[int], ours: Sequence[Mapping[str, Any]]) -> str:
    lines = ["| seed | baseline, after | kept | in all | forecast | memory |", "|---|---|---|---|---|---|"]
    for seed, run in zip(seeds, ours, strict=True):
        lines.append(
            f"| {seed} | {run['baseline_accuracy']:.3f} after {run['baseline_s']:.0f} s | {run['kept']}, {run['kept_accuracy']:.3f} "
            f"| {run['total_s']:.0f} s | {run['forecast_s']:.0f} s | {run['memory_mib']:,} MiB |"
        )
    kept = [run["kept_accuracy"] for run in ours]
    lines.append(
        f"\nKept: mean {statistics.mean(kept):.3f}, {spread(kept, 3)}; in all {spread([r['total_s'] for r in ours], 0)} s."
    )
    return "\n".join(lines)


def half_width(accuracy: float, num_pictures: int) -> float:
    """Half of the 95 % interval of an accuracy, by the normal approximation."""
    return 1.96 * float((accuracy * (1 - accuracy) / num_pictures) ** 0.5)


if __name__ == "__main__":
    main()
