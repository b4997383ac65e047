"""Shortcuts: each planted one is named by its property, and sets without one raise no alarm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import invented_pictures
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from foldertune.data.glances import Glance, glance
from foldertune.diagnosis import shortcuts
from foldertune.diagnosis.findings import Asked, by_importance
from foldertune.diagnosis.shortcuts import LEAST_OF_A_CLASS, Appearances, area_under_curve, shortcut_findings
from foldertune.images import FileFacts
from foldertune.records import Finding

ASKED = Asked(Path("photos"))
PER_CLASS, CLASSES = 40, ("ant", "bee", "cat")
SIDE = 120


@cache
def scene(number: int, seed: int) -> Image.Image:
    """A made photograph: noise of several scales and another light in each, whatever its class."""
    random = np.random.default_rng((seed, number))
    whole = np.zeros((SIDE, SIDE, 3))
    for side in (3, 8, 25, 80):
        noise = Image.fromarray(random.integers(0, 256, (side, side, 3), np.uint8))
        whole += np.asarray(noise.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float64) / 4
    whole = 128 + random.uniform(0.6, 1.6) * (whole - 128) + random.uniform(-30, 30, 3)
    return Image.fromarray(whole.clip(0, 255).astype(np.uint8))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other on a busy machine take most of the time of these small products."""
    with threadpool_limits(1):
        yield


Drawn = Callable[[Image.Image, int, np.random.Generator], Image.Image]
Filed = Callable[[FileFacts, int, np.random.Generator], FileFacts]


def looks_of(
    *, seed: int = 0, drawn: Drawn = lambda image, *_: image, filed: Filed = lambda facts, *_: facts, num_classes: int = 3
) -> Appearances:  # fmt: skip
    """Scenes of classes that do not tell them apart, with what is drawn into them and written about their files."""
    random = np.random.default_rng(seed)
    pictures = invented_pictures(dict.fromkeys(CLASSES[:num_classes], PER_CLASS))
    labels = np.repeat(np.arange(num_classes), PER_CLASS)
    glances: list[Glance] = []
    for place, label in enumerate(map(int, labels)):
        facts = FileFacts(
            str(random.choice(["JPEG", "JPEG", "PNG"])), int(random.integers(20_000, 60_000)), orientation=int(random.choice([1, 1, 6])),
            camera=str(random.choice(["", "NIKON D40", "Canon EOS 5D"])),
        )  # fmt: skip
        image = drawn(scene(place, seed).copy(), label, random)
        glances.append(glance(np.asarray(image), filed(facts, label, random)))
        width, height = random.integers(300, 900, 2)
        pictures[place] = replace(pictures[place], width=int(width), height=int(height))
    return Appearances(
        pictures, labels, random.permutation(np.arange(len(labels)) % 5), [each.light for each in glances],
        [each.file for each in glances], np.stack([each.sketch for each in glances]), np.stack([each.thumb for each in glances]),
    )  # fmt: skip


def found(looks: Appearances, num_classes: int = 3) -> list[Finding]:
    return list(by_importance(shortcut_findings(looks, CLASSES[:num_classes], asked=ASKED)))


def name_of(finding: Finding) -> str:
    return finding.sentence.split(" alone tells ")[0]


# ------------------------------------------------------------------------------------------------------------ planted


def file_type(facts: FileFacts, label: int, random: np.random.Generator) -> FileFacts:
    return replace(facts, format="PNG" if label == 1 else "JPEG")


def camera(facts: FileFacts, label: int, random: np.random.Generator) -> FileFacts:
    return replace(facts, camera="Scanner 3000" if label == 1 else facts.camera)


def size_of_file(facts: FileFacts, label: int, random: np.random.Generator) -> FileFacts:
    return replace(facts, num_bytes=facts.num_bytes * (4 if label == 1 else 1))


def border(image: Image.Image, label: int, random: np.random.Generator) -> Image.Image:
    if label == 1:
        ImageDraw.Draw(image).rectangle((0, 0, SIDE - 1, SIDE - 1), outline=(20, 20, 20), width=6)
    return image


def mark(image: Image.Image, label: int, random: np.random.Generator) -> Image.Image:
    if label == 1:
        ImageDraw.Draw(image).text((76, 100), "shop.com", fill=(255, 255, 255))
    return image


def light(image: Image.Image, label: int, random: np.random.Generator) -> Image.Image:
    return image.point(lambda value: 0.3 * value) if label == 1 else image


PLANTED: dict[str, tuple[str, dict[str, Any]]] = {
    "The file type": ("PNG", {"filed": file_type}),
    "The camera": ("Scanner 3000", {"filed": camera}),
    "The size of the file": (" bytes, ", {"filed": size_of_file}),
    "The border": ("by its border alone", {"drawn": border}),
    "A mark at one place": ("at the bottom right, like the others of its class", {"drawn": mark}),
    "The light": ("mean ", {"drawn": light}),
}


@pytest.mark.parametrize("name", PLANTED)
def test_shortcut_of_one_class_is_named_first_with_its_pictures(name: str) -> None:
    shown, planted = PLANTED[name]
    findings = found(looks_of(**planted))
    first = next(finding for finding in findings if name_of(finding) == name)
    if "filed" in planted:  # what is drawn changes light and sharpness too
        assert [name_of(finding) for finding in findings] == [name]
    if name not in ("The border", "The light"):
        assert findings[0] is first
        assert first.severity == "serious"
    assert first.kind == "shortcut"
    assert first.sentence.startswith(f"{name} alone tells 'bee' from the rest: ")
    assert first.score >= 2 * 0.82 - 1
    assert [row.label for row in first.evidence] == ["bee"] * PER_CLASS
    assert shown in first.evidence[0].note
    assert all(0 <= row.score <= 1 for row in first.evidence)
    assert {row.path for row in first.evidence} == {f"bee/{row}.png" for row in range(PER_CLASS, 2 * PER_CLASS)}


def test_shortcut_of_two_classes_is_told_once_and_of_three_for_all_that_it_tells() -> None:
    (two,) = found(looks_of(filed=file_type, num_classes=2), 2)
    assert "other class" not in two.sentence
    assert len({row.label for row in two.evidence}) == 1
    (three,) = found(looks_of(filed=lambda facts, label, _: replace(facts, camera=CLASSES[label])))
    assert ", and 2 other classes from the rest" in three.sentence
    assert len(three.evidence) == 3 * PER_CLASS


def test_shortcut_that_most_of_a_class_has_is_found_too() -> None:
    def mostly(facts: FileFacts, label: int, random: np.random.Generator) -> FileFacts:
        return replace(facts, format="PNG" if (label == 1) == (random.random() < 0.97) else "JPEG")

    assert [name_of(finding) for finding in found(looks_of(filed=mostly))] == ["The file type"]


@pytest.mark.parametrize("seed", range(20))
def test_shortcuts_of_a_set_without_one_are_none(seed: int) -> None:
    assert found(looks_of(seed=100 + seed)) == []


def test_shortcuts_of_classes_of_few_pictures_are_not_judged() -> None:
    whole = looks_of(filed=file_type)
    few = np.r_[0:PER_CLASS, PER_CLASS : PER_CLASS + LEAST_OF_A_CLASS - 1]
    part = Appearances(
        [whole.pictures[place] for place in few], whole.labels[few], whole.folds[few], [whole.lights[place] for place in few],
        [whole.files[place] for place in few], whole.sketches[few], whole.thumbs[few],
    )  # fmt: skip
    assert found(part) == []


def test_shortcuts_where_a_fold_has_but_one_class_to_learn_from_answer() -> None:
    looks = looks_of(filed=file_type)
    found(replace(looks, folds=(looks.labels == 0).astype(np.int64)))
    found(replace(looks, folds=np.zeros(len(looks.labels), np.int64)))


# ------------------------------------------------------------------------------------------------------------ the area


@given(
    hnp.arrays(np.float64, st.shared(st.integers(2, 40), key="n"), elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])),
    hnp.arrays(np.bool_, st.shared(st.integers(2, 40), key="n")),
)  # fmt: skip
def test_area_under_curve_is_that_of_scikit_learn(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> None:
    area = area_under_curve(scores, positive)
    if positive.all() or not positive.any():
        assert area == 0.5
    else:
        assert area == pytest.approx(roc_auc_score(positive, scores))
        assert area_under_curve(-scores, positive) == pytest.approx(1 - area)


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0])
def test_standard_error_is_about_that_of_drawing_again(shift: float) -> None:
    """Against the spread over 600 drawn samples of normal scores; the formula assumes exponential ones and errs upwards."""
    random, num_positive, num_negative = np.random.default_rng(0), 30, 90
    positive = np.arange(num_positive + num_negative) < num_positive
    areas = [area_under_curve(random.normal(size=120) + shift * positive, positive) for _ in range(600)]
    error = shortcuts._standard_error(float(np.mean(areas)), num_positive, num_negative)
    assert 0.9 * np.std(areas) < error < 1.4 * np.std(areas)


def test_standard_error_of_one_against_one_by_hand() -> None:
    assert shortcuts._standard_error(0.8, 1, 1) == pytest.approx((0.8 * 0.2) ** 0.5)
    assert shortcuts._standard_error(1.0, 50, 50) == 0


def test_is_told_needs_an_area_and_certainty() -> None:
    assert shortcuts._is_told(0.95, 40, 120, 0.87)
    assert not shortcuts._is_told(0.86, 40, 120, 0.87)
    assert not shortcuts._is_told(0.88, LEAST_OF_A_CLASS, 20, 0.87)  # three standard errors reach below 0.7
