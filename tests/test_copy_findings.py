"""Findings on pictures that are the same picture: twice in a class, under two classes, on both sides of a split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from folders import invented_pictures

from foldertune.diagnosis.copies import copy_findings
from foldertune.diagnosis.duplicates import Pair
from foldertune.diagnosis.findings import Asked, by_importance
from foldertune.records import Finding, Picture, Split

ASKED = Asked(Path("photos"))


def pictures_of(*splits: Split | None, labels: str | None = None) -> list[Picture]:
    labels = labels or "a" * len(splits)
    return [
        replace(picture, split=split, label=label, path=f"{label}/{picture.row}.png")
        for picture, split, label in zip(invented_pictures({"a": len(splits)}), splits, labels, strict=True)
    ]


def found(pictures: list[Picture], *pairs: Pair, given_splits: bool = True) -> dict[str, Finding]:
    told = by_importance(copy_findings(pictures, pairs, given_splits=given_splits, asked=ASKED))
    assert len({finding.kind for finding in told}) == len(told)
    for finding in told:
        assert finding.remedy == "foldertune look photos --write-patch patch.csv"
        assert all(0 <= row.score <= 1 for row in finding.evidence)
        assert finding.score == finding.evidence[0].score
    return {finding.kind: finding for finding in told}


def members(finding: Finding) -> list[tuple[str, str, str]]:
    return [(row.path, row.other, row.note) for row in finding.evidence]


def test_copies_of_none_are_no_finding() -> None:
    assert found(pictures_of("train", "val", "test")) == {}


def test_copies_in_one_class_and_split_are_notes_exact_and_near_apart() -> None:
    pictures = pictures_of("train", "train", "train", "train")
    pictures[1] = replace(pictures[1], sha256=pictures[0].sha256)
    told = found(pictures, Pair(2, 3, 0.91, "mirrored"), Pair(0, 1, 1.0, "the same"))
    assert list(told) == ["near_duplicate", "exact_duplicate"]
    assert members(told["exact_duplicate"]) == [("a/0.png", "a/1.png", "the same content")]
    assert members(told["near_duplicate"]) == [("a/2.png", "a/3.png", "mirrored")]
    assert {finding.severity for finding in told.values()} == {"note"}
    assert told["near_duplicate"].sentence == (
        "1 pair of pictures of one class show the same (1 x mirrored). They count twice while training, and stay on one side of "
        "every split that is made here."
    )


def test_copies_of_one_content_are_told_once_for_each_with_the_first() -> None:
    pictures = [replace(picture, sha256="f" * 64) for picture in pictures_of("train", "train", "train")]
    assert [(first, second) for first, second, _ in members(found(pictures)["exact_duplicate"])] == [
        ("a/0.png", "a/1.png"), ("a/0.png", "a/2.png"),
    ]  # fmt: skip


@pytest.mark.parametrize("judged", ["val", "test"])
def test_copies_across_given_splits_are_a_serious_leak_with_both_members(judged: Split) -> None:
    pictures = pictures_of("train", judged, "train", judged)
    pictures[3] = replace(pictures[3], sha256=pictures[2].sha256)
    told = found(pictures, Pair(0, 1, 0.93, "cropped"))
    assert list(told) == ["split_leak"]
    assert told["split_leak"].severity == "serious"
    assert members(told["split_leak"]) == [
        ("a/2.png", "a/3.png", f"train and {judged}: the same content"), ("a/0.png", "a/1.png", f"train and {judged}: cropped"),
    ]  # fmt: skip
    assert told["split_leak"].sentence == (
        "2 pictures of val or test are also in another split, as 1 x the same content, 1 x cropped. The figures of this split "
        "flatter the model; the split is kept as it was given."
    )


def test_leak_between_val_and_test_alone_is_a_warning() -> None:
    leak = found(pictures_of("train", "val", "test"), Pair(1, 2, 0.9, "the same"))["split_leak"]
    assert leak.severity == "warning"
    assert "Validation and test share them" in leak.sentence


def test_leak_of_one_judged_picture_with_many_teaching_ones_counts_it_once_and_names_all() -> None:
    pictures = pictures_of("train", "train", "train", "test")
    leak = found(pictures, *(Pair(row, 3, 0.9, "cropped") for row in range(3)))["split_leak"]
    assert leak.sentence.startswith("1 picture of val or test is also in another split, as 3 x cropped. ")
    assert len(leak.evidence) == 3


def test_leak_of_a_group_that_a_given_split_parts_names_each_judged_picture() -> None:
    pictures = [replace(each, group="Ada") for each in pictures_of("train", "train", "test", "val")]
    pictures += [replace(each, row=4, path="a/4.png", group="Ben", sha256="e" * 64) for each in pictures_of("test")]
    leak = found(pictures)["split_leak"]
    assert members(leak) == [
        ("a/0.png", "a/2.png", "train and test: the same group"), ("a/0.png", "a/3.png", "train and val: the same group"),
    ]  # fmt: skip


def test_leak_of_a_group_of_which_none_teaches_is_told_too() -> None:
    leak = found([replace(each, group="Ada") for each in pictures_of("test", "val")])["split_leak"]
    assert members(leak) == [("a/1.png", "a/0.png", "val and test: the same group")]
    assert leak.severity == "warning"


def test_copies_in_a_split_that_was_made_here_are_never_a_leak() -> None:
    pictures = [replace(each, group="Ada") for each in pictures_of("train", "test")]
    assert list(found(pictures, Pair(0, 1, 0.9, "the same"), given_splits=False)) == ["near_duplicate"]


def test_copies_under_two_classes_are_a_conflict_and_may_be_a_leak_too() -> None:
    pictures = pictures_of("train", "test", "train", labels="abb")
    told = found(pictures, Pair(0, 1, 0.95, "mirrored"), Pair(0, 2, 0.9, "the same"))
    assert list(told) == ["split_leak", "label_conflict"]
    assert members(told["label_conflict"]) == [
        ("a/0.png", "b/1.png", "a and b: mirrored"), ("a/0.png", "b/2.png", "a and b: the same"),
    ]  # fmt: skip
    assert told["label_conflict"].severity == "serious"
    assert members(told["split_leak"]) == [("a/0.png", "b/1.png", "train and test: mirrored")]


def test_conflict_of_one_content_under_two_classes_is_found_by_the_content_alone() -> None:
    pictures = [replace(each, sha256="f" * 64) for each in pictures_of("train", "train", "train", labels="aab")]
    told = found(pictures)
    assert members(told["label_conflict"]) == [
        ("a/0.png", "b/2.png", "a and b: the same content"), ("a/1.png", "b/2.png", "a and b: the same content"),
    ]  # fmt: skip
    assert members(told["exact_duplicate"]) == [("a/0.png", "a/1.png", "the same content")]
    alone = found(pictures[1:])["label_conflict"]
    assert alone.severity == "warning"
    assert (
        alone.sentence
        == "1 pair of pictures shows the same and is filed under two classes: one label of each is wrong."
    )


def test_pairs_of_pictures_that_cannot_be_read_belong_to_nothing() -> None:
    assert found(pictures_of("train", "test"), Pair(0, 7, 0.9, "the same")) == {}
