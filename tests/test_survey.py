"""What the network says of pictures: an upright side is found by features that show it, a distance by statistics that differ."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from foldertune.data.augment import STRENGTHS, Sampling, augment, draw, extents, strength_of
from foldertune.models import build
from foldertune.preprocess import Preprocess
from foldertune.training.survey import distance, is_grey, swapped_share, upright_share

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Quadrants:
    """An engine whose features are the brightness of the four corners: they show which way up a picture is."""

    name = "quadrants"

    def run_all(self, pictures: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        half = pictures.shape[1] // 2
        cut = (slice(None, half), slice(half, None))
        corners = [pictures[:, rows, columns].mean((1, 2, 3)) for rows in cut for columns in cut]
        return [np.stack(corners, axis=1).astype(np.float32)]

    def run(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.run_all(pictures)[0]


class Brightness(Quadrants):
    """The same without the places: blind to turning."""

    def run_all(self, pictures: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        return [np.sort(super().run_all(pictures)[0], axis=1)]


def pictures_with_bright_corner(number: int) -> NDArray[np.uint8]:
    pictures = np.random.default_rng(0).integers(0, 100, (number, 8, 8, 3), np.uint8)
    pictures[:, :4, :4] += 100
    return pictures


def test_upright_share_of_features_that_show_the_upright_side_is_one() -> None:
    assert upright_share(Quadrants(), pictures_with_bright_corner(20)) == 1.0


def test_upright_share_of_features_that_turning_does_not_change_is_a_guess() -> None:
    share = upright_share(Brightness(), pictures_with_bright_corner(40))
    assert share == pytest.approx(0.25, abs=0.01)


def test_upright_share_of_pictures_without_one_is_about_a_guess() -> None:
    pictures = np.random.default_rng(1).integers(0, 255, (40, 8, 8, 3), np.uint8)
    assert upright_share(Quadrants(), pictures) < 0.4


def test_grey_pictures_are_told_from_coloured_ones() -> None:
    random = np.random.default_rng(0)
    grey = np.repeat(random.integers(0, 256, (16, 8, 8, 1)), 3, axis=3)
    tinted = grey + np.array([0, 40, 10])
    rounded = (grey + random.integers(-1, 2, grey.shape)).clip(0, 255)
    found = [is_grey(pictures.clip(0, 255).astype(np.uint8)) for pictures in (grey, rounded, tinted)]
    assert found == [True, True, False]


def test_distance_of_pictures_that_the_statistics_came_from_is_small_and_grows_with_the_change() -> None:
    torch.manual_seed(0)
    network, preprocess = build("resnet18", num_classes=2), Preprocess(image_size=32)
    pictures = np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3), np.uint8)
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the mean over what is seen: one batch
    with torch.no_grad():
        x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (preprocess.mean, preprocess.std))
        network.train().run_stages((x - mean) / std)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    same = distance(network, preprocess, pictures)
    flat = distance(network, preprocess, (120 + pictures // 16).astype(np.uint8))
    assert same is not None
    assert flat is not None
    assert same < 0.02
    assert flat > 1
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("has_bf16", [True, False])
def test_distance_in_bf16_is_not_emulated_where_the_processor_lacks_it(
    monkeypatch: pytest.MonkeyPatch, has_bf16: bool
) -> None:
    monkeypatch.setattr("foldertune.training.survey.cpu_has_bf16", lambda: has_bf16)
    network, lowered = build("resnet18", num_classes=2), []
    network.get_submodule("conv1").register_forward_hook(lambda *_: lowered.append(torch.is_autocast_enabled("cpu")))
    distance(network, Preprocess(image_size=32), np.zeros((16, 32, 32, 3), np.uint8), precision="bf16")
    assert lowered == [has_bf16]


def test_distance_of_a_network_without_batch_norms_is_none() -> None:
    class Plain(torch.nn.Module):
        num_stages = 1

        def run_stages(self, x: torch.Tensor, first: int = 0, last: int | None = None) -> torch.Tensor:
            return x

        def pool(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3))

    pictures = pictures_with_bright_corner(16)
    assert distance(Plain(), Preprocess(image_size=8), pictures) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("augmentation", "orientation", "turned"),
    [("light", "any", True), ("heavy", "any", True), ("light", "upright", False), ("none", "any", False)],
)
def test_strength_of_turns_pictures_only_where_they_may_be_and_are_changed(
    augmentation: str, orientation: str, turned: bool
) -> None:
    assert strength_of({"augmentation": augmentation, "orientation": orientation}).quarter_turns == turned


def test_strength_of_leaves_out_what_the_plan_switches_off_and_no_more() -> None:
    plan = {"augmentation": "standard", "orientation": "upright"}
    whole = strength_of(plan)
    assert whole == strength_of({**plan, "flip": True, "hue": True})
    assert whole.flip
    assert whole.hue_deg > 0
    assert strength_of({**plan, "flip": False}) == replace(whole, flip=False)
    assert strength_of({**plan, "hue": False}) == replace(whole, hue_deg=0.0)
    assert not strength_of({**plan, "augmentation": "none", "flip": True}).flip


def arrows(number: int, *, symmetric: bool = False) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pictures of two classes, bright on the left and bright on the right; or, symmetric, above and below."""
    random = np.random.default_rng(3)
    pictures, labels = random.integers(0, 100, (number, 8, 8, 3), np.uint8), np.arange(number) % 2
    bright = np.swapaxes(pictures, 1, 2) if symmetric else pictures  # a view
    bright[labels == 0, :, :4] += 120
    bright[labels == 1, :, 4:] += 120
    return pictures, labels


def test_swapped_share_of_classes_that_mirror_each_other_is_one_and_of_others_none() -> None:
    assert swapped_share(Quadrants(), *arrows(24)) == 1.0
    assert swapped_share(Quadrants(), *arrows(24, symmetric=True)) == 0.0
    assert swapped_share(Brightness(), *arrows(24)) < 0.9  # blind to sides


def test_quarter_turns_give_each_of_the_four_about_as_often_and_change_no_pixel_otherwise() -> None:
    """Against numpy's own rot90, pixel by pixel."""
    still = replace(STRENGTHS["none"], quarter_turns=True)
    rows = list(range(400))
    affine, colour = draw(still, rows, seed=1, epoch=1, windows=extents([(8, 8)] * len(rows), "crop"))
    picture = np.random.default_rng(2).integers(0, 255, (8, 8, 3), np.uint8)
    batch = torch.from_numpy(picture).expand(len(rows), -1, -1, -1)
    found = augment(
        batch, torch.from_numpy(affine), torch.from_numpy(colour), fill=torch.zeros(3), sampling=Sampling(8)
    )
    turned = [torch.from_numpy(np.rot90(picture, turns).copy()).permute(2, 0, 1).float() / 255 for turns in range(4)]
    which = [[turns for turns in range(4) if torch.allclose(one, turned[turns], atol=1e-4)] for one in found]
    assert all(len(matches) == 1 for matches in which)
    counts = np.bincount([matches[0] for matches in which], minlength=4)
    assert counts.min() > 70  # 100 expected, standard deviation 8.7
