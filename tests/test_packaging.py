"""pyproject.toml, constraints.txt, the package and the licence say the same."""

from __future__ import annotations

import importlib.metadata
import tomllib
from typing import Any

import pytest
from conftest import PROJECT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import foldertune

PYPROJECT: dict[str, Any] = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))
CONSTRAINTS = [
    Requirement(line)
    for line in (PROJECT / "constraints.txt").read_text("utf-8").splitlines()
    if line and not line.startswith("#")
]
# Python, system, processor: where the pins must hold.
MACHINES = [
    {"python_version": python[:4], "python_full_version": python, "sys_platform": system, "platform_system": name}
    for python in ("3.11.0", "3.12.0", "3.13.0", "3.14.0", "3.14.1")
    for system, name in (("linux", "Linux"), ("darwin", "Darwin"), ("win32", "Windows"))
]
# The oldest version without the vulnerability named; the ones that we do not install wait here for the day that we do.
FLOORS = {
    "starlette": ("1.0.1", "CVE-2026-48710, CVE-2025-62727"),
    "python-multipart": ("0.0.27", "CVE-2026-42561, CVE-2026-40347, CVE-2024-53981"),
    "h11": ("0.16.0", "CVE-2025-43859"),
    "pillow": ("13.0.0", "CVE-2026-112403, CVE-2026-112398, CVE-2026-96639"),
    "torch": ("2.10.0", "CVE-2026-24747, CVE-2025-32434"),
    "onnx": ("1.21.0", "CVE-2026-27489, CVE-2026-34446, CVE-2026-34447"),
    "orjson": ("3.11.6", "CVE-2025-67221"),
    "urllib3": ("2.7.0", "CVE-2026-21441"),
    "ray": ("2.54.0", "CVE-2026-27482"),
}


def declared() -> dict[str, Requirement]:
    """Every requirement that pyproject.toml states: of the package, its extras, its groups and its build."""
    project = PYPROJECT["project"]
    lists = [project["dependencies"], *project.get("optional-dependencies", {}).values()]
    lists += [*PYPROJECT["dependency-groups"].values(), PYPROJECT["build-system"]["requires"]]
    requirements = [Requirement(text) for texts in lists for text in texts]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def pins(name: str, machine: dict[str, str]) -> list[Version]:
    """The versions that constraints.txt asks for on this machine."""
    found = [row for row in CONSTRAINTS if canonicalize_name(row.name) == name]
    return [
        Version(next(iter(row.specifier)).version)
        for row in found
        if not row.marker or row.marker.evaluate(dict(machine))
    ]


def test_constraints_each_row_is_one_exact_version_that_every_index_has() -> None:
    assert len(CONSTRAINTS) > 50
    for row in CONSTRAINTS:
        (specifier,) = row.specifier
        assert specifier.operator == "==", row
        assert "*" not in specifier.version, row
        assert Version(specifier.version).local is None, f"{row}: a local build such as +cpu is on no public index"
        assert not row.url, row
        assert not row.extras, row


def test_constraints_each_package_has_one_pin_on_every_machine() -> None:
    names = {canonicalize_name(row.name) for row in CONSTRAINTS}
    assert {len(pins(name, machine)) for name in names for machine in MACHINES} == {1}


def test_constraints_rows_are_sorted() -> None:
    names = [canonicalize_name(row.name) for row in CONSTRAINTS]
    assert names == sorted(names)


@pytest.mark.parametrize("name", declared())
def test_pyproject_each_dependency_is_pinned_inside_its_range(name: str) -> None:
    for machine in MACHINES:
        (version,) = pins(name, machine)
        assert version in declared()[name].specifier


def test_constraints_hold_everything_that_an_installation_here_brings() -> None:
    pinned = {canonicalize_name(row.name) for row in CONSTRAINTS}
    seen: set[str] = set()
    waiting = [name for name in declared() if name != "pillow-heif"]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # the group `dev` or the builder is not installed here
        rows = [Requirement(text) for text in needs]
        waiting += [canonicalize_name(row.name) for row in rows if not row.marker or row.marker.evaluate({"extra": ""})]
    assert {"numpy", "scipy", "sympy"} <= seen
    assert seen <= pinned


@pytest.mark.parametrize("name", sorted({row.name for row in CONSTRAINTS} & FLOORS.keys()))
def test_versions_with_a_known_vulnerability_are_refused(name: str) -> None:
    floor, reason = Version(FLOORS[name][0]), FLOORS[name][1]
    assert min(version for machine in MACHINES for version in pins(name, machine)) >= floor, reason
    if name in declared():
        just_below = Version(f"{floor}.dev0")
        assert not declared()[name].specifier.contains(just_below, prereleases=True), reason


def test_dependencies_with_a_floor_are_seen() -> None:
    assert {"h11", "pillow", "torch"} <= {row.name for row in CONSTRAINTS} & FLOORS.keys()
    assert {"pillow", "torch"} <= declared().keys()


def test_version_of_the_package_equals_the_metadata() -> None:
    assert foldertune.__version__ == importlib.metadata.version("foldertune")
    assert str(Version(foldertune.__version__)) == foldertune.__version__


def test_license_is_apache_2_in_file_and_metadata() -> None:
    text = (PROJECT / "LICENSE").read_text("utf-8")
    assert text.split()[:4] == ["Apache", "License", "Version", "2.0,"]
    assert "END OF TERMS AND CONDITIONS" in text
    assert PYPROJECT["project"]["license"] == "Apache-2.0"
    assert importlib.metadata.metadata("foldertune")["License-Expression"] == "Apache-2.0"


def test_python_floor_is_the_same_for_package_linter_and_set_up() -> None:
    floor = PYPROJECT["project"]["requires-python"].removeprefix(">=")
    assert PYPROJECT["tool"]["ruff"]["target-version"] == "py" + floor.replace(".", "")
    assert f"sys.version_info < ({floor.replace('.', ', ')})" in (PROJECT / "start.py").read_text("utf-8")
