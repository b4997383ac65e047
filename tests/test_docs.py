"""The pages of docs/ against the program: help, settings, events, files of a run, dependencies, links.

usage: python tests/test_docs.py        (writes docs/cli.md and the tables of docs/settings.md)
"""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import json
import math
import re
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from command import foldertune
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from test_architecture import RANKS

from foldertune import cli, settings
from foldertune.data.table import COLUMNS
from foldertune.guide import FIXED
from foldertune.planning import RULES
from foldertune.records import EpochRecord, Evaluation
from foldertune.run import RunFolder
from foldertune.settings import (
    BEYOND_GUIDE,
    RANGES,
    CourseSettings,
    DataSettings,
    NetworkSettings,
    Range,
    TrainSettings,
)

PROJECT = Path(__file__).resolve().parent.parent
DOCS = PROJECT / "docs"
VERBS = [name for name in cli.app if not name.startswith("-")]
CLI, SETTINGS = DOCS / "cli.md", DOCS / "settings.md"


# Pages that are written from the program


def cli_page() -> str:
    """docs/cli.md: the help of every command, as it is printed at 100 columns."""
    parts = [
        "# The command line",
        "What `--help` prints, word for word. This page is written by `python tests/test_docs.py` and compared by the tests.",
    ]
    for words in ((), *((verb,) for verb in VERBS)):
        said = foldertune(*words, "--help", NO_COLOR="1", TERM="dumb")
        text = "\n".join(line.rstrip() for line in said.out.strip().splitlines())
        parts.append(f"## foldertune {' '.join(words)}".rstrip() + f"\n\n```text\n{text}\n```")
    return "\n\n".join(parts) + "\n"


def setting_sentences() -> dict[str, str]:
    """What the docstring below each key of TrainSettings says, in its order."""
    found = {}
    for settings_class in (NetworkSettings, DataSettings, CourseSettings):
        (tree,) = ast.parse(inspect.getsource(settings_class)).body
        assert isinstance(tree, ast.ClassDef)
        for key, text in pairwise(tree.body):
            if isinstance(key, ast.AnnAssign) and isinstance(text, ast.Expr):
                assert isinstance(key.target, ast.Name)
                assert isinstance(text.value, ast.Constant)
                found[key.target.id] = str(text.value.value)
    return found


def accepted(name: str) -> str:
    """The choices or the range of a setting, in the page's words."""
    hint = get_type_hints(TrainSettings)[name]
    if choices := get_args(hint):
        return ", ".join(f"`{choice}`" for choice in choices)
    kind = {int: "a whole number", float: "a number", bool: "yes or no", str: "text"}[hint]
    if name not in RANGES:
        return kind
    beyond = f" (`--beyond-guide`: {span(BEYOND_GUIDE[name])})" if RANGES[name].guide else ""
    return f"{kind}, {span(RANGES[name])}{beyond}"


def span(allowed: Range) -> str:
    return (
        f"from {number(allowed.low)}"
        if math.isinf(allowed.high)
        else f"{number(allowed.low)} to {number(allowed.high)}"
    )


def number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}".replace("e-0", "e-")


def settings_page() -> str:
    """docs/settings.md, from TrainSettings, its ranges and the rules of planning."""
    sentences = setting_sentences()
    rows = "\n".join(
        f"| `{name}` | `--{name.replace('_', '-')}` | {accepted(name)} | {sentence} |"
        for name, sentence in sentences.items()
    )
    unset = ", ".join(f"`{name}`" for name in RULES if name not in sentences)
    examples = "\n".join(
        f"| `{name}` | {values['batch_size']} | {values['epochs']} | {values['learning_rate']:g} |"
        for name, values in FIXED.items()
    )
    return SETTINGS_PAGE.format(
        rows=rows, unset=unset, order=", ".join(f"`{name}`" for name in RULES), examples=examples
    )


SETTINGS_PAGE = """# Settings

Every setting can be given in three ways with the same name: as a flag (`--batch-size 8`), as a keyword of Python (`batch_size=8`),
and as a line of a `.json` or `.toml` file (`--settings FILE`). Flags and keywords go before the file. What is left out, the plan
decides and says why: `foldertune plan FOLDER` prints it. The tables are written by `python tests/test_docs.py` and compared by the tests.

| setting | flag | accepted | what it does |
|---|---|---|---|
{rows}

A yes-or-no setting is switched off with `--no-` before its name. A value outside its range ends the command with exit code 2 and
a sentence that names the range. Ranges of batch size, epochs and learning rate are those of the guide; they bind what is typed, and
`--beyond-guide` lifts them as far as shown. A plan that is read again is not bound by them.

## What only the plan decides

{unset}. They stand in the plan with their reasons, and have no flag.

## The order of deciding

{order}. A later setting may follow from an earlier one, never the other way round.

## Presets with fixed values

| preset | batch size | epochs | learning rate |
|---|---|---|---|
{examples}

`documented` follows the guide's table by the number of pictures; `auto` is what was measured to be accurate for its cost.
"""


def test_cli_page_is_what_help_prints() -> None:
    assert CLI.read_text("utf-8") == cli_page(), "run: python tests/test_docs.py"


def test_settings_page_is_what_the_settings_say() -> None:
    assert SETTINGS.read_text("utf-8") == settings_page(), "run: python tests/test_docs.py"


def test_every_setting_has_a_sentence_and_a_rule() -> None:
    sentences = setting_sentences()
    assert list(sentences) == list(TrainSettings.__annotations__)
    assert all(sentence.endswith(".") for sentence in sentences.values())
    assert set(sentences) - set(RULES) == {"beyond_guide"}
    assert set(RANGES) <= set(sentences)
    for name in sentences:
        if get_args(hint := get_type_hints(TrainSettings)[name]):
            # The choices are told by the sentence too, for the help shows them from there.
            assert all(
                choice in sentences[name] or choice.split("_")[0] in sentences[name] for choice in get_args(hint)
            ), name


# Pages that are written by hand and read by a test


def page(name: str) -> str:
    return (DOCS / f"{name}.md").read_text("utf-8")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_page_that_names_its_flags(verb: str) -> None:
    text = page(verb)
    assert f"foldertune {verb}" in text
    own = set(re.findall(r"(?<=│ )--[a-z-]+", foldertune(verb, "--help").out)) - {"--debug"}
    general = {f"--{name.replace('_', '-')}" for name in settings.TrainSettings.__annotations__}
    for flag in own - general:
        assert flag in text, f"docs/{verb}.md does not name {flag}"


def told_kinds() -> dict[str, set[str]]:
    """The kinds of events that the program makes, with the names of their facts as far as they stand in the call."""
    kinds: dict[str, set[str]] = {}
    for path in (PROJECT / "foldertune").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "event" and node.args:
                kind = ast.literal_eval(node.args[0])
                kinds.setdefault(kind, set()).update(word.arg for word in node.keywords if word.arg)
    return kinds


def event_rows() -> dict[str, str]:
    return dict(re.findall(r"^\| `(\w+)` \|(.*)\|$", page("events"), re.MULTILINE))


def test_events_page_has_every_kind_with_its_facts() -> None:
    kinds, rows = told_kinds(), event_rows()
    assert set(rows) == set(kinds)
    for kind, facts in kinds.items():
        assert all(f"`{fact}`" in rows[kind] for fact in facts), kind


def test_events_of_a_run_have_no_fact_that_the_page_does_not_name(small_run: Path) -> None:
    rows = event_rows()
    history = page("run-folder")
    for line in (small_run / "events.jsonl").read_text("utf-8").splitlines():
        told = json.loads(line)
        assert set(told) == {"kind", "time", "facts"}
        named = rows[told["kind"]] + (history if told["kind"] == "epoch" else "")
        assert all(f"`{fact}`" in named for fact in told["facts"]), told["kind"]


def test_run_folder_page_has_every_file_and_key(small_run: Path) -> None:
    text = page("run-folder")
    listed = set(re.findall(r"^\| `([\w.]+/?)` \|", text.split("## One line")[0], re.MULTILINE))
    places = {item for item, value in vars(RunFolder).items() if isinstance(value, property)} - {"baseline"}
    files = {getattr(RunFolder(small_run), name) for name in places}
    assert {name.rstrip("/") for name in listed} == {path.name for path in files}
    assert {path.name for path in small_run.iterdir()} - {".lock"} == {path.name for path in files}
    for key in (*COLUMNS, *EpochRecord.__annotations__, *json.loads((small_run / "run.json").read_text("utf-8"))):
        assert f"`{key}`" in text, key


def test_architecture_page_has_the_ranks_that_are_enforced() -> None:
    rows = "".join(f"    {', '.join(row)}\n" for row in RANKS if row != ("__main__",))
    assert f"\n\n{rows}\n" in page("decisions/0001-architecture")


def test_evaluate_page_has_every_key_of_the_record() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", page("evaluate"), re.MULTILINE)
    assert listed == list(Evaluation.__annotations__)


def test_dependencies_page_has_every_requirement_with_its_floor_and_licence() -> None:
    tables = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))
    text = page("decisions/0002-dependencies")
    extras = [row for rows in tables["project"]["optional-dependencies"].values() for row in rows]
    for requirement in map(Requirement, [*tables["project"]["dependencies"], *extras]):
        (floor,) = requirement.specifier
        assert f"| `{requirement.name}` | {floor.version} | " in text
    rows = {
        canonicalize_name(name): line for line in text.splitlines() for name in re.findall(r"^\| `([\w-]+)` \|", line)
    }
    development = [canonicalize_name(name) for name in tables["dependency-groups"]["dev"]]
    wanted = {canonicalize_name(Requirement(row).name) for row in [*tables["project"]["dependencies"], *extras]}
    assert set(rows) == wanted | set(development)
    for name, line in rows.items():
        if expression := licence_of(name):
            assert f"| {expression}" in line, name


def licence_of(name: str) -> str | None:
    """The licence expression of an installed distribution, where its metadata has one."""
    try:
        found = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    return next(iter(found.get_all("License-Expression") or []), None)


def links() -> Iterator[tuple[Path, str]]:
    for path in (*DOCS.rglob("*.md"), PROJECT / "README.md", PROJECT / "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)#\s]+)", path.read_text("utf-8")):
            if not target.startswith(("http://", "https://")):
                yield path, target


def test_links_lead_to_files_that_exist() -> None:
    found = list(links())
    assert len(found) > 10
    for path, target in found:
        assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_index_has_every_page() -> None:
    index = page("README")
    for path in DOCS.glob("*.md"):
        assert path.name == "README.md" or f"({path.name})" in index, path.name


def test_commands_in_the_pages_are_verbs_with_flags_that_exist() -> None:
    helps = {verb: foldertune(verb, "--help").out for verb in VERBS}
    for path in (*DOCS.glob("*.md"), PROJECT / "README.md"):
        for verb, rest in re.findall(r"(?:^ {4}|`)foldertune (\w+)([^\n`#]*)", path.read_text("utf-8"), re.MULTILINE):
            assert verb in helps, f"{path.name}: foldertune {verb}"
            for flag in re.findall(r"--[a-z][a-z-]*", rest):
                assert f" {flag} " in helps[verb] or flag in ("--help", "--debug"), f"{path.name}: {verb} {flag}"


if __name__ == "__main__":
    CLI.write_text(cli_page(), "utf-8")
    SETTINGS.write_text(settings_page(), "utf-8")
