"""The shelf of prepared forms: complete or absent, made again when damaged, and no obstacle where the cache cannot be written."""

from __future__ import annotations

import errno
import gc
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest

from foldertune import cache as cache_module
from foldertune.engines.shelf import Shelf, shelf_key
from foldertune.errors import WorkFailedError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FOLDERTUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def put(content: str, log: list[str] | None = None):  # type: ignore[no-untyped-def]  # a writer of the shelf
    def write(folder: Path) -> None:
        (folder / "graph").write_text(content)
        if log is not None:
            log.append(content)

    return write


def test_add_makes_a_form_once_and_find_gives_it_to_the_next_process() -> None:
    made: list[str] = []
    assert Shelf("k").find("float32") is None
    for _ in range(2):
        folder = Shelf("k").add("float32", put("a", made))
        assert (folder / "graph").read_text() == "a"
    assert made == ["a"]
    assert Shelf("other").find("float32") is None


def test_add_that_fails_leaves_nothing(cache: Path) -> None:
    def broken(folder: Path) -> None:
        (folder / "graph").write_text("half")
        raise ValueError("the pen broke")

    with pytest.raises(ValueError, match="the pen broke"):
        Shelf("k").add("float32", broken)
    assert Shelf("k").find("float32") is None
    assert list((cache / "engines" / "k").iterdir()) == []


def test_add_beside_another_process_keeps_the_first(cache: Path) -> None:
    def slow(folder: Path) -> None:
        (folder / "graph").write_text("mine")
        Shelf("k").add("float32", put("first"))

    assert (Shelf("k").add("float32", slow) / "graph").read_text() == "first"
    assert [path.name for path in (cache / "engines" / "k").iterdir()] == ["float32"]


def test_drop_makes_room_for_a_new_form() -> None:
    shelf = Shelf("k")
    shelf.add("float32", put("a"))
    shelf.drop("float32")
    assert (shelf.add("float32", put("b")) / "graph").read_text() == "b"


def test_add_without_a_cache_that_can_be_written_works_for_this_process_alone(cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    shelf = Shelf("k")
    folder = shelf.add("float32", put("a"))
    assert (folder / "graph").read_text() == "a"
    assert shelf.find("float32") == folder
    shelf.write_trials({"trials": []})
    assert shelf.read_trials() == {}
    del shelf
    gc.collect()
    assert not folder.exists()


def test_add_of_two_forms_without_a_cache_keeps_both_in_one_spare_folder(cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    shelf = Shelf("k")
    first, second = shelf.add("float32", put("a")), shelf.add("int8", put("b"))
    assert first.parent == second.parent
    assert (shelf.find("float32"), shelf.find("int8")) == (first, second)
    spare = first.parent
    del shelf
    gc.collect()
    assert not spare.exists()


@pytest.mark.parametrize("full", ["no folder", "no space"])
def test_add_without_any_place_says_where_and_how_much_and_what_to_do(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    cache.write_text("a file where the folder should be")

    def write(folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if full == "no folder":
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(WorkFailedError) as refused:
        Shelf("k", num_bytes=5 * 2**20).add("float32", write)
    sentence = str(refused.value)
    assert f"neither to {cache / 'engines' / 'k'} nor to" in sentence
    assert ("No such file or directory" if full == "no folder" else "No space left on device") in sentence
    assert sentence.endswith(
        "It takes about 5 MiB. Free space there, or set FOLDERTUNE_CACHE to another folder; --engine torch needs none."
    )


def test_add_where_the_cache_is_anothers_private_folder_takes_the_spare(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests may run as root, whom no mode keeps out: the system's answer is put in."""
    real = os.stat

    def closed(path: Any, *given: Any, **named: Any) -> os.stat_result:
        if str(path).startswith(str(cache / "engines")):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, *given, **named)

    def refused(path: Any, *_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "stat", closed)
    monkeypatch.setattr(cache_module, "make_room", refused)
    shelf = Shelf("k")
    assert shelf.find("float32") is None
    folder = shelf.add("float32", put("a"))
    assert (folder / "graph").read_text() == "a"
    assert shelf.find("float32") == folder


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_add_makes_a_form_that_others_may_read_as_the_users_mask_says() -> None:
    for mask in (0o022, 0o077):
        before = os.umask(mask)
        try:
            folder = Shelf(f"k{mask}").add("float32", put("a"))
        finally:
            os.umask(before)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o777 & ~mask


def test_drop_of_a_form_that_cannot_be_removed_is_not_found_again_and_the_spare_takes_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shelf = Shelf("k")
    stuck = shelf.add("float32", put("damaged"))
    monkeypatch.setattr(Path, "rename", lambda *_: refuse())
    shelf.drop("float32")
    monkeypatch.undo()
    assert shelf.find("float32") is None
    folder = shelf.add("float32", put("good"))
    assert folder != stuck
    assert (shelf.find("float32"), (folder / "graph").read_text()) == (folder, "good")
    assert [path.name for path in stuck.parent.iterdir()] == ["float32"]


def refuse() -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def test_read_trials_of_a_damaged_file_gives_nothing(cache: Path) -> None:
    shelf = Shelf("k")
    shelf.write_trials({"trials": [1]})
    assert shelf.read_trials() == {"trials": [1]}
    for content in ("", "[1]", '{"tri'):
        (cache / "engines" / "k" / "trials.json").write_text(content)
        assert shelf.read_trials() == {}


def test_shelf_key_changes_with_the_file_and_with_what_its_forms_depend_on(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"abcd")
    keys = {shelf_key(path, size=224), shelf_key(path, size=192)}
    before = path.stat()
    path.write_bytes(b"abce")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a careful copy would set them
    keys.add(shelf_key(path, size=224))
    assert len(keys) == 3
    assert shelf_key(path, size=224) == shelf_key(path, size=224)
