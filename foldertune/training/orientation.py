"""Whether pictures have an upright side: asked of the frozen network before anything is learned.

Leaves from above and crops of a microscope have none, and turning them while training gives four times the pictures; people, shoes and
X-rays have one, and turning them would teach what never comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from foldertune.training.head import logistic_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from foldertune.engines import Engine

NUM_PICTURES = 32
_LEAST_PICTURES = 16
_STRENGTH = 0.01  # in the middle of those that the head tries
_BATCH = 16


def upright_share(engine: Engine, pictures: NDArray[np.uint8]) -> float | None:
    """How often frozen features tell by how many quarter turns a picture was turned, in [0.25, 1]; 0.25 is a guess.

    engine: its first output are features.   pictures: (N, S, S, 3); fewer than 16 tell nothing, and the answer is None.
    Judged on pictures that the regression has not seen, each half by the other. After Gidaris et al. 2018, "Unsupervised
    representation learning by predicting image rotations".
    """
    if len(pictures) < _LEAST_PICTURES:
        return None
    turned = np.concatenate([np.rot90(pictures, turns, axes=(1, 2)) for turns in range(4)])
    parts = [
        engine.run(np.ascontiguousarray(turned[start : start + _BATCH])) for start in range(0, len(turned), _BATCH)
    ]
    features = torch.from_numpy(np.concatenate(parts))
    features = (features - features.mean(0)) / features.std(0).mean()
    turns = torch.arange(4).repeat_interleave(len(pictures))
    half = torch.arange(len(pictures)).repeat(4) % 2
    correct = 0
    for held_out in (0, 1):
        seen = half != held_out
        weight, bias = logistic_path(features[seen], turns[seen], [_STRENGTH], num_classes=4)[0]
        correct += int(((features[~seen] @ weight.T + bias).argmax(1) == turns[~seen]).sum())
    return correct / len(turned)
