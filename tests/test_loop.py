"""The training loop: what it learns, when it ends, what it keeps, and what stops it."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from trainings import COURSE, NUM_CLASSES, Stored, Training, made_features, made_network, made_split, thin_network

from foldertune.data.loader import Source, epoch_order
from foldertune.errors import WorkFailedError
from foldertune.records import EpochRecord, Progress
from foldertune.stopping import StopRequest
from foldertune.training import loop
from foldertune.training.checkpoint import load_state
from foldertune.training.loop import validate
from foldertune.training.meter import Reading
from foldertune.training.optimizer import Schedule
from foldertune.training.trainer import Account, Labelled, Trainer, class_weights, standard_error


def training(folder: Path, **changes: Any) -> Training:
    """10 pictures in batches of 4: three steps an epoch, the last one of 2."""
    return Training(
        folder / "checkpoints", made_split(folder, 10), made_split(folder, 7, seed=1),
        course=dataclasses.replace(COURSE, **{"epochs": 2, **changes}),
    )  # fmt: skip


def of_the_head(folder: Path, **changes: Any) -> Training:
    """The same, of the head alone."""
    return Training(
        folder / "checkpoints", made_features(10, num_features=8), made_features(7, num_features=8, seed=1), make=thin_network,
        course=dataclasses.replace(COURSE, **{"epochs": 2, "first_stage": 5, **changes}),
    )  # fmt: skip


HEAD = "head.weight"


class Poisoned:
    """A source that gives what is not a number from one epoch on."""

    def __init__(self, source: Source, *, epoch: int, place: int) -> None:
        self.first_stage, self.num_pictures = source.first_stage, source.num_pictures
        self.source, self.epoch, self.place = source, epoch, place

    def batch(self, places: NDArray[np.int64], epoch: int) -> Tensor:
        x = self.source.batch(places, epoch)
        return x * math.nan if epoch >= self.epoch and self.place in places else x


# ------------------------------------------------------------------------------------------------------ what it tells


def test_fit_tells_of_every_picture_and_every_epoch(tmp_path: Path) -> None:
    made = of_the_head(tmp_path)
    fitted = made.run()
    progress = [told for told in made.told if isinstance(told, Progress)]
    assert [told.done for told in progress] == [4, 8, 10, 14, 18, 20]
    assert {told.total for told in progress} == {20}
    assert made.records == fitted.history
    assert [(record.epoch, record.step) for record in made.records] == [(1, 3), (2, 6)]
    peak, schedule = COURSE.learning_rate, Schedule(6, round(0.1 * 6))
    assert [record.learning_rate for record in made.records] == pytest.approx(
        [peak * schedule.factor(2), peak * schedule.factor(5)]
    )
    assert all(record.gradient_norm > 0 and record.pictures_per_s > 0 for record in made.records)


def test_fit_learns_what_can_be_learned(tmp_path: Path) -> None:
    made = dataclasses.replace(
        training(tmp_path, epochs=8, batch_norm="batch", learning_rate=1e-3), val=made_split(tmp_path, 9)
    )
    made.run()
    assert made.records[-1].train_loss < 0.6 * made.records[0].train_loss
    assert max(record.val_accuracy or 0 for record in made.records) > 0.8


def test_fit_first_step_equals_a_step_by_hand(tmp_path: Path) -> None:
    """Two half batches, one step: plain autograd, clipping and torch's AdamW on the whole batch at once."""
    made = training(tmp_path, epochs=1, batch_size=5, accumulate=2, layer_decay=1.0)
    network = made_network().train()
    loop_order = epoch_order(made.train.labels, seed=COURSE.seed, epoch=1, balanced=False)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    decayed = [value for value in network.parameters() if value.ndim > 1]
    others = [value for value in network.parameters() if value.ndim <= 1]
    rate = COURSE.learning_rate * Schedule(1, 0).factor(0)
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0}], lr=rate
    )
    logits = network(made.train.source.batch(loop_order, 1))
    labels = torch.from_numpy(made.train.labels[loop_order])
    loss = F.cross_entropy(logits, labels, label_smoothing=0.1)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()

    made.run()
    (record,) = made.records
    assert record.train_loss == pytest.approx(loss.item(), rel=1e-4)
    assert record.gradient_norm == pytest.approx(norm.item(), rel=1e-3)
    assert record.step == 1
    for (name, value), other in zip(network.named_parameters(), made.network.parameters(), strict=True):
        # AdamW's first step is the gradient's sign times the rate, so that rounding shows where a gradient is near zero.
        assert (value - other).abs().mean().item() < 0.05 * rate, name


def test_fit_twice_gives_the_same_bits(tmp_path: Path) -> None:
    first, second = training(tmp_path / "a", epochs=1), training(tmp_path / "b", epochs=1)
    one, other = first.run().tensors, second.run().tensors
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("first_stage", [3, 5])
def test_fit_from_a_stage_on_changes_nothing_below(first_stage: int, tmp_path: Path) -> None:
    made = training(tmp_path, first_stage=first_stage, epochs=1)
    before = {name: value.clone() for name, value in made.network.state_dict().items()}
    x = made.network.eval().run_stages(made.train.source.batch(np.arange(10), 1), last=first_stage - 1).detach()
    made.train = Labelled(Stored(x, first_stage), made.train.labels)
    made.val = Labelled(Stored(x, first_stage), made.train.labels)
    fitted = made.run()
    stages = {made.network.stage_of(name) for name in fitted.tensors}
    assert stages == set(range(first_stage, 6))
    for name, value in made.network.state_dict().items():
        if made.network.stage_of(name) < first_stage:
            assert torch.equal(value, before[name]), name
    assert not torch.equal(made.network.state_dict()["fc.weight"], before["fc.weight"])


# ------------------------------------------------------------------------------------------------------ when it ends


@pytest.mark.parametrize(("eval_steps", "validated"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (9, [5])])
def test_fit_validates_every_eval_steps_epochs_and_the_last(
    eval_steps: int, validated: list[int], tmp_path: Path
) -> None:
    made = of_the_head(tmp_path, epochs=5, eval_steps=eval_steps)
    made.run()
    assert [record.epoch for record in made.records if record.val_accuracy is not None] == validated
    assert all((record.val_loss is None) == (record.val_accuracy is None) for record in made.records)


def scripted(monkeypatch: pytest.MonkeyPatch, *found: tuple[float, float]) -> None:
    """Let the validations find these (log loss, accuracy)."""
    answers = iter(found)
    monkeypatch.setattr(loop, "validate", lambda *_, **__: next(answers))


def test_fit_with_early_stop_ends_after_so_many_validations_without_gain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, (0.9, 0.5), (0.8, 0.6), (0.9, 0.6), (0.7, 0.5), (0.1, 0.9))
    made = of_the_head(tmp_path, epochs=5, early_stop=2)
    made.run()
    assert [record.best for record in made.records] == [True, True, False, False]


def test_fit_that_runs_out_of_time_validates_the_epoch_that_it_ends_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10_000))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))  # every look at the clock takes a second
    made = of_the_head(tmp_path, epochs=40, eval_steps=7, deadline_s=100.0)
    made.run()
    assert 1 <= len(made.records) < 40
    assert len(made.records) % 7
    assert made.records[-1].val_accuracy is not None


def test_fit_keeps_the_best_accuracy_and_breaks_ties_by_log_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, (0.5, 0.6), (0.9, 0.7), (0.8, 0.7), (0.8, 0.7), (0.2, 0.6))
    made = of_the_head(tmp_path, epochs=5)
    weights: dict[int, Tensor] = {}

    def watch(told: Any) -> None:
        if isinstance(told, EpochRecord):
            weights[told.epoch] = made.network.state_dict()[HEAD].clone()

    fitted = made.run(watch=watch)
    assert [record.best for record in made.records] == [True, True, True, False, False]
    assert torch.equal(fitted.tensors[HEAD], weights[3])
    assert not torch.equal(weights[3], weights[5])


def test_fit_keeps_a_later_epoch_that_validation_cannot_tell_from_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = of_the_head(tmp_path, epochs=5, keep_within=2.0)
    doubt = 2 * standard_error(0.9, len(made.val.labels))
    scripted(monkeypatch, (0.5, 0.6), (0.3, 0.9), (0.3, 0.9 - 0.9 * doubt), (0.3, 0.9 - 1.1 * doubt), (0.9, 0.9))
    weights: dict[int, Tensor] = {}

    def watch(told: Any) -> None:
        if isinstance(told, EpochRecord):
            weights[told.epoch] = made.network.state_dict()[HEAD].clone()

    fitted = made.run(watch=watch)
    assert [record.best for record in made.records] == [True, True, True, False, True]
    assert torch.equal(fitted.tensors[HEAD], weights[5])


@pytest.mark.parametrize(("accuracy", "num_pictures"), [(0.0, 10), (0.5, 40), (0.9, 90), (1.0, 1)])
def test_standard_error_is_that_of_agresti_and_coull(accuracy: float, num_pictures: int) -> None:
    answers = [1] * (round(accuracy * num_pictures) + 2) + [0] * (num_pictures - round(accuracy * num_pictures) + 2)
    expected = np.std(answers) / math.sqrt(len(answers))
    assert standard_error(accuracy, num_pictures) == pytest.approx(expected, rel=1e-9)


def test_fit_without_validation_pictures_returns_the_last_weights(tmp_path: Path) -> None:
    made = of_the_head(tmp_path, epochs=1)
    made.val = Labelled(made.val.source, np.zeros(0, np.int64))
    fitted = made.run()
    assert [record.val_accuracy for record in made.records] == [None]
    assert torch.equal(fitted.tensors[HEAD], made.network.state_dict()[HEAD])


@pytest.mark.parametrize("num_val", [0, 7])
def test_fit_with_a_deadline_of_no_time_trains_nothing(num_val: int, tmp_path: Path) -> None:
    made = of_the_head(tmp_path, deadline_s=0.0)
    made.val = Labelled(made.val.source, made.val.labels[:num_val])
    before = {name: value.clone() for name, value in made.network.state_dict().items()}
    fitted = made.run()
    assert fitted.history == []
    assert made.told == []
    assert all(torch.equal(value, before[name]) for name, value in fitted.tensors.items())


def test_fit_past_its_deadline_ends_at_the_next_step_and_validates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    made = of_the_head(tmp_path, epochs=50, deadline_s=60.0)
    fitted = made.run()
    last = made.records[-1]
    assert 1 <= last.epoch < 50
    assert last.val_accuracy is not None
    assert last.elapsed_s < 60 + 15  # as ticks of that clock: a few calls for each step
    assert len(fitted.history) == last.epoch


# -------------------------------------------------------------------------------------------------- what stops it


def test_fit_with_a_picture_that_is_no_number_stops_at_its_step_with_the_state_before_it_saved(tmp_path: Path) -> None:
    made = of_the_head(tmp_path, epochs=3)
    order = epoch_order(made.train.labels, seed=COURSE.seed, epoch=2, balanced=False)
    made.train = Labelled(Poisoned(made.train.source, epoch=2, place=int(order[5])), made.train.labels)
    with pytest.raises(
        WorkFailedError, match=r"The loss stopped being finite at step 5 of 9 \(step 4: loss .*\)"
    ) as caught:
        made.run()
    assert "Step 4 is saved." in str(caught.value)
    assert "0.0003" in str(caught.value)
    state, _ = load_state(made.folder)
    assert state is not None
    assert state.step == 4
    assert state.facts["account"]["place"] == 4
    assert all(bool(torch.isfinite(value).all()) for name, value in state.tensors.items() if name.startswith("model/"))


def test_fit_with_a_poisoned_batch_in_an_accumulated_step_saves_the_step_before(tmp_path: Path) -> None:
    course = {"batch_size": 2, "accumulate": 2, "batch_norm": "batch"}
    made = dataclasses.replace(training(tmp_path, **course), make=thin_network)
    order = epoch_order(made.train.labels, seed=COURSE.seed, epoch=1, balanced=False)
    clean = made.train
    made.train = Labelled(Poisoned(clean.source, epoch=1, place=int(order[6])), clean.labels)
    with pytest.raises(WorkFailedError, match="Step 1 is saved"):
        made.run()
    again = made.again()
    again.train = clean  # as if the trouble had passed: the state must be whole, the half step's batches unseen
    straight = dataclasses.replace(training(tmp_path / "straight", **course), make=thin_network)
    one, other = again.run().tensors, straight.run().tensors
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert [record.train_loss for record in again.records] == [record.train_loss for record in straight.records]


def test_fit_with_a_gradient_that_is_no_number_stops_before_it_does_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = of_the_head(tmp_path, epochs=2)
    real, calls = Trainer.micro_batch, []

    def poisoned(self: Trainer, x: Tensor, labels: Tensor, *, share: float) -> None:
        real(self, x, labels, share=share)
        calls.append(1)
        if len(calls) == 3:  # the last, partial step of the first epoch
            next(iter(self.learning.values())).grad.fill_(math.inf)  # type: ignore[union-attr]

    monkeypatch.setattr(Trainer, "micro_batch", poisoned)
    with pytest.raises(WorkFailedError, match=r"The gradient stopped being finite at step 3 of 6 .*Step 2 is saved"):
        made.run()
    monkeypatch.undo()
    again, straight = made.again(), of_the_head(tmp_path / "straight", epochs=2)
    one, other = again.run().tensors, straight.run().tensors
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize(
    ("save_s", "what", "kept"),
    [(math.inf, "The loss stopped being finite at step 5", "The baseline"), (0.0, "A weight .* at step 4", "Step 3")],
)
def test_fit_with_poisoned_weights_keeps_what_was_saved_before(
    save_s: float, what: str, kept: str, tmp_path: Path
) -> None:
    made = of_the_head(tmp_path, epochs=3, save_s=save_s)

    def watch(told: Any) -> None:
        if isinstance(told, Progress) and told.done == 14:  # step 4 was taken and is not saved yet
            with torch.no_grad():
                made.network.get_parameter(HEAD).fill_(math.nan)

    with pytest.raises(WorkFailedError, match=rf"{what} of 9 .*{kept} is saved"):
        made.run(watch=watch)
    state, _ = load_state(made.folder)
    if kept == "Step 3":
        assert state is not None
        assert state.step == 3
        assert all(bool(torch.isfinite(value).all()) for value in state.tensors.values())
    else:
        assert state is None


def test_fit_with_a_rate_that_diverges_stops_by_name_and_step(tmp_path: Path) -> None:
    made = training(tmp_path, epochs=3, learning_rate=1e20, warmup_share=0.0)
    with pytest.raises(WorkFailedError, match=r"The (loss|gradient) stopped being finite at step \d of 9"):
        made.run()


def test_fit_with_a_validation_that_is_no_number_stops_and_keeps_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, (0.5, 0.6), (math.nan, 0.9))
    made = of_the_head(tmp_path)
    with pytest.raises(WorkFailedError, match="The validation loss stopped being finite"):
        made.run()
    assert [record.best for record in made.records] == [True]


# ----------------------------------------------------------------------------------------------- judging and weighing


@pytest.mark.parametrize("ema", [False, True])
def test_validate_judges_the_average_where_one_is_kept_and_gives_the_weights_back(ema: bool, tmp_path: Path) -> None:
    made = training(tmp_path, ema=ema)
    trainer = Trainer(made.network, made.course, made.train)
    reference = made_network().eval()
    if ema:
        for value in trainer.average.values():
            value.mul_(1.1)
        with torch.no_grad():
            for value in reference.parameters():
                value.mul_(1.1)
    before = {name: value.clone() for name, value in made.network.state_dict().items()}
    with torch.no_grad():
        logits = reference(made.val.source.batch(np.arange(7), 0))
    labels = torch.from_numpy(made.val.labels)
    found = validate(trainer, made.val)
    assert found is not None
    assert found[0] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-4)
    assert found[1] == (logits.argmax(1) == labels).float().mean().item()
    assert all(torch.equal(value, before[name]) for name, value in made.network.state_dict().items())


@pytest.mark.parametrize("batch_norm", ["batch", "body"])
def test_fit_with_a_last_batch_of_one_picture_whose_map_is_one_pixel_learns_it_too(
    tmp_path: Path, batch_norm: str
) -> None:
    made = Training(
        tmp_path / "checkpoints", made_split(tmp_path, 9), made_split(tmp_path, 7, seed=1),
        course=dataclasses.replace(COURSE, epochs=1, batch_norm=batch_norm),
    )  # fmt: skip
    made.run()  # nine in batches of four; at 32 px the last stage of a ResNet has maps of 1 x 1
    assert [record.step for record in made.records] == [3]
    assert made.records[0].train_accuracy * 9 == pytest.approx(round(made.records[0].train_accuracy * 9))


def test_fit_from_a_later_stage_on_leaves_those_below_as_they_were(tmp_path: Path) -> None:
    made = training(tmp_path, epochs=1, first_learning=3)
    before = {name: value.clone() for name, value in made.network.named_parameters()}
    made.run()
    for name, value in made.network.named_parameters():
        assert torch.equal(value, before[name]) == (made.network.stage_of(name) < 3), name


def test_fit_tells_the_rate_of_the_layers_not_that_of_the_head(tmp_path: Path) -> None:
    made = of_the_head(tmp_path, epochs=1, head_factor=10.0, warmup_share=0.0)
    made.run()
    assert made.records[0].learning_rate <= COURSE.learning_rate


def test_validate_asked_to_stop_gives_nothing(tmp_path: Path) -> None:
    made, stop = of_the_head(tmp_path), StopRequest()
    stop.signal = 15
    assert validate(Trainer(made.network, made.course, made.train), made.val, stop=stop) is None


def test_fit_with_an_average_follows_the_weights_by_its_formula(tmp_path: Path) -> None:
    made = of_the_head(tmp_path, epochs=1, ema=True)
    expected = {name: value.detach().clone() for name, value in made.network.stage_parameters(5)}

    def watch(told: Any) -> None:
        if isinstance(told, Progress):
            step = -(-told.done // 4) - 1
            decay = min(0.99, (1 + step) / (10 + step))
            for name, value in made.network.stage_parameters(5):
                expected[name] = decay * expected[name] + (1 - decay) * value.detach()

    fitted = made.run(watch=watch)
    for name, value in fitted.tensors.items():
        assert torch.allclose(value, expected[name], atol=1e-6), name


@pytest.mark.parametrize("labels", [[0, 0, 0, 1], [0, 1, 2], [2, 2], [0, 0, 0, 0, 0, 0, 0, 0, 2]])
def test_class_weights_agree_with_scikit_learn(labels: list[int]) -> None:
    from sklearn.utils.class_weight import compute_class_weight

    present = np.unique(labels)
    weights = class_weights(np.array(labels, np.int64), NUM_CLASSES).numpy()
    expected = np.zeros(NUM_CLASSES)
    expected[present] = compute_class_weight("balanced", classes=present, y=labels)
    assert weights == pytest.approx(expected)
    assert weights[labels].mean() == pytest.approx(1.0)


def test_fit_with_class_weights_weighs_the_loss(tmp_path: Path) -> None:
    losses = {}
    for imbalance in ("none", "weights"):
        made = of_the_head(tmp_path / imbalance, epochs=1, learning_rate=1e-8, imbalance=imbalance)
        made.train = Labelled(made.train.source, np.array([0] * 8 + [1, 2], np.int64))
        made.run()
        losses[imbalance] = made.records[0].train_loss
    network, labels = thin_network(), torch.tensor([0] * 8 + [1, 2])
    with torch.no_grad():
        logits = network.classify(network.pool(made.train.source.batch(np.arange(10), 1)))
    each = F.cross_entropy(logits, labels, label_smoothing=0.1, reduction="none")
    assert losses["none"] == pytest.approx(each.mean().item(), rel=1e-3)
    weights = torch.tensor([10 / 24, 10 / 3, 10 / 3])
    weighted = F.cross_entropy(logits, labels, weight=weights, label_smoothing=0.1, reduction="none")
    assert losses["weights"] == pytest.approx(weighted.mean().item(), rel=1e-3)


def test_fit_with_balanced_sampling_shows_rare_classes_as_often(tmp_path: Path) -> None:
    made = of_the_head(tmp_path, epochs=12, imbalance="sampling", learning_rate=1e-8)
    seen: list[int] = []

    class Watched(Stored):
        def batch(self, places: NDArray[np.int64], epoch: int) -> Tensor:
            seen.extend(labels[places].tolist())
            return super().batch(places, epoch)

    labels = np.array([0] * 8 + [1, 2], np.int64)
    made.train = Labelled(Watched(torch.zeros(10, 8, 1, 1), 5), labels)
    made.val = Labelled(made.val.source, made.val.labels[:0])
    made.run()
    assert len(seen) == 120
    assert np.bincount(seen).min() > 120 / 3 - 4 * math.sqrt(120 * 2 / 9)


def test_add_of_a_step_that_fp16_skipped_leaves_the_largest_norm_a_number() -> None:
    account = Account()
    for step, norm in enumerate((2.0, math.inf, math.nan, 1.0), start=1):
        account.add(Reading(step, 4, 2.0, 3, norm), clip_norm=1.5)
    assert (account.last_step, account.largest_norm, account.last_norm) == (4, 2.0, 1.0)
    assert (account.loss_sum, account.correct, account.last_loss) == (8.0, 12, 0.5)
    assert (account.num_clipped, account.num_readings, account.first_loss, account.highest_loss) == (1, 4, 0.5, 0.5)
