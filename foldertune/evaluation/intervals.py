"""95 % intervals for figures that are no shares: by resampling the test pictures, and for areas under the ROC. Pure, without torch.

Where pictures come in groups (one patient, one burst), groups are what is resampled: pictures of one group are no independent witnesses.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foldertune.evaluation.calibration import NUM_BINS, bin_numbers, confidence_and_right
from foldertune.evaluation.metrics import NORMAL_95, Floats, Integers, picture_losses, wilson, wilson_interval
from foldertune.scores import Interval

NUM_DRAWS = 2000
_AT_ONCE = 4_000_000  # counts that are held at a time


@dataclass(frozen=True, slots=True)
class Resampled:
    """Figures of each drawn test set, (B,)."""

    macro_f1: NDArray[np.float64]
    log_loss: NDArray[np.float64]
    calibration_error: NDArray[np.float64]


def resample(
    probabilities: Floats,
    labels: Integers,
    *,
    groups: Integers | None = None,
    num_draws: int = NUM_DRAWS,
    seed: int = 0,
) -> Resampled:
    """Figures of test sets that are drawn from this one with replacement, group by group or picture by picture.

    probabilities: (N, K).   labels: (N,).   groups: (N,), numbers in [0, G), the same for what belongs together.
    All figures follow from sums over pictures, so that a draw is a row of counts times a sparse matrix.
    """
    from scipy.sparse import csr_array

    num, k = probabilities.shape
    answers, (confidences, right) = probabilities.argmax(1), confidence_and_right(probabilities, labels)
    rows = np.arange(num)
    # Columns of sums: right answers, answers and pictures of each class; losses; confidence less right answers in each bin.
    entries = [
        (rows[right], labels[right], np.ones(int(right.sum()))),
        (rows, k + answers, np.ones(num)),
        (rows, 2 * k + labels, np.ones(num)),
        (rows, np.full(num, 3 * k), picture_losses(probabilities, labels)),
        (rows, 3 * k + 1 + bin_numbers(confidences), confidences - right),
    ]
    places, columns, values = (np.concatenate(parts) for parts in zip(*entries, strict=True))
    units = rows if groups is None else groups
    num_units = int(units.max()) + 1
    # Transposed, because scipy multiplies a sparse matrix from the left. Entries of one group in one column are added up.
    sums = csr_array((values, (columns, units[places])), shape=(3 * k + 1 + NUM_BINS, num_units))
    found = []
    for counts in _drawn(num_units, num_draws, seed):
        found.append(_figures((sums @ counts.T).T, k))
    return Resampled(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _drawn(num_units: int, num_draws: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """How often each unit was drawn, (b, G) at a time."""
    random = np.random.Generator(np.random.Philox(key=[seed, 0x626F6F74]))
    step = max(1, _AT_ONCE // num_units)
    for start in range(0, num_draws, step):
        size = min(step, num_draws - start)
        drawn = random.integers(num_units, size=(size, num_units)) + num_units * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * num_units).reshape(size, num_units).astype(np.float64)


def _figures(sums: NDArray[np.float64], k: int) -> tuple[NDArray[np.float64], ...]:
    """Macro F1, log loss and calibration error, each (B,), of sums (B, 3 K + 1 + bins)."""
    right, answered, pictures = sums[:, :k], sums[:, k : 2 * k], sums[:, 2 * k : 3 * k]
    occurs = answered + pictures  # what F1 averages over: see metrics.evaluate_probabilities
    f1 = np.divide(2 * right, occurs, out=np.zeros_like(right), where=occurs > 0)
    num = pictures.sum(1)
    macro_f1 = f1.sum(1) / np.maximum(1, (occurs > 0).sum(1))
    return macro_f1, sums[:, 3 * k] / num, np.abs(sums[:, 3 * k + 1 :]).sum(1) / num


def share_interval(value: float, drawn: NDArray[np.float64], num_pictures: int) -> Interval:
    """The interval of a figure in [0, 1] that is not a mean of pictures, such as macro F1: 1.96 standard errors of its logit.

    Source: the normal bootstrap interval on a transformed scale, Davison and Hinkley 1997, section 5.2. Where no draw differs, as when
    every answer is right, Wilson's interval of so many pictures.
    """
    if not drawn.std():
        return wilson_share(value, num_pictures)
    inside = 0.5 / num_pictures  # the logit of 0 and 1 is infinite
    logit = np.log(np.clip(drawn, inside, 1 - inside) / np.clip(1 - drawn, inside, 1 - inside))
    middle = math.log(max(value, inside) / max(1 - value, inside))
    spread = NORMAL_95 * float(logit.std(ddof=1))
    low, high = (1 / (1 + math.exp(-end)) for end in (middle - spread, middle + spread))
    return Interval(value, min(value, low), max(value, high))


def wilson_share(share: float, num: int) -> Interval:
    """Wilson's interval of any share, also one that is no count over N."""
    found = wilson_interval(min(num, round(share * num)), num)
    return Interval(share, min(share, found.low), max(share, found.high))


def grouped_share(right: NDArray[np.bool_], groups: Integers | None = None) -> Interval:
    """A share of pictures (M,), M from 1, with Wilson's interval for as many independent pictures as they are worth by their groups (M,).

    The more the pictures of a group agree, the fewer they are worth: the number is divided by how much larger the variance by groups is
    than that of independent pictures. Where all pictures agree that cannot be told, and a group counts as one.
    Source: Korn and Graubard 1998, Survey Methodology 24, 193-201; Kish 1965, "Survey Sampling", for the number of equal witnesses.
    """
    num, share = len(right), float(right.mean())
    if groups is None:
        return wilson_interval(int(right.sum()), num)
    _, places, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    alone = share * (1 - share) / num
    if not alone or len(sizes) < 2:
        worth = num**2 / float(np.square(sizes).sum())
    else:
        sums = np.bincount(places, right - share)
        by_groups = float(np.square(sums).sum()) * len(sizes) / (len(sizes) - 1) / num**2
        worth = num * min(1.0, alone / by_groups) if by_groups else float(num)
    return wilson(share, worth)


def loss_interval(value: float, drawn: NDArray[np.float64]) -> Interval:
    """The interval of a figure above 0 whose draws lean to the right: 1.96 standard errors of its logarithm."""
    least = 1e-12
    spread = NORMAL_95 * float(np.log(np.maximum(drawn, least)).std(ddof=1))
    return Interval(value, value * math.exp(-spread), value * math.exp(spread))


def mirrored_interval(value: float, drawn: NDArray[np.float64]) -> Interval:
    """For a figure that draws make too large, such as a calibration error: their distances from it, mirrored, from 0 on.

    Source: the basic bootstrap interval, Davison and Hinkley 1997, section 5.2. Its ends are those for 99 %: with those for 95 % it
    held the error of all pictures in 86 to 92 of 100 resamplings of three sets, with these in 96 to 98 (docs/log.md).
    """
    low, high = np.quantile(drawn, (0.005, 0.995))
    return Interval(value, max(0.0, min(value, 2 * value - float(high))), max(value, 2 * value - float(low)))


# -------------------------------------------------------------------------------------------------------------------------- AUC


@dataclass(frozen=True, slots=True)
class Area:
    """An area under the ROC with what each picture has to do with it. influence: (N,), their sum over all is about 0."""

    value: float
    influence: NDArray[np.float64]
    num_positive: int
    num_negative: int


def area(scores: Floats, positive: NDArray[np.bool_]) -> Area | None:
    """The share of pairs of a positive and a negative picture that the scores put right, ties counting half; None without a pair.

    scores: (N,), higher for positive.   positive: (N,).
    """
    from scipy.stats import rankdata

    ups, downs = int(positive.sum()), int((~positive).sum())
    if not ups or not downs:
        return None
    ranks = rankdata(scores)
    above = (ranks[positive] - rankdata(scores[positive])) / downs  # share of negatives below each positive: (ups,)
    below = 1 - (ranks[~positive] - rankdata(scores[~positive])) / ups
    value = float(above.mean())
    influence = np.zeros(len(scores))
    influence[positive] = (above - value) / math.sqrt(ups * max(1, ups - 1))
    influence[~positive] = (below - value) / math.sqrt(downs * max(1, downs - 1))
    return Area(value, influence, ups, downs)


def area_interval(found: Area, groups: Integers | None = None) -> Interval:
    """The 95 % interval of an area, on the scale of its logit, so that it stays inside [0, 1].

    The smaller of the two classes has the degrees of freedom of Student's t: with 12 pictures 1.96 standard errors were too few.
    Source: DeLong et al. 1988, doi 10.2307/2531595; by groups Obuchowski 1997, doi 10.2307/2533958. Where the scores part the two
    perfectly, that variance is 0: then Newcombe 2006, doi 10.1002/sim.2324, method 5, which knows only the counts.
    """
    from scipy.special import stdtrit

    variance = _variance(found.influence, groups)
    if not 0 < found.value < 1 or variance <= 0:
        return _area_by_counts(found)
    logit = math.log(found.value / (1 - found.value))
    freedom = max(1, min(found.num_positive, found.num_negative) - 1)
    spread = float(stdtrit(freedom, 0.975)) * math.sqrt(variance) / (found.value * (1 - found.value))
    low, high = (1 / (1 + math.exp(-end)) for end in (max(-700.0, logit - spread), min(700.0, logit + spread)))
    return Interval(found.value, low, high)


def mean_area_interval(areas: list[Area], groups: Integers | None = None) -> Interval:
    """The mean of several areas on the same pictures with its interval; their dependence is counted."""
    influence = np.sum([each.influence for each in areas], axis=0) / len(areas)
    value = float(np.mean([each.value for each in areas]))
    half = max(1, len(influence) // 2)  # all pictures take part
    return area_interval(Area(value, influence, half, half), groups)


def _variance(influence: NDArray[np.float64], groups: Integers | None) -> float:
    if groups is None:
        return float(np.square(influence).sum())
    sums = np.bincount(groups, influence)
    return float(np.square(sums).sum() * len(sums) / max(1, len(sums) - 1))


def _area_by_counts(found: Area) -> Interval:
    """Every area whose own standard error would reach the one that was found."""
    from scipy.optimize import brentq

    ups, downs, middle = found.num_positive, found.num_negative, (found.num_positive + found.num_negative) / 2 - 1

    def distance(value: float) -> float:
        more = middle * (1 - value) / (2 - value) + middle * value / (1 + value)
        variance = value * (1 - value) * (1 + more) / (ups * downs)
        return abs(found.value - value) - NORMAL_95 * math.sqrt(variance)

    low = 0.0 if found.value <= 0 else float(brentq(distance, 0.0, found.value - 1e-12))
    high = 1.0 if found.value >= 1 else float(brentq(distance, found.value + 1e-12, 1.0))
    return Interval(found.value, min(found.value, low), max(found.value, high))
