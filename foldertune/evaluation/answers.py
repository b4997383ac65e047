"""Pictures of a run that engines are made ready with and judged by.

Training pictures to calibrate on, and validation pictures whose float32 answers the run has stored; read from the folder that the
run was trained on, each with the content that it had then. Some may be gone or changed since.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from foldertune.data.pack import ahead, load_pictures
from foldertune.data.table import read_dataset
from foldertune.errors import DataError, MissingError
from foldertune.evaluation.saved_model import SavedModel
from foldertune.machine import num_cores
from foldertune.preprocess import decode_px, prepare
from foldertune.records import Dataset, Picture
from foldertune.run import RunFolder

if TYPE_CHECKING:
    from numpy.typing import NDArray

NUM_CALIBRATION = 200
_MOST_JUDGED = 1000
# Of the pictures that were chosen: an interval from half of them is 1.4 times as wide, and they still come from everywhere.
LEAST_SHARE = 0.5
_ELSE = "Take --precision float32."


class Answers(NamedTuple):
    """Validation pictures (B, S, S, 3), their class numbers (B,), and the class that float32 answers (B,)."""

    pictures: NDArray[np.uint8]
    labels: NDArray[np.int64]
    float32: NDArray[np.int64]


def validation_answers(saved: SavedModel, size: int) -> Iterator[Answers]:
    """What a less exact engine is judged by, at most 1,000 pictures in batches of `size`; a few are held at a time.

    Raises MissingError where the run has no such pictures, or too few are what they were.
    """
    try:
        answered = _answered(saved)
        while batch := list(islice(answered, size)):
            pictures, labels, float32 = zip(*batch, strict=True)
            yield Answers(np.stack(pictures), np.array(labels), np.array(float32))
    except (DataError, MissingError) as error:
        raise MissingError(
            "What is less exact than float32 is judged by the run's validation pictures, and they cannot be read: "
            f"{error} {_ELSE}"
        ) from error


def _answered(saved: SavedModel) -> Iterator[tuple[NDArray[np.uint8], int, int]]:
    """One picture, class number and answer after the other."""
    dataset, float32 = dataset_of(saved.run), _float32_answers(saved.run)
    chosen = _spread([picture for picture in dataset.of("val") if picture.row in float32], _MOST_JUDGED)
    if not chosen:
        raise DataError(f"{saved.run.path} has no validation pictures with answers.")
    numbers = {name: number for number, name in enumerate(dataset.classes)}
    for picture, pixels in _loaded(saved, dataset, chosen):
        yield pixels, numbers[picture.label], float32[picture.row]


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a run answered: rows of its table of pictures (N,), splits (N,), class numbers (N,), probabilities (N, K)."""

    rows: NDArray[np.int64]
    split: NDArray[np.str_]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]


def read_predictions(run: RunFolder) -> Predictions:
    """Raises DataError where the file is damaged or not there."""
    try:
        with run.predictions.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            return Predictions(*(stored[name] for name in ("rows", "split", "labels", "probabilities")))
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{run.predictions} is damaged or missing ({error}).") from error


def dataset_of(run: RunFolder) -> Dataset:
    """The pictures of a run. Raises DataError for a table that was changed."""
    return read_dataset(run.dataset_csv, run.open().get("dataset", {}))


def _float32_answers(run: RunFolder) -> dict[int, int]:
    """By row, the class number that the run answered."""
    stored = read_predictions(run)
    return {int(row): int(answer) for row, answer in zip(stored.rows, stored.probabilities.argmax(1), strict=True)}


def calibrated_on(saved: SavedModel) -> Callable[[], NDArray[np.uint8]]:
    """`calibration_pictures` for whoever may need them."""
    return lambda: calibration_pictures(saved)


def calibration_pictures(saved: SavedModel) -> NDArray[np.uint8]:
    """(N, S, S, 3): at most 200 of the run's training pictures, spread over all classes. Raises MissingError without them."""
    try:
        dataset = dataset_of(saved.run)
        pictures = [pixels for _, pixels in _loaded(saved, dataset, _spread(dataset.of("train"), NUM_CALIBRATION))]
    except (DataError, MissingError) as error:
        raise MissingError(
            f"int8 is calibrated on the run's training pictures, and they cannot be read: {error} {_ELSE}"
        ) from error
    if not pictures:
        raise MissingError(f"The run {saved.run.path} has no training pictures to calibrate int8 on. {_ELSE}")
    return np.stack(pictures)


def _spread(pictures: Sequence[Picture], most: int) -> list[Picture]:
    """At most so many, evenly from all: rows stand class by class."""
    places = np.linspace(0, len(pictures) - 1, min(most, len(pictures))).round().astype(int)
    return [pictures[place] for place in places]


def _loaded(
    saved: SavedModel, dataset: Dataset, pictures: Sequence[Picture]
) -> Iterator[tuple[Picture, NDArray[np.uint8]]]:
    """Those pictures that are what they were, prepared. Raises DataError, the first one's, when too many are not."""

    def load(picture: Picture) -> tuple[Picture, NDArray[np.uint8] | DataError]:
        try:
            (pixels,) = load_pictures(
                dataset.folder,
                [picture],
                lambda decoded: prepare(decoded, saved.preprocess),
                at_least_px=decode_px(saved.preprocess),
                workers=0,
            )
        except DataError as error:
            return picture, error
        return picture, pixels

    errors: list[DataError] = []
    for picture, found in ahead(load, pictures, workers=num_cores()):
        if not isinstance(found, DataError):
            yield picture, found
            continue
        errors.append(found)
        if len(errors) > (1 - LEAST_SHARE) * len(pictures):
            raise errors[0]
