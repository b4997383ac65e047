"""Statistics of batch norms: those of the pictures that are given, for the weights as they are, and the same after a resume."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn
from trainings import COURSE, Training, made_split, thin_network

from foldertune.models.network import Network
from foldertune.stopping import StopRequest
from foldertune.training.statistics import adapting_norms, learning_mode, measure_statistics, sample


class Noise:
    """Pictures of noise, and how many were asked for."""

    first_stage, num_pictures = 0, 300

    def __init__(self) -> None:
        self.x = torch.from_numpy(np.random.default_rng(0).normal(2.0, 3.0, (300, 3, 32, 32))).float()
        self.num_read = 0

    def batch(self, places: NDArray[np.int64], epoch: int) -> Tensor:
        self.num_read += len(places)
        return self.x[torch.from_numpy(places)]


def statistics_of(network: Network) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.named_buffers() if "num_batches" not in name}


def test_measured_statistics_are_the_means_over_batches_of_what_the_first_norm_meets() -> None:
    network, source = thin_network(), Noise()
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.fill_(50.0)  # type: ignore[union-attr]  # a buffer of every batch norm here
    before = [parameter.clone() for parameter in network.parameters()]
    assert measure_statistics(network, adapting_norms(network, "batch"), source, np.arange(64), stop=StopRequest())
    convolution = network.get_submodule("body.0.0")
    with torch.no_grad():
        halves = [convolution(source.x[start : start + 32]) for start in (0, 32)]
    found = statistics_of(network)
    means = torch.stack([half.mean((0, 2, 3)) for half in halves]).mean(0)
    variances = torch.stack([half.var((0, 2, 3)) for half in halves]).mean(0)
    torch.testing.assert_close(found["body.0.1.running_mean"], means, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found["body.0.1.running_var"], variances, rtol=1e-4, atol=1e-4)
    assert all(map(torch.equal, before, network.parameters()))
    assert not network.training
    assert {norm.momentum for norm in network.modules() if isinstance(norm, nn.BatchNorm2d)} == {0.1}


@given(st.lists(st.integers(0, 4), min_size=2, max_size=600), st.integers(1, 200), st.integers(0, 2**32 - 1))
def test_sample_has_every_class_by_its_share_and_no_picture_twice(classes: list[int], wanted: int, seed: int) -> None:
    labels = np.array(classes, np.int64)
    places = sample(labels, wanted, seed=seed)
    assert len(set(places.tolist())) == len(places)
    share = 1 / max(1, round(len(labels) / wanted))
    counts, expected = np.bincount(labels[places], minlength=5), share * np.bincount(labels, minlength=5)
    assert np.abs(counts - expected).max() < 1
    assert np.array_equal(places, sample(labels, wanted, seed=seed))
    assert np.array_equal(np.sort(sample(labels, 600, seed=seed)), np.arange(len(labels)))


def test_measured_statistics_do_not_depend_on_what_was_there_before() -> None:
    networks = [thin_network(), thin_network()]
    networks[0].train()(torch.randn(4, 3, 32, 32))
    for network in networks:
        measure_statistics(network, adapting_norms(network, "batch"), Noise(), np.arange(40), stop=StopRequest())
    assert all(map(torch.equal, *(statistics_of(network).values() for network in networks)))


def test_measuring_that_is_asked_to_stop_says_so() -> None:
    stop = StopRequest()
    stop.signal = 15
    network = thin_network()
    assert not measure_statistics(network, adapting_norms(network, "batch"), Noise(), np.arange(64), stop=stop)


@pytest.mark.parametrize(
    ("batch_norm", "expected"), [("frozen", []), ("body", [1, 2, 3, 4]), ("batch", [0, 1, 2, 3, 4])]
)
def test_learning_moves_the_statistics_of_the_adapting_norms_alone(batch_norm: str, expected: list[int]) -> None:
    network = thin_network()
    learning_mode(network, batch_norm)
    before = statistics_of(network)
    network(torch.randn(4, 3, 32, 32))
    after = statistics_of(network)
    moved = {network.stage_of(name) for name, value in after.items() if not torch.equal(value, before[name])}
    assert sorted(moved) == expected
    assert network.training
    assert measure_statistics(network, adapting_norms(network, batch_norm), Noise(), np.arange(40), stop=StopRequest())
    measured = statistics_of(network)
    assert {network.stage_of(name) for name in measured if not torch.equal(measured[name], after[name])} == moved


def test_fit_on_batch_statistics_validates_with_those_of_unchanged_pictures(tmp_path: Path) -> None:
    plain = made_split(tmp_path, 12)
    train = dataclasses.replace(made_split(tmp_path, 12, augmentation="heavy"), unchanged=plain.source)
    course = dataclasses.replace(COURSE, epochs=2, batch_norm="batch")
    made = Training(tmp_path / "checkpoints", train, made_split(tmp_path, 6, seed=1), course=course, make=thin_network)
    fitted = made.run()
    network = thin_network()
    network.load_state_dict(fitted.tensors, strict=False)
    kept = statistics_of(network)
    # One batch takes all twelve pictures, whatever their order: the statistics must come out the same but for rounding.
    norms = adapting_norms(network, "batch")
    assert measure_statistics(network, norms, plain.source, np.arange(12), stop=StopRequest())
    for name, value in statistics_of(network).items():
        torch.testing.assert_close(value, kept[name], rtol=1e-4, atol=1e-5)


def test_fit_on_frozen_statistics_measures_none(tmp_path: Path) -> None:
    course = dataclasses.replace(COURSE, epochs=1, batch_norm="frozen")
    made = Training(
        tmp_path / "c", made_split(tmp_path, 6), made_split(tmp_path, 6, seed=1), course=course, make=thin_network
    )
    made.run()
    assert all(map(torch.equal, statistics_of(made.network).values(), statistics_of(thin_network()).values()))
