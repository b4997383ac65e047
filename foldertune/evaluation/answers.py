"""Pictures of a run that engines are made ready with and judged by.

Training pictures to calibrate on, and validation pictures whose float32 answers the run has stored; read from the folder that the
run was trained on, each with the content that it had then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from foldertune.data.pack import in_batches, load_pictures
from foldertune.data.table import read_dataset
from foldertune.errors import DataError, FoldertuneError, MissingError
from foldertune.evaluation.saved_model import SavedModel
from foldertune.machine import num_cores
from foldertune.preprocess import decode_px, prepare
from foldertune.records import Dataset, Picture

if TYPE_CHECKING:
    from numpy.typing import NDArray

NUM_CALIBRATION = 200
_MOST_JUDGED = 1000


@dataclass(frozen=True, slots=True)
class Answers:
    """Validation pictures (N, S, S, 3), their class numbers (N,), and the class that float32 answers (N,)."""

    pictures: NDArray[np.uint8]
    labels: NDArray[np.int64]
    float32: NDArray[np.int64]

    def batches(self, size: int) -> Iterator[NDArray[np.uint8]]:
        return (self.pictures[start : start + size] for start in range(0, len(self.labels), size))


def validation_answers(saved: SavedModel) -> Answers | None:
    """What a less exact engine is judged by, or None where the run has no such pictures, or they are not here any more."""
    try:
        dataset = _dataset(saved)
        with np.load(saved.run.predictions, allow_pickle=False) as stored:
            rows, probabilities = stored["rows"], stored["probabilities"]
        places = {int(row): place for place, row in enumerate(rows)}
        chosen = _spread([picture for picture in dataset.of("val") if picture.row in places], _MOST_JUDGED)
        if not chosen:
            return None
        answered = np.array([probabilities[places[picture.row]].argmax() for picture in chosen])
        labels = np.array([dataset.classes.index(picture.label) for picture in chosen])
        return Answers(_load(saved, dataset, chosen), labels, answered)
    except (FoldertuneError, OSError, ValueError, KeyError):
        return None


def calibrated_on(saved: SavedModel) -> Callable[[], NDArray[np.uint8]]:
    """`calibration_pictures` for whoever may need them."""
    return lambda: calibration_pictures(saved)


def calibration_pictures(saved: SavedModel) -> NDArray[np.uint8]:
    """(N, S, S, 3): at most 200 of the run's training pictures, spread over all classes. Raises MissingError without them."""
    try:
        dataset = _dataset(saved)
        pictures = _load(saved, dataset, _spread(dataset.of("train"), NUM_CALIBRATION))
    except DataError as error:
        raise MissingError(
            f"int8 is calibrated on the run's training pictures, and they cannot be read: {error} Take --precision float32."
        ) from error
    if not len(pictures):
        raise MissingError(
            f"The run {saved.run.path} has no training pictures to calibrate int8 on. Take --precision float32."
        )
    return pictures


def _dataset(saved: SavedModel) -> Dataset:
    return read_dataset(saved.run.dataset_csv, saved.run.open()["dataset"])


def _spread(pictures: Sequence[Picture], most: int) -> list[Picture]:
    """At most so many, evenly from all: rows stand class by class."""
    places = np.linspace(0, len(pictures) - 1, min(most, len(pictures))).round().astype(int)
    return [pictures[place] for place in places]


def _load(saved: SavedModel, dataset: Dataset, pictures: Sequence[Picture]) -> NDArray[np.uint8]:
    side = saved.preprocess.image_size
    loaded = load_pictures(
        dataset.folder,
        pictures,
        lambda picture: prepare(picture, saved.preprocess),
        at_least_px=decode_px(saved.preprocess),
        workers=num_cores(),
    )
    return np.concatenate([np.zeros((0, side, side, 3), np.uint8), *in_batches(loaded, 32)])
