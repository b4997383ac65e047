"""`torchrun --nproc-per-node 2 -m -- foldertune train ...`, as a user types it: the same run, once, however it is stopped (row T8)."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from trainings import made_pictures

from foldertune import api, cli
from foldertune.errors import SettingsError
from foldertune.training.checkpoint import load_state

pytestmark = pytest.mark.skipif(os.name == "nt", reason="torchrun and signals there are not what is tested here")
# Twelve steps; SGD, because AdamW makes of a rounding near zero a step of full length.
SETTINGS = [
    "--weights", "random", "--model", "resnet18", "--image-size", "32", "--batch-size", "8", "--seed", "5", "--workers", "1",
    "--save-minutes", "0", "--device", "cpu", "--precision", "float32", "--optimizer", "sgd", "--learning-rate", "5e-4",
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 pictures of 32 px in three classes, in `stripes`."""
    folder = tmp_path_factory.mktemp("data")
    for number, (pixels, label) in enumerate(zip(*made_pictures(60), strict=True)):
        path = folder / "stripes" / "abc"[label] / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


def torchrun(place: Path, *words: str | Path, max_restarts: int = 0) -> subprocess.Popen[str]:
    """Two processes of `foldertune WORDS`."""
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", str(max_restarts)]
    command = [sys.executable, "-m", *launcher, "-m", "--", "foldertune", *map(str, words)]
    variables = {**os.environ, "FOLDERTUNE_CACHE": str(place / "cache"), "PYTHONUTF8": "1"}
    caught = subprocess.PIPE
    return subprocess.Popen(command, env=variables, text=True, stdout=caught, stderr=caught)


def train(place: Path, run: Path, *, epochs: int = 2, max_restarts: int = 0) -> subprocess.Popen[str]:
    words = ["--run", str(run), "--epochs", str(epochs), *SETTINGS]
    return torchrun(place, "train", place / "stripes", *words, max_restarts=max_restarts)


def told_by_us(err: str) -> list[str]:
    """The sentences that end processes of ours, without what torchrun says."""
    return [line for line in err.splitlines() if line.startswith("foldertune: ")]


def history_of(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    measured = ("elapsed_s", "pictures_per_s", "waited_share")
    return [{name: value for name, value in line.items() if name not in measured} for line in lines]


@pytest.fixture(scope="module")
def two(place: Path) -> tuple[Path, str, str]:
    """A run of two processes that nobody disturbed; and its stdout and stderr."""
    process = train(place, place / "two")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return place / "two", out, err


def test_train_by_two_processes_is_the_run_of_one(
    two: tuple[Path, str, str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, out, err = two
    monkeypatch.setenv("FOLDERTUNE_CACHE", str(place / "cache"))
    assert cli.run(["train", str(place / "stripes"), "--run", str(place / "one"), "--epochs", "2", *SETTINGS]) == 0
    assert_same(run, place / "one")
    assert {path.name for path in run.iterdir()} == {path.name for path in (place / "one").iterdir()}
    assert list((run / "checkpoints").iterdir()) == []
    assert out.count("Run:") == 1
    assert [len(re.findall(rf"Epoch {number}/2", err)) for number in (1, 2)] == [1, 1]
    kinds = [json.loads(line)["kind"] for line in (run / "events.jsonl").read_text("utf-8").splitlines()]
    assert (kinds.count("started"), kinds.count("finished")) == (1, 1)


def test_train_of_the_head_alone_ends_well_too(place: Path, tmp_path: Path) -> None:
    process = torchrun(place, "train", place / "stripes", "--run", tmp_path / "run", *SETTINGS, "--tune", "head")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out.count("Run:") == 1
    assert not (tmp_path / "run" / "history.jsonl").exists()


def assert_same(run: Path, other: Path) -> None:
    """Up to rounding: sums over two halves are not those over the whole."""
    for line, expected in zip(history_of(run), history_of(other), strict=True):
        assert line == {name: pytest.approx(value, rel=1e-3) for name, value in expected.items()}
    found, wanted = (load_file(each / "model.safetensors") for each in (run, other))
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.allclose(found[name], value, rtol=1e-3, atol=1e-4), name


def test_usage_error_of_all_is_told_once(place: Path, tmp_path: Path) -> None:
    process = train(place, tmp_path / "run", epochs=0)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1  # torchrun's own, whatever went wrong
    assert out == ""
    assert told_by_us(err) == [
        "foldertune: Epochs is 0. The guide's range is 1 to 30; pass --beyond-guide to go outside it."
    ]
    assert re.search(r"exitcode\s*: 2", err)
    assert not (tmp_path / "run").exists()


def test_restarts_without_a_name_for_the_run_are_refused(place: Path) -> None:
    process = torchrun(place, "train", place / "stripes", *SETTINGS, max_restarts=1)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "foldertune: With --max-restarts a run needs a name, by which it is found again: give --run DIR." in err


def test_start_that_torchrun_repeats_goes_on_with_the_run_of_the_same_wish_alone(
    small_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wish: dict[str, Any] = {
        "model": "resnet18", "weights": "random", "image_size": 32, "epochs": 1, "augmentation": "none", "device": "cpu",
    }  # fmt: skip
    pictures, before = small_run.parent / "pictures", (small_run / "run.json").read_bytes()
    with pytest.raises(SettingsError, match="exists and is not empty"):
        api.start(pictures, run=small_run, **wish)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert api.start(pictures, run=small_run, **wish).path == small_run
    with pytest.raises(SettingsError, match="exists and is not empty"):
        api.start(pictures, run=small_run, **{**wish, "epochs": 2})
    assert (small_run / "run.json").read_bytes() == before


def test_signal_to_torchrun_stops_all_with_the_state_saved_and_one_process_goes_on(
    two: tuple[Path, str, str], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    process = train(place, run)
    wait_for_step(process, run, 7)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    (sentence,) = told_by_us(err)
    assert sentence.startswith("foldertune: Interrupted at step ")
    state, refused = load_state(run / "checkpoints")
    assert state is not None
    assert f"at step {state.step}, epoch" in sentence
    assert refused == []
    monkeypatch.setenv("FOLDERTUNE_CACHE", str(place / "cache"))
    assert cli.run(["train", "--resume", str(run)]) == 0
    assert_same(run, two[0])


# ------------------------------------------------------------------------------------------------------------------- T8


def workers(process: subprocess.Popen[str]) -> Iterator[tuple[int, psutil.Process]]:
    """The processes that torchrun has started, with their ranks."""
    for child in psutil.Process(process.pid).children():
        try:
            yield int(child.environ()["RANK"]), child
        except (psutil.Error, KeyError):
            continue


def last_step(run: Path) -> int:
    markers = sorted((run / "checkpoints").glob("save-*.json"))
    try:
        return int(json.loads(markers[-1].read_text("utf-8"))["step"]) if markers else -1
    except (OSError, ValueError):
        return -1


def wait_for_step(process: subprocess.Popen[str], run: Path, step: int) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and process.poll() is None:
        if last_step(run) >= step:
            return
        time.sleep(0.01)
    raise AssertionError(f"step {step} was never saved: {process.communicate()[1]}")


def test_t8_a_process_is_killed_twice_and_torchrun_ends_with_the_same_bits(
    two: tuple[Path, str, str], place: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert_survives(train(place, run, max_restarts=2), run, 2, random.Random(3))
    assert_same_bits(run, two[0])


@pytest.mark.slow
def test_t8_a_process_is_killed_twenty_times_and_a_resumed_run_ends_with_the_same_bits(
    place: Path, tmp_path: Path
) -> None:
    run, straight, epochs = tmp_path / "run", tmp_path / "straight", 20
    process = train(place, straight, epochs=epochs)
    _, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    process = train(place, run, epochs=epochs)
    wait_for_step(process, run, 0)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert_survives(torchrun(place, "train", "--resume", run, max_restarts=20), run, 20, random.Random(20))
    assert_same_bits(run, straight)


def assert_survives(process: subprocess.Popen[str], run: Path, num_kills: int, choice: random.Random) -> None:
    """Kill one of the processes, at random, again and again, each time after some steps; torchrun must end well."""
    for _ in range(num_kills):
        wait_for_step(
            process, run, last_step(run) + choice.randint(2, 3)
        )  # so far those that were started again have come
        rank = choice.randrange(2)
        killed = next(child for number, child in workers(process) if number == rank)
        time.sleep(choice.uniform(0, 0.2))  # anywhere in a step
        killed.kill()
        killed.wait(30)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert out.count("Run:") == 1
    kinds = [json.loads(line)["kind"] for line in (run / "events.jsonl").read_text("utf-8").splitlines()]
    assert kinds.count("resumed") >= num_kills
    assert json.loads((run / "run.json").read_text("utf-8"))["state"] == "finished"


def assert_same_bits(run: Path, straight: Path) -> None:
    assert history_of(run) == history_of(straight)
    assert (run / "model.safetensors").read_bytes() == (straight / "model.safetensors").read_bytes()
    assert metrics_of(run) == metrics_of(straight)


def metrics_of(run: Path) -> Any:
    return json.loads((run / "metrics.json").read_text("utf-8"))["evaluations"]
