"""A glance is made once: while the folder is looked at, or later from the file; its numbers are those of the picture."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from folders import put
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from foldertune.data import glances as module
from foldertune.data.folder import scan
from foldertune.data.glances import SKETCH_PX, THUMB_PX, Glanced, Glances, glance, glance_at
from foldertune.images import FileFacts
from foldertune.records import Dataset, Light, finish

NAMES = [f"{name}/{number}.png" for name in "ab" for number in range(6)]
PNG = FileFacts("PNG", 100)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return put(tmp_path / "pictures", NAMES)


def looked(folder: Path) -> tuple[Dataset, Glanced]:
    glanced: Glanced = {}
    return finish(scan(folder, workers=0, glanced=glanced)), glanced


def glances_of(dataset: Dataset, glanced: Glanced, cache: Path) -> Glances:
    return finish(glance_at(dataset.folder, dataset.readable, glanced=glanced, cache=cache, workers=0))


def assert_same(found: Glances, expected: Glances) -> None:
    assert np.array_equal(found.sketches, expected.sketches)
    assert np.array_equal(found.thumbs, expected.thumbs)
    assert (found.lights, found.files) == (expected.lights, expected.files)


def light_of(picture: NDArray[np.uint8]) -> Light:
    return glance(picture, PNG).light


def noise(*, low: int = 0, high: int = 256, side: int = 240, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(low, high, (side, side, 3), np.uint8)


# ------------------------------------------------------------------------------------------------------------- once


def test_glance_at_takes_what_was_made_while_looking_and_reads_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, glanced = looked(folder)
    monkeypatch.setattr(module, "load_contents", lambda *_, **__: iter(()))
    found = glances_of(dataset, glanced, tmp_path / "cache")
    assert found.sketches.shape == (len(NAMES), SKETCH_PX, SKETCH_PX)
    assert found.thumbs.shape == (len(NAMES), THUMB_PX, THUMB_PX, 3)
    for place, picture in enumerate(dataset.readable):
        made = glanced[picture.sha256]
        assert np.array_equal(found.sketches[place], made.sketch)
        assert np.array_equal(found.thumbs[place], made.thumb)
        assert found.files[place] == made.file
        assert astuple(found.lights[place]) == pytest.approx(astuple(made.light), abs=6e-4)  # three digits are kept
    assert_same(glances_of(dataset, {}, tmp_path / "cache"), found)  # from the cache


def test_glance_at_known_files_reads_them_and_gives_the_same(folder: Path, tmp_path: Path) -> None:
    dataset, glanced = looked(folder)
    half = dict(list(glanced.items())[::2])
    first, *others = [glances_of(dataset, each, tmp_path / str(at)) for at, each in enumerate((glanced, half, {}))]
    for other in others:
        assert_same(other, first)


def test_scan_holds_no_more_glances_than_there_is_room_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foldertune.data.folder.MOST_GLANCES", 5)
    assert len(looked(folder)[1]) == 5


@pytest.mark.parametrize(
    ("camera", "kept"),
    [("", True), ("Canon EOS 5D", True), ('a "quoted", {odd}\\ name', True), ("caf\u00e9 " * 10, True),
     ("\U0001f98a" * 80, False)],
)  # fmt: skip
def test_record_of_any_camera_is_read_back_and_only_a_name_that_has_no_room_is_left_out(
    camera: str, kept: bool
) -> None:
    facts = FileFacts("TIFF", 123_456_789, 16, True, 8, camera, 1_700_000_000.25)
    made = glance(noise(side=40), facts)
    record = module._record(made)
    assert record.shape == (module._RECORD_BYTES,)
    found = module._glances(np.stack([record, module._record(glance(noise(side=9), PNG))]))
    assert np.array_equal(found.sketches[0], made.sketch)
    assert np.array_equal(found.thumbs[0], made.thumb)
    assert found.files[0] == (facts if kept else FileFacts("TIFF", 123_456_789, 16, True, 8, "", 1_700_000_000.25))
    assert found.files[1] == PNG


# ------------------------------------------------------------------------------------------------------- what it shows


def test_sketch_and_thumb_are_the_whole_picture_whatever_its_shape() -> None:
    picture = np.zeros((40, 400, 3), np.uint8)
    picture[:, 200:] = (255, 255, 0)
    found = glance(picture, PNG)
    assert found.sketch[:, : SKETCH_PX // 2 - 2].max() == 0
    assert found.sketch[:, SKETCH_PX // 2 + 2 :].min() == 226  # yellow in grey, ITU-R BT.601
    # Its cells are means of the small picture's, which is a little soft at the edge.
    assert found.thumb[:, :4].max() <= 4
    assert np.abs(found.thumb[:, 4:].astype(int) - (255, 255, 0)).max() <= 4


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (7, 8), (2, 2)])
def test_glance_at_a_picture_of_any_size_gives_finite_numbers(size: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    assert np.isfinite(astuple(light_of(picture))).all()


def test_light_of_an_even_picture_is_its_level_and_nothing_varies() -> None:
    for level in (0, 77, 255):
        found = light_of(np.full((50, 60, 3), level, np.uint8))
        assert (found.mean, found.low, found.high) == (level, level, level)
        assert (found.spread, found.chroma, found.detail) == (0, 0, 0)


def test_light_of_a_picture_of_two_halves_is_that_of_the_halves() -> None:
    picture = np.full((192, 192, 3), 40, np.uint8)
    picture[96:] = 200
    found = light_of(picture)
    assert found.mean == pytest.approx(120, abs=0.5)
    assert found.spread == pytest.approx(80, abs=1)
    assert (found.low, found.high) == (40, 200)


def test_chroma_is_the_mean_distance_of_the_channels() -> None:
    picture = np.zeros((96, 96, 3), np.uint8)
    picture[:] = (10, 110, 60)
    assert light_of(picture).chroma == 100
    assert light_of(np.repeat(noise()[:, :, :1], 3, axis=2)).chroma == 0


def test_detail_of_fine_noise_is_that_of_theory_and_falls_with_every_blur() -> None:
    """Of independent pixels the Laplacian 4x - a - b - c - d has a root mean square of sqrt(16 + 4) standard deviations."""
    picture = np.repeat(noise(side=224)[:, :, :1], 3, axis=2)
    blurred = [
        np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius))) for radius in (0.5, 1, 2, 4)
    ]
    details = [light_of(each).detail for each in (picture, *blurred)]
    assert details[0] == pytest.approx(20**0.5, rel=0.02)
    assert details == sorted(details, reverse=True)
    assert details[-1] < 0.2 * details[0]


def test_detail_does_not_depend_on_contrast_and_a_small_picture_is_not_a_blurred_one() -> None:
    strong, weak = noise(), noise(low=96, high=160)
    assert light_of(weak).detail == pytest.approx(light_of(strong).detail, rel=0.05)
    small = np.asarray(Image.fromarray(strong).resize((48, 48), Image.Resampling.BOX))
    enlarged = np.asarray(Image.fromarray(small).resize((240, 240), Image.Resampling.BICUBIC))
    assert light_of(small).detail > 5 * light_of(enlarged).detail
