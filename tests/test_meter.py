"""Numbers of steps that are read one step late, as on a GPU: the same training, the same account, the same refusals."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from test_loop import HEAD, Poisoned, of_the_head
from test_resume import KilledError, assert_same, head_training, killer, stopped_and_resumed

from foldertune.data.loader import epoch_order
from foldertune.errors import WorkFailedError
from foldertune.team import ALONE
from foldertune.training import trainer
from foldertune.training.checkpoint import load_state
from foldertune.training.meter import Meter, Reading
from foldertune.training.trainer import Labelled


class LateMeter(Meter):
    """As on a GPU, without one."""

    def __init__(self, device: str) -> None:
        super().__init__(device)
        self.late = True


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "Meter", LateMeter)


def closed(meter: Meter, step: int, loss: float) -> None:
    meter.see(4, torch.tensor(loss), 4, torch.tensor(3))
    meter.see(2, torch.tensor(2 * loss), 2, torch.tensor(1))
    meter.close(step, torch.tensor(0.5), ALONE)


def test_meter_sums_over_the_batches_of_a_step() -> None:
    meter = Meter("cpu")
    closed(meter, 1, 0.25)
    closed(meter, 2, 0.5)
    assert list(meter.readings()) == [Reading(1, 6, 2.0, 4, 0.5), Reading(2, 6, 4.0, 4, 0.5)]
    assert list(meter.readings()) == []


def test_meter_that_is_late_keeps_the_last_step_until_everything_is_asked_for() -> None:
    meter = LateMeter("cpu")
    closed(meter, 1, 0.25)
    assert list(meter.readings()) == []
    closed(meter, 2, 0.5)
    assert [reading.step for reading in meter.readings()] == [1]
    assert [reading.step for reading in meter.readings(everything=True)] == [2]


def test_meter_forgets_the_step_that_was_begun() -> None:
    meter = Meter("cpu")
    meter.see(4, torch.tensor(9.0), 4, torch.tensor(3))
    meter.forget()
    closed(meter, 1, 0.25)
    assert [reading.loss for reading in meter.readings()] == [2.0]


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("num_batches", [1, 7, 17])
def test_fit_with_late_numbers_stopped_and_resumed_is_the_same_training(
    num_batches: int, accumulate: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = head_training(tmp_path / "straight", accumulate=accumulate)
    expected = straight.run()
    monkeypatch.setattr(trainer, "Meter", LateMeter)
    made, fitted = stopped_and_resumed(head_training(tmp_path / "late", accumulate=accumulate), num_batches)
    assert_same(made, fitted, straight, expected)


@pytest.mark.usefixtures("late")
def test_fit_with_late_numbers_that_saves_at_every_step_has_them_in_the_state(tmp_path: Path) -> None:
    made = head_training(tmp_path, save_s=0.0)
    with pytest.raises(KilledError):
        made.run(watch=killer(9))
    state, _ = load_state(made.folder)
    assert state is not None
    assert state.facts["account"]["last_step"] == state.step == 8


@pytest.mark.usefixtures("late")
def test_fit_with_late_numbers_names_the_step_of_a_loss_that_is_no_number_and_saves_nothing_after_it(
    tmp_path: Path,
) -> None:
    made = of_the_head(tmp_path, epochs=3, save_s=math.inf)
    order = epoch_order(made.train.labels, seed=made.course.seed, epoch=2, balanced=False)
    made.train = Labelled(Poisoned(made.train.source, epoch=2, place=int(order[5])), made.train.labels)
    with pytest.raises(
        WorkFailedError,
        match=r"The loss stopped being finite at step 5 of 9 \(step 4: loss .*\)\. The baseline is saved\.",
    ):
        made.run()
    assert load_state(made.folder)[0] is None


@pytest.mark.usefixtures("late")
def test_fit_with_late_numbers_keeps_the_states_before_one_that_is_no_number(tmp_path: Path) -> None:
    made = of_the_head(tmp_path, epochs=3, save_s=0.0)
    order = epoch_order(made.train.labels, seed=made.course.seed, epoch=2, balanced=False)
    made.train = Labelled(Poisoned(made.train.source, epoch=2, place=int(order[5])), made.train.labels)
    with pytest.raises(WorkFailedError, match=r"The loss stopped being finite at step 5 of 9 .* Step 4 is saved\."):
        made.run()
    state, _ = load_state(made.folder)
    assert state is not None
    assert state.step == 4
    assert bool(state.tensors[f"model/{HEAD}"].isfinite().all())


@pytest.mark.usefixtures("late")
def test_fit_with_late_numbers_finds_a_poisoned_last_step_when_the_epoch_closes(tmp_path: Path) -> None:
    made = of_the_head(tmp_path, epochs=1)
    order = epoch_order(made.train.labels, seed=made.course.seed, epoch=1, balanced=False)
    made.train = Labelled(Poisoned(made.train.source, epoch=1, place=int(order[-1])), made.train.labels)
    with pytest.raises(WorkFailedError, match="The loss stopped being finite at step 3 of 3"):
        made.run()
    assert made.records == []
