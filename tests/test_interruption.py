"""Through the command line: stopped at any stage, by a person, a system or a full disk, a run goes on to the same model."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from trainings import made_pictures

from foldertune import cli, machine, terminal
from foldertune.data import pack
from foldertune.models import weights
from foldertune.records import Event, Progress
from foldertune.training.checkpoint import load_state

SETTINGS = [
    "--weights", "random", "--model", "resnet18", "--image-size", "32", "--batch-size", "8", "--seed", "5", "--workers", "2",
]  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 pictures of 32 px in three classes."""
    folder = tmp_path_factory.mktemp("data") / "stripes"
    for number, (pixels, label) in enumerate(zip(*made_pictures(60), strict=True)):
        path = folder / "abc"[label] / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Decoded pictures and features of this test alone, so that nothing is found that should be made."""
    monkeypatch.setenv("FOLDERTUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def train(folder: Path, run: Path, *more: str) -> int:
    return cli.run(["train", str(folder), "--run", str(run), *SETTINGS, *more])


@pytest.fixture(scope="module")
def straight(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs that nobody stopped."""
    place = tmp_path_factory.mktemp("straight")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOLDERTUNE_CACHE", str(place / "cache"))
        assert train(pictures, place / "run", "--epochs", "2") == 0
    return place / "run"


def state_of(run: Path) -> str:
    return str(json.loads((run / "run.json").read_text(encoding="utf-8"))["state"])


def history_of(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    return [
        {name: value for name, value in line.items() if name not in ("elapsed_s", "pictures_per_s", "waited_share")}
        for line in lines
    ]


def signal_at(stage: str, number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process get a signal when it first tells of this stage."""
    signal_when(lambda told: isinstance(told, Progress) and told.stage == stage, number, monkeypatch)


def signal_when(is_time: Callable[[Any], bool], number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process get a signal when it first tells something that is waited for."""
    real = terminal.show

    def show(work: Any) -> Any:
        def watched() -> Generator[Any, None, Any]:
            sent = False
            try:
                while True:
                    told = next(work)
                    if is_time(told) and not sent:
                        sent = True
                        signal.raise_signal(number)
                    yield told
            except StopIteration as stopped:
                return stopped.value  # work is a generator that returns its result

        return real(watched())

    monkeypatch.setattr(terminal, "show", show)


def test_t9_stopped_at_every_stage_in_turn_the_run_ends_with_the_same_model(
    pictures: Path, straight: Path, own_cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    for stage, number in (
        ("look", signal.SIGINT), ("features", signal.SIGINT), ("train", signal.SIGTERM), ("evaluate", signal.SIGTERM),
    ):  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            signal_at(stage, number, patch)
            began = time.monotonic()
            first = stage == "look"
            code = train(pictures, run, "--epochs", "2") if first else cli.run(["train", "--resume", str(run)])
            assert time.monotonic() - began < 120
        told = capfd.readouterr()
        assert code == 128 + number, told.err
        assert told.out == ""
        assert told.err.splitlines()[-1].startswith("foldertune: Interrupted at ")
        assert f"train --resume {run}" in told.err
        assert "Traceback" not in told.err
        assert state_of(run) == "started"
    assert load_state(run / "checkpoints")[0] is not None
    assert cli.run(["train", "--resume", str(run)]) == 0
    assert state_of(run) == "finished"
    assert (run / "model.safetensors").read_bytes() == (straight / "model.safetensors").read_bytes()
    assert history_of(run) == history_of(straight)
    assert list((run / "checkpoints").iterdir()) == []


def test_t9_stopped_after_the_last_epoch_the_run_ends_with_the_same_model(
    pictures: Path, straight: Path, own_cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """While the statistics of batch norms are measured for the weights that are kept."""
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        signal_when(
            lambda told: isinstance(told, Event) and told.kind == "epoch" and told.facts["epoch"] == 2,
            signal.SIGTERM,
            patch,
        )
        code = train(pictures, run, "--epochs", "2")
    told = capfd.readouterr()
    assert code == 128 + signal.SIGTERM
    assert told.err.splitlines()[-1] == (
        f"foldertune: Interrupted after the last epoch, which is saved. Go on with `foldertune train --resume {run}`."
    )
    assert cli.run(["train", "--resume", str(run)]) == 0
    assert (run / "model.safetensors").read_bytes() == (straight / "model.safetensors").read_bytes()
    assert history_of(run) == history_of(straight)


def test_a_disk_without_room_for_the_run_is_refused_before_anything_is_trained(
    pictures: Path, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "free_disk_mib", lambda _: 120.0)
    assert train(pictures, tmp_path / "run", "--epochs", "1") == 4
    told = capfd.readouterr().err.splitlines()[-1]
    assert re.fullmatch(
        r"foldertune: The run needs about [\d,]+ MiB of disk and 120 MiB are free\. "
        r"Free space, or set --run to a disk with more of it\.",
        told,
    )
    assert not (tmp_path / "run" / "history.jsonl").exists()


def test_a_disk_without_room_for_the_cache_does_not_stop_a_run_that_fits_into_memory(
    pictures: Path, straight: Path, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(machine, "room_bytes", lambda: 0)
    monkeypatch.setattr(pack, "make_room", lambda *_: False)
    assert train(pictures, tmp_path / "run", "--epochs", "2") == 0
    told = capfd.readouterr().err
    assert "Warning: The cache needs about " in told
    reason = (
        f"The cache folder {own_cache} takes nothing more (No space left on device): memory takes its place in this run"
    )
    assert told.count(reason) == 1
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (straight / "model.safetensors").read_bytes()
    assert not [path for path in own_cache.iterdir() if path.stat().st_size and path.suffix != ".json"]
    notes = [line for line in (tmp_path / "run" / "events.jsonl").read_text("utf-8").splitlines() if '"note"' in line]
    assert len(notes) > 1


def test_a_run_beyond_the_bound_of_the_cache_gets_what_it_needs_and_leaves_no_more_than_the_bound(
    pictures: Path, straight: Path, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOLDERTUNE_CACHE_GIB", "0")
    assert train(pictures, tmp_path / "run", "--epochs", "2") == 0
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (straight / "model.safetensors").read_bytes()
    assert list(own_cache.iterdir()) == []


def test_a_bound_of_the_cache_that_makes_no_sense_is_refused_before_anything_is_read(
    pictures: Path, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FOLDERTUNE_CACHE_GIB", "much")
    assert train(pictures, tmp_path / "run") == 2
    assert "FOLDERTUNE_CACHE_GIB is 'much'. Accepted: " in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


def test_max_minutes_ends_a_run_that_would_take_far_longer(pictures: Path, own_cache: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    began = time.monotonic()
    assert train(pictures, run, "--epochs", "3000", "--beyond-guide", "--max-minutes", "0.4") == 0
    assert (
        time.monotonic() - began < 120
    )  # 3,000 epochs take ten minutes; the limit is 24 s, on a machine with nothing else to do
    assert state_of(run) == "finished"
    assert 1 <= len(history_of(run)) < 3000
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["evaluations"]["fine-tuned"]["test"]["num_pictures"] > 0


def test_a_signal_while_weights_are_fetched_acts_at_once(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download cannot look at a request; what it has is kept without one."""
    before, seen = signal.getsignal(signal.SIGTERM), []
    real = weights.resolve_weights

    def resolve(*given: str) -> Any:
        seen.append(signal.getsignal(signal.SIGTERM))
        return real(*given)

    monkeypatch.setattr(weights, "resolve_weights", resolve)
    assert train(pictures, tmp_path / "run", "--tune", "head") == 0
    assert seen == [before]


def test_resume_of_a_finished_run_changes_nothing(straight: Path) -> None:
    before = {path.name: path.read_bytes() for path in straight.iterdir() if path.is_file()}
    assert cli.run(["train", "--resume", str(straight)]) == 0
    assert {path.name: path.read_bytes() for path in straight.iterdir() if path.is_file()} == before


@pytest.mark.skipif(os.name == "nt", reason="there are no such limits on Windows")
def test_t5_a_state_that_cannot_be_saved_ends_the_command_with_an_error(
    pictures: Path, own_cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """No file may grow beyond 100 MB, as on a disk that is full: weights of 45 MB fit, a state of 180 MB does not."""
    import resource

    run, limits = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000_000, limits[1]))
    try:
        code = train(pictures, run, "--epochs", "2", "--save-minutes", "0")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    told = capfd.readouterr()
    assert code == 1
    assert told.out == ""
    last = told.err.splitlines()[-1]
    assert last.startswith("foldertune: ")
    assert "could not be written" in last
    assert "Traceback" not in told.err
    assert state_of(run) == "started"
    state, refused = load_state(run / "checkpoints")
    assert state is not None  # the one before the first step, which has no optimizer yet, did fit
    assert (state.step, refused) == (0, [])
    left = ["baseline.safetensors", "save-000001.json", "save-000001.safetensors"]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == left


# ------------------------------------------------------------------------------------------------------ real processes


def started(arguments: list[str], place: Path) -> subprocess.Popen[str]:
    """A `foldertune` of its own, with its own cache."""
    return subprocess.Popen(
        [sys.executable, "-m", "foldertune", *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "FOLDERTUNE_CACHE": str(place / "cache")},
    )  # fmt: skip


def wait_for_epoch(process: subprocess.Popen[str], run: Path, number: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (run / "history.jsonl").exists() and len(history_of(run)) >= number:
            return
        time.sleep(0.02)
    raise AssertionError(f"epoch {number} never ended: {process.communicate()[1]}")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM that a process could take")
@pytest.mark.parametrize("compared", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["saved", "and resumed"])
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_t9_a_real_process_that_is_stopped_saves_and_exits_in_time(
    number: signal.Signals, compared: bool, pictures: Path, tmp_path: Path
) -> None:
    run, more = tmp_path / "run", ["--epochs", "12"]
    process = started(["train", str(pictures), "--run", str(run), *SETTINGS, *more], tmp_path)
    wait_for_epoch(process, run, 1)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number, err
    assert out == ""
    assert "the state is saved" in err.splitlines()[-1]
    state, refused = load_state(run / "checkpoints")
    assert state is not None
    assert refused == []
    assert 0 < state.step < 12 * 6
    assert not [path for path in run.rglob(".*") if path.name.startswith((".part-", ".tmp"))]
    if compared:
        finish_and_compare(run, pictures, tmp_path, more)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("epoch", [1, 3])
def test_t3_a_real_process_that_is_killed_resumes_to_the_same_model(epoch: int, pictures: Path, tmp_path: Path) -> None:
    run, more = tmp_path / "run", ["--epochs", "8", "--save-minutes", "0"]
    process = started(["train", str(pictures), "--run", str(run), *SETTINGS, *more], tmp_path)
    wait_for_epoch(process, run, epoch)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    state, _ = load_state(run / "checkpoints")
    assert state is not None
    assert state.step >= 6 * epoch - 1  # the save interval is one step
    finish_and_compare(run, pictures, tmp_path, more)


def finish_and_compare(run: Path, pictures: Path, place: Path, more: list[str]) -> None:
    """Resume in a new process; the model is that of a run that was never stopped, in a third process."""
    resumed = started(["train", "--resume", str(run)], place)
    other = started(["train", str(pictures), "--run", str(place / "straight"), *SETTINGS, *more], place / "other")
    for process in (resumed, other):
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    assert (run / "model.safetensors").read_bytes() == (place / "straight" / "model.safetensors").read_bytes()
    assert history_of(run) == history_of(place / "straight")
    assert len(history_of(run)) > 1
