"""What the command line prints on stdout: results, as text for people or as one JSON document."""

from __future__ import annotations

import json
import sys
import textwrap
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foldertune.comparison_text import comparison_lines
from foldertune.evaluation_text import evaluation_lines
from foldertune.records import Box, Comparison, Evaluation, Examination, Explanation, Finding, Plan, Prediction, plain
from foldertune.terminal import SPLIT_SOURCES, between, duration, expected, printable, say

if TYPE_CHECKING:
    from foldertune.api import Run
    from foldertune.cache import Clearing, Contents
    from foldertune.diagnosis.case import Cause
    from foldertune.evaluation.choice import Choice
    from foldertune.models.catalog import ModelFacts
    from foldertune.trying import Tried


def print_json(record: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(plain(record), indent=2, ensure_ascii=not _speaks_unicode()))


def _speaks_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def plan_document(found: Plan) -> dict[str, Any]:
    """What `plan --json` prints; `--settings` reads it again."""
    return {"settings": found.decisions, "forecast": found.forecast, "warnings": found.warnings}


def print_examination(found: Examination, *, num_rows: int) -> None:
    """What is in a folder, then every finding with its remedy and some of its evidence."""
    total, splits = sum(found.classes.values()), found.num_pictures
    how = SPLIT_SOURCES.get(found.split_source, found.split_source)
    print(printable(f"{total:,} pictures of {len(found.classes):,} classes in {found.folder}"))
    print(f"{splits['train']:,} to train, {splits['val']:,} to validate, {splits['test']:,} to test ({how})")
    if found.skipped:
        print(f"Skipped: {', '.join(f'{count:,} {reason}' for reason, count in found.skipped.items())}")
    for finding in found.findings:
        _print_finding(finding, num_rows)
    if not found.findings:
        print("\nNothing was found.")
    if found.left_out:
        kinds, reasons = zip(*(text.split(": ", 1) for text in found.left_out), strict=True)
        print()
        print(printable(f"Not looked for: {', '.join(kinds)}; {reasons[0]}"))


def _print_finding(finding: Finding, num_rows: int) -> None:
    print()
    print(printable(f"{finding.severity.upper()}  {finding.kind}"))
    for line in textwrap.wrap(printable(finding.sentence), 110, break_on_hyphens=False):
        print(f"  {line}")
    for row in finding.evidence[:num_rows]:
        other = f" and {row.other}" if row.other else ""
        print(printable(f"    {row.path}{other}  {row.note}"))
    if len(finding.evidence) > num_rows > 0:
        print(f"    and {len(finding.evidence) - num_rows:,} more")
    print(printable(f"  {'Next' if finding.severity == 'note' else 'Mend'}: {finding.remedy}"))


def run_document(run: Run) -> dict[str, Any]:
    """What `train --json` prints."""
    facts = run.folder.open()
    return {
        "run": str(run.path),
        "kept": run.kept,
        "minutes": facts.get("minutes"),
        "evaluation": _evaluation_or_none(run),
    }


def _evaluation_or_none(run: Run) -> Evaluation | None:
    from foldertune.errors import DataError

    try:
        return run.evaluate()
    except DataError:
        return None


def print_plan(found: Plan) -> None:
    """A table of setting, value, reason and rule."""
    rows = [(row.setting, _shown(row.value), f"{row.reason} [{row.rule}]") for row in found.decisions]
    widths = [max(len(row[place]) for row in rows) for place in (0, 1)]
    for setting, value, reason in rows:
        print(printable(f"{setting:<{widths[0]}}  {value:<{widths[1]}}  {reason}"))
    if found.forecast:
        forecast = found.forecast
        print(
            f"\nForecast: {duration(forecast.minutes)}, {forecast.memory_mib:,.0f} MiB of memory, {forecast.disk_mib:,.0f} MiB of disk"
        )
        if forecast.accuracy:
            print(f"Accuracy: {expected(forecast.accuracy)}")
        elif forecast.no_accuracy:
            print(f"Accuracy: not forecast, {forecast.no_accuracy}")
    for text in found.warnings:
        print(printable(f"Warning: {text}"))


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def print_run(run: Run) -> None:
    """Where everything is, and what to do with it."""
    found = _evaluation_or_none(run)
    if found:
        print(f"Test accuracy of the {run.kept} model: {between(found.accuracy)}, {found.num_pictures:,} pictures")
    print(printable(f"Run:    {run.path}"))
    if run.folder.report.exists():
        print(printable(f"Report: {run.folder.report}"))
    print(printable(f"Next:   foldertune predict {_typed(run.path)} PICTURE..."))


def _typed(path: Path) -> str:
    """A path as one word of a command line."""
    return f'"{path}"' if " " in str(path) else str(path)


def print_next_steps(run: Run) -> None:
    """What to do after the demo."""
    print("\nNow with your own pictures, one subfolder per class:")
    print("        foldertune plan  FOLDER      what it would do, and how long it takes")
    print("        foldertune train FOLDER      does it")
    print("A first answer from the demo's own model:")
    print(printable(f"        foldertune predict {_typed(run.path)} {_typed(run.path.parent / 'digits' / '7')}"))


def print_evaluation(found: Evaluation) -> None:
    """Figures and a table of the classes."""
    for line in evaluation_lines(found):
        print(printable(line))


def print_causes(causes: Sequence[Cause], looked_at: Sequence[str]) -> None:
    """Each finding with some of its evidence and its commands; or that there is none, and what was looked at."""
    if not causes:
        print(f"Nothing found. Looked at: {'; '.join(looked_at)}.")
    elif all(cause.finding.severity == "note" for cause in causes):
        print("No alarm. Worth knowing:")
    for number, cause in enumerate(causes):
        found = cause.finding
        print("\n" * bool(number) + f"{found.kind.replace('_', ' ')} ({found.severity}, {found.score:.0%} sure)")
        print(printable(f"  {found.sentence}"))
        for row in found.evidence[:_FEW_ROWS]:
            print(printable(f"    {row.path}{f' and {row.other}' if row.other else ''}: {row.note}"))
        if len(found.evidence) > _FEW_ROWS:
            print(f"    and {len(found.evidence) - _FEW_ROWS:,} more (--json has all)")
        for place, remedy in enumerate(cause.remedies):
            print(printable(f"  {'Or' if place else 'To mend it'}, {remedy.reason}:"))
            print(printable(f"    {remedy.command}"))


_FEW_ROWS = 4


def print_tried(found: Tried) -> None:
    """What each remedy earned, beside the run's own settings."""
    print(f"\nTried from where the run began, on {found.num_val:,} validation pictures:")
    for trial in found.trials:
        changes = ", ".join(f"{name} {_shown(value)}" for name, value in trial.changes.items() if value is not None)
        what = f"{trial.kind.replace('_', ' ')}: {trial.reason}" if trial.kind else trial.reason
        accuracy = (
            "diverged" if trial.accuracy is None else f"accuracy {trial.accuracy:.1%}, log loss {trial.log_loss:.3f}"
        )
        epochs = f"{trial.epochs} epoch{'s' * (trial.epochs != 1)} in {trial.seconds:.0f} s"
        print(printable(f"  {what}{f' ({changes})' if changes else ''}"))
        print(f"    {accuracy}, {epochs}" + (f"; {trial.sentence}" if trial.kind and trial.gained else ""))
    for text in found.left_out:
        print(printable(f"  Not tried: {text}"))
    print("Intervals are 95 %, each by itself: of three remedies one may look better by chance.")


def print_comparison(found: Comparison) -> None:
    """The networks, the pairs, which to take, and where everything is."""
    for line in comparison_lines(found):
        print(printable(line))
    print(printable(f"Page:   {Path(found.path) / 'comparison.html'}"))
    taken = next(each for each in found.contestants if each.model == found.take)
    print(printable(f"Next:   foldertune predict {_typed(Path(taken.runs[0]))} PICTURE..."))


def print_speed(found: Choice) -> None:
    """A table of what was tried, and what predict will use."""
    head = f"{'engine':<12} {'precision':<9} {'device':<6} {'pictures/s':>10} {'one, ms':>8} {'agrees':>7}"
    print(f"{head}  accuracy lost (95 % interval), points")
    for trial in found.trials:
        per_s, one = f"{trial.pictures_per_s:.1f}", f"{trial.latency_ms:.1f}"
        agrees = "-" if trial.agreement is None else f"{trial.agreement:.1%}"
        loss, lost = trial.accuracy_loss, "-"
        if loss is not None:
            lost = (
                f"{100 * loss.value:.1f} ({100 * loss.low:.1f} to {100 * loss.high:.1f}), {trial.num_judged:,} pictures"
            )
        row = f"{trial.engine:<12} {trial.precision:<9} {trial.device:<6} {per_s:>10} {one:>8} {agrees:>7}  {lost}"
        print(printable(f"{row}; not taken by itself: {trial.refused}" if trial.refused else row))
    print()
    print(printable(f"Taken: {found.engine} in {found.precision} on {found.device} ({found.reason})"))


def print_predictions(answers: Iterable[Prediction]) -> tuple[int, int]:
    """One line per picture on stdout, errors on stderr; returns (answered, failed)."""
    counts = [0, 0]
    for answer in answers:
        counts[answer.error is not None] += 1
        if answer.error is not None:
            say(f"{answer.path}: {answer.error}")
            continue
        tops = "  ".join(f"{label} {probability:.3f}" for label, probability in answer.top)
        # What was refused is marked, with what it would have been.
        print(printable(f"{answer.path}  {tops}" if answer.known else f"{answer.path}  {answer.label} ({tops})"))
    return counts[0], counts[1]


def print_predictions_json(answers: Iterable[Prediction]) -> tuple[int, int]:
    """One JSON list on stdout, written as it comes; returns (answered, failed)."""
    from foldertune.prediction_file import document

    counts = [0, 0]
    print("[", end="")
    for number, answer in enumerate(answers):
        counts[answer.error is not None] += 1
        text = json.dumps(document(answer), ensure_ascii=not _speaks_unicode())
        print(f"{',' if number else ''}\n  {text}", end="")
    print("\n]")
    return counts[0], counts[1]


def explanations_document(found: Iterable[Explanation]) -> dict[str, Any]:
    """What `explain --json` prints; a picture that could not be explained has its path and the reason alone."""
    return {
        "explanations": [
            {"path": each.path, "error": each.error}
            if each.error is not None
            else {key: value for key, value in plain(each).items() if key != "error"}
            for each in found
        ]
    }


def print_explanations(found: Iterable[Explanation]) -> None:
    """A few lines per picture on stdout, errors on stderr."""
    for each in found:
        if each.error is not None:
            say(f"{each.path}: {each.error}")
            continue
        asked = f" (answered: {each.answer})" if each.answer != each.label else ""
        print(printable(f"{each.path}  {each.label} {each.probability:.3f}{asked}  trust {each.trust:.2f}"))
        print(printable(f"    map      {each.map}"))
        if each.boxes:
            print(f"    hot      {'; '.join(map(_box, each.boxes))}")
        for near in each.nearest:
            note = f" ({near.note})" if near.note else ""
            print(printable(f"    nearest  {near.similarity:.3f} {near.label}  {near.path}{note}"))
        for text in each.warnings:
            print(printable(f"    warning  {text}"))


def _box(box: Box) -> str:
    return f"{box.right - box.left} x {box.bottom - box.top} px at {box.left}, {box.top} ({box.share:.0%} of the heat)"


def print_models(found: Iterable[ModelFacts]) -> None:
    """The catalogue as a table."""
    print(f"{'name':<10}  {'parameters':>11}  {'multiply-adds':>13}  {'size':>8}  take when")
    for facts in found:
        cost = f"{facts.parameters / 1e6:9.1f} M  {facts.multiply_adds / 1e9:11.2f} G  {facts.size_mb:5,.0f} MB"
        print(f"{facts.name:<10}  {cost}  {facts.take_when[0]}")
    print("\nAll about one: foldertune models NAME")


def print_model(facts: ModelFacts) -> None:
    """All about one network."""
    print(f"{facts.title} ({facts.name})")
    print(f"  layers         {facts.layers}")
    print(
        f"  stages         {', '.join(map(str, facts.stages))} blocks; {', '.join(map(str, facts.channels))} channels"
    )
    print(f"  parameters     {facts.parameters:,}")
    print(f"  multiply-adds  {facts.multiply_adds:,} at {facts.input_px} px")
    print(f"  size           {facts.size_mb:,.0f} MB in float32")
    print(f"  strengths      {'; '.join(facts.strengths)}")
    print(f"  take when      {'; '.join(facts.take_when)}")
    print(f"  paper          {facts.paper}")
    for place, weights in enumerate(facts.weights):
        default = " (imagenet)" if place == 0 else ""
        print(
            f"  weights        {weights.tag}{default}: {weights.licence}, {weights.size_mb:,.0f} MB, {weights.source}"
        )
        print(f"                 {weights.note}; sha256 {weights.sha256 or 'not known'}")


def print_cache(found: Contents) -> None:
    """Where the cache is, how much of its bound is taken, and by what."""
    from foldertune.cache import BOUND

    print(printable(f"Folder  {found.folder}"))
    print(f"Size    {_size(found.num_bytes)} of {_size(found.bound_bytes)} at most ({BOUND} changes it)")
    kinds = sorted({entry.kind for entry in found.entries})
    if kinds:
        print("\nkind          entries         size  last used")
    for kind in kinds:
        entries = [entry for entry in found.entries if entry.kind == kind]
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(max(entry.last_used for entry in entries)))
        print(f"{kind:<12}  {len(entries):7,}  {_size(sum(entry.num_bytes for entry in entries)):>11}  {used}")
    if kinds:
        print("\nDelete it: foldertune cache --clear")


def print_clearing(cleared: Clearing) -> None:
    """What was deleted, and what was not."""
    print(printable(f"Deleted {_entries(cleared.num_deleted)}, {_size(cleared.freed_bytes)}, from {cleared.folder}"))
    if cleared.num_kept:
        print(f"Kept {_entries(cleared.num_kept)}, {_size(cleared.kept_bytes)}: in use, or cannot be deleted")


def _entries(count: int) -> str:
    return f"{count:,} entr{'y' if count == 1 else 'ies'}"


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.1f} MiB" if num_bytes < 2**30 else f"{num_bytes / 2**30:,.1f} GiB"
