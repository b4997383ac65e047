"""Whether confidence means what it says: the calibration error, its bins, and what chance alone makes of it. Pure, without torch.

The confidence of an answer is the probability of the answered class. The temperature that makes it honest: metrics.fit_temperature.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldertune.errors import DataError
from foldertune.evaluation.metrics import Floats, Integers, wilson_interval
from foldertune.scores import ReliabilityBin

NUM_BINS = 15  # as in Guo et al. 2017
NUM_DRAWS = 2000
_AT_ONCE = 4_000_000  # simulated answers that are held at a time


def expected_calibration_error(probabilities: Floats, labels: Integers, *, num_bins: int = NUM_BINS) -> float:
    """How far confidence is from accuracy, averaged over equal-width bins of confidence.

    probabilities: (N, K), rows sum to 1.   labels: (N,), class numbers in [0, K).
    Returns a fraction in [0, 1]; 0 is perfect. Empty bins do not count; N = 0 is refused.
    Source: Guo et al. 2017, arXiv:1706.04599, section 2.
    """
    confidences, right = confidence_and_right(probabilities, labels)
    gaps = confidences - right
    return float(np.abs(np.bincount(bin_numbers(confidences, num_bins), gaps, num_bins)).sum() / len(gaps))


def reliability_bins(
    probabilities: Floats, labels: Integers, *, num_bins: int = NUM_BINS
) -> tuple[ReliabilityBin, ...]:
    """The points of a reliability diagram, from low to high confidence; bins without pictures are left out."""
    confidences, right = confidence_and_right(probabilities, labels)
    bins = bin_numbers(confidences, num_bins)
    found = []
    for number in np.unique(bins):
        inside = bins == number
        accuracy = wilson_interval(int(right[inside].sum()), int(inside.sum()))
        edges = float(number / num_bins), float((number + 1) / num_bins)
        found.append(ReliabilityBin(*edges, int(inside.sum()), float(confidences[inside].mean()), accuracy))
    return tuple(found)


def perfect_calibration_quantile(
    confidences: Floats, *, level: float = 0.95, num_bins: int = NUM_BINS, num_draws: int = NUM_DRAWS, seed: int = 0
) -> float:
    """The calibration error that a perfectly calibrated model stays under with the probability `level`.

    confidences: (N,) in [0, 1]. Each answer is drawn right with just its confidence, `num_draws` times: what is left is chance, and
    on few pictures it is much. A measured error below this is no sign of a wrong confidence.
    Source: the consistency resampling of Bröcker and Smith 2007, doi 10.1175/WAF993.1. Returns a fraction in [0, 1].
    """
    if len(confidences) == 0:
        raise DataError("There is no picture to measure on. Give a split with at least one readable picture.")
    order = np.argsort(confidences, kind="stable")
    sure = np.asarray(confidences, np.float64)[order]
    starts = np.flatnonzero(np.diff(bin_numbers(sure, num_bins), prepend=-1))
    expected = np.add.reduceat(sure, starts)
    random = np.random.Generator(np.random.Philox(key=[seed, 0x65636500]))
    errors: list[NDArray[np.float64]] = []
    step = max(1, _AT_ONCE // len(sure))
    for start in range(0, num_draws, step):
        drawn = random.random((min(step, num_draws - start), len(sure)), np.float32) < sure
        counts = np.add.reduceat(drawn, starts, axis=1, dtype=np.int64)
        errors.append(np.abs(counts - expected).sum(1) / len(sure))
    return float(np.quantile(np.concatenate(errors), level))


def confidence_and_right(probabilities: Floats, labels: Integers) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(N,) probability of each answer, and whether it is right. Raises DataError where N is 0."""
    if len(labels) == 0:
        raise DataError("There is no picture to measure on. Give a split with at least one readable picture.")
    answers = probabilities.argmax(1)
    confidences = probabilities[np.arange(len(labels)), answers].astype(np.float64)
    return np.minimum(confidences, 1.0), answers == labels  # a rounded softmax may end a hair above 1


def bin_numbers(confidences: NDArray[Any], num_bins: int = NUM_BINS) -> NDArray[np.int64]:
    """(N,) in [0, num_bins): bin m holds what is above m / num_bins, up to (m + 1) / num_bins."""
    numbers: NDArray[np.int64] = np.clip(np.ceil(confidences * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    return numbers
