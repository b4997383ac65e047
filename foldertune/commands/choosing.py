"""Which network to take: compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Unpack

from cyclopts import Parameter

from foldertune.commands.flags import SETTINGS, Json
from foldertune.errors import SettingsError
from foldertune.settings import CompareSettings


def compare(
    folder: Path,
    /,
    *,
    models: str = "resnet18,resnet50",
    weights: Annotated[list[str] | None, Parameter(negative="")] = None,
    repeats: int = 1,
    run: Path | None = None,
    json: Json = False,
    **given: Annotated[Unpack[CompareSettings], Parameter(group=SETTINGS)],  # type: ignore[valid-type]  # where cyclopts reads the group
) -> None:
    """Train several networks on one split with one budget, and say which to take, or that no difference is shown.

    Parameters
    ----------
    folder
        Folder with one subfolder of pictures per class.
    models
        Networks of the catalogue (see models), with commas between them.
    weights
        Where one of them begins, as NAME=WEIGHTS, such as resnet50=my.safetensors; may be given several times. Without a
        name: for all of them. What is not named begins from imagenet.
    repeats
        Trainings of each, with other seeds on the same split, so that the chance of training is measured too.
    run
        The folder of the comparison, new or one to go on with; by default comparisons/NAME-TIME.
    json
        Print one JSON document at the end.
    """
    from foldertune import results, terminal
    from foldertune.comparing import comparing
    from foldertune.stopping import StopRequest

    names = [name.strip() for name in models.split(",") if name.strip()]
    with StopRequest().listening() as stop:
        work = comparing(
            folder, models=names, weights=_weights(weights or []), repeats=repeats, run=run, stop=stop, **given
        )
        found = terminal.show(work)
    results.print_json(found) if json else results.print_comparison(found)


def _weights(words: list[str]) -> str | dict[str, str]:
    """NAME=WEIGHTS by name, or one for all."""
    from foldertune.models.architecture import SHAPES
    from foldertune.planning import DEFAULT_WEIGHTS

    named: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if name in named:
            raise SettingsError(f"There are two --weights for {name}: {named[name]} and {value}. Give one.")
        if name in SHAPES and equals:
            named[name] = value
        elif len(words) == 1:
            return word
        else:
            raise SettingsError(
                f"--weights is {word!r}. Accepted: NAME=WEIGHTS with the name of a network, such as resnet50=my.safetensors, "
                "or one for all of them."
            )
    return named or DEFAULT_WEIGHTS
