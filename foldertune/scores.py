"""What a model is worth, as records: everything that an evaluation tells. `records` has them too, where they travel with the others.

Shares, probabilities and errors are fractions in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Interval:
    """A measured share or mean with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ClassScore:
    """auc: of this class against all others. What is None was not measured: an older run, or a class without pictures or answers."""

    label: str
    precision: float
    recall: float
    f1: float
    num_pictures: int
    precision_interval: Interval | None = None
    recall_interval: Interval | None = None
    auc: Interval | None = None


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Answers whose confidence lies above `low` and up to `high`: their mean confidence, and how many of them are right."""

    low: float
    high: float
    num_pictures: int
    confidence: float
    accuracy: Interval


@dataclass(frozen=True, slots=True)
class Calibration:
    """Whether confidence means what it says. Errors are expected calibration errors, fractions in [0, 1].

    error_if_perfect: what a perfectly calibrated model stays under in 95 of 100 samples of as many pictures.
    temperature: what the logits were divided by, fitted on validation; error_before: without it.
    """

    error: Interval
    error_if_perfect: float
    bins: tuple[ReliabilityBin, ...]
    temperature: float | None = None
    error_before: float | None = None


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """One way to answer between two classes: `positive` from this probability on.

    name: "default", "sensitive" or "balanced".   chosen_on: "val", or "" where nothing was chosen.
    """

    name: str
    threshold: float
    chosen_on: str
    sensitivity: Interval
    specificity: Interval


@dataclass(frozen=True, slots=True)
class TwoClasses:
    """What is asked of a test with two outcomes. roc: (false positive rate, sensitivity) along all thresholds, from (0, 0) to (1, 1)."""

    positive: str
    auc: Interval
    points: tuple[OperatingPoint, ...]
    roc: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class KeptPromise:
    """What a promised error rate comes to on these pictures. error: among the answers given; None where there are none.

    threshold: the confidence below which the answer is "unknown"; None where validation was too small to promise that.
    num_unlike: of the pictures not answered, those that look like nothing the model was trained on.
    """

    promise: float
    threshold: float | None
    answered: Interval
    error: Interval | None
    num_unlike: int = 0


@dataclass(frozen=True, slots=True)
class ConfusedPair:
    """Pictures of class `label` that were answered as `answer`: their rows of dataset.csv and their paths, the surest first."""

    label: str
    answer: str
    num_pictures: int
    rows: tuple[int, ...]
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CrossValidation:
    """The head alone, fitted and tested again and again on other parts of all readable pictures: for sets too small to test on.

    accuracy: with an interval that is corrected for the overlap of the training parts.   recalls: by class, in class order.
    """

    accuracy: Interval
    recalls: tuple[Interval, ...]
    num_pictures: int
    num_folds: int
    num_repeats: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the model does on one split. `confusion[i][j]` counts pictures of class i answered as class j.

    All answers count, also those that `predict` would refuse to give. What is None was not measured: runs of older versions have less.
    """

    split: str
    num_pictures: int
    accuracy: Interval
    top5: float | None  # only where there are more than 5 classes
    macro_f1: float
    log_loss: float
    per_class: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]
    classes: tuple[str, ...]
    top5_interval: Interval | None = None
    macro_f1_interval: Interval | None = None
    log_loss_interval: Interval | None = None
    macro_auc: Interval | None = None  # each class against all others, averaged; of two classes it is that of one
    calibration: Calibration | None = None
    two_classes: TwoClasses | None = None
    promises: tuple[KeptPromise, ...] = ()
    confused: tuple[ConfusedPair, ...] = ()
    cross_validation: CrossValidation | None = None
    num_leaked: int = 0  # pictures that show the same as one of another split, or are of its group
    without_leaks: Interval | None = None  # accuracy on the others
    left_out: tuple[str, ...] = ()  # paths of pictures that the model was trained or chosen with


@dataclass(frozen=True, slots=True)
class Contestant:
    """One network of a comparison, trained once or several times on the same split.

    weights: what it began from.   runs: its run folders.   kept: which model each of them kept.   accuracies: of each on the test
    pictures; accuracy: their mean, with what the pictures and the repeats leave open.   learning_s: of fine-tuning, minutes: of a whole
    run, both on average; the first run of a comparison looks at and prepares the pictures for all.   size_mb: of the weights, 10^6
    bytes.   latency_ms: of one picture here in float32, without decoding, and pictures_per_s in batches of 8, both with `engine`; 0 where
    it could not be measured.   advice: what the guide says of it for so many pictures; empty where it says nothing.   efficient: no other
    is at least as accurate and as fast, and better in one of them.
    """

    model: str
    weights: str
    runs: tuple[str, ...]
    kept: tuple[str, ...]
    accuracy: Interval
    accuracies: tuple[float, ...]
    macro_f1: float
    log_loss: float
    minutes: float
    learning_s: float
    parameters: int
    size_mb: float
    latency_ms: float
    pictures_per_s: float
    engine: str
    advice: str
    efficient: bool = False


@dataclass(frozen=True, slots=True)
class Pair:
    """Two networks on the same test pictures. difference: accuracy of the first less that of the second.

    only_first, only_second: pictures that one of the two alone answers right, on average over the repeats.   p: of so large a
    difference if there were none, two-sided, corrected for the number of pairs (Holm).   shown: whether p is below 0.05.
    """

    first: str
    second: str
    difference: Interval
    only_first: float
    only_second: float
    p: float
    shown: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """What `compare` found. contestants: the most accurate first.   pairs: each of them against each, in that order.

    take: the network to take; answer: why, in sentences.   minutes: the budget of each run; None where none had one.
    left_out: networks that could not be compared, each with the reason.   path: the folder of the comparison.
    """

    folder: str
    path: str
    num_pictures: Mapping[str, int]
    num_classes: int
    minutes: float | None
    repeats: int
    contestants: tuple[Contestant, ...]
    pairs: tuple[Pair, ...]
    take: str
    answer: str
    left_out: tuple[str, ...] = ()
