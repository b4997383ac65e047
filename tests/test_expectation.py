"""What the forecast of accuracy rests on: which pictures are asked, how classes are weighted, and where there is no range."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from folders import invented_pictures
from numpy.typing import NDArray
from PIL import Image
from test_features import SMALL, extraction
from trainings import IMAGE_PX

from foldertune.data.folder import scan
from foldertune.data.split import split_pictures
from foldertune.outlook import HEAD, Judged, expected_range
from foldertune.records import Dataset, Picture, Split, finish
from foldertune.training import baseline, expectation
from foldertune.training.baseline import class_numbers, folds_of, head_of
from foldertune.training.expectation import cannot_expect, expected_accuracy, judged_by, num_witnesses, sampled
from foldertune.training.head import Head, fit_head

VALUES = {"weights": "imagenet", "tune": "head", "preset": "auto", "tie": "baseline", "workers": 0, "seed": 4}


class ColourEngine:
    """The mean colour of the whole picture and of its upper half: (B, 6)."""

    name = "colour"

    def __init__(self) -> None:
        self.num_pictures = 0

    def run(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.num_pictures += len(pictures)
        halves = [pictures.mean((1, 2)), pictures[:, : len(pictures[0]) // 2].mean((1, 2))]
        return np.concatenate(halves, 1).astype(np.float32)

    def run_all(self, pictures: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        return [self.run(pictures)]


def of_colour(cache: Path, engine: ColourEngine) -> Any:
    found = extraction(cache, engine)  # type: ignore[arg-type]  # it answers as that one does
    found._shape = (6,)
    return found


def split_of(pictures: Sequence[Picture], classes: Sequence[str], tested: dict[str, int]) -> Dataset:
    """The given pictures teach, and so many more of each class are tested."""
    more = [replace(each, row=each.row + len(pictures), split="test") for each in invented_pictures(tested)]
    return Dataset(Path("p"), tuple(classes), (*(replace(each, split="train") for each in pictures), *more), "folders")


def head_that(right: Sequence[bool], labels: NDArray[np.int64], num_classes: int) -> Head:
    """A head that was right out of fold where `right` says so."""
    answers = np.where(right, labels, (labels + 1) % num_classes)
    probabilities = np.eye(num_classes, dtype=np.float32)[answers]
    return Head(torch.zeros(1), torch.zeros(1), 1.0, 0.0, 0.0, probabilities)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eighty pictures of two colours that lie near each other, so that a head errs now and then."""
    random = np.random.default_rng(0)
    for number in range(80):
        colour = np.array([110, 120, 120]) + random.normal(0, 9, 3) + (number % 2) * np.array([14, 0, -6])
        pixels = np.clip(colour + random.normal(0, 20, (IMAGE_PX, IMAGE_PX, 3)), 0, 255).astype(np.uint8)
        path = tmp_path / "pictures" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return tmp_path / "pictures"


@pytest.fixture
def dataset(folder: Path) -> Dataset:
    return split_pictures(finish(scan(folder, workers=0)), seed=0)


def test_expected_accuracy_is_the_range_of_the_head_out_of_fold(dataset: Dataset, tmp_path: Path) -> None:
    engine = ColourEngine()
    accuracy, why_not = finish(expected_accuracy(dataset, VALUES, of_colour(tmp_path / "cache", engine), SMALL))
    train = dataset.of("train")
    loaded = np.stack([np.asarray(Image.open(dataset.folder / each.path)) for each in train])
    labels = np.array([each.label == "b" for each in train], np.int64)
    head = fit_head(ColourEngine().run(loaded), labels, num_classes=2, seed=4)
    judged = Judged(head.accuracy, len(train), len(train), len(train), len(dataset.of("test")))
    assert why_not == ""
    assert accuracy is not None
    # The splits here have as many of one class as of the other, to one picture.
    found = expected_range(judged, HEAD)
    assert accuracy.head_accuracy == pytest.approx(head.accuracy, abs=0.01)
    assert (accuracy.low, accuracy.high) == pytest.approx((found.low, found.high), abs=1 / accuracy.num_test)
    assert 0.6 < head.accuracy < 1
    assert accuracy.why == found.why
    given = replace(dataset, split_source="folders")
    told, _ = finish(expected_accuracy(given, VALUES, of_colour(tmp_path / "cache", engine), SMALL))
    assert told == replace(
        accuracy, why=f"{accuracy.why}; if the test pictures, which were given, are like the training ones"
    )


def test_expected_accuracy_is_the_same_from_the_baselines_head_and_then_computes_nothing(
    dataset: Dataset, tmp_path: Path
) -> None:
    engine = ColourEngine()
    planned = finish(expected_accuracy(dataset, VALUES, of_colour(tmp_path / "cache", engine), SMALL))
    asked = engine.num_pictures
    assert asked > 0
    again = finish(expected_accuracy(dataset, VALUES, of_colour(tmp_path / "cache", engine), SMALL))
    train = dataset.of("train")
    extracted = of_colour(tmp_path / "other", ColourEngine())
    material = finish(baseline.prepare_material(dataset, SMALL, cache=tmp_path / "other", workers=0))
    features = finish(extracted.features(train, material.packs["train"]))
    head = finish(head_of(train, features, material.labels["train"], extracted, num_classes=2, seed=4))
    nothing = of_colour(tmp_path / "third", engine)
    assert planned == again == finish(expected_accuracy(dataset, VALUES, nothing, SMALL, fitted=head))
    assert engine.num_pictures == asked


def test_expected_accuracy_of_many_pictures_asks_about_some_the_same_ones_in_a_run(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expectation, "MOST_PICTURES", 30)
    engine = ColourEngine()
    planned, _ = finish(expected_accuracy(dataset, VALUES, of_colour(tmp_path / "cache", engine), SMALL))
    num_train = len(dataset.of("train"))
    of_everything = head_that([True] * num_train, class_numbers(dataset.of("train"), dataset.classes), 2)
    told, _ = finish(
        expected_accuracy(dataset, VALUES, of_colour(tmp_path / "cache", engine), SMALL, fitted=of_everything)
    )
    assert planned is not None
    assert planned == told
    assert planned.num_judged == 30
    assert f"30 of {num_train} training pictures stand for all" in planned.why
    assert engine.num_pictures == 32  # two batches of 16


def few(counts: dict[str, int], *, tested: int = 5) -> Dataset:
    return split_of(invented_pictures(counts), list(counts), dict.fromkeys(list(counts)[:1], tested))


@pytest.mark.parametrize(
    ("dataset_of", "weights", "sentence"),
    [
        (
            lambda: few({"a": 30, "b": 30}),
            "random",
            "a network of random weights has no features that tell what training will reach",
        ),
        (lambda: few({"a": 30, "b": 30}, tested=0), "imagenet", "there are no test pictures to measure it on"),
        (
            lambda: few({"a": 10, "b": 9}),
            "imagenet",
            "19 training pictures are too few to try a head on; from 20 on there is a range",
        ),
        (
            lambda: few({"a": 30, "b": 1}),
            "imagenet",
            "fewer than two classes have two training pictures each, one to learn from and one to be asked",
        ),
        (lambda: few({"a": 10, "b": 10}), "imagenet", ""),
    ],
)
def test_cannot_expect_says_why(dataset_of: Callable[[], Dataset], weights: str, sentence: str, tmp_path: Path) -> None:
    assert cannot_expect(dataset_of(), {**VALUES, "weights": weights}) == sentence
    if sentence:
        engine = ColourEngine()
        told = expected_accuracy(dataset_of(), {**VALUES, "weights": weights}, of_colour(tmp_path, engine), SMALL)
        assert finish(told) == (None, sentence)
        assert engine.num_pictures == 0


def test_judged_by_weights_classes_as_the_test_pictures_have_them() -> None:
    pictures = invented_pictures({"a": 40, "b": 20})
    labels = class_numbers(pictures, ("a", "b"))
    right = [row % 4 != 0 if row < 40 else row % 2 == 0 for row in range(60)]  # 75 % of a, 50 % of b
    found = judged_by(head_that(right, labels, 2), pictures, labels, split_of(pictures, ("a", "b"), {"a": 10, "b": 30}))
    assert found is not None
    assert found.accuracy == pytest.approx(0.25 * 0.75 + 0.75 * 0.5)
    # Weights of 1/4 and 3/2: (40 / 4 + 20 * 3 / 2)^2 / (40 / 16 + 20 * 9 / 4)
    assert found.num_pictures == pytest.approx(1600 / 47.5)
    assert (found.num_seen, found.num_train, found.num_test) == (60, 60, 40)


def test_judged_by_leaves_out_what_no_fold_could_tell() -> None:
    pictures = invented_pictures({"a": 20, "b": 20, "c": 1})
    labels = class_numbers(pictures, ("a", "b", "c"))
    head = head_that([True] * 30 + [False] * 11, labels, 3)
    head.probabilities[:10] = np.nan
    tested = split_of(pictures, ("a", "b", "c"), {"a": 5, "b": 5, "c": 5})
    found = judged_by(head, pictures, labels, tested)
    assert found is not None
    assert found.accuracy == pytest.approx(0.75)  # all of ten of a, half of b, nothing of c
    assert found.num_test == 15
    only = split_of(pictures, ("a", "b", "c"), {"c": 5})
    assert judged_by(head, pictures, labels, only) is None


def test_sampled_takes_of_each_class_its_share_evenly_and_at_least_two() -> None:
    pictures = invented_pictures({"a": 5_000, "b": 3_000, "c": 3, "d": 1})
    chosen = sampled(pictures, 2_000)
    counts = Counter(each.label for each in chosen)
    assert counts == {"a": 1249, "b": 749, "c": 2, "d": 1}
    rows = [each.row for each in chosen]
    assert rows == sorted(set(rows))
    gaps = np.diff([each.row for each in chosen if each.label == "a"])
    assert set(gaps.tolist()) == {4, 5}
    assert sampled(pictures, 2_000) == chosen
    assert sampled(pictures[:50], 50) == tuple(pictures[:50])


def test_folds_of_part_nothing_that_belongs_together() -> None:
    assert folds_of(invented_pictures({"a": 20, "b": 20}), seed=0) is None
    pictures = [replace(each, group=f"g{each.row // 3}") for each in invented_pictures({"a": 30, "b": 30})]
    folds = folds_of(pictures, seed=0)
    assert folds is not None
    assert all(len({int(fold) for fold in folds[start : start + 3]}) == 1 for start in range(0, 60, 3))
    by_class = [np.bincount(folds[rows], minlength=5).tolist() for rows in (slice(0, 30), slice(30, 60))]
    assert by_class == [[6] * 5] * 2
    again = folds_of(pictures, seed=0)
    assert again is not None
    assert folds.tolist() == again.tolist() != (folds_of(pictures, seed=1)).tolist()  # type: ignore[union-attr]


def test_head_of_groups_is_not_flattered_by_pictures_that_it_has_nearly_seen(tmp_path: Path) -> None:
    """Ten places that tell nothing of the class, six pictures of each: parted, a head knows the place again."""
    random = np.random.default_rng(1)
    places = np.repeat(np.arange(20), 6)
    features = (np.eye(20)[places] + random.normal(0, 0.01, (120, 20))).astype(np.float32)
    labels = (np.repeat(random.permutation(20) % 2, 6)).astype(np.int64)
    split: Split = "train"
    pictures = [
        replace(each, group=f"g{place}", split=split)
        for each, place in zip(invented_pictures({"a": 120}), places, strict=True)
    ]
    told = of_colour(tmp_path, ColourEngine())
    assert finish(head_of(pictures, features, labels, told, num_classes=2, seed=0)).accuracy < 0.7
    assert fit_head(features, labels, num_classes=2, seed=0).accuracy > 0.95


def test_num_witnesses_is_kishs_number_and_counts_what_belongs_together_once() -> None:
    weights = np.array([1.0, 1.0, 2.0, 4.0])
    alone = invented_pictures({"a": 4})
    assert num_witnesses(alone, weights) == pytest.approx(8.0**2 / (1 + 1 + 4 + 16))
    assert num_witnesses(alone, np.ones(4)) == pytest.approx(4)
    grouped = [replace(each, group="p" if each.row < 2 else "") for each in alone]
    assert num_witnesses(grouped, np.ones(4)) == pytest.approx(4.0**2 / (4 + 1 + 1))
    assert num_witnesses([replace(each, group="p") for each in alone], np.ones(4)) == pytest.approx(1)


def test_judged_by_pictures_of_one_group_widens_the_range() -> None:
    pictures = invented_pictures({"a": 60, "b": 60})
    labels = np.array([each.label == "b" for each in pictures], np.int64)
    head = head_that([each.row % 5 > 0 for each in pictures], labels, 2)
    ranges = []
    for size in (1, 10):
        grouped = [replace(each, group=f"{each.label}{each.row // size}") for each in pictures]
        judged = judged_by(head, grouped, labels, split_of(grouped, ("a", "b"), {"a": 30, "b": 30}))
        assert judged is not None
        ranges.append(expected_range(judged, HEAD))
    assert ranges[1].low < ranges[0].low
    assert ranges[1].high >= ranges[0].high
