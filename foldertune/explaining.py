"""Why a model answers as it does: the verb `explain`. `api` shows it to the world."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from foldertune.errors import DataError, SettingsError
from foldertune.records import Explanation, finish
from foldertune.run import AnyPath, RunFolder

if TYPE_CHECKING:
    from foldertune.examination import Journey

FOLDER = "explanations"  # in the run folder, where no other is named


def explain(
    run: AnyPath,
    /,
    *pictures: AnyPath,
    label: str | None = None,
    nearest: int = 3,
    output: AnyPath | None = None,
) -> tuple[Explanation, ...]:
    """Why pictures are answered as they are: one record each, in order; a bad file has its reason in `error`.

    run: a finished run, or a folder with model.safetensors and config.json.   pictures: files and folders, which are walked.
    label: the class to explain; by default the answered one.   nearest: how many training pictures to name, from 0.
    output: the folder for the drawn maps and explain.html; by default `explanations` in the run. Never one with pictures in it.
    Raises what opening the model raises, DataError for an unfinished run and where there is no picture, SettingsError for a
    class that the model does not know.
    """
    return finish(explaining(run, *pictures, label=label, nearest=nearest, output=output))


def explaining(
    run: AnyPath,
    /,
    *pictures: AnyPath,
    label: str | None = None,
    nearest: int = 3,
    output: AnyPath | None = None,
) -> Journey[tuple[Explanation, ...]]:
    """`explain` as a generator of its progress."""
    from foldertune.evaluation.predict import picture_files

    if nearest < 0:
        raise SettingsError(f"Nearest is {nearest}. Accepted: 0 and more.")
    place, paths = RunFolder(Path(run)), [Path(path) for path in pictures]
    if place.run_json.exists():  # else a model that came without its run
        place.refuse_unfinished("so its model is not the one that will be kept")
    files = list(picture_files(paths))
    if not files:
        raise DataError(
            f"There is no picture in {', '.join(map(str, pictures)) or 'nothing'}. Give picture files, or folders with some."
        )
    from foldertune.explanation.explainer import (
        Wanted,
        explain_files,
        make_output,
        open_explainer,
        refuse_among_pictures,
    )

    wanted = Wanted(Path(output) if output is not None else place.path / FOLDER, label, nearest)
    refuse_among_pictures(wanted.output, paths, files, _trained_on(place))
    explainer = yield from open_explainer(place.path, wanted)
    make_output(wanted.output)
    return (yield from explain_files(explainer, files))


def _trained_on(place: RunFolder) -> Path | None:
    folder = place.open().get("folder") if place.run_json.exists() else None
    return Path(folder) if isinstance(folder, str) else None
