"""Where the network's square lies in the picture, held against what `prepare` does; maps between cells; boxes; drawing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from foldertune.explanation.boxes import MOST_BOXES, hot_boxes
from foldertune.explanation.drawing import LONGEST_PX, RAMP, SHORTEST_PX, coloured, draw_map, drawn_picture, jpeg
from foldertune.explanation.geometry import Grid, Window, heat_in_picture, window_of
from foldertune.preprocess import Fit, Preprocess, prepare

FITS: tuple[Fit, ...] = ("crop", "squash", "letterbox")
SIZES = [(300, 300), (500, 375), (375, 500), (640, 100), (90, 700), (64, 48)]


def blob(size: tuple[int, int], place: tuple[float, float], radius: float) -> np.ndarray:
    """A black picture with a soft white spot."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]] + 0.5
    light = 255 * np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / (2 * radius**2))
    return np.repeat(light.astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", SIZES)
def test_window_is_where_prepare_takes_the_square_from(fit: Fit, size: tuple[int, int]) -> None:
    """A spot's centre of mass in the square, mapped back, is where the spot was: to a third of the coarser pixel."""
    preprocess = Preprocess(image_size=96, fit=fit)
    window = window_of(*size, preprocess)
    per = ((window.right - window.left) / 96, (window.bottom - window.top) / 96)
    middle = ((window.left + window.right) / 2, (window.top + window.bottom) / 2)
    radius = min(4 * min(per), min(size) / 8)
    for shift in ((0.0, 0.0), (-12.0, 9.0), (11.0, -13.0)):
        place = tuple(
            float(np.clip(middle[axis] + shift[axis] * per[axis], 3 * radius, size[axis] - 3 * radius))
            for axis in (0, 1)
        )
        light = prepare(blob(size, (place[0], place[1]), radius), preprocess)[..., 0].astype(float)
        light -= np.median(light)  # the bars of letterbox are not black
        light[light < 40] = 0
        if fit == "letterbox":
            light[prepare(np.zeros((size[1], size[0], 3), np.uint8), preprocess)[..., 0] > 0] = 0
        ys, xs = np.mgrid[0:96, 0:96] + 0.5
        found = (
            window.left + per[0] * (light * xs).sum() / light.sum(),
            window.top + per[1] * (light * ys).sum() / light.sum(),
        )
        assert found == pytest.approx(place, abs=max(0.6, 0.35 * max(per)))


@pytest.mark.parametrize("size", SIZES)
def test_window_of_each_fit_says_what_is_cut_and_what_is_added(size: tuple[int, int]) -> None:
    width, height = size
    squash = window_of(width, height, Preprocess(fit="squash"))
    assert squash == Window(0, 0, width, height)
    boxed = window_of(width, height, Preprocess(fit="letterbox"))
    assert boxed.seen_share(width, height) == pytest.approx(1)
    # A bar of an odd number of pixels is one wider on one side.
    assert boxed.right - boxed.left == pytest.approx(max(size), rel=0.03)
    crop = window_of(width, height, Preprocess(crop_fraction=0.5))
    assert crop.right - crop.left == pytest.approx(min(size) / 2, rel=0.03)
    assert crop.seen_share(width, height) == pytest.approx(min(size) ** 2 / 4 / (width * height), rel=0.06)


@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from(FITS), st.floats(0.05, 1))
def test_window_of_any_picture_lies_in_it_or_around_it(width: int, height: int, fit: Fit, fraction: float) -> None:
    window = window_of(width, height, Preprocess(fit=fit, crop_fraction=fraction))
    assert window.right > window.left
    assert window.bottom > window.top
    assert 0 < window.seen_share(width, height) <= 1
    if fit != "letterbox":
        assert window.left >= 0
        assert window.top >= 0
        assert window.right <= width
        assert window.bottom <= height


def peaked(row: int, column: int, *, cells: int = 7, side: int = 224, first: float = 0.5) -> Grid:
    values = np.full((cells, cells), -1.0)
    values[row, column] = 5.0
    return Grid(values, first, side / cells, side)


def test_grid_has_its_cells_values_at_their_centres_and_stays_between_them() -> None:
    random = np.random.default_rng(0)
    grid = Grid(random.normal(size=(7, 7)), 0.5, 32.0, 224)
    whole = grid.whole()
    assert whole.shape == (224, 224)
    assert whole.min() >= grid.values.min()
    assert whole.max() <= grid.values.max()
    even = Grid(np.full((7, 7), 3.25), 16.0, 32.0, 224)
    np.testing.assert_allclose(even.whole(), 3.25)
    y, x = np.unravel_index(peaked(2, 5).whole().argmax(), (224, 224))
    assert abs(y - 64) <= 1
    assert abs(x - 160) <= 1


@pytest.mark.parametrize(("row", "column"), [(0, 0), (6, 6), (0, 6), (3, 0)])
def test_grid_at_the_edge_is_nowhere_hotter_than_at_the_cell(row: int, column: int) -> None:
    grid = peaked(row, column)
    at_cell = grid.at(np.array([32.0 * row + 0.5]), np.array([32.0 * column + 0.5]))[0, 0]
    assert grid.whole().max() == pytest.approx(at_cell)


def test_grid_of_one_cell_is_even() -> None:
    np.testing.assert_allclose(Grid(np.array([[2.0]]), 0.5, 32.0, 32).whole(), 2.0)


def test_heat_in_picture_is_largest_where_the_cell_lies_and_nothing_outside_of_the_crop() -> None:
    window = window_of(500, 375, Preprocess())
    heat, seen = heat_in_picture(peaked(3, 3), window, (500, 375))
    assert heat.shape == seen.shape == (375, 500)
    assert heat.max() == 1
    assert not heat[~seen].any()
    assert seen.mean() == pytest.approx(window.seen_share(500, 375), abs=0.01)
    y, x = np.unravel_index(heat.argmax(), heat.shape)
    scale = (window.right - window.left) / 224
    assert (x + 0.5, y + 0.5) == pytest.approx((window.left + 96.5 * scale, window.top + 96.5 * scale), abs=2 * scale)


def test_heat_where_nothing_speaks_for_the_class_is_nothing() -> None:
    heat, seen = heat_in_picture(Grid(np.full((7, 7), -2.0), 0.5, 32.0, 224), Window(0, 0, 50, 40), (50, 40))
    assert not heat.any()
    assert seen.all()


# Boxes


def test_hot_boxes_are_around_each_hot_part_the_hottest_first() -> None:
    values = np.zeros((7, 7))
    values[1, 1], values[5, 4], values[5, 5] = 0.9, 1.0, 1.0
    boxes = hot_boxes(Grid(values, 16.0, 32.0, 224), Window(0, 0, 448, 224), (448, 224))
    assert len(boxes) == 2
    assert boxes[0].share > boxes[1].share
    assert sum(box.share for box in boxes) == pytest.approx(1)
    assert boxes[0].peak == 1
    assert (boxes[0].left + boxes[0].right) / 2 == pytest.approx(2 * 160, abs=4)
    assert (boxes[0].top + boxes[0].bottom) / 2 == pytest.approx(176, abs=2)
    assert (boxes[1].left + boxes[1].right) / 2 == pytest.approx(2 * 48, abs=4)


@settings(max_examples=40)
@given(st.integers(1, 900), st.integers(1, 900), st.sampled_from(FITS), st.integers(0, 50))
def test_hot_boxes_of_any_map_lie_in_the_picture(width: int, height: int, fit: Fit, seed: int) -> None:
    grid = Grid(np.random.default_rng(seed).normal(size=(4, 4)), 0.5, 16.0, 64)
    boxes = hot_boxes(grid, window_of(width, height, Preprocess(image_size=64, fit=fit)), (width, height))
    assert len(boxes) <= MOST_BOXES
    for box in boxes:
        assert 0 <= box.left < box.right <= width
        assert 0 <= box.top < box.bottom <= height
        assert 0 < box.share <= 1
        assert 0 < box.peak <= 1


def test_hot_boxes_leave_out_bars_and_empty_maps() -> None:
    size = (400, 100)
    window = window_of(*size, Preprocess(fit="letterbox"))
    values = np.full((7, 7), 0.01)
    values[0] = 1.0  # in the upper bar
    boxes = hot_boxes(Grid(values, 16.0, 32.0, 224), window, size)
    assert all(box.bottom <= 100 for box in boxes)
    assert hot_boxes(Grid(-np.ones((7, 7)), 0.5, 32.0, 224), window, size) == ()


# Drawing


@pytest.mark.parametrize(
    ("size", "drawn"),
    [((500, 375), (500, 375)), ((4000, 3000), (960, 720)), ((28, 14), (384, 192)), ((1, 900), (1, 900))],
)
def test_drawn_picture_keeps_its_shape(size: tuple[int, int], drawn: tuple[int, int]) -> None:
    found = drawn_picture(np.zeros((size[1], size[0], 3), np.uint8))
    assert (found.shape[1], found.shape[0]) == drawn
    assert SHORTEST_PX <= max(found.shape[:2]) <= LONGEST_PX


def test_draw_map_shows_heat_hatch_and_boxes_where_they_are() -> None:
    size, grey = (500, 375), np.full((375, 500, 3), 120, np.uint8)
    window, grid = window_of(*size, Preprocess()), peaked(3, 3)
    plain, framed = (draw_map(grey, grid, window, boxes, size=size) for boxes in ((), hot_boxes(grid, window, size)))
    assert plain.shape == (375, 500, 3)
    heat, seen = heat_in_picture(grid, window, size)
    hot, cold = plain[heat > 0.95].mean(0), plain[seen & (heat == 0)].mean(0)
    assert hot[0] > cold[0] + 60  # towards yellow
    assert hot[2] < hot[0] - 40
    assert np.ptp(cold) < 2  # grey stays grey
    assert len(np.unique(plain[~seen], axis=0)) > 1  # stripes
    changed = (plain != framed).any(2)
    (box,) = hot_boxes(grid, window, size)
    assert changed.any()
    y, x = np.nonzero(changed)
    assert (x.min(), y.min(), x.max() + 1, y.max() + 1) == (box.left, box.top, box.right, box.bottom)
    np.testing.assert_array_equal(framed, draw_map(grey, grid, window, (box,), size=size))


def test_coloured_gets_lighter_with_heat() -> None:
    light = coloured(np.linspace(0, 1, 50)) @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(light) > 0).all()
    assert tuple(coloured(np.array(1.0))) == RAMP[-1][1]


def test_jpeg_is_a_picture_without_metadata() -> None:
    import io

    image = Image.open(io.BytesIO(jpeg(np.full((30, 40, 3), 99, np.uint8))))
    assert (image.format, image.size) == ("JPEG", (40, 30))
    assert not image.getexif()
