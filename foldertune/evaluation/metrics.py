"""What a model's answers are worth, in numbers with intervals. Pure; without torch, scikit-learn only where it works.

Everywhere: probabilities (N, K), rows sum to 1; labels (N,), class numbers in [0, K). The answer is the class with the
largest probability, the first of equals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldertune.errors import DataError, WorkFailedError
from foldertune.records import ClassScore, Evaluation, Interval

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]

# The 97.5 % point of the standard normal distribution: two-sided 95 %.
NORMAL_95 = 1.959963984540054
# Probabilities are raised to this before their logarithm: a certain wrong answer costs 16.1 instead of infinity. It is
# about the resolution of float32 near 1, the arithmetic that the probabilities come from.
LEAST_PROBABILITY = 1e-7
COLDEST, HOTTEST = 0.05, 20.0
_SHARPER = 1.92  # nats: half of 3.84, the 95 % point of the chi-squared distribution with one degree of freedom
_ENOUGH_WRONG = 5  # answers that say how sure a model may be; a guess


def evaluate_probabilities(
    probabilities: Floats, labels: Integers, *, classes: Sequence[str], split: str
) -> Evaluation:
    """Every figure of one split.

    probabilities: (N, K) with K = len(classes).   labels: (N,).
    macro_f1 averages over the classes that occur in the labels or in the answers, as scikit-learn's f1_score does: a
    class that the split has no picture of, and that was never answered, says nothing. per_class and confusion keep
    every class in its place; a class without pictures has num_pictures 0 and precision, recall and F1 0.
    top5 is None up to 5 classes, where it would be 1 whatever the model does. Log loss: see `log_loss`.
    Raises DataError where N is 0.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    probabilities, labels = _checked(probabilities, labels)
    num_classes = len(classes)
    if probabilities.shape[1] != num_classes:
        raise ValueError(f"probabilities have {probabilities.shape[1]} columns and there are {num_classes} classes")
    answers, numbers = probabilities.argmax(1), np.arange(num_classes)
    precision, recall, f1, support = precision_recall_fscore_support(labels, answers, labels=numbers, zero_division=0.0)
    occurs = np.bincount(np.concatenate([labels, answers]), minlength=num_classes) > 0
    return Evaluation(
        split=split,
        num_pictures=len(labels),
        accuracy=wilson_interval(int((answers == labels).sum()), len(labels)),
        top5=float(among_best(probabilities, labels, 5).mean()) if num_classes > 5 else None,
        macro_f1=float(f1[occurs].mean()),
        log_loss=log_loss(probabilities, labels),
        per_class=tuple(
            ClassScore(name, float(precision[k]), float(recall[k]), float(f1[k]), int(support[k]))
            for k, name in enumerate(classes)
        ),
        confusion=tuple(tuple(map(int, row)) for row in confusion_matrix(labels, answers, labels=numbers)),
        classes=tuple(classes),
    )


def wilson_interval(num_correct: int, num_pictures: int) -> Interval:
    """A share with its 95 % interval, which stays inside [0, 1] and is honest for few pictures and for shares near 1.

    Source: Wilson 1927, doi 10.1080/01621459.1927.10502953; recommended for small numbers by Brown, Cai and DasGupta
    2001, doi 10.1214/ss/1009213286.
    Raises DataError where num_pictures is 0.
    """
    if num_pictures < 1:
        raise DataError("There is no picture to measure on. Give a split with at least one readable picture.")
    if not 0 <= num_correct <= num_pictures:
        raise ValueError(f"{num_correct} correct of {num_pictures} is impossible")
    return wilson(num_correct / num_pictures, num_pictures)


def wilson(share: float, num_pictures: float) -> Interval:
    """`wilson_interval` of a share in [0, 1] of so many pictures, above 0, which need be no whole number."""
    z2 = NORMAL_95**2 / num_pictures
    centre = share + z2 / 2
    spread = NORMAL_95 * math.sqrt(share * (1 - share) / num_pictures + z2 / (4 * num_pictures))
    low, high = (centre - spread) / (1 + z2), (centre + spread) / (1 + z2)
    # Rounding may put an end a hair past a share of exactly 0 or 1.
    return Interval(share, max(0.0, min(low, share)), min(1.0, max(high, share)))


def softmax(logits: Floats) -> NDArray[np.float32]:
    """Logits (N, K), any finite size, as probabilities (N, K); float64 inside, float32 out."""
    return np.exp(_log_softmax(logits)).astype(np.float32)


def log_loss(probabilities: Floats, labels: Integers) -> float:
    """Mean of -ln(probability of the right class), in nats; probabilities below 1e-7 count as 1e-7.

    Raises DataError where N is 0.
    """
    return float(picture_losses(*_checked(probabilities, labels)).mean())


def picture_losses(probabilities: Floats, labels: Integers) -> NDArray[np.float64]:
    """The log loss of each picture, (N,); the same clipping as `log_loss`."""
    chosen = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return -np.log(np.clip(chosen, LEAST_PROBABILITY, 1.0))


def fit_temperature(logits: Floats, labels: Integers) -> float:
    """The T in [0.05, 20] that gives softmax(logits / T) the lowest log loss; 1.0 where N is 0.

    logits: (N, K) on pictures that the model did not learn from.
    A few pictures, all answered right, would make any model sure of everything. So with fewer than five wrong answers T is raised
    until the mean confidence is not above what the right ones speak for by the rule of succession, (right + 1) / (N + 2).
    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2.
    """
    from scipy.optimize import minimize_scalar

    if len(labels) == 0:
        return 1.0
    right = np.arange(len(labels)), labels

    def loss(log_temperature: float) -> float:
        return -float(_log_softmax(np.asarray(logits, np.float64) / math.exp(log_temperature))[right].mean())

    # On the logarithm, because halving and doubling T are alike. Log loss is convex in 1 / T, so there is one minimum.
    found = minimize_scalar(
        loss, bounds=(math.log(COLDEST), math.log(HOTTEST)), method="bounded", options={"xatol": 1e-6}
    )
    best = min(HOTTEST, max(COLDEST, math.exp(float(found.x))))
    return _not_too_sure(np.asarray(logits, np.float64), labels, best)


def careful_temperature(logits: Floats, labels: Integers) -> float:
    """`fit_temperature`, but below 1 only where that is beyond chance, by a likelihood ratio test at 95 %.

    For a model that is kept: the epoch was chosen on these pictures, so they flatter, and say sooner than others that it could be surer.
    """
    best = fit_temperature(logits, labels)
    if best >= 1:
        return best
    right = np.arange(len(labels)), labels
    gained = _log_softmax(np.asarray(logits, np.float64) / best)[right] - _log_softmax(logits)[right]
    return best if float(gained.sum()) > _SHARPER else 1.0


def _not_too_sure(logits: NDArray[np.float64], labels: Integers, coldest: float) -> float:
    """The lowest temperature from `coldest` on at which the mean confidence is not above what the right answers speak for."""
    num_right = int((logits.argmax(1) == labels).sum())
    most = (num_right + 1) / (len(labels) + 2)

    def too_sure(temperature: float) -> bool:
        return float(np.exp(_log_softmax(logits / temperature).max(1)).mean()) > most

    if len(labels) - num_right >= _ENOUGH_WRONG or not too_sure(coldest):
        return coldest
    low, high = math.log(coldest), math.log(HOTTEST)  # confidence falls as the temperature rises
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if too_sure(math.exp(middle)) else (low, middle)
    return math.exp(high)


def paired_difference(losses_a: Floats, losses_b: Floats) -> Interval:
    """The mean of a - b over the same pictures with its 95 % interval; above 0 throughout means that b is better.

    losses_a, losses_b: (N,), position by position the same picture. Normal approximation: mean ± 1.96 s / sqrt(N), s
    being the standard deviation of the differences (N - 1 in its denominator); one picture gives an infinite interval.
    Source: the paired analysis of Miller 2024, arXiv:2411.00640.
    Raises DataError where N is 0.
    """
    if len(losses_a) != len(losses_b):
        raise ValueError(f"{len(losses_a)} losses cannot be paired with {len(losses_b)}")
    if len(losses_a) == 0:
        raise DataError("There is no picture to compare on. Give a split with at least one readable picture.")
    differences = np.asarray(losses_a, np.float64) - np.asarray(losses_b, np.float64)
    mean = float(differences.mean())
    if len(differences) == 1:
        return Interval(mean, -math.inf, math.inf)
    spread = NORMAL_95 * float(differences.std(ddof=1)) / math.sqrt(len(differences))
    return Interval(mean, mean - spread, mean + spread)


def paired_share_difference(only_first: int, only_second: int, num_pictures: int) -> Interval:
    """The share of right answers of one model less that of another on the same pictures, with its 95 % interval.

    only_first, only_second: pictures that one of the two alone answers right.   num_pictures: all, from 1.
    Half a picture is added to each of the four counts for the interval, which keeps it honest where no picture differs.
    Source: Agresti and Min 2005, doi 10.1002/sim.1781.
    """
    if num_pictures < 1:
        raise DataError("There is no picture to compare on. Give a split with at least one readable picture.")
    if min(only_first, only_second) < 0 or only_first + only_second > num_pictures:
        raise ValueError(f"{only_first} and {only_second} of {num_pictures} pictures are impossible")
    total, first, second = num_pictures + 2, only_first + 0.5, only_second + 0.5
    centre = (first - second) / total
    spread = NORMAL_95 * math.sqrt(first + second - (first - second) ** 2 / total) / total
    value = (only_first - only_second) / num_pictures
    return Interval(value, max(-1.0, min(value, centre - spread)), min(1.0, max(value, centre + spread)))


def worst_mistakes(probabilities: Floats, labels: Integers, *, count: int) -> list[int]:
    """Positions of at most `count` wrong answers, the most confident first, equals by position."""
    answers = probabilities.argmax(1)
    wrong = np.flatnonzero(answers != labels)
    confidence = probabilities[wrong, answers[wrong]]
    return [int(position) for position in wrong[np.argsort(-confidence, kind="stable")][:count]]


def _checked(probabilities: Floats, labels: Integers) -> tuple[Floats, Integers]:
    probabilities, labels = np.asarray(probabilities), np.asarray(labels)
    if len(labels) == 0:
        raise DataError("There is no picture to measure on. Give a split with at least one readable picture.")
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise ValueError(f"probabilities {probabilities.shape} and labels {labels.shape} do not fit together")
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise ValueError(f"class numbers must lie in 0 to {probabilities.shape[1] - 1}")
    if not np.isfinite(probabilities).all():
        raise WorkFailedError("The model gives answers that are not numbers. Train again with --precision float32.")
    return probabilities, labels


def among_best(probabilities: Floats, labels: Integers, count: int) -> NDArray[np.bool_]:
    """(N,): whether a picture's class is among the `count` most probable, the first of equals ahead."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :count]
    found: NDArray[np.bool_] = (best == labels[:, None]).any(1)
    return found


def _log_softmax(logits: Floats) -> NDArray[np.float64]:
    shifted = np.asarray(logits, np.float64)
    shifted = shifted - shifted.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
