"""From a folder to a model: plan, train, demo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Unpack

from cyclopts import Parameter

from foldertune.commands.flags import SETTINGS, Json
from foldertune.errors import SettingsError
from foldertune.settings import TrainSettings
from foldertune.team import join


def plan(
    folder: Path,
    /,
    *,
    settings: Path | None = None,
    json: Json = False,
    **given: Annotated[Unpack[TrainSettings], Parameter(group=SETTINGS)],  # type: ignore[valid-type]  # where cyclopts reads the group
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


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Mending:
    """Which earlier run is trained anew, and which of its findings is mended."""

    from_run: Annotated[Path | None, Parameter(name="--from")] = None
    """Train anew as this run was, with the settings changed as --apply says."""
    apply: Annotated[str | None, Parameter(name="--apply")] = None
    """A kind of that run's findings (see diagnose): what mends it is changed."""


def train(
    folder: Path | None = None,
    /,
    *,
    run: Path | None = None,
    resume: Path | None = None,
    mending: Mending | None = None,
    settings: Path | None = None,
    json: Json = False,
    **given: Annotated[Unpack[TrainSettings], Parameter(group=SETTINGS)],  # type: ignore[valid-type]  # where cyclopts reads the group
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
    mending
        An earlier run that is trained anew, and which of its findings is mended.
    settings
        A .json or .toml file of settings, or an earlier plan.json. Flags go before it.
    json
        Print one JSON document at the end.
    """
    from foldertune import api, results, terminal
    from foldertune.records import finish
    from foldertune.stopping import StopRequest

    earlier = mending.from_run if mending else None
    finding = mending.apply if mending else None
    if (folder, resume, earlier).count(None) != 2:
        raise SettingsError(
            "Give either a folder to train on, or --resume with the run to go on with, or --from with the run to mend."
        )
    if resume is not None and (given or run or settings):
        raise SettingsError(
            "A resumed run keeps its plan: --resume goes without other settings. Start a new run to change them."
        )
    if (earlier is None) != (finding is None) or (earlier is not None and (given or settings)):
        raise SettingsError(
            "--from RUN and --apply FINDING go together, and without other settings: those are the earlier run's, changed."
        )
    team = join()
    if earlier is not None and finding is not None:
        opened = api.start_mended(earlier, finding, run=run)
    elif resume is not None:
        opened = api.load(resume)
    else:
        opened = api.start(folder or "", run=run, settings=settings, **given)
    with StopRequest().listening() as stop:
        (terminal.show if team.is_first else finish)(api.going(opened, stop))
    if not team.is_first:
        return
    results.print_json(results.run_document(opened)) if json else results.print_run(opened)


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
    from foldertune.stopping import StopRequest

    with StopRequest().listening() as stop:
        opened = terminal.show(api.demoing(run, stop))
    if json:
        results.print_json(results.run_document(opened))
        return
    results.print_run(opened)
    results.print_next_steps(opened)
