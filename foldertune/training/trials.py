"""What frozen features can tell beside a first model: how well unknown classes are told, and how sure a small test set is.

Heads are fitted again on parts of the pictures, at the strength that was chosen for the whole; no picture is computed again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from foldertune.data.split import fold_of_units, units
from foldertune.evaluation.intervals import area, wilson_share
from foldertune.evaluation.metrics import fit_temperature, softmax
from foldertune.evaluation.unlike import FEWEST, KINDS, MAX_SOFTMAX, fit_unlike, known_scores
from foldertune.forecast import (
    WORTHWHILE,
)  # above so many heads are not fitted again: some forty seconds on one core, a guess
from foldertune.records import SPLITS, Interval, Picture, Split
from foldertune.scores import CrossValidation
from foldertune.training.head import refit_folds, refit_head

if TYPE_CHECKING:
    from numpy.typing import NDArray

TRIALS = 2  # raised whenever the same features give other figures
FEW_TEST_PICTURES = 30  # of a class: an interval of its recall is then wider than a third
NUM_FOLDS, NUM_REPEATS = 5, 3
# Below four classes there are not two others to tell a held-out one from. More than six say hardly more of which score is better: a guess.
FEWEST_CLASSES, _MOST_HELD_OUT = 4, 6


@dataclass(frozen=True, slots=True)
class Features:
    """Frozen features (N, D) with class numbers (N,) by split. num_classes: K."""

    values: Mapping[Split, NDArray[np.float32]]
    labels: Mapping[Split, NDArray[np.int64]]
    num_classes: int

    @property
    def work(self) -> float:
        """Multiply-adds of one pass of fitting over all pictures."""
        return float(sum(values.size for values in self.values.values()) * self.num_classes)


@dataclass(frozen=True, slots=True)
class Trials:
    """aurocs: by score of unlike pictures, see `held_out_aurocs`; empty where it was not tried.   again: None where it was not needed."""

    aurocs: Mapping[str, float] = field(default_factory=dict)
    again: CrossValidation | None = None


NO_TRIALS = Trials()


def wants_cross_validation(found: Features) -> bool:
    """Whether a class has too few test pictures to know its recall, and heads are fitted in seconds."""
    counts = np.bincount(found.labels["test"], minlength=found.num_classes)
    return bool(counts.min() < FEW_TEST_PICTURES) and found.work <= WORTHWHILE and len(found.labels["train"]) > 0


def try_features(
    found: Features,
    pictures: Mapping[Split, Sequence[Picture]],
    *,
    strength: float,
) -> Trials:
    """Both, each where it is of use.   strength: that of the fitted head."""
    again = None
    if wants_cross_validation(found):
        again = cross_validate(found, pictures, strength=strength, seed=0)
    return Trials(held_out_aurocs(found, strength=strength), again)


def held_out_aurocs(found: Features, *, strength: float) -> dict[str, float]:
    """How well each score tells a class that was held out from the others' validation pictures: AUROC, the mean over some classes.

    By name of the score, with that of the largest probability to compare. Empty where there are too few classes or pictures.
    """
    classes = [k for k in range(found.num_classes) if (found.labels["train"] == k).any()]
    if len(classes) < FEWEST_CLASSES or found.work > WORTHWHILE:
        return {}
    chosen = np.linspace(0, len(classes) - 1, min(_MOST_HELD_OUT, len(classes))).round().astype(int)
    rows = [_held_out(found, classes[place], strength) for place in chosen]
    told = [row for row in rows if row]
    return {name: float(np.mean([row[name] for row in told])) for name in told[0]} if told else {}


def _held_out(found: Features, unseen: int, strength: float) -> dict[str, float]:
    """The AUROC of each score with one class held out; empty where too few others are left to validate on."""
    known = {split: found.labels[split] != unseen for split in ("train", "val")}
    val = _without(found.labels["val"][known["val"]], unseen)
    if len(val) < FEWEST or known["train"].all():
        return {}
    weight, bias = refit_head(
        found.values["train"][known["train"]], _without(found.labels["train"][known["train"]], unseen),
        num_classes=found.num_classes - 1, strength=strength,
    )  # fmt: skip
    logits = {split: found.values[split] @ weight.T + bias for split in ("train", "val")}
    temperature = fit_temperature(logits["val"][known["val"]], val)
    inside = logits["val"][known["val"]] / temperature
    outside = np.concatenate([logits[split][~known[split]] for split in ("train", "val")]) / temperature
    scores = {
        kind: (known_scores(inside, val, kind), fit_unlike(inside, val, kind=kind).scores(outside)) for kind in KINDS
    }
    scores[MAX_SOFTMAX] = -softmax(inside).max(1).astype(np.float64), -softmax(outside).max(1).astype(np.float64)
    return {name: _auroc(*pair) for name, pair in scores.items()}


def _without(labels: NDArray[np.int64], unseen: int) -> NDArray[np.int64]:
    """The class numbers when one class is taken out."""
    return labels - (labels > unseen)


def _auroc(inside: NDArray[np.float64], outside: NDArray[np.float64]) -> float:
    found = area(np.concatenate([inside, outside]), np.arange(len(inside) + len(outside)) >= len(inside))
    assert found is not None
    return found.value


# ------------------------------------------------------------------------------------------------------------- cross-validation


def cross_validate(
    found: Features,
    pictures: Mapping[Split, Sequence[Picture]],
    *,
    strength: float,
    seed: int,
) -> CrossValidation:
    """The head fitted on four fifths of all pictures and tested on the fifth, for each fifth, three times over.

    Identical files and pictures of one group, as copies and bursts are, stay on one side.
    """
    everything = [picture for split in SPLITS for picture in pictures[split]]
    features = np.concatenate([found.values[split] for split in SPLITS])
    labels = np.concatenate([found.labels[split] for split in SPLITS])
    together = units(everything)
    by_row = [fold_of_units(together, NUM_FOLDS, seed=seed + repeat) for repeat in range(NUM_REPEATS)]
    folds = np.array([[fold[picture.row] for picture in everything] for fold in by_row], np.int64)
    answers = refit_folds(features, labels, folds, num_classes=found.num_classes, strength=strength).argmax(2)
    hits = answers == labels
    right = hits.mean(0)
    shares = [
        float(found_right[own == fold].mean())
        for found_right, own in zip(hits, folds, strict=True)
        for fold in np.unique(own)
    ]
    counts = np.bincount(labels, minlength=found.num_classes)
    recalls = np.bincount(labels, right, found.num_classes) / np.maximum(1, counts)
    return CrossValidation(
        corrected_interval(shares, test_share=1 / NUM_FOLDS, num_pictures=len(labels)),
        tuple(
            wilson_share(float(recall), int(count)) if count else Interval(0.0, 0.0, 1.0)
            for recall, count in zip(recalls, counts, strict=True)
        ),
        len(labels), NUM_FOLDS, NUM_REPEATS,
    )  # fmt: skip


def corrected_interval(shares: Sequence[float], *, test_share: float, num_pictures: int) -> Interval:
    """The mean of accuracies of overlapping splits with its 95 % interval, nowhere narrower than Wilson's of as many pictures.

    Splits that all answer alike, such as everything right, would else be taken for certainty.

    shares: one for each split, that tested on `test_share` of the pictures and trained on the others.
    Its variance is (1 / J + test / train) s^2, because training parts overlap. Source: Nadeau and Bengio 2003,
    doi 10.1023/A:1024068626366; for repeated folds Bouckaert and Frank 2004, doi 10.1007/978-3-540-24775-3_3.
    """
    from scipy.special import stdtrit

    num = len(shares)
    mean, variance = float(np.mean(shares)), float(np.var(shares, ddof=1)) if num > 1 else math.inf
    spread = float(stdtrit(max(1, num - 1), 0.975)) * math.sqrt((1 / num + test_share / (1 - test_share)) * variance)
    least = wilson_share(mean, num_pictures)
    return Interval(mean, max(0.0, min(least.low, mean - spread)), min(1.0, max(least.high, mean + spread)))
