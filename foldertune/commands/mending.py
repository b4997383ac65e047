"""What went wrong in a run, and what mends it: diagnose."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from foldertune.commands.flags import Json
from foldertune.errors import SettingsError


def diagnose(
    run: Path,
    /,
    *,
    try_: Annotated[bool, Parameter(name="--try", negative="", show_default=False)] = False,
    max_minutes: float | None = None,
    json: Json = False,
) -> None:
    """What was wrong with a run: each finding with its evidence and the command that mends it.

    Reads the run folder alone, also of a run that was interrupted or that diverged.

    Parameters
    ----------
    run
        The run folder that train made.
    try_
        Train the two or three best remedies for a short while from where the run began, and tell what each earned on validation.
    max_minutes
        With --try, the minutes for all of them together; by default 5.
    json
        Print one JSON document.
    """
    from foldertune import api, results, terminal
    from foldertune.diagnosing import case_of, findings_document
    from foldertune.diagnosis.learning import diagnose_case, looked_at

    if max_minutes is not None and not try_:
        raise SettingsError("--max-minutes says how long remedies are tried: it goes with --try.")
    folder = api.load(run).folder
    case = case_of(folder)
    causes = diagnose_case(case)
    if not json:
        results.print_causes(causes, looked_at(case))
    if not try_:
        return results.print_json(findings_document(causes)) if json else None
    found = terminal.show(api.trying(run, max_minutes=max_minutes))
    if json:
        return results.print_json({**findings_document(causes), "tried": found})
    return results.print_tried(found)
