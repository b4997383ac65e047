"""The nouns that travel between the parts. Plain frozen records: no behaviour beyond reading themselves, no heavy import.

Letters of shapes, defined here once: N pictures, B pictures of a batch, K classes, D values of a feature vector,
S side of the model's square input in pixels, P side of a stored canvas in pixels, C channels, H height, W width.
Shares and probabilities are fractions in [0, 1]. Paths inside a folder are relative, with forward slashes.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

T = TypeVar("T")

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a long piece of work is: `done` of `total` units of `stage` (for example "look", "features")."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that a watcher of a run is told, one line of events.jsonl. `facts` is JSON-ready; docs/events.md lists the kinds."""

    kind: str
    time: float  # seconds since the epoch of the clock
    facts: Mapping[str, Any]


# Long work is a generator: it yields its progress, and what a watcher should know, and returns its result. Nobody passes callbacks.
Work = Generator[Progress | Event, None, T]


def finish(work: Generator[Any, None, T]) -> T:
    """Run a piece of work to its end and return its result, ignoring what it yields."""
    while True:
        try:
            next(work)
        except StopIteration as stop:
            result: T = stop.value
            return result


@dataclass(frozen=True, slots=True)
class Picture:
    """One file of the folder, one row of dataset.csv. `row` is its number everywhere: caches, predictions, report."""

    row: int
    path: str
    label: str
    split: Split | None = None
    group: str = ""
    width: int = 0
    height: int = 0
    sha256: str = ""
    problem: str = ""  # why the picture is left out; empty when it can be read

    @property
    def readable(self) -> bool:
        return not self.problem


@dataclass(frozen=True, slots=True)
class Dataset:
    """A folder of pictures as rows. `pictures[i].row == i`; unreadable ones stay listed, with their problem."""

    folder: Path
    classes: tuple[str, ...]  # sorted; the index in here is the class number
    pictures: tuple[Picture, ...]
    split_source: str  # "folders", "csv", "made" or "made from train" (where the folder gives a part of the splits)
    skipped: Mapping[str, int] = field(default_factory=dict)  # reason -> count of files that are no pictures of a class
    warnings: tuple[str, ...] = ()

    @property
    def readable(self) -> tuple[Picture, ...]:
        return tuple(picture for picture in self.pictures if picture.readable)

    @property
    def unreadable(self) -> tuple[Picture, ...]:
        return tuple(picture for picture in self.pictures if not picture.readable)

    def of(self, split: Split) -> tuple[Picture, ...]:
        """The readable pictures of one split, in row order."""
        return tuple(picture for picture in self.pictures if picture.readable and picture.split == split)

    def class_counts(self, split: Split | None = None) -> dict[str, int]:
        """Readable pictures per class, every class named, in class order."""
        counts = Counter(picture.label for picture in (self.readable if split is None else self.of(split)))
        return {name: counts[name] for name in self.classes}


Source = Literal["user", "file", "rule"]


@dataclass(frozen=True, slots=True)
class Decision:
    """One row of a plan: a setting, its value, and why. `rule` is the name of the rule; `source` says who decided."""

    setting: str
    value: Any
    reason: str
    rule: str
    source: Source = "rule"


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run is expected to take on this machine."""

    minutes: float
    memory_mib: float
    disk_mib: float
    cache_mib: float = 0.0  # of disk_mib, what goes into the cache


@dataclass(frozen=True, slots=True)
class Plan:
    """Every setting of a run with its reason, what it will cost, and what to worry about before it starts."""

    decisions: tuple[Decision, ...]
    forecast: Forecast | None = None
    warnings: tuple[str, ...] = ()

    def __getitem__(self, setting: str) -> Any:
        for decision in self.decisions:
            if decision.setting == setting:
                return decision.value
        raise KeyError(setting)

    def values(self) -> dict[str, Any]:
        return {decision.setting: decision.value for decision in self.decisions}


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One line of history.jsonl. Validation values are None in epochs that did not validate."""

    epoch: int  # from 1
    step: int  # optimizer steps so far
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    learning_rate: float
    gradient_norm: float  # the largest of the epoch, before clipping
    pictures_per_s: float
    elapsed_s: float
    best: bool  # the state to be kept so far


@dataclass(frozen=True, slots=True)
class Interval:
    """A measured share or mean with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ClassScore:
    label: str
    precision: float
    recall: float
    f1: float
    num_pictures: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the model does on one split. `confusion[i][j]` counts pictures of class i answered as class j."""

    split: str
    num_pictures: int
    accuracy: Interval
    top5: float | None  # only where there are more than 5 classes
    macro_f1: float
    log_loss: float
    per_class: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one picture file, or the error that stands in its place."""

    path: str
    label: str | None
    probability: float | None
    top: tuple[tuple[str, float], ...] = ()
    error: str | None = None


def plain(record: Any) -> Any:
    """A record as JSON-ready values: dataclasses become dicts, tuples lists, paths strings."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {item.name: plain(getattr(record, item.name)) for item in dataclasses.fields(record)}
    if isinstance(record, Mapping):
        return {str(key): plain(value) for key, value in record.items()}
    if isinstance(record, (list, tuple, set, frozenset)):
        return [plain(value) for value in record]
    if isinstance(record, Path):
        return str(record)
    return record
