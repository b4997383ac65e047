"""Marks at one place: found where they stand, on pictures that the mark was not learned from, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from foldertune.diagnosis.shortcuts import area_under_curve
from foldertune.diagnosis.watermarks import mark_scores

NUM, SIDE = 120, 96
LABELS = np.repeat(np.arange(3), NUM // 3)
FOLDS = np.arange(NUM) % 5


def backgrounds(seed: int) -> NDArray[np.uint8]:
    random = np.random.default_rng(seed)
    found = np.zeros((NUM, SIDE, SIDE))
    for place in range(NUM):
        for side in (4, 12, 40):
            noise = Image.fromarray(random.integers(0, 256, (side, side), np.uint8))
            found[place] += np.asarray(noise.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float64) / 3
    return found.clip(0, 255).astype(np.uint8)


def stamped(seed: int, top: int, left: int, *, label: int = 1, strength: float = 60) -> NDArray[np.uint8]:
    """The same 9 x 14 pattern at one place of every picture of a class."""
    pattern = np.where(np.random.default_rng(99).random((9, 14)) < 0.5, strength, -strength)
    sketches = backgrounds(seed).astype(np.float64)
    sketches[label == LABELS, top : top + 9, left : left + 14] += pattern
    return sketches.clip(0, 255).astype(np.uint8)


def areas(sketches: NDArray[np.uint8]) -> tuple[list[float], list[str]]:
    scores, places = mark_scores(sketches, LABELS, FOLDS, num_classes=3)
    return [area_under_curve(scores[:, number], np.equal(LABELS, number)) for number in range(3)], places


@pytest.mark.parametrize(
    ("top", "left", "place"),
    [(83, 78, "bottom right"), (4, 3, "top left"), (44, 40, "middle centre"), (84, 42, "bottom centre")],
)
def test_mark_scores_find_the_mark_of_a_class_and_say_where_it_stands(top: int, left: int, place: str) -> None:
    found, places = areas(stamped(0, top, left))
    assert found[1] > 0.95
    assert max(found[0], found[2]) < found[1] - 0.1  # to lack the mark of one third tells a little too
    assert places[1] == place


def test_mark_scores_of_a_faint_mark_rise_with_its_strength() -> None:
    found = [areas(stamped(1, 83, 78, strength=strength))[0][1] for strength in (0, 15, 60)]
    assert found[0] < 0.75 < found[1] < found[2]


def test_mark_scores_without_a_mark_are_chance() -> None:
    for seed in range(8):
        assert max(areas(backgrounds(seed))[0]) < 0.8


def test_mark_scores_where_the_mark_wanders_are_chance() -> None:
    random, sketches = np.random.default_rng(5), backgrounds(5).astype(np.float64)
    pattern = np.where(np.random.default_rng(99).random((9, 14)) < 0.5, 60, -60)
    for place in np.flatnonzero(LABELS == 1):
        top, left = random.integers(0, (SIDE - 9, SIDE - 14))
        sketches[place, top : top + 9, left : left + 14] += pattern
    assert areas(sketches.clip(0, 255).astype(np.uint8))[0][1] < 0.8


def test_mark_scores_are_from_minus_one_to_one_and_the_same_again() -> None:
    sketches = stamped(2, 10, 10)
    scores, places = mark_scores(sketches, LABELS, FOLDS, num_classes=3)
    assert scores.shape == (NUM, 3)
    assert np.abs(scores).max() == 1.0
    again = mark_scores(sketches, LABELS, FOLDS, num_classes=3)
    assert np.array_equal(again[0], scores)
    assert again[1] == places


def test_mark_scores_of_classes_without_pictures_and_of_pictures_that_show_nothing_are_zero() -> None:
    scores, places = mark_scores(np.full((NUM, SIDE, SIDE), 9, np.uint8), LABELS, FOLDS, num_classes=5)
    assert (scores[:, :3] == 0).all()
    assert np.isnan(scores[:, 3:]).all()
    assert places[3:] == ["", ""]


def test_mark_scores_of_very_many_pictures_look_at_a_part_of_each_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foldertune.diagnosis.watermarks._MOST_PICTURES", 60)
    scores, _ = mark_scores(stamped(0, 83, 78), LABELS, FOLDS, num_classes=3)
    looked = np.asarray(~np.isnan(scores).all(1))
    assert [int(looked[number == LABELS].sum()) for number in range(3)] == [20, 20, 20]
    assert area_under_curve(scores[looked, 1], LABELS[looked] == 1) > 0.9


def test_mark_in_a_set_that_is_looked_at_in_part_has_the_area_of_that_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures that are not looked at count neither for nor against it."""
    from foldertune.diagnosis.findings import Asked
    from foldertune.diagnosis.shortcuts import Appearances, shortcut_findings
    from foldertune.images import FileFacts
    from foldertune.records import Light, Picture

    sketches = stamped(0, 83, 78)
    pictures = [Picture(row, f"{row}.png", "abc"[k], width=200, height=150) for row, k in enumerate(LABELS)]
    light = Light(100.0, 50.0, 20.0, 180.0, 30.0, 0.5)
    seen = Appearances(
        pictures,
        LABELS,
        FOLDS,
        [light] * NUM,
        [FileFacts("PNG", 1000)] * NUM,
        sketches,
        np.zeros((NUM, 8, 8, 3), np.uint8),
    )

    def score() -> float:
        found = [
            each for each in shortcut_findings(seen, "abc", asked=Asked(Path("photos"))) if "A mark" in each.sentence
        ]
        assert len(found) == 1
        assert found[0].evidence[0].label == "b"
        return found[0].score

    whole = score()
    monkeypatch.setattr("foldertune.diagnosis.watermarks._MOST_PICTURES", NUM // 3)
    assert score() > whole - 0.1
