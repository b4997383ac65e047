"""What is looked at beside learning: the network's input, copies between splits, how far weights moved, training pictures as they are."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from trainings import NUM_CLASSES, Training, made_features, made_network, made_split, thin_network

import foldertune
from foldertune.data.loader import Source
from foldertune.errors import DivergedError
from foldertune.preprocess import Preprocess
from foldertune.records import Dataset, Picture
from foldertune.stopping import StopRequest
from foldertune.training.examine import answers_plain, examine_inputs, moved_shares, parted_copies
from foldertune.training.statistics import adapting_norms, measure_statistics

UNSCALED = Preprocess(image_size=32, mean=(0.0,) * 3, std=(1.0,) * 3)


def photographs(num_pictures: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth colours, more red than blue: (N, 32, 32, 3)."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (num_pictures, 4, 4, 3))
    small[..., 2] //= 3
    return np.kron(small, np.ones((1, 8, 8, 1))).astype(np.uint8)


class ColourEngine:
    """Features are the mean colours."""

    name = "invented"

    def run(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        features: NDArray[np.float32] = (pictures.mean((1, 2)) / 255).astype(np.float32)
        return features

    def run_all(self, pictures: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        return [self.run(pictures)]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A classifier of 100 classes that is the surer the redder a picture is."""
    weight = torch.zeros(100, 3)
    weight[0, 0] = 30.0
    save_file({"fc.weight": weight, "fc.bias": torch.zeros(100)}, tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def network_made_for(preprocess: Preprocess) -> Any:
    """A ResNet-18 whose batch norms have the statistics of such photographs, fed in this way."""
    network = made_network()

    class Fed:
        first_stage, num_pictures = 0, 64

        def batch(self, places: NDArray[np.int64], epoch: int) -> Tensor:
            x = torch.from_numpy(photographs(64, seed=9)[places]).permute(0, 3, 1, 2).float() / 255
            mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (preprocess.mean, preprocess.std))
            fed: Tensor = (x - mean) / std
            return fed

    measure_statistics(network, adapting_norms(network, "batch"), Fed(), np.arange(64), stop=StopRequest())
    return network


@pytest.mark.parametrize("made_for", [Preprocess(image_size=32), UNSCALED])
def test_examine_inputs_finds_the_scale_that_the_network_was_made_for(made_for: Preprocess, weights: Path) -> None:
    network = network_made_for(made_for)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for given in (Preprocess(image_size=32), UNSCALED):
        found = examine_inputs(network, ColourEngine(), given, photographs(48), weights)
        assert found is not None
        assert found.scales is not None
        expected = 2 * math.log(made_for.std[0] / given.std[0])  # a variance goes with the square of the scale
        assert found.scales["given"] == pytest.approx(expected, abs=0.5)
        named = {"ImageNet mean and std": Preprocess(), "mean 0, std 1": UNSCALED}
        right = min(named, key=lambda name: abs(found.scales[name]))  # type: ignore[index]  # not None
        assert named[right].std == made_for.std
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_examine_inputs_sees_swapped_colours_and_says_nothing_of_grey_ones(weights: Path) -> None:
    network, preprocess, pictures = made_network(), Preprocess(image_size=32), photographs(48)
    right = examine_inputs(network, ColourEngine(), preprocess, pictures, weights)
    wrong = examine_inputs(network, ColourEngine(), preprocess, np.ascontiguousarray(pictures[..., ::-1]), weights)
    assert right is not None
    assert wrong is not None
    assert right.order_t is not None
    assert right.order_t < -4
    assert wrong.order_t == pytest.approx(-right.order_t, rel=1e-4)
    grey = np.repeat(pictures[..., :1], 3, axis=3)
    found = examine_inputs(network, ColourEngine(), preprocess, grey, weights)
    assert found is not None
    assert found.order_t is None
    first = network.get_parameter("conv1.weight").detach()
    assert right.red_over_blue == pytest.approx(
        float(first[:, 0].square().sum() / first[:, 2].square().sum()), rel=1e-4
    )


def test_examine_inputs_of_a_random_start_or_a_few_pictures_is_nothing(weights: Path) -> None:
    network, preprocess = made_network(), Preprocess(image_size=32)
    assert examine_inputs(network, ColourEngine(), preprocess, photographs(48), None) is None
    assert examine_inputs(network, ColourEngine(), preprocess, photographs(7), weights) is None


def test_examine_inputs_of_weights_without_a_classifier_tells_the_scale_alone(tmp_path: Path) -> None:
    save_file({"fc.weight": torch.zeros(3, 4), "fc.bias": torch.zeros(3)}, tmp_path / "few.safetensors")
    found = examine_inputs(
        made_network(), ColourEngine(), Preprocess(image_size=32), photographs(48), tmp_path / "few.safetensors"
    )
    assert found is not None
    assert found.order_t is None
    assert found.scales is not None


def test_moved_shares_are_lengths_of_differences_over_lengths() -> None:
    network = thin_network()
    start = {name: value.clone() for name, value in network.state_dict().items()}
    assert moved_shares(network, start) == [0.0] * 6
    with torch.no_grad():
        network.get_parameter("body.2.0.weight").mul_(1.25)
        network.get_parameter("head.weight").add_(1.0)
        network.get_parameter("body.1.1.bias").add_(5.0)  # neither scales nor biases count
    moved = moved_shares(network, start)
    assert moved[:5] == pytest.approx([0, 0, 0.25, 0, 0], abs=1e-6)
    before = start["head.weight"]
    assert moved[5] == pytest.approx(float((torch.ones_like(before)).norm() / before.norm()), rel=1e-5)


def test_answers_plain_are_those_of_the_network_on_unchanged_pictures(tmp_path: Path) -> None:
    split, network = made_split(tmp_path, 40), made_network()
    loss, accuracy, number = answers_plain(network, split.source, split.labels, seed=1)
    assert number == 40
    assert not network.training
    with torch.inference_mode():
        logits = network(split.source.batch(np.arange(40), 0))
    labels = torch.from_numpy(split.labels)
    assert loss == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-4)
    assert accuracy == pytest.approx(float((logits.argmax(1) == labels).float().mean()))
    assert answers_plain(network, split.source, split.labels, seed=1) == (loss, accuracy, number)


class Slow:
    """A source that keeps one waiting."""

    def __init__(self, source: Source) -> None:
        self.first_stage, self.num_pictures, self.source = source.first_stage, source.num_pictures, source

    def batch(self, places: NDArray[np.int64], epoch: int) -> Tensor:
        time.sleep(0.1)
        return self.source.batch(places, epoch)


def test_fit_tells_how_long_it_waited_and_what_the_steps_were_like(tmp_path: Path) -> None:
    train, val = made_features(12, num_features=8), made_features(6, num_features=8, seed=1)
    course = dataclasses.replace(Training(tmp_path, train, val).course, epochs=2, first_stage=5, clip_norm=1e-4)
    slow = dataclasses.replace(train, source=Slow(train.source))
    waited = Training(tmp_path / "slow", slow, val, course=course, make=thin_network)
    waited.run()
    for record in waited.records:
        assert record.waited_share is not None
        epoch_s = 12 / record.pictures_per_s
        assert 3 * 0.1 <= record.waited_share * epoch_s <= epoch_s  # three batches
        assert record.clipped_share == 1.0
        assert record.first_loss is not None
        assert record.highest_loss is not None
        assert record.highest_loss >= max(record.first_loss, record.train_loss)
    free = Training(tmp_path / "free", train, val, course=dataclasses.replace(course, clip_norm=1e9), make=thin_network)
    free.run()
    assert [record.clipped_share for record in free.records] == [0.0, 0.0]


def test_parted_copies_are_pairs_of_train_and_another_split() -> None:
    splits = ("train", "val", "train", "test", "train", "test")
    pictures = tuple(Picture(row, f"{row}.png", "x", split) for row, split in enumerate(splits))  # type: ignore[arg-type]  # splits
    dataset = Dataset(Path("photos"), ("x",), pictures, "folders")
    assert parted_copies(dataset, [(1, 0), (3, 4), (0, 2), (3, 5), (0, 1)]) == [(0, 1), (4, 3)]
    assert parted_copies(dataset, []) == []


def test_a_run_that_diverges_is_told_of_and_diagnosed(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = torch.nn.functional.cross_entropy
    monkeypatch.setattr(torch.nn.functional, "cross_entropy", lambda *given, **how: plain(*given, **how) * math.nan)
    run = tmp_path / "run"
    with pytest.raises(DivergedError, match="The loss stopped being finite at step 1"):
        foldertune.train(
            small_run.parent / "pictures", run=run, model="resnet18", weights="random", image_size=32, epochs=1, device="cpu",
            augmentation="none",
        )  # fmt: skip
    assert NUM_CLASSES == 3
    kinds = [json.loads(line)["kind"] for line in (run / "events.jsonl").read_text("utf-8").splitlines()]
    assert kinds[-2:] == ["diverged", "diagnosed"]
    (found, *_) = foldertune.diagnose(run)
    assert (found.kind, found.severity, found.score) == ("diverged", "serious", 1.0)
    assert json.loads((run / "findings.json").read_text("utf-8"))["findings"][0]["kind"] == "diverged"
