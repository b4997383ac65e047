"""Labels that the pictures contradict, as far as a whole set shows it: how many of them are wrong, not only which. Pure.

A hard set and a mislabelled one both give many wrong answers. They differ in two ways. Of a hard set the answers of which the
model is surest are right; of a mislabelled one they are contradicted as often as labels are wrong. And where an answer of a hard
set is wrong, the given class comes second; a wrong label stands anywhere in the order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SUREST = 1 / 3  # of the pictures, those of which the model is surest
MOST_NAMED = 200


@dataclass(frozen=True, slots=True)
class Contradictions:
    """What answers out of fold say against the labels of N pictures.

    num_judged: pictures that a fold held out.   num_sure: the third of which the model is surest.   num_contradicted: of those, the
    ones filed under another class.   num_expected: how many of them may be wrong by the probabilities themselves.
    mean_place: where the given class stands among those that were not answered, 0 second and 1 last, mean over all wrong answers;
    None with two classes or without wrong answers.   accuracy: out of fold.
    suspects: (place in the training pictures, class that was answered, probability of that), the surest first, at most 200.
    """

    num_judged: int
    num_sure: int
    num_contradicted: int
    num_expected: float
    mean_place: float | None
    accuracy: float
    suspects: Sequence[tuple[int, int, float]]


def find_contradictions(probabilities: NDArray[np.floating], labels: NDArray[np.integer]) -> Contradictions:
    """probabilities: (N, K), each row by a model that has not seen it; NaN where there is none.   labels: (N,)."""
    alone = np.bincount(labels)[labels] == 1  # no model has seen another picture of its class
    judged = np.flatnonzero(~np.isnan(probabilities).any(1) & ~alone)
    if not len(judged):
        return Contradictions(0, 0, 0, 0.0, None, 0.0, ())
    shares, given = probabilities[judged].astype(np.float64), labels[judged]
    answers, sureness = shares.argmax(1), shares.max(1)
    wrong = answers != given
    order = np.argsort(-sureness, kind="stable")
    surest = order[: -(-len(order) // 3)]
    contradicted = surest[wrong[surest]]
    suspects = tuple((int(judged[place]), int(answers[place]), float(sureness[place])) for place in contradicted)
    return Contradictions(
        num_judged=len(judged),
        num_sure=len(surest),
        num_contradicted=len(contradicted),
        num_expected=float((1 - sureness[surest]).sum()),
        mean_place=_mean_place(shares[wrong], given[wrong]),
        accuracy=float(1 - wrong.mean()),
        suspects=suspects[:MOST_NAMED],
    )


def _mean_place(shares: NDArray[np.float64], given: NDArray[np.integer]) -> float | None:
    """Shares (W, K) of wrong answers."""
    num_classes = shares.shape[1]
    if num_classes < 3 or not len(shares):
        return None
    of_given = shares[np.arange(len(given)), given]
    places = (shares > of_given[:, None]).sum(1) - 1  # the answer stands before it
    return float(np.clip(places, 0, None).mean() / (num_classes - 2))
