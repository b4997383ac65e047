"""Files that have not changed are not read again; whatever might have changed is."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import pytest
from folders import look, picture_bytes, put

from foldertune.data import folder as data_folder
from foldertune.data import looks
from foldertune.data.folder import scan
from foldertune.data.looks import Looks
from foldertune.data.pack import load_pictures
from foldertune.errors import DataError
from foldertune.images import accepted_formats
from foldertune.records import Dataset, Picture, finish


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return put(tmp_path / "pictures", [f"{name}/{number}.png" for name in "ab" for number in range(20)])


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that are read from now on; files count as settled at once."""
    paths: list[str] = []
    real = data_folder.check

    def check(folder: Path, picture: Picture, *given: Any) -> Picture:
        paths.append(picture.path)
        return real(folder, picture, *given)

    monkeypatch.setattr(data_folder, "check", check)
    monkeypatch.setattr(looks, "_SETTLED_S", -1.0)
    return paths


def again(folder: Path, read: list[str]) -> tuple[Dataset, list[str]]:
    """A second look, and what was read for it."""
    read.clear()
    return look(folder), list(read)


def test_scan_of_an_unchanged_folder_reads_nothing_and_finds_the_same(pictures: Path, read: list[str]) -> None:
    first = look(pictures)
    assert len(read) == 40
    assert again(pictures, read) == (first, [])


@pytest.mark.parametrize("change", ["content", "content and times", "replaced", "new", "linked"])
def test_scan_reads_what_has_changed_and_finds_its_new_content(pictures: Path, read: list[str], change: str) -> None:
    look(pictures)
    path, other = pictures / "a" / "3.png", picture_bytes(99)
    if change == "new":
        path = pictures / "b" / "new.png"
        path.write_bytes(other)
    elif change == "replaced":
        (pictures.parent / "other.png").write_bytes(other)
        (pictures.parent / "other.png").replace(path)
    elif change == "linked":
        path.unlink()
        os.link(pictures / "b" / "0.png", path)
    else:
        facts = path.stat()
        path.write_bytes(other)
        if change == "content and times":  # as copying with times does
            os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    found, was_read = again(pictures, read)
    name = path.relative_to(pictures).as_posix()
    assert name in was_read
    hashes = {picture.path: picture.sha256 for picture in found.pictures}
    assert hashes[name] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert again(pictures, read) == (found, [])


def test_scan_reads_a_file_again_that_was_written_just_before(
    pictures: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "_SETTLED_S", 2.0)
    look(pictures)
    assert len(again(pictures, read)[1]) == 40
    later = time.time() + 3
    monkeypatch.setattr(time, "time", lambda: later)
    assert len(again(pictures, read)[1]) == 40
    assert again(pictures, read)[1] == []


def test_scan_reads_what_could_not_be_read_again(pictures: Path, read: list[str]) -> None:
    (pictures / "a" / "broken.png").write_bytes(b"no picture")
    look(pictures)
    found, was_read = again(pictures, read)
    assert was_read == ["a/broken.png"]
    assert [picture.path for picture in found.unreadable] == ["a/broken.png"]
    (pictures / "a" / "broken.png").write_bytes(picture_bytes(77))
    assert not again(pictures, read)[0].unreadable


def test_scan_of_another_folder_with_the_same_names_reads_it(tmp_path: Path, pictures: Path, read: list[str]) -> None:
    look(pictures)
    other = put(tmp_path / "other", ["a/0.png", "b/0.png"], start=50)
    assert len(again(other, read)[1]) == 2


@pytest.mark.parametrize("change", ["most pixels", "formats", "version"])
def test_scan_reads_all_again_when_what_can_be_read_may_be_another(
    pictures: Path, read: list[str], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    first = look(pictures)
    if change == "most pixels":
        monkeypatch.setenv("FOLDERTUNE_MAX_MEGAPIXELS", "0.000001")
        with pytest.raises(DataError, match="the limit is 1e-06"):
            look(pictures)
        assert len(read) == 80
        monkeypatch.delenv("FOLDERTUNE_MAX_MEGAPIXELS")
    elif change == "formats":
        monkeypatch.setattr(looks, "accepted_formats", lambda: ("PNG",))
        assert len(again(pictures, read)[1]) == 40
        monkeypatch.setattr(looks, "accepted_formats", accepted_formats)
    else:
        monkeypatch.setattr(looks, "READING", [*looks.READING, "another"])
        assert len(again(pictures, read)[1]) == 40
        return
    assert again(pictures, read)[0] == first


def test_load_pictures_of_other_content_under_the_same_identity_makes_the_next_run_read_it(
    pictures: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, where a copy over a file that keeps its times leaves no trace."""
    monkeypatch.setattr(Looks, "_identity", lambda *_: [1])
    dataset = look(pictures)
    (pictures / "a" / "3.png").write_bytes(picture_bytes(99))
    assert again(pictures, read) == (dataset, [])
    with pytest.raises(DataError, match=r"a/3\.png has changed since .*Put it back, or start a new run"):
        list(load_pictures(pictures, dataset.pictures, lambda picture: picture, at_least_px=0, workers=0))
    found, was_read = again(pictures, read)
    assert len(was_read) == 40
    assert found != dataset
    assert len(list(load_pictures(pictures, found.pictures, lambda picture: picture, at_least_px=0, workers=0))) == 40


def test_looks_tell_the_rate_of_the_last_time_that_many_pictures_were_read(pictures: Path, read: list[str]) -> None:
    first = Looks(pictures)
    finish(scan(pictures, workers=0, looks=first))
    second = Looks(pictures)
    finish(scan(pictures, workers=0, looks=second))
    assert second.decode_per_s == first.decode_per_s > 0


def test_looks_at_few_files_among_many_known_ones_keep_the_rate_of_the_many(pictures: Path, read: list[str]) -> None:
    first = Looks(pictures)
    finish(scan(pictures, workers=0, looks=first))
    put(pictures, [f"a/new-{number}.png" for number in range(3)], start=70)
    second = Looks(pictures)
    finish(scan(pictures, workers=0, looks=second))
    assert second.decode_per_s == first.decode_per_s


def test_looks_at_known_files_alone_without_a_rate_take_a_usual_one(
    pictures: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    look(pictures)
    found = Looks(pictures, workers=1)
    monkeypatch.setattr(looks, "find_note", lambda *_, **__: None)  # the rate was evicted, or is of another machine
    finish(scan(pictures, workers=1, looks=found))
    assert found.decode_per_s == looks._USUAL_PER_S


def test_looks_count_the_time_of_reading_alone(
    pictures: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    found = Looks(pictures)
    finish(scan(pictures, workers=0, looks=found))
    assert found.decode_per_s == 1.0  # the clock is read before and after each picture, and nowhere else
