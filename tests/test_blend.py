"""Between pretrained and fine-tuned weights: the share is the best of those tried, and the network ends there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from ramps import fill_with_ramps

from foldertune.models import build
from foldertune.models.network import Network
from foldertune.training.blend import SHARES, blend

LABELS = np.arange(12, dtype=np.int64) % 3


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return build("resnet18", num_classes=3).eval()


def test_blend_stops_where_validation_is_best(network: Network) -> None:
    start = {name: value.clone() for name, value in network.state_dict().items()}
    fill_with_ramps(network)
    end = {name: value.clone() for name, value in network.state_dict().items()}
    name = "layer1.0.conv1.weight"
    for wanted in SHARES:
        network.load_state_dict(end)
        aim = torch.lerp(start[name], end[name], wanted)

        def logits(aim: torch.Tensor = aim) -> NDArray[np.float32]:
            """Right for every picture at the aim, turned away from it the farther the weights are."""
            far = float((network.state_dict()[name] - aim).abs().mean())
            right = np.eye(3, dtype=np.float32)[LABELS]
            wrong = np.eye(3, dtype=np.float32)[(LABELS + 1) % 3]
            return np.where((np.arange(12) < min(11, 1000 * far))[:, None], wrong, right).astype(np.float32)

        assert blend(network, start, logits, LABELS) == wanted
        torch.testing.assert_close(network.state_dict()[name], aim)


def test_blend_leaves_the_head_and_the_counters_as_they_were_learned(network: Network) -> None:
    start = {name: value.clone() for name, value in network.state_dict().items()}
    fill_with_ramps(network)
    network.bn1.num_batches_tracked.fill_(7)  # type: ignore[union-attr, operator]  # a buffer of the stem's norm
    head = network.state_dict()["fc.weight"].clone()
    worst_far_away = iter([3.0, 2.0, 1.0])

    def logits() -> NDArray[np.float32]:
        eye = np.eye(3, dtype=np.float32)
        return (0.01 * (eye[LABELS] - next(worst_far_away) * eye[(LABELS + 1) % 3])).astype(np.float32)

    blend(network, start, logits, LABELS)
    assert torch.equal(network.state_dict()["fc.weight"], head)
    assert int(network.state_dict()["bn1.num_batches_tracked"]) == 7


def test_blend_without_validation_pictures_changes_nothing(network: Network) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    start = {name: torch.zeros_like(value) for name, value in before.items()}
    assert blend(network, start, lambda: np.zeros((0, 3), np.float32), np.zeros(0, np.int64)) == 1.0
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
