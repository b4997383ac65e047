"""What a folder holds and what is wrong with it: look. What speaks for an answer: explain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Unpack

from cyclopts import Parameter

from foldertune.commands.flags import SETTINGS, Json
from foldertune.errors import SettingsError
from foldertune.settings import LookSettings


def look(
    folder: Path,
    /,
    *,
    write_patch: Path | None = None,
    rows: int = 3,
    json: Json = False,
    **given: Annotated[Unpack[LookSettings], Parameter(group=SETTINGS)],  # type: ignore[valid-type]  # where cyclopts reads the group
) -> None:
    """Say what is in a folder and what is wrong with it, with the command that mends each. Nothing in the folder is changed.

    Parameters
    ----------
    folder
        Folder with one subfolder of pictures per class.
    write_patch
        Write what would mend it into this new .csv file; read and edit it, then give it to --patch.
    rows
        How many pictures to show for each finding; --json has them all.
    json
        Print one JSON document.
    """
    from foldertune import api, results, terminal

    found = terminal.show(api.looking(folder, write_patch=write_patch, **given))
    results.print_json(found) if json else results.print_examination(found, num_rows=rows)


def explain(
    run: Path,
    /,
    *images: Path,
    label: str | None = None,
    nearest: int = 3,
    output: Path | None = None,
    json: Json = False,
) -> int:
    """Why pictures are answered as they are: maps of what speaks for the answer, how far to trust them, and the nearest training pictures.

    Parameters
    ----------
    run
        The run folder that train made.
    images
        Picture files and folders of pictures.
    label
        Explain this class instead of the answered one.
    nearest
        How many training pictures to name for each picture; 0 for none.
    output
        The folder for the drawn maps and explain.html; by default explanations in the run folder.
    json
        Print one JSON document.
    """
    from foldertune import results, terminal
    from foldertune.explaining import explaining

    if not images:
        raise SettingsError("No picture is named. Give files or folders: `foldertune explain RUN IMAGE...`.")
    found = terminal.show(explaining(run, *images, label=label, nearest=nearest, output=output))
    if json:
        results.print_json(results.explanations_document(found))
    else:
        results.print_explanations(found)
    num_failed = sum(each.error is not None for each in found)
    if num_failed:
        terminal.say(f"{num_failed:,} of {len(found):,} files could not be explained.")
    return 0 if num_failed < len(found) else 3
