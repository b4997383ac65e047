"""Copies are found whatever was done to them, and two pictures of alike things are two pictures."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from foldertune.data.glances import glance
from foldertune.diagnosis import duplicates
from foldertune.diagnosis.duplicates import Pair
from foldertune.examination import Looked, look
from foldertune.images import FileFacts
from foldertune.records import Progress, finish
from foldertune.settings import Wish

Change = Callable[[Image.Image], Image.Image]


def photograph(number: int, *, size: tuple[int, int] = (300, 220)) -> Image.Image:
    """Shapes of every size, as photographs have: noise of several scales on one another."""
    random = np.random.Generator(np.random.Philox(number))
    whole = np.zeros((size[1], size[0], 3))
    for side in (3, 7, 15, 40, 90):
        noise = Image.fromarray(random.integers(0, 256, (side, side, 3), np.uint8))
        whole += np.asarray(noise.resize(size, Image.Resampling.BICUBIC), np.float64) / 5
    return Image.fromarray(whole.clip(0, 255).astype(np.uint8))


def compressed(image: Image.Image) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=40)
    return Image.open(stream)


def cropped(image: Image.Image, share: float = 0.05) -> Image.Image:
    width, height = image.size
    return image.crop((int(share * width), int(share * height), int((1 - share) * width), int((1 - share) * height)))


CHANGES: dict[str, Change] = {
    "resized": lambda image: image.resize((image.width * 2 // 5, image.height * 2 // 5)),
    "enlarged": lambda image: image.resize((image.width * 2, image.height * 2), Image.Resampling.BICUBIC),
    "compressed": compressed,
    "mirrored": ImageOps.mirror,
    "cropped": cropped,
    "mirrored and cropped": lambda image: cropped(ImageOps.mirror(image), 0.04),
    "stretched": lambda image: image.resize((200, 200)),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "lighter": lambda image: image.point(lambda value: min(255, value * 1.15 + 8)),
}


def find_pairs(sketches: np.ndarray) -> list[Pair]:
    return finish(duplicates.find_pairs(sketches))


def sketches_of(images: list[Image.Image]) -> NDArray[np.uint8]:
    return np.stack([glance(np.asarray(image.convert("RGB")), FileFacts("PNG", 0)).sketch for image in images])


@pytest.mark.parametrize("change", CHANGES)
def test_find_pairs_finds_a_changed_copy_among_others(change: str) -> None:
    images = [photograph(number) for number in range(12)]
    images.append(CHANGES[change](images[3]))
    (pair,) = find_pairs(sketches_of(images))
    assert (pair.first, pair.second) == (3, 12)
    assert pair.likeness > 0.9
    assert ("mirrored" in pair.how) == ("mirrored" in change)
    assert ("cropped" in pair.how) == ("cropped" in change)


def test_find_pairs_does_not_depend_on_which_of_two_is_the_copy() -> None:
    images = [photograph(number) for number in range(6)]
    for change in (CHANGES["cropped"], CHANGES["mirrored and cropped"]):
        found = find_pairs(sketches_of([change(images[5]), *images]))
        assert [(pair.first, pair.second) for pair in found] == [(0, 6)]


def test_find_pairs_of_alike_things_that_are_two_pictures_is_empty() -> None:
    """The same large shapes with other details, as X-rays of two people and leaves of one plant have."""
    random = np.random.Generator(np.random.Philox(1))
    large = np.asarray(photograph(0).resize((12, 9)).resize((300, 220), Image.Resampling.BICUBIC), np.float64)
    images = []
    for _ in range(20):
        details = Image.fromarray(random.integers(0, 60, (44, 60, 3), np.uint8)).resize((300, 220))
        images.append(Image.fromarray((large * 0.8 + np.asarray(details)).clip(0, 255).astype(np.uint8)))
    assert find_pairs(sketches_of(images)) == []


def test_find_pairs_of_pictures_that_show_nothing_is_empty() -> None:
    flat = [Image.new("RGB", (64, 64), (level, level, level)) for level in (0, 10, 128, 255, 255)]
    assert find_pairs(sketches_of(flat)) == []


@pytest.mark.parametrize("count", [0, 1])
def test_find_pairs_of_no_or_one_picture_is_empty(count: int) -> None:
    assert find_pairs(np.zeros((count, 96, 96), np.uint8)) == []


def test_find_pairs_in_a_crowd_of_alike_pictures_keeps_the_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_MOST_ALIKE", 2)
    monkeypatch.setattr(duplicates, "LEAST_COARSE", -0.99)  # all are candidates for all
    images = [photograph(number) for number in range(20)]
    images.append(compressed(images[7]))
    assert [(pair.first, pair.second) for pair in find_pairs(sketches_of(images))] == [(7, 20)]


def test_find_pairs_in_small_parts_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [photograph(number) for number in range(10)]
    sketches = sketches_of([*images, *map(cropped, images[:4]), ImageOps.mirror(images[9])])
    whole = find_pairs(sketches)
    assert len(whole) == 5
    monkeypatch.setattr(duplicates, "_VALUES", 30)
    monkeypatch.setattr(duplicates, "_PAIRS", 1)
    again = find_pairs(sketches)
    assert [(pair.first, pair.second, pair.how) for pair in again] == [
        (pair.first, pair.second, pair.how) for pair in whole
    ]


def test_find_pairs_on_real_photographs_finds_planted_copies_and_merges_nothing_else(
    material: Callable[[str], Path],
) -> None:
    paths = sorted(material("data/seedlings").rglob("*.png")) or sorted(material("data/seedlings").rglob("*.jpg"))
    images = [Image.open(path).convert("RGB") for path in paths[::4]]
    kinds = ["resized", "compressed", "mirrored", "cropped"]
    planted = {(number, len(images) + place) for place, number in enumerate(range(0, len(images), 5))}
    copies = [CHANGES[kinds[place % 4]](images[number]) for place, number in enumerate(range(0, len(images), 5))]
    found = {(pair.first, pair.second) for pair in find_pairs(sketches_of([*images, *copies]))}
    assert len(planted & found) >= 0.98 * len(planted)
    assert len(found - planted) < 0.01 * len(images)


# In a folder


def put_photographs(folder: Path, place: str, numbers: range) -> None:
    (folder / place).mkdir(parents=True)
    for number in numbers:
        photograph(number).save(folder / place / f"{number}.png")


def looked(folder: Path) -> Looked:
    return finish(look(Wish(folder, {"workers": 2}, {})))


def test_look_keeps_changed_copies_on_one_side_of_a_split_that_it_makes(tmp_path: Path) -> None:
    for place, name in enumerate("ab"):
        put_photographs(tmp_path, name, range(100 * place, 100 * place + 20))
        for number in range(100 * place, 100 * place + 12):
            change = list(CHANGES.values())[number % len(CHANGES)]
            change(photograph(number)).convert("RGB").save(tmp_path / name / f"copy-{number}.png")
    found = looked(tmp_path)
    splits = {picture.path: picture.split for picture in found.dataset.pictures}
    groups = {picture.path: picture.group for picture in found.dataset.pictures}
    pairs = [(path, path.replace("copy-", "")) for path in splits if "copy-" in path]
    assert [splits[copy] for copy, _ in pairs] == [splits[original] for _, original in pairs]
    assert {splits[copy] for copy, _ in pairs} == {"train", "val", "test"}
    assert all(groups[copy] == groups[original] != "" for copy, original in pairs)  # intervals count them once
    assert sum(name == "" for name in groups.values()) == 16
    assert len(found.kin.copies) == 24
    by_row = {picture.row: picture.path for picture in found.dataset.pictures}
    assert {frozenset((by_row[pair.first], by_row[pair.second])) for pair in found.kin.copies} == set(
        map(frozenset, pairs)
    )


def test_look_at_other_pictures_finds_no_copies(tmp_path: Path) -> None:
    put_photographs(tmp_path, "a", range(10))
    put_photographs(tmp_path, "b", range(20, 30))
    found = looked(tmp_path)
    assert found.kin.together == []
    assert {picture.group for picture in found.dataset.pictures} == {""}


def test_look_holds_no_small_pictures_against_each_other(tmp_path: Path) -> None:
    for side, expected in ((64, 0), (80, 4)):
        folder = tmp_path / str(side)
        for number in range(8):
            target = folder / "ab"[number % 2] / f"{number}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            image = photograph(number // 2).resize((side, side))
            (image if number % 2 else ImageOps.mirror(image)).save(target)
        assert len(looked(folder).kin.copies) == expected


def test_find_pairs_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_VALUES", 30 * 8)  # eight pictures at a time
    sketches = np.random.default_rng(1).integers(0, 255, (30, 96, 96), np.uint8)
    told = [each for each in duplicates.find_pairs(sketches) if isinstance(each, Progress)]
    assert [each.done for each in told] == sorted({each.done for each in told})
    assert {each.total for each in told} == {4 * 30}
    assert told[-1].done == 4 * 30
    assert len(told) == 4 * 4
