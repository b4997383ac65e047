"""Changes of augmentation that turn one class into another are found; those that only make pictures strange are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from folders import invented_pictures
from numpy.typing import NDArray

from foldertune.diagnosis.changes import LEAST_OF_A_CLASS, REMEDIES, Conflict, conflict_findings, find_conflicts
from foldertune.diagnosis.findings import Asked, by_importance

ASKED = Asked(Path("photos"))
Features = NDArray[np.float32]


def clusters(num_classes: int, *, per_class: int = 12, seed: int = 0) -> tuple[Features, NDArray[np.int64], Features]:
    """Features, labels, and the centre of each class."""
    random = np.random.default_rng(seed)
    centres = (4 * random.normal(size=(num_classes, 16))).astype(np.float32)
    labels = np.repeat(np.arange(num_classes), per_class)
    return centres[labels] + noise(len(labels), seed + 1), labels, centres


def noise(count: int, seed: int, scale: float = 1.0) -> Features:
    return (scale * np.random.default_rng(seed).normal(size=(count, 16))).astype(np.float32)


def test_find_conflicts_of_classes_that_become_each_other_names_both_ways_and_every_picture() -> None:
    features, labels, centres = clusters(5)
    swapped = np.array([1, 0, 2, 3, 4])
    changed = centres[swapped[labels]] + noise(len(labels), 7)
    found = find_conflicts(features, changed, labels)
    assert {(each.label, each.other) for each in found} == {(0, 1), (1, 0)}
    for each in found:
        assert each.share >= 0.75
        assert set(each.places) <= set(np.flatnonzero(labels == each.label))
        assert len(each.places) == round(each.share * 12)


@pytest.mark.parametrize("seed", range(5))
def test_find_conflicts_of_changes_that_move_pictures_a_little_or_anywhere_are_none(seed: int) -> None:
    features, labels, _ = clusters(5, seed=seed)
    assert find_conflicts(features, features + noise(len(labels), seed + 20, 0.3), labels) == []
    assert find_conflicts(features, noise(len(labels), seed + 30, 4.0), labels) == []  # strange: they lie nowhere
    assert find_conflicts(features, features, labels) == []


def test_find_conflicts_of_classes_that_the_change_exchanges_though_it_moves_pictures_hardly_at_all() -> None:
    """As networks see mirrored arrows: near to where they were, by all but the little that tells the two apart."""
    random = np.random.default_rng(4)
    labels = np.arange(80) % 2
    features = np.concatenate([random.normal(size=(80, 30)), np.where(labels, 1.0, -1.0)[:, None]], axis=1)
    mirrored = features + 0.1 * random.normal(size=features.shape)
    mirrored[:, 30] *= -1
    found = find_conflicts(features.astype(np.float32), mirrored.astype(np.float32), labels)
    assert {(each.label, each.other) for each in found} == {(0, 1), (1, 0)}
    mirrored[:, 30] *= -1  # unless what tells them apart stays
    assert find_conflicts(features.astype(np.float32), mirrored.astype(np.float32), labels) == []


def test_find_conflicts_of_a_change_that_makes_all_pictures_strange_in_the_same_way_are_none() -> None:
    """Where a classifier has to call them all by one name, and they lie near none."""
    features, labels, centres = clusters(3, seed=9)
    aside = np.linalg.svd(centres - centres.mean(0))[2][-1]  # at right angles to all that tells the classes apart
    assert find_conflicts(features, features + 40 * aside + 2 * centres[0], labels) == []


def test_find_conflicts_of_classes_that_are_one_cloud_are_none() -> None:
    """Where half of a class lies among the other anyway, the change is not to blame."""
    features, labels = noise(60, 1), np.arange(60) % 2
    assert find_conflicts(features, features + noise(60, 2, 0.3), labels) == []


def test_find_conflicts_goes_by_neighbours_and_not_by_the_changed_pictures_own_original() -> None:
    """A mirrored picture is nearest to itself; that alone must not hide that it lies among another class."""
    features, labels, centres = clusters(2, per_class=10)
    changed = centres[1 - labels] + noise(20, 3)
    assert len(find_conflicts(features, changed, labels)) == 2


def test_find_conflicts_says_nothing_of_classes_of_few_pictures() -> None:
    features, labels, centres = clusters(3, per_class=LEAST_OF_A_CLASS - 1)
    assert find_conflicts(features, centres[(labels + 1) % 3] + noise(len(labels), 3, 0.1), labels) == []


@pytest.mark.parametrize("count", [1, 2, 5])
def test_find_conflicts_of_hardly_any_pictures_answers(count: int) -> None:
    assert find_conflicts(noise(count, 1), noise(count, 2), np.zeros(count, np.int64)) == []


def test_conflict_findings_name_the_worst_class_and_switch_that_change_off() -> None:
    pictures = invented_pictures({"left": 4, "right": 4})
    told = {
        "mirrored": [Conflict(1, 0, 1.0, (4, 5, 6, 7)), Conflict(0, 1, 0.75, (0, 1, 2))],
        "turned by 180 degrees": [Conflict(0, 1, 0.5, (3,))],
        "turned by 90 degrees": [],
    }
    first, second = by_importance(conflict_findings(pictures, told, classes=("left", "right"), asked=ASKED))
    assert first.kind == second.kind == "augmentation_conflict"
    assert first.sentence == (
        "A picture of 'right', mirrored, looks like 'left': 100% of those that were tried. So it is with 1 other pair of classes."
    )
    assert (first.severity, first.score, first.remedy) == ("serious", 1.0, "foldertune train photos --no-flip")
    assert [(row.path, row.suggested) for row in first.evidence[:1]] == [("right/4.png", "left")]
    assert len(first.evidence) == 7
    assert second.severity == "warning"  # no plan turns pictures without being asked
    assert second.remedy == "foldertune train photos --orientation upright"


def test_every_change_has_a_remedy_and_is_tried() -> None:
    from foldertune.inspection import _CHANGES

    assert set(_CHANGES) == set(REMEDIES)


def test_changes_are_what_their_names_say() -> None:
    from foldertune.inspection import _CHANGES

    pixels = np.random.default_rng(0).integers(0, 256, (2, 6, 6, 3), np.uint8)
    assert np.array_equal(_CHANGES["mirrored"](pixels)[1], np.fliplr(pixels[1]))
    assert np.array_equal(_CHANGES["turned by 90 degrees"](pixels)[1], np.rot90(pixels[1]))
    assert np.array_equal(_CHANGES["turned by 180 degrees"](pixels)[1], pixels[1, ::-1, ::-1])
    pure = np.zeros((1, 1, 3, 3), np.uint8)
    pure[0, 0] = np.diag([250, 250, 250])  # red, green, blue
    turned = _CHANGES["another hue"](pure)[0, 0].astype(int)
    assert np.abs(turned - np.roll(np.diag([250, 250, 250]), 1, axis=1)).max() <= 6
    grey = np.full((1, 4, 4, 3), 99, np.uint8)
    assert np.array_equal(_CHANGES["another hue"](grey), grey)
