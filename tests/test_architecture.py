"""The house rules that no reader should have to check: who may import whom, public names, sizes, what nothing may contain."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import PROJECT

import foldertune

PACKAGE = PROJECT / "foldertune"
FILES = sorted(PACKAGE.rglob("*.py"))
# Who may import whom: only what stands above. Modules and packages of one row do not know each other.
RANKS = (
    ("errors", "stopping", "scores"),
    ("records", "images", "cache"),
    ("run", "preprocess", "machine", "settings"),
    ("guide", "forecast", "outlook", "team", "notes"),
    ("recipe",),
    ("data", "diagnosis", "models", "planning", "digits"),
    ("engines", "diagnosing"),
    ("evaluation",),
    ("explanation", "training"),
    ("examination", "heatmaps", "proposals"),
    ("bench",),
    ("inspection", "wishes"),
    ("journey", "trying"),
    ("comparing",),
    ("follower",),
    ("answering", "explaining"),
    ("api", "prediction_file"),
    ("terminal",),
    ("comparison_text", "evaluation_text"),
    ("results",),
    ("commands",),
    ("cli",),
    ("__main__",),
)
RANK_OF = {name: rank for rank, row in enumerate(RANKS) for name in row}
VERBS = [
    "compare", "demo", "diagnose", "evaluate", "explain", "list_models", "load", "look", "plan", "predict", "resume", "speed", "train",
]  # fmt: skip
# A change here is a change of what users rely on.
PUBLIC = ["FoldertuneError", "Run", "__version__", *VERBS]
# What came to be larger than the house allows, until it is divided; nothing may join it.
LONG_FILES: set[str] = set()
MANY_PARAMETERS: set[str] = set()
LINES_OF_A_FILE = 400
LINES_OF_A_FUNCTION = 60
LINES_OF_FIT = 90
PARAMETERS = 6


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def part_of(path: Path) -> str:
    """The module or package of the first level that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(tree: ast.AST) -> Iterator[str]:
    """Modules and packages of the first level that a file names in an import, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("foldertune."))


def functions_of(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def apart(program: str) -> str:
    """What a program prints in an interpreter of its own."""
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout


# Imports


def test_imports_of_every_file_go_one_way() -> None:
    for path in FILES:
        part = part_of(path)
        if part == "__init__":
            continue  # the front door, which fetches the verbs when they are first asked for
        for other in set(imported_parts(ast.parse(path.read_text("utf-8")))) - {part, "__version__"}:
            assert RANK_OF[other] < RANK_OF[part], f"{name_of(path)} imports {other}, which stands beside or below it"


def test_imports_that_go_the_wrong_way_are_seen() -> None:
    for line in ("import foldertune.cli", "from foldertune import cli", "from foldertune.cli import run"):
        tree = ast.parse(f"def late():\n    {line}")
        assert list(imported_parts(tree)) == ["cli"]


def test_every_module_has_its_place_and_no_place_is_empty() -> None:
    assert {part_of(path) for path in FILES} - {"__init__"} == set(RANK_OF)


@pytest.mark.parametrize(
    "module",
    ["cli", "commands.training", "commands.answering", "commands.trust", "commands.mending", "answering", "explaining", "terminal",
     "results", "planning", "settings", "diagnosing", "diagnosis.learning", "evaluation.metrics", "data.folder", "data.split",
     "models.catalog"],
)  # fmt: skip
def test_module_that_only_reckons_imports_without_torch(module: str) -> None:
    found = apart(f"import sys, foldertune.{module}; print('torch' in sys.modules, 'openvino' in sys.modules)")
    assert found == "False False\n"


def test_import_of_the_package_is_light_and_touches_nothing() -> None:
    found = apart(
        "import sys\n"
        "touched = []\n"
        "def watch(event, _):\n"
        "    if event.startswith(('socket.', 'subprocess.', 'os.exec', 'os.fork', 'os.posix_spawn', 'os.system', 'ctypes.')):\n"
        "        touched.append(event)\n"
        "before = set(sys.modules)\n"
        "sys.addaudithook(watch)\n"
        "import foldertune\n"
        "foreign = {name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)\n"
        "print(touched, foreign, [name for name in sys.modules if name.startswith('foldertune.')])"
    )
    assert found == "[] {'foldertune'} []\n"


# Public names


def test_public_names_are_exactly_these() -> None:
    assert sorted(foldertune.__all__) == sorted(PUBLIC)
    assert sorted(dir(foldertune)) == sorted(PUBLIC)
    for name in PUBLIC:
        assert getattr(foldertune, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'export_all'"):
        _ = foldertune.export_all


def test_public_names_and_the_methods_of_a_run_are_documented_and_typed() -> None:
    methods = [
        getattr(foldertune.Run, name) for name in vars(foldertune.Run) if not name.startswith("_") and name != "path"
    ]
    functions = [*(getattr(foldertune, verb) for verb in VERBS), *methods]
    for function in (getattr(each, "fget", each) for each in functions):
        assert inspect.getdoc(function), function
        signature = inspect.signature(function)
        assert signature.return_annotation is not inspect.Signature.empty
        given = [parameter for name, parameter in signature.parameters.items() if name != "self"]
        assert all(parameter.annotation is not inspect.Parameter.empty for parameter in given), function
    assert inspect.getdoc(foldertune.Run)
    assert inspect.getdoc(foldertune.FoldertuneError)
    assert (PACKAGE / "py.typed").exists()


def test_no_module_has_the_name_of_a_public_function() -> None:
    assert not {part_of(path) for path in FILES} & set(PUBLIC)


@pytest.mark.parametrize("name", ["utils", "util", "common", "helpers", "helper", "misc", "base", "core"])
def test_no_module_has_a_name_that_says_nothing(name: str) -> None:
    assert not [name_of(path) for path in FILES if name in path.relative_to(PACKAGE).with_suffix("").parts]


# What nothing may contain


def forbidden_of(tree: ast.AST) -> Iterator[str]:
    """Imports and calls that can run code found in data."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            yield from (
                name for name in names if name.split(".")[0] in ("pickle", "dill", "cloudpickle", "marshal", "shelve")
            )
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("eval", "exec", "compile", "os.system") or re.search(
                r"^(torch|yaml|torch\.export)\.load$", called
            ):
                yield called
            for word in node.keywords:
                if word.arg in ("shell", "trust_remote_code", "allow_pickle") and ast.unparse(word.value) != "False":
                    yield f"{word.arg}={ast.unparse(word.value)}"


def test_nothing_in_the_product_can_run_code_found_in_data() -> None:
    for path in [*FILES, PROJECT / "start.py"]:
        assert not list(forbidden_of(ast.parse(path.read_text("utf-8")))), path.name


def test_what_is_forbidden_is_seen() -> None:
    lines = (
        "import pickle", "from pickle import loads", "import torch\ntorch.load(f)", "yaml.load(f)", "eval('1')",
        "subprocess.run(c, shell=True)", "np.load(f, allow_pickle=True)", "torch.export.load(f)",
    )  # fmt: skip
    for line in lines:
        assert list(forbidden_of(ast.parse(line))), line
    assert not list(forbidden_of(ast.parse("run(c, shell=False)\nmodel.eval()\nre.compile('x')")))


def test_product_has_no_leftovers() -> None:
    for path in FILES:
        text = path.read_text("utf-8")
        for word in ("breakpoint(", "TODO", "FIXME", "XXX", "/tmp/", 'print("DEBUG'):
            assert word not in text, f"{name_of(path)} has {word}"


# Sizes


def test_files_are_at_most_so_long() -> None:
    long = {name_of(path) for path in FILES if len(path.read_text("utf-8").splitlines()) > LINES_OF_A_FILE}
    assert not long - LONG_FILES


def test_functions_are_at_most_so_long() -> None:
    for path in FILES:
        for function in functions_of(ast.parse(path.read_text("utf-8"))):
            length = (function.end_lineno or 0) - function.lineno + 1
            most = LINES_OF_FIT if function.name == "fit" else LINES_OF_A_FUNCTION
            assert length <= most, f"{name_of(path)}: {function.name} has {length} lines"


def test_functions_have_at_most_so_many_parameters() -> None:
    many = set()
    for path in FILES:
        for function in functions_of(ast.parse(path.read_text("utf-8"))):
            given = function.args
            names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs) if each.arg != "self"]
            if len(names) > PARAMETERS:
                many.add(f"{name_of(path)}: {function.name}")
    assert not many - MANY_PARAMETERS
