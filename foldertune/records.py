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
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from foldertune.scores import ClassScore as ClassScore  # noqa: PLC0414  # the form by which mypy sees what is passed on
from foldertune.scores import Comparison as Comparison  # noqa: PLC0414
from foldertune.scores import Contestant as Contestant  # noqa: PLC0414
from foldertune.scores import Evaluation as Evaluation  # noqa: PLC0414
from foldertune.scores import Interval as Interval  # noqa: PLC0414
from foldertune.scores import Pair as Pair  # noqa: PLC0414

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
class Light:
    """Of a whole picture in grey, 0 to 255: mean, standard deviation, and what 5 and 95 % of its pixels do not exceed.

    chroma: mean of the largest less the smallest channel; 0 is grey.   detail: root mean square of the Laplacian over the standard
    deviation, at 224 px or the shorter side if that is less; the less, the more blurred.
    """

    mean: float
    spread: float
    low: float
    high: float
    chroma: float
    detail: float


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


Source = Literal["user", "file", "compare", "rule"]


@dataclass(frozen=True, slots=True)
class Decision:
    """One row of a plan: a setting, its value, and why. `rule` is the name of the rule; `source` says who decided."""

    setting: str
    value: Any
    reason: str
    rule: str
    source: Source = "rule"


@dataclass(frozen=True, slots=True)
class AccuracyRange:
    """Where the accuracy on the test pictures will lie: from `low` to `high` in so many of all runs as `level` says; `value` is expected.

    head_accuracy: of the head on frozen features, out of fold, on num_judged training pictures.   num_test: pictures that it will be
    measured on.   why: what is expected of the run beyond the head.
    """

    value: float
    low: float
    high: float
    level: float
    head_accuracy: float
    num_judged: int
    num_test: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run is expected to take on this machine, and to reach.

    accuracy: None where it cannot be had, and in older runs; no_accuracy then says why.
    """

    minutes: float
    memory_mib: float
    disk_mib: float
    cache_mib: float = 0.0  # of disk_mib, what goes into the cache
    accuracy: AccuracyRange | None = None
    no_accuracy: str = ""


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
    # None in runs that began before these were measured.
    first_loss: float | None = None  # of the epoch's first step
    highest_loss: float | None = None  # of a step of the epoch
    clipped_share: float | None = None  # of the epoch's steps, those whose gradient was longer than is allowed
    waited_share: float | None = None  # of the time of learning, what went by until the next batch was there


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one picture file, or the error that stands in its place.

    label: "unknown" where the model would rather not answer; then `known` is false and `reason` says why.
    top: the most probable classes with their probabilities, also then.   probability: of the first of them.
    """

    path: str
    label: str | None
    probability: float | None
    top: tuple[tuple[str, float], ...] = ()
    error: str | None = None
    known: bool = True
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Box:
    """A hot part of a picture, in pixels of the whole upright picture; right and bottom are the first pixels beyond it.

    share: of the heat in all boxes' parts, in [0, 1].   peak: the hottest place in it, where 1 is the hottest of the picture.
    """

    left: int
    top: int
    right: int
    bottom: int
    share: float
    peak: float


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A training picture that the network sees much as the explained one. path: in the run's folder of pictures.

    similarity: cosine of the two feature vectors, in [-1, 1].   note: what there is to say of the file; empty where it is as it was.
    """

    path: str
    label: str
    similarity: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class Checks:
    """What a map's trust rests on; docs/explain.md has the rule.

    likeness: rank correlation of the map with those of the network with randomised upper layers, in [-1, 1]; near 0 is good.
    insertion, deletion, by_chance: mean probability of the class while the picture is uncovered from its hottest place on, covered
    from there on, and uncovered in random orders.   luck: by how much two random orders differ at most.   span: by how much the
    probability changed in all of these.
    """

    likeness: float
    insertion: float
    deletion: float
    by_chance: float
    luck: float
    span: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a picture was answered as it was, or the error that stands in its place.

    label: the class that is explained, with its probability; answer: the class that was answered.   map: the file of the drawn map.
    seen: share of the picture that the network sees.   trust: in [0, 1].   warnings: where the map fails a check, and why.
    """

    path: str
    label: str | None
    probability: float | None
    answer: str | None = None
    map: str | None = None
    boxes: tuple[Box, ...] = ()
    nearest: tuple[Neighbour, ...] = ()
    trust: float | None = None
    checks: Checks | None = None
    seen: float | None = None
    warnings: tuple[str, ...] = ()
    error: str | None = None


Severity = Literal["serious", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("serious", "warning", "note")  # the gravest first


@dataclass(frozen=True, slots=True)
class Evidence:
    """One row that a finding rests on: a picture of the folder, a class, or an epoch of a run.

    path: of the picture in its folder; of a class its name, of an epoch "epoch 7".   score: how much this row speaks for the
    finding, in [0, 1].   note: what is to be seen, a few words.   other: the second member of a pair.   label: the class that the row
    is filed under.   suggested: the class that it seems to belong to.
    """

    path: str
    score: float
    note: str = ""
    other: str = ""
    label: str = ""
    suggested: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or worth knowing, with what mends it.

    kind: one of `diagnosis.findings.KINDS`.   sentence: what was found, with its numbers.   score: how sure it is, in [0, 1].
    evidence: all of it, the row that speaks most for it first.   remedy: one command, or what to do where no command can.
    """

    kind: str
    sentence: str
    severity: Severity
    score: float
    evidence: tuple[Evidence, ...]
    remedy: str


@dataclass(frozen=True, slots=True)
class Examination:
    """What `look` found in a folder.

    classes: readable pictures of each.   num_pictures: readable ones by split.   split_source: see Dataset.
    skipped: why files are no pictures of a class, with their number.   findings: the most important first.
    left_out: what was not looked for, and why.
    """

    folder: str
    classes: Mapping[str, int]
    num_pictures: Mapping[str, int]
    split_source: str
    skipped: Mapping[str, int]
    findings: tuple[Finding, ...]
    left_out: tuple[str, ...] = ()


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


def restored(kind: type[T], stored: Mapping[str, Any]) -> T:
    """The record that `plain` wrote: of an older version, whose missing fields have defaults, or of a newer one, whose others are dropped.

    Raises KeyError, TypeError or ValueError where it is none.
    """
    hints = get_type_hints(kind)
    names = [item.name for item in dataclasses.fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: _restored(hints[name], stored[name]) for name in names if name in stored})


def _restored(hint: Any, value: Any) -> Any:
    if value is None:
        return None
    if dataclasses.is_dataclass(hint):
        return restored(hint, value)  # type: ignore[arg-type]
    inner = get_args(hint)
    if get_origin(hint) is tuple:
        kinds = [inner[0]] * len(value) if inner[1:] == (...,) else inner
        return tuple(_restored(each, part) for each, part in zip(kinds, value, strict=True))
    if type(None) in inner:
        return _restored(next(each for each in inner if each is not type(None)), value)
    return value
