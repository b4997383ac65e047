"""What there is: models, cache."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from foldertune.commands.flags import Json


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
