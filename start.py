"""Sets Foldertune up on a fresh machine and runs it. It needs Python 3.11 or later and, the first time, the network.

python3 start.py demo                see it work: real pictures, nothing to download but the packages
python3 start.py test [ARGUMENTS]    the checks and the tests; arguments go to pytest. Reports are tested in a browser: as root
                                     where there is apt-get, Chromium is installed if there is none
python3 start.py run ARGUMENTS       `foldertune ARGUMENTS`, such as: python3 start.py run train my-photos
python3 start.py shell-path          the folder of the commands, to put on PATH

The first time makes a virtual environment outside this folder, in the user's cache, or in FOLDERTUNE_HOME.
It follows changes of the code by itself. Everything in that place may be deleted at any time: it is made again.
"""

import collections
import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# Down to Python 3.6 this file can be read, and gets as far as here: no syntax that is younger.
if sys.version_info < (3, 11):  # noqa: UP036
    sys.stderr.write(f"Foldertune needs Python 3.11 or later; this is {sys.version.split()[0]}. Use a newer one.\n")
    sys.exit(4)

ROOT = Path(__file__).resolve().parent
VERBS = ("demo", "test", "run", "shell-path")
WRITABLE = "Set FOLDERTUNE_HOME to a folder that you may write to"
# What the end of a failed log contains, and what to do then; the first that fits is told.
ADVICE = (
    ("ensurepip|No module named venv", "This Python lacks venv: on Debian and Ubuntu, sudo apt install python3-venv"),
    ("No space left|not enough space", "The disk is full: make room (4 GB, with CUDA 10) or set FOLDERTUNE_HOME"),
    ("Permission denied|Read-only file", WRITABLE),
    ("[Cc]onnection", "The package index cannot be reached: connect to the network, or name a proxy in HTTPS_PROXY"),
    ("No matching|ResolutionImp", "A package has no build for this machine; known to work: 64-bit Python 3.11 to 3.14"),
    ("", "The lines above name the reason"),
)
# Under these names a browser is looked for that the tests of the report can drive.
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
GET_BROWSER = "install Chromium or Chrome, or name its program in FOLDERTUNE_BROWSER"


class SetupError(Exception):
    """The environment could not be made; the message says why and what to do."""


class Environment(NamedTuple):
    """A virtual environment, with its marker, lock, log and caches beside it in one folder."""

    folder: Path
    stamp: str  # of what the package says about itself; after a change it is installed again, which is quick

    def command(self, name: str) -> Path:
        """The path of python, foldertune or another command."""
        return self.folder / "venv" / (f"Scripts/{name}.exe" if os.name == "nt" else f"bin/{name}")

    def contents(self) -> list[str]:
        """What its marker says: the stamp and the groups ("run", "test"); nothing for one that is half-made."""
        marker = self.folder / "ready"
        return marker.read_text("utf-8").split() if marker.exists() and self.command("python").exists() else []

    def holds(self, group: str) -> bool:
        """Whether it is complete, up to date and has this group."""
        return self.contents()[:1] == [self.stamp] and group in self.contents()


def say(text: str) -> None:
    """Tell the user how it goes; stdout belongs to the command."""
    print(f"{text:<74}" if sys.stderr.isatty() else text, file=sys.stderr, flush=True)


def cache_folder(variables: Mapping[str, str], platform: str, home: Path) -> Path:
    """Where caches belong on this system: FOLDERTUNE_HOME, or the folder `foldertune` in the user's cache."""
    if variables.get("FOLDERTUNE_HOME"):
        return Path(variables["FOLDERTUNE_HOME"]).expanduser().absolute()
    if platform == "win32":
        return Path(variables.get("LOCALAPPDATA") or home / "AppData" / "Local") / "foldertune"
    if platform == "darwin":
        return home / "Library" / "Caches" / "foldertune"
    chosen = Path(variables.get("XDG_CACHE_HOME", ""))
    # XDG Base Directory Specification: a relative path is to be ignored.
    return (chosen if chosen.is_absolute() else home / ".cache") / "foldertune"


def digest(*parts: object) -> str:
    """Sixteen hexadecimal digits that change when any of the parts does."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def read_project(root: Path) -> dict[str, Any]:
    """The tables of pyproject.toml."""
    import tomllib

    return tomllib.loads((root / "pyproject.toml").read_text("utf-8"))


def this_python() -> str:
    """What an environment is made for: version and platform."""
    return f"{sys.version.split()[0]} {sysconfig.get_platform()}"


def find_environment(root: Path, cache: Path, python: str) -> Environment:
    """The environment of this checkout and Python: another one for other dependencies or pins. Nothing is made yet."""
    tables, constraints = read_project(root), (root / "constraints.txt").read_text("utf-8")
    needs = [tables["project"].get(name) for name in ("requires-python", "dependencies", "optional-dependencies")]
    key = digest(tables["build-system"], needs, tables["dependency-groups"], constraints, python, str(root))
    init = (root / "foldertune" / "__init__.py").read_text("utf-8").splitlines()
    return Environment(cache / key, digest(tables["project"], [x for x in init if x.startswith("__version__")]))


def child_variables(folder: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """Variables for the commands, with every cache that they would put into the checkout moved into `folder`."""
    places = {"RUFF_CACHE_DIR": "ruff", "MYPY_CACHE_DIR": "mypy", "HYPOTHESIS_STORAGE_DIRECTORY": "hypothesis"}
    if os.name != "nt":  # there the doubled path may be too long
        places["PYTHONPYCACHEPREFIX"] = "bytecode"
    return {**{name: str(folder / "caches" / place) for name, place in places.items()}, **variables}


def try_lock(handle: int) -> bool:
    """Lock an open file unless another process has it; the system unlocks it when this one ends, however it ends."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of this file; wait, and say so, while another process has it."""
    with path.open("ab") as file:
        if not try_lock(file.fileno()):
            say("Another start.py is making the environment; waiting for it ...")
            while not try_lock(file.fileno()):
                time.sleep(0.2)
        yield


def advise(text: str) -> str:
    """What to do about a failure, by what it printed."""
    return next(advice for pattern, advice in ADVICE if re.search(pattern, text))


def run_logged(command: Sequence[str], log: Path, variables: Mapping[str, str]) -> None:
    """Run a step of the set-up, its output into the log; SetupError with the last lines when it fails."""
    tail: collections.deque[str] = collections.deque(maxlen=30)
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8", "errors": "replace"}
    process = subprocess.Popen(command, cwd=ROOT, env=variables, **pipes)
    with process, log.open("a", encoding="utf-8") as file:
        for line in process.stdout or ():
            tail.append(line.rstrip())
            file.write(line)
            if sys.stderr.isatty():  # one line that changes, wiped by the next message
                print(f"  {line.strip()[:70]:<72}", end="\r", file=sys.stderr, flush=True)
    if process.returncode:
        shown = "\n".join(f"    {line}" for line in list(tail)[-12:])
        raise SetupError(
            f"{shown}\nThe set-up failed. {advise(chr(10).join(tail))}. Then repeat the command. The whole log: {log}"
        )


def build(environment: Environment, group: str) -> None:
    """Make or complete the environment; the marker goes first and comes back last, so that no half-made one is used."""
    folder, marker, log = environment.folder, environment.folder / "ready", environment.folder / "log.txt"
    python, variables = str(environment.command("python")), child_variables(folder, os.environ)
    before = environment.contents()
    marker.unlink(missing_ok=True)
    log.unlink(missing_ok=True)
    if not before:
        say(f"Making a virtual environment in {folder} (once, a few minutes) ...")
        run_logged([sys.executable, "-m", "venv", "--clear", str(folder / "venv")], log, variables)
    groups = sorted({"run", group, *before[1:]})
    extra = read_project(ROOT)["dependency-groups"]["dev"] if "test" in groups else []
    say(f"Installing Foldertune with what it needs{' and its tests need' if extra else ''}; details are in {log}")
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "-c", "constraints.txt"]
    try:
        # The builder first, and from the constraints too: an isolated build would fetch whatever is newest.
        run_logged([*pip, "hatchling", "editables"], log, variables)
        run_logged([*pip, "--no-build-isolation", "-e", ".", *extra], log, variables)
    except SetupError:  # pip begins to install when it has everything, so what was there still works
        marker.write_text("\n".join(before), "utf-8")
        raise
    marker.write_text("\n".join([environment.stamp, *groups]), "utf-8")


def find_browser(variables: Mapping[str, str]) -> str | None:
    """The program that FOLDERTUNE_BROWSER names, or the first browser on the PATH."""
    named, path = variables.get("FOLDERTUNE_BROWSER"), variables.get("PATH")
    return next(filter(None, (shutil.which(name, path=path) for name in ([named] if named else BROWSERS))), None)


def browser_steps(variables: Mapping[str, str], *, is_root: bool) -> list[list[str]]:
    """The commands that install a browser: none where there is one, or where this user or system cannot."""
    apt = shutil.which("apt-get", path=variables.get("PATH"))
    if find_browser(variables) or variables.get("FOLDERTUNE_BROWSER") or not is_root or not apt:
        return []
    return [[apt, "update"], [apt, "install", "-y", "--no-install-recommends", "chromium"]]


def bring_browser(environment: Environment) -> None:
    """Install a browser for the tests of the report, or say how to get one; without it they are skipped."""
    if find_browser(os.environ):
        return
    steps = browser_steps(os.environ, is_root=hasattr(os, "geteuid") and os.geteuid() == 0)
    if not steps:
        say(f"There is no browser, so the tests of the report in one are skipped. To have them, {GET_BROWSER}.")
        return
    log = environment.folder / "log.txt"
    say(f"Installing Chromium, in which the report is tested (once); details are in {log}")
    variables = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        with locked(environment.folder / "lock"):
            for step in steps:
                run_logged(step, log, variables)
    except (SetupError, OSError):
        say(f"Chromium could not be installed ({log} says why): the tests of the report in a browser are skipped.")


def ready_environment(group: str) -> Environment:
    """The environment with this group, made if need be."""
    environment = find_environment(ROOT, cache_folder(os.environ, sys.platform, Path.home()), this_python())
    if not environment.holds(group):
        environment.folder.mkdir(parents=True, exist_ok=True)
        with locked(environment.folder / "lock"):
            if not environment.holds(group):  # another one may have made it while we waited
                build(environment, group)
    return environment


def call(command: Sequence[str], **options: Any) -> int:
    """Exit code of a command on our terminal. Ctrl-C reaches it directly, and we wait until it has tidied up."""
    with subprocess.Popen(command, **options) as process:
        while True:
            try:
                code = process.wait()
            except KeyboardInterrupt:
                continue
            return code if code >= 0 else 128 - code


def check(environment: Environment, arguments: Sequence[str]) -> int:
    """Run linter, types and tests, all of them; the exit code of the first that failed."""
    tests = ["pytest", "-n", "2", "-o", f"cache_dir={environment.folder / 'caches' / 'pytest'}", *arguments]
    codes: list[int] = []
    for step in (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"], tests):
        say(f"$ {' '.join(step)}" + (f"    (failed before: {sum(map(bool, codes))})" if any(codes) else ""))
        command = [str(environment.command("python")), "-m", *step]
        codes.append(call(command, cwd=ROOT, env=child_variables(environment.folder, os.environ)))
        if codes[-1] >= 128:
            break
    return next(filter(None, codes), 0)


def become(command: Sequence[str], variables: Mapping[str, str]) -> int:
    """Give this process over to a command; on Windows, where that cannot be done, its exit code."""
    if os.name != "nt":
        os.execve(command[0], list(command), variables)
    return call(command, env=variables)


def main(arguments: Sequence[str]) -> int:
    """Do what was asked; exit codes: that of the command, 2 wrong usage, 4 the set-up failed."""
    verb, rest = (arguments[0], list(arguments[1:])) if arguments else ("", [])
    if verb in ("-h", "--help"):
        print(__doc__)
        return 0
    if verb not in VERBS or (verb == "shell-path" and rest):
        say(f"{__doc__}\nGiven: {' '.join(arguments) or 'nothing'}. Accepted: one of {', '.join(VERBS)}, as above.")
        return 2
    try:
        environment = ready_environment("test" if verb == "test" else "run")
    except (SetupError, OSError) as error:
        say(str(error) if isinstance(error, SetupError) else f"The set-up failed: {error}. {WRITABLE}.")
        return 4
    if verb == "test":
        bring_browser(environment)
        return check(environment, rest)
    if verb == "shell-path":
        print(environment.command("python").parent)
        return 0
    foldertune = [str(environment.command("foldertune")), *(["demo"] if verb == "demo" else []), *rest]
    return become(foldertune, child_variables(environment.folder, os.environ))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        say("Stopped. The same command starts the set-up again.")
        sys.exit(130)
