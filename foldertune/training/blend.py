"""Between the pretrained and the fine-tuned weights: the mean of the two often answers better on pictures unlike the training ones.

How far to go is chosen on the validation pictures. Source: Wortsman et al. 2022, "Robust fine-tuning of zero-shot models".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch

from foldertune.evaluation.metrics import fit_temperature, log_loss, softmax

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from foldertune.models.network import Network

SHARES = (1.0, 0.75, 0.5)  # of the fine-tuned weights; the first wins a tie


def blend(
    network: Network, start: Mapping[str, Tensor], logits: Callable[[], NDArray[np.float32]], labels: NDArray[np.int64]
) -> float:
    """Leave the network at the best place between `start` and what it holds; returns the share of the latter.

    start: tensors by name, of any layers but the head, which stays as it was learned.   logits: what the network says of the
    validation pictures now, (N, K).   labels: (N,); with N = 0 nothing is blended. Judged by log loss at each one's best temperature.
    """
    if not len(labels):
        return 1.0
    state = network.state_dict()
    end = {name: state[name].clone() for name in start if not name.startswith(f"{network.head_name}.")}
    losses = {}
    for share in SHARES:
        _mix(state, start, end, share)
        found = logits()
        losses[share] = log_loss(softmax(found / fit_temperature(found, labels)), labels)
    best = min(SHARES, key=lambda share: losses[share])
    _mix(state, start, end, best)
    return best


@torch.no_grad()
def _mix(state: Mapping[str, Tensor], start: Mapping[str, Tensor], end: Mapping[str, Tensor], share: float) -> None:
    """Write share * end + (1 - share) * start into the network's own tensors; counters are taken from the end."""
    for name, value in end.items():
        mixed = torch.lerp(start[name].to(value.device), value, share) if value.is_floating_point() else value
        state[name].copy_(mixed)
