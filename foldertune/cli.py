"""The command line: the verbs of the API with the same names. Results go to stdout, progress and messages to stderr.

Exit codes: 0 done, 1 the work failed, 2 wrong usage or settings, 3 the data is at fault, 4 something is missing,
130 and 143 on interruption with the state saved.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, Literal, Unpack

from cyclopts import (
    App,
    CycloptsError,
    Group,
    MissingArgumentError,
    Parameter,
    Token,
    UnusedCliTokensError,
    convert,
)

from foldertune import __version__
from foldertune.errors import FoldertuneError, InterruptedRunError, SettingsError
from foldertune.settings import TrainSettings
from foldertune.team import join, may_speak, num_started

_SETTINGS = Group("Settings (what is left out, the plan decides and gives its reason)", sort_key=2)
_NUMBERS = {int: "a whole number", float: "a number"}
EngineOrAuto = Literal["auto", "openvino", "onnxruntime", "torch", "compiled"]
PrecisionOrAuto = Literal["auto", "float32", "bf16", "fp16", "int8"]
Json = Annotated[bool, Parameter(name="--json", negative="", show_default=False)]


def _value(kind: Any, tokens: Sequence[Token]) -> Any:
    """A flag's value. Numbers by Python's own rules: cyclopts would round 1.5 to a whole number."""
    if kind not in _NUMBERS:
        return convert(kind, tokens)
    try:
        return kind(tokens[0].value)
    except ValueError:
        raise ValueError(f"it is {tokens[0].value!r}. Accepted: {_NUMBERS[kind]}.") from None


app = App(
    name="foldertune",
    version=__version__,
    help="A folder of pictures in, a fine-tuned ResNet-50 out that can be trusted, explained, shipped and served.\n\n"
    "Exit codes: 0 done, 1 the work failed, 2 wrong usage or settings, 3 the data is at fault, 4 something is missing. "
    "After an error, --debug shows where it arose.",
    help_format="plaintext",
    version_flags=["--version", "-V"],
    default_parameter=Parameter(converter=_value),
)


@app.command
def plan(
    folder: Path,
    /,
    *,
    settings: Path | None = None,
    json: Json = False,
    **given: Annotated[Unpack[TrainSettings], Parameter(group=_SETTINGS)],  # type: ignore[valid-type]  # where cyclopts reads the group
) -> None:
    """Print every setting with its value and reason, and how long training will take here. Trains nothing.

    Parameters
    ----------
    folder
        Folder with one subfolder of pictures per class.
    settings
        A .json or .toml file of settings, or an earlier plan.json. Flags go before it.
    json
        Print one JSON document.
    """
    from foldertune import api, results, terminal

    found = terminal.show(api.planning(folder, settings=settings, **given))
    results.print_json(results.plan_document(found)) if json else results.print_plan(found)


@app.command
def train(
    folder: Path | None = None,
    /,
    *,
    run: Path | None = None,
    resume: Path | None = None,
    settings: Path | None = None,
    json: Json = False,
    **given: Annotated[Unpack[TrainSettings], Parameter(group=_SETTINGS)],  # type: ignore[valid-type]  # where cyclopts reads the group
) -> None:
    """Train on a folder: look, split, plan, baseline, fine-tune, evaluate, report, in a run folder.

    Parameters
    ----------
    folder
        Folder with one subfolder of pictures per class.
    run
        The run folder to make; by default runs/NAME-TIME.
    resume
        Go on with this interrupted run instead of starting one.
    settings
        A .json or .toml file of settings, or an earlier plan.json. Flags go before it.
    json
        Print one JSON document at the end.
    """
    from foldertune import api, results, terminal
    from foldertune.records import finish
    from foldertune.run import StopRequest

    if (folder is None) == (resume is None):
        raise SettingsError("Give either a folder to train on, or --resume with the run to go on with.")
    if resume is not None and (given or run or settings):
        raise SettingsError(
            "A resumed run keeps its plan: --resume goes without other settings. Start a new run to change them."
        )
    team = join()
    opened = api.load(resume) if resume is not None else api.start(folder or "", run=run, settings=settings, **given)
    with StopRequest().listening() as stop:
        (terminal.show if team.is_first else finish)(api.going(opened, stop))
    if not team.is_first:
        return
    results.print_json(results.run_document(opened)) if json else results.print_run(opened)


@app.command
def evaluate(run: Path, folder: Path | None = None, /, *, json: Json = False) -> None:
    """How good a run's model is, with intervals and per class.

    Parameters
    ----------
    run
        The run folder that train made.
    folder
        Measure on the pictures of this folder (its test split where it has one) instead of the run's own test pictures.
    json
        Print one JSON document.
    """
    from foldertune import api, results, terminal

    opened = api.load(run)
    found = api.evaluate(opened) if folder is None else terminal.show(api.evaluating(opened, folder))
    results.print_json(found) if json else results.print_evaluation(found)


@app.command
def predict(
    model: Path,
    /,
    *paths: Path,
    top_k: int = 1,
    engine: EngineOrAuto = "auto",
    precision: PrecisionOrAuto = "auto",
    output: Path | None = None,
    json: Json = False,
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
    engine
        What computes; auto is the fastest on this machine that is good enough.
    precision
        In which arithmetic; auto leaves it to what was measured (see speed).
    output
        Write the records to this .csv or .jsonl file instead of printing them.
    json
        Print one JSON document with all records; for many pictures take --output FILE.jsonl.
    """
    from foldertune import api, prediction_file, results, terminal

    if not paths:
        raise SettingsError("No picture is named. Give files or folders: `foldertune predict MODEL PATH...`.")
    if output is not None:
        prediction_file.check_path(output)  # before the model is opened, which takes seconds
    answers = terminal.show(api.predicting(model, *paths, top_k=top_k, engine=engine, precision=precision))
    if output is not None:
        num_answered, num_failed = prediction_file.write(output, terminal.counted(answers), top_k=top_k)
    elif json:
        num_answered, num_failed = results.print_predictions_json(answers)
    else:
        num_answered, num_failed = results.print_predictions(answers)
    if num_failed:
        terminal.say(f"{num_failed:,} of {num_answered + num_failed:,} files could not be answered for.")
    return 0 if num_answered else 3


@app.command
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
    from foldertune import api, results, terminal

    found = terminal.show(api.speeding(run, every=every))
    results.print_json(found) if json else results.print_speed(found)


@app.command
def models(name: str | None = None, /, *, json: Json = False) -> None:
    """The networks: what each is, what it costs, its weights, and when to take it.

    Parameters
    ----------
    name
        Tell all about one network.
    json
        Print one JSON document.
    """
    from foldertune import results
    from foldertune.models.catalog import list_models, model_facts

    found: Any = list_models() if name is None else model_facts(name)
    if json:
        results.print_json(found)
    elif name is None:
        results.print_models(found)
    else:
        results.print_model(found)


@app.command
def cache(*, clear: Annotated[bool, Parameter(negative="", show_default=False)] = False, json: Json = False) -> None:
    """What is kept between runs to save time: where it is, how much, and how much it may become.

    Parameters
    ----------
    clear
        Delete all of it but what a process uses now. It is made again when it is needed.
    json
        Print one JSON document.
    """
    from foldertune import results
    from foldertune.cache import clear as clear_cache
    from foldertune.cache import find_contents

    if clear:
        cleared = clear_cache()
        results.print_json(cleared) if json else results.print_clearing(cleared)
        return
    found = find_contents()
    results.print_json(found) if json else results.print_cache(found)


@app.command
def demo(*, run: Path | None = None, json: Json = False) -> None:
    """The main job on real data that comes with a dependency: handwritten digits. No download; about two minutes.

    Parameters
    ----------
    run
        The folder for the pictures and the run; by default foldertune-demo-TIME.
    json
        Print one JSON document at the end.
    """
    from foldertune import api, results, terminal
    from foldertune.run import StopRequest

    with StopRequest().listening() as stop:
        opened = terminal.show(api.demoing(run, stop))
    if json:
        results.print_json(results.run_document(opened))
        return
    results.print_run(opened)
    results.print_next_steps(opened)


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code. Errors become one line on stderr, or a traceback with --debug."""
    words = [word for word in arguments if word != "--debug"]
    debug = len(words) < len(arguments)
    _print_anything()
    try:
        _refuse_company(_command(words).strip())
        result = app(words or ["--help"], exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()  # a reader who has left is noticed here, not when the interpreter ends
    except CycloptsError as error:
        return _fail(SettingsError(f"{_sentence(error)} See `foldertune {_command(words)}--help`."), debug=debug)
    except FoldertuneError as error:
        return _fail(error, debug=debug)
    except KeyboardInterrupt:
        return _fail(InterruptedRunError("Interrupted.", 130), debug=debug)
    except BrokenPipeError:
        _close_stdout()
        return 0
    except Exception as error:  # the last door: whatever it was, the user gets a sentence
        if debug:
            raise
        fault = f"{type(error).__name__}: {error}. This is a fault of Foldertune; --debug shows where."
        return _fail(FoldertuneError(fault), debug=False)
    return result if isinstance(result, int) else 0


def _fail(error: FoldertuneError, *, debug: bool) -> int:
    from foldertune.terminal import say

    if not may_speak():
        pass
    elif debug:
        import traceback

        traceback.print_exception(error)
    else:
        say(f"foldertune: {' '.join(str(error).splitlines())}")
    return error.exit_code


def _refuse_company(verb: str) -> None:
    """Raise SettingsError where several processes would do the same work."""
    if verb not in ("train", "") and num_started() > 1:
        raise SettingsError(
            f"torchrun has started {num_started()} processes, and `foldertune {verb}` is work for one: only train shares its work. "
            "Start it without torchrun."
        )


def _sentence(error: CycloptsError) -> str:
    """What is wrong with the command line; the parser's own words where they are good enough."""
    if isinstance(error, UnusedCliTokensError):
        return f"Nothing more is expected after what was given: {' '.join(error.unused_tokens or ())}."
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        name = error.keyword or error.argument.name
        return f"{name} needs a value." if name.startswith("-") else f"{name} is missing."
    text = " ".join(str(error).split())
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _command(words: Sequence[str]) -> str:
    names = [name for name in app if not name.startswith("-")]
    return next((f"{word} " for word in words if word in names), "")


def _print_anything() -> None:
    """A character that the terminal's encoding lacks becomes an escape, not an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _close_stdout() -> None:
    """Whoever read our output has left; nothing more may be written, also not when the interpreter ends."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
