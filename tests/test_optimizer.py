"""Rates and what learns: the schedule against torch's own, groups by stage, what stays frozen."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ramps import fill_with_ramps, ramp_pictures
from torch import nn

from foldertune.models import build
from foldertune.models.network import Network
from foldertune.training.optimizer import (
    Schedule,
    freeze_below,
    make_optimizer,
    parameter_groups,
    set_rate,
)


@pytest.fixture(scope="module")
def network() -> Network:
    made = build("resnet18", num_classes=3)
    fill_with_ramps(made)
    return made


def torch_factors(num_steps: int, warmup_steps: int, floor: float) -> list[float]:
    """The rates of LinearLR followed by CosineAnnealingLR at a peak of 1."""
    from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR

    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    factors = []
    warming = LinearLR(optimizer, 1 / (warmup_steps + 1), 1.0, total_iters=warmup_steps) if warmup_steps else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch wants optimizer.step() first; nothing is learned here
        for _ in range(warmup_steps):
            assert warming is not None
            factors.append(optimizer.param_groups[0]["lr"])
            warming.step()
        optimizer.param_groups[0]["lr"] = optimizer.param_groups[0]["initial_lr"] = 1.0
        cosine = CosineAnnealingLR(optimizer, num_steps - warmup_steps, eta_min=floor)
        for _ in range(num_steps - warmup_steps):
            factors.append(optimizer.param_groups[0]["lr"])
            cosine.step()
    return factors


@pytest.mark.parametrize(("num_steps", "warmup_steps"), [(40, 4), (40, 0), (7, 1), (100, 50), (1, 0), (2, 1)])
@pytest.mark.parametrize("floor", [0.0, 0.01, 0.3])
def test_schedule_agrees_with_torchs_warm_up_and_cosine(num_steps: int, warmup_steps: int, floor: float) -> None:
    schedule = Schedule(num_steps, warmup_steps, floor)
    ours = [schedule.factor(step) for step in range(num_steps)]
    assert ours == pytest.approx(torch_factors(num_steps, warmup_steps, floor), abs=1e-9)


@given(st.integers(1, 5000), st.floats(0, 1), st.floats(0, 0.5))
def test_schedule_rises_to_one_and_falls_to_its_floor(num_steps: int, warmup_share: float, floor: float) -> None:
    schedule = Schedule(num_steps, round(warmup_share * num_steps), floor)
    factors = [schedule.factor(step) for step in range(num_steps)]
    peak = min(schedule.warmup_steps, num_steps - 1)
    assert all(0 < factor <= 1 for factor in factors[: peak + 1])
    assert all(floor - 1e-12 <= factor <= 1 for factor in factors[peak:])
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert schedule.factor(num_steps + 10) >= floor - 1e-12


def test_schedule_after_its_end_stays_at_the_floor() -> None:
    schedule = Schedule(10, 2, 0.05)
    assert schedule.factor(10) == pytest.approx(0.05)
    assert schedule.factor(10_000) == pytest.approx(0.05)


@pytest.mark.parametrize("first_stage", [0, 3, 4, 5])
def test_parameter_groups_hold_every_learning_parameter_once(network: Network, first_stage: int) -> None:
    groups = parameter_groups(network, first_stage=first_stage, learning_rate=1.0, layer_decay=1.0, weight_decay=0.1)
    held = [id(value) for group in groups for value in group["params"]]
    expected = [
        id(value)
        for stage in range(first_stage, network.num_stages + 1)
        for _, value in network.stage_parameters(stage)
    ]
    assert sorted(held) == sorted(expected)
    assert len(set(held)) == len(held)


def test_parameter_groups_decay_rates_by_stage_below_the_head(network: Network) -> None:
    groups = parameter_groups(network, first_stage=1, learning_rate=0.2, layer_decay=0.5, weight_decay=0.1)
    stage_of = {id(value): network.stage_of(name) for name, value in network.named_parameters()}
    for group in groups:
        stages = {stage_of[id(value)] for value in group["params"]}
        (stage,) = stages
        assert group["peak"] == pytest.approx(0.2 * 0.5 ** (network.num_stages - stage))


def test_parameter_groups_give_the_head_alone_its_factor(network: Network) -> None:
    groups = parameter_groups(
        network, first_stage=0, learning_rate=0.2, layer_decay=0.5, weight_decay=0.1, head_factor=10.0
    )
    head = {id(value) for _, value in network.stage_parameters(network.num_stages)}
    for group in groups:
        of_the_head = {id(value) in head for value in group["params"]}
        assert of_the_head == {group["peak"] == 2.0}
        assert of_the_head == {True} or float(group["peak"]) <= 0.1


def test_parameter_groups_decay_weights_but_not_biases_and_norms(network: Network) -> None:
    groups = parameter_groups(network, first_stage=0, learning_rate=0.2, layer_decay=0.7, weight_decay=0.1)
    names = {id(value): name for name, value in network.named_parameters()}
    decayed = {names[id(value)] for group in groups if group["weight_decay"] == 0.1 for value in group["params"]}
    assert decayed == {
        name
        for name, module in ((f"{name}.weight", module) for name, module in network.named_modules())
        if isinstance(module, (nn.Conv2d, nn.Linear))
    }
    assert {group["weight_decay"] for group in groups} == {0.1, 0.0}


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_set_rate_scales_every_group(network: Network, name: str) -> None:
    groups = parameter_groups(network, first_stage=0, learning_rate=0.2, layer_decay=0.5, weight_decay=0.1)
    optimizer = make_optimizer(name, groups)
    assert {group["lr"] for group in optimizer.param_groups} <= {0.0, *(group["peak"] for group in groups)}
    set_rate(optimizer, 0.25)
    assert max(group["lr"] for group in optimizer.param_groups) == pytest.approx(0.05)
    for group in optimizer.param_groups:
        assert group["lr"] == pytest.approx(0.25 * group["peak"])


def test_make_optimizer_adamw_steps_as_the_paper_says() -> None:
    """One step of algorithm 2 of Loshchilov and Hutter 2019, arXiv:1711.05101, by hand."""
    weight = nn.Parameter(torch.tensor([[2.0, -1.0]]))
    optimizer = make_optimizer("adamw", [{"params": [weight], "lr": 0.1, "peak": 0.1, "weight_decay": 0.5}])
    set_rate(optimizer, 1.0)
    weight.grad = torch.tensor([[0.3, -0.4]])
    optimizer.step()
    expected = torch.tensor([[2.0, -1.0]]) * (1 - 0.1 * 0.5) - 0.1 * torch.tensor([[1.0, -1.0]])
    assert torch.allclose(weight, expected, atol=1e-6)


def test_make_optimizer_sgd_steps_with_nesterov_momentum() -> None:
    weight = nn.Parameter(torch.tensor([1.0]))
    optimizer = make_optimizer("sgd", [{"params": [weight], "lr": 0.1, "peak": 0.1, "weight_decay": 0.0}])
    set_rate(optimizer, 1.0)
    velocity, expected = 0.0, 1.0
    for gradient in (0.5, -0.2, 0.1):
        weight.grad = torch.tensor([gradient])
        optimizer.step()
        velocity = 0.9 * velocity + gradient
        expected -= 0.1 * (gradient + 0.9 * velocity)
        assert weight.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("first_stage", [0, 2, 4, 5])
def test_freeze_below_gives_gradients_only_above(network: Network, first_stage: int) -> None:
    freeze_below(network, first_stage)
    network.zero_grad(set_to_none=True)
    network(ramp_pictures(32)).sum().backward()
    for name, value in network.named_parameters():
        assert (value.grad is not None) == (network.stage_of(name) >= first_stage), name
    freeze_below(network, 0)
    assert all(value.requires_grad for value in network.parameters())
