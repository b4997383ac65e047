"""A run that was stopped ends with the same bits as one that was not (rows T1, T2), also when a system stops it (T9)."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from trainings import COURSE, NUM_CLASSES, Stored, Training, made_features, made_network, made_split, thin_network

from foldertune.errors import InterruptedRunError
from foldertune.records import EpochRecord, Event, Progress
from foldertune.run import RunFolder
from foldertune.stopping import StopRequest
from foldertune.training import loop
from foldertune.training.checkpoint import State, load_state, save_state
from foldertune.training.loop import Fitted
from foldertune.training.trainer import Labelled

NUM_STEPS = 40
MEASURED = {"elapsed_s", "pictures_per_s", "waited_share"}  # what no two runs have in common


def saved(made: Training) -> State:
    state, refused = load_state(made.folder)
    assert state is not None
    assert refused == []
    return state


def text_of(history: list[EpochRecord], folder: Path) -> list[dict[str, Any]]:
    """The lines of history.jsonl without what is measured by the clock, every number as its text."""
    run = RunFolder(folder)
    run.write_history(history)
    lines = run.history.read_text(encoding="utf-8").splitlines()
    parsed = [json.loads(line, parse_float=str, parse_int=str) for line in lines]
    return [{name: value for name, value in line.items() if name not in MEASURED} for line in parsed]


def facts_of(state: State) -> dict[str, Any]:
    account = dict(state.facts["account"])
    account["elapsed_s"] = None
    account["history"] = [{k: v for k, v in line.items() if k not in MEASURED} for line in account["history"]]
    return {**state.facts, "account": account, "step": state.step}


def assert_same(made: Training, fitted: Fitted, straight: Training, expected: Fitted) -> None:
    """Every tensor bit for bit, every fact, the history to the last printed digit."""
    one, other = saved(made), saved(straight)
    assert one.tensors.keys() == other.tensors.keys()
    for name, value in one.tensors.items():
        assert torch.equal(value, other.tensors[name]), name
        assert value.dtype == other.tensors[name].dtype
    assert fitted.tensors.keys() == expected.tensors.keys()
    assert all(torch.equal(value, expected.tensors[name]) for name, value in fitted.tensors.items())
    assert facts_of(one) == facts_of(other)
    assert text_of(fitted.history, made.folder.parent) == text_of(expected.history, straight.folder.parent)


def stopped_and_resumed(made: Training, *stops: int, **changes: Any) -> tuple[Training, Fitted]:
    """Stop after so many batches of each attempt, then go on to the end; every attempt is a fresh network."""
    for num_batches in stops:
        with pytest.raises(InterruptedRunError, match="the state is saved") as caught:
            made.run_until(num_batches)
        assert caught.value.exit_code == 143
        made = made.again(**changes)
    return made, made.run()


# -------------------------------------------------------------------------------------- T1: after any step, every tensor


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trainings")


@pytest.fixture(scope="module", params=["thin", "resnet18"])
def straight(request: pytest.FixtureRequest, folder: Path) -> tuple[Training, Fitted]:
    """40 steps without a stop: 30 pictures in batches of 4, the last one of 2, so 8 steps in each of 5 epochs."""
    made = Training(
        folder / request.param / "checkpoints", made_split(folder, 30), made_split(folder, 9, seed=1),
        make=MAKERS[request.param],
    )  # fmt: skip
    fitted = made.run()
    assert saved(made).step == NUM_STEPS
    return made, fitted


MAKERS = {"thin": thin_network, "resnet18": made_network}
thin_only = pytest.mark.parametrize("straight", ["thin"], indirect=True)


@thin_only
@pytest.mark.parametrize("num_steps", [1, 7, 10, 20, 39])
def test_t1_stopped_after_any_step_and_resumed_ends_with_the_same_bits(
    num_steps: int, straight: tuple[Training, Fitted], tmp_path: Path
) -> None:
    made, fitted = stopped_and_resumed(straight[0].again(tmp_path / "checkpoints"), num_steps)
    resumed = next(told for told in made.told if isinstance(told, Event))
    assert (resumed.kind, resumed.facts["step"]) == ("resumed", num_steps)
    assert_same(made, fitted, *straight)


@pytest.mark.slow
@pytest.mark.parametrize("straight", ["resnet18"], indirect=True)
@pytest.mark.parametrize("num_steps", [1, 7, 10, 20, 39])
def test_t1_of_a_resnet_stopped_after_any_step_ends_with_the_same_bits(
    num_steps: int, straight: tuple[Training, Fitted], tmp_path: Path
) -> None:
    assert_same(*stopped_and_resumed(straight[0].again(tmp_path / "checkpoints"), num_steps), *straight)


def test_t1_stopped_at_each_of_five_steps_in_turn_ends_with_the_same_bits(
    straight: tuple[Training, Fitted], tmp_path: Path
) -> None:
    made = straight[0].again(tmp_path / "checkpoints")
    assert_same(*stopped_and_resumed(made, 1, 6, 3, 10, 19), *straight)


@thin_only
def test_t1_the_state_holds_weights_optimizer_best_account_and_random_numbers(
    straight: tuple[Training, Fitted],
) -> None:
    state, (made, fitted) = saved(straight[0]), straight
    learning = dict(made.network.named_parameters())
    kinds = {name.partition("/")[0] for name in state.tensors}
    assert kinds == {"model", "optimizer", "best", "rng"}
    assert {f"model/{name}" for name in learning} <= state.tensors.keys()
    assert len([name for name in state.tensors if name.startswith("optimizer/")]) == 3 * len(learning)
    assert all(torch.equal(state.tensors[f"model/{name}"], value) for name, value in learning.items())
    assert all(torch.equal(state.tensors[f"best/{name}"], value) for name, value in fitted.tensors.items())
    assert state.facts["account"]["epoch"] == 6


# ------------------------------------------------------------------------------------------ T2: with all that may differ

COURSES: dict[str, dict[str, Any]] = {
    "accumulate, average, sampling": {"accumulate": 3, "ema": True, "imbalance": "sampling", "epochs": 3},
    "sgd, batch statistics, weights": {"optimizer": "sgd", "batch_norm": "batch", "imbalance": "weights", "epochs": 2},
    "body statistics": {"batch_norm": "body", "eval_steps": 1, "epochs": 2},
    "average, batch statistics": {"accumulate": 2, "ema": True, "batch_norm": "batch", "eval_steps": 2, "epochs": 3},
}


@pytest.fixture(scope="module", params=COURSES)
def other_straight(request: pytest.FixtureRequest, folder: Path) -> tuple[Training, Fitted]:
    """22 pictures in batches of 4: with three batches to a step, the last step is of 10 and its last batch of 2."""
    course, network = dataclasses.replace(COURSE, **COURSES[request.param]), "thin"
    made = Training(
        folder / f"{request.param} {network}" / "checkpoints",
        made_split(folder, 22, augmentation="standard"), made_split(folder, 9, seed=1),
        course=course, make=MAKERS[network],
    )  # fmt: skip
    return made, made.run()


@pytest.mark.parametrize("workers", [0, 2, 4])
def test_t2_with_augmentation_and_any_number_of_workers_ends_with_the_same_bits(
    workers: int, other_straight: tuple[Training, Fitted], tmp_path: Path
) -> None:
    made = other_straight[0].again(tmp_path / "checkpoints", workers=workers)
    assert_same(*stopped_and_resumed(made, 5, 4, workers=workers), *other_straight)


@pytest.mark.slow
@pytest.mark.parametrize("name", COURSES)
@pytest.mark.parametrize("workers", [0, 2, 4])
def test_t2_of_a_resnet_with_everything_on_ends_with_the_same_bits(
    workers: int, name: str, folder: Path, tmp_path: Path
) -> None:
    course = dataclasses.replace(COURSE, **COURSES[name])
    train, val = made_split(folder, 22, augmentation="standard"), made_split(folder, 9, seed=1)
    straight = Training(tmp_path / "straight" / "checkpoints", train, val, course=course)
    expected = straight.run()
    made = straight.again(tmp_path / "stopped" / "checkpoints", workers=workers)
    assert_same(*stopped_and_resumed(made, 5, 4, workers=workers), straight, expected)


def test_t2_in_bf16_ends_with_the_same_bits(folder: Path, tmp_path: Path) -> None:
    course = dataclasses.replace(COURSE, precision="bf16", epochs=2, ema=True, first_stage=4)
    train, val = (made_activations(number, seed=number) for number in (10, 9))
    straight = Training(tmp_path / "straight" / "checkpoints", train, val, course=course)
    expected = straight.run()
    made = straight.again(tmp_path / "stopped" / "checkpoints")
    made, fitted = stopped_and_resumed(made, 2, 1, 2)
    assert_same(made, fitted, straight, expected)
    assert all(value.dtype == torch.float32 for name, value in saved(made).tensors.items() if name != "rng/torch")


def made_activations(num_pictures: int, *, seed: int) -> Labelled:
    """Invented, in the shape that the last stage of a ResNet-18 takes."""
    x = np.random.default_rng(seed).random((num_pictures, 256, 2, 2), np.float32)
    return Labelled(Stored(torch.from_numpy(x), 4), np.arange(num_pictures) % NUM_CLASSES)


# ------------------------------------------------------------------------- stops at awkward moments, on the head alone


def head_training(folder: Path, **changes: Any) -> Training:
    course = dataclasses.replace(COURSE, **{"epochs": 3, "first_stage": 5, "ema": True, **changes})
    train, val = made_features(22, num_features=8), made_features(40, num_features=8, seed=1)
    return Training(folder / "checkpoints", train, val, course=course, make=thin_network)


@pytest.mark.parametrize("num_batches", range(1, 18))
def test_resume_from_a_stop_inside_an_accumulated_step_ends_with_the_same_bits(
    num_batches: int, tmp_path: Path
) -> None:
    straight = head_training(tmp_path / "straight", accumulate=3)
    expected = straight.run()
    made = head_training(tmp_path / "stopped", accumulate=3)
    made, fitted = stopped_and_resumed(made, num_batches)
    assert_same(made, fitted, straight, expected)


class StopLater(StopRequest):
    """Asks to stop when it has been looked at so many times since it was armed."""

    def __init__(self) -> None:
        self.looks_left = math.inf
        super().__init__()

    @property
    def signal(self) -> int:
        self.looks_left -= 1
        return 2 if self.looks_left < 0 else 0

    @signal.setter
    def signal(self, value: int) -> None:
        pass


@pytest.mark.parametrize("epoch", [1, 3])
@pytest.mark.parametrize("looks", [0, 1])
def test_resume_from_a_stop_inside_a_validation_ends_with_the_same_bits(
    epoch: int, looks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = head_training(tmp_path / "straight")
    expected = straight.run()
    made, stop, real = head_training(tmp_path / "stopped"), StopLater(), loop.validate

    def armed(trainer: Any, val: Any, **given: Any) -> tuple[float, float] | None:
        if trainer.account.epoch == epoch:
            stop.looks_left = looks
        return real(trainer, val, **given)

    monkeypatch.setattr(loop, "validate", armed)
    with pytest.raises(InterruptedRunError, match=f"epoch {epoch}; the state is saved") as caught:
        made.run(stop=stop)
    assert caught.value.exit_code == 130
    assert saved(made).facts["account"]["place"] == 22
    monkeypatch.undo()
    again = made.again()
    assert_same(again, again.run(), straight, expected)


def test_resume_of_a_finished_training_does_nothing_and_returns_the_same(tmp_path: Path) -> None:
    made = head_training(tmp_path)
    fitted = made.run()
    again = made.again()
    assert_same(again, again.run(), made, fitted)
    assert [told.kind for told in again.told if isinstance(told, Event)] == ["resumed"]
    assert not [told for told in again.told if isinstance(told, Progress)]


def test_resume_after_a_kill_between_two_saves_ends_with_the_same_bits(tmp_path: Path) -> None:
    """Nothing is saved when a process is killed: the steps since the last save come again."""
    straight = head_training(tmp_path / "straight")
    expected = straight.run()
    made = head_training(tmp_path / "killed", save_s=0.0)
    with pytest.raises(KilledError):
        made.run(watch=killer(9))
    assert saved(made).step == 8
    again = made.again(save_s=math.inf)
    assert_same(again, again.run(), straight, expected)


class KilledError(BaseException):
    """In the place of SIGKILL: no handler of ours catches it."""


def killer(num_batches: int) -> Any:
    seen: Iterator[int] = iter(range(1, 1_000_000))

    def watch(told: Any) -> None:
        if isinstance(told, Progress) and next(seen) == num_batches:
            raise KilledError

    return watch


def test_resume_saves_as_often_as_it_was_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []

    def noting(folder: Path, state: State) -> Path:
        steps.append(state.step)
        return save_state(folder, state)

    monkeypatch.setattr(loop, "save_state", noting)
    head_training(tmp_path / "a", save_s=0.0).run()
    assert steps == [*range(18), 18]
    steps.clear()
    head_training(tmp_path / "b").run()
    assert steps == [18]


@pytest.mark.parametrize("damaged", [1, 2])
def test_t6_resume_with_damaged_states_says_so_goes_back_and_ends_with_the_same_bits(
    damaged: int, tmp_path: Path
) -> None:
    straight = head_training(tmp_path / "straight")
    expected = straight.run()
    made = head_training(tmp_path / "damaged")
    for num_batches in (4, 5):
        with pytest.raises(InterruptedRunError):
            made.run_until(num_batches)
        made = made.again()
    newest = sorted(made.folder.glob("*.safetensors"), reverse=True)
    assert len(newest) == 2  # the previous one is kept to fall back on
    for path in newest[:damaged]:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    fitted = made.run()
    warnings = list(made.warnings)
    assert len(warnings) == damaged
    for path, sentence in zip(newest, warnings, strict=False):
        assert path.name in sentence
        assert "sha256" in sentence
        assert sentence.endswith("goes on from step 4." if damaged == 1 else "goes on from the baseline.")
    assert_same(made, fitted, straight, expected)


def test_resume_needs_the_order_of_each_epoch_from_its_number_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pictures of a resumed epoch are those that were left, each once."""
    made = head_training(tmp_path, epochs=1)
    seen: list[int] = []
    real = type(made.train.source).batch

    def watched(self: Any, places: NDArray[np.int64], epoch: int) -> Tensor:
        if epoch:
            seen.extend(places.tolist())
        return real(self, places, epoch)

    monkeypatch.setattr(type(made.train.source), "batch", watched)
    with pytest.raises(InterruptedRunError):
        made.run_until(2)
    del seen[8:]  # the batch that was fetched and not trained on
    made.again().run()
    assert sorted(seen) == list(range(22))
