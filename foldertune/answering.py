"""Answers for pictures, what they are worth, and with which engine they come fastest. `api` shows these verbs to the world."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from foldertune.errors import DataError, SettingsError
from foldertune.records import Evaluation, Prediction, finish, restored
from foldertune.run import AnyPath, RunFolder, read_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from foldertune.evaluation.choice import Choice
    from foldertune.evaluation.predict import Promised
    from foldertune.examination import Journey


@overload
def predict(
    model: AnyPath,
    picture: bytes | NDArray[np.uint8],
    /,
    *,
    top_k: int = ...,
    engine: str = ...,
    precision: str = ...,
    promise: Promised = ...,
) -> Prediction: ...
@overload
def predict(
    model: AnyPath,
    /,
    *paths: AnyPath,
    top_k: int = ...,
    engine: str = ...,
    precision: str = ...,
    promise: Promised = ...,
) -> Iterator[Prediction]: ...
def predict(
    model: AnyPath,
    /,
    *pictures: Any,
    top_k: int = 1,
    engine: str = "auto",
    precision: str = "auto",
    promise: Promised = "auto",
) -> Prediction | Iterator[Prediction]:
    """Answers for pictures: for paths one record each, in order; for one picture in memory its record at once.

    model: a run, or a folder with model.safetensors and config.json.   top_k: how many classes each record names.
    pictures: files and folders, which are walked (a bad file has its reason in `error`); or the content of one picture file as
    bytes, or its pixels, (H, W, 3) uint8 RGB. For pictures in memory the model stays open, for the next one.
    engine: openvino, onnxruntime, torch, compiled, or auto, the fastest here that is good enough.   precision: float32, bf16,
    int8 or auto. The first time that auto is used for many pictures, or for one in memory, engines are tried for a minute or two.
    promise: the share of the given answers that may be wrong, such as 0.05; what is too unsure for it is answered "unknown", and its
    record's `known` is false. auto: 0.05 where the model's validation pictures sufficed for it. None: every picture is answered.
    Raises ImageError for bytes that are no picture, and what opening the model raises.
    """
    if not all(isinstance(each, (str, Path)) for each in pictures):
        from foldertune.evaluation.warm import picture_in_memory, warm_model

        _check_top_k(top_k)
        picture = picture_in_memory(pictures)
        warm = warm_model(Path(model), engine=engine, precision=precision)
        return warm.keeping(promise).answer(picture, top_k=top_k)
    return finish(predicting(model, *pictures, top_k=top_k, engine=engine, precision=precision, promise=promise))


def predicting(
    model: AnyPath,
    *paths: AnyPath,
    top_k: int = 1,
    engine: str = "auto",
    precision: str = "auto",
    promise: Promised = "auto",
) -> Journey[Iterator[Prediction]]:
    """`predict` of files as a generator of what is told until the first answer can come."""
    from foldertune.evaluation.predict import WORTH_MEASURING, opening, picture_files

    _check_top_k(top_k)
    files = picture_files(Path(path) for path in paths)
    first = list(islice(files, WORTH_MEASURING))
    if not first:
        raise DataError(
            f"There is no picture in {', '.join(map(str, paths)) or 'nothing'}. Give picture files, or folders with some."
        )
    predictor = yield from opening(
        Path(model), engine=engine, precision=precision, num_pictures=len(first), promise=promise
    )
    return predictor.predict(chain(first, files), top_k=top_k)


def speed(run: AnyPath, *, every: bool = False) -> Choice:
    """Try the engines of this machine on a run's model, and remember what was found for `predict`.

    every: also those that are not likely to be the fastest.
    """
    return finish(speeding(run, every=every))


def speeding(run: AnyPath, *, every: bool = False) -> Journey[Choice]:
    """`speed` as a generator of its progress."""
    from foldertune.evaluation.choice import trials_of
    from foldertune.evaluation.saved_model import read_saved_model

    place = RunFolder(Path(run))
    if place.run_json.exists():  # else a model that came without its run
        place.refuse_unfinished("and what is less exact than float32 is judged by its answers")
    return trials_of(read_saved_model(place.path), every=every)


def evaluate(run: AnyPath, folder: AnyPath | None = None, *, output: AnyPath | None = None) -> Evaluation:
    """How good a run's model is: on its own test pictures (the stored record), or on the pictures of another folder.

    Pictures of the folder that the model was trained or chosen by are left out.   output: a .csv file for one line per picture.
    """
    return finish(evaluating(run, folder, output=output))


def evaluating(run: AnyPath, folder: AnyPath | None = None, *, output: AnyPath | None = None) -> Journey[Evaluation]:
    """`evaluate` as a generator of its progress."""
    from foldertune.evaluation.answer_table import check_table_path, copy_answer_table, write_answer_table

    place = RunFolder(Path(run))
    place.open()
    table = Path(output) if output is not None else None
    if table is not None:
        check_table_path(table)  # before a long measurement
    if folder is None:
        stored = _stored_evaluation(place)
        if table is not None:
            copy_answer_table(place.predictions_csv, table)
        return stored
    from foldertune.evaluation.folder import evaluate_folder
    from foldertune.evaluation.predict import open_model

    measured = yield from evaluate_folder(open_model(place.path), Path(folder), run=place)
    if table is not None:
        write_answer_table(table, measured.rows)
    return measured.evaluation


def _stored_evaluation(run: RunFolder) -> Evaluation:
    run.refuse_unfinished("so its test pictures were not measured")
    facts = read_json(run.metrics)
    try:
        return restored(Evaluation, facts["evaluations"][facts["kept"]]["test"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{run.metrics} holds no test figures: the run has no test pictures, or is not whole."
        ) from error


def _check_top_k(top_k: int) -> None:
    if top_k < 1:
        raise SettingsError(f"Top k is {top_k}. Accepted: 1 and more.")
