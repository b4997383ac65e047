"""Augmentation: nothing drawn means nothing changed, each change is what its name says, and the same draw comes every time."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from foldertune.data.augment import STRENGTHS, Sampling, Strength, augment, draw, extents, oversampling_of
from foldertune.preprocess import Preprocess, prepare, stretch

Bytes = NDArray[np.uint8]
IDENTITY = torch.tensor([[1.0, 0, 0], [0, 1, 0]])
NO_COLOUR = torch.eye(3, 4)
FILL = torch.tensor([0.2, 0.4, 0.6])
WHOLE = np.ones((1, 2))


def smooth_picture(height: int, width: int) -> Bytes:
    """Slow waves, another one in each channel, so that resampling twice costs little."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    waves = [np.sin(3 * x + 2 * y), np.cos(4 * x - y), np.sin(5 * y * x + 1)]
    return np.stack([127 + 100 * wave for wave in waves], 2).round().astype(np.uint8)


def noise(num_pictures: int, height: int, width: int) -> Tensor:
    random = np.random.default_rng(0)
    return torch.from_numpy(random.integers(0, 256, (num_pictures, height, width, 3), dtype=np.uint8))


def applied(pictures: Tensor, affine: Tensor, colour: Tensor = NO_COLOUR, *, out_px: int = 16) -> Tensor:
    both = (affine.expand(len(pictures), 2, 3), colour.expand(len(pictures), 3, 4))
    return augment(pictures, *both, fill=FILL, sampling=Sampling(out_px))


def drawn(strength: Strength, rows: list[int], *, seed: int = 3, epoch: int = 1) -> tuple[Tensor, Tensor]:
    affine, colour = draw(strength, rows, seed=seed, epoch=epoch, windows=np.ones((len(rows), 2)))
    return torch.from_numpy(affine), torch.from_numpy(colour)


@pytest.mark.parametrize("fit", ["crop", "squash", "letterbox"])
@pytest.mark.parametrize("size", [(120, 120), (90, 180), (160, 80), (100, 400)])
def test_augment_with_strength_none_equals_the_prepared_picture(fit: str, size: tuple[int, int]) -> None:
    preprocess = Preprocess(image_size=56, fit=fit)  # type: ignore[arg-type]
    picture = smooth_picture(*size)
    expected = prepare(picture, preprocess).astype(float)
    canvas = torch.from_numpy(stretch(picture, (85, 64), "bilinear").copy())[None]
    zoom = preprocess.crop_fraction if fit == "crop" else 1.0
    windows = extents([(size[1], size[0])], fit)
    affine, colour = draw(STRENGTHS["none"], [0], seed=0, epoch=1, windows=windows, zoom=zoom)
    fill = torch.tensor(preprocess.fill) / 255
    result = augment(canvas, torch.from_numpy(affine), torch.from_numpy(colour), fill=fill, sampling=Sampling(56))
    error = np.abs(result[0].permute(1, 2, 0).numpy() * 255 - expected)
    edges = {"crop": 0.02, "squash": 0.05, "letterbox": 0.08}  # where the canvas ends, sampling reaches the fill colour
    assert (error > 4).mean() < edges[fit]
    assert np.median(error) < 1


@pytest.mark.parametrize("quarter_turns", [0, 1, 2, 3])
def test_augment_by_quarter_turns_and_mirror_gives_numpys_bytes(quarter_turns: int) -> None:
    pictures = noise(2, 16, 16)
    angle = quarter_turns * math.pi / 2
    turn = torch.tensor([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0]])
    for mirror in (False, True):
        affine = turn @ torch.diag(torch.tensor([-1.0 if mirror else 1.0, 1.0, 1.0]))
        result = applied(pictures, affine).mul(255).round().byte().permute(0, 2, 3, 1).numpy()
        expected = np.rot90(pictures.numpy(), quarter_turns, axes=(1, 2))
        assert np.array_equal(result, expected[:, :, ::-1] if mirror else expected)


@given(
    st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(8, 30), st.integers(8, 30)),
    st.booleans(),
)
@settings(max_examples=40)
def test_augment_of_an_enlarged_crop_gives_pillows_bytes(box: tuple[int, int, int, int], mirror: bool) -> None:
    """The one resampling of training is that of `prepare`: networks learned from other ones answered worse."""
    left, top, width, height = box
    left, top = min(left, 40 - width), min(top, 40 - height)
    pictures, out_px = noise(1, 40, 40), 32
    affine = torch.tensor([[width / 40, 0, (2 * left + width) / 40 - 1], [0, height / 40, (2 * top + height) / 40 - 1]])
    expected = Image.fromarray(pictures[0].numpy()).resize(
        (out_px, out_px), Image.Resampling.BILINEAR, box=(left, top, left + width, top + height)
    )
    result = applied(pictures, affine @ torch.diag(torch.tensor([-1.0 if mirror else 1.0, 1.0, 1.0])), out_px=out_px)
    pixels = result[0].permute(1, 2, 0).numpy() * 255
    if mirror:
        pixels = pixels[:, ::-1]
    # At the border of a box Pillow sees nothing outside of it; half a source pixel further in both see the same.
    edge = math.ceil(0.5 * out_px / min(width, height))
    inner = (slice(edge, out_px - edge),) * 2
    assert np.abs(pixels - np.asarray(expected).astype(float))[inner].max() < 1.1


def test_augment_of_the_whole_canvas_goes_on_with_its_border_and_not_with_the_fill() -> None:
    pictures = torch.full((1, 8, 8, 3), 255, dtype=torch.uint8)
    assert torch.allclose(applied(pictures, IDENTITY, out_px=32), torch.ones(1, 3, 32, 32), atol=1e-5)


@pytest.mark.parametrize(("scale", "oversampling"), [(1.2, 2), (1.5, 2), (1.75, 2)])
def test_augment_of_a_reduced_picture_is_as_sharp_as_the_prepared_one(scale: float, oversampling: int) -> None:
    """Variance of noise after reduction, against Pillow's; without oversampling it would hardly fall."""
    side, out_px = round(64 * scale), 64
    pictures = noise(2, side, side)
    expected = np.stack(
        [
            np.asarray(Image.fromarray(one.numpy()).resize((out_px, out_px), Image.Resampling.BILINEAR))
            for one in pictures
        ]
    )
    assert oversampling_of(side, out_px) == oversampling
    both = (IDENTITY.expand(2, 2, 3), NO_COLOUR.expand(2, 3, 4))
    results = [
        augment(pictures, *both, fill=FILL, sampling=Sampling(out_px, oversampling=samples)).mul(255)
        for samples in (1, oversampling)
    ]
    spread = [float(found.std()) / expected.std() for found in results]
    assert abs(spread[1] - 1) < 0.25
    assert abs(spread[1] - 1) < abs(spread[0] - 1)


@pytest.mark.parametrize(
    ("canvas_px", "out_px", "expected"), [(150, 224, 1), (224, 224, 1), (256, 224, 2), (392, 224, 2), (1, 64, 1)]
)
def test_oversampling_passes_over_no_pixel(canvas_px: int, out_px: int, expected: int) -> None:
    assert oversampling_of(canvas_px, out_px) == expected


def test_augment_of_a_half_pixel_shift_in_bicubic_is_the_cubic_through_four_neighbours() -> None:
    pictures = noise(1, 16, 16)
    shift = IDENTITY.clone()
    shift[0, 2] = 1 / 16  # half a pixel of 16, in units where the whole side is 2
    values = pictures[0].float() / 255
    # Keys 1981, "Cubic convolution interpolation for digital image processing", with a = -0.75 at distances 1.5 and 0.5.
    weights = (-0.09375, 0.59375, 0.59375, -0.09375)
    expected = sum(weight * values[:, start : start + 13] for start, weight in enumerate(weights))
    assert isinstance(expected, torch.Tensor)
    both = (shift.expand(1, 2, 3), NO_COLOUR.expand(1, 3, 4))
    result = augment(pictures, *both, fill=FILL, sampling=Sampling(16, "bicubic"))[0].permute(1, 2, 0)
    assert torch.allclose(result[:, 1:14], expected.clamp(0, 1), atol=1e-5)


def test_augment_outside_the_canvas_shows_the_fill_colour() -> None:
    wide = IDENTITY * 2
    result = applied(noise(1, 16, 16), wide, out_px=32)[0]
    outside = torch.ones(32, 32, dtype=torch.bool)
    outside[7:25, 7:25] = False
    assert torch.allclose(result[:, outside], FILL[:, None].expand(3, int(outside.sum())), atol=1e-6)
    assert not torch.allclose(result[:, ~outside], FILL[:, None].expand(3, int((~outside).sum())), atol=0.1)


def test_augment_with_a_colour_matrix_agrees_with_numpy() -> None:
    pictures, colour = noise(2, 8, 8), torch.tensor([[0.5, 0.2, 0, 0.1], [0, 1.5, 0, -0.2], [0.1, 0.1, 0.9, 0]])
    result = applied(pictures, IDENTITY, colour, out_px=8).permute(0, 2, 3, 1).numpy()
    values = pictures.numpy() / 255.0
    expected = np.clip(values @ colour[:, :3].T.numpy() + colour[:, 3].numpy(), 0, 1)
    assert np.abs(result - expected).max() < 1e-5


def test_draw_with_strength_none_is_the_identity() -> None:
    affine, colour = drawn(STRENGTHS["none"], [0, 1, 7])
    assert torch.allclose(affine, IDENTITY.expand(3, 2, 3))
    assert torch.allclose(colour, NO_COLOUR.expand(3, 3, 4), atol=1e-6)


def test_draw_with_flips_alone_mirrors_about_half_exactly() -> None:
    rows = list(range(400))
    affine, colour = drawn(Strength(flip=True), rows)
    mirrored = affine[:, 0, 0] < 0
    assert 150 < int(mirrored.sum()) < 250
    assert torch.allclose(colour, NO_COLOUR.expand(400, 3, 4), atol=1e-6)
    pictures = noise(1, 16, 16).expand(400, 16, 16, 3)
    result = (
        augment(pictures, affine, colour, fill=FILL, sampling=Sampling(16)).mul(255).round().byte().permute(0, 2, 3, 1)
    )
    assert torch.equal(result[mirrored], pictures[mirrored].flip(2))
    assert torch.equal(result[~mirrored], pictures[~mirrored])


@pytest.mark.parametrize("name", ["light", "standard", "heavy"])
def test_draw_of_one_row_does_not_depend_on_its_batch(name: str) -> None:
    together = drawn(STRENGTHS[name], [5, 0, 9, 123_456])
    for place, row in enumerate([5, 0, 9, 123_456]):
        for whole, alone in zip(together, drawn(STRENGTHS[name], [row]), strict=True):
            assert torch.equal(whole[place], alone[0])


def test_draw_is_repeated_by_seed_epoch_and_row_and_changed_by_each() -> None:
    first = drawn(STRENGTHS["heavy"], [4], seed=1, epoch=2)
    assert all(map(torch.equal, first, drawn(STRENGTHS["heavy"], [4], seed=1, epoch=2)))
    others: list[tuple[int, int, int]] = [(5, 1, 2), (4, 2, 2), (4, 1, 3)]
    for row, seed, epoch in others:
        for one, other in zip(first, drawn(STRENGTHS["heavy"], [row], seed=seed, epoch=epoch), strict=True):
            assert not torch.allclose(one, other)


def test_draw_from_other_draws_of_numpy_or_torch_is_independent() -> None:
    first = drawn(STRENGTHS["heavy"], [4])
    np.random.default_rng().random(100)
    torch.rand(100)
    assert all(map(torch.equal, first, drawn(STRENGTHS["heavy"], [4])))


@pytest.mark.parametrize("name", ["light", "standard", "heavy"])
def test_augment_gives_the_same_bytes_in_any_batch_and_on_any_number_of_cores(name: str) -> None:
    pictures, rows = noise(6, 40, 48), [3, 1, 4, 15, 9, 2]
    affine, colour = drawn(STRENGTHS[name], rows)
    before = torch.get_num_threads()
    results = []
    try:
        for num_cores in (1, 2, 4):
            torch.set_num_threads(num_cores)
            results.append(augment(pictures, affine, colour, fill=FILL, sampling=Sampling(32)))
    finally:
        torch.set_num_threads(before)
    alone = torch.cat(
        [augment(pictures[[n]], affine[[n]], colour[[n]], fill=FILL, sampling=Sampling(32)) for n in range(len(rows))]
    )
    assert all(torch.equal(results[0], other) for other in (*results[1:], alone))


@settings(max_examples=30)
@given(
    st.sampled_from(["none", "light", "standard", "heavy"]),
    st.integers(0, 2**32 - 1),
    st.integers(0, 10_000),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["crop", "squash", "letterbox"]),
    st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
)
def test_augment_stays_in_range_whatever_is_drawn(
    name: str, seed: int, epoch: int, row: int, fit: str, size: tuple[int, int]
) -> None:
    affine, colour = draw(STRENGTHS[name], [row], seed=seed, epoch=epoch, windows=extents([size], fit), zoom=0.875)
    result = augment(
        noise(1, 12, 18), torch.from_numpy(affine), torch.from_numpy(colour), fill=FILL, sampling=Sampling(8)
    )
    assert tuple(result.shape) == (1, 3, 8, 8)
    assert bool(torch.isfinite(result).all())
    assert 0 <= float(result.min()) <= float(result.max()) <= 1


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.floats(0.2, 0.99), st.floats(1, 2))
def test_draw_of_a_crop_keeps_inside_the_picture_and_its_area(row: int, least_area: float, aspect: float) -> None:
    strength = Strength(least_area=least_area, aspect=aspect)
    affine, _ = drawn(strength, [row])
    side, centre = affine[0, :, :2].diagonal().abs(), affine[0, :, 2].abs()
    assert bool((side + centre <= 1 + 1e-5).all())
    area = float(side.prod())
    clipped = float(side.max()) > 1 - 1e-6  # a long crop of a large area does not fit, and is cut at the border
    assert area <= 1 + 1e-5
    assert area >= least_area - 1e-5 or clipped


@pytest.mark.parametrize("name", ["standard", "heavy"])
def test_draw_of_colours_keeps_grey_grey(name: str) -> None:
    _, colour = drawn(STRENGTHS[name], list(range(100)))
    greys = colour @ torch.tensor([[0.0, 0.5, 1.0]] * 3 + [[1.0, 1.0, 1.0]])
    assert float((greys - greys.mean(1, keepdim=True)).abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"brightness": 0.5}, "every channel by one factor"),
        ({"contrast": 0.5}, "mid-grey stays"),
        ({"saturation": 0.5}, "luma stays"),
        ({"hue_deg": 30.0}, "sum of channels stays"),
    ],
)
def test_draw_of_one_colour_change_keeps_what_it_must(part: dict[str, float], expected: str) -> None:
    _, colour = drawn(Strength(flip=False, **part), list(range(50)))  # type: ignore[arg-type]
    matrix, offset = colour[:, :, :3].double(), colour[:, :, 3].double()
    luma = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    assert not torch.allclose(matrix[0], matrix[1])
    if expected == "every channel by one factor":
        assert torch.allclose(matrix, matrix[:, :1, :1] * torch.eye(3, dtype=torch.float64), atol=1e-6)
        assert float(offset.abs().max()) < 1e-6
    elif expected == "mid-grey stays":
        assert torch.allclose(matrix.sum(2) * 0.5 + offset, torch.full((50, 3), 0.5, dtype=torch.float64), atol=1e-6)
    elif expected == "luma stays":
        assert torch.allclose(luma @ matrix, luma.expand(50, 3), atol=1e-6)
    else:
        assert torch.allclose(matrix.sum(1), torch.ones(50, 3, dtype=torch.float64), atol=1e-6)


@pytest.mark.parametrize(
    ("fit", "size", "expected"),
    [
        ("crop", (200, 100), (0.5, 1.0)),
        ("crop", (100, 200), (1.0, 0.5)),
        ("crop", (100, 100), (1.0, 1.0)),
        ("squash", (200, 100), (1.0, 1.0)),
        ("letterbox", (200, 100), (1.0, 2.0)),
        ("letterbox", (100, 200), (2.0, 1.0)),
    ],
)
def test_extents_of_each_fit(fit: str, size: tuple[int, int], expected: tuple[float, float]) -> None:
    assert extents([size], fit).tolist() == [list(expected)]


def test_strengths_grow_with_their_names() -> None:
    names = ["none", "light", "standard", "heavy"]
    assert list(STRENGTHS) == names
    for weaker, stronger in pairwise(names):
        one, other = STRENGTHS[weaker], STRENGTHS[stronger]
        assert other.least_area < one.least_area
        for part in ("aspect", "rotation_deg", "brightness", "contrast", "saturation", "hue_deg", "random_operations"):
            assert getattr(other, part) >= getattr(one, part)
    assert replace(STRENGTHS["none"], flip=True) == Strength()
