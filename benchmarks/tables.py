"""Figures as tables and pages: medians, spreads and ratios from interleaved runs, and who failed with the reason."""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from contest import Contestant
from machine_facts import describe

IN_TURN = (
    "Each tool ran in turn (A B C A B C ...) after an uncounted first round. Ratios are of medians, in brackets the least and the most "
    "within one round. Memory is the largest resident size of one process."
)
FIGURES = Path(__file__).resolve().parent.parent / "docs" / "figures"


@dataclass(frozen=True, slots=True)
class Row:
    """One tool. values: one per round, in `Scale.unit`.   problem: why there are none."""

    tool: str
    values: Sequence[float]
    peak_mib: float = 0.0
    versions: str = ""
    remark: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Scale:
    """What is measured. Of a rate more is better, of a time less."""

    unit: str
    digits: int = 1
    rate: bool = False


def parser_of(description: str | None, claim: str, *, rounds: bool = True) -> argparse.ArgumentParser:
    """What every benchmark takes beside its own arguments. claim: names its page.   rounds: whether tools run in turn."""
    from foldertune.machine import num_cores

    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=num_cores())
    parser.add_argument("--no-page", action="store_true", help=f"print, and do not write docs/figures/{claim}.md")
    if rounds:
        parser.add_argument("--times", type=int, default=5, help="counted rounds")
    return parser


def rows_of(contestants: Sequence[Contestant], figure: str = "") -> list[Row]:
    """A row for each; the value is the wall time of the process in seconds, or the named figure that it told."""
    rows = []
    for each in contestants:
        values = [float(run.told.get(figure, math.nan)) if figure else run.seconds for run in each.runs]
        told = [value for value in values if math.isfinite(value)]
        problem = (
            each.problem if len(told) == len(values) else "; ".join(filter(None, [each.problem, f"told no {figure}"]))
        )
        peak = statistics.median(run.peak_mib for run in each.runs) if each.runs else 0.0
        rows.append(Row(each.name, told, peak, each.versions, each.remark, problem))
    return rows


def slowness(theirs: Sequence[float], ours: Sequence[float], *, rate: bool) -> tuple[float, float, float]:
    """How many times slower they are: (ratio of medians, least, most), the latter two of ratios within one round."""
    if rate:
        theirs, ours = ours, theirs
    within = [their / our for their, our in zip(theirs, ours, strict=False)]
    return statistics.median(theirs) / statistics.median(ours), min(within), max(within)


def render(rows: Sequence[Row], scale: Scale, *, ours: str) -> str:
    """A Markdown table. `ours` is the tool that the others are held against; without its figures there are no ratios."""
    reference = next((row.values for row in rows if row.tool == ours), ())
    lines = [
        f"| tool | median, {scale.unit} | least to most | times slower than ours | peak MiB | n | versions | remarks |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        remarks = "; ".join(filter(None, [row.remark, row.problem and f"**{row.problem}**"]))
        if not row.values:
            lines.append(f"| {row.tool} | - | - | - | - | 0 | {row.versions} | {cell(remarks)} |")
            continue
        median, least, most = statistics.median(row.values), min(row.values), max(row.values)
        ratio = "-"
        if reference:
            found = slowness(row.values, reference, rate=scale.rate)
            ratio = "1" if row.tool == ours else f"{found[0]:.2f} ({found[1]:.2f} to {found[2]:.2f})"
        digits = scale.digits
        peak = f"{row.peak_mib:.0f}" if row.peak_mib else "-"
        lines.append(
            f"| {row.tool} | {median:.{digits}f} | {least:.{digits}f} to {most:.{digits}f} | {ratio} | {peak} "
            f"| {len(row.values)} | {row.versions} | {cell(remarks)} |"
        )
    return "\n".join(lines) + "\n"


def cell(text: str) -> str:
    """Text that does not break a table."""
    return text.replace("|", "\\|").replace("\n", " ")


def told_command(arguments: Sequence[str]) -> str:
    """The command as a reader can repeat it: with the names of files and folders, not where they lay."""
    names = []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        named = Path(value).name if equals and os.sep in value else value
        name = f"{flag}={named}" if equals else (Path(argument).name if os.sep in argument else argument)
        names.append(f'"{name}"' if " " in name else name)
    return " ".join(names)


def page(title: str, sections: Sequence[str], *, arguments: Sequence[str], load: float) -> str:
    """A page of figures: the question, the command, the machine and the date, then the sections."""
    command = f"python benchmarks/{Path(arguments[0]).name} {told_command(arguments[1:])}".rstrip()
    facts = f"{datetime.now(UTC):%Y-%m-%d}. {describe()}. Load of the machine before the start: {load:.1f}."
    head = f"# {title}\n\n    {command}\n\n{facts}"
    return "\n\n".join(section.strip("\n") for section in [head, *sections] if section) + "\n"


def publish(claim: str, text: str, *, write: bool) -> None:
    """Print a page, and write it to docs/figures/CLAIM.md if it is to be kept."""
    print(text)
    if write:
        FIGURES.mkdir(parents=True, exist_ok=True)
        (FIGURES / f"{claim}.md").write_text(text, "utf-8")
        print(f"Written: docs/figures/{claim}.md", file=sys.stderr)


def load_now() -> float:
    """How many processes wanted the processor in the last minute, on average; 0 where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
