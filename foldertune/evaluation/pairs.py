"""Whether one network is better than another, on the same test pictures. Pure, without torch.

Two things are left to chance: which pictures the test split has, and how a training went (its order, its augmentation). The first is
seen in a single training of each, by the pictures on which the two differ; the second only where networks were trained more than once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from foldertune.evaluation.intervals import wilson_share
from foldertune.evaluation.metrics import NORMAL_95, Integers, paired_share_difference
from foldertune.scores import Interval, Pair

SURE = 0.05  # p below which a difference is shown
# Variance of a difference that the training adds, in parts of what the pictures leave open, where each was trained once: see
# docs/log.md, two trainings of one network.
TRAINING_SHARE = 1.0
Rights = NDArray[np.bool_]  # (R, N): whether repeat r answers picture n right


def compare_rights(first: tuple[str, Rights], second: tuple[str, Rights], groups: Integers | None = None) -> Pair:
    """The difference of two networks, each with its name and (R, N), R from 1; p is not yet corrected for other pairs.

    groups: (N,), the same number for pictures that belong together, which are no independent witnesses.
    The variance is that of the pictures (paired, by groups) plus that of the repeats, each with its degrees of freedom (Welch and
    Satterthwaite). Source of adding the two: Bouthillier et al. 2021, arXiv:2103.03098. With one training of each p is never below that
    of McNemar's exact test.
    """
    from scipy.stats import binomtest, t

    (name, right), (other, other_right) = first, second
    means = right.mean(0), other_right.mean(0)
    value = float((means[0] - means[1]).mean())
    only_first = float(np.maximum(means[0] - means[1], 0).sum())
    only_second = float(np.maximum(means[1] - means[0], 0).sum())
    of_pictures, units = picture_variance(means[0] - means[1], groups)
    once = len(right) == 1 and len(other_right) == 1
    of_training = TRAINING_SHARE * of_pictures if once else _repeat_variance(right) + _repeat_variance(other_right)
    total = of_pictures + of_training
    freedom = _freedom(of_pictures, units - 1, 0.0 if once else of_training, len(right) + len(other_right) - 2)
    spread, p = math.sqrt(total), 1.0 if value == 0 else 0.0
    low = high = value
    if spread:
        p = float(2 * t.sf(abs(value) / spread, freedom))
        reach = float(t.ppf(1 - SURE / 2, freedom)) * spread
        low, high = value - reach, value + reach
    if once:
        ups, downs = int((right & ~other_right).sum()), int((other_right & ~right).sum())
        p = max(p, float(binomtest(ups, ups + downs).pvalue) if ups + downs else 1.0)
        few = paired_share_difference(ups, downs, right.shape[1])  # honest where no picture differs
        low, high = min(low, few.low), max(high, few.high)
    interval = Interval(value, max(-1.0, low), min(1.0, high))
    return Pair(name, other, interval, only_first, only_second, p, p < SURE)


def picture_variance(differences: NDArray[np.float64], groups: Integers | None = None) -> tuple[float, int]:
    """The variance of the mean of (N,) paired differences, by groups, and how many units it rests on."""
    num = len(differences)
    if num < 2:
        return 1.0, max(2, num)  # nothing is known: as wide as a share can be
    if groups is None:
        return float(differences.var(ddof=1)) / num, num
    _, places = np.unique(groups, return_inverse=True)
    sums = np.bincount(places, differences - differences.mean())
    if len(sums) < 2:
        return 1.0, 2
    return float(np.square(sums).sum()) * len(sums) / (len(sums) - 1) / num**2, len(sums)


def _repeat_variance(right: Rights) -> float:
    """Of the mean accuracy over the repeats; of a single one nothing can be told, and the other network's repeats stand for it."""
    return float(right.mean(1).var(ddof=1)) / len(right) if len(right) > 1 else 0.0


def _freedom(first: float, first_freedom: int, second: float, second_freedom: int) -> float:
    """Degrees of freedom of a sum of two variances. Source: Satterthwaite 1946, doi 10.2307/3002019."""
    total = first + second
    if not total:
        return 1.0
    parts = (first**2 / max(1, first_freedom)) + (second**2 / max(1, second_freedom) if second else 0.0)
    return max(1.0, total**2 / parts) if parts else 1.0


def corrected(values: Sequence[float]) -> list[float]:
    """Values p corrected for how many there are, in their order. Source: Holm 1979, Scandinavian Journal of Statistics 6, 65-70."""
    order = sorted(range(len(values)), key=lambda place: values[place])
    found, highest = [0.0] * len(values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[place]))
        found[place] = highest
    return found


def mean_accuracy(right: Rights) -> Interval:
    """The mean accuracy of (R, N) with a 95 % interval: Wilson's for the pictures, widened by what the repeats differ."""
    value = float(right.mean())
    pictures = wilson_share(value, right.shape[1])
    if len(right) == 1:
        return pictures
    training = NORMAL_95 * math.sqrt(_repeat_variance(right))
    low, high = (math.hypot(value - pictures.low, training), math.hypot(pictures.high - value, training))
    return Interval(value, max(0.0, value - low), min(1.0, value + high))


def efficient(accuracies: Sequence[float], costs: Sequence[float]) -> list[bool]:
    """For each, whether no other is at least as accurate at no higher cost, and better in one of them (the Pareto front)."""
    rows = list(zip(accuracies, costs, strict=True))
    return [not any(other != row and other[0] >= row[0] and other[1] <= row[1] for other in rows) for row in rows]
