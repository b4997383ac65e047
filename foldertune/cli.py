"""The command line: the verbs of the API with the same names. Results go to stdout, progress and messages to stderr.

Exit codes: 0 done, 1 the work failed, 2 wrong usage or settings, 3 the data is at fault, 4 something is missing,
130 and 143 on interruption with the state saved.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from typing import Any

from cyclopts import (
    App,
    CycloptsError,
    MissingArgumentError,
    Parameter,
    Token,
    UnusedCliTokensError,
    convert,
)

from foldertune import __version__
from foldertune.commands import answering, choosing, mending, stocks, training, trust
from foldertune.errors import FoldertuneError, InterruptedRunError, SettingsError
from foldertune.team import may_speak, num_started

_NUMBERS = {int: "a whole number", float: "a number"}


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

# In the order in which one needs them.
_COMMANDS: tuple[Callable[..., Any], ...] = (
    trust.look,
    training.plan,
    training.train,
    answering.evaluate,
    mending.diagnose,
    choosing.compare,
    answering.predict,
    trust.explain,
    answering.speed,
    stocks.models,
    stocks.cache,
    training.demo,
)
for _place, _command in enumerate(_COMMANDS):
    app.command(_command, sort_key=_place)


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code. Errors become one line on stderr, or a traceback with --debug."""
    words = [word for word in arguments if word != "--debug"]
    debug = len(words) < len(arguments)
    _print_anything()
    try:
        _refuse_company(_verb(words).strip())
        result = app(words or ["--help"], exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()  # a reader who has left is noticed here, not when the interpreter ends
    except CycloptsError as error:
        return _fail(SettingsError(f"{_sentence(error)} See `foldertune {_verb(words)}--help`."), debug=debug)
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


def _verb(words: Sequence[str]) -> str:
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
