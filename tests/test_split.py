"""Which pictures teach, choose and judge: shares, what stays together, and what moves when the folder changes."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from folders import invented_pictures
from hypothesis import given
from hypothesis import strategies as st

from foldertune.data.split import SHARES, assign, fold_of_units, split_pictures, units, with_groups
from foldertune.records import SPLITS, Dataset, Picture, Split

counts_of_classes = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 60), min_size=2)
seeds = st.integers(0, 2**32 - 1)


def pictures_of(counts: dict[str, int]) -> list[Picture]:
    """Rows of single files, their content in no order."""
    return [
        replace(picture, sha256=hashlib.sha256(picture.path.encode()).hexdigest())
        for picture in invented_pictures(counts)
    ]


def dataset_of(pictures: list[Picture], source: str = "") -> Dataset:
    classes = tuple(sorted({picture.label for picture in pictures}))
    return Dataset(Path("photos"), classes, tuple(pictures), source)


@st.composite
def tangled(draw: st.DrawFn) -> list[Picture]:
    """Rows with copies and groups, across classes too."""
    num_pictures = draw(st.integers(2, 60))
    contents = draw(st.lists(st.integers(0, 40), min_size=num_pictures, max_size=num_pictures))
    groups = draw(st.lists(st.sampled_from(["", "", "g1", "g2", "g3"]), min_size=num_pictures, max_size=num_pictures))
    labels = draw(st.lists(st.sampled_from("abc"), min_size=num_pictures, max_size=num_pictures))
    return [
        Picture(row, f"{row}.png", labels[row], group=groups[row], width=1, height=1, sha256=f"{contents[row]:064x}")
        for row in range(num_pictures)
    ]


# ------------------------------------------------------------------------------------------------------------ properties


@given(counts_of_classes, seeds)
def test_split_pictures_single_files_are_within_one_of_their_share(counts: dict[str, int], seed: int) -> None:
    dataset = split_pictures(dataset_of(pictures_of(counts)), seed=seed)
    assert dataset.split_source == "made"
    for split in SPLITS:
        for label, found in dataset.class_counts(split).items():
            assert abs(found - SHARES[split] * counts[label]) <= 1.01, (split, label)


@given(tangled(), seeds)
def test_split_pictures_every_readable_row_has_one_split_and_nothing_else_changes(
    pictures: list[Picture], seed: int
) -> None:
    pictures[0] = replace(pictures[0], problem="damaged", sha256="")
    split = split_pictures(dataset_of(pictures), seed=seed)
    assert split.pictures[0].split is None
    assert all(picture.split in SPLITS for picture in split.readable)
    assert [replace(picture, split=None) for picture in split.pictures] == pictures


@given(tangled(), seeds)
def test_split_pictures_copies_and_groups_stay_on_one_side(pictures: list[Picture], seed: int) -> None:
    split = split_pictures(dataset_of(pictures), seed=seed)
    sides: dict[str, set[str | None]] = {}
    for picture in split.pictures:
        for key in (picture.sha256, picture.group):
            if key:
                sides.setdefault(key, set()).add(picture.split)
    assert {len(found) for found in sides.values()} == {1}


@given(tangled(), seeds, st.lists(st.tuples(st.integers(0, 70), st.integers(0, 70)), max_size=20))
def test_split_pictures_rows_that_show_the_same_stay_on_one_side(
    pictures: list[Picture], seed: int, copies: list[tuple[int, int]]
) -> None:
    pictures[0] = replace(pictures[0], problem="damaged", sha256="")
    split = split_pictures(dataset_of(pictures), seed=seed, together=copies).pictures
    for one, other in copies:
        if 0 < one < len(split) and 0 < other < len(split):  # a row that is not read belongs to nothing
            assert split[one].split == split[other].split


def test_split_pictures_given_splits_keep_their_copies_where_they_are() -> None:
    pictures = [replace(each, split="test" if each.row < 10 else "train") for each in pictures_of({"a": 20, "b": 20})]
    split = split_pictures(dataset_of(pictures, "folders"), seed=0, together=[(0, 30), (25, 31)]).pictures
    assert (split[0].split, {each.split for each in split[:10]}) == ("test", {"test"})
    assert split[30].split in ("train", "val")
    assert split[25].split == split[31].split


@given(tangled(), seeds, st.randoms(use_true_random=False))
def test_split_pictures_does_not_depend_on_the_order_of_listing(
    pictures: list[Picture], seed: int, shuffled: random.Random
) -> None:
    expected = {picture.path: picture.split for picture in split_pictures(dataset_of(pictures), seed=seed).pictures}
    others = list(pictures)
    shuffled.shuffle(others)
    others = [replace(picture, row=row) for row, picture in enumerate(others)]
    assert {p.path: p.split for p in split_pictures(dataset_of(others), seed=seed).pictures} == expected


def test_split_pictures_depends_on_the_seed_and_not_on_names() -> None:
    pictures = pictures_of({"a": 40, "b": 40})
    first = [picture.split for picture in split_pictures(dataset_of(pictures), seed=1).pictures]
    assert first == [picture.split for picture in split_pictures(dataset_of(pictures), seed=1).pictures]
    assert first != [picture.split for picture in split_pictures(dataset_of(pictures), seed=2).pictures]
    renamed = [replace(picture, path=f"other/{picture.row}.jpg") for picture in pictures]
    assert first == [picture.split for picture in split_pictures(dataset_of(renamed), seed=1).pictures]


@given(counts_of_classes, seeds, st.integers(0, 10**6))
def test_assign_one_new_picture_moves_at_most_three_others(counts: dict[str, int], seed: int, content: int) -> None:
    pictures = pictures_of(counts)
    new = replace(pictures[0], row=len(pictures), sha256=hashlib.sha256(f"new {content}".encode()).hexdigest())
    before, after = assign(pictures, SPLITS, seed=seed), assign([*pictures, new], SPLITS, seed=seed)
    moved = [picture for picture in pictures if before[picture.row] != after[picture.row]]
    assert len(moved) <= 3
    assert {picture.label for picture in moved} <= {new.label}


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), seeds)
def test_assign_class_of_groups_always_teaches_and_is_tested_from_the_third(sizes: list[int], seed: int) -> None:
    pictures = [
        Picture(row, f"{row}.png", "a", group=f"g{group}", sha256=hashlib.sha256(f"{row}".encode()).hexdigest())
        for row, group in enumerate(group for group, size in enumerate(sizes) for _ in range(size))
    ]
    found = Counter(assign(pictures, SPLITS, seed=seed).values())
    assert found["train"] > 0
    assert (found["test"] > 0) == (len(sizes) >= 3)
    if len(sizes) < 4 or max(sizes) <= 0.25 * sum(sizes):  # else what is left may be too large for val
        assert (found["val"] > 0) == (len(sizes) >= 4)
    if len(sizes) > 1:
        assert found["train"] >= 0.2 * len(pictures)


# -------------------------------------------------------------------------------------------------------------- examples


@pytest.mark.parametrize(
    ("size", "expected"),
    [(1, (1, 0, 0)), (2, (2, 0, 0)), (3, (2, 0, 1)), (4, (2, 1, 1)), (5, (3, 1, 1)), (6, (4, 1, 1)), (7, (5, 1, 1)),
     (10, (8, 1, 1)), (11, (7, 2, 2)), (20, (14, 3, 3)), (100, (70, 15, 15))],
)  # fmt: skip
def test_split_pictures_small_classes_by_the_table(size: int, expected: tuple[int, int, int]) -> None:
    for seed in range(5):
        dataset = split_pictures(dataset_of(pictures_of({"a": size, "b": 50})), seed=seed)
        assert tuple(dataset.class_counts(split)["a"] for split in SPLITS) == expected


def test_split_pictures_given_splits_are_kept() -> None:
    pictures = [replace(picture, split=SPLITS[picture.row % 3]) for picture in pictures_of({"a": 9, "b": 9})]
    dataset = dataset_of(pictures, "folders")
    assert split_pictures(dataset, seed=1) == dataset


@pytest.mark.parametrize(
    ("given_splits", "missing"),
    [(("train", "test"), {"val"}), (("train", "val"), {"test"}), (("train",), {"val", "test"})],
)
def test_split_pictures_missing_splits_are_taken_from_train_only(
    given_splits: tuple[Split, ...], missing: set[Split]
) -> None:
    pictures = pictures_of({"a": 120, "b": 120})
    pictures = [replace(picture, split=given_splits[picture.row % len(given_splits)]) for picture in pictures]
    result = split_pictures(dataset_of(pictures, "folders"), seed=3)
    assert result.split_source == "made from train"
    for before, after in zip(pictures, result.pictures, strict=True):
        if before.split != "train":
            assert after.split == before.split
        else:
            assert after.split in {"train", *missing}
    pool = sum(picture.split == "train" for picture in pictures)
    for name in missing:
        assert abs(len(result.of(name)) - 0.15 * pool) <= 2


def test_split_pictures_lines_without_a_split_teach_where_others_have_one() -> None:
    pictures = pictures_of({"a": 20, "b": 20})
    pictures = [replace(picture, split="test" if picture.row % 4 == 0 else None) for picture in pictures]
    result = split_pictures(dataset_of(pictures, "csv"), seed=0)
    assert {picture.row for picture in result.of("test")} == set(range(0, 40, 4))
    assert len(result.of("val")) == 4


def test_split_pictures_nothing_missing_lines_without_a_split_become_train() -> None:
    pictures = pictures_of({"a": 8, "b": 8})
    pictures = [replace(picture, split=(*SPLITS, None)[picture.row % 4]) for picture in pictures]
    result = split_pictures(dataset_of(pictures, "csv"), seed=0)
    assert result.split_source == "csv"
    assert len(result.of("train")) == 8


def test_split_pictures_copies_are_spread_like_others() -> None:
    pictures = pictures_of({"a": 200})
    pictures = [replace(picture, sha256=pictures[picture.row // 2].sha256) for picture in pictures[:100]] + pictures[
        100:
    ]
    pairs = Counter(split_pictures(dataset_of(pictures), seed=0).pictures[row].split for row in range(100))
    assert pairs["train"] > 50
    assert 4 <= pairs["test"] <= 30


def test_units_chain_copies_and_groups() -> None:
    one, two, three, four = pictures_of({"a": 4})
    two, three = replace(two, group="g"), replace(three, sha256=one.sha256, group="g")
    assert sorted(len(unit) for unit in units([one, two, three, four])) == [1, 3]


def test_shares_are_those_of_the_documentation() -> None:
    assert SHARES == {"train": 0.70, "val": 0.15, "test": 0.15}


# -------------------------------------------------------------------------------------------------- folds and groups


@given(tangled(), st.integers(2, 6), st.lists(st.tuples(st.integers(0, 59), st.integers(0, 59)), max_size=8))
def test_fold_of_units_gives_every_row_one_fold_and_parts_no_unit(
    pictures: list[Picture], num_folds: int, together: list[tuple[int, int]]
) -> None:
    found = units(pictures, together)
    folds = fold_of_units(found, num_folds)
    assert sorted(folds) == list(range(len(pictures)))
    assert set(folds.values()) <= set(range(num_folds))
    assert all(len({folds[picture.row] for picture in unit}) == 1 for unit in found)


@given(counts_of_classes, st.integers(2, 6))
def test_fold_of_units_of_single_pictures_spreads_every_class_evenly(counts: dict[str, int], num_folds: int) -> None:
    pictures = pictures_of(counts)
    folds = fold_of_units(units(pictures), num_folds)
    for label in counts:
        per_fold = Counter(folds[picture.row] for picture in pictures if picture.label == label)
        assert max(per_fold.values()) - min(per_fold[fold] for fold in range(num_folds)) <= 1, label
    totals = Counter(folds.values())
    assert max(totals.values()) - min(totals[fold] for fold in range(num_folds)) <= len(counts)


@given(st.lists(st.integers(1, 9), min_size=10, max_size=30))
def test_fold_of_units_of_groups_is_as_even_as_the_largest_group_allows(sizes: list[int]) -> None:
    pictures = [replace(each, group=each.label) for each in pictures_of({f"g{at}": n for at, n in enumerate(sizes)})]
    pictures = [replace(each, label="a") for each in pictures]
    totals = Counter(fold_of_units(units(pictures), 5).values())
    assert max(totals.values()) - min(totals[fold] for fold in range(5)) <= max(sizes)


@given(tangled(), st.lists(st.tuples(st.integers(0, 70), st.integers(0, 70)), max_size=8))
def test_with_groups_names_exactly_the_units_of_several_and_keeps_names_that_are_there(
    pictures: list[Picture], together: list[tuple[int, int]]
) -> None:
    found = with_groups(dataset_of(pictures), together)
    assert [replace(picture, group="") for picture in found.pictures] == [replace(p, group="") for p in pictures]
    alone = {unit[0].row for unit in units(pictures, together) if len(unit) == 1}
    for before, after in zip(pictures, found.pictures, strict=True):
        assert after.group == before.group if before.group else (after.group == "") == (after.row in alone)
    for unit in units(pictures, together):
        made = {found.pictures[picture.row].group for picture in unit if not picture.group}
        assert len(made) <= 1
