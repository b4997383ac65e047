"""The family of errors. A message says what was given, what is accepted and what to do next; the class carries the exit code.

Inner code states the fact; the door (api, cli) adds the context, once. `assert` is for our own mistakes, never for a user's.
"""

from __future__ import annotations


class FoldertuneError(Exception):
    """Anything that Foldertune refuses or cannot do; the command line prints it as one line."""

    exit_code = 1


class WorkFailedError(FoldertuneError):
    """The work itself failed: the loss stopped being finite, a save failed, an engine gave a wrong answer."""

    exit_code = 1


class DivergedError(WorkFailedError):
    """Training met a number that is not finite: a loss, a gradient or a weight."""


class SettingsError(FoldertuneError):
    """Wrong usage or a setting out of range."""

    exit_code = 2


class DataError(FoldertuneError):
    """The folder or a file in it is at fault."""

    exit_code = 3


class ImageError(DataError):
    """One picture cannot be used; the message is the reason, short enough for a table cell."""


class MissingError(FoldertuneError):
    """Something that the work needs is not there: weights, network, device, an optional package."""

    exit_code = 4


class InterruptedRunError(FoldertuneError):
    """Stopped by the user or the system, with the state saved. exit_code is 130 (Ctrl-C) or 143 (SIGTERM)."""

    def __init__(self, message: str, exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code
