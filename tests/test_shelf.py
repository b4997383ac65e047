"""The shelf of prepared forms: complete or absent, made again when damaged, and no obstacle where the cache cannot be written."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from foldertune.engines.shelf import Shelf, shelf_key


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
