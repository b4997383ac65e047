"""Maps against plain autograd on the real networks, exact sums, other weights, determinism."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from foldertune.explanation.attribution import features_of, method_for, randomised
from foldertune.models import build
from foldertune.models.architecture import ViTShape
from foldertune.models.network import Network
from foldertune.models.vit import ViT

NUM_CLASSES = 4


def resnet(name: str = "resnet18") -> Network:
    torch.manual_seed(2)
    network = build(name, num_classes=NUM_CLASSES)
    for (
        value
    ) in network.parameters():  # the last norm of a new block is zero, which would leave half of the network out
        if not value.any():
            torch.nn.init.uniform_(value, 0.1, 0.5)
    return network.eval()


def small_vit() -> ViT:
    torch.manual_seed(3)
    shape = ViTShape("vit_small_for_tests", num_blocks=8, width=24, num_heads=3, patch_px=8, image_px=32)
    network = ViT(shape, num_classes=NUM_CLASSES)
    for value in network.parameters():
        if value.ndim > 1:
            torch.nn.init.normal_(value, std=0.3)
    return network.eval()


def picture(side: int, seed: int = 0) -> Tensor:
    return torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("name", "side"), [("resnet18", 96), ("resnet50", 64), ("resnet18", 100)])
def test_grad_cam_agrees_with_hooks_and_a_whole_backward_pass(name: str, side: int) -> None:
    network, x = resnet(name), picture(side)
    kept: list[Tensor] = []

    def keep(_: Any, __: Any, output: Tensor) -> None:
        output.retain_grad()
        kept.append(output)

    with torch.enable_grad():
        handle = network.get_submodule("layer4").register_forward_hook(keep)
        network(x)[0, 2].backward()
        handle.remove()
    activation, gradient = kept[0][0], kept[0].grad
    assert gradient is not None
    expected = torch.zeros(activation.shape[1:])
    for channel in range(activation.shape[0]):  # Selvaraju et al., equations 1 and 2, written out
        expected += gradient[0, channel].mean() * activation[channel]
    method = method_for(network)
    grid = method.evidence(method.begin(x), [2])[0]
    np.testing.assert_allclose(grid.values, expected.detach().numpy(), rtol=1e-4, atol=1e-6)
    assert (grid.side_px, grid.step_px, grid.first_px) == (side, 32.0, 0.5)


def test_grad_cam_of_our_heads_sums_to_the_logit_without_its_bias() -> None:
    network, x = resnet(), picture(96)
    method = method_for(network)
    begun = method.begin(x)
    with torch.no_grad():
        logits = network(x)[0]
    for number in range(NUM_CLASSES):
        bias = float(network.get_parameter("fc.bias")[number])
        assert method.evidence(begun, [number])[0].values.sum() == pytest.approx(float(logits[number]) - bias, abs=1e-4)


def reference_relevance(network: ViT, x: Tensor, number: int, patch: pytest.MonkeyPatch) -> np.ndarray:
    """Chefer, Gur, Wolf 2021 from the network's own forward pass, its fused attention replaced by one that is watched."""
    watched: list[Tensor] = []

    def watching(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        shares = torch.softmax(query @ key.transpose(2, 3) / query.shape[-1] ** 0.5, dim=-1)
        shares.requires_grad_().retain_grad()
        watched.append(shares)
        return shares @ value

    with patch.context() as patched:
        patched.setattr("foldertune.models.vit.scaled_dot_product_attention", watching)
        network(x)[0, number].backward()
    relevance = np.eye(watched[0].shape[-1])
    for shares in watched:
        assert shares.grad is not None
        product = (shares * shares.grad).detach().numpy()[0]
        relevance += np.maximum(product, 0).mean(0) @ relevance
    return np.asarray(relevance[0, 1:])


@pytest.mark.parametrize("number", [0, 3])
def test_attention_map_agrees_with_its_equations_on_the_network_s_own_pass(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, x = small_vit(), picture(32)
    expected = reference_relevance(network, x, number, monkeypatch)
    method = method_for(network)
    grid = method.evidence(method.begin(x), [number])[0]
    np.testing.assert_allclose(grid.values.ravel(), expected, rtol=1e-4, atol=1e-9)
    assert grid.values.shape == (4, 4)
    assert (grid.first_px, grid.step_px, grid.side_px) == (4.0, 8.0, 32)
    assert np.ptp(grid.values) > 0


def test_attention_map_of_a_larger_picture_has_its_patches() -> None:
    network = small_vit()
    method = method_for(network)
    assert method.evidence(method.begin(picture(48)), [0])[0].values.shape == (6, 6)


@pytest.mark.parametrize("make", [resnet, small_vit])
def test_features_are_what_the_head_reads(make: Any) -> None:
    network, x = make(), picture(32)
    method = method_for(network)
    with torch.no_grad():
        features = features_of(network, method.begin(x))
        torch.testing.assert_close(network.classify(features[None]), network(x))


@pytest.mark.parametrize("make", [resnet, small_vit])
def test_randomised_weights_are_the_upper_ones_in_another_order(make: Any) -> None:
    network = make()
    weights, state = randomised(network, 1), network.state_dict()
    changed = {name.removeprefix("network.") for name in weights}
    assert changed == {name for name in state if network.stage_of(name) >= 4 and "num_batches" not in name}
    for name, values in weights.items():
        own = state[name.removeprefix("network.")]
        assert values.shape == own.shape
        if values.numel() < 10_000:
            torch.testing.assert_close(values.flatten().sort().values, own.flatten().sort().values)
        torch.testing.assert_close(values.double().square().sum(), own.double().square().sum())
    largest = max(weights, key=lambda name: weights[name].numel())
    assert not torch.equal(weights[largest], state[largest.removeprefix("network.")])
    again, other = randomised(network, 1), randomised(network, 2)
    assert all(torch.equal(again[name], weights[name]) for name in weights)
    assert not torch.equal(other[largest], weights[largest])


@pytest.mark.parametrize("make", [resnet, small_vit])
def test_evidence_with_other_weights_is_that_of_a_network_that_has_them(make: Any) -> None:
    network, x = make(), picture(32)
    method = method_for(network)
    begun, weights = method.begin(x), randomised(network, 5)
    found, own = method.evidence(begun, [1], weights)[0], method.evidence(begun, [1])[0]
    network.load_state_dict({name.removeprefix("network."): values for name, values in weights.items()}, strict=False)
    np.testing.assert_allclose(found.values, method.evidence(method.begin(x), [1])[0].values, rtol=1e-4, atol=1e-7)
    assert not np.allclose(found.values, own.values)


@pytest.mark.parametrize("make", [resnet, small_vit])
def test_evidence_twice_is_the_same_and_of_another_class_another(make: Any) -> None:
    network, x = make(), picture(64)
    method = method_for(network)
    begun = method.begin(x)
    first = method.evidence(begun, [0])[0]
    np.testing.assert_array_equal(first.values, method.evidence(begun, [0])[0].values)
    np.testing.assert_array_equal(first.values, method.evidence(method.begin(x), [0])[0].values)
    assert not np.array_equal(first.values, method.evidence(begun, [1])[0].values)


@pytest.mark.parametrize("make", [resnet, small_vit])
def test_evidence_of_several_pictures_is_that_of_each_alone(make: Any) -> None:
    network = make()
    method = method_for(network)
    pictures = [picture(64, seed) for seed in range(3)]
    numbers = [2, 0, 1]
    together = method.evidence(method.begin(torch.cat(pictures)), numbers)
    for x, number, grid in zip(pictures, numbers, together, strict=True):
        (alone,) = method.evidence(method.begin(x), [number])
        np.testing.assert_allclose(grid.values, alone.values, rtol=1e-3, atol=1e-6)
        assert (grid.first_px, grid.step_px, grid.side_px) == (alone.first_px, alone.step_px, alone.side_px)
