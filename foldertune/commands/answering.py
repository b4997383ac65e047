"""What a model answers, and what that is worth: evaluate, predict, speed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Unpack

from cyclopts import Parameter

from foldertune.commands.flags import EngineFlags, Json
from foldertune.errors import SettingsError

if TYPE_CHECKING:
    from foldertune.evaluation.predict import Promised


def evaluate(run: Path, folder: Path | None = None, /, *, output: Path | None = None, json: Json = False) -> None:
    """How good a run's model is, with intervals and per class.

    Parameters
    ----------
    run
        The run folder that train made.
    folder
        Measure on the pictures of this folder (its test split where it has one) instead of the run's own test pictures.
    output
        Write one line per picture to this .csv file as well.
    json
        Print one JSON document.
    """
    from foldertune import results, terminal
    from foldertune.answering import evaluating

    found = terminal.show(evaluating(run, folder, output=output))
    results.print_json(found) if json else results.print_evaluation(found)


def predict(
    model: Path,
    /,
    *paths: Path,
    top_k: int = 1,
    promise: str = "auto",
    output: Path | None = None,
    json: Json = False,
    **computing: Unpack[EngineFlags],
) -> int:
    """Answer for pictures: files and folders, one or a hundred thousand.

    Parameters
    ----------
    model
        A run folder, or a folder with model.safetensors and config.json.
    paths
        Picture files and folders of pictures.
    top_k
        How many classes to name for each picture.
    promise
        Share of the given answers that may be wrong, such as 0.05; what is less sure is answered "unknown". none answers always;
        auto is 0.05 where the model can promise it.
    output
        Write the records to this .csv or .jsonl file instead of printing them.
    json
        Print one JSON document with all records; for many pictures take --output FILE.jsonl.
    """
    from foldertune import prediction_file, results, terminal
    from foldertune.answering import predicting

    if not paths:
        raise SettingsError("No picture is named. Give files or folders: `foldertune predict MODEL PATH...`.")
    if output is not None:
        prediction_file.check_path(output)  # before the model is opened, which takes seconds
    kept = promised(promise)
    answers = terminal.show(predicting(model, *paths, top_k=top_k, promise=kept, **computing))
    if output is not None:
        num_answered, num_failed = prediction_file.write(output, terminal.counted(answers), top_k=top_k)
        terminal.say(
            f"Written: {output}, {num_answered + num_failed:,} files, each with its answer or the reason why there is none"
        )
    elif json:
        num_answered, num_failed = results.print_predictions_json(answers)
    else:
        num_answered, num_failed = results.print_predictions(answers)
    if num_failed:
        terminal.say(f"{num_failed:,} of {num_answered + num_failed:,} files could not be answered for.")
    return 0 if num_answered else 3


def promised(text: str) -> Promised:
    """What --promise says. Raises SettingsError for anything but a share, none and auto."""
    if text in ("none", "auto"):
        return None if text == "none" else "auto"
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise SettingsError(
            f"The promise is {text!r}. Accepted: none, auto, or the share of wrong answers, such as 0.05."
        )
    return share


def speed(
    run: Path, /, *, every: Annotated[bool, Parameter(name="--all", negative="")] = False, json: Json = False
) -> None:
    """Try the engines of this machine on a run's model, and remember the fastest good one for predict.

    What is less exact than float32 is judged on the run's validation pictures. int8 is prepared with its training pictures.

    Parameters
    ----------
    run
        A run folder.
    every
        Try also what is not likely to be the fastest: ONNX Runtime, PyTorch, PyTorch compiled.
    json
        Print one JSON document.
    """
    from foldertune import results, terminal
    from foldertune.answering import speeding

    found = terminal.show(speeding(run, every=every))
    results.print_json(found) if json else results.print_speed(found)
