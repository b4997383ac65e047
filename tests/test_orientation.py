"""Whether pictures have an upright side: found by features that show it, not by features that cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from foldertune.data.augment import STRENGTHS, augment, draw, extents, strength_of
from foldertune.training.orientation import upright_share

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
    share = upright_share(Quadrants(), pictures)
    assert share is not None
    assert share < 0.4


def test_upright_share_of_a_few_pictures_is_not_measured() -> None:
    assert upright_share(Quadrants(), pictures_with_bright_corner(15)) is None


@pytest.mark.parametrize(
    ("augmentation", "orientation", "turned"),
    [("light", "any", True), ("heavy", "any", True), ("light", "upright", False), ("none", "any", False)],
)
def test_strength_of_turns_pictures_only_where_they_may_be_and_are_changed(
    augmentation: str, orientation: str, turned: bool
) -> None:
    assert strength_of(augmentation, orientation).quarter_turns == turned


def test_quarter_turns_give_each_of_the_four_about_as_often_and_change_no_pixel_otherwise() -> None:
    """Against numpy's own rot90, pixel by pixel."""
    from dataclasses import replace

    still = replace(STRENGTHS["none"], quarter_turns=True)
    rows = list(range(400))
    affine, colour = draw(still, rows, seed=1, epoch=1, windows=extents([(8, 8)] * len(rows), "crop"))
    picture = np.random.default_rng(2).integers(0, 255, (8, 8, 3), np.uint8)
    batch = torch.from_numpy(picture).expand(len(rows), -1, -1, -1)
    found = augment(batch, torch.from_numpy(affine), torch.from_numpy(colour), out_px=8, fill=torch.zeros(3))
    turned = [torch.from_numpy(np.rot90(picture, turns).copy()).permute(2, 0, 1).float() / 255 for turns in range(4)]
    which = [[turns for turns in range(4) if torch.allclose(one, turned[turns], atol=1e-4)] for one in found]
    assert all(len(matches) == 1 for matches in which)
    counts = np.bincount([matches[0] for matches in which], minlength=4)
    assert counts.min() > 70  # 100 expected, standard deviation 8.7
