"""Which parts of a picture speak for a class: Grad-CAM for ResNets, attention weighted by its gradients for ViTs.

A method goes in two steps: `begin` computes what does not depend on the class nor on the upper layers, `evidence` does the rest, also
with other weights in the upper layers, which is how a map is checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from foldertune.explanation.geometry import Grid
from foldertune.models.resnet import ResNet
from foldertune.models.vit import Block, ViT

if TYPE_CHECKING:
    from foldertune.models.network import Network

Weights = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Begun:
    """What is known of some pictures below the upper layers: the activation there, and the attentions so far.

    side_px: of each picture, which is square.
    """

    x: Tensor
    side_px: int
    attentions: tuple[Tensor, ...] = ()


class Method(Protocol):
    """How a network's answer becomes a map."""

    title: str
    source: str

    def begin(self, x: Tensor) -> Begun:
        """x: (B, 3, S, S), normalised."""

    def evidence(self, begun: Begun, class_numbers: Sequence[int], weights: Weights | None = None) -> tuple[Grid, ...]:
        """How much each cell speaks for a class.

        class_numbers: (B,), one for each picture.   weights: of the upper layers, in place of the network's own.
        """


def features_of(network: Network, begun: Begun) -> Tensor:
    """(D,): what the head reads of the picture."""
    with torch.no_grad():
        return network.pool(network.run_stages(begun.x, first=network.num_stages - 1))[0]


def method_for(network: Network) -> Method:
    """The method for a network, which is put into evaluation mode and no longer learns."""
    network.eval().requires_grad_(False)
    return AttentionMap(network) if isinstance(network, ViT) else GradCam(cast("ResNet", network))


def randomised(network: Network, seed: int) -> dict[str, Tensor]:
    """Weights for `evidence`: those of the last stage and of the head, each tensor with its own values in a random order.

    So every layer keeps the scale of its numbers, whatever the architecture, and all that was learned there is lost.
    Source of the test: Adebayo et al. 2018, "Sanity Checks for Saliency Maps", section 3.
    """
    random = torch.Generator().manual_seed(seed)
    return {
        f"network.{name}": values.flatten()[torch.randperm(values.numel(), generator=random)].view_as(values)
        for name, values in network.state_dict().items()
        if network.stage_of(name) >= network.num_stages - 1 and values.is_floating_point()
    }


class _Upper(nn.Module):
    """The last stage and the head, as a module of their own, so that other weights can be put in their place."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network


def _chosen(logits: Tensor, class_numbers: Sequence[int]) -> Tensor:
    """The sum of one logit of each picture: pictures do not touch each other, so its gradient is that of each alone."""
    return logits[torch.arange(len(logits)), torch.tensor(class_numbers)].sum()


# ---------------------------------------------------------------------------------------------------------------- ResNets


class _UpperResNet(_Upper):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The last stage's activation (B, C, h, w), from which gradients begin, and the logits (B, K)."""
        activation = self.network.run_stages(x, first=self.network.num_stages - 1).detach().requires_grad_()
        return activation, self.network.classify(self.network.pool(activation))


class GradCam:
    """Selvaraju et al. 2017, "Grad-CAM", equations 1 and 2, at the last stage; the ReLU is left to whoever draws.

    For a head that is one linear layer over the mean of the cells this is exact: the cells sum to the logit, but for its bias.
    A cell's centre is at step * i + 0.5 pixels, not in the middle of its square: each halving of the side keeps the even places.
    """

    title = "Grad-CAM"
    source = "Selvaraju et al. 2017"

    def __init__(self, network: ResNet) -> None:
        self._network, self._upper = network, _UpperResNet(network)

    def begin(self, x: Tensor) -> Begun:
        """All stages but the last."""
        with torch.no_grad():
            return Begun(self._network.run_stages(x, last=self._network.num_stages - 2), x.shape[-1])

    def evidence(self, begun: Begun, class_numbers: Sequence[int], weights: Weights | None = None) -> tuple[Grid, ...]:
        """Cells of 32 x 32 pixels."""
        activation, logits = functional_call(self._upper, dict(weights or {}), (begun.x,))
        (gradient,) = torch.autograd.grad(_chosen(logits, class_numbers), activation)
        importance = gradient.mean(dim=(2, 3), keepdim=True)  # equation 1: one weight for each channel
        values = (importance * activation.detach()).sum(1)  # equation 2, before its ReLU
        return tuple(Grid(each, 0.5, 32.0, begun.side_px) for each in values.numpy().astype(np.float64))


# ------------------------------------------------------------------------------------------------------------------- ViTs


def _attended(block: Block, x: Tensor) -> tuple[Tensor, Tensor]:
    """What a block gives, and its attention (B, heads, tokens, tokens), written out, because the fused one shows none."""
    attention = block.attn
    parts = attention.qkv(block.norm1(x)).unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    query, key, value = parts
    shares = (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(dim=-1)
    x = x + attention.proj((shares @ value).transpose(1, 2).flatten(2))
    return x + block.mlp(block.norm2(x)), shares


def _through(network: ViT, x: Tensor, blocks: range) -> tuple[Tensor, tuple[Tensor, ...]]:
    attentions = []
    for number in blocks:
        x, shares = _attended(cast("Block", network.blocks[number]), x)
        attentions.append(shares)
    return x, tuple(attentions)


class _UpperViT(_Upper):
    def forward(self, x: Tensor, first: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The logits (B, K), and the attentions of the blocks from `first` on."""
        network = cast("ViT", self.network)
        x, attentions = _through(network, x, range(first, len(network.blocks)))
        return network.classify(network.pool(x)), attentions


class AttentionMap:
    """Relevance of the patches for the class token: attention weighted by its gradients, block by block.

    Source: Chefer, Gur, Wolf 2021, "Generic Attention-model Explainability", equations 5 and 6 for self-attention.
    """

    title = "attention weighted by its gradients"
    source = "Chefer, Gur and Wolf 2021"

    def __init__(self, network: ViT) -> None:
        self._network, self._upper = network, _UpperViT(network)
        self._first = (network.num_stages - 2) * network.blocks_per_stage  # of the last stage's blocks

    def begin(self, x: Tensor) -> Begun:
        """All blocks but those of the last stage; gradients reach down to the first."""
        tokens = self._network.run_stage(0, x).detach().requires_grad_()
        x_above, attentions = _through(self._network, tokens, range(self._first))
        return Begun(x_above, x.shape[-1], attentions)

    def evidence(self, begun: Begun, class_numbers: Sequence[int], weights: Weights | None = None) -> tuple[Grid, ...]:
        """Cells are the patches."""
        logits, attentions = functional_call(self._upper, dict(weights or {}), (begun.x, self._first))
        every = (*begun.attentions, *attentions)
        # Kept, because other classes and other weights ask the lower blocks again.
        gradients = torch.autograd.grad(_chosen(logits, class_numbers), every, retain_graph=True)
        relevance = torch.eye(every[0].shape[-1]).expand(len(logits), -1, -1)
        for attention, gradient in zip(every, gradients, strict=True):
            mean = (attention.detach() * gradient).clamp(min=0).mean(dim=1)  # equation 5, over the heads
            relevance = relevance + mean @ relevance  # equation 6
        patch, side = self._network.patch_px, begun.side_px // self._network.patch_px
        values = relevance[:, 0, 1:].reshape(-1, side, side).numpy().astype(np.float64)
        return tuple(Grid(each, patch / 2, float(patch), begun.side_px) for each in values)
