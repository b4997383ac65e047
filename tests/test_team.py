"""Two processes that share each batch end where one ends, and take every decision together."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import crew
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn
from trainings import made_network, thin_network

from foldertune import cli, team
from foldertune.errors import InterruptedRunError, SettingsError
from foldertune.records import plain
from foldertune.stopping import StopRequest
from foldertune.team import ALONE, Team
from foldertune.training.checkpoint import load_state
from foldertune.training.norm import TeamNorm, share_norms
from foldertune.training.statistics import adapting_norms

pytestmark = pytest.mark.skipif(os.name == "nt", reason="gloo and signals there are not what is tested here")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left of all scenarios but those that end with an error."""
    place = tmp_path_factory.mktemp("crew")
    for process in crew.start(place, *crew.SAME, *crew.TOGETHER):
        out, err = process.communicate(timeout=240)
        assert (process.returncode, out, err) == (0, "", "")
    return place


def ended(folder: Path, scenario: str, rank: int, *, note: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights, and the history and error, that a process noted."""
    place = folder / scenario / f"{note or scenario}-{rank}"
    return load_file(f"{place}.safetensors"), json.loads(Path(f"{place}.json").read_text())


def without_clock(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in line.items() if name not in ("elapsed_s", "pictures_per_s", "waited_share")}
        for line in history
    ]


# ------------------------------------------------------------------------------------------------ as one process ends


@pytest.mark.parametrize("scenario", crew.SAME)
def test_two_processes_end_with_the_weights_and_the_history_of_one(scenario: str, folder: Path, tmp_path: Path) -> None:
    made = crew.SAME[scenario](tmp_path, ALONE)
    made.run()
    weights, noted = ended(folder, scenario, 0)
    assert weights.keys() == made.network.state_dict().keys()
    assert_close(weights, made.network.state_dict())
    one, two = without_clock(plain(made.records)), without_clock(noted["history"])
    assert [line["step"] for line in two] == [line["step"] for line in one]
    for line, other in zip(one, two, strict=True):
        assert other == {name: pytest.approx(value, rel=1e-4) for name, value in line.items()}


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert float((found[name] - value).abs().max()) <= 1e-5, name


def test_two_processes_end_with_the_bits_of_one_that_accumulates_two_halves(folder: Path, tmp_path: Path) -> None:
    made = crew.twenty_steps(tmp_path)
    made.course = replace(made.course, batch_size=4, accumulate=2)
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as each of the two has
    try:
        made.run()
    finally:
        torch.set_num_threads(before)
    weights, _ = ended(folder, "twenty_steps", 0)
    for name, value in made.network.state_dict().items():
        assert torch.equal(weights[name], value), name


def test_twenty_steps_are_twenty_and_move_the_weights(folder: Path) -> None:
    weights, noted = ended(folder, "twenty_steps", 0)
    assert noted["history"][-1]["step"] == 20
    start = made_network().state_dict()
    moved = [
        name for name in start if name.endswith("weight") and not torch.allclose(weights[name], start[name], atol=1e-5)
    ]
    assert len(moved) > 30  # those behind a norm that begins at zero hardly do


@pytest.mark.parametrize("scenario", crew.SAME)
def test_both_processes_hold_the_same_bits(scenario: str, folder: Path) -> None:
    (one, first), (other, second) = (ended(folder, scenario, rank) for rank in (0, 1))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert without_clock(first["history"]) == without_clock(second["history"])
    assert [line["elapsed_s"] for line in first["history"]] == [line["elapsed_s"] for line in second["history"]]


# --------------------------------------------------------------------------------------------------- decided together


def test_request_to_one_process_stops_both_at_the_same_step_with_the_state_saved(folder: Path) -> None:
    (_, first), (_, second) = (ended(folder, "stopped", rank) for rank in (0, 1))
    assert first["error"] == second["error"]
    sentence, code = first["error"]
    assert sentence.startswith("Interrupted at step 10, epoch 2; the state is saved.")
    assert code == 143


def test_stopped_team_that_goes_on_ends_with_the_bits_of_one_that_was_not_stopped(folder: Path) -> None:
    (weights, noted), (expected, straight) = (
        ended(folder, "stopped", 0, note="resumed"),
        ended(folder, "straight", 0),
    )
    assert all(torch.equal(value, expected[name]) for name, value in weights.items())
    assert without_clock(noted["history"]) == without_clock(straight["history"][1:])  # it went on in the second epoch


def test_state_of_two_processes_goes_on_in_one(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "stopped" / "kept" / "checkpoints", tmp_path / "checkpoints")
    made = crew.head(tmp_path)
    made.run()
    assert made.records[-1].step == 18
    assert_close(made.network.state_dict(), ended(folder, "straight", 0)[0])


def test_state_of_one_process_goes_on_in_three(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError):
        crew.head(tmp_path / "straight").run_until(7)
    for process in crew.start(tmp_path, "straight", size=3):
        out, err = process.communicate(timeout=240)
        assert (process.returncode, out, err) == (0, "", "")
    weights, noted = ended(tmp_path, "straight", 2)
    assert [line["step"] for line in noted["history"]] == [12, 18]
    assert_close(weights, ended(folder, "straight", 0)[0])


def test_clock_of_the_first_process_counts_for_both(folder: Path) -> None:
    (_, first), (_, second) = (ended(folder, "late", rank) for rank in (0, 1))
    assert 1 <= len(first["history"]) < 50
    assert without_clock(first["history"]) == without_clock(second["history"])


def test_loss_that_is_no_number_in_one_process_ends_both_with_one_sentence_and_the_step_before_saved(
    folder: Path,
) -> None:
    (_, first), (_, second) = (ended(folder, "poisoned", rank) for rank in (0, 1))
    assert first["error"] == second["error"]
    sentence, code = first["error"]
    assert code == 1
    assert sentence.startswith("The loss stopped being finite at step ")
    state, _ = load_state(folder / "poisoned" / "checkpoints")
    assert state is not None
    assert f"Step {state.step} is saved." in sentence
    assert f"at step {state.step + 1} of" in sentence
    assert all(bool(value.isfinite().all()) for name, value in state.tensors.items() if name.startswith("model/"))


def test_process_that_fails_ends_the_other_and_its_sentence_alone_is_told(tmp_path: Path) -> None:
    processes = crew.start(tmp_path, "failing")
    told = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [1, 1]
    assert "".join(out for out, _ in told) == ""
    assert "".join(err for _, err in told) == "foldertune: The cache file is shorter than it was.\n"


@pytest.mark.parametrize("killed", [0, 1])
def test_process_that_is_killed_ends_the_other_at_once_with_a_sentence(killed: int, tmp_path: Path) -> None:
    processes = crew.start(tmp_path, "endless")
    deadline = time.monotonic() + 120
    while not list((tmp_path / "endless" / "checkpoints").glob("save-*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    processes[killed].kill()
    began = time.monotonic()
    _, err = processes[1 - killed].communicate(timeout=60)
    processes[killed].communicate()
    assert time.monotonic() - began < 20
    assert processes[1 - killed].returncode == 1
    assert err.startswith("foldertune: Another process of this training has ended, so that this one cannot go on.")
    assert err.count("\n") == 1


# ---------------------------------------------------------------------------------------------------------- its parts


@given(st.integers(0, 70), st.integers(1, 9))
def test_shares_are_the_batch_as_evenly_as_it_goes(num_pictures: int, size: int) -> None:
    batch = np.arange(num_pictures)
    parts = [Team(rank, size).share(batch) for rank in range(size)]
    assert np.array_equal(np.concatenate(parts), batch)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    labels = torch.from_numpy(batch)
    assert all(part.tolist() == Team(rank, size).share(labels).tolist() for rank, part in enumerate(parts))


def test_alone_nothing_is_agreed_upon() -> None:
    stop = StopRequest()
    assert (ALONE.sum(1.5, 2), ALONE.first(0.1), ALONE.text("runs/a"), ALONE.heard(stop)) == (
        [1.5, 2],
        0.1,
        "runs/a",
        0,
    )
    stop.signal = 2
    assert ALONE.heard(stop) == 2
    values = torch.ones(2)
    ALONE.add_up([values])
    ALONE.wait()
    assert values.tolist() == [1, 1]
    assert team.join() is ALONE
    assert team.may_speak()


@pytest.mark.parametrize("momentum", [0.1, None])
def test_norm_of_a_team_is_torchs_batch_norm(momentum: float | None) -> None:
    """Alone; that it is the same when shared, the trainings above show."""
    torch.manual_seed(0)
    theirs, other = nn.BatchNorm2d(5, momentum=momentum), nn.BatchNorm2d(5, momentum=momentum)
    other.load_state_dict(theirs.state_dict())
    ours = TeamNorm(other, ALONE)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for _ in range(3):
        x = 40 + 3 * torch.randn(6, 5, 4, 3)
        inputs = [x.clone().requires_grad_() for _ in range(2)]
        outputs = [norm(value) for norm, value in zip((theirs, ours), inputs, strict=True)]
        torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-4, atol=1e-4)
        for output in outputs:
            (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
        torch.testing.assert_close(inputs[1].grad, inputs[0].grad, rtol=1e-3, atol=1e-5)
    for name, value in theirs.named_parameters():
        torch.testing.assert_close(ours.get_parameter(name).grad, value.grad, rtol=1e-3, atol=1e-4)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-4, atol=1e-4)
    assert torch.equal(ours.eval()(x), ours(x))
    torch.testing.assert_close(ours(x), theirs.eval()(x), rtol=1e-4, atol=1e-4)


def test_share_norms_replaces_those_that_adapt_and_none_of_one_process() -> None:
    network = thin_network()
    share_norms(network, adapting_norms(network, "body"), ALONE)
    assert not [module for module in network.modules() if isinstance(module, TeamNorm)]
    share_norms(network, adapting_norms(network, "body"), Team(0, 2))
    names = [name for name, module in network.named_modules() if isinstance(module, TeamNorm)]
    assert names == [f"body.{stage}.1" for stage in range(1, 5)]
    assert len(adapting_norms(network, "batch")) == 5


# ------------------------------------------------------------------------------------------------------ what is refused


def started(monkeypatch: pytest.MonkeyPatch, size: int, *, here: int | None = None) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(size))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(here or size))


def test_processes_on_several_machines_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    started(monkeypatch, 4, here=2)
    with pytest.raises(SettingsError, match="There are 4 processes on several machines, 2 of them on this one"):
        team.join.__wrapped__()  # what it found before is kept


@pytest.mark.parametrize(
    ("device", "found"), [("cuda", "1 device of the kind cuda"), ("mps", "1 device of the kind mps")]
)
def test_more_processes_than_devices_are_refused(device: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SettingsError, match=f"There are 2 processes for {found}, .*Start 1 with --nproc-per-node"):
        Team(0, 2).refuse_device(device)
    Team(0, 2).refuse_device("cpu")
    ALONE.refuse_device(device)


@pytest.mark.parametrize("verb", ["demo", "plan", "evaluate", "predict", "models"])
def test_work_for_one_process_is_refused_to_several(
    verb: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    started(monkeypatch, 2)
    monkeypatch.setattr(cli, "may_speak", lambda: True)
    assert cli.run([verb]) == 2
    told = capfd.readouterr().err
    assert told.startswith(f"foldertune: torchrun has started 2 processes, and `foldertune {verb}` is work for one")
    assert told.endswith("Start it without torchrun.\n")


def test_world_size_without_torchrun_is_none_of_our_business(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert team.num_started() == 1
