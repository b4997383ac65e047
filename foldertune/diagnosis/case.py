"""The case of a run: all that is known of how it learned, and what a rule may say of it. Pure.

Whatever was not measured, because the run is older or did not come so far, is None or empty; rules then say nothing.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from foldertune.recipe import auto_learning_rate
from foldertune.records import EpochRecord, Evidence, Finding, Severity
from foldertune.settings import LookSettings, is_beyond_guide

# 95 %: Wilson 1927, as in evaluation.metrics.
_Z = 1.959964


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one model on one split. Accuracy and recalls are shares; recall by class, of those that have pictures there."""

    accuracy: float
    log_loss: float
    num_pictures: int
    recall: Mapping[str, float] = field(default_factory=dict)
    num_by_class: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Copy:
    """A training picture and one of val or test that shows the same. right: whether the latter was answered right; None unknown."""

    path: str
    other: str
    split: str
    right: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """run, folder: as one would type them.   asked: the settings that were given.   plan: every setting.

    figures: by model ("baseline", "fine-tuned") and split.   class_counts: by split, then class.   copies: across splits.
    split_source: as of a Dataset.
    uncopied_accuracy: of the kept model on validation pictures without a copy.   labels, inputs, machine: as the event "examined"
    has them; learned: as the event of that name.   suspects: of the labels, as rows of evidence.   diverged: the error of a training
    that met a number that is not finite.
    """

    run: str
    folder: str
    asked: Mapping[str, Any] = field(default_factory=dict)
    plan: Mapping[str, Any]
    history: tuple[EpochRecord, ...] = ()
    figures: Mapping[str, Mapping[str, Figures]] = field(default_factory=dict)
    kept: str = ""
    classes: tuple[str, ...] = ()
    class_counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    copies: tuple[Copy, ...] = ()
    uncopied_accuracy: float | None = None
    split_source: str = ""
    labels: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    learned: Mapping[str, Any] = field(default_factory=dict)
    suspects: tuple[Evidence, ...] = ()
    diverged: str = ""

    @property
    def typed_folder(self) -> str:
        """The folder as one word of a command line."""
        return shlex.quote(self.folder)

    def count(self, split: str) -> int:
        return sum(self.class_counts.get(split, {}).values())

    def of(self, model: str, split: str = "val") -> Figures | None:
        return self.figures.get(model, {}).get(split)

    @property
    def chance_loss(self) -> float:
        """Log loss of answering all classes alike, in nats."""
        return math.log(max(2, len(self.classes)))

    @property
    def usual_rate(self) -> float:
        """What the automatic plan would take for what else was chosen here."""
        return float(auto_learning_rate(self.plan)[0])

    @property
    def rate_ratio(self) -> float:
        """The peak learning rate over the usual one."""
        return float(self.plan["learning_rate"]) / self.usual_rate

    @property
    def num_steps(self) -> int:
        """Optimizer steps that were taken."""
        return self.history[-1].step if self.history else 0

    @property
    def pretrained(self) -> bool:
        return bool(self.plan["weights"] != "random")

    @property
    def plain_accuracy(self) -> float | None:
        """Of training pictures as validation would see them; those of the last epoch where they were not changed at all."""
        found = self.learned.get("plain_accuracy")
        if found is None and self.history and self.plan["augmentation"] == "none":
            return self.history[-1].train_accuracy
        return found


@dataclass(frozen=True, slots=True)
class Remedy:
    """Settings that would be changed (None: left to the plan), and why; or, without any, what to do instead."""

    reason: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""  # where it is not a training with other settings


@dataclass(frozen=True, slots=True)
class Cause:
    """A finding about a run with all its remedies, the best first; the finding names the first one's command."""

    finding: Finding
    remedies: tuple[Remedy, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a rule says, before the command is put together."""

    kind: str
    sentence: str
    severity: Severity
    score: float
    evidence: tuple[Evidence, ...]
    remedies: tuple[Remedy, ...]


def cause_of(case: Case, told: Told) -> Cause:
    remedies = tuple(
        Remedy(each.reason, each.changes, each.command or train_command(case, each.changes)) for each in told.remedies
    )
    score = min(1.0, max(0.0, told.score))
    finding = Finding(told.kind, told.sentence, told.severity, score, told.evidence, remedies[0].command)
    return Cause(finding, remedies)


def train_command(case: Case, changes: Mapping[str, Any] | None = None) -> str:
    """`foldertune train` with what was asked for, changed."""
    settings = {name: value for name, value in {**case.asked, **(changes or {})}.items() if value is not None}
    if is_beyond_guide(settings):
        settings["beyond_guide"] = True  # else `train` refuses the very command
    return _command("train", case.typed_folder, settings)


def look_command(case: Case) -> str:
    """`foldertune look` at the pictures as the run saw them, with a patch of what would mend them."""
    settings = {name: value for name, value in case.asked.items() if name in LookSettings.__annotations__}
    return _command("look", case.typed_folder, {**settings, "write_patch": "patch.csv"})


def _command(verb: str, folder: str, settings: Mapping[str, Any]) -> str:
    words = ["foldertune", verb, folder]
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{flag}")
        else:
            words += [f"--{flag}", f"{value:g}" if isinstance(value, float) else shlex.quote(str(value))]
    return " ".join(words)


def of_epochs(records: Iterable[EpochRecord]) -> tuple[Evidence, ...]:
    """Epochs as rows of evidence, with their figures."""
    return tuple(Evidence(f"epoch {record.epoch}", 1.0, _figures(record)) for record in records)


def _figures(record: EpochRecord) -> str:
    parts = [f"train loss {record.train_loss:.3f}, accuracy {record.train_accuracy:.1%}"]
    if record.val_loss is not None and record.val_accuracy is not None:
        parts.append(f"val loss {record.val_loss:.3f}, accuracy {record.val_accuracy:.1%}")
    parts.append(f"rate {record.learning_rate:.1e}, gradient norm up to {record.gradient_norm:.2g}")
    return "; ".join(parts)


def interval_of(share: float, num_pictures: int) -> tuple[float, float]:
    """The ends of the 95 % interval of a share of so many pictures. Source: Wilson 1927, doi 10.1080/01621459.1927.10502953."""
    if not num_pictures:
        return 0.0, 1.0
    middle = (share + _Z**2 / (2 * num_pictures)) / (1 + _Z**2 / num_pictures)
    half = _Z / (1 + _Z**2 / num_pictures)
    half *= math.sqrt(share * (1 - share) / num_pictures + _Z**2 / (4 * num_pictures**2))
    return max(0.0, middle - half), min(1.0, middle + half)
