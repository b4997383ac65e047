"""Whether one network is better than another, on the same test pictures. Pure, without torch.

Two things are left to chance: which pictures the test split has, and how a training went (its order, its augmentation). The first is
seen in a single training of each, by the pictures on which the two differ; the second only where networks were trained more than once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foldertune.evaluation.intervals import grouped_share
from foldertune.evaluation.metrics import NORMAL_95, Integers, paired_share_difference
from foldertune.scores import Interval, Pair

SURE = 0.05  # p below which a difference is shown
# Variance of a difference that trainings add, in parts of what the pictures leave open, where each was trained once and nobody knows.
# Ten short trainings each differed as much as the pictures explain on two sets (0.8 and 1.1 times), on X-rays from elsewhere 8.8 times;
# with 4 on top of 1, equals were called equal in 95 of 100 pairs and more on each (docs/figures/compare.md).
TRAINING_SHARE = 4.0
Rights = NDArray[np.bool_]  # (R, N): whether repeat r answers picture n right


@dataclass(frozen=True, slots=True)
class Term:
    """One part of a variance, and the degrees of freedom that it was estimated with."""

    variance: float
    freedom: float


def compare_rights(first: tuple[str, Rights], second: tuple[str, Rights], groups: Integers | None = None) -> Pair:
    """The difference of two networks, each with its name and (R, N), R from 1 and the same; p is not yet corrected for other pairs.

    groups: (N,), the same number for pictures that belong together, which are no independent witnesses.
    The variance is that of the pictures (paired, by groups) plus that of the repeats of each, with the degrees of freedom of such a sum.
    Source of adding them: Bouthillier et al. 2021, arXiv:2103.03098. What flips from one training to the next without moving the whole is
    in both, which errs on the safe side. p is never below that of McNemar's exact test on the pictures that one of the two alone answers
    right, and the interval never narrower than for so few.
    """
    (name, right), (other, other_right) = first, second
    if right.shape != other_right.shape:
        raise ValueError(f"{right.shape} answers cannot be paired with {other_right.shape}")
    means = right.mean(0), other_right.mean(0)
    value = float((means[0] - means[1]).mean())
    only_first = float(np.maximum(means[0] - means[1], 0).sum())
    only_second = float(np.maximum(means[1] - means[0], 0).sum())
    pictures = picture_variance(means[0] - means[1], groups)
    repeats = [repeat_variance(right), repeat_variance(other_right)]
    if len(right) == 1:
        repeats = [Term(TRAINING_SHARE * pictures.variance, pictures.freedom)]
    p, reach = _judged(value, [pictures, *repeats])
    ups, downs = round(only_first), round(only_second)
    p = max(p, _exact(ups, downs))
    few = paired_share_difference(ups, downs, right.shape[1])  # honest where no picture differs
    low, high = min(value - reach, few.low), max(value + reach, few.high)
    return Pair(name, other, Interval(value, max(-1.0, low), min(1.0, high)), only_first, only_second, p, p < SURE)


def _judged(value: float, terms: Sequence[Term]) -> tuple[float, float]:
    """P of a difference, two-sided, and half the width of its 95 % interval.

    The degrees of freedom of a sum of variances: Satterthwaite 1946, doi 10.2307/3002019.
    """
    from scipy.stats import t

    total = sum(term.variance for term in terms)
    if not total:
        return (1.0 if value == 0 else 0.0), 0.0
    freedom = total**2 / sum(term.variance**2 / term.freedom for term in terms)
    spread = math.sqrt(total)
    return float(2 * t.sf(abs(value) / spread, freedom)), float(t.ppf(1 - SURE / 2, freedom)) * spread


def _exact(ups: int, downs: int) -> float:
    """P of McNemar's exact test.   ups, downs: pictures that one of the two alone answers right."""
    from scipy.stats import binomtest

    return float(binomtest(ups, ups + downs).pvalue) if ups + downs else 1.0


def picture_variance(differences: NDArray[np.float64], groups: Integers | None = None) -> Term:
    """Of the mean of (N,) paired differences, by groups."""
    num = len(differences)
    units = num if groups is None else len(np.unique(groups))
    if units < 2:
        return Term(1.0, 1.0)  # nothing is known: as wide as a share can be
    if groups is None:
        return Term(float(differences.var(ddof=1)) / num, num - 1)
    _, places = np.unique(groups, return_inverse=True)
    sums = np.bincount(places, differences - differences.mean())
    return Term(float(np.square(sums).sum()) * units / (units - 1) / num**2, units - 1)


def repeat_variance(right: Rights) -> Term:
    """Of the mean accuracy over the repeats (R, N); of a single one nothing can be told."""
    if len(right) < 2:
        return Term(0.0, 1.0)
    return Term(float(right.mean(1).var(ddof=1)) / len(right), len(right) - 1)


def corrected(values: Sequence[float]) -> list[float]:
    """Values p corrected for how many there are, in their order. Source: Holm 1979, Scandinavian Journal of Statistics 6, 65-70."""
    order = sorted(range(len(values)), key=lambda place: values[place])
    found, highest = [0.0] * len(values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[place]))
        found[place] = highest
    return found


def mean_accuracy(right: Rights, groups: Integers | None = None) -> Interval:
    """The mean accuracy of (R, N) with a 95 % interval: that of the pictures, by groups (N,), widened by what the repeats differ."""
    each = [grouped_share(one, groups) for one in right]
    training, num = repeat_variance(right), right.shape[1]
    if not training.variance:
        return each[0]

    def reach(from_pictures: float) -> float:
        return _judged(0.0, [Term((from_pictures / NORMAL_95) ** 2, max(1, num - 1)), training])[1]

    value = float(right.mean())
    below, above = np.mean([one.value - one.low for one in each]), np.mean([one.high - one.value for one in each])
    return Interval(value, max(0.0, value - reach(float(below))), min(1.0, value + reach(float(above))))


def efficient(accuracies: Sequence[float], costs: Sequence[float]) -> list[bool]:
    """For each, whether no other is at least as accurate at no higher cost, and better in one of them (the Pareto front)."""
    rows = list(zip(accuracies, costs, strict=True))
    return [not any(other != row and other[0] >= row[0] and other[1] <= row[1] for other in rows) for row in rows]
