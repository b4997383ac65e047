"""Pictures that belong together by their names or by the moment at which they were taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from folders import invented_pictures
from hypothesis import given
from hypothesis import strategies as st

from foldertune.data.folder import scan
from foldertune.data.groups import BURST_S, check_pattern, find_bursts, group_pictures
from foldertune.errors import DataError, SettingsError
from foldertune.images import FileFacts
from foldertune.records import Picture, finish


def pictures_of(*paths: str, group: str = "") -> list[Picture]:
    made = invented_pictures({"a": len(paths)})
    return [replace(picture, path=path, group=group) for picture, path in zip(made, paths, strict=True)]


def groups_of(pictures: Sequence[Picture]) -> list[str]:
    return [picture.group for picture in pictures]


def test_group_pictures_without_a_bracket_goes_by_all_that_matches() -> None:
    pictures = pictures_of("a/person1_bacteria_1.png", "a/person1_virus_7.png", "a/person12_virus_1.png", "a/other.png")
    assert groups_of(group_pictures(pictures, r"person\d+")) == ["person1", "person1", "person12", ""]


def test_group_pictures_with_brackets_goes_by_the_first() -> None:
    pictures = pictures_of("a/Ada-1.png", "b/Ada-2.png", "b/Ben-1.png")
    assert groups_of(group_pictures(pictures, r"/(\w+)-(\d)")) == ["Ada", "Ada", "Ben"]
    assert groups_of(group_pictures(pictures, r"(?:a/)(\w+)|b")) == ["Ada", "", ""]  # a bracket that matched nothing


def test_group_pictures_goes_before_the_groups_of_the_folder_and_leaves_the_others() -> None:
    pictures = pictures_of("a/p1.png", "a/x.png", group="table")
    assert groups_of(group_pictures(pictures, r"p\d")) == ["p1", "table"]


@pytest.mark.parametrize("group", ["", "table"])
def test_group_pictures_that_matches_nothing_is_refused(group: str) -> None:
    with pytest.raises(DataError) as caught:
        group_pictures(pictures_of("a/1.png", "a/2.png", group=group), "patient")
    assert str(caught.value) == (
        "Group by 'patient' matches none of 2 paths, such as 'a/1.png'. Give a pattern that matches a part of them, or leave it out."
    )


def test_check_pattern_refuses_what_is_no_expression_with_an_example() -> None:
    assert check_pattern(r"p\d").pattern == r"p\d"
    with pytest.raises(
        SettingsError, match=r"Group by is 'p\(', which is no regular expression \(.*\)\. Accepted: one"
    ):
        check_pattern("p(")


def bursts(*taken: tuple[str, float | None]) -> list[tuple[int, int]]:
    pictures = invented_pictures({"a": len(taken)})
    return find_bursts(pictures, [FileFacts("JPEG", 1, camera=camera, taken_s=at) for camera, at in taken])


def test_find_bursts_chains_pictures_of_one_camera_that_follow_each_other_within_two_seconds() -> None:
    found = bursts(("N", 100.0), ("N", 105.5), ("N", 101.5), ("N", 103.5), ("N", 200.0))
    assert BURST_S == 2
    assert found == [(0, 2), (2, 3), (3, 1)]


def test_find_bursts_never_joins_two_cameras_nor_pictures_without_a_camera_or_a_clock() -> None:
    assert bursts(("N", 1.0), ("C", 1.0), ("", 1.0), ("", 1.0), ("N", None), ("N", None)) == []


@given(st.lists(st.tuples(st.sampled_from(["N", "C", ""]), st.none() | st.floats(0, 50, width=32)), max_size=25))
def test_find_bursts_are_those_of_comparing_all_with_all(taken: list[tuple[str, float | None]]) -> None:
    """Two pictures hang together by a chain exactly where a chain of close ones leads from one to the other."""

    def closed(pairs: list[tuple[int, int]]) -> list[set[int]]:
        sets = [{row} for row in range(len(taken))]
        for one, other in pairs:
            joined = sets[one] | sets[other]
            for row in joined:
                sets[row] = joined
        return sets

    close = [
        (one, other)
        for one, (camera, first) in enumerate(taken)
        for other, (same, second) in enumerate(taken[:one])
        if camera and camera == same and first is not None and second is not None and abs(first - second) <= BURST_S
    ]
    assert closed(bursts(*taken)) == closed(close)


def test_find_bursts_end_after_half_a_minute_or_twenty_pictures() -> None:
    """A clock that stands still, and a camera that takes one picture every second, would else chain everything."""
    still = bursts(*[("A", 7.0)] * 45)
    assert [pair for pair in still if 19 in pair] == [(18, 19)]  # the twentieth is the last one of its burst
    assert len(still) == 45 - 3  # bursts of 20, 20 and 5
    steady = bursts(*[("A", float(second * 2)) for second in range(40)])
    assert (14, 15) in steady
    assert (15, 16) not in steady  # 32 s after the first


def test_scan_refuses_a_pattern_that_matches_nothing_before_any_file_is_read(tmp_path: Path) -> None:
    for path in ("a/1.jpg", "b/1.jpg"):
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).write_bytes(b"no picture: reading it would be another error")
    with pytest.raises(DataError, match="Group by 'patient' matches none of 2 paths"):
        finish(scan(tmp_path, workers=0, group_by="patient"))
