"""What every network offers: a chain of stages that can be cut anywhere, a pooled feature vector, a linear head.

Stage 0 is the stem, stages 1 to 4 are the body. Nothing needs surgery: `run_stages(x, last=2)` gives what is
worth caching, and training goes on from there with `run_stages(cached, first=3)`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

from torch import Tensor, nn


class Network(nn.Module):
    """An image classifier: classify(pool(run_stages(x))). x: (B, 3, S, S) normalised RGB; logits: (B, K)."""

    num_stages: int = 5
    name: str  # as in the catalogue
    head_name: str  # prefix of the classifier's tensors
    feature_size: int  # D
    num_classes: int  # K

    @property
    def num_parameters(self) -> int:
        return sum(value.numel() for value in self.parameters())

    @abstractmethod
    def run_stage(self, stage: int, x: Tensor) -> Tensor:
        """One stage: from the output of the stage before (the normalised input for stage 0) to its own output."""

    @abstractmethod
    def pool(self, x: Tensor) -> Tensor:
        """Features (B, D) from the last stage's output."""

    @abstractmethod
    def classify(self, features: Tensor) -> Tensor:
        """Logits (B, K) from features (B, D)."""

    @abstractmethod
    def stage_of(self, name: str) -> int:
        """The stage that a tensor or module belongs to by its name; `num_stages` stands for the head."""

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.pool(self.run_stages(x)))

    def run_stages(self, x: Tensor, *, first: int = 0, last: int | None = None) -> Tensor:
        """Stages first to last, both included. x: the network's input for first = 0, else stage first - 1's output.

        With last < first nothing runs and x comes back, so that "all stages were cached" needs no special case.
        """
        for stage in range(first, self.num_stages if last is None else last + 1):
            x = self.run_stage(stage, x)
        return x

    def stage_outputs(self, x: Tensor) -> list[Tensor]:
        """The output of every stage, stem first; for ResNets (B, C, H, W), for ViTs (B, 1 + tokens, D)."""
        outputs = []
        for stage in range(self.num_stages):
            x = self.run_stage(stage, x)
            outputs.append(x)
        return outputs

    def stage_parameters(self, stage: int) -> Iterator[tuple[str, nn.Parameter]]:
        """(name, parameter) of one stage; `stage == num_stages` gives the head."""
        return ((name, parameter) for name, parameter in self.named_parameters() if self.stage_of(name) == stage)
