"""Findings: a closed list of kinds, the order in which they are told, and remedies that a shell and the program take as they stand."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from conftest import PROJECT
from hypothesis import given
from hypothesis import strategies as st

from foldertune.diagnosis.findings import DATA_KINDS, KINDS, Asked, by_importance, counted, named
from foldertune.errors import FoldertuneError
from foldertune.records import SEVERITIES, Evidence, Finding, Severity, plain

PAGE = (PROJECT / "docs/findings.md").read_text("utf-8")


def finding(kind: str, severity: Severity = "note", score: float = 0.5) -> Finding:
    return Finding(kind, f"{kind}.", severity, score, (Evidence("a/1.png", score),), "foldertune look photos")


@given(
    st.lists(st.builds(finding, st.sampled_from(list(KINDS)), st.sampled_from(SEVERITIES), st.floats(0, 1))), st.randoms()
)  # fmt: skip
def test_by_importance_is_by_severity_then_kind_then_score_and_loses_nothing(
    found: list[Finding], shuffled: object
) -> None:
    ordered = by_importance(found)
    assert sorted(map(id, ordered)) == sorted(map(id, found))
    places = [(SEVERITIES.index(each.severity), list(KINDS).index(each.kind), -each.score) for each in ordered]
    assert places == sorted(places)


def test_by_importance_tells_the_gravest_first() -> None:
    found = [finding("alpha", "serious"), finding("shortcut"), finding("label_suspect", "warning", 0.9)]
    found += [finding("label_suspect", "warning", 0.99), finding("shortcut", "serious", 0.1)]
    assert [(each.kind, each.score) for each in by_importance(iter(found))] == [
        ("shortcut", 0.1), ("alpha", 0.5), ("label_suspect", 0.99), ("label_suspect", 0.9), ("shortcut", 0.5),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "made", [finding("nonsense"), finding("dark", score=1.01), finding("dark", score=float("nan"))]
)
def test_by_importance_refuses_what_is_not_of_the_list(made: Finding) -> None:
    with pytest.raises(FoldertuneError, match="is no finding of the list"):
        by_importance([finding("dark"), made])


def test_page_has_exactly_the_kinds_of_data_with_their_meanings_in_their_order() -> None:
    listed = re.findall(r"^\| `(\w+)` \| (.*?) \|", PAGE.split("| kind | what it is |")[1], re.MULTILINE)
    assert listed == list(DATA_KINDS.items())


def test_page_names_every_severity_and_every_key() -> None:
    keys = json.loads(json.dumps(plain(finding("dark"))))
    assert all(f"`{name}`" in PAGE for name in (*SEVERITIES, *keys, *keys["evidence"][0]))


def test_every_kind_of_data_is_made_somewhere() -> None:
    made = set()
    for path in (PROJECT / "foldertune/diagnosis").glob("*.py"):
        if path.name != "findings.py":
            made |= set(re.findall(r'(?:^ +|\()"([a-z_]+)",', path.read_text("utf-8"), re.MULTILINE)) & set(DATA_KINDS)
    assert made == set(DATA_KINDS)


def test_asked_remedies_are_one_command_that_a_shell_takes_apart_as_it_was_meant() -> None:
    folder = Path("/data/it's a $HOME; rm -rf *\nnew \U0001f98a")
    asked = Asked(folder, ("--weights", "/my weights.safetensors", "--group-by", r"(\w+)-\d"))
    common = [str(folder), "--weights", "/my weights.safetensors", "--group-by", r"(\w+)-\d"]
    assert shlex.split(asked.patch()) == ["foldertune", "look", *common, "--write-patch", "patch.csv"]
    assert shlex.split(asked.train("--no-flip")) == ["foldertune", "train", *common, "--no-flip"]
    assert shlex.split(asked.look()) == ["foldertune", "look", *common]


def test_words_for_numbers_and_names() -> None:
    assert [counted(number, "class") for number in (0, 1, 2000)] == ["0 classes", "1 class", "2,000 classes"]
    assert counted(1, "picture") == "1 picture"
    assert named(["a"]) == "'a'"
    assert named(list("abcd")) == "'a', 'b', 'c' and 1 more"


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ((), "patch.csv"),
        (("--patch", "mine.csv"), "patch-2.csv"),
        (("--patch", "/a b/patch-2.csv", "--seed", "1"), "patch-3.csv"),
    ],
)
def test_patch_is_written_beside_the_one_that_is_in_force(flags: tuple[str, ...], name: str) -> None:
    assert Asked(Path("photos"), flags).patch().endswith(f"--write-patch {name}")


def test_asked_patch_never_names_a_file_that_is_there() -> None:
    def name(*flags: str, taken: set[str] | None = None) -> str:
        return Asked(Path("photos"), flags, frozenset(taken or ())).patch().rpartition(" ")[2]

    assert name() == "patch.csv"
    assert name(taken={"patch.csv", "patch-2.csv"}) == "patch-3.csv"
    assert name("--patch", "patch.csv") == "patch-2.csv"
    assert name("--patch", "patch-2.csv", taken={"patch-3.csv"}) == "patch-4.csv"
