"""Batch norms whose batch is that of all processes together, so that a shared batch gives what it gives to one process.

torch's own SyncBatchNorm does this on GPUs alone; this one does it on a processor too, where it is tested.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from foldertune.models.network import Network
    from foldertune.team import Team

_EACH = (0, 2, 3)  # over pictures and places, for every channel


@dataclass(frozen=True, slots=True)
class Whole:
    """Statistics of a batch that processes share. count: values per channel, (1,).   mean, variance (biased): (C,), float32."""

    count: Tensor
    mean: Tensor
    variance: Tensor
    eps: float
    team: Team


class TeamNorm(nn.BatchNorm2d):
    """A batch norm in the place of another, whose tensors it takes over. While it learns, all processes run it together."""

    def __init__(self, norm: nn.BatchNorm2d, team: Team) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self.weight, self.bias, self.team = norm.weight, norm.bias, team
        for name, value in norm.named_buffers():
            self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W), this process's part of the batch; B may be 0."""
        if not self.training:
            return super().forward(x)
        whole = whole_statistics(x, self.team, eps=self.eps)
        self._follow(whole)
        result: Tensor = _Normalised.apply(x, self.weight, self.bias, whole)  # type: ignore[no-untyped-call]  # torch's stubs
        return result

    @torch.no_grad()
    def _follow(self, whole: Whole) -> None:
        """Move the running statistics as BatchNorm2d does: the variance without bias; a momentum of None is the plain mean."""
        mean, variance, number = (self.get_buffer(name) for name in _BUFFERS)
        number.add_(1)
        share = 1 / number if self.momentum is None else self.momentum
        mean += share * (whole.mean - mean)
        variance += share * (whole.variance * whole.count / (whole.count - 1) - variance)


_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def share_norms(network: Network, norms: Iterable[nn.BatchNorm2d], team: Team) -> None:
    """Let these batch norms of the network take the statistics of all processes; alone, they stay what they are."""
    if team.size == 1:
        return
    names = {module: name for name, module in network.named_modules()}
    for norm in norms:
        network.set_submodule(names[norm], TeamNorm(norm, team))


@torch.no_grad()
def whole_statistics(x: Tensor, team: Team, *, eps: float) -> Whole:
    """Over the parts (B, C, H, W) of all processes."""
    number = x.numel() // x.shape[1]
    sums = x.new_zeros(2, x.shape[1], dtype=torch.float64)
    if number:
        variance, mean = torch.var_mean(x.float(), _EACH, correction=0)
        # In 64 bits the difference below loses nothing of what torch's own kernel found.
        sums = number * torch.stack([mean.double(), variance.double() + mean.double().square()])
    count = torch.full((1,), float(number), dtype=torch.float64, device=x.device)
    found = torch.cat([count, sums.flatten()])
    team.add_up([found])
    mean, square = (found[1:] / found[0]).view(2, -1)
    variance = (square - mean.square()).clamp(min=0)
    return Whole(found[:1].float(), mean.float(), variance.float(), eps, team)


class _Normalised(torch.autograd.Function):
    """(x - mean) / root of the variance * weight + bias, where the statistics are functions of every process's x.

    The gradient is that of Ioffe and Szegedy 2015, "Batch Normalization", section 3, its means taken over all processes.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, whole: Whole) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.whole = whole
        return F.batch_norm(x, whole.mean, whole.variance, weight, bias, False, 0.0, whole.eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        x, weight = ctx.saved_tensors
        whole, (gradient,) = ctx.whole, gradients
        scale = (whole.variance + whole.eps).rsqrt()
        given, centred = gradient.float(), x.float() - whole.mean.view(1, -1, 1, 1)
        sums = torch.stack([given.sum(_EACH), (given * centred).sum(_EACH)])
        for_bias, for_weight = (
            sums[0].clone(),
            sums[1] * scale,
        )  # of this process; the step adds them up like all others
        whole.team.add_up([sums])
        means = (sums / whole.count).view(2, 1, -1, 1, 1)
        slope = means[1] * scale.square().view(1, -1, 1, 1)
        for_x = (given - means[0] - centred * slope) * (scale * weight).view(1, -1, 1, 1)
        return for_x.to(x.dtype), for_weight, for_bias, None
