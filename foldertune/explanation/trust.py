"""How far a map can be trusted: it must change with what was learned, and hiding what it shows must matter. Pure.

Sources: Adebayo et al. 2018, "Sanity Checks for Saliency Maps" (randomised layers, rank correlation); Petsiuk, Das, Saenko 2018, "RISE",
section 4.2 (deletion and insertion). docs/explain.md has the rule for users.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from foldertune.explanation.geometry import Grid
from foldertune.records import Checks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]

NUM_STEPS = 8  # in which a picture is covered; seven pictures between the whole and the empty one
NUM_ORDERS = 4  # random orders that the map is compared with
# A map that is this much like one of randomised layers shows the picture, not what was learned. A guess: between the correlation of
# a trained ResNet-50's maps (at most 0.13 in the mean of three draws where it was looked at) and 1.
MOST_LIKENESS = 0.5
# A probability that changes by less, whatever is hidden, has no parts to be shown. A guess: random networks reach 0.01.
LEAST_SPAN = 0.1
# Of the span, what insertion and deletion together earn at full marks. A perfect order would earn 1, which cells of 32 pixels
# never do. A guess.
_FULL_MARKS = 0.5

Answer = Callable[["NDArray[np.uint8]"], "Floats"]  # (B, S, S, 3) -> (B,), the probability of the explained class


def rank_correlation(first: Floats, second: Floats) -> float:
    """Spearman's, of two arrays of one size, in [-1, 1]; 0 where one of them is constant and has no order."""
    ranks = [_ranks(np.ravel(values)) for values in (first, second)]
    centred = [values - values.mean() for values in ranks]
    norm = float(np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    return float((centred[0] * centred[1]).sum() / norm) if norm > 0 else 0.0


def _ranks(values: Floats) -> Floats:
    """Equal values share their mean rank."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    means: Floats = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return means


def check_map(grid: Grid, others: Sequence[Grid], picture: NDArray[np.uint8], answer: Answer, *, seed: int) -> Checks:
    """Both checks of one map.

    others: maps of the same class by the network with randomised upper layers.   picture: (S, S, 3), as the network sees it.
    seed: of the random orders.
    """
    likeness = float(np.mean([rank_correlation(grid.values, other.values) for other in others]))
    random = np.random.Generator(np.random.Philox(seed))
    shuffled = [
        grid.with_values(random.permutation(grid.values.ravel()).reshape(grid.values.shape)) for _ in range(NUM_ORDERS)
    ]
    empty = _empty(picture)
    ends = answer(np.stack([empty, picture]))
    curves = []
    for each in (grid, grid.with_values(-grid.values), *shuffled):
        between = answer(uncovered(each, picture, empty))
        curves.append(np.concatenate([ends[:1], between, ends[1:]]))
    areas = [float(np.trapezoid(curve, dx=1 / NUM_STEPS)) for curve in curves]
    span = float(np.max(curves) - np.min(curves))
    # Covering from the hottest place on is uncovering from the coldest on, backwards: the area is the same.
    insertion, deletion, *by_chance = areas
    luck = max(by_chance) - min(by_chance)
    return Checks(likeness, insertion, deletion, float(np.mean(by_chance)), luck, span)


def uncovered(grid: Grid, picture: NDArray[np.uint8], empty: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(NUM_STEPS - 1, S, S, 3): the picture, uncovered more and more from the largest values of the map on."""
    order = np.argsort(-grid.whole().ravel(), kind="stable")
    place = np.empty(order.size, np.int64)
    place[order] = np.arange(order.size)
    shown = place.reshape(picture.shape[:2])[..., None] * NUM_STEPS
    return np.stack([np.where(shown < step * order.size, picture, empty) for step in range(1, NUM_STEPS)])


def _empty(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What covers: the picture's own mean colour, which adds no colour that was not there."""
    mean = picture.mean((0, 1)).round().astype(np.uint8)
    return np.broadcast_to(mean, picture.shape)


def trust_of(checks: Checks) -> float:
    """One number in [0, 1]: how unlike the randomised maps it is, times how much its order earns."""
    unlike = 1 - max(0.0, checks.likeness)
    earned = (checks.insertion - checks.deletion) / (_FULL_MARKS * max(checks.span, LEAST_SPAN))
    return float(unlike * min(1.0, max(0.0, earned)))


def failures_of(checks: Checks, label: str) -> tuple[str, ...]:
    """A sentence for each check that a map fails; without any it may be believed."""
    found = []
    if checks.likeness > MOST_LIKENESS:
        found.append(
            f"The map hardly changes when the upper layers are randomised (rank correlation {checks.likeness:.2f}): it shows what is "
            "in the picture, not what was learned."
        )
    if checks.span < LEAST_SPAN:
        found.append(
            f"Whatever is hidden, the probability of {label} changes by {100 * checks.span:.1f} points at most: the answer does not "
            "rest on a part of the picture, so do not rely on the map."
        )
    elif checks.insertion - checks.deletion <= checks.luck:
        found.append(
            f"Hiding the hot parts changes the probability of {label} no more than hiding parts at random does: do not rely on the map."
        )
    return tuple(found)
