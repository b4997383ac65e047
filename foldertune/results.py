"""What the command line prints on stdout: results, as text for people or as one JSON document."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foldertune.records import Evaluation, Plan, Prediction, plain
from foldertune.terminal import between, duration, printable, say

if TYPE_CHECKING:
    from foldertune.api import Run
    from foldertune.cache import Clearing, Contents
    from foldertune.evaluation.choice import Choice
    from foldertune.models.catalog import ModelFacts


def print_json(record: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(plain(record), indent=2, ensure_ascii=not _speaks_unicode()))


def _speaks_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def plan_document(found: Plan) -> dict[str, Any]:
    """What `plan --json` prints; `--settings` reads it again."""
    return {"settings": found.decisions, "forecast": found.forecast, "warnings": found.warnings}


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
    print(f"{found.num_pictures:,} pictures ({found.split})")
    print(f"Accuracy  {between(found.accuracy)}")
    if found.top5 is not None:
        print(f"Top 5     {found.top5:.1%}")
    print(f"Macro F1  {found.macro_f1:.3f}")
    print(f"Log loss  {found.log_loss:.3f}\n")
    width = max(5, *(len(printable(score.label)) for score in found.per_class))
    print(f"{'class':<{width}}  precision  recall     F1  pictures")
    for score in found.per_class:
        print(
            f"{printable(score.label):<{width}}  {score.precision:9.3f}  {score.recall:6.3f}  {score.f1:5.3f}  {score.num_pictures:8,}"
        )
    if confusions := _confusions(found):
        print("\nMost often confused:")
    for i, j, count in confusions:
        print(printable(f"  {found.classes[i]} was answered as {found.classes[j]} {_times(count)}"))


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count:,} times")


def _confusions(found: Evaluation) -> list[tuple[int, int, int]]:
    """The three most frequent confusions."""
    cells = [(i, j, count) for i, row in enumerate(found.confusion) for j, count in enumerate(row) if i != j and count]
    return sorted(cells, key=lambda cell: (-cell[2], cell[0], cell[1]))[:3]


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
        print(printable(f"{answer.path}  {tops}"))
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
