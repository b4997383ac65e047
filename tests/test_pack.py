"""Packs: resumed at any byte, the same whatever the threads, never trusted where they do not fit, in memory where no disk takes them."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import look, picture_bytes, put_classes
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from foldertune.data import frames
from foldertune.data import pack as pack_module
from foldertune.data.pack import (
    MemoryPack,
    Pack,
    Packing,
    PackWriter,
    ahead,
    find_pack,
    in_batches,
    load_pictures,
    pack_key,
)
from foldertune.data.pictures import canvas_size, pack_canvases, pack_pictures
from foldertune.errors import DataError, WorkFailedError
from foldertune.images import decode
from foldertune.preprocess import Preprocess, prepare
from foldertune.records import Event, Picture, Progress, finish

SMALL = Preprocess(image_size=16)
RECORDS = np.arange(7 * 6, dtype=np.float32).reshape(7, 2, 3)  # seven records of 24 bytes


HEADER = b'{"foldertune pack": 1, "shape": [2, 3], "dtype": "<f4", "records": 7}\n'
FRAME = 24 + 4


def content(num_records: int = 7) -> bytes:
    """What the file of a pack, or of a part with so many records, must be, to the byte."""
    frames = [
        record.tobytes() + zlib.crc32(record.tobytes(), zlib.crc32(b"key") ^ place).to_bytes(4, "little")
        for place, record in enumerate(RECORDS[:num_records])
    ]
    return HEADER + b"".join(frames)


def write(folder: Path, records: NDArray[Any] = RECORDS, *, stop_after: int | None = None) -> Pack | None:
    """Write what is missing, two records at a time."""
    writer = PackWriter(folder, "key", records.shape[1:], records.dtype, len(records))
    while writer.num_done < len(records):
        if stop_after is not None and writer.num_done >= stop_after:
            return None
        writer.append(records[writer.num_done : writer.num_done + 2])
    return writer.close()


# --------------------------------------------------------------------------------------------------------------- writing


def test_pack_writer_whole_pack_reads_back(tmp_path: Path) -> None:
    pack = write(tmp_path / "new" / "cache")
    assert pack is not None
    assert np.array_equal(pack.read_all(), RECORDS)
    assert np.array_equal(pack.read([5, 0, 5]), RECORDS[[5, 0, 5]])
    assert pack.read([]).shape == (0, 2, 3)
    assert [path.name for path in pack.path.parent.iterdir()] == ["key.pack"]
    assert pack.path.read_bytes() == content()


@pytest.mark.parametrize("num_bytes", range(len(content()) + 1))
def test_pack_writer_resumes_a_part_cut_at_any_byte(tmp_path: Path, num_bytes: int) -> None:
    (tmp_path / "key.part").write_bytes(content()[:num_bytes])
    assert PackWriter(tmp_path, "key", (2, 3), np.float32, 7).num_done == max(0, num_bytes - len(HEADER)) // FRAME
    pack = write(tmp_path)
    assert pack is not None
    assert pack.path.read_bytes() == content()


def test_pack_writer_part_longer_than_the_pack_is_cut(tmp_path: Path) -> None:
    (tmp_path / "key.part").write_bytes(content() + b"more")
    pack = write(tmp_path)
    assert pack is not None
    assert pack.path.read_bytes() == content()


@pytest.mark.parametrize("damaged", range(6))
def test_pack_writer_part_with_zeros_in_it_goes_on_before_them(tmp_path: Path, damaged: int) -> None:
    """What a machine that lost its power may leave of records that were never on the disk."""
    left = bytearray(content(6))
    start = len(HEADER) + damaged * FRAME
    left[start : start + FRAME] = bytes(FRAME)
    (tmp_path / "key.part").write_bytes(left)
    assert PackWriter(tmp_path, "key", (2, 3), np.float32, 7).num_done == damaged
    pack = write(tmp_path)
    assert pack is not None
    assert pack.path.read_bytes() == content()


@pytest.mark.parametrize(
    "left",
    [
        bytes(len(content(5))),
        content(5).replace(b'pack": 1', b'pack": 2'),
        content(5).replace(b'"records": 7', b'"records": 8'),
        RECORDS[:5].tobytes(),  # as an earlier version wrote it
    ],
    ids=["zeros", "another version", "another number", "no beginning"],
)
def test_pack_writer_part_that_begins_otherwise_begins_anew(tmp_path: Path, left: bytes) -> None:
    (tmp_path / "key.part").write_bytes(left)
    assert PackWriter(tmp_path, "key", (2, 3), np.float32, 7).num_done == 0
    pack = write(tmp_path)
    assert pack is not None
    assert pack.path.read_bytes() == content()


@given(st.lists(st.booleans(), min_size=8, max_size=20))
def test_pack_writer_two_at_once_make_the_same_pack(
    tmp_path_factory: pytest.TempPathFactory, turns: list[bool]
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    writers = [PackWriter(folder, "key", (2, 3), np.float32, 7) for _ in range(2)]
    for turn in turns:
        if (writer := writers[turn]).num_done < 7:
            writer.append(RECORDS[writer.num_done : writer.num_done + 1])
    for writer in writers:
        if writer.num_done < 7:
            writer.append(RECORDS[writer.num_done :])
        assert writer.close().path.read_bytes() == content()


def test_pack_writer_casts_to_its_type(tmp_path: Path) -> None:
    writer = PackWriter(tmp_path, "key", (2,), np.float16, 2)
    writer.append(np.array([[1, 2], [3, 4]], np.float64))
    assert writer.close().read_all().tolist() == [[1, 2], [3, 4]]


def test_pack_writer_closed_too_early_is_refused(tmp_path: Path) -> None:
    writer = PackWriter(tmp_path, "key", (2, 3), np.float32, 7)
    writer.append(RECORDS[:3])
    with pytest.raises(WorkFailedError, match=r"key\.pack has 3 of 7 records\."):
        writer.close()


SENTENCE = (
    "could not be written: {}. Free space there or mend its permissions, or set FOLDERTUNE_CACHE to another folder."
)


class Full:
    """A stream on a disk with room for so many more bytes."""

    def __init__(self, stream: Any, room: int) -> None:
        self._stream, self._room = stream, room

    def write(self, view: memoryview) -> int:
        if not self._room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = int(self._stream.write(view[: self._room]))
        self._room -= written
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def test_pack_writer_full_disk_gives_the_sentence_and_keeps_what_is_whole(tmp_path: Path) -> None:
    writer = PackWriter(tmp_path, "key", (2, 3), np.float32, 7)
    writer._stream = Full(writer._stream, 50)  # type: ignore[assignment]
    with pytest.raises(WorkFailedError) as caught:
        writer.append(RECORDS)
    assert str(caught.value) == f"The cache file {tmp_path / 'key.part'} " + SENTENCE.format(os.strerror(errno.ENOSPC))
    del writer
    assert PackWriter(tmp_path, "key", (2, 3), np.float32, 7).num_done == 1
    pack = write(tmp_path)
    assert pack is not None
    assert pack.path.read_bytes() == content()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_pack_writer_full_device_gives_the_sentence(tmp_path: Path) -> None:
    writer = PackWriter(tmp_path, "key", (2, 3), np.float32, 7)
    with Path("/dev/full").open("r+b", buffering=0) as full:
        os.dup2(full.fileno(), writer._stream.fileno())
    with pytest.raises(WorkFailedError, match="No space left on device"):
        writer.append(RECORDS)


def test_pack_writer_cache_that_is_a_file_gives_the_sentence(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(WorkFailedError, match=r"could not be written: .*FOLDERTUNE_CACHE"):
        PackWriter(tmp_path / "cache", "key", (2,), np.float32, 1)


# --------------------------------------------------------------------------------------------------------------- finding


def test_find_pack_of_the_right_size_is_taken(tmp_path: Path) -> None:
    assert find_pack(tmp_path, "key", (2, 3), np.float32, 7) is None
    write(tmp_path)
    found = find_pack(tmp_path, "key", (2, 3), np.float32, 7)
    assert found is not None
    assert np.array_equal(found.read_all(), RECORDS)


@pytest.mark.parametrize("change", [-1, 1, -FRAME, -len(content()), FRAME])
def test_find_pack_of_another_size_is_not_trusted_and_made_again(tmp_path: Path, change: int) -> None:
    write(tmp_path)
    with (tmp_path / "key.pack").open("r+b") as stream:
        stream.truncate(len(content()) + change)
    assert find_pack(tmp_path, "key", (2, 3), np.float32, 7) is None
    pack = write(tmp_path)
    assert pack is not None
    assert np.array_equal(pack.read_all(), RECORDS)


def test_find_pack_unfinished_is_not_taken(tmp_path: Path) -> None:
    write(tmp_path, stop_after=4)
    assert find_pack(tmp_path, "key", (2, 3), np.float32, 7) is None


def test_read_of_a_pack_that_was_cut_is_refused(tmp_path: Path) -> None:
    pack = write(tmp_path)
    assert pack is not None
    os.truncate(pack.path, 100)
    with pytest.raises(WorkFailedError) as caught:
        pack.read_all()
    assert str(caught.value) == (
        f"The cache file {pack.path} is shorter than it was. It was deleted: start again or go on with --resume, and it is "
        "made anew."
    )
    assert not pack.path.exists()


def test_read_of_damage_that_cannot_be_deleted_says_to_delete_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "unlink", refuse)
    pack = write(tmp_path)
    assert pack is not None
    os.truncate(pack.path, 100)
    with pytest.raises(WorkFailedError) as caught:
        pack.read([6])
    assert str(caught.value) == (
        f"The cache file {pack.path} is shorter than it was. Delete it, then start again or go on with --resume: it is made "
        "anew."
    )


def test_find_pack_with_any_byte_flipped_is_not_taken(tmp_path: Path) -> None:
    write(tmp_path)
    for place in range(len(content())):
        flip(tmp_path / "key.pack", place)
        assert find_pack(tmp_path, "key", (2, 3), np.float32, 7) is None, place
        flip(tmp_path / "key.pack", place)
    assert find_pack(tmp_path, "key", (2, 3), np.float32, 7) is not None


def flip(path: Path, place: int) -> None:
    """Change one bit of a file, and not its times."""
    before = path.stat()
    with path.open("r+b") as stream:
        stream.seek(place)
        byte = stream.read(1)[0]
        stream.seek(place)
        stream.write(bytes([byte ^ 16]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("stretch", [(0, 270), (100, 101), (150, 200), (len(content()) - 60, len(content()))])
def test_find_pack_with_zeros_in_it_is_made_again(tmp_path: Path, stretch: tuple[int, int]) -> None:
    write(tmp_path)
    zeroed = bytearray(content())
    zeroed[slice(*stretch)] = bytes(len(zeroed[slice(*stretch)]))
    assert zeroed != content()
    (tmp_path / "key.pack").write_bytes(zeroed)
    assert find_pack(tmp_path, "key", (2, 3), np.float32, 7) is None


def test_find_pack_of_another_version_shape_type_or_name_is_not_taken(tmp_path: Path) -> None:
    write(tmp_path)
    assert find_pack(tmp_path, "key", (3, 2), np.float32, 7) is None
    assert find_pack(tmp_path, "key", (2, 3), np.int32, 7) is None
    (tmp_path / "other.pack").write_bytes(content())
    assert find_pack(tmp_path, "other", (2, 3), np.float32, 7) is None
    (tmp_path / "key.pack").write_bytes(content().replace(b'pack": 1', b'pack": 2'))
    assert find_pack(tmp_path, "key", (2, 3), np.float32, 7) is None
    (tmp_path / "key.pack").write_bytes(content())
    assert find_pack(tmp_path, "key", (2, 3), np.float32, 7) is not None


def test_find_pack_in_a_folder_that_can_only_be_read_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    write(tmp_path)
    monkeypatch.setattr(os, "utime", refuse)
    assert find_pack(tmp_path, "key", (2, 3), np.float32, 7) is not None


def test_find_pack_notes_that_it_is_used(tmp_path: Path) -> None:
    write(tmp_path)
    os.utime(tmp_path / "key.pack", (1, 1))
    find_pack(tmp_path, "key", (2, 3), np.float32, 7)
    assert (tmp_path / "key.pack").stat().st_mtime > 1


# What is found is looked at in 5 of 101 records: 0, 25, 50, 75 and 100.


@pytest.fixture
def sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pack:
    monkeypatch.setattr(frames, "_LOOKED_AT_BYTES", 5 * 8)
    monkeypatch.setattr(frames, "_LOOKED_AT_LEAST", 1)
    writer = PackWriter(tmp_path, "many", (8,), np.uint8, 101)
    writer.append(np.arange(8 * 101, dtype=np.uint8).reshape(101, 8))
    return writer.close()


def found_again(pack: Pack) -> Pack | None:
    return find_pack(pack.path.parent, "many", (8,), np.uint8, 101)


@pytest.mark.parametrize("record", [0, 25, 50, 75, 100])
def test_find_pack_with_damage_where_it_looks_is_not_taken(sampled: Pack, record: int) -> None:
    flip(sampled.path, sampled.frames.offset(record) + 3)
    assert found_again(sampled) is None


@pytest.mark.parametrize("first", range(0, 76, 5))
def test_find_pack_with_a_hole_of_a_fourth_is_not_taken(sampled: Pack, first: int) -> None:
    begin, end = sampled.frames.offset(first), sampled.frames.offset(first + 26)
    with sampled.path.open("r+b") as stream:
        stream.seek(begin)
        stream.write(bytes(end - begin))
    assert found_again(sampled) is None


@pytest.mark.parametrize("record", [1, 24, 99])
def test_read_of_damage_where_find_pack_did_not_look_is_refused_and_the_pack_made_again(
    sampled: Pack, record: int
) -> None:
    flip(sampled.path, sampled.frames.offset(record))
    pack = found_again(sampled)
    assert pack is not None
    assert pack.read([0, record + 1]).shape == (2, 8)
    with pytest.raises(WorkFailedError) as caught:
        pack.read([0, record])
    assert str(caught.value) == (
        f"The cache file {pack.path} is not what was written. It was deleted: start again or go on with --resume, and it is "
        "made anew."
    )
    assert found_again(sampled) is None


# ------------------------------------------------------------------------------------------- where the cache has no room


def pack_in(folder: Path, *, room: int | None = None) -> tuple[Pack, list[Any]]:
    """A pack made of RECORDS two at a time, where the disk has room for so many bytes, and what was told meanwhile."""
    packing = Packing(folder, "key", (2, 3), np.float32, 7)
    if room is not None:
        packing._writer._stream = Full(packing._writer._stream, room)  # type: ignore[union-attr]
    told: list[Any] = []
    while packing.num_done < 7:
        packing.append(RECORDS[packing.num_done : packing.num_done + 2])
        told += packing.told("decode")
    return packing.close(), told


def note_of(folder: Path, reason: str) -> str:
    return (
        f"The cache folder {folder} takes nothing more ({reason}): memory takes its place in this run, and the next one makes "
        "everything again. Free space there or mend its permissions, or set FOLDERTUNE_CACHE to another folder."
    )


def test_packing_with_room_is_a_pack_of_the_cache_and_tells_its_progress(tmp_path: Path) -> None:
    made, told = pack_in(tmp_path)
    assert made.path.read_bytes() == content()
    assert told == [Progress("decode", done, 7) for done in (2, 4, 6, 7)]
    assert find_pack(tmp_path, "key", (2, 3), np.float32, 7) == made


@pytest.mark.parametrize("room", [0, 1, 50, 100, 195])
def test_packing_disk_full_on_the_way_goes_on_in_memory_and_says_so_once(tmp_path: Path, room: int) -> None:
    made, told = pack_in(tmp_path, room=room)
    assert isinstance(made, MemoryPack)
    assert np.array_equal(made.read_all(), RECORDS)
    assert np.array_equal(made.read([6, 0, 6]), RECORDS[[6, 0, 6]])
    assert made.read([]).shape == (0, 2, 3)
    notes = [one for one in told if isinstance(one, Event)]
    assert [one.facts["text"] for one in notes] == [note_of(tmp_path, os.strerror(errno.ENOSPC))]
    assert list(tmp_path.iterdir()) == []  # the full disk gets back what was written


def test_packing_without_any_room_begins_in_memory_and_keeps_what_an_earlier_try_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, stop_after=4)
    monkeypatch.setattr(pack_module, "make_room", lambda *_: False)
    made, told = pack_in(tmp_path)
    assert isinstance(made, MemoryPack)
    assert np.array_equal(made.read_all(), RECORDS)
    assert told[0].facts["text"] == note_of(tmp_path, os.strerror(errno.ENOSPC))
    monkeypatch.undo()
    assert PackWriter(tmp_path, "key", (2, 3), np.float32, 7).num_done == 4


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_packing_in_a_folder_that_cannot_be_written_is_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(pack_module, "open_held", refuse)
    made, told = pack_in(tmp_path)
    assert isinstance(made, MemoryPack)
    assert told[0].facts["text"] == note_of(tmp_path, os.strerror(number))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="nothing is forbidden here")
def test_packing_in_a_folder_without_permission_is_in_memory(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        assert isinstance(pack_in(tmp_path)[0], MemoryPack)
    finally:
        tmp_path.chmod(0o700)


def test_packing_in_a_cache_that_is_a_file_is_in_memory(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    assert isinstance(pack_in(tmp_path / "cache")[0], MemoryPack)
    assert (tmp_path / "cache").read_text() == "in the way"


def test_packing_that_cannot_be_made_durable_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems find out when they are told to write, not when they are given the bytes."""

    def refuse(_: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "fsync", refuse)
    made, _ = pack_in(tmp_path)
    assert isinstance(made, MemoryPack)
    assert np.array_equal(made.read_all(), RECORDS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("begun", [True, False], ids=["on the way", "from the start"])
def test_packing_that_neither_cache_nor_memory_can_take_names_place_need_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    monkeypatch.setattr(pack_module, "memory_mib", lambda: (1000.0, 0.0005))  # 524 bytes, of which half may be taken
    if not begun:
        monkeypatch.setattr(pack_module, "make_room", lambda *_: False)
    with pytest.raises(WorkFailedError) as caught:
        pack_in(tmp_path, room=100 if begun else None)
    assert str(caught.value) == (
        f"The cache file {tmp_path / 'key.part'} {SENTENCE.format(os.strerror(errno.ENOSPC))} 1 MiB are needed, and memory has "
        "no room for them."
    )
    if begun:
        assert PackWriter(tmp_path, "key", (2, 3), np.float32, 7).num_done == 3  # kept for the next try


def test_packing_closed_too_early_is_refused(tmp_path: Path) -> None:
    packing = Packing(tmp_path, "key", (2, 3), np.float32, 7)
    packing.append(RECORDS[:3])
    with pytest.raises(WorkFailedError, match=r"key\.pack has 3 of 7 records\."):
        packing.close()


# -------------------------------------------------------------------------------------------------- two processes at once


def in_another_process(program: str, *words: str | Path) -> str:
    """What a program prints that runs while this process goes on holding what it holds."""
    command = [sys.executable, "-c", program, *map(str, words)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


CLEAR = "import sys, pathlib; from foldertune.cache import clear; c = clear(pathlib.Path(sys.argv[1])); print(c.num_deleted, c.num_kept)"
KEY = "views-" + 32 * "a"


def made_under_a_name_of_the_cache(folder: Path) -> Pack:
    writer = PackWriter(folder, KEY, (2, 3), np.float32, 7)
    writer.append(RECORDS)
    return writer.close()


def test_pack_in_use_is_not_deleted_by_another_process(tmp_path: Path) -> None:
    pack: Pack | None = made_under_a_name_of_the_cache(tmp_path)
    assert pack is not None
    assert in_another_process(CLEAR, tmp_path) == "0 1\n"
    assert np.array_equal(pack.read_all(), RECORDS)
    pack = find_pack(tmp_path, KEY, (2, 3), np.float32, 7)
    assert in_another_process(CLEAR, tmp_path) == "0 1\n"
    pack = None
    assert in_another_process(CLEAR, tmp_path) == "1 0\n"
    assert pack is find_pack(tmp_path, KEY, (2, 3), np.float32, 7)


def test_part_in_work_is_not_deleted_by_another_process(tmp_path: Path) -> None:
    writer = PackWriter(tmp_path, KEY, (2, 3), np.float32, 7)
    writer.append(RECORDS[:3])
    assert in_another_process(CLEAR, tmp_path) == "0 1\n"
    writer.append(RECORDS[3:])
    assert np.array_equal(writer.close().read_all(), RECORDS)


@pytest.mark.skipif(os.name == "nt", reason="what is open cannot be deleted there")
def test_pack_deleted_all_the_same_while_it_is_read_goes_on_giving_what_was_written(tmp_path: Path) -> None:
    pack = made_under_a_name_of_the_cache(tmp_path)
    pack.path.unlink()
    assert np.array_equal(pack.read([3, 1]), RECORDS[[3, 1]])


def test_pack_deleted_before_it_was_opened_is_refused_with_what_to_do(tmp_path: Path) -> None:
    gone = Pack(tmp_path / "gone.pack", (2, 3), np.dtype(np.float32), 7)
    with pytest.raises(WorkFailedError) as caught:
        gone.read([0])
    assert str(caught.value) == (
        f"The cache file {gone.path} cannot be read: {os.strerror(errno.ENOENT)}. Delete it where it is still there, then start "
        "again or go on with --resume: it is made anew."
    )


EVICT_WITHOUT_END = """
import pathlib, sys
from foldertune import cache
print("ready", flush=True)
while True:
    cache.clear(pathlib.Path(sys.argv[1]))
"""


def test_pack_made_and_read_while_another_process_deletes_without_end_is_right_each_time(tmp_path: Path) -> None:
    """What is found is what was written; what is not found is made again."""
    evictor = subprocess.Popen(
        [sys.executable, "-c", EVICT_WITHOUT_END, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert evictor.stdout is not None
    num_made, deadline = 0, time.monotonic() + 60
    try:
        assert evictor.stdout.readline() == "ready\n"
        while num_made < 20 and time.monotonic() < deadline:
            pack = find_pack(tmp_path, KEY, (2, 3), np.float32, 7)
            if pack is None:
                pack, num_made = made_under_a_name_of_the_cache(tmp_path), num_made + 1
            assert np.array_equal(pack.read_all(), RECORDS)
            del pack
    finally:
        evictor.kill()
        evictor.communicate()
    assert num_made == 20


def test_pack_key_depends_on_content_order_and_everything_named() -> None:
    names = [f"{row:064x}" for row in range(3)]
    keys = [
        pack_key(names, kind="pictures", size=1),
        pack_key(names[::-1], kind="pictures", size=1),
        pack_key(names[:2], kind="pictures", size=1),
        pack_key(names, kind="pictures", size=2),
        pack_key(names, kind="views", size=1),
    ]
    assert len(set(keys)) == 5
    assert pack_key(names, size=1, kind="pictures") == keys[0]


# -------------------------------------------------------------------------------------------------------------- pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return put_classes(tmp_path / "photos", {"a": 40, "b": 40})


def test_pack_pictures_records_are_the_prepared_pictures(folder: Path, tmp_path: Path) -> None:
    pictures = look(folder).pictures[3:9]
    pack = finish(pack_pictures(folder, pictures, SMALL, cache=tmp_path / "cache", workers=0))
    expected = [prepare(decode((folder / picture.path).read_bytes()), SMALL) for picture in pictures]
    assert np.array_equal(pack.read_all(), np.stack(expected))


def test_pack_pictures_threads_give_the_same_bytes_as_none(folder: Path, tmp_path: Path) -> None:
    pictures = look(folder).pictures
    packs = [
        finish(pack_pictures(folder, pictures, SMALL, cache=tmp_path / f"{workers}", workers=workers))
        for workers in (0, 1, 3)
    ]
    assert len({pack.path.read_bytes() for pack in packs}) == 1
    assert len({pack.path.name for pack in packs}) == 1


def test_pack_pictures_interrupted_and_resumed_gives_the_same(folder: Path, tmp_path: Path) -> None:
    pictures = look(folder).pictures
    whole = finish(pack_pictures(folder, pictures, SMALL, cache=tmp_path / "whole", workers=0)).path.read_bytes()
    work = pack_pictures(folder, pictures, SMALL, cache=tmp_path / "cut", workers=2)
    assert next(work) == Progress("decode", 32, 80)
    work.close()
    again = list(iterate(pack_pictures(folder, pictures, SMALL, cache=tmp_path / "cut", workers=2)))
    assert again[0] == Progress("decode", 64, 80)
    assert next((tmp_path / "cut").glob("*.pack")).read_bytes() == whole


def iterate(work: Any) -> Iterator[Any]:
    yield from work


def test_pack_pictures_second_time_opens_no_picture(folder: Path, tmp_path: Path) -> None:
    pictures = look(folder).pictures
    first = finish(pack_pictures(folder, pictures, SMALL, cache=tmp_path, workers=0))
    for picture in pictures:
        (folder / picture.path).unlink()
    assert finish(pack_pictures(folder, pictures, SMALL, cache=tmp_path, workers=0)) == first


def test_pack_canvases_are_whole_pictures_of_one_size(folder: Path, tmp_path: Path) -> None:
    pictures = look(folder).pictures
    pack = finish(pack_canvases(folder, pictures, SMALL, cache=tmp_path, workers=2))
    assert canvas_size(pictures, SMALL) == (8, 6)  # as they are
    assert pack.read_all().shape == (80, 6, 8, 3)
    assert np.array_equal(pack.read_all()[5], decode((folder / pictures[5].path).read_bytes()))


@pytest.mark.parametrize(
    ("sizes", "expected"), [([(100, 100)], (28, 28)), ([(10, 1000)], (10, 20)), ([(1000, 10)] * 3 + [(1, 1)], (20, 10))]
)
def test_canvas_size_is_bounded(sizes: list[tuple[int, int]], expected: tuple[int, int]) -> None:
    pictures = [Picture(row, "", "", width=width, height=height) for row, (width, height) in enumerate(sizes)]
    assert canvas_size(pictures, SMALL) == expected


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(500, 375)] * 4 + [(375, 500)], (500, 375)),  # most are of one size
        ([(400 + place, 300 + 2 * place) for place in range(40)], (457, 384)),  # 2 ** (2 / 8), and the next 32 px
        ([(300 + place, 150) for place in range(60)], (300, 150)),  # of one side, not of one ratio
        ([(place + 20, 2 * place + 40) for place in range(60)], (96, 192)),  # of one ratio, not of one side
    ],
)
def test_canvas_size_is_what_most_share_or_comes_in_coarse_steps(
    sizes: list[tuple[int, int]], expected: tuple[int, int]
) -> None:
    pictures = [Picture(row, "", "", width=width, height=height) for row, (width, height) in enumerate(sizes)]
    large = SMALL.with_changes(image_size=512)
    assert canvas_size(pictures, large) == expected


def test_canvas_size_of_a_mixed_set_hardly_ever_changes_with_one_picture_more() -> None:
    random = np.random.default_rng(1)
    sizes = [(int(width), int(height)) for width, height in random.integers(200, 900, (400, 2))]
    pictures = [Picture(row, "", "", width=width, height=height) for row, (width, height) in enumerate(sizes)]
    found = [canvas_size(pictures[:count], Preprocess()) for count in range(200, 401)]
    assert sum(one != other for one, other in itertools.pairwise(found)) <= 2


def load(folder: Path, pictures: Any, workers: int = 0) -> list[NDArray[np.uint8]]:
    return list(load_pictures(folder, pictures, lambda pixels: pixels, at_least_px=0, workers=workers))


@pytest.mark.parametrize("workers", [0, 2])
def test_load_pictures_of_a_changed_file_is_refused(folder: Path, workers: int) -> None:
    pictures = look(folder).pictures
    (folder / "b/3.png").write_bytes(picture_bytes(999))
    with pytest.raises(DataError) as caught:
        load(folder, pictures, workers)
    assert str(caught.value) == (
        f"b/3.png has changed since {folder} was looked at: other content. Put it back, or start a new run."
    )
    assert caught.value.exit_code == 3
    (folder / "b/3.png").unlink()
    with pytest.raises(DataError, match=r"^b/3\.png has changed since .*: the file is not there\. Put it back"):
        load(folder, pictures, workers)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_load_pictures_of_a_file_swapped_for_a_link_is_refused(folder: Path, tmp_path: Path) -> None:
    pictures = look(folder).pictures
    (folder / "a/0.png").rename(tmp_path / "same.png")
    (folder / "a/0.png").symlink_to(tmp_path / "same.png")
    with pytest.raises(DataError, match="link that leads outside"):
        load(folder, pictures)


def test_load_pictures_without_a_hash_takes_what_is_there(folder: Path) -> None:
    assert load(folder, [Picture(0, "a/0.png", "a")])[0].shape == (6, 8, 3)


# ---------------------------------------------------------------------------------------------------------------- ahead


@given(st.lists(st.integers()), st.integers(0, 3))
def test_ahead_is_map_in_order(items: list[int], workers: int) -> None:
    assert list(ahead(lambda item: item * 2, items, workers=workers)) == [item * 2 for item in items]


def test_ahead_holds_no_more_than_a_few_results() -> None:
    started: list[int] = []
    results = ahead(started.append, range(1000), workers=2)
    next(results)
    assert len(started) <= 8 * 2 + 1
    results.close()  # type: ignore[attr-defined]
    assert len(started) <= 8 * 2 + 1


@pytest.mark.parametrize("workers", [0, 2])
def test_ahead_error_comes_at_its_place(workers: int) -> None:
    results = ahead(lambda item: 10 // item, [5, 2, 0, 1], workers=workers)
    assert [next(results), next(results)] == [2, 5]
    with pytest.raises(ZeroDivisionError):
        next(results)


@given(st.integers(0, 20), st.integers(1, 7))
def test_in_batches_keeps_every_record_in_order(num_items: int, size: int) -> None:
    batches = list(in_batches((np.full(2, number) for number in range(num_items)), size))
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    assert [int(row[0]) for batch in batches for row in batch] == list(range(num_items))
