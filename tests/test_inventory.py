"""The inventory names exactly the tensors that the networks have."""

from __future__ import annotations

import pytest
import torch

from foldertune.models import build
from foldertune.models.architecture import SHAPES
from foldertune.models.inventory import tensors_of


@pytest.mark.parametrize("model", SHAPES)
def test_tensors_of_each_network_are_those_that_torch_builds_in_the_same_order(model: str) -> None:
    with torch.device("meta"):  # no memory is taken: ViT-L alone has 1.2 GB
        network = build(model, num_classes=7)
    built = [(name, tuple(tensor.shape)) for name, tensor in network.state_dict().items()]
    assert list(tensors_of(model, num_classes=7).items()) == built
