"""A saved model measured on another folder of labelled pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from foldertune.data.folder import scan
from foldertune.data.pack import in_batches, load_pictures
from foldertune.data.table import read_dataset
from foldertune.errors import DataError
from foldertune.evaluation.answer_table import answer_rows
from foldertune.evaluation.assessment import Answered, assess
from foldertune.evaluation.metrics import softmax
from foldertune.evaluation.predict import BATCH, Predictor
from foldertune.machine import num_cores
from foldertune.preprocess import decode_px, prepare
from foldertune.records import Dataset, Evaluation, Picture, Progress, Work
from foldertune.run import RunFolder, event

_NAMED = 5  # pictures that a sentence names; the record has all


@dataclass(frozen=True, slots=True)
class Measured:
    """rows: one per picture, as answer_table.write_answer_table takes them."""

    evaluation: Evaluation
    rows: list[list[object]]


def evaluate_folder(predictor: Predictor, folder: Path, *, run: RunFolder) -> Work[Measured]:
    """The figures on a folder's pictures: on its test split where it has one, else on all.

    Pictures that the run was trained on, or chosen by, are left out: they are known by their content.
    Raises DataError for a class that the model does not know, and where no picture is left.
    """
    dataset = yield from scan(folder, workers=num_cores(), to_learn=False)
    _refuse_unknown(dataset, predictor.classes)
    split, found = _chosen(dataset)
    pictures, left_out = _unseen(found, run)
    if not pictures:
        raise DataError(
            f"All {len(found):,} pictures of {folder} that could be measured on were used to train the model, so they say "
            "nothing about it. Give a folder with pictures that it has not seen."
        )
    if left_out:
        yield event("warning", text=_told(left_out, run))
    numbers = {name: number for number, name in enumerate(predictor.classes)}
    labels = np.array([numbers[picture.label] for picture in pictures], np.int64)
    probabilities, unlike = [], []
    loaded = load_pictures(
        folder,
        pictures,
        lambda picture: prepare(picture, predictor.preprocess),
        at_least_px=decode_px(predictor.preprocess),
        workers=num_cores(),
    )
    for batch in in_batches(loaded, BATCH):
        logits = predictor.engine.run(batch)
        probabilities.append(softmax(logits))
        unlike.append(predictor.unlike.above(logits))
        yield Progress("evaluate", sum(map(len, probabilities)), len(pictures))
    answered = Answered(np.concatenate(probabilities), labels, pictures, unlike=np.concatenate(unlike))
    evaluation = assess(answered, classes=predictor.classes, split=split, standards=predictor.standards)
    known = (answered.probabilities.max(1) >= predictor.standards.refusal.default_threshold) & ~np.concatenate(unlike)
    rows = answer_rows(pictures, answered.probabilities, classes=predictor.classes, known=known, split=split)
    return Measured(replace(evaluation, left_out=tuple(picture.path for picture in left_out)), rows)


def _unseen(pictures: Sequence[Picture], run: RunFolder) -> tuple[list[Picture], list[Picture]]:
    """Those that the run has not learned from, and those that it has; a model that came without its run is believed."""
    if not run.dataset_csv.exists():
        return list(pictures), []
    dataset = read_dataset(run.dataset_csv, run.open().get("dataset", {}))
    known = {picture.sha256 for picture in (*dataset.of("train"), *dataset.of("val"))}
    return (
        [picture for picture in pictures if picture.sha256 not in known],
        [picture for picture in pictures if picture.sha256 in known],
    )


def _told(left_out: Sequence[Picture], run: RunFolder) -> str:
    named = ", ".join(picture.path for picture in left_out[:_NAMED])
    more = f" and {len(left_out) - _NAMED:,} more" if len(left_out) > _NAMED else ""
    are = "picture is" if len(left_out) == 1 else "pictures are"
    return f"{len(left_out):,} {are} left out, because {run.path} was trained or chosen by the same: {named}{more}."


def _chosen(dataset: Dataset) -> tuple[str, tuple[Picture, ...]]:
    test = dataset.of("test")
    return ("test", test) if test else ("all", dataset.readable)


def _refuse_unknown(dataset: Dataset, classes: tuple[str, ...]) -> None:
    if new := [name for name in dataset.classes if name not in classes]:
        raise DataError(
            f"The model knows {len(classes)} classes, and {dataset.folder} has others ({', '.join(new[:10])}). "
            "Remove or rename those folders, or train a new run with them."
        )
