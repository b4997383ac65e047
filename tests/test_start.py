"""start.py: where the environment goes, when it is made again, what a failure says. No package is installed here.

A fake interpreter plays venv and pip: it writes down what it was asked, and fails as the test wishes.
"""

from __future__ import annotations

import ast
import os
import queue
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import PROJECT

sys.path.insert(0, str(PROJECT))
import start

HOME = Path("/home/user")
REAL_PYTHON = sys.executable
FAKE = f"""#!{sys.executable} -IS
import pathlib, shutil, sys
words = sys.argv[1:]
asked = words[1:] if words[:1] == ["-m"] else [pathlib.Path(sys.argv[0]).name, *words]
with open({{calls!r}}, "a") as calls:
    calls.write(" ".join(asked) + "\\n")
if words[:2] == ["-m", "venv"]:
    commands = pathlib.Path(words[-1], "bin")
    commands.mkdir(parents=True, exist_ok=True)
    for command in ("python", "foldertune"):
        shutil.copy(sys.argv[0], commands / command)
script = pathlib.Path({{script!r}})
for line in script.read_text().splitlines() if script.exists() else ():
    wanted, code, text = line.split("|")
    if wanted in " ".join(words):
        print(text)
        sys.exit(int(code))
"""
needs_shebang = pytest.mark.skipif(os.name == "nt", reason="the fake interpreter is a script with a shebang")


class Machine:
    """A checkout, a cache folder and a fake interpreter in a temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.checkout, self.home = folder / "check out", folder / "home"
        self._calls, self._script, self.interpreter = folder / "calls", folder / "script", folder / "python"
        (self.checkout / "foldertune").mkdir(parents=True)
        for name in ("pyproject.toml", "constraints.txt", "start.py"):
            shutil.copy(PROJECT / name, self.checkout / name)
        (self.checkout / "foldertune" / "__init__.py").write_text('__version__ = "0.1.0"\n', "utf-8")
        self.interpreter.write_text(FAKE.format(calls=str(self._calls), script=str(self._script)), "utf-8")
        self.interpreter.chmod(0o755)

    def fails(self, *rules: tuple[str, int, str]) -> None:
        """From now on a command that contains the text ends with this code after printing that."""
        self._script.write_text("\n".join(f"{text}|{code}|{said}" for text, code, said in rules), "utf-8")

    def calls(self) -> list[str]:
        """What the fake was asked since the last time that we looked."""
        lines = self._calls.read_text("utf-8").splitlines() if self._calls.exists() else []
        self._calls.unlink(missing_ok=True)
        return lines

    def change(self, name: str, old: str, new: str) -> None:
        """Edit a file of the checkout."""
        text = (self.checkout / name).read_text("utf-8")
        assert old in text
        (self.checkout / name).write_text(text.replace(old, new), "utf-8")

    def environment(self, python: str = "3.11.7 linux") -> start.Environment:
        """What start.py finds for the checkout as it is now."""
        return start.find_environment(self.checkout, self.home, python)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine of one's own; start.py works in its checkout, with its fake interpreter."""
    made = Machine(tmp_path)
    monkeypatch.setattr(start, "ROOT", made.checkout)
    monkeypatch.setattr(sys, "executable", str(made.interpreter))
    monkeypatch.setenv("FOLDERTUNE_HOME", str(made.home))
    monkeypatch.setenv("FOLDERTUNE_BROWSER", REAL_PYTHON)  # none is ever installed for these tests
    return made


@pytest.mark.parametrize(
    ("variables", "platform", "expected"),
    [
        ({}, "linux", HOME / ".cache" / "foldertune"),
        ({"XDG_CACHE_HOME": ""}, "linux", HOME / ".cache" / "foldertune"),
        ({"XDG_CACHE_HOME": "relative"}, "linux", HOME / ".cache" / "foldertune"),
        ({"XDG_CACHE_HOME": str(Path("/fast").absolute())}, "linux", Path("/fast").absolute() / "foldertune"),
        ({"XDG_CACHE_HOME": "/fast", "LOCALAPPDATA": "/local"}, "darwin", HOME / "Library" / "Caches" / "foldertune"),
        ({}, "win32", HOME / "AppData" / "Local" / "foldertune"),
        ({"LOCALAPPDATA": "/local", "XDG_CACHE_HOME": "/fast"}, "win32", Path("/local/foldertune")),
        ({"FOLDERTUNE_HOME": "", "XDG_CACHE_HOME": ""}, "freebsd14", HOME / ".cache" / "foldertune"),
    ],
)
def test_cache_folder_by_platform_follows_its_convention(
    variables: dict[str, str], platform: str, expected: Path
) -> None:
    assert start.cache_folder(variables, platform, HOME) == expected


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_cache_folder_with_foldertune_home_is_that_folder_absolute(platform: str) -> None:
    variables = {"FOLDERTUNE_HOME": "here", "XDG_CACHE_HOME": "/fast", "LOCALAPPDATA": "/local"}
    assert start.cache_folder(variables, platform, HOME) == Path.cwd() / "here"


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("constraints.txt", "torch==", "torch==1."),
        ("pyproject.toml", "psutil>=6.0", "psutil>=6.1"),
        ("pyproject.toml", "hatchling>=1.27", "hatchling>=1.28"),
        ("pyproject.toml", '"hypothesis", ', ""),
        ("pyproject.toml", "pillow-heif>=1.1", "pillow-heif>=1.2"),
    ],
)
def test_find_environment_other_dependencies_get_another_folder(
    machine: Machine, name: str, old: str, new: str
) -> None:
    before = machine.environment().folder
    machine.change(name, old, new)
    assert machine.environment().folder != before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("foldertune/__init__.py", "0.1.0", "0.2.0"),
        ("pyproject.toml", "foldertune.__main__:main", "foldertune.cli:main"),
    ],
)
def test_find_environment_other_metadata_keep_the_folder_and_change_the_stamp(
    machine: Machine, name: str, old: str, new: str
) -> None:
    before = machine.environment()
    machine.change(name, old, new)
    assert machine.environment().folder == before.folder
    assert machine.environment().stamp != before.stamp


def test_find_environment_code_and_linter_settings_change_nothing_and_nothing_is_made(machine: Machine) -> None:
    before = machine.environment()
    machine.change("pyproject.toml", "line-length = 120", "line-length = 100")
    (machine.checkout / "foldertune" / "__init__.py").write_text('__version__ = "0.1.0"\nnew = 1\n', "utf-8")
    assert machine.environment() == before
    assert not machine.home.exists()


def test_find_environment_other_python_or_checkout_gets_another_folder(machine: Machine, tmp_path: Path) -> None:
    shutil.copytree(machine.checkout, tmp_path / "copy")
    python = "3.11.7 linux"
    folders = {
        machine.environment(python).folder,
        machine.environment("3.12.1 linux").folder,
        start.find_environment(tmp_path / "copy", machine.home, python).folder,
    }
    assert len(folders) == 3
    assert {folder.parent for folder in folders} == {machine.home}


@needs_shebang
def test_start_first_time_makes_second_time_only_looks(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert start.main(["shell-path"]) == 0
    first = capsys.readouterr()
    venv, builder, package = machine.calls()
    assert venv.startswith("venv --clear")
    assert builder.startswith("pip install")
    assert builder.endswith("-c constraints.txt hatchling editables")
    assert package.endswith("-c constraints.txt --no-build-isolation -e .")
    assert Path(first.out.strip()).parent.parent.parent == machine.home
    assert "once, a few minutes" in first.err
    assert start.main(["shell-path"]) == 0
    assert machine.calls() == []
    assert capsys.readouterr() == (first.out, "")


@needs_shebang
def test_start_after_a_new_version_installs_into_the_same_environment(machine: Machine) -> None:
    start.ready_environment("run")
    machine.calls()
    machine.change("foldertune/__init__.py", "0.1.0", "0.2.0")
    start.ready_environment("run")
    assert [call.split()[0] for call in machine.calls()] == ["pip", "pip"]
    start.ready_environment("run")
    assert machine.calls() == []


@needs_shebang
def test_start_test_group_is_added_to_the_environment_and_stays(machine: Machine) -> None:
    start.ready_environment("run")
    machine.calls()
    start.ready_environment("test")
    group = start.read_project(machine.checkout)["dependency-groups"]["dev"]
    assert machine.calls()[-1].split()[-len(group) - 2 :] == ["-e", ".", *group]
    machine.change("foldertune/__init__.py", "0.1.0", "0.2.0")
    start.ready_environment("run")
    machine.calls()
    start.ready_environment("test")
    assert machine.calls() == []


@needs_shebang
@pytest.mark.parametrize(
    ("step", "printed", "advice"),
    [
        ("venv", "The virtual environment was not created because ensurepip is not available", "python3-venv"),
        ("venv", "python3: No module named venv", "python3-venv"),
        ("pip", "ERROR: [Errno 28] No space left on device", "disk is full"),
        ("pip", "ERROR: [WinError 112] There is not enough space on the disk", "disk is full"),
        ("pip", "ERROR: [Errno 13] Permission denied: '/usr/lib'", "FOLDERTUNE_HOME"),
        ("pip", "WARNING: Retrying after connection broken by 'NewConnectionError'", "connect to the network"),
        ("pip", "ERROR: No matching distribution found for torch==2.13.0", "Python 3.11 to 3.14"),
        ("pip", "ERROR: ResolutionImpossible: for help visit", "Python 3.11 to 3.14"),
        ("pip", "ERROR: something new", "lines above"),
    ],
)
def test_start_when_a_step_fails_says_why_and_what_to_do(
    machine: Machine, capsys: pytest.CaptureFixture[str], step: str, printed: str, advice: str
) -> None:
    machine.fails((step, 1, printed))
    assert start.main(["shell-path"]) == 4
    out, err = capsys.readouterr()
    (log,) = machine.home.glob("*/log.txt")
    assert out == ""
    assert printed in err
    assert printed in log.read_text("utf-8")
    assert advice in err.splitlines()[-1]
    assert f"Then repeat the command. The whole log: {log}" in err.splitlines()[-1]
    assert "Traceback" not in err


@needs_shebang
def test_start_after_a_failure_makes_the_environment_anew(machine: Machine) -> None:
    machine.fails(("-e .", 1, "broken"))
    assert start.main(["shell-path"]) == 4
    machine.fails()
    machine.calls()
    assert start.main(["shell-path"]) == 0
    assert [call.split()[0] for call in machine.calls()] == ["venv", "pip", "pip"]


@needs_shebang
def test_start_when_the_test_group_fails_leaves_what_worked(machine: Machine) -> None:
    start.ready_environment("run")
    machine.fails(("pytest", 1, "no network"))
    assert start.main(["test"]) == 4
    machine.calls()
    assert start.main(["shell-path"]) == 0
    assert machine.calls() == []


@needs_shebang
@pytest.mark.parametrize("group", ["run", "test"])
def test_start_killed_in_the_middle_never_uses_what_is_half_made(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, group: str
) -> None:
    run_logged = start.run_logged
    if group == "test":
        start.ready_environment("run")

    def killed(command: list[str], *rest: object) -> None:
        if "-e" in command:
            raise KeyboardInterrupt

    monkeypatch.setattr(start, "run_logged", killed)
    with pytest.raises(KeyboardInterrupt):
        start.ready_environment(group)
    monkeypatch.setattr(start, "run_logged", run_logged)
    machine.calls()
    assert start.ready_environment("run").holds("run")
    assert machine.calls()[0].startswith("venv --clear")


@needs_shebang
def test_start_when_its_python_is_gone_makes_the_environment_anew(machine: Machine) -> None:
    environment = start.ready_environment("run")
    environment.command("python").unlink()
    assert not environment.holds("run")
    machine.calls()
    start.ready_environment("run")
    assert machine.calls()[0].startswith("venv --clear")


def test_try_lock_while_another_holds_it_is_refused_and_free_after(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("ab") as other:
        with start.locked(tmp_path / "lock"):
            assert not start.try_lock(other.fileno())
        assert start.try_lock(other.fileno())


@needs_shebang
def test_start_two_at_once_the_second_waits_and_uses_what_the_first_made(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: queue.Queue[str] = queue.Queue()
    monkeypatch.setattr(start, "say", said.put)
    environment = start.find_environment(machine.checkout, machine.home, start.this_python())
    environment.folder.mkdir(parents=True)
    with ThreadPoolExecutor(1) as pool:
        with start.locked(environment.folder / "lock"):
            second = pool.submit(start.ready_environment, "run")
            assert "waiting for it" in said.get(timeout=60)
            start.build(environment, "run")
        assert second.result(timeout=60) == environment
    assert [call.split()[0] for call in machine.calls()] == ["venv", "pip", "pip"]


@needs_shebang
@pytest.mark.parametrize(("verb", "expected"), [(["run", "train", "my photos"], "train my photos"), (["demo"], "demo")])
def test_start_passes_arguments_output_and_exit_code_through(machine: Machine, verb: list[str], expected: str) -> None:
    start.ready_environment("run")
    machine.calls()
    machine.fails((expected, 7, "an answer"))
    command = [REAL_PYTHON, str(machine.checkout / "start.py"), *verb]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "an answer\n", "")
    assert machine.calls() == [f"foldertune {expected}"]


@needs_shebang
@pytest.mark.parametrize(
    ("failures", "code"),
    [((), 0), ((("mypy", 5, ""),), 5), ((("format", 3, ""), ("-m pytest", 1, "")), 3), ((("-m pytest", 2, ""),), 2)],
)
def test_start_test_runs_every_check_and_ends_with_the_first_failure(
    machine: Machine, failures: tuple[tuple[str, int, str], ...], code: int
) -> None:
    start.ready_environment("test")
    machine.calls()
    machine.fails(*failures)
    assert start.main(["test", "-k", "split"]) == code
    calls = machine.calls()
    assert [" ".join(call.split()[:2]) for call in calls[:3]] == ["ruff check", "ruff format", "mypy"]
    assert calls[3].startswith("pytest -n 2 -o cache_dir=")
    assert calls[3].endswith("-k split")
    assert len(calls) == 4


def test_child_variables_keep_caches_out_of_the_checkout_and_the_users_own_settings(tmp_path: Path) -> None:
    variables = start.child_variables(tmp_path, {"MYPY_CACHE_DIR": "mine", "PATH": "/bin"})
    assert variables["MYPY_CACHE_DIR"] == "mine"
    assert variables["PATH"] == "/bin"
    others = [value for name, value in variables.items() if name not in ("MYPY_CACHE_DIR", "PATH")]
    assert len(others) >= 2
    assert all(tmp_path in Path(value).parents for value in others)


@pytest.mark.parametrize("arguments", [[], ["tests"], ["shell-path", "x"], ["--verbose", "demo"]])
def test_start_wrong_usage_shows_the_verbs_and_ends_with_2(arguments: list[str]) -> None:
    command = [sys.executable, str(PROJECT / "start.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert all(f"python3 start.py {verb}" in done.stderr for verb in start.VERBS)
    assert f"Given: {' '.join(arguments) or 'nothing'}. Accepted:" in done.stderr


def test_start_help_goes_to_stdout() -> None:
    command = [sys.executable, str(PROJECT / "start.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(f"python3 start.py {verb}" in done.stdout for verb in start.VERBS)


def test_start_home_that_cannot_be_a_folder_is_a_sentence(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.home.write_text("a file", "utf-8")
    assert start.main(["shell-path"]) == 4
    assert "Set FOLDERTUNE_HOME to a folder that you may write to" in capsys.readouterr().err


def test_start_source_is_readable_to_python_3_7_and_imports_the_standard_library_alone() -> None:
    tree = ast.parse((PROJECT / "start.py").read_text("utf-8"), feature_version=(3, 7))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names


def test_start_under_an_old_python_says_so_and_ends_with_4() -> None:
    code = f"import runpy, sys; sys.version_info = (3, 10, 1); runpy.run_path({str(PROJECT / 'start.py')!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert done.stderr.startswith("Foldertune needs Python 3.11 or later")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_start_real_venv_and_pip_without_an_index_fail_with_a_sentence(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", REAL_PYTHON)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    assert start.main(["run", "--version"]) == 4
    assert "known to work: 64-bit Python 3.11 to 3.14. Then repeat the command" in capsys.readouterr().err


def program(folder: Path, name: str, body: str = "exit 0") -> Path:
    """A command that a PATH of this folder alone has."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n", "utf-8")
    path.chmod(0o755)
    return path


@needs_shebang
def test_find_browser_is_the_named_one_else_the_first_on_the_path(tmp_path: Path) -> None:
    path = {"PATH": str(tmp_path / "bin")}
    assert start.find_browser(path) is None
    chrome = program(tmp_path / "bin", "google-chrome")
    assert start.find_browser(path) == str(chrome)
    chromium = program(tmp_path / "bin", "chromium")
    assert start.find_browser(path) == str(chromium)
    mine = program(tmp_path / "mine", "my-browser")
    assert start.find_browser({**path, "FOLDERTUNE_BROWSER": str(mine)}) == str(mine)
    assert start.find_browser({**path, "FOLDERTUNE_BROWSER": str(tmp_path / "none")}) is None


@needs_shebang
def test_browser_steps_are_for_root_with_apt_get_and_without_a_browser(tmp_path: Path) -> None:
    path = {"PATH": str(tmp_path / "bin")}
    assert start.browser_steps(path, is_root=True) == []
    apt = program(tmp_path / "bin", "apt-get")
    update, install = start.browser_steps(path, is_root=True)
    assert update == [str(apt), "update"]
    assert (install[0], install[1], install[-1]) == (str(apt), "install", "chromium")
    assert start.browser_steps(path, is_root=False) == []
    # Who names a browser that is not there is told so, and gets no other.
    assert start.browser_steps({**path, "FOLDERTUNE_BROWSER": "none"}, is_root=True) == []
    program(tmp_path / "bin", "chromium")
    assert start.browser_steps(path, is_root=True) == []


@needs_shebang
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("echo got $*", "Installing Chromium, in which the report is tested (once)"),
        ("echo no route; exit 100", "Chromium could not be installed ("),
        (None, f"the tests of the report in one are skipped. To have them, {start.GET_BROWSER}."),
    ],
)
def test_bring_browser_installs_it_or_says_why_not(
    body: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("FOLDERTUNE_BROWSER", raising=False)
    if body is not None:
        program(tmp_path / "bin", "apt-get", body)
    start.bring_browser(start.Environment(tmp_path, "stamp"))
    assert said in capsys.readouterr().err
    if body is not None:
        log = (tmp_path / "log.txt").read_text("utf-8").splitlines()
        assert log == (
            ["no route"] if "route" in body else ["got update", "got install -y --no-install-recommends chromium"]
        )
