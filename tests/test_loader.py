"""Batches: pure functions of places and epoch, the same with any number of threads, in an order that a seed repeats."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from foldertune.data.augment import STRENGTHS
from foldertune.data.loader import ActivationSource, CanvasSource, PictureSource, batches_ahead, epoch_order
from foldertune.data.pack import Pack, PackWriter
from foldertune.preprocess import Preprocess
from foldertune.records import Picture

SMALL = Preprocess(image_size=16)


def packed(folder: Path, records: NDArray[np.generic], dtype: DTypeLike = np.uint8) -> Pack:
    writer = PackWriter(folder, f"made{records.shape}", records.shape[1:], dtype, len(records))
    if len(records):
        writer.append(records)
    return writer.close()


def noise(num_pictures: int, px: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (num_pictures, px, px, 3), dtype=np.uint8)


def canvases(folder: Path, *, num_pictures: int = 11, first_row: int = 0) -> CanvasSource:
    rows = range(first_row, first_row + num_pictures)
    pictures = [Picture(row, f"{row}.png", "a", "train", width=30, height=20) for row in rows]
    pack = packed(folder, noise(num_pictures, 20))
    return CanvasSource(pack, pictures, SMALL, strength=STRENGTHS["heavy"], seed=3, device="cpu")


class Counted:
    """A source whose batch names its places and its epoch."""

    first_stage, num_pictures = 0, 1000

    def __init__(self, *, fails_at: int = -1) -> None:
        self.threads: set[int] = set()
        self.fails_at = fails_at

    def batch(self, places: NDArray[np.int64], epoch: int) -> Tensor:
        self.threads.add(threading.get_ident())
        if self.fails_at in places:
            raise ValueError(f"place {self.fails_at} is broken")
        return torch.from_numpy(places * 1000 + epoch)


@pytest.mark.parametrize("workers", [0, 1, 2, 4, 9])
@pytest.mark.parametrize("start", [0, 6, 24])
def test_batches_ahead_with_any_number_of_workers_gives_the_same_batches(workers: int, start: int) -> None:
    order, source = epoch_order(np.zeros(25, np.int64), seed=0, epoch=1, balanced=False), Counted()
    batches = list(batches_ahead(source, order, 6, epoch=7, start=start, workers=workers))
    expected = [order[place : place + 6] for place in range(start, 25, 6)]
    assert [places.tolist() for places, _ in batches] == [part.tolist() for part in expected]
    assert [x.tolist() for _, x in batches] == [(part * 1000 + 7).tolist() for part in expected]
    assert (threading.get_ident() in source.threads) == (workers == 0)


@pytest.mark.parametrize("workers", [0, 2, 4])
def test_batches_ahead_of_augmented_pictures_are_the_same_bytes(workers: int, tmp_path: Path) -> None:
    source, order = canvases(tmp_path), np.arange(11)[::-1].copy()
    parts = batches_ahead(source, order, 4, epoch=2, start=0, workers=workers)
    together = torch.cat([x for _, x in parts])
    alone = torch.cat([source.batch(order[[place]], 2) for place in range(11)])
    assert torch.equal(together, alone)


@pytest.mark.parametrize("workers", [0, 3])
def test_batches_ahead_of_nothing_left_is_empty(workers: int) -> None:
    assert list(batches_ahead(Counted(), np.arange(8), 4, epoch=1, start=8, workers=workers)) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_ahead_of_a_broken_source_raises_at_that_batch(workers: int) -> None:
    batches = batches_ahead(Counted(fails_at=9), np.arange(12), 4, epoch=1, start=0, workers=workers)
    assert [next(batches)[0].tolist() for _ in range(2)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(ValueError, match="place 9"):
        next(batches)


def test_batches_ahead_left_early_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    batches = batches_ahead(Counted(), np.arange(100), 4, epoch=1, start=0, workers=4)
    next(batches)
    assert threading.active_count() > before
    batches.close()  # type: ignore[attr-defined]  # a generator
    assert threading.active_count() == before


class InsteadOfStream:
    """Notes what is asked of a stream of a GPU. Its events have its name and a number."""

    def __init__(self, name: str, told: list[tuple[Any, ...]]) -> None:
        self.name, self.told, self.num_events = name, told, 0

    def wait_stream(self, other: InsteadOfStream) -> None:
        self.told.append((self.name, "waits for", other.name))

    def record_event(self) -> str:
        self.num_events += 1
        return f"{self.name} {self.num_events}"

    def wait_event(self, event: str) -> None:
        self.told.append((self.name, "waits for", event))


class InsteadOfBatch:
    is_cuda = True

    def __init__(self, number: int, told: list[tuple[Any, ...]]) -> None:
        self.number, self.told = number, told

    def record_stream(self, stream: InsteadOfStream) -> None:
        self.told.append((f"batch {self.number}", "is used by", stream.name))


def test_batches_ahead_of_a_gpu_are_made_on_a_stream_that_the_training_one_waits_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[tuple[Any, ...]] = []
    side, main = InsteadOfStream("side", told), InsteadOfStream("main", told)
    for name, value in {
        "is_initialized": lambda: True, "current_device": lambda: 1, "Stream": lambda: side, "current_stream": lambda: main,
        "set_device": lambda device: told.append(("thread", "works for", device)), "stream": contextlib.nullcontext,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)

    class OnGpu(Counted):
        def batch(self, places: NDArray[np.int64], epoch: int) -> Tensor:
            made: Any = InsteadOfBatch(int(places[0]), told)
            return made  # type: ignore[no-any-return]

    batches = batches_ahead(OnGpu(), np.arange(3), 1, epoch=1, start=0, workers=1)
    assert [int(places[0]) for places, _ in batches] == [0, 1, 2]
    assert told[0] == ("side", "waits for", "main")
    assert told.count(("thread", "works for", 1)) == 3
    taken = [line for line in told[1:] if line[0] != "thread"]
    assert taken == [
        line
        for number in range(3)
        for line in (("main", "waits for", f"side {number + 1}"), (f"batch {number}", "is used by", "main"))
    ]


@settings(max_examples=40)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(0, 2**32 - 1), st.integers(1, 10_000))
def test_epoch_order_is_a_permutation_that_seed_and_epoch_repeat(labels: list[int], seed: int, epoch: int) -> None:
    values = np.array(labels, np.int64)
    order = epoch_order(values, seed=seed, epoch=epoch, balanced=False)
    assert sorted(order.tolist()) == list(range(len(labels)))
    assert np.array_equal(order, epoch_order(values, seed=seed, epoch=epoch, balanced=False))


@pytest.mark.parametrize("balanced", [False, True])
def test_epoch_order_differs_between_epochs_and_seeds(balanced: bool) -> None:
    labels = np.arange(50) % 2
    orders = [epoch_order(labels, seed=s, epoch=e, balanced=balanced).tolist() for s in (0, 1) for e in (1, 2)]
    assert len({tuple(order) for order in orders}) == 4


def test_epoch_order_balanced_draws_every_class_equally_often() -> None:
    labels = np.repeat([0, 1, 4], [900, 90, 10])  # classes 2 and 3 have no pictures
    order = np.concatenate([epoch_order(labels, seed=0, epoch=e, balanced=True) for e in range(1, 11)])
    counts = np.bincount(labels[order], minlength=5)
    assert counts[[2, 3]].tolist() == [0, 0]
    # Each class is drawn 3,333 times on the average of 10,000, with a standard deviation of 47.
    assert np.abs(counts[[0, 1, 4]] - 10_000 / 3).max() < 5 * 47
    assert len(set(order[labels[order] == 4])) == 10


def test_picture_source_gives_normalised_pictures_whatever_the_epoch(tmp_path: Path) -> None:
    pixels = noise(5, 16)
    source = PictureSource(packed(tmp_path, pixels), SMALL, device="cpu")
    x = source.batch(np.array([3, 0]), 1)
    expected = (pixels[[3, 0]] / 255 - np.array(SMALL.mean)) / np.array(SMALL.std)
    assert np.abs(x.permute(0, 2, 3, 1).numpy() - expected).max() < 1e-5
    assert torch.equal(x, source.batch(np.array([3, 0]), 9))
    assert (source.num_pictures, source.first_stage) == (5, 0)
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_canvas_source_gives_normalised_augmented_pictures_new_in_every_epoch(tmp_path: Path) -> None:
    source, places = canvases(tmp_path), np.array([2, 7])
    pixels, x = source.pictures(places, 1), source.batch(places, 1)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (SMALL.mean, SMALL.std))
    assert tuple(x.shape) == (2, 3, 16, 16)
    assert torch.allclose(x * std + mean, pixels, atol=1e-5)
    assert torch.equal(x, source.batch(places, 1))
    assert not torch.equal(x, source.batch(places, 2))
    assert torch.equal(x[[1]], source.batch(places[[1]], 1))


def test_canvas_source_draws_by_row_number_not_by_place(tmp_path: Path) -> None:
    source, shifted = canvases(tmp_path / "a"), canvases(tmp_path / "b", first_row=4)
    pixels = noise(11, 20)
    same = packed(tmp_path / "c", np.repeat(pixels[:1], 11, axis=0))
    source._pack, shifted._pack = same, same  # one picture everywhere, so that only the draw can differ
    assert torch.equal(source.batch(np.array([6]), 1), shifted.batch(np.array([2]), 1))
    assert not torch.equal(source.batch(np.array([6]), 1), shifted.batch(np.array([6]), 1))


def test_activation_source_shows_every_view_of_every_picture_in_turn(tmp_path: Path) -> None:
    num_views, num_pictures = 3, 4
    numbers = np.arange(num_views * num_pictures, dtype=np.float16)
    pack = packed(tmp_path, np.tile(numbers[:, None, None, None], (1, 2, 5, 5)), np.float16)
    source = ActivationSource(pack, num_pictures=num_pictures, first_stage=4, device="cpu")
    seen: dict[int, list[int]] = {place: [] for place in range(num_pictures)}
    for epoch in (1, 2, 3):
        x = source.batch(np.arange(num_pictures), epoch)
        assert (x.dtype, tuple(x.shape)) == (torch.float32, (4, 2, 5, 5))
        assert x.is_contiguous(memory_format=torch.channels_last)
        records = x[:, 0, 0, 0].int().tolist()
        assert len({record // num_pictures for record in records}) > 1  # one epoch mixes the views
        for place, record in enumerate(records):
            assert record % num_pictures == place
            seen[place].append(record // num_pictures)
    assert all(sorted(views) == [0, 1, 2] for views in seen.values())
    assert torch.equal(source.batch(np.array([2]), 1), source.batch(np.array([2]), 4))


def test_activation_source_of_tokens_keeps_their_shape(tmp_path: Path) -> None:
    pack = packed(tmp_path, np.ones((3, 7, 4), np.float16), np.float16)
    x = ActivationSource(pack, num_pictures=3, first_stage=4, device="cpu").batch(np.array([1, 2]), 1)
    assert tuple(x.shape) == (2, 7, 4)


def test_activation_source_without_pictures_can_be_made(tmp_path: Path) -> None:
    pack = packed(tmp_path, np.empty((0, 2, 3, 3), np.float16), np.float16)
    assert ActivationSource(pack, num_pictures=0, first_stage=4, device="cpu").num_pictures == 0
