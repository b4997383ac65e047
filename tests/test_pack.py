"""Packs: resumed at any byte, the same whatever the threads, and never trusted where they do not fit."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import look, picture_bytes, put_classes
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from foldertune.data.pack import (
    Pack,
    PackWriter,
    ahead,
    canvas_size,
    find_pack,
    in_batches,
    load_pictures,
    pack_canvases,
    pack_key,
    pack_pictures,
)
from foldertune.errors import DataError, WorkFailedError
from foldertune.images import decode
from foldertune.preprocess import Preprocess, prepare
from foldertune.records import Picture, Progress, finish

SMALL = Preprocess(image_size=16)
RECORDS = np.arange(7 * 6, dtype=np.float32).reshape(7, 2, 3)  # seven records of 24 bytes


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
    assert pack.path.read_bytes() == RECORDS.tobytes()


@pytest.mark.parametrize("num_bytes", range(RECORDS.nbytes + 1))
def test_pack_writer_resumes_a_part_cut_at_any_byte(tmp_path: Path, num_bytes: int) -> None:
    (tmp_path / "key.part").write_bytes(RECORDS.tobytes()[:num_bytes])
    assert PackWriter(tmp_path, "key", (2, 3), np.float32, 7).num_done == num_bytes // 24
    pack = write(tmp_path)
    assert pack is not None
    assert pack.path.read_bytes() == RECORDS.tobytes()


def test_pack_writer_part_longer_than_the_pack_is_cut(tmp_path: Path) -> None:
    (tmp_path / "key.part").write_bytes(RECORDS.tobytes() + b"more")
    pack = write(tmp_path)
    assert pack is not None
    assert pack.path.read_bytes() == RECORDS.tobytes()


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
        assert writer.close().path.read_bytes() == RECORDS.tobytes()


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


def test_pack_writer_full_disk_gives_the_sentence_and_keeps_what_is_whole(tmp_path: Path) -> None:
    class Full:
        """A disk with room for 50 more bytes."""

        def __init__(self, stream: Any) -> None:
            self._stream, self._room = stream, 50

        def write(self, view: memoryview) -> int:
            if not self._room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written = int(self._stream.write(view[: self._room]))
            self._room -= written
            return written

        def close(self) -> None:
            self._stream.close()

    writer = PackWriter(tmp_path, "key", (2, 3), np.float32, 7)
    writer._stream = Full(writer._stream)  # type: ignore[assignment]
    with pytest.raises(WorkFailedError) as caught:
        writer.append(RECORDS)
    assert str(caught.value) == f"The cache file {tmp_path / 'key.part'} " + SENTENCE.format(os.strerror(errno.ENOSPC))
    del writer
    pack = write(tmp_path)
    assert pack is not None
    assert pack.path.read_bytes() == RECORDS.tobytes()


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


@pytest.mark.parametrize("change", [-1, 1, -24])
def test_find_pack_of_another_size_is_not_trusted_and_made_again(tmp_path: Path, change: int) -> None:
    write(tmp_path)
    with (tmp_path / "key.pack").open("r+b") as stream:
        stream.truncate(RECORDS.nbytes + change)
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
    with pytest.raises(WorkFailedError, match=r"is shorter than it was\. Delete it and start again"):
        pack.read_all()


def test_pack_key_depends_on_content_order_and_everything_named() -> None:
    pictures = [Picture(row, f"{row}.png", "a", sha256=f"{row:064x}") for row in range(3)]
    keys = [
        pack_key(pictures, kind="pictures", size=1),
        pack_key(pictures[::-1], kind="pictures", size=1),
        pack_key(pictures[:2], kind="pictures", size=1),
        pack_key(pictures, kind="pictures", size=2),
        pack_key(pictures, kind="views", size=1),
    ]
    assert len(set(keys)) == 5
    assert pack_key(pictures, size=1, kind="pictures") == keys[0]


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
