"""When a model had better not answer: below the confidence that a promised error rate asks for. Pure, without torch.

A promise speaks of the answers that are given: "at most 5 % of them are wrong". Its threshold is found on validation pictures and
stored with the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldertune.errors import SettingsError
from foldertune.evaluation.calibration import confidence_and_right
from foldertune.evaluation.metrics import Floats, Integers, wilson_interval
from foldertune.scores import KeptPromise

PROMISES = (0.01, 0.02, 0.05, 0.10)
DEFAULT_PROMISE = 0.05
# How sure the bound is by which a threshold is taken. Of 300 resamplings each of three sets and four models, promises of 5 % held in 92 %
# and more with it; with 0.5 in 82 %, with the share of errors as it is in 76 %. Surer bounds give far fewer answers (docs/log.md).
SURENESS = 0.70
_NUM_CURVE_POINTS = 50


@dataclass(frozen=True, slots=True)
class Promise:
    """error: the share of the given answers that may be wrong.   threshold: the confidence to answer from; None: cannot be promised."""

    error: float
    threshold: float | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a model keeps of its validation pictures, to know when not to answer.

    curve: (share answered, share of these that are wrong), from the surest answers to all.
    """

    num_pictures: int
    promises: tuple[Promise, ...]
    curve: tuple[tuple[float, float], ...] = ()

    @property
    def default_threshold(self) -> float:
        """The confidence that is asked for where nobody says otherwise; 0.0 where nothing can be promised."""
        found = [each.threshold for each in self.promises if each.error == DEFAULT_PROMISE]
        return (found[0] or 0.0) if found else 0.0

    def threshold(self, promise: float) -> float | None:
        """Raises SettingsError for a promise that the model has not."""
        for each in self.promises:
            if math.isclose(each.error, promise):
                return each.threshold
        accepted = ", ".join(f"{each.error:g}" for each in self.promises) or "only none"
        raise SettingsError(
            f"This model knows no threshold for the promise {promise:g}. Accepted: none, {accepted}."
            if self.promises
            else f"This model was saved without promises, so {promise:g} cannot be kept. Take --promise none."
        )


NO_REFUSAL = Refusal(0, ())


def fit_refusal(probabilities: Floats, labels: Integers) -> Refusal:
    """Thresholds and curve from validation pictures; nothing is promised where there are none."""
    if len(labels) == 0:
        return Refusal(0, tuple(Promise(error, None) for error in PROMISES))
    confidences, right = confidence_and_right(probabilities, labels)
    promises = tuple(Promise(error, promised_threshold(confidences, right, error)) for error in PROMISES)
    return Refusal(len(labels), promises, answered_curve(confidences, right))


def promised_threshold(
    confidences: NDArray[np.float64], right: NDArray[np.bool_], error: float, *, sureness: float = SURENESS
) -> float | None:
    """The lowest confidence from which on the answers are wrong in at most a share `error`, by an upper bound; None where none is.

    The bound is that of Clopper and Pearson 1934, one-sided at `sureness`. 0.0: all answers may be given.
    """
    from scipy.special import betaincinv

    order = np.argsort(-confidences, kind="stable")
    sure, num_wrong, num = confidences[order], np.cumsum(~right[order]), np.arange(1, len(order) + 1)
    bound = np.ones(len(order))
    some = num_wrong < num
    bound[some] = betaincinv(num_wrong[some] + 1, num[some] - num_wrong[some], sureness)
    ends = np.append(sure[1:] < sure[:-1], True)  # equal confidences are answered together
    kept = np.flatnonzero((bound <= error) & ends)
    if not len(kept):
        return None
    return 0.0 if kept[-1] == len(order) - 1 else float(sure[kept[-1]])


def answered_curve(
    confidences: NDArray[np.float64], right: NDArray[np.bool_], *, unlike: NDArray[np.bool_] | None = None
) -> tuple[tuple[float, float], ...]:
    """(share answered, share of these wrong) at some shares, the surest answers first.   unlike: (N,), pictures that are never answered."""
    total = len(confidences)
    if unlike is not None:
        confidences, right = confidences[~unlike], right[~unlike]
    order = np.argsort(-confidences, kind="stable")
    sure, num_wrong = confidences[order], np.cumsum(~right[order])
    ends = np.flatnonzero(np.diff(sure, append=-1.0))  # equal confidences are answered together
    places = np.unique(np.linspace(0, len(ends) - 1, min(_NUM_CURVE_POINTS, len(ends))).round().astype(int))
    return tuple((float((place + 1) / total), float(num_wrong[place] / (place + 1))) for place in ends[places])


def kept_promises(
    refusal: Refusal, probabilities: Floats, labels: Integers, *, unlike: NDArray[np.bool_] | None = None
) -> tuple[KeptPromise, ...]:
    """What each promise comes to on other pictures.   unlike: (N,), pictures that are refused whatever the confidence."""
    confidences, right = confidence_and_right(probabilities, labels)
    unlike = np.zeros(len(labels), np.bool_) if unlike is None else unlike
    found = []
    for each in refusal.promises:
        given = ~unlike & (confidences >= (each.threshold or 0.0))
        num = int(given.sum())
        error = wilson_interval(int((given & ~right).sum()), num) if num else None
        answered = wilson_interval(num, len(labels))
        found.append(KeptPromise(each.error, each.threshold, answered, error, int(unlike.sum())))
    return tuple(found)


def refusal_document(refusal: Refusal) -> dict[str, Any]:
    """What config.json holds of it."""
    return {
        "num_pictures": refusal.num_pictures,
        "promises": [{"error": each.error, "threshold": each.threshold} for each in refusal.promises],
        "curve": [list(point) for point in refusal.curve],
    }


def read_refusal(document: Any) -> Refusal:
    """The inverse; NO_REFUSAL where there is nothing. Raises KeyError, TypeError or ValueError for what makes no sense."""
    if document is None:
        return NO_REFUSAL
    promises = tuple(_promise(row) for row in document["promises"])
    curve = tuple((_share(one), _share(other)) for one, other in document.get("curve", ()))
    return Refusal(int(document["num_pictures"]), promises, curve)


def _promise(row: Mapping[str, Any]) -> Promise:
    threshold = row["threshold"]
    return Promise(_share(row["error"]), None if threshold is None else _share(threshold))


def _share(value: Any) -> float:
    number = float(value)
    if not 0 <= number <= 1:
        raise ValueError(f"{number:g} is no share")
    return number


def told_promises(promises: Sequence[Promise]) -> str:
    """Errors that can be promised, for messages."""
    return ", ".join(f"{each.error:g}" for each in promises if each.threshold is not None) or "none"
