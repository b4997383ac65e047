"""The honest first model: a regularised logistic regression on frozen features, its strength chosen by out-of-fold log loss.

Fitted by L-BFGS in the span of the data, all folds at once; scikit-learn's LogisticRegression is the oracle in tests (same
objective, same optimum).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from foldertune.errors import WorkFailedError

FITTING = 1  # raised whenever the same features give another head: heads of earlier versions are then fitted again
# Strengths tried, from strong to weak, in scikit-learn's C for features of mean squared norm D (so of unit variance).
STRENGTHS = tuple(10.0**exponent for exponent in np.arange(-5.0, 0.1, 0.5))
NUM_FOLDS = 5
# Above this many multiply-adds per pass over the data, one held-out fifth stands for the five folds.
_MANY = 2e10
# Below this many, a pass ends sooner on one core than on several that wait for each other, above all where others work too. Where
# exactly is a guess: at 6e7 two cores were twice as fast as one.
_FEW = 1e7
# From so many rows on two of the five folds tell the strengths apart: on 1,275 they chose what five choose. Fewer were not tried.
_ENOUGH = 1000
# Directions with less than this share of the largest variance are rounding of float32, not data.
_LEAST_VARIANCE = 1e-6
# Where the gradient may end, in units in which every direction is about equally steep: to compare strengths, and to keep one.
_TO_COMPARE, _TO_KEEP = 1e-4, 1e-5


@dataclass(frozen=True, slots=True)
class Head:
    """A fitted classifier: logits = features @ weight.T + bias.

    weight (K, D), bias (K,), float32.   strength: the chosen C.   log_loss, accuracy: out of fold.
    probabilities: (N, K), each row from a fold that had not seen it; NaN where no fold held it out.
    """

    weight: Tensor
    bias: Tensor
    strength: float
    log_loss: float
    accuracy: float
    probabilities: NDArray[np.float32]


def fit_head(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    num_classes: int,
    seed: int,
    folds: NDArray[np.int64] | None = None,
) -> Head:
    """Features (N, D), labels (N,) in [0, num_classes). Raises WorkFailedError where a feature is not finite.

    folds: (N,) in [0, 5), where some pictures must not be parted; else drawn by the seed.
    """
    folds = stratified_folds(labels, NUM_FOLDS, seed=seed) if folds is None else folds
    rows = rows_of(features, labels, num_classes=num_classes)
    judged = judge_folds(rows, folds)
    with _cores(rows):
        everything = torch.ones(len(labels), 1, dtype=torch.bool)
        fitted = _minimise(
            rows.z, rows.y, inside=everything, strength=judged.strength, start=judged.near, tolerance=_TO_KEEP
        )
        weight, bias = rows.to_features(fitted[:, 0])
    seen = judged.held_out.any(0)
    accuracy = float((judged.probabilities[seen].argmax(1) == labels[seen]).mean()) if seen.any() else 0.0
    loss = _log_loss(judged.probabilities, labels)
    return Head(weight.contiguous(), bias, judged.strength, loss, accuracy, judged.probabilities)


def refit_head(
    features: NDArray[np.float32], labels: NDArray[np.int64], *, num_classes: int, strength: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(weight (K, D), bias (K,)) fitted at a strength that is known, as `fit_head` would; to compare, not to keep."""
    rows = rows_of(features, labels, num_classes=num_classes)
    with _cores(rows):
        everything = torch.ones(len(labels), 1, dtype=torch.bool)
        start = torch.zeros(rows.z.shape[1], 1, num_classes)
        fitted = _minimise(rows.z, rows.y, inside=everything, strength=strength, start=start, tolerance=_TO_COMPARE)
        weight, bias = rows.to_features(fitted[:, 0])
    return weight.numpy(), bias.numpy()


def refit_folds(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    folds: NDArray[np.int64],
    *,
    num_classes: int,
    strength: float,
) -> NDArray[np.float32]:
    """Probabilities (R, N, K), each row from a head that was fitted on the other folds.   folds: (R, N), one row for each repeat."""
    rows = rows_of(features, labels, num_classes=num_classes)
    return np.stack([judge_again(rows, each, strength=strength) for each in folds])


@dataclass(frozen=True, slots=True)
class Rows:
    """What is fitted to: features along their principal axes, with ones, and what leads back.

    z (N, R + 1), y (N,), axes (D, R), mean (D,).
    """

    z: Tensor
    y: Tensor
    axes: Tensor
    mean: NDArray[np.float32]
    scale: float
    num_classes: int

    @property
    def work(self) -> int:
        """Multiply-adds of one pass over the data."""
        return len(self.z) * len(self.axes) * self.num_classes

    def to_features(self, fitted: Tensor) -> tuple[Tensor, Tensor]:
        """(weight (K, D), bias (K,)) for features as they are.   fitted: (R + 1, K)."""
        weight = (self.axes @ fitted[:-1]).T / self.scale
        return weight, fitted[-1] - weight @ torch.from_numpy(self.mean)


def rows_of(features: NDArray[np.float32], labels: NDArray[np.int64], *, num_classes: int) -> Rows:
    """Features (N, D) and labels (N,) to be fitted to. Raises WorkFailedError where a feature is not finite.

    The axes are of all rows: they know no labels, and those of each fold lie in their span.
    """
    if not np.isfinite(features).all():
        raise WorkFailedError("The frozen network gives features that are not finite. Take other --weights.")
    mean, scale = features.mean(0), float(features.std(0).mean()) or 1.0
    x = torch.from_numpy(np.ascontiguousarray((features - mean) / scale))
    axes = principal_axes(x)
    return Rows(_with_ones(x @ axes), torch.from_numpy(labels), axes, mean, scale, num_classes)


@dataclass(frozen=True, slots=True)
class Judged:
    """Folds that heads of the others have judged. probabilities: (N, K), NaN in rows of folds that were not.   held_out: (M, N).

    near: (R + 1, 1, K), from where a head of all rows is near.
    """

    strength: float
    probabilities: NDArray[np.float32]
    held_out: NDArray[np.bool_]
    near: Tensor


def judge_folds(rows: Rows, folds: NDArray[np.int64]) -> Judged:
    """The strength that does best out of fold, and what it says of the folds (N,), in [0, 5)."""
    tried, num = range(NUM_FOLDS if rows.work < _MANY else 1), len(folds)
    held_out = np.stack([folds == fold for fold in tried if 0 < (folds == fold).sum() < num] or [folds < 0])
    some = held_out if num < _ENOUGH else held_out[:2]
    with _cores(rows):
        best, start = _best_strength(rows.z, rows.y, held_out=some, num_classes=rows.num_classes)
        near = start.mean(1, keepdim=True)  # the folds agree but for a fifth of the pictures
        inside = torch.from_numpy(~held_out.T)
        start = near.repeat(1, len(held_out), 1)
        fitted = _minimise(rows.z, rows.y, inside=inside, strength=best, start=start, tolerance=_TO_COMPARE)
        return Judged(best, _out_of_fold(rows.z, fitted, held_out), held_out, near)


def judge_again(
    rows: Rows, folds: NDArray[np.int64], *, strength: float, untaught: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """(N, K): what heads of the other folds say, fitted from nothing.   untaught: (N,), rows that are judged and never learned from."""
    held_out = np.stack([folds == fold for fold in np.unique(folds)])
    left_out = held_out if untaught is None else held_out | untaught
    start = torch.zeros(rows.z.shape[1], len(held_out), rows.num_classes)
    inside = torch.from_numpy(~left_out.T)
    with _cores(rows):
        fitted = _minimise(rows.z, rows.y, inside=inside, strength=strength, start=start, tolerance=_TO_COMPARE)
        return _out_of_fold(rows.z, fitted, held_out)


def _best_strength(z: Tensor, y: Tensor, *, held_out: NDArray[np.bool_], num_classes: int) -> tuple[float, Tensor]:
    """The strength with the lowest log loss out of fold, and its weights (R + 1, M, K).

    The loss falls and then rises along the strengths: every second one is tried from strong to weak until it has risen, then the
    two beside the best. held_out (M, N).
    """
    inside, labels = torch.from_numpy(~held_out.T), y.numpy()
    fits = {-1: torch.zeros(z.shape[1], len(held_out), num_classes)}
    losses: dict[int, float] = {}

    def attempt(place: int) -> None:
        start = fits[max(known for known in fits if known < place)]
        fits[place] = _minimise(z, y, inside=inside, strength=STRENGTHS[place], start=start, tolerance=_TO_COMPARE)
        losses[place] = _log_loss(_out_of_fold(z, fits[place], held_out), labels)

    for place in range(0, len(STRENGTHS), 2):
        attempt(place)
        if losses[place] > min(losses.values()):
            break
    best = min(losses, key=losses.__getitem__)
    for place in (best - 1, best + 1):
        if 0 <= place < len(STRENGTHS):
            attempt(place)
    best = min(losses, key=losses.__getitem__)
    return STRENGTHS[best], fits[best]


def stratified_folds(labels: NDArray[np.int64], num_folds: int, *, seed: int) -> NDArray[np.int64]:
    """A fold number for each label; every class is spread as evenly as it goes. Returns (N,) in [0, num_folds)."""
    random = np.random.Generator(np.random.Philox(key=[seed, 0x666F6C64]))
    folds = np.empty(len(labels), np.int64)
    start = 0
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        folds[members] = (start + np.arange(len(members))) % num_folds
        start += len(members)  # the next class goes on where this one ended, so that the folds stay equal in size
    return folds


def principal_axes(x: Tensor) -> Tensor:
    """Orthonormal directions that span the rows of x (N, D): (D, R), R at most the smaller of N and D.

    The optimum of a logistic regression with a penalty on |weight|^2 lies in this span, so that nothing is lost by searching
    only there; and along these axes the curvature of the objective is close to diagonal.
    """
    few = x.shape[0] < x.shape[1]
    variances, vectors = torch.linalg.eigh(x @ x.T if few else x.T @ x)
    kept = variances > _LEAST_VARIANCE * variances[-1]
    vectors = vectors[:, kept]
    axes: Tensor = (x.T @ vectors) / variances[kept].sqrt() if few else vectors
    return axes


def logistic_path(x: Tensor, y: Tensor, strengths: Sequence[float], *, num_classes: int) -> list[tuple[Tensor, Tensor]]:
    """Multinomial logistic regressions from strong to weak, each started from the one before.

    Minimises C * sum of cross-entropies + |weight|^2 / 2, the bias free, as scikit-learn does.   x (N, D), y (N,).
    Returns (weight (K, D), bias (K,)) for each strength.
    """
    axes, everything = principal_axes(x), torch.ones(len(x), 1, dtype=torch.bool)
    z, path = _with_ones(x @ axes), []
    fitted = torch.zeros(z.shape[1], 1, num_classes)
    for strength in strengths:
        fitted = _minimise(z, y, inside=everything, strength=strength, start=fitted, tolerance=_TO_KEEP)
        path.append(((axes @ fitted[:-1, 0]).T.contiguous(), fitted[-1, 0]))
    return path


def _minimise(z: Tensor, y: Tensor, *, inside: Tensor, strength: float, start: Tensor, tolerance: float) -> Tensor:
    """M regressions on parts of the same rows, in one search.

    z (N, R + 1): coordinates along principal axes, and ones.   inside (N, M): the rows of each regression.
    start and result: (R + 1, M, K), the bias last.
    """
    num_inside = inside.sum(0).clamp(min=1)
    penalty = (1 / (strength * num_inside)).repeat(len(start), 1)[:, :, None]
    penalty[-1] = 0  # the bias is free
    # Divided by the root of the curvature at even answers, about 1 / K of the variance and the penalty, every direction is
    # about equally steep, and L-BFGS needs a fraction of the steps. The curvature is never much larger: Böhning 1992.
    scale = (z.square().mean(0)[:, None, None] / start.shape[2] + penalty).rsqrt()
    share = (inside / num_inside).flatten()[:, None]  # of each row in each regression: (N * M, 1)
    targets = y.repeat_interleave(inside.shape[1])[:, None]
    zt = z.T.contiguous()
    searched = start / scale
    optimizer = torch.optim.LBFGS(
        [searched], max_iter=500, history_size=10, tolerance_grad=tolerance, tolerance_change=tolerance / 1000,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        weights = searched * scale
        logits = F.linear(z, weights.flatten(1).T.contiguous())  # half the time of z @ weights where these are few
        logs = F.log_softmax(logits.view(-1, weights.shape[2]), 1)  # (N * M, K)
        loss = -(logs.gather(1, targets) * share).sum() + 0.5 * (penalty * weights.square()).sum()
        slopes = logs.exp_()
        slopes.scatter_add_(1, targets, torch.full_like(share, -1.0)).mul_(share)
        searched.grad = ((zt @ slopes.view(len(z), -1)).view_as(weights) + penalty * weights) * scale
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return searched * scale


def _out_of_fold(z: Tensor, weights: Tensor, held_out: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Probabilities (N, K) of each row by the regression that held it out. weights (R + 1, M, K), held_out (M, N)."""
    probabilities = np.full((len(z), weights.shape[2]), np.nan, np.float32)
    for number, rows in enumerate(held_out):
        probabilities[rows] = F.softmax(z[torch.from_numpy(rows)] @ weights[:, number], 1).numpy()
    return probabilities


@contextlib.contextmanager
def _cores(rows: Rows) -> Iterator[None]:
    """As many cores for torch as pay while inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if rows.work < _FEW else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _with_ones(z: Tensor) -> Tensor:
    return torch.cat([z, torch.ones(len(z), 1)], 1)


def _log_loss(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    seen = ~np.isnan(probabilities[:, 0])
    if not seen.any():
        return float("inf")
    chosen = probabilities[seen, labels[seen]].astype(np.float64)
    return float(-np.log(np.maximum(chosen, 1e-7)).mean())
