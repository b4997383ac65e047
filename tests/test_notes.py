"""Notes: kept between runs, found again by all that they depend on, and never trusted when damaged, of another day or of another shape."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from foldertune.cache import clear, find_contents
from foldertune.notes import find_note, keep_note, noted


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FOLDERTUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@dataclass(frozen=True)
class Speed:
    per_s: float


def test_find_note_gives_what_was_kept_under_the_same_question_alone() -> None:
    keep_note("probe", ["resnet50", 16], {"per_s": 12.5})
    assert find_note("probe", ["resnet50", 16]) == {"per_s": 12.5}
    assert find_note("probe", ["resnet50", 32]) is None
    assert find_note("survey", ["resnet50", 16]) is None


def test_names_that_are_no_text_come_back_as_they_were() -> None:
    keep_note("looks", "photos\udcff", {"\udcff.jpg": [1]})
    assert find_note("looks", "photos\udcff") == {"\udcff.jpg": [1]}


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_find_note_of_a_file_cut_short_finds_nothing_and_the_next_note_replaces_it(cache: Path, share: float) -> None:
    keep_note("probe", "a", {"per_s": 12.5})
    (path,) = cache.glob("probe-*.json")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert find_note("probe", "a") is None
    keep_note("probe", "a", {"per_s": 13.0})
    assert find_note("probe", "a") == {"per_s": 13.0}


def test_find_note_of_a_file_with_another_digit_finds_nothing(cache: Path) -> None:
    keep_note("probe", "a", {"per_s": 12.5})
    (path,) = cache.glob("probe-*.json")
    path.write_text(path.read_text().replace("12.5", "72.5"))
    assert find_note("probe", "a") is None


def test_find_note_beyond_its_age_finds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_note("probe", "a", 1)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 90)
    assert find_note("probe", "a", max_age_s=100) == 1
    assert find_note("probe", "a", max_age_s=80) is None
    monkeypatch.setattr(time, "time", lambda: now - 90)  # a clock that was put right since
    assert find_note("probe", "a", max_age_s=80) is None


def test_noted_makes_once_and_again_where_the_record_has_other_fields() -> None:
    made: list[float] = []

    def make() -> Speed:
        made.append(1.0)
        return Speed(float(len(made)))

    assert [noted("probe", "a", make, record=Speed) for _ in range(3)] == [Speed(1.0)] * 3
    keep_note("probe", "a", {"per_hour": 5})
    assert noted("probe", "a", make, record=Speed) == Speed(2.0)


def test_noted_that_is_not_to_be_kept_is_made_again_but_a_kept_one_is_taken() -> None:
    assert noted("probe", "a", lambda: Speed(1.0), record=Speed, keep=lambda: False) == Speed(1.0)
    assert noted("probe", "a", lambda: Speed(2.0), record=Speed) == Speed(2.0)
    assert noted("probe", "a", lambda: Speed(3.0), record=Speed, keep=lambda: False) == Speed(2.0)


def test_keep_note_beyond_the_bound_of_the_cache_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDERTUNE_CACHE_GIB", "0")
    keep_note("probe", "a", 1)
    assert list(cache.iterdir()) == []


def test_what_a_killed_writer_left_is_an_entry_that_can_be_cleared(cache: Path) -> None:
    keep_note("probe", "a", 1)
    (path,) = cache.glob("probe-*.json")
    path.rename(path.with_name(f".part-123-{path.name}"))
    assert [entry.kind for entry in find_contents(cache).entries] == ["unfinished"]
    assert clear(cache).num_deleted == 1
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FOLDERTUNE_CACHE", str(tmp_path / "file" / "cache"))
    assert noted("probe", "a", lambda: Speed(1.0), record=Speed) == Speed(1.0)
    assert find_note("probe", "a") is None
