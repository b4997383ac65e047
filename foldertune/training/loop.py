"""The training loop: a generator of progress and epoch records. Read `fit` from top to bottom.

Everything that could differ between an uninterrupted run and a resumed one is either a pure function of (seed, epoch, step) or
part of the saved state.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from foldertune.data.loader import SharedSource, batches_ahead, epoch_order, on_device
from foldertune.errors import DivergedError, InterruptedRunError
from foldertune.records import EpochRecord, Event, Progress
from foldertune.run import event
from foldertune.training.checkpoint import load_state, remove_unfinished, save_state
from foldertune.training.optimizer import set_rate
from foldertune.training.trainer import Account, Course, Labelled, Trainer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from foldertune.models.network import Network
    from foldertune.stopping import StopRequest


@dataclass(frozen=True, slots=True)
class Fitted:
    """The best validated weights (only those that learned), and every epoch's record."""

    tensors: dict[str, Tensor]
    history: list[EpochRecord]


_OF_A_STEP = ("The loss", "The gradient")  # what every step is judged by

Batch = tuple["NDArray[np.int64]", Tensor]  # places and the network's input
Steps = Generator[Progress | EpochRecord | Event, None, Fitted]


def fit(network: Network, course: Course, train: Labelled, val: Labelled, *, folder: Path, stop: StopRequest) -> Steps:
    """Train, yielding a Progress per step (in pictures) and an EpochRecord per epoch; returns the best validated weights.

    Goes on from the newest complete state in `folder`. Ends early at the deadline, or when validation has not improved for
    `early_stop` validations. Raises InterruptedRunError with the state saved, and DivergedError at the first number that is
    not finite, which it names.
    """
    trainer, team = Trainer(network, course, train), course.team
    yield from _restored(trainer, folder)
    account, began = trainer.account, time.monotonic() - trainer.account.elapsed_s
    saved_at = time.monotonic()
    total = course.epochs * len(train.labels)
    step_pictures = course.batch_size * course.accumulate
    source = SharedSource(train.source, team)

    while account.epoch <= course.epochs and not _is_over(trainer):
        epoch_began, epoch_start = time.monotonic(), account.place
        trainer.learning_mode()
        balanced = course.imbalance == "sampling"
        order = epoch_order(train.labels, seed=course.seed, epoch=account.epoch, balanced=balanced)
        batches = Awaited(
            batches_ahead(
                source, order, course.batch_size, epoch=account.epoch, start=account.place, workers=course.workers
            )
        )

        for places, x in batches:
            # Rare work first: save between steps, where the state is whole, and stop.
            if account.place % step_pictures == 0:
                account.elapsed_s = team.first(time.monotonic() - began)
                due = time.monotonic() - saved_at > course.save_s and not stop.signal
                _note(trainer, folder, everything=due)
                trainer.mark()
                if due:
                    _save(trainer, folder)
                    saved_at = time.monotonic()
                if account.elapsed_s > course.deadline_s:
                    break
            if team.heard(stop):
                trainer.go_back()
                raise _interrupted(trainer, folder, stop)
            # ---------------------------------------------------------------- the step
            labels = on_device(train.labels[places], course.device)
            in_step = min(step_pictures, len(order) - account.place // step_pictures * step_pictures)
            trainer.micro_batch(x, labels, share=len(places) / in_step)
            account.place += len(places)
            if account.place % step_pictures == 0 or account.place == len(order):
                set_rate(trainer.optimizer, trainer.schedule.factor(account.step))
                trainer.step()
                _note(trainer, folder)
            # ---------------------------------------------------------------- the step
            yield Progress("train", (account.epoch - 1) * len(order) + account.place, total)

        if account.place:  # else the time was over before the first step
            pace = _pace(account.place - epoch_start, epoch_began, batches)
            yield _close_epoch(trainer, val, began=began, pace=pace, folder=folder, stop=stop)

    account.elapsed_s = time.monotonic() - began
    _save(trainer, folder)  # what follows a finished training may be interrupted too
    return Fitted(trainer.best or trainer.learned(), history_of(account))


def _note(trainer: Trainer, folder: Path, *, everything: bool = False) -> None:
    """Put into the account what is known of the steps; raises DivergedError at the first number that is not finite."""
    for reading in trainer.meter.readings(everything=everything):
        for what, value in zip(_OF_A_STEP, (reading.loss, reading.norm), strict=True):
            skipped = what == _OF_A_STEP[1] and trainer.course.precision == "fp16"
            if not math.isfinite(value) and not skipped:
                raise _not_finite(what, trainer, folder, step=reading.step)
        trainer.account.add(reading, clip_norm=trainer.course.clip_norm)


def _restored(trainer: Trainer, folder: Path) -> Generator[Event, None, None]:
    """Go back to the newest complete state, where there is one, telling of every newer one that was refused."""
    if trainer.team.is_first:
        remove_unfinished(folder)
    trainer.team.wait()
    state, refused = load_state(folder)
    for sentence in refused:
        where = f"step {state.step:,}" if state else "the baseline"
        yield event("warning", text=f"{sentence} Training goes on from {where}.")
    if state is not None:
        trainer.restore(state)
        yield event("resumed", step=state.step, epoch=trainer.account.epoch)


def validate(trainer: Trainer, val: Labelled, *, stop: StopRequest | None = None) -> tuple[float, float] | None:
    """(log loss, accuracy) on the validation pictures, in the precision of training; None if asked to stop on the way."""
    network, team, source = trainer.network, trainer.team, SharedSource(val.source, trainer.team)
    loss_sum, correct = 0.0, 0
    with trainer.judged(), torch.inference_mode(), trainer.autocast():
        for start in range(0, len(val.labels), 32):
            if stop is not None and team.heard(stop):
                return None
            places = np.arange(start, min(start + 32, len(val.labels)))
            x = network.run_stages(source.batch(places, 0), first=source.first_stage)
            logits = network.classify(network.pool(x)).float()
            labels = torch.from_numpy(team.share(val.labels[places])).to(logits.device)
            loss_sum += float(F.cross_entropy(logits, labels, reduction="sum"))
            correct += int((logits.argmax(1) == labels).sum())
    found = team.sum(loss_sum, correct)
    return found[0] / len(val.labels), found[1] / len(val.labels)


def history_of(account: Account) -> list[EpochRecord]:
    return [EpochRecord(**record) for record in account.history]


def _close_epoch(
    trainer: Trainer, val: Labelled, *, began: float, pace: Pace, folder: Path, stop: StopRequest
) -> EpochRecord:
    """Validate where it is due, note the epoch, and set the account to the start of the next one."""
    account, course, team = trainer.account, trainer.course, trainer.team
    _note(trainer, folder, everything=True)
    account.elapsed_s = team.first(time.monotonic() - began)
    loss: float | None = None
    accuracy: float | None = None
    best = False
    last = account.epoch == course.epochs or _no_time_for_another(account, course, num_done=account.epoch)
    due = last or account.epoch % course.eval_steps == 0
    # Interrupted from here on, the state stands at the end of the epoch, and does all of this again when resumed.
    if due and not trainer.settle(stop):
        raise _interrupted(trainer, folder, stop)
    if due and len(val.labels):
        found = validate(trainer, val, stop=stop)
        if found is None:
            raise _interrupted(trainer, folder, stop)
        loss, accuracy = found
        if not math.isfinite(loss):
            trainer.mark()  # the epoch's last step is done
            raise _not_finite("The validation loss", trainer, folder, step=account.step)
        best = trainer.keep_if_best(loss, accuracy, num_pictures=len(val.labels))
    if due:  # else the time stays as it was when this epoch was judged not to be the last
        account.elapsed_s = team.first(time.monotonic() - began)
    record = EpochRecord(
        epoch=account.epoch,
        step=account.step,
        train_loss=account.loss_sum / max(1, account.place),
        train_accuracy=account.correct / max(1, account.place),
        val_loss=loss,
        val_accuracy=accuracy,
        learning_rate=course.learning_rate * trainer.schedule.factor(max(0, account.step - 1)),
        gradient_norm=account.largest_norm,
        pictures_per_s=pace.pictures_per_s,
        elapsed_s=account.elapsed_s,
        best=best,
        first_loss=account.first_loss,
        highest_loss=account.highest_loss,
        clipped_share=account.num_clipped / max(1, account.num_readings),
        waited_share=pace.waited_share,
    )
    account.history.append(asdict(record))
    account.begin_epoch()
    return record


def _is_over(trainer: Trainer) -> bool:
    """Whether training should end before its last epoch: no time for another one, or nothing more to earn."""
    account, course = trainer.account, trainer.course
    if account.place:
        return False  # an epoch that was begun before an interruption is closed like any other
    if course.early_stop and account.validations_since_best >= course.early_stop:
        return True
    return _no_time_for_another(account, course, num_done=account.epoch - 1)


def _no_time_for_another(account: Account, course: Course, *, num_done: int) -> bool:
    """Whether less than half an epoch would fit before the deadline."""
    epoch_s = account.elapsed_s / num_done if num_done else 0.0
    return account.elapsed_s + 0.5 * epoch_s > course.deadline_s


def _save(trainer: Trainer, folder: Path) -> None:
    """Save the state; never one with weights that are not finite, which would only fail again when resumed."""
    if not trainer.team.is_first:
        return  # every process has the same
    if not trainer.is_finite():
        raise _not_finite("A weight", trainer, folder, step=trainer.account.step)
    save_state(folder, trainer.state())


def _not_finite(what: str, trainer: Trainer, folder: Path, *, step: int) -> DivergedError:
    """Save the state before the step that failed, if its weights are still whole, and say what happened."""
    trainer.go_back()
    account, course = trainer.account, trainer.course
    saved, _ = load_state(folder)
    # On a GPU the step that failed, and one more, were taken before its numbers were read: there is no way back.
    taken = trainer.meter.late and what in _OF_A_STEP
    if not taken and trainer.is_finite() and (saved is None or saved.step < account.step):
        if trainer.team.is_first:
            save_state(folder, trainer.state())
        saved_step = account.step
    else:
        saved_step = saved.step if saved else 0
    kept = f"Step {saved_step:,} is saved." if saved_step else "The baseline is saved."
    total = trainer.steps_per_epoch * course.epochs
    return DivergedError(
        f"{what} stopped being finite at step {step:,} of {total:,} (step {account.last_step:,}: loss "
        f"{account.last_loss:.4g}, gradient norm {account.last_norm:.4g}). {kept} "
        f"The learning rate is {course.learning_rate:g}: start a new run with a lower one, such as {course.learning_rate / 10:g}."
    )


def _interrupted(trainer: Trainer, folder: Path, stop: StopRequest) -> InterruptedRunError:
    """Save the state, and say how to go on."""
    _note(trainer, folder, everything=True)
    _save(trainer, folder)
    account = trainer.account
    return InterruptedRunError(
        f"Interrupted at step {account.step:,}, epoch {account.epoch}; the state is saved. "
        f"Go on with `foldertune train --resume {folder.parent}`.",
        128 + stop.signal,
    )


class Awaited:
    """Batches, and the seconds that went by while the next one was waited for."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches, self.waited_s = batches, 0.0

    def __iter__(self) -> Awaited:
        return self

    def __next__(self) -> Batch:
        asked = time.monotonic()
        batch = next(self._batches)
        self.waited_s += time.monotonic() - asked
        return batch


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast an epoch went, or the part of it after an interruption."""

    pictures_per_s: float
    waited_share: float


def _pace(pictures: int, began: float, batches: Awaited) -> Pace:
    passed = max(1e-9, time.monotonic() - began)
    return Pace(pictures / passed, min(1.0, batches.waited_s / passed))
