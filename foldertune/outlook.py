"""The range in which a run's test accuracy will lie, from what the head on frozen features answers to pictures that it has not seen.

Pure: fitting that head is training/expectation.py. Three things are uncertain, and the range holds all three: how good the head is, which
`num_judged` pictures tell; how many of its errors are left in the end; and which `num_test` pictures happen to be asked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from foldertune.records import AccuracyRange

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEVEL = 0.9  # of the runs, those whose accuracy the range should hold
_NUM_HEADS, _NUM_SHARES = 400, 60  # equally probable values that stand for each of the two distributions
_NUM_ERRORS = 500  # and for that of their product


@dataclass(frozen=True, slots=True)
class Left:
    """How many of the head's errors a run leaves: the logarithm of the share is normal with this middle and spread.

    why: where the two come from.
    """

    middle: float
    spread: float
    why: str


@dataclass(frozen=True, slots=True)
class Judged:
    """What the head answers out of fold. accuracy: with each class weighted as among the test pictures.

    num_pictures: as many independent pictures of equal weight say as much.   num_seen: pictures that it was fitted to, of num_train.
    num_independent: as many independent pictures say as much as the num_test; None where all of them are.
    """

    accuracy: float
    num_pictures: float
    num_seen: int
    num_train: int
    num_test: int
    num_independent: int | None = None


# Middles and spreads are measured (docs/log.md, "The forecast of accuracy"), all with ImageNet weights of a ResNet-50.
HEAD = Left(-0.07, 0.12, "the head is kept as it is")
NEAR = Left(-0.25, 0.25, "pictures like those of the pretraining gain little from fine-tuning")
FAR = Left(-0.65, 0.50, "pictures far from those of the pretraining gain much from fine-tuning")
UNKNOWN = Left(-0.30, 0.60, "what these settings gain was not measured")
# A head that learns from N times as many pictures leaves N ** -0.3 of its errors, less or more.
GROWTH, GROWTH_SPREAD = 0.3, 0.15


def left_by(plan: Mapping[str, Any]) -> Left:
    """What is left of the head's errors where a plan with these values is carried out."""
    if plan["tune"] == "head":
        return HEAD
    if plan["preset"] != "auto":
        return UNKNOWN
    return FAR if plan["tie"] == "fine-tuned" else NEAR  # what a tie keeps follows from how far the pictures are


def expected_range(judged: Judged, left: Left) -> AccuracyRange:
    """The range of the accuracy that will be measured, with equal chances to miss it on either side.

    The head's error has Jeffreys' posterior, Beta(wrong + 1/2, right + 1/2); times the share that is left it is the error E of the kept
    model, and the number of wrong answers among the test pictures is binomial with E. Where all of the errors are left that is the
    beta-binomial predictive distribution (Brown, Cai and DasGupta 2001, doi 10.1214/ss/1009213286, for the prior; Gelman et al.,
    Bayesian Data Analysis, section 2.3, for predicting from it).
    """
    grown = math.log(max(1.0, judged.num_train / max(1, judged.num_seen)))
    why = left.why
    if grown:
        why += f"; {judged.num_seen:,} of {judged.num_train:,} training pictures stand for all"
    left = Left(left.middle - GROWTH * grown, math.hypot(left.spread, GROWTH_SPREAD * grown), why)
    errors = _possible_errors(judged, left)
    missed = (1 - LEVEL) / 2
    num = judged.num_independent or judged.num_test
    few, many = (_quantile(errors, num, chance) for chance in (missed, 1 - missed))
    low, high = 1 - many / num, 1 - few / num
    return AccuracyRange(
        value=min(high, max(low, 1 - float(errors.mean()))), low=low, high=high, level=LEVEL,
        head_accuracy=judged.accuracy, num_judged=judged.num_seen, num_test=judged.num_test, why=left.why,
    )  # fmt: skip


def _possible_errors(judged: Judged, left: Left) -> NDArray[np.float64]:
    """Equally probable error rates of the kept model."""
    import numpy as np
    from scipy.special import betaincinv

    right = judged.accuracy * judged.num_pictures
    middles = (np.arange(_NUM_HEADS) + 0.5) / _NUM_HEADS
    heads = betaincinv(judged.num_pictures - right + 0.5, right + 0.5, middles)
    normal = NormalDist()
    steps = [normal.inv_cdf((number + 0.5) / _NUM_SHARES) for number in range(_NUM_SHARES)]
    shares = np.exp(left.middle + left.spread * np.array(steps))
    products = np.sort(np.minimum(1.0, np.outer(heads, shares)).ravel())
    found: NDArray[np.float64] = products.reshape(_NUM_ERRORS, -1).mean(1)
    return found


def _quantile(errors: NDArray[np.float64], num_test: int, chance: float) -> int:
    """The fewest wrong answers of num_test with at least this chance of so many or fewer."""
    from scipy.special import bdtr

    low, high = 0, num_test
    while low < high:
        middle = (low + high) // 2
        if float(bdtr(middle, num_test, errors).mean()) >= chance:
            high = middle
        else:
            low = middle + 1
    return low
