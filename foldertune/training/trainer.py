"""What changes while a network learns, and what of it must be saved: weights, optimizer, average, best weights, account."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from foldertune.data.loader import SharedSource, Source
from foldertune.forecast import SETTLED_PICTURES
from foldertune.team import ALONE, Team
from foldertune.training.checkpoint import State, flatten, optimizer_tensors, restore_optimizer, unflatten
from foldertune.training.meter import Meter, Reading
from foldertune.training.norm import share_norms
from foldertune.training.optimizer import (
    Schedule,
    freeze_below,
    make_optimizer,
    parameter_groups,
    set_rate,
)
from foldertune.training.statistics import adapting_norms, learning_mode, measure_statistics, sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from foldertune.models.network import Network
    from foldertune.stopping import StopRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How training goes, as the plan says; clip_norm alone is the same for all. Rates per step, times in seconds."""

    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    optimizer: str = "adamw"
    layer_decay: float = 1.0
    weight_decay: float = 0.01
    head_factor: float = 1.0
    warmup_share: float = 0.1
    label_smoothing: float = 0.0
    clip_norm: float = 1.0
    accumulate: int = 1
    eval_steps: int = 1
    early_stop: int = 0
    keep_within: float = 0.0  # standard errors by which a later epoch may be worse than the best one and is still kept
    imbalance: str = "none"
    batch_norm: str = "frozen"  # which batch norms take the statistics of each batch: statistics.adapting_norms
    ema: bool = False
    precision: str = "float32"
    device: str = "cpu"
    first_stage: int = 0  # the lowest stage that runs: what the source gives is its input
    first_learning: int = 0  # the lowest stage whose weights learn; those below it run as they are
    workers: int = 0
    save_s: float = 120.0
    deadline_s: float = math.inf  # of training time, all attempts together
    team: Team = ALONE  # the processes that share each batch


@dataclass(frozen=True, slots=True)
class Labelled:
    """A source with the class number of each of its pictures: labels (N,).

    unchanged: the same pictures as validation would see them, where training changes them.
    """

    source: Source
    labels: NDArray[np.int64]
    unchanged: Source | None = None


@dataclass(slots=True)
class Account:
    """What has happened so far in numbers; saved with every state, so that the history of a resumed run is the same text.

    The first three are known at once; losses and norms follow when they are read (meter.py).
    """

    epoch: int = 1
    step: int = 0
    place: int = 0  # pictures of this epoch that were trained on
    last_step: int = 0  # whose loss and norm are the last ones
    loss_sum: float = 0.0
    correct: int = 0
    largest_norm: float = 0.0
    first_loss: float | None = None  # of the epoch, as the two after it
    highest_loss: float | None = None
    num_clipped: int = 0
    num_readings: int = 0
    last_loss: float = math.nan
    last_norm: float = math.nan
    best_accuracy: float = -1.0
    best_loss: float = math.inf
    validations_since_best: int = 0
    elapsed_s: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)

    def add(self, reading: Reading, *, clip_norm: float) -> None:
        """Note a step; fp16 skips one whose norm is not finite, and goes on at a lower scale."""
        self.loss_sum, self.correct = self.loss_sum + reading.loss, self.correct + reading.num_correct
        self.last_step, self.last_loss, self.last_norm = reading.step, reading.loss / reading.num_pictures, reading.norm
        self.first_loss = self.last_loss if self.first_loss is None else self.first_loss
        self.highest_loss = max(self.last_loss, self.last_loss if self.highest_loss is None else self.highest_loss)
        self.num_readings += 1
        if math.isfinite(reading.norm):
            self.largest_norm = max(self.largest_norm, reading.norm)
            self.num_clipped += reading.norm > clip_norm

    def begin_epoch(self) -> None:
        """Go on to the next epoch, of which nothing is known."""
        self.epoch, self.place = self.epoch + 1, 0
        self.loss_sum, self.correct, self.largest_norm = 0.0, 0, 0.0
        self.first_loss, self.highest_loss, self.num_clipped, self.num_readings = None, None, 0, 0


def autocast(course: Course) -> torch.autocast:
    """The lower precision of training, where it has one."""
    lower = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(course.precision)
    return torch.autocast(course.device, lower, enabled=lower is not None)


class Trainer:
    """The mutable side of one training: network, optimizer, average, best weights, account. `fit` drives it."""

    def __init__(self, network: Network, course: Course, train: Labelled) -> None:
        self.network = network.to(course.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.course, self.team = course, course.team
        self.train = train
        share_norms(network, adapting_norms(network, course.batch_norm, first_stage=course.first_stage), self.team)
        first_learning = max(course.first_stage, course.first_learning)
        freeze_below(network, first_learning)
        self.learning = {name: value for name, value in network.named_parameters() if value.requires_grad}
        # Running statistics that change while learning are part of the state, like weights.
        self.statistics = dict(network.named_buffers()) if course.batch_norm != "frozen" else {}
        groups = parameter_groups(
            network, first_stage=first_learning, learning_rate=course.learning_rate,
            layer_decay=course.layer_decay, weight_decay=course.weight_decay, head_factor=course.head_factor,
        )  # fmt: skip
        self.optimizer = make_optimizer(course.optimizer, groups)
        self.steps_per_epoch = math.ceil(len(train.labels) / (course.batch_size * course.accumulate))
        num_steps = self.steps_per_epoch * course.epochs
        self.schedule = Schedule(num_steps, warmup_steps=round(course.warmup_share * num_steps))
        self.average = {name: value.detach().clone() for name, value in self.learning.items()} if course.ema else {}
        self.best: dict[str, Tensor] = {}
        weighted = course.imbalance == "weights"
        self.class_weights = class_weights(train.labels, network.num_classes).to(course.device) if weighted else None
        # float16 overflows without scaling; the scale is part of the saved state.
        self.scaler = torch.amp.GradScaler(course.device, enabled=course.precision == "fp16")
        self.account = Account()
        self.meter = Meter(course.device)
        self.mark()

    def learning_mode(self) -> None:
        """Set the network up to learn, as after a validation."""
        learning_mode(self.network, self.course.batch_norm)

    def mark(self) -> None:
        """Remember the start of a step; weights and optimizer need no copy, only the end of a step changes them."""
        self._start = replace(self.account), {name: value.clone() for name, value in self.statistics.items()}

    def go_back(self) -> None:
        """To the start of the step that was begun, as if none of its batches had been seen."""
        account, statistics = self._start
        self.account = replace(account)
        self._copy_in(statistics)
        self.meter.forget()
        self.optimizer.zero_grad(set_to_none=True)

    def micro_batch(self, x: Tensor, labels: Tensor, *, share: float) -> None:
        """Add the gradients of one batch, weighted by its share of the step.

        labels: (B,), of the whole batch.   x: the input of this process's part of it.
        """
        alone = len(labels) == 1 and self.network.training
        if alone:
            self.network.eval()  # one picture has no statistics worth having, and at 32 px none at all
        with self.autocast():
            features = self.network.pool(self.network.run_stages(x, first=self.course.first_stage))
            logits = self.network.classify(features)
        part = self.team.share(labels)
        losses = F.cross_entropy(
            logits.float(),
            part,
            weight=self.class_weights,
            label_smoothing=self.course.label_smoothing,
            reduction="none",
        )
        loss = losses.mean() if len(part) else losses.sum()
        self.scaler.scale(loss * (share * (len(part) / len(labels)))).backward()  # type: ignore[no-untyped-call]
        if alone:
            self.learning_mode()
        self.meter.see(len(labels), loss.detach(), len(part), (logits.argmax(1) == part).sum())

    def step(self) -> None:
        """One optimizer step over the batches since the last one; what it found is for the meter to tell.

        A loss or a norm that is not finite changes nothing, where it is known in time.
        """
        self.team.add_up([value.grad for value in self.learning.values() if value.grad is not None])
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(list(self.learning.values()), self.course.clip_norm)
        numbers = self.meter.close(self.account.step + 1, norm, self.team)
        if self.meter.late or self.scaler.is_enabled() or bool(numbers.isfinite().all()):
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self._follow()
        self.account.step += 1
        self.optimizer.zero_grad(set_to_none=True)

    def autocast(self) -> torch.autocast:
        return autocast(self.course)

    def learned(self) -> dict[str, Tensor]:
        """The weights that validation judges: the moving average where one is kept; and the statistics with them."""
        return {**(self.average or {name: value.detach() for name, value in self.learning.items()}), **self.statistics}

    @contextlib.contextmanager
    def judged(self) -> Iterator[None]:
        """The network in evaluation mode with the weights that validation judges; the learning ones come back after."""
        kept = {name: value.detach().clone() for name, value in self.learning.items()} if self.average else {}
        self._copy_in(self.average)
        self.network.eval()
        try:
            yield
        finally:
            self._copy_in(kept)

    def settle(self, stop: StopRequest) -> bool:
        """Measure the statistics of batch norms for the weights that validation judges; False if asked to stop on the way."""
        if not self.statistics:
            return True
        train = self.train
        places = sample(train.labels, SETTLED_PICTURES, seed=self.course.seed)
        with self.judged(), self.autocast():
            norms = adapting_norms(self.network, self.course.batch_norm, first_stage=self.course.first_stage)
            source = SharedSource(train.unchanged or train.source, self.team)
            return measure_statistics(self.network, norms, source, places, stop=stop, team=self.team)

    def keep_if_best(self, loss: float, accuracy: float, *, num_pictures: int) -> bool:
        """Keep what was validated on so many pictures if it is the best so far, or as good within the course's doubt.

        Best is the highest validation accuracy; the lower log loss breaks ties.
        """
        account = self.account
        if (accuracy, -loss) > (account.best_accuracy, -account.best_loss):
            account.best_accuracy, account.best_loss, account.validations_since_best = accuracy, loss, 0
        else:
            account.validations_since_best += 1
            doubt = self.course.keep_within * standard_error(account.best_accuracy, num_pictures)
            if not doubt or accuracy < account.best_accuracy - doubt:
                return False
        self.best = {name: value.detach().cpu().clone() for name, value in self.learned().items()}
        return True

    def state(self) -> State:
        tensors = {
            **flatten("model", {name: value.detach() for name, value in {**self.learning, **self.statistics}.items()}),
            **flatten("optimizer", optimizer_tensors(self.optimizer)),
            **flatten("average", self.average),
            **flatten("best", self.best),
            "rng/torch": torch.get_rng_state(),
        }
        return State(self.account.step, tensors, {"account": asdict(self.account), "scaler": self.scaler.state_dict()})

    def restore(self, state: State) -> None:
        self._copy_in(unflatten("model", state.tensors))
        restore_optimizer(self.optimizer, unflatten("optimizer", state.tensors))
        for name, value in unflatten("average", state.tensors).items():
            self.average[name].copy_(value)
        self.best = unflatten("best", state.tensors)
        torch.set_rng_state(state.tensors["rng/torch"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state.facts["scaler"])
        self.account = Account(**state.facts["account"])
        if self.account.step:
            set_rate(self.optimizer, self.schedule.factor(self.account.step - 1))  # what the last step left behind

    def is_finite(self) -> bool:
        return all(bool(torch.isfinite(value).all()) for value in (*self.learning.values(), *self.statistics.values()))

    @torch.no_grad()
    def _copy_in(self, tensors: dict[str, Tensor]) -> None:
        for name, value in tensors.items():
            {**self.learning, **self.statistics}[name].copy_(value)

    def _follow(self) -> None:
        if self.average:
            # The average starts short, so that it forgets the start within the first tenth of training.
            decay = min(0.99, (1 + self.account.step) / (10 + self.account.step))
            torch._foreach_lerp_(
                list(self.average.values()), [value.detach() for value in self.learning.values()], 1 - decay
            )


def standard_error(accuracy: float, num_pictures: int) -> float:
    """Of an accuracy measured on so many pictures. Two right and two wrong answers more keep it from 0 where all are right.

    Source: Agresti and Coull 1998, doi 10.1080/00031305.1998.10480550.
    """
    share = (accuracy * num_pictures + 2) / (num_pictures + 4)
    return math.sqrt(share * (1 - share) / (num_pictures + 4))


def class_weights(labels: NDArray[np.int64], num_classes: int) -> Tensor:
    """A weight for each class, the inverse of its share, averaging 1 over the pictures; (K,). A class without any gets 0."""
    counts = np.bincount(labels, minlength=num_classes)
    present = counts > 0
    weights = np.zeros(num_classes)
    weights[present] = len(labels) / (present.sum() * counts[present])
    return torch.tensor(weights, dtype=torch.float32)
