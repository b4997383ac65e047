"""The run folder: the contract between all parts. Names of files, and writing that is complete or absent, never half.

run.json        schema, versions, seed, device, dataset fingerprint, what was asked, state
dataset.csv     one row per picture            plan.json        every setting with its reason
history.jsonl   one line per epoch             events.jsonl     what a watcher needs, append-only
checkpoints/    complete or absent             model.safetensors, config.json, preprocess.json, labels.txt
predictions.npz, predictions.csv, golden.npz, unlike.npz, metrics.json, look.json, findings.json, report.html, README.md
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foldertune.errors import DataError, MissingError, SettingsError, WorkFailedError
from foldertune.records import Decision, EpochRecord, Event, Forecast, Plan, plain, restored

AnyPath = str | os.PathLike[str]  # a run of the API is one too
SCHEMA = 1  # of run.json; a newer one is refused, an older one is read
_TEMPORARY = ".part-"
_TEMPORARIES = (f"{_TEMPORARY}*", ".tmp*")  # ours, and safetensors' own, which it renames to ours


def fsync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable. Windows cannot open folders; its renames are journalled."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; on a clean exit it becomes `path`, else it is gone.

    Order: write, fsync of the file, rename, fsync of the folder (row T4). The old file stays until the rename.
    An OSError (disk full, read-only, folder gone) becomes WorkFailedError with the path and the reason.
    """
    temporary = path.with_name(f"{_TEMPORARY}{os.getpid()}-{path.name}")
    try:
        temporary.touch()
        mode = (
            temporary.stat().st_mode
        )  # as the user's umask wants it; safetensors makes files that nobody else may read
        yield temporary
        temporary.chmod(mode)
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
        fsync_folder(path.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise WorkFailedError(
            f"{path} could not be written: {reason}. What was there before is unchanged; "
            "free space or mend the permissions, then resume."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file's content, complete or not at all."""
    with written_whole(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    write_bytes(path, content.encode("utf-8", "surrogateescape"))


def write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(plain(content), indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The JSON document of a run; a missing or broken one is named."""
    try:
        return json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing: {path.parent} is no run folder, or not a whole one.") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}). Restore it, or start a new run.") from error


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where everything of one run lies."""

    path: Path

    @property
    def run_json(self) -> Path:
        return self.path / "run.json"

    @property
    def dataset_csv(self) -> Path:
        return self.path / "dataset.csv"

    @property
    def plan_json(self) -> Path:
        return self.path / "plan.json"

    @property
    def history(self) -> Path:
        return self.path / "history.jsonl"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def baseline(self) -> Path:
        """The frozen network with the fitted head: where fine-tuning starts, also after a resume."""
        return self.checkpoints / "baseline.safetensors"

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def preprocess(self) -> Path:
        return self.path / "preprocess.json"

    @property
    def labels(self) -> Path:
        return self.path / "labels.txt"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.npz"

    @property
    def predictions_csv(self) -> Path:
        """The same as a table that a person can open."""
        return self.path / "predictions.csv"

    @property
    def unlike(self) -> Path:
        """How pictures of something else are told."""
        return self.path / "unlike.npz"

    @property
    def golden(self) -> Path:
        """Pictures with the answers that every engine must give."""
        return self.path / "golden.npz"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.json"

    @property
    def look(self) -> Path:
        """What is wrong with the pictures."""
        return self.path / "look.json"

    @property
    def findings(self) -> Path:
        """What was wrong with the run, and what mends it."""
        return self.path / "findings.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def card(self) -> Path:
        return self.path / "README.md"

    def create(self) -> None:
        """Make an empty run folder; one that holds anything is refused, so that no run is ever overwritten.

        A start that was cut off before its plan holds nothing of worth: the same command may begin anew in its place.
        """
        self.discard_without_plan()
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise SettingsError(
                f"The run folder {self.path} exists and is not empty. Give another --run{self._or_go_on()}."
            )
        try:
            self.checkpoints.mkdir(parents=True)
        except OSError as error:
            raise SettingsError(
                f"The run folder {self.path} cannot be made: {error.strerror}. Give another --run."
            ) from error

    def begin(self, folder: str, settings: Mapping[str, Any], sources: Mapping[str, Any]) -> None:
        """`create` it, and note what was asked."""
        self.create()
        facts = {
            "schema": SCHEMA,
            "state": "started",
            "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "versions": environment(),
        }
        write_json(self.run_json, {**facts, "folder": folder, "settings": settings, "sources": sources})

    def discard_without_plan(self) -> None:
        """Remove the folder of a run that never got to its plan; any other stays as it is."""
        if not self._never_got_to_a_plan():
            return
        with self.locked():
            for path in (self.events, self.dataset_csv, self.run_json):
                path.unlink(missing_ok=True)
            self.remove_orphans()
        (self.path / ".lock").unlink(missing_ok=True)
        self.checkpoints.rmdir()
        self.path.rmdir()

    def _or_go_on(self) -> str:
        if not self.run_json.exists():
            return ""
        if self.open().get("state") == "finished":
            return "; the run in it is finished"
        return f", or go on with it: `foldertune train --resume {self.path}`"

    def _never_got_to_a_plan(self) -> bool:
        """Whether it holds nothing but what a start leaves that was cut off, perhaps before it wrote the first file."""
        if not self.checkpoints.is_dir() or any(self.checkpoints.iterdir()):
            return False
        known = {"run.json", "events.jsonl", "dataset.csv", ".lock", "checkpoints"}
        return all(path.name in known or path.name.startswith(_TEMPORARY) for path in self.path.iterdir())

    def open(self) -> dict[str, Any]:
        """run.json of an existing run, its schema checked."""
        if not self.path.is_dir():
            raise MissingError(f"There is no run folder {self.path}. Give the folder that `train --run` made.")
        facts = read_json(self.run_json)
        if not isinstance(facts, dict) or not isinstance(facts.get("schema"), int):
            raise DataError(f"{self.run_json} is not a run's record (no schema number).")
        if facts["schema"] > SCHEMA:
            raise DataError(
                f"{self.path} was written by a newer version (schema {facts['schema']}; this one knows {SCHEMA}). Update foldertune."
            )
        return facts

    def refuse_unfinished(self, consequence: str) -> None:
        """Raise DataError for a run that has not come to its end.   consequence: what is therefore not there."""
        if self.open().get("state") != "finished":
            raise DataError(
                f"The run {self.path} is not finished, {consequence}. Go on with `foldertune train --resume {self.path}`."
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else goes through this run while inside; raises WorkFailedError where another process does already.

        The system takes the lock back when the process ends, however it ends. A file system without locks goes without.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise WorkFailedError(
                f"Another process is going through {self.path} at this moment. Wait until it ends, or stop it first."
            ) from error
        except (OSError, NotImplementedError):
            pass
        try:
            yield
        finally:
            lock.release()

    def remove_orphans(self) -> int:
        """Delete temporary files that a killed process left behind; returns how many there were."""
        orphans = [
            path
            for folder in (self.path, self.checkpoints)
            if folder.is_dir()
            for pattern in _TEMPORARIES
            for path in folder.glob(pattern)
        ]
        for orphan in orphans:
            with contextlib.suppress(OSError):  # one that cannot be deleted costs space, not the run
                orphan.unlink(missing_ok=True)
        return len(orphans)

    def update(self, **facts: Any) -> None:
        """Change some facts of run.json."""
        write_json(self.run_json, {**read_json(self.run_json), **facts})

    def write_plan(self, plan: Plan) -> None:
        write_json(self.plan_json, plan.decisions)

    def read_plan(self) -> Plan:
        rows = read_json(self.plan_json)
        facts = read_json(self.run_json)
        forecast = facts.get("forecast")
        try:
            return Plan(
                tuple(Decision(**row) for row in rows),
                restored(Forecast, forecast) if forecast else None,
                tuple(facts.get("plan_warnings", ())),
            )
        except (TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{self.plan_json} is not a plan of this version: {error}.") from error

    def write_history(self, history: list[EpochRecord]) -> None:
        write_text(self.history, "".join(json.dumps(plain(record)) + "\n" for record in history))

    def read_history(self) -> list[EpochRecord]:
        if not self.history.exists():
            return []
        known = {item.name for item in dataclasses.fields(EpochRecord)}
        try:
            rows = [json.loads(line) for line in self.history.read_text(encoding="utf-8").splitlines()]
            return [EpochRecord(**{key: value for key, value in row.items() if key in known}) for row in rows]
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise DataError(f"{self.history} cannot be read ({error}). Restore it, or start a new run.") from error

    def append_event(self, event: Event) -> None:
        """One line, one write: a reader never sees half of it. A full disk must not end the run, the checkpoint will say so."""
        line = json.dumps(plain(event), ensure_ascii=False) + "\n"
        with contextlib.suppress(OSError), self.events.open("a", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write(line)

    def minutes_spent(self, *, until: float | None = None) -> float:
        """Wall-clock minutes of every attempt at this run so far, also of those that were killed: as the events tell.

        until: the time by the clock, for an attempt that is not over; else the last event counts as its end.
        """
        with contextlib.suppress(OSError):
            lines = self.events.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
            return _minutes_spent(lines, until)
        return 0.0


def _minutes_spent(lines: list[str], until: float | None) -> float:
    """From each "started" to the last event before the next one. Lines that are no events are passed over."""
    seconds, began = 0.0, 0.0
    last = began
    for line in lines:
        with contextlib.suppress(ValueError, TypeError, KeyError):
            told = json.loads(line)
            kind, now = told["kind"], float(told["time"])
            if kind == "started":
                seconds, began = seconds + last - began, now
            last = now
    return (seconds + (last if until is None else max(last, until)) - began) / 60


def event(kind: str, **facts: Any) -> Event:
    """An event that happens now."""
    return Event(kind, time.time(), plain(facts))


def environment() -> Mapping[str, str]:
    """The versions that a run depends on, without importing them."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    versions = {"python": platform.python_version(), "platform": sys.platform, "machine": platform.machine()}
    for name in ("foldertune", "torch", "numpy", "pillow", "openvino", "safetensors"):
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
