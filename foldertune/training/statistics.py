"""The statistics of batch norms, measured for the weights as they are and for pictures as they will be asked about.

While a network learns they are a moving average over weights that move and over augmented pictures. That misplaces what it
answers to others: on X-rays log loss of validation fell from 0.18 to 0.12 when the statistics were measured anew, and the
correct answers to pictures of another day rose from 77 % to 93 % (docs/log.md). Source: Wu and Johnson 2021, "Rethinking 'Batch' in
BatchNorm", sections 3 and 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from foldertune.team import ALONE, Team
from foldertune.training.head import stratified_folds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from foldertune.data.loader import Source
    from foldertune.models.network import Network
    from foldertune.stopping import StopRequest

_BATCH = 32


def sample(labels: NDArray[np.int64], num_pictures: int, *, seed: int) -> NDArray[np.int64]:
    """Places of about `num_pictures` pictures, mixed, with every class by its share; all of them where there are no more.

    Drawn without regard to classes, 192 X-rays with some more of one kind moved a tenth of the answers.
    """
    folds = stratified_folds(labels, max(1, round(len(labels) / num_pictures)), seed=seed)
    random = np.random.Generator(np.random.Philox(key=[seed, 0x6D6978]))
    return random.permutation(np.flatnonzero(folds == 0))


def adapting_norms(network: Network, batch_norm: str, *, first_stage: int = 0) -> list[nn.BatchNorm2d]:
    """The batch norms from a stage on that take the statistics of what they see; all others keep those of the pretraining.

    "frozen": none, a batch of 16 estimates them worse than ImageNet did.   "batch": all, as from a random start.
    "body": all but the stem's. On grey pictures the stem's channels for colours hardly vary, and dividing by so little makes
    the rest of the network live on rounding: which 192 pictures were measured then moved a tenth of the answers.
    """
    norms = {name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    least = max(first_stage, {"batch": 0, "body": 1, "frozen": network.num_stages}[batch_norm])
    return [norm for name, norm in norms.items() if network.stage_of(name) >= least]


def learning_mode(network: Network, batch_norm: str) -> None:
    """Training mode for everything but the batch norms that keep their statistics."""
    network.train()
    adapting = set(adapting_norms(network, batch_norm))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module not in adapting:
            module.eval()


@torch.no_grad()
def measure_statistics(
    network: Network,
    norms: Sequence[nn.BatchNorm2d],
    source: Source,
    places: NDArray[np.int64],
    *,
    stop: StopRequest,
    team: Team = ALONE,
) -> bool:
    """Put the mean statistics over batches of a source's pictures into batch norms of the network.

    places: from `sample`, so that every batch has pictures of all classes.   source: where a team shares batches, a SharedSource.
    Returns False if asked to stop on the way: the statistics are then incomplete. Leaves the network in evaluation mode.
    """
    momentums = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over what comes
    try:
        for part in np.array_split(places, -(-len(places) // _BATCH)):
            if team.heard(stop):
                return False
            network.run_stages(source.batch(part, 0), first=source.first_stage)
    finally:
        network.eval()
        for norm, momentum in zip(norms, momentums, strict=True):
            norm.momentum = momentum
    return True
