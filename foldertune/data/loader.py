"""Where batches come from: three sources of one shape, each a pure function of (places, epoch).

A source gives the input of stage `first_stage` of the network: pictures for stage 0, stored activations above it.
Nothing here depends on what was read before, so a resumed run sees the same batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from foldertune.data.augment import Sampling, Strength, augment, draw, extents, oversampling_of
from foldertune.data.pack import Pack
from foldertune.data.stock import numbers_of
from foldertune.preprocess import Preprocess
from foldertune.records import Picture
from foldertune.team import Team

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Source(Protocol):
    """N pictures, as the network wants them. `places` are positions in [0, N), not row numbers."""

    first_stage: int
    num_pictures: int

    def batch(self, places: NDArray[np.int64], epoch: int) -> Tensor:
        """(B, ...) float32 on the CPU or the training device."""
        ...


class PictureSource:
    """Prepared pictures, unchanged: what validation sees."""

    first_stage = 0

    def __init__(self, pack: Pack, preprocess: Preprocess, *, device: str) -> None:
        self._pack, self._device = pack, device
        self._mean, self._std = _statistics(preprocess, device)
        self.num_pictures = pack.num_records

    def batch(self, places: NDArray[np.int64], epoch: int) -> Tensor:
        pictures = on_device(self._pack.read(places), self._device)
        x = pictures.permute(0, 3, 1, 2).float() / 255
        return ((x - self._mean) / self._std).contiguous(memory_format=torch.channels_last)


class CanvasSource:
    """Whole pictures, augmented anew in every epoch, on the device."""

    first_stage = 0

    def __init__(
        self,
        pack: Pack,
        pictures: Sequence[Picture],
        preprocess: Preprocess,
        *,
        strength: Strength,
        seed: int,
        device: str,
    ) -> None:
        self._pack, self._preprocess, self._device, self._seed = pack, preprocess, device, seed
        self.strength = strength
        self._numbers = np.array(numbers_of(pictures))
        self._windows = extents([(picture.width, picture.height) for picture in pictures], preprocess.fit)
        self._mean, self._std = _statistics(preprocess, device)
        self._fill = torch.tensor(preprocess.fill, device=device) / 255
        side = preprocess.image_size
        self._sampling = Sampling(side, preprocess.interpolation, oversampling_of(min(pack.shape[:2]), side))
        self.num_pictures = pack.num_records

    def batch(self, places: NDArray[np.int64], epoch: int) -> Tensor:
        x = self.pictures(places, epoch)
        return ((x - self._mean) / self._std).contiguous(memory_format=torch.channels_last)

    def pictures(self, places: NDArray[np.int64], epoch: int) -> Tensor:
        """The augmented pictures before normalisation: (B, 3, S, S) in [0, 1]."""
        zoom = self._preprocess.crop_fraction if self._preprocess.fit == "crop" else 1.0
        affine, colour = draw(
            self.strength,
            self._numbers[places].tolist(),
            seed=self._seed,
            epoch=epoch,
            windows=self._windows[places],
            zoom=zoom,
        )
        return augment(
            on_device(self._pack.read(places), self._device),
            on_device(affine, self._device),
            on_device(colour, self._device),
            fill=self._fill,
            sampling=self._sampling,
        )


class ActivationSource:
    """Stored outputs of the stage below `first_stage`: V views of N pictures, the views in turn over the epochs."""

    def __init__(self, pack: Pack, *, num_pictures: int, first_stage: int, device: str) -> None:
        self._pack, self._device = pack, device
        self.num_pictures, self.first_stage = num_pictures, first_stage
        self._num_views = pack.num_records // max(1, num_pictures)

    def batch(self, places: NDArray[np.int64], epoch: int) -> Tensor:
        # Neighbouring pictures take different views, so that one epoch mixes them all.
        views = (places + epoch) % self._num_views
        records = self._pack.read(views * self.num_pictures + places)
        x = on_device(records, self._device).float()
        return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


class SharedSource:
    """This process's part of every batch of another source."""

    def __init__(self, source: Source, team: Team) -> None:
        self.first_stage, self.num_pictures = source.first_stage, source.num_pictures
        self._source, self._team = source, team

    def batch(self, places: NDArray[np.int64], epoch: int) -> Tensor:
        """places: of the whole batch. A part without pictures is (0, ...)."""
        mine = self._team.share(places)
        return self._source.batch(mine, epoch) if len(mine) else self._source.batch(places[:1], epoch)[:0]


def on_device(array: NDArray[Any], device: str) -> Tensor:
    """An array on the device. A GPU fetches it by itself, out of pinned memory, and nobody waits for it."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device == "cuda" else tensor.to(device)


def epoch_order(labels: NDArray[np.int64], *, seed: int, epoch: int, balanced: bool) -> NDArray[np.int64]:
    """The order of an epoch: (N,) places. `balanced` draws with replacement, every class equally often."""
    # As whole numbers of 64 bits: from a plain list numpy would make floats, and all epochs would be one.
    random = np.random.Generator(np.random.Philox(key=np.array([seed, (1 << 63) | epoch], np.uint64)))
    if not balanced:
        return random.permutation(len(labels))
    weights = 1 / np.bincount(labels)[labels]
    return random.choice(len(labels), len(labels), p=weights / weights.sum())


def batches_ahead(
    source: Source, order: NDArray[np.int64], batch_size: int, *, epoch: int, start: int, workers: int
) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """(places, batch) from position `start` of the order on; with workers, made by threads while the last one trains."""
    parts = [order[place : place + batch_size] for place in range(start, len(order), batch_size)]
    if workers == 0:
        for places in parts:
            yield places, source.batch(places, epoch)
        return
    depth, side = min(workers, 4), SideStream() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]  # torch's stubs
    make = source.batch if side is None else partial(side.batch, source)
    with ThreadPoolExecutor(depth) as pool:
        pending = [pool.submit(make, places, epoch) for places in parts[:depth]]
        for number, places in enumerate(parts):
            batch = pending.pop(0).result()
            if number + depth < len(parts):
                pending.append(pool.submit(make, parts[number + depth], epoch))
            yield places, batch if side is None else side.taken(batch)


class SideStream:
    """Batches of a GPU on a stream of their own: copies and augmentation go on while the network learns."""

    def __init__(self) -> None:
        self._device, self._stream = torch.cuda.current_device(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        # What the source keeps on the device may still be on its way there.
        self._stream.wait_stream(torch.cuda.current_stream())
        self._ready: dict[int, torch.cuda.Event] = {}  # by the batch's address in Python

    def batch(self, source: Source, places: NDArray[np.int64], epoch: int) -> Tensor:
        """`source.batch`, called by a thread of its own."""
        torch.cuda.set_device(self._device)  # every thread begins at the first
        with torch.cuda.stream(self._stream):
            batch = source.batch(places, epoch)
            self._ready[id(batch)] = self._stream.record_event()
        return batch

    def taken(self, batch: Tensor) -> Tensor:
        """The batch for the thread that trains: its stream waits for it, and the memory is not used anew before it is done."""
        if batch.is_cuda:
            stream = torch.cuda.current_stream()
            stream.wait_event(self._ready.pop(id(batch)))
            batch.record_stream(stream)
        return batch


def _statistics(preprocess: Preprocess, device: str) -> tuple[Tensor, Tensor]:
    mean, std = torch.tensor(preprocess.mean, device=device), torch.tensor(preprocess.std, device=device)
    return mean.view(1, 3, 1, 1), std.view(1, 3, 1, 1)
