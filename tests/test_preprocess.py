"""From a picture to the network's square: torchvision's arithmetic, and what holds for any size."""

from __future__ import annotations

import json
import math
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PROJECT
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from foldertune.errors import SettingsError
from foldertune.preprocess import Preprocess, decode_px, prepare, stretch

GOLDEN = json.loads((PROJECT / "tests/golden/preprocess.json").read_text("utf-8"))


def picture(width: int, height: int) -> NDArray[np.uint8]:
    """The computed picture of tests/golden/makers/preprocess.py."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = [np.sin(x / 7 + y / 11), np.cos(x / 3) * np.sin(y / 5), np.sign(np.sin(x / 13) * np.sin(y / 17))]
    return (127.5 + 127 * np.stack(waves, axis=2)).astype(np.uint8)


def means(square: NDArray[np.uint8]) -> list[float]:
    half = square.shape[0] // 2
    parts = (square, square[:half, :half], square[:half, half:], square[half:, :half], square[half:, half:])
    return [float(value) for part in parts for value in part.mean((0, 1))]


def flat(width: int, height: int, colour: tuple[int, int, int] = (10, 200, 90)) -> NDArray[np.uint8]:
    return np.full((height, width, 3), colour, np.uint8)


# ----------------------------------------------------------------------------------------------------------- torchvision


@pytest.mark.parametrize("row", GOLDEN["rows"], ids=lambda row: f"{row['size']} {row['case']}")
def test_prepare_golden_means_are_those_of_torchvision(row: dict[str, Any]) -> None:
    preprocess = Preprocess(**dict(zip(("image_size", "crop_fraction", "interpolation"), row["case"], strict=True)))
    found = means(prepare(picture(*row["size"]), preprocess))
    assert np.abs(np.array(found) - row["means"]).max() < 0.02


def test_prepare_live_equals_torchvision() -> None:
    pytest.importorskip("torchvision")
    spec = spec_from_file_location("preprocess_maker", PROJECT / "tests/golden/makers/preprocess.py")
    assert spec
    assert spec.loader
    maker: Any = module_from_spec(spec)
    spec.loader.exec_module(maker)
    for size in maker.SIZES:
        for side, crop_fraction, interpolation in maker.CASES:
            preprocess = Preprocess(image_size=side, crop_fraction=crop_fraction, interpolation=interpolation)
            expected = maker.torchvision_square(picture(*size), side, crop_fraction, interpolation)
            found = prepare(picture(*size), preprocess)
            assert np.abs(found.astype(int) - expected).max() <= 1, (size, side)
            assert (found != expected).mean() < 0.005


def test_golden_maker_draws_the_same_picture_as_the_test() -> None:
    source = (PROJECT / "tests/golden/makers/preprocess.py").read_text("utf-8")
    here = Path(__file__).read_text("utf-8")
    assert all(line in source for line in here[here.index("    y, x =") : here.index("def means")].splitlines()[:3])


# ---------------------------------------------------------------------------------------------------------------- fits


@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from(["crop", "squash", "letterbox"]), st.integers(1, 80))
def test_prepare_any_size_gives_the_square(width: int, height: int, fit: Any, side: int) -> None:
    square = prepare(picture(width, height), Preprocess(image_size=side, fit=fit))
    assert square.shape == (side, side, 3)
    assert square.dtype == np.uint8


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1), (2, 3)])
@pytest.mark.parametrize("fit", ["crop", "squash", "letterbox"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_prepare_extreme_shapes_give_the_square(size: tuple[int, int], fit: Any, interpolation: Any) -> None:
    square = prepare(flat(*size), Preprocess(fit=fit, interpolation=interpolation))
    assert square.shape == (224, 224, 3)
    if fit != "letterbox":
        assert (square == (10, 200, 90)).all()


@given(st.integers(1, 300), st.integers(1, 300))
def test_prepare_crop_never_shows_anything_but_the_picture(width: int, height: int) -> None:
    assert (prepare(flat(width, height), Preprocess(image_size=32)) == (10, 200, 90)).all()


def test_prepare_crop_takes_the_centre() -> None:
    wide = flat(400, 100)
    wide[:, 150:250] = (255, 0, 0)
    assert (prepare(wide, Preprocess(image_size=50, crop_fraction=0.5)) == (255, 0, 0)).all()


def test_prepare_squash_shows_the_whole_picture() -> None:
    halves = flat(300, 100)
    halves[:, 150:] = (0, 0, 0)
    square = prepare(halves, Preprocess(image_size=64, fit="squash"))
    assert (square[:, :30] == (10, 200, 90)).all()
    assert (square[:, 34:] == 0).all()


@given(st.integers(1, 300), st.integers(1, 300))
def test_prepare_letterbox_fits_the_longer_side_and_fills_with_the_mean(width: int, height: int) -> None:
    preprocess = Preprocess(image_size=64, fit="letterbox")
    square = prepare(flat(width, height, (255, 0, 255)), preprocess)
    inside = (square == (255, 0, 255)).all(axis=2)
    filled = (square == preprocess.fill).all(axis=2)
    assert (inside | filled).all()
    across, down = inside.any(axis=0), inside.any(axis=1)
    expected = (max(1, round(64 * width / max(width, height))), max(1, round(64 * height / max(width, height))))
    assert (across.sum(), down.sum()) == expected
    assert inside.sum() == expected[0] * expected[1]
    for line in (across, down):  # in the middle, up to the pixel that an odd rest leaves over
        assert abs(int(np.argmax(line)) - int(np.argmax(line[::-1]))) <= 1


def test_fill_is_the_mean_colour_of_imagenet() -> None:
    assert Preprocess().fill == (124, 116, 104)


def test_prepare_twice_gives_the_same_bytes_and_leaves_the_picture() -> None:
    source = picture(123, 77)
    before = source.tobytes()
    assert prepare(source, Preprocess()).tobytes() == prepare(source, Preprocess()).tobytes()
    assert source.tobytes() == before


def test_stretch_gives_the_size_asked_for() -> None:
    assert stretch(picture(50, 40), (31, 77), "bicubic").shape == (77, 31, 3)


@pytest.mark.parametrize(("fit", "expected"), [("crop", 512), ("squash", 448), ("letterbox", 448)])
def test_decode_px_is_twice_what_the_resize_needs(fit: Any, expected: int) -> None:
    assert decode_px(Preprocess(fit=fit)) == expected


# ------------------------------------------------------------------------------------------------------ preprocess.json


@given(
    st.integers(1, 4096), st.floats(0.01, 1), st.sampled_from(["crop", "squash", "letterbox"]),
    st.sampled_from(["bilinear", "bicubic"]), st.tuples(*[st.floats(0, 1)] * 3), st.tuples(*[st.floats(0.001, 10)] * 3),
)  # fmt: skip
def test_from_dict_of_to_dict_through_json_is_the_same(
    side: int, crop_fraction: float, fit: Any, interpolation: Any, mean: Any, std: Any
) -> None:
    preprocess = Preprocess(side, crop_fraction, fit, interpolation, mean, std)
    assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"image_size": 0}, "image_size"),
        ({"image_size": 5000}, "image_size"),
        ({"image_size": "224"}, "image_size"),
        ({"image_size": 224.5}, "image_size"),
        ({"image_size": True}, "image_size"),
        ({"crop_fraction": 0}, "crop_fraction"),
        ({"crop_fraction": 1.1}, "crop_fraction"),
        ({"crop_fraction": math.nan}, "crop_fraction"),
        ({"crop_fraction": [1]}, "float"),
        ({"fit": "stretch"}, "fit"),
        ({"interpolation": "nearest"}, "interpolation"),
        ({"mean": [0.5, 0.5]}, "mean"),
        ({"mean": [0.5, 0.5, math.nan]}, "mean"),
        ({"mean": 0.5}, "float"),
        ({"std": [0.2, 0.2, 0]}, "std"),
        ({"std": [0.2, 0.2, math.inf]}, "std"),
        ({"std": ["a", "b", "c"]}, "could not convert"),
        ({"std": None}, "NoneType"),
        ({"size": 224}, "size"),
    ],
)
def test_from_dict_of_no_use_names_the_value(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError, match=r"^preprocess\.json .*(edited)\.$") as caught:
        Preprocess.from_dict({**Preprocess().to_dict(), **changes})
    assert named in str(caught.value)


@pytest.mark.parametrize("absent", ["mean", "std", "crop_fraction"])
def test_from_dict_without_a_needed_key_names_it(absent: str) -> None:
    content = {key: value for key, value in Preprocess().to_dict().items() if key != absent}
    with pytest.raises(SettingsError, match=absent):
        Preprocess.from_dict(content)


def test_with_changes_leaves_the_original() -> None:
    original = Preprocess()
    assert original.with_changes(fit="squash").fit == "squash"
    assert original == Preprocess()
