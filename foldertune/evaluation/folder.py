"""A saved model measured on another folder of labelled pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from foldertune.data.folder import scan
from foldertune.data.pack import in_batches, load_pictures
from foldertune.errors import DataError
from foldertune.evaluation.metrics import evaluate_probabilities
from foldertune.evaluation.predict import BATCH, Predictor
from foldertune.machine import num_cores
from foldertune.preprocess import decode_px, prepare
from foldertune.records import Dataset, Evaluation, Picture, Progress, Work


def evaluate_folder(predictor: Predictor, folder: Path) -> Work[Evaluation]:
    """The figures on a folder's pictures: on its test split where it has one, else on all.

    Raises DataError for a class that the model does not know.
    """
    dataset = yield from scan(folder, workers=num_cores(), to_learn=False)
    _refuse_unknown(dataset, predictor.classes)
    split, pictures = _chosen(dataset)
    numbers = {name: number for number, name in enumerate(predictor.classes)}
    labels = np.array([numbers[picture.label] for picture in pictures], np.int64)
    probabilities = []
    loaded = load_pictures(
        folder,
        pictures,
        lambda picture: prepare(picture, predictor.preprocess),
        at_least_px=decode_px(predictor.preprocess),
        workers=num_cores(),
    )
    for batch in in_batches(loaded, BATCH):
        probabilities.append(predictor.probabilities(batch))
        yield Progress("evaluate", sum(map(len, probabilities)), len(pictures))
    return evaluate_probabilities(np.concatenate(probabilities), labels, classes=predictor.classes, split=split)


def _chosen(dataset: Dataset) -> tuple[str, tuple[Picture, ...]]:
    test = dataset.of("test")
    return ("test", test) if test else ("all", dataset.readable)


def _refuse_unknown(dataset: Dataset, classes: tuple[str, ...]) -> None:
    if new := [name for name in dataset.classes if name not in classes]:
        raise DataError(
            f"The model knows {len(classes)} classes, and {dataset.folder} has others ({', '.join(new[:10])}). "
            "Remove or rename those folders, or train a new run with them."
        )
