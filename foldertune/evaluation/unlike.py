"""Pictures that resemble nothing a model has learned: told from the logits, so that every engine can. Pure, without torch.

Two scores, higher for what is more unlike:
"distance": centred logits of a class lie about its mean. The squared distance to the nearest mean, over the squared length of the logits
themselves, in units of the spread within classes. A picture of something else goes towards no class's mean, however sure the answer sounds.
"energy": minus the logarithm of the sum of exponentials of the logits. Source: Liu et al. 2020, arXiv:2010.03759.
Of the former, Mahalanobis distances of features (Lee et al. 2018, arXiv:1807.03888) are a relative; in logits it was as good there and is
cheaper (docs/log.md). Which score is used is tried on classes that are held out (training/trials.py).
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldertune.errors import DataError
from foldertune.evaluation.metrics import Floats, Integers
from foldertune.run import written_whole

KINDS = ("distance", "energy")
LOST = 0.05  # of pictures of known classes that may be taken for something else
FEWEST = math.ceil(1 / LOST) - 1  # pictures that the limit needs: fewer cannot show one in twenty
# How much the spread of all logits counts beside that of each direction, and how many pictures the common form of a class counts beside its
# own. 0.1 to 0.7 did alike in the trials; the latter is a guess.
_SHRINKAGE, _PRIOR = 0.3, 1.0
_FOLDS = 10


@dataclass(frozen=True, slots=True)
class Unlike:
    """kind: "distance", "energy", or "" where nothing is told apart.   limit: a picture is unlike above this score.

    means (K, K): centred logits of each class, whitened.   whitening (K, K): centred logits times this are in units of their spread.
    aurocs: by score, how well it told held-out classes from the others, with "max softmax" to compare; empty where that was not tried.
    """

    kind: str = ""
    limit: float = math.inf
    means: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    whitening: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    aurocs: Mapping[str, float] = field(default_factory=dict)

    def scores(self, logits: Floats) -> NDArray[np.float64]:
        """(N,) for logits (N, K) at the model's temperature; 0 where nothing is told apart."""
        if self.kind == "energy":
            return energy(logits)
        if self.kind == "distance":
            return _distance(_centred(logits), self.means.astype(np.float64), self.whitening.astype(np.float64))
        return np.zeros(len(logits))

    def above(self, logits: Floats) -> NDArray[np.bool_]:
        """(N,) whether each picture is unlike what was learned."""
        return self.scores(logits) > self.limit


NOTHING_UNLIKE = Unlike()
MAX_SOFTMAX = "max softmax"  # the name of what scores are compared with
_GUESSING = 0.5  # the AUROC of what knows nothing


def chosen_kind(aurocs: Mapping[str, float]) -> str:
    """The score that told held-out classes better; "" where both only guessed, or nothing was tried.

    The largest probability is stored to compare, and is no candidate: unsure answers are refused anyway.
    """
    best = max(KINDS, key=lambda kind: aurocs.get(kind, 0.0))
    return best if aurocs.get(best, 0.0) > _GUESSING else ""


def energy(logits: Floats) -> NDArray[np.float64]:
    """(N,) minus the log-sum-exp of the logits."""
    exact = np.asarray(logits, np.float64)
    most = exact.max(1)
    found: NDArray[np.float64] = -(most + np.log(np.exp(exact - most[:, None]).sum(1)))
    return found


def fit_unlike(logits: Floats, labels: Integers, *, kind: str, aurocs: Mapping[str, float] | None = None) -> Unlike:
    """What of known classes the model keeps, and a limit that 5 % of these pictures exceed.

    logits: (N, K) of pictures that were not learned from, at the model's temperature. Each picture is scored by the others; with
    fewer than 19, or for kind "", nothing is told apart.
    Source of the limit: the conformal quantile, Vovk et al. 2005; Angelopoulos and Bates 2021, arXiv:2107.07511.
    """
    aurocs = dict(aurocs or {})
    if not kind or len(labels) < FEWEST:
        return Unlike(aurocs=aurocs)
    means, whitening = _learned(_centred(logits), labels)
    scores = np.sort(known_scores(logits, labels, kind))
    limit = float(scores[math.ceil((len(scores) + 1) * (1 - LOST)) - 1])
    return Unlike(kind, limit, means.astype(np.float32), whitening.astype(np.float32), aurocs)


def known_scores(logits: Floats, labels: Integers, kind: str) -> NDArray[np.float64]:
    """(N,) scores of pictures by a tenth at a time, each tenth by what the others say."""
    if kind == "energy":
        return energy(logits)
    centred, folds = _centred(logits), _folds(labels)
    scores = np.empty(len(labels))
    for fold in np.unique(folds):
        inside = folds == fold
        means, whitening = _learned(centred[~inside], labels[~inside])
        scores[inside] = _distance(centred[inside], means, whitening)
    return scores


def _folds(labels: Integers) -> NDArray[np.int64]:
    """(N,) every class spread over the tenths."""
    order = np.argsort(labels, kind="stable")
    folds = np.empty(len(labels), np.int64)
    folds[order] = np.arange(len(labels)) % _FOLDS
    return folds


def _centred(logits: Floats) -> NDArray[np.float64]:
    exact = np.asarray(logits, np.float64)
    centred: NDArray[np.float64] = exact - exact.mean(1, keepdims=True)
    return centred


def _learned(centred: NDArray[np.float64], labels: Integers) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Whitened means and the whitening, each (K, K), of centred logits (N, K).

    A class of few pictures has a mean between its own and the form that all share: its own logit high, the others alike.
    """
    num, k = centred.shape
    counts = np.bincount(labels, minlength=k)[:, None]
    sums = np.zeros((k, k))
    np.add.at(sums, labels, centred)
    own = float(centred[np.arange(num), labels].mean()) if num else 1.0
    common = own * (np.eye(k) - 1 / k) * k / max(1, k - 1)
    means = (sums + _PRIOR * common) / (counts + _PRIOR)
    rest = centred - means[labels]
    spread = rest.T @ rest / max(1, num - k)
    shared = float(np.trace(spread)) / k or 1.0
    variances, axes = np.linalg.eigh((1 - _SHRINKAGE) * spread + _SHRINKAGE * shared * np.eye(k))
    whitening = axes / np.sqrt(variances)
    return means @ whitening, whitening


def _distance(
    centred: NDArray[np.float64], means: NDArray[np.float64], whitening: NDArray[np.float64]
) -> NDArray[np.float64]:
    x = centred @ whitening
    length = np.square(x).sum(1)
    nearest = (length[:, None] - 2 * x @ means.T + np.square(means).sum(1)).min(1)
    shares: NDArray[np.float64] = np.maximum(nearest, 0) / np.maximum(length, 1e-12)
    return shares


def write_unlike(path: Path, unlike: Unlike) -> None:
    """Write unlike.npz, complete or not at all."""
    names = np.array(list(unlike.aurocs), np.str_)
    with written_whole(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(
            stream, kind=np.array(unlike.kind), limit=np.array(unlike.limit), means=unlike.means, whitening=unlike.whitening,
            tried=names, aurocs=np.array([unlike.aurocs[name] for name in unlike.aurocs], np.float64),
        )  # fmt: skip


def read_unlike(path: Path, *, num_classes: int) -> Unlike:
    """What lies beside a model; where nothing does, nothing is told apart. Raises DataError for a damaged file, or another model's."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            aurocs = dict(zip(map(str, stored["tried"]), map(float, stored["aurocs"]), strict=True))
            found = Unlike(str(stored["kind"]), float(stored["limit"]), stored["means"], stored["whitening"], aurocs)
    except FileNotFoundError:
        return Unlike()
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(
            f"{path} is damaged ({error}). Put the run's own file back, or delete it: unknown things are then answered."
        ) from error
    if found.kind and not _fits(found, num_classes):
        raise DataError(f"{path} belongs to another model. Put the run's own file back, or delete it.")
    return found


def _fits(found: Unlike, num_classes: int) -> bool:
    shape: Any = (num_classes, num_classes)
    return found.kind in KINDS and found.means.shape == shape and found.whitening.shape == shape
