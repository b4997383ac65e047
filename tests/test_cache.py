"""The cache: what is an entry and what is not, who goes first, what stays; and the verb that shows and clears it."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from command import foldertune
from conftest import PROJECT

from foldertune import cache
from foldertune.cache import (
    Clearing,
    Contents,
    Entry,
    Hold,
    bound_bytes,
    cache_folder,
    clear,
    existing_parent,
    find_contents,
    make_room,
    memory_takes,
    open_held,
    room_bytes,
    touch,
)
from foldertune.errors import MissingError, SettingsError

GIB = 2**30
MIB = 2**20


def put(path: Path, num_bytes: int = 100, *, age_s: float = 0) -> Path:
    """A file, last used so long ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(num_bytes))
    os.utime(path, times(age_s))
    return path


def times(age_s: float) -> tuple[float, float]:
    return time.time() - age_s, time.time() - age_s


def name_of(number: int, kind: str = "views", ending: str = "pack") -> str:
    return f"{kind}-{number:032x}.{ending}"


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A disk without end, of which a test may say that it is nearly full; the bound is far away."""
    facts = {"free": 2**50}
    monkeypatch.setattr(cache, "_free_bytes", lambda _: facts["free"])
    monkeypatch.setenv("FOLDERTUNE_CACHE_GIB", "1000")
    return facts


# ----------------------------------------------------------------------------------------------------------------- folder


@pytest.mark.parametrize(
    ("platform", "expected"),
    [("linux", "HOME/.cache/foldertune"), ("darwin", "HOME/Library/Caches/foldertune")],
)
def test_cache_folder_is_the_systems_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str, expected: str
) -> None:
    for name in ("FOLDERTUNE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(sys, "platform", platform)
    assert cache_folder() == Path(expected.replace("HOME", str(tmp_path)))


def test_cache_folder_is_what_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("FOLDERTUNE_CACHE", raising=False)
    assert cache_folder() == tmp_path / "foldertune"
    monkeypatch.setenv("FOLDERTUNE_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"


# ------------------------------------------------------------------------------------------------------------------ bound


def test_existing_parent_on_a_drive_that_is_not_there_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: False)
    with pytest.raises(MissingError, match=r"Neither .*cache nor any folder above it exists.*set by FOLDERTUNE_CACHE"):
        existing_parent(Path("/gone/cache"))


@pytest.mark.parametrize(("disk_gib", "expected_gib"), [(1000, 20), (200, 20), (199, 19.9), (50, 5), (0.01, 0.001)])
def test_bound_bytes_is_20_gib_or_a_tenth_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk_gib: float, expected_gib: float
) -> None:
    class Usage:
        total = int(disk_gib * GIB)

    monkeypatch.delenv("FOLDERTUNE_CACHE_GIB", raising=False)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage)
    assert bound_bytes(tmp_path / "to" / "be" / "made") == pytest.approx(expected_gib * GIB, rel=1e-6)
    monkeypatch.setenv("FOLDERTUNE_CACHE_GIB", "")
    assert bound_bytes(tmp_path) == pytest.approx(expected_gib * GIB, rel=1e-6)


@pytest.mark.parametrize(("given", "expected"), [("0", 0), ("1.5", 1.5 * GIB), ("400", 400 * GIB), (" 2 ", 2 * GIB)])
def test_bound_bytes_is_what_the_environment_says(monkeypatch: pytest.MonkeyPatch, given: str, expected: int) -> None:
    monkeypatch.setenv("FOLDERTUNE_CACHE_GIB", given)
    assert bound_bytes() == expected


@pytest.mark.parametrize("given", ["lots", "-1", "nan", "inf", "1,5", "20GiB"])
def test_bound_bytes_that_makes_no_sense_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("FOLDERTUNE_CACHE_GIB", given)
    with pytest.raises(SettingsError) as caught:
        bound_bytes()
    assert str(caught.value) == (
        f"FOLDERTUNE_CACHE_GIB is {given!r}. Accepted: the largest size of the cache in GiB, a number from 0."
    )
    assert caught.value.exit_code == 2


def test_memory_takes_half_of_what_is_free() -> None:
    assert memory_takes(50, 100)
    assert not memory_takes(51, 100)
    assert memory_takes(0, 0)


# --------------------------------------------------------------------------------------------------------------- contents


def test_find_contents_of_a_folder_that_is_not_there_is_empty(tmp_path: Path) -> None:
    found = find_contents(tmp_path / "no" / "cache")
    assert (found.folder, found.num_bytes, found.entries) == (tmp_path / "no" / "cache", 0, ())
    assert not (tmp_path / "no").exists()


def test_find_contents_lists_packs_parts_and_engines_the_longest_unused_first(tmp_path: Path) -> None:
    put(tmp_path / name_of(1, "pictures"), 10, age_s=30)
    put(tmp_path / name_of(2, "features", "part"), 20, age_s=50)
    put(tmp_path / f"{3:032x}.pack", 40, age_s=70)
    put(tmp_path / "engines" / "resnet50" / "model.bin", 80, age_s=900)
    put(tmp_path / "engines" / "resnet50" / "deep" / "er" / "golden.npz", 160, age_s=60)
    for folder in ("deep/er", "deep", ""):
        os.utime(tmp_path / "engines" / "resnet50" / folder, times(1000))
    found = find_contents(tmp_path)
    assert [(entry.kind, entry.num_bytes) for entry in found.entries] == [
        ("earlier", 40), ("engines", 240), ("unfinished", 20), ("pictures", 10)
    ]  # fmt: skip
    assert found.num_bytes == 310
    assert found.entries[1].path == tmp_path / "engines" / "resnet50"
    assert [round(time.time() - entry.last_used) for entry in found.entries] == pytest.approx([70, 60, 50, 30], abs=5)


NOT_ENTRIES = (
    "weights/resnet50.tv_in1k.safetensors", "weights/sha256.json", "1700aabbccddeeff/venv/bin/python", "notes.pack", "mine.part",
    f"{1:031x}.pack", f"{1:032x}.pack.txt", f"VIEWS-{1:032x}.pack", "engines/choices.json", f"other/{name_of(1)}",
)  # fmt: skip


def test_clear_deletes_entries_and_nothing_else(tmp_path: Path) -> None:
    for number in range(3):
        put(tmp_path / name_of(number), 100)
    put(tmp_path / name_of(9, ending="part"), 50)
    put(tmp_path / "engines" / "a" / "model.xml", 7)
    for name in NOT_ENTRIES:
        put(tmp_path / name)
    cleared = clear(tmp_path)
    assert (cleared.num_deleted, cleared.freed_bytes, cleared.num_kept, cleared.kept_bytes) == (5, 357, 0, 0)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == set(NOT_ENTRIES)
    assert clear(tmp_path).num_deleted == 0


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_clear_neither_follows_links_nor_counts_what_they_lead_to(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "cache"
    mine = put(outside / "model" / "mine.bin", 1000)
    put(folder / "engines" / "a" / "own.bin", 5)
    (folder / "engines" / "a" / "linked").symlink_to(outside / "model")
    (folder / "engines" / "a" / "linked.bin").symlink_to(mine)
    (folder / "engines" / "b").symlink_to(outside / "model")
    (folder / name_of(1)).symlink_to(mine)
    (folder / name_of(2, ending="part")).symlink_to(outside / "none")
    assert [entry.path.name for entry in find_contents(folder).entries] == ["a"]
    assert find_contents(folder).num_bytes < 1000
    assert clear(folder).num_deleted == 1
    assert mine.read_bytes() == bytes(1000)
    assert names_in(folder) == {"engines", name_of(1), name_of(2, ending="part")}
    assert names_in(folder / "engines") == {"b"}
    (folder / "engines" / "b").unlink()
    (folder / "engines").rmdir()
    (folder / "engines").symlink_to(outside)
    assert clear(folder).num_deleted == 0
    assert mine.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_clear_of_a_cache_that_is_itself_a_link_clears_it(tmp_path: Path) -> None:
    """A user's cache may lie on a larger disk."""
    put(tmp_path / "large" / name_of(1))
    (tmp_path / "link").symlink_to(tmp_path / "large")
    assert clear(tmp_path / "link").num_deleted == 1


def test_clear_that_is_cut_short_leaves_no_half_of_an_entry_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    put(tmp_path / "engines" / "a" / "model.bin", 10)
    monkeypatch.setattr(shutil, "rmtree", fail)
    assert clear(tmp_path).num_kept == 1
    (left,) = names_in(tmp_path / "engines")
    assert left.startswith(".gone-")
    monkeypatch.undo()
    assert clear(tmp_path).num_deleted == 1
    assert names_in(tmp_path / "engines") == set()


def test_clear_takes_up_a_deletion_that_was_cut_short(tmp_path: Path) -> None:
    put(tmp_path / "engines" / ".gone-1-2-resnet50" / "model.bin", 10)
    assert clear(tmp_path).freed_bytes == 10
    assert names_in(tmp_path / "engines") == set()


def test_existing_parent_of_a_drive_that_is_not_there_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, where nothing above a path need exist."""
    monkeypatch.setattr(Path, "exists", lambda _: False)
    with pytest.raises(MissingError) as caught:
        existing_parent(Path("X:/cache"))
    assert str(caught.value) == (
        f"Neither {Path('X:/cache')} nor any folder above it exists: its drive is not there. Give a place on one that is; the "
        "cache's is set by FOLDERTUNE_CACHE."
    )


def test_find_contents_of_what_is_no_folder_says_so(tmp_path: Path) -> None:
    path = put(tmp_path / "file")
    with pytest.raises(MissingError) as caught:
        find_contents(path)
    assert str(caught.value) == (
        f"The cache folder {path} cannot be read: {os.strerror(errno.ENOTDIR)}. Mend its permissions, or set FOLDERTUNE_CACHE to another "
        "folder."
    )
    make_room(1, path)  # whoever writes there finds out
    assert room_bytes(path) > 0


# -------------------------------------------------------------------------------------------------------------- make_room


@pytest.fixture
def five(tmp_path: Path) -> Path:
    """Five packs of 100 MiB, number 0 used longest ago. They are holes, so they cost no disk."""
    for number in range(5):
        path = put(tmp_path / name_of(number), 0)
        os.truncate(path, 100 * MIB)
        os.utime(path, times(1000 - number))
    return tmp_path


def left_of(folder: Path) -> list[int]:
    return sorted(int(path.stem.split("-")[1], 16) for path in folder.glob("*.pack"))


@pytest.mark.parametrize(
    ("needed_mib", "bound_mib", "expected"),
    [
        (0, 500, [0, 1, 2, 3, 4]),
        (0, 499, [1, 2, 3, 4]),
        (100, 500, [1, 2, 3, 4]),
        (101, 500, [2, 3, 4]),
        (300, 500, [3, 4]),
        (500, 500, []),
        (9_000, 500, []),
        (0, 0, []),
    ],
)
def test_make_room_keeps_to_the_bound_by_what_was_used_longest_ago(
    five: Path,
    disk: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
    needed_mib: int,
    bound_mib: int,
    expected: list[int],
) -> None:
    monkeypatch.setenv("FOLDERTUNE_CACHE_GIB", str(bound_mib / 1024))
    assert make_room(needed_mib * MIB, five)  # the bound alone refuses nothing
    assert left_of(five) == expected


def test_make_room_keeps_what_was_touched_since(
    five: Path, disk: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(five / name_of(0))
    put(five / "engines" / "old" / "model.bin", 1, age_s=5000)
    put(five / "engines" / "new" / "model.bin", 1, age_s=5000)
    for name in ("old", "new"):
        os.utime(five / "engines" / name, times(5000))
    touch(five / "engines" / "new")
    monkeypatch.setenv("FOLDERTUNE_CACHE_GIB", str(300 / 1024))
    make_room(0, five)
    assert left_of(five) == [0, 4]  # and not three, because there is one engine of a byte
    assert names_in(five / "engines") == {"new"}


def test_make_room_frees_a_disk_until_it_has_a_reserve(
    five: Path, disk: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk of this test gains what is deleted."""
    all_of_it = 2 * GIB + 250 * MIB + 500 * MIB
    monkeypatch.setattr(cache, "_free_bytes", lambda folder: all_of_it - find_contents(folder).num_bytes)
    assert make_room(250 * MIB, five)
    assert left_of(five) == [0, 1, 2, 3, 4]
    assert make_room(251 * MIB, five)
    assert left_of(five) == [1, 2, 3, 4]
    assert make_room(2 * GIB + 750 * MIB, five)
    assert left_of(five) == []


def test_make_room_on_a_disk_too_small_says_no(five: Path, disk: dict[str, int]) -> None:
    disk["free"] = 99
    assert not make_room(100, five)
    assert left_of(five) == []
    assert make_room(99, five)


def test_room_bytes_is_the_free_disk_and_what_could_go(five: Path, disk: dict[str, int]) -> None:
    disk["free"] = 7
    assert room_bytes(five) == 7 + 500 * MIB
    assert room_bytes(five / "none") == 7


def test_make_room_passes_over_what_is_held(five: Path, disk: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDERTUNE_CACHE_GIB", "0")
    held = Hold(five / name_of(1))
    make_room(0, five)
    assert left_of(five) == [1]
    held.close()
    make_room(0, five)
    assert left_of(five) == []


# ------------------------------------------------------------------------------------------------------------------- hold


HOLDING = """
import pathlib, sys
from foldertune.cache import Hold
held = Hold(pathlib.Path(sys.argv[1]))
print("holding", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the entry `engines/a`, until it ends."""
    put(tmp_path / "engines" / "a" / "model.bin")
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(tmp_path / "engines" / "a")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "holding\n"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="a folder is held there by its open files")
def test_hold_of_another_process_keeps_a_folder_until_that_process_is_killed(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    cleared = clear(tmp_path)
    assert (cleared.num_deleted, cleared.num_kept, cleared.kept_bytes) == (0, 1, 100)
    assert names_in(tmp_path / "engines") == {"a"}
    holder.kill()
    holder.wait()
    assert clear(tmp_path).num_deleted == 1
    assert names_in(tmp_path / "engines") == set()


@pytest.mark.skipif(sys.platform == "win32", reason="an open file is held there without a lock")
def test_hold_ends_when_it_is_forgotten_and_may_be_shared(tmp_path: Path) -> None:
    put(tmp_path / name_of(1))
    holds = [Hold(tmp_path / name_of(1)) for _ in range(2)]
    assert clear(tmp_path).num_kept == 1
    holds.pop()
    assert clear(tmp_path).num_kept == 1
    holds.pop()
    assert clear(tmp_path).num_kept == 0


def test_hold_of_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Hold(tmp_path / name_of(1))


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks there")
def test_open_held_of_a_file_that_is_deleted_meanwhile_opens_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    path, lock = put(tmp_path / name_of(1), 1), fcntl.flock

    def deleted_first(descriptor: int, how: int) -> None:
        monkeypatch.setattr("fcntl.flock", lock)
        path.unlink()
        lock(descriptor, how)

    monkeypatch.setattr("fcntl.flock", deleted_first)
    descriptor = open_held(path, os.O_RDWR | os.O_CREAT)
    try:
        assert os.path.samestat(os.fstat(descriptor), path.stat())
        assert path.stat().st_size == 0
    finally:
        os.close(descriptor)
    monkeypatch.setattr("fcntl.flock", deleted_first)
    with pytest.raises(FileNotFoundError):
        open_held(path, os.O_RDONLY)


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks there")
def test_open_held_and_clear_on_a_file_system_without_locks_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_here(*_: int) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    path = put(tmp_path / name_of(1), 3)
    monkeypatch.setattr("fcntl.flock", none_here)
    hold = Hold(path)
    assert clear(tmp_path).num_deleted == 1
    assert os.read(hold.descriptor, 9) == bytes(3)  # what is open can be read to its end


def test_touch_of_what_is_not_there_is_nothing(tmp_path: Path) -> None:
    touch(tmp_path / "none")
    assert not (tmp_path / "none").exists()


# --------------------------------------------------------------------------------------------------------------- the verb


def test_verb_cache_shows_folder_bound_and_kinds(tmp_path: Path) -> None:
    for number in range(2):
        put(tmp_path / name_of(number), 3 * MIB, age_s=100 * number)
    put(tmp_path / "engines" / "a" / "model.bin", MIB // 2)
    said = foldertune("cache", FOLDERTUNE_CACHE=str(tmp_path), FOLDERTUNE_CACHE_GIB="2", TZ="UTC")
    assert (said.code, said.err) == (0, "")
    used = time.strftime("%Y-%m-%d %H:%M", time.gmtime((tmp_path / name_of(0)).stat().st_mtime))
    lines = said.out.splitlines()
    assert lines[:2] == [
        f"Folder  {tmp_path}", "Size    6.5 MiB of 2.0 GiB at most (FOLDERTUNE_CACHE_GIB changes it)"
    ]  # fmt: skip
    assert lines[3] == "kind          entries         size  last used"
    assert lines[4].split()[:4] == ["engines", "1", "0.5", "MiB"]
    assert lines[5] == f"views               2      6.0 MiB  {used}"
    assert lines[-1] == "Delete it: foldertune cache --clear"


def test_verb_cache_of_an_empty_cache_shows_where_it_will_be(tmp_path: Path) -> None:
    said = foldertune("cache", FOLDERTUNE_CACHE=str(tmp_path / "none"), FOLDERTUNE_CACHE_GIB="2")
    assert said.out == (
        f"Folder  {tmp_path / 'none'}\nSize    0.0 MiB of 2.0 GiB at most (FOLDERTUNE_CACHE_GIB changes it)\n"
    )


def test_verb_cache_json_has_every_entry(tmp_path: Path) -> None:
    path = put(tmp_path / name_of(1), 10)
    document = foldertune("cache", "--json", FOLDERTUNE_CACHE=str(tmp_path), FOLDERTUNE_CACHE_GIB="0.5").document
    entry = {"path": str(path), "kind": "views", "num_bytes": 10, "last_used": path.stat().st_mtime}
    assert document == {"folder": str(tmp_path), "bound_bytes": GIB // 2, "num_bytes": 10, "entries": [entry]}


@pytest.mark.skipif(sys.platform == "win32", reason="a folder is held there by its open files")
def test_verb_cache_clear_says_how_much_went_and_what_stays(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    put(tmp_path / name_of(1), 5 * MIB)
    put(tmp_path / "weights" / "mine.safetensors")
    said = foldertune("cache", "--clear", FOLDERTUNE_CACHE=str(tmp_path))
    assert said.code == 0
    assert said.out == (
        f"Deleted 1 entry, 5.0 MiB, from {tmp_path}\nKept 1 entry, 0.0 MiB: in use, or cannot be deleted\n"
    )
    document = foldertune("cache", "--clear", "--json", FOLDERTUNE_CACHE=str(tmp_path)).document
    assert document == {
        "folder": str(tmp_path), "num_deleted": 0, "freed_bytes": 0, "num_kept": 1, "kept_bytes": 100
    }  # fmt: skip
    assert names_in(tmp_path) == {"engines", "weights"}


def test_page_has_every_kind_of_entry_and_every_key_of_the_documents() -> None:
    text = (PROJECT / "docs" / "cache.md").read_text("utf-8")
    kinds = set(
        re.findall(r"^\| `(.+?)` \|", text.split("What is trusted")[0].split("What goes when")[1], re.MULTILINE)
    )
    sources = [path.read_text("utf-8") for path in (PROJECT / "foldertune").rglob("*.py")]
    packed = {kind for source in sources for kind in re.findall(r'(?:Ware|_ware|_prepared)\(\s*"(.*?)"', source)}
    packed |= {kind for source in sources for kind in re.findall(r'key\(\s*pictures, kind="(.*?)"', source)}
    kept = {kind for source in sources for kind in re.findall(r'(?:keep_note|noted)\(\s*"(.*?)"', source)}
    assert (len(packed - kept), len(kept)) == (8, 10)
    made = packed | kept
    assert {kind for listed in kinds for kind in listed.split("`, `")} == made | {"engines", "unfinished", "earlier"}
    for record in (Entry, Contents, Clearing):
        assert all(f"`{field.name}`" in text for field in fields(record))
    assert "`FOLDERTUNE_CACHE_GIB`" in text


def test_verb_cache_with_a_bound_that_makes_no_sense_exits_2(tmp_path: Path) -> None:
    said = foldertune("cache", FOLDERTUNE_CACHE=str(tmp_path), FOLDERTUNE_CACHE_GIB="all")
    assert said.refused(2).startswith("FOLDERTUNE_CACHE_GIB is 'all'. Accepted: ")
