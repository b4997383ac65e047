"""Which parameters learn how fast: lower rates for lower layers, and the rate over the steps as a pure function."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from foldertune.models.network import Network


@dataclass(frozen=True, slots=True)
class Schedule:
    """Linear warm-up to 1, then a cosine to `floor`; a factor of each group's own peak rate."""

    num_steps: int
    warmup_steps: int
    floor: float = 0.01

    def factor(self, step: int) -> float:
        """step: optimizer steps done, in [0, num_steps)."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        progress = (step - self.warmup_steps) / max(1, self.num_steps - self.warmup_steps)
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def parameter_groups(
    network: Network,
    *,
    first_stage: int,
    learning_rate: float,
    layer_decay: float,
    weight_decay: float,
    head_factor: float = 1.0,
) -> list[dict[str, Any]]:
    """The parameters that learn, one group per stage and kind, in a fixed order.

    first_stage: the lowest stage that learns.   layer_decay: each stage's rate over that of the stage above it, in (0, 1].
    head_factor: rate of the head over `learning_rate`.
    Biases and normalisation scales are not decayed: they do not over-fit, and decay would shift the pretrained statistics.
    """
    groups: list[dict[str, Any]] = []
    top = network.num_stages  # the head
    for stage in range(first_stage, top + 1):
        rate = learning_rate * (head_factor if stage == top else layer_decay ** (top - stage))
        parameters = [parameter for _, parameter in network.stage_parameters(stage)]
        for decay, members in (
            (weight_decay, [value for value in parameters if value.ndim > 1]),
            (0.0, [value for value in parameters if value.ndim <= 1]),
        ):
            if members:
                groups.append({"params": members, "lr": rate, "peak": rate, "weight_decay": decay})
    return groups


def make_optimizer(name: str, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """adamw, or sgd with Nesterov momentum 0.9. On a GPU a step is one kernel."""
    if name == "sgd":
        fused = groups[0]["params"][0].is_cuda
        return torch.optim.SGD(groups, lr=0.0, momentum=0.9, nesterov=True, fused=fused)
    return torch.optim.AdamW(groups, lr=0.0, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's rate to a share of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


def freeze_below(network: Network, first_stage: int) -> None:
    """Stages below `first_stage` do not learn."""
    for stage in range(network.num_stages):
        for _, parameter in network.stage_parameters(stage):
            parameter.requires_grad_(stage >= first_stage)
