"""What the frozen network says of each picture: in order, computed once, the same after an interruption."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from trainings import IMAGE_PX, made_pictures

from foldertune.data.augment import STRENGTHS
from foldertune.data.loader import CanvasSource
from foldertune.data.pack import Pack, PackWriter
from foldertune.engines import LaterEngine
from foldertune.models import build
from foldertune.models.architecture import shape_of, stage_shape
from foldertune.preprocess import Preprocess
from foldertune.records import Picture, Progress, Work, finish
from foldertune.training.baseline import HeadShape, kept_head
from foldertune.training.features import Extraction, Seen
from foldertune.training.head import Head, fit_head

SMALL = Preprocess(image_size=IMAGE_PX)
NUM_PICTURES = 40


class MeanEngine:
    """The mean colour as a feature, and as an activation of 2 x 2; counts the pictures of each call."""

    name = "mean"

    def __init__(self) -> None:
        self.batches: list[int] = []

    def run_all(self, pictures: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        return [self.run(pictures)]

    def run(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.batches.append(len(pictures))
        found: NDArray[np.float32] = (
            pictures.mean((1, 2)).astype(np.float32)[:, :, None, None].repeat(2, 2).repeat(2, 3)
        )
        return found


@pytest.fixture
def packed(tmp_path: Path) -> Pack:
    pixels, _ = made_pictures(NUM_PICTURES)
    writer = PackWriter(tmp_path, "pictures", pixels.shape[1:], np.uint8, len(pixels))
    writer.append(pixels)
    return writer.close()


def pictures(*, first_row: int = 0) -> list[Picture]:
    rows = range(first_row, first_row + NUM_PICTURES)
    return [Picture(row, f"{row}.png", "a", "train", "", IMAGE_PX, IMAGE_PX, f"{row - first_row:064x}") for row in rows]


def extraction(cache: Path, engine: MeanEngine, *, weights_id: str = "w") -> Extraction:
    return Extraction(engine, SMALL, shape=(3, 2, 2), weights_id=weights_id, precision="float32", cache=cache)


SEEN = Seen(STRENGTHS["standard"], seed=1, canvas=(IMAGE_PX, IMAGE_PX))


def canvases(packed: Pack, rows: list[Picture], seen: Seen = SEEN) -> CanvasSource:
    return CanvasSource(packed, rows, SMALL, strength=seen.strength, seed=seen.seed, device="cpu")


def views(cache: Path, engine: MeanEngine, packed: Pack, rows: list[Picture], *, seen: Seen = SEEN) -> Pack:
    def source() -> Work[CanvasSource]:
        yield from ()
        return canvases(packed, rows, seen)

    return finish(extraction(cache, engine).views(rows, source, seen=seen, num_views=2))


def test_features_are_the_engines_answers_in_the_pictures_order(tmp_path: Path, packed: Pack) -> None:
    engine = MeanEngine()
    steps = extraction(tmp_path, engine).features(pictures(), packed)
    told = []
    while True:
        try:
            told.append(next(steps))
        except StopIteration as stop:
            found = stop.value
            break
    assert told == [Progress("features", done, NUM_PICTURES) for done in (16, 32, 40)]
    assert found.dtype == np.float32
    assert np.array_equal(found[:, :, 0, 0], packed.read_all().mean((1, 2)).astype(np.float32))
    assert engine.batches == [16, 16, 16]


def test_features_a_second_time_come_from_the_cache(tmp_path: Path, packed: Pack) -> None:
    first, engine = finish(extraction(tmp_path, MeanEngine()).features(pictures(), packed)), MeanEngine()
    second = finish(extraction(tmp_path, engine).features(pictures(), packed))
    assert engine.batches == []
    assert np.array_equal(first, second)


def test_features_of_other_weights_are_computed(tmp_path: Path, packed: Pack) -> None:
    finish(extraction(tmp_path, MeanEngine()).features(pictures(), packed))
    engine = MeanEngine()
    finish(extraction(tmp_path, engine, weights_id="v").features(pictures(), packed))
    assert engine.batches == [16, 16, 16]


def test_features_of_the_same_pictures_in_another_order_are_read(tmp_path: Path, packed: Pack) -> None:
    first, engine = finish(extraction(tmp_path, MeanEngine()).features(pictures(), packed)), MeanEngine()
    found = finish(extraction(tmp_path, engine).features(pictures()[::-1], packed))
    assert engine.batches == []
    np.testing.assert_array_equal(found, first[::-1])


def test_features_of_one_more_picture_are_computed_for_it_alone(tmp_path: Path, packed: Pack) -> None:
    some, engine = pictures()[:-1], MeanEngine()
    finish(extraction(tmp_path, MeanEngine()).features(some, packed))
    found = finish(extraction(tmp_path, engine).features(pictures(), packed))
    assert engine.batches == [16]  # of one picture, filled up
    np.testing.assert_array_equal(found[:, :, 0, 0], packed.read_all().mean((1, 2)).astype(np.float32))


@pytest.mark.parametrize("num_records", [16, 5, 39, 0.5])
def test_features_after_a_kill_go_on_in_the_same_batches(num_records: float, tmp_path: Path, packed: Pack) -> None:
    expected = finish(extraction(tmp_path / "whole", MeanEngine()).features(pictures(), packed))
    (whole,) = (tmp_path / "whole").glob("*.pack")
    (tmp_path / "cut").mkdir()
    frames = Pack(whole, expected.shape[1:], expected.dtype, NUM_PICTURES).frames
    left = whole.read_bytes()[: frames.offset(0) + int(num_records * (frames.offset(1) - frames.offset(0)))]
    (tmp_path / "cut" / whole.with_suffix(".part").name).write_bytes(left)
    engine = MeanEngine()
    found = finish(extraction(tmp_path / "cut", engine).features(pictures(), packed))
    assert np.array_equal(found, expected)
    assert engine.batches == [16] * {16: 2, 5: 3, 39: 1, 0.5: 3}[num_records]


def test_activations_are_stored_as_float16(tmp_path: Path, packed: Pack) -> None:
    made = finish(extraction(tmp_path, MeanEngine()).activations(pictures(), packed))
    expected = packed.read_all().mean((1, 2)).astype(np.float16)
    assert (made.shape, made.dtype.name, made.num_records) == ((3, 2, 2), "float16", NUM_PICTURES)
    assert np.array_equal(made.read_all()[:, :, 1, 1], expected)


def test_views_are_stored_view_after_view(tmp_path: Path, packed: Pack) -> None:
    engine, source = MeanEngine(), canvases(packed, pictures())
    made = views(tmp_path, engine, packed, pictures())
    assert made.num_records == 2 * NUM_PICTURES
    assert engine.batches == [16] * 6
    for view in range(2):
        places = np.arange(NUM_PICTURES)
        expected = 255 * source.pictures(places, view + 1).mean((2, 3)).numpy()
        found = made.read(view * NUM_PICTURES + places)[:, :, 0, 0].astype(float)
        assert np.abs(found - expected).max() < 0.6  # rounded to bytes, then to float16
    assert not np.array_equal(made.read(range(NUM_PICTURES)), made.read(range(NUM_PICTURES, 2 * NUM_PICTURES)))


def test_views_of_pictures_under_other_row_numbers_are_the_same(tmp_path: Path, packed: Pack) -> None:
    """A picture that is added or left out moves the rows of others, and nothing that is drawn for them."""
    first, engine = views(tmp_path / "one", MeanEngine(), packed, pictures()), MeanEngine()
    second = views(tmp_path / "other", engine, packed, pictures(first_row=7))
    np.testing.assert_array_equal(first.read_all(), second.read_all())
    views(tmp_path / "one", engine := MeanEngine(), packed, pictures(first_row=7))
    assert engine.batches == []


def test_views_of_copies_of_one_picture_are_drawn_apart(tmp_path: Path, packed: Pack) -> None:
    first = pictures()[0]
    rows = [replace(picture, sha256=first.sha256) for picture in pictures()]
    made = views(tmp_path, MeanEngine(), packed, rows).read(range(NUM_PICTURES))
    assert len(np.unique(made.reshape(NUM_PICTURES, -1), axis=0)) > NUM_PICTURES // 2


def test_extraction_of_no_pictures_is_empty(tmp_path: Path, packed: Pack) -> None:
    made = extraction(tmp_path, MeanEngine())
    assert len(finish(made.features([], packed))) == 0
    assert finish(made.activations([], packed)).num_records == 0


def test_kept_head_of_the_same_key_is_fitted_once_and_comes_back_with_the_same_bits(tmp_path: Path) -> None:
    random = np.random.Generator(np.random.Philox(3))
    features, labels = random.normal(size=(60, 5)).astype(np.float32), np.arange(60) % 3
    fitted: list[Head] = []

    def fit() -> Head:
        fitted.append(fit_head(features, labels, num_classes=3, seed=1))
        return fitted[-1]

    shape = HeadShape(60, 3, 5)
    first, second = (finish(kept_head(fit, shape=shape, key="head-0", cache=tmp_path)) for _ in range(2))
    assert len(fitted) == 1
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(first.bias, second.bias)
    assert (first.strength, first.log_loss, first.accuracy) == (second.strength, second.log_loss, second.accuracy)
    np.testing.assert_array_equal(first.probabilities, second.probabilities)
    finish(kept_head(fit, shape=shape, key="head-1", cache=tmp_path))
    assert len(fitted) == 2


def test_kept_head_whose_writer_was_killed_before_the_end_is_finished(tmp_path: Path) -> None:
    features, labels = np.eye(12, 4, dtype=np.float32), np.arange(12) % 2
    head, shape = fit_head(features, labels, num_classes=2, seed=1), HeadShape(12, 2, 4)
    record = (shape.num_values,)
    PackWriter(tmp_path, "head-0", record, np.float64, 1).append(np.zeros((1, *record)))  # and then it was killed
    for _ in range(2):
        found = finish(kept_head(lambda: head, shape=shape, key="head-0", cache=tmp_path))
    assert found.weight.shape == (2, 4)
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("change", "again"),
    [({}, 0), ({"strength": STRENGTHS["light"]}, 6), ({"seed": 2}, 6), ({"canvas": (IMAGE_PX, IMAGE_PX + 1)}, 6)],
)
def test_views_are_computed_again_only_under_another_strength_seed_or_canvas(
    change: dict[str, Any], again: int, tmp_path: Path, packed: Pack
) -> None:
    first, engine = views(tmp_path, MeanEngine(), packed, pictures()), MeanEngine()
    second = views(tmp_path, engine, packed, pictures(), seen=replace(SEEN, **change))
    assert len(engine.batches) == again
    if not again:
        np.testing.assert_array_equal(first.read_all(), second.read_all())


def test_views_that_are_stored_ask_for_no_canvases(tmp_path: Path, packed: Pack) -> None:
    views(tmp_path, MeanEngine(), packed, pictures())

    def none() -> Work[CanvasSource]:
        raise AssertionError

    made = finish(extraction(tmp_path, MeanEngine()).views(pictures(), none, seen=SEEN, num_views=2))
    assert made.num_records == 2 * NUM_PICTURES


def test_later_engine_is_made_at_the_first_picture_and_once() -> None:
    made: list[MeanEngine] = []

    def make() -> MeanEngine:
        made.append(MeanEngine())
        return made[-1]

    engine = LaterEngine("mean", make)
    assert not made
    engine.run(np.zeros((2, IMAGE_PX, IMAGE_PX, 3), np.uint8))
    engine.run_all(np.zeros((3, IMAGE_PX, IMAGE_PX, 3), np.uint8))
    assert [one.batches for one in made] == [[2, 3]]


@pytest.mark.parametrize(("model", "image_px"), [("resnet18", 33), ("resnet50", 64), ("vit_base", 48)])
def test_stage_shape_of_every_stage_is_what_the_network_gives(model: str, image_px: int) -> None:
    with torch.device("meta"):
        outputs = build(model, num_classes=2).stage_outputs(torch.zeros(1, 3, image_px, image_px))
    found = [stage_shape(shape_of(model), stage, image_px=image_px) for stage in range(5)]
    assert found == [tuple(output.shape[1:]) for output in outputs]
