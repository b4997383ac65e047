"""How good is the kept model, how soon is the baseline there, how long does it all take; against a plain script in the same run.

For each seed: `foldertune train` in a fresh process with an empty cache, then plain.py in the peer's interpreter (A B A B).

usage: python benchmarks/accuracy.py FOLDER --weights FILE.safetensors [--seeds 1 2 3] [--peer PYTHON --peer-epochs 5 --peer-rate 1e-4]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine_facts import describe, spread


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--peer", help="a Python with torch, torchvision and safetensors")
    parser.add_argument("--peer-epochs", type=int, default=5)
    parser.add_argument("--peer-rate", type=float, default=1e-4)
    given, further = parser.parse_known_args()  # what is not known here goes to `foldertune train`
    print(describe(), flush=True)
    ours, theirs = [], []
    for seed in given.seeds:
        ours.append(ours_once(given, seed, further))
        print(f"seed {seed}: {json.dumps(ours[-1])}", flush=True)
        if given.peer:
            theirs.append(plain_once(given, seed))
            print(f"seed {seed}, plain: {json.dumps(theirs[-1])}", flush=True)
    for name in ("baseline_s", "baseline_accuracy", "kept_accuracy", "total_s", "memory_mib"):
        values = [run[name] for run in ours]
        print(f"{name}: {spread(values, 3 if 'accuracy' in name else 0)}, mean {statistics.mean(values):.3f}")
    if theirs:
        seconds = statistics.median(run["total_s"] for run in ours) / statistics.median(
            run["total_s"] for run in theirs
        )
        print(
            f"plain: accuracy {spread([run['accuracy'] for run in theirs], 3)}, seconds {spread([run['total_s'] for run in theirs], 0)}"
        )
        print(f"seconds, ours over plain: {seconds:.2f}")


def ours_once(given: argparse.Namespace, seed: int, further: list[str]) -> dict[str, Any]:
    """One run of the command, timed from its start by its own events."""
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        command = [sys.executable, "-m", "foldertune", "train", str(given.folder), "--run", str(run)]
        command += ["--weights", str(given.weights), "--seed", str(seed), *further]
        began = time.time()
        process = subprocess.Popen(
            command, env={**os.environ, "FOLDERTUNE_CACHE": str(Path(scratch) / "cache")},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
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
            "total_s": round(time.time() - began, 1),
            "forecast_s": round(60 * forecast["minutes"], 1),
            "memory_mib": round(usage.ru_maxrss / 1024),
            "forecast_memory_mib": round(forecast["memory_mib"]),
        }


def plain_once(given: argparse.Namespace, seed: int) -> dict[str, Any]:
    """One run of the plain script; its last epoch counts."""
    from foldertune.machine import cpu_has_bf16

    command = [given.peer, str(Path(__file__).with_name("plain.py")), str(given.folder), str(given.weights)]
    command += ["--epochs", str(given.peer_epochs), "--rate", str(given.peer_rate), "--seed", str(seed)]
    command += ["--precision", "bf16" if cpu_has_bf16() else "float32"]
    began = time.monotonic()
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    epochs = [json.loads(line) for line in output.splitlines()]
    return {
        "accuracy": epochs[-1]["test_accuracy"],
        "total_s": round(time.monotonic() - began, 1),
        "by_epoch": [round(record["test_accuracy"], 3) for record in epochs],
    }


if __name__ == "__main__":
    main()
