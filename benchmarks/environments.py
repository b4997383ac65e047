"""The peers' environments: one for each requirements file in peers/, made once outside the checkout, and used again.

They lie in FOLDERTUNE_BENCHMARKS, else in `foldertune-benchmarks` in the user's cache folder, and may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

PEERS = Path(__file__).resolve().with_name("peers")
# What a shell may hold that would change how another interpreter loads, compiles or multiplies.
_OURS_ALONE = ("PYTHONPATH", "PYTHONPYCACHEPREFIX", "PYTHONDONTWRITEBYTECODE", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
_REASON_LENGTH = 160
THREADS_VARIABLE = "FOLDERTUNE_BENCHMARK_THREADS"  # how many cores a measured process may use: bare.py


class PeerError(Exception):
    """Why a peer cannot take part: one line, for the table."""


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment that holds one peer."""

    folder: Path

    @property
    def python(self) -> str:
        return str(self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))

    def versions(self, packages: Sequence[str]) -> str:
        """Such as "torch 2.13.0, timm 1.0.31"; what is not installed is left out."""
        places = {"base": str(self.folder), "platbase": str(self.folder)}
        found = importlib.metadata.distributions(path=[sysconfig.get_path("purelib", "venv", places)])
        version_of = {each.name.lower(): each.version for each in found}
        return ", ".join(f"{name} {version_of[name.lower()]}" for name in packages if name.lower() in version_of)


def benchmark_folder(variables: Mapping[str, str], home: Path) -> Path:
    """Where environments, model files and stored results are kept between benchmarks."""
    if given := variables.get("FOLDERTUNE_BENCHMARKS"):
        return Path(given).expanduser().absolute()
    if sys.platform == "win32":
        cache = Path(variables.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        cache = home / "Library" / "Caches"
    else:
        cache = Path(variables.get("XDG_CACHE_HOME") or home / ".cache")
    return cache / "foldertune-benchmarks"


def place(name: str) -> Path:
    """A folder for one kind of thing that benchmarks keep; it is there afterwards."""
    folder = benchmark_folder(os.environ, Path.home()) / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def peer_variables(threads: int) -> dict[str, str]:
    """The environment of every process that is measured: so many threads, nothing from a hub, no settings of this shell."""
    kept = {name: value for name, value in os.environ.items() if name not in _OURS_ALONE}
    count = str(threads)
    return {
        **kept, THREADS_VARIABLE: count, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count,
        "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "YOLO_CONFIG_DIR": str(place("settings")),
        "YOLO_OFFLINE": "true", "MPLCONFIGDIR": str(place("settings")),
    }  # fmt: skip


def environment(name: str) -> Environment:
    """The environment of peers/NAME.txt, made now if it is not there. Raises PeerError with the reason where it cannot be."""
    requirements = PEERS / f"{name}.txt"
    stamp = hashlib.sha256(requirements.read_bytes() + platform.python_version().encode()).hexdigest()[:12]
    folder = place("environments") / f"{name}-{stamp}"
    ready = folder / "ready"
    with FileLock(folder.with_suffix(".lock")):
        if not ready.exists():
            print(f"Making the environment {folder.name} ...", file=sys.stderr, flush=True)
            shutil.rmtree(folder, ignore_errors=True)
            _make(folder, requirements)
            ready.touch()
    return Environment(folder)


def _make(folder: Path, requirements: Path) -> None:
    variables = {name: value for name, value in os.environ.items() if name not in _OURS_ALONE}
    python = Environment(folder).python
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(requirements)]
    for command in ([sys.executable, "-m", "venv", str(folder)], install):
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        if done.returncode:
            shutil.rmtree(folder, ignore_errors=True)
            raise PeerError(f"could not be installed: {reason_of(done.stderr)}")


def reason_of(log: str) -> str:
    """The line of a failed command's log that says most: the last error, else the last line; without this machine's folders."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR") or "Error:" in line]
    line = (errors or lines or ["it gave no reason"])[-1]
    for folder in (benchmark_folder(os.environ, Path.home()), Path.home()):
        line = line.replace(str(folder), "...")
    return line if len(line) <= _REASON_LENGTH else line[: _REASON_LENGTH - 3] + "..."
