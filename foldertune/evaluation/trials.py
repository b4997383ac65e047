"""What was found about engines on this machine, and the memory of it.

What was judged lies beside the model's prepared forms, for each machine that shares the folder. This process also remembers
what it could not try or not write down: pictures that are away, memory that was short, a cache that takes nothing.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from foldertune.cache import cache_folder
from foldertune.engines.shelf import shelf_key
from foldertune.evaluation.saved_model import SavedModel
from foldertune.machine import gpu_name, num_cores, processor_name, version_of
from foldertune.records import Interval

MOST_MACHINES = 8  # that share a folder and are remembered; an update of a library makes a machine another one


class Spec(NamedTuple):
    """What can be tried."""

    engine: str
    precision: str
    device: str

    @property
    def name(self) -> str:
        return f"{self.engine} {self.precision}" + (f" on {self.device}" if self.device != "cpu" else "")


@dataclass(frozen=True, slots=True)
class Trial:
    """What was found about one engine. refused: why it is not chosen by itself; empty where it may be.

    pictures_per_s: in batches of 8.   latency_ms: of one picture, without decoding.   difference: of golden logits, over the
    largest.   agreement: share of validation pictures (else golden ones) answered as in float32.
    accuracy_loss: on validation, float32 less this, with its 95 % interval; None where nothing less exact is judged.
    """

    engine: str
    precision: str
    device: str = "cpu"
    pictures_per_s: float = 0.0
    latency_ms: float = 0.0
    difference: float | None = None
    agreement: float | None = None
    num_judged: int = 0
    accuracy_loss: Interval | None = None
    refused: str = ""

    @property
    def spec(self) -> Spec:
        return Spec(self.engine, self.precision, self.device)

    @property
    def name(self) -> str:
        return self.spec.name


_of_this_process: dict[str, dict[Spec, Trial]] = {}


def read_trials(saved: SavedModel) -> tuple[Trial, ...]:
    """What was tried on this machine with these versions; what this process found itself goes before what was written down."""
    return tuple({**_written(saved), **_of_this_process.get(_key(saved), {})}.values())


def remember(saved: SavedModel, trial: Trial, *, judged: bool) -> None:
    """Keep a trial, where it was `judged` also for later processes, as far as the cache can be written."""
    _of_this_process.setdefault(_key(saved), {})[trial.spec] = trial
    if not judged:
        return
    trials = {**_written(saved), trial.spec: trial}
    machines = {name: rows for name, rows in _machines(saved).items() if name != _machine()}
    machines = dict(list(machines.items())[1 - MOST_MACHINES :])
    saved.shelf.write_trials({"machines": {**machines, _machine(): [asdict(each) for each in trials.values()]}})


def _written(saved: SavedModel) -> dict[Spec, Trial]:
    """Of this machine; nothing where it cannot be read."""
    try:
        found = [_restored(row) for row in _machines(saved).get(_machine(), [])]
    except (KeyError, TypeError):
        return {}
    return {trial.spec: trial for trial in found}


def _machines(saved: SavedModel) -> dict[str, Any]:
    """Rows of trials by machine, the one first that was written longest ago."""
    found = saved.shelf.read_trials().get("machines")
    return found if isinstance(found, dict) else {}


def _restored(row: Mapping[str, Any]) -> Trial:
    loss = row["accuracy_loss"]
    return Trial(**{**row, "accuracy_loss": Interval(**loss) if loss else None})


def _key(saved: SavedModel) -> str:
    """The model as it is now, on this machine, with the forms of this cache."""
    return shelf_key(saved.run.model, machine=_machine(), cache=str(cache_folder()))


def _machine() -> str:
    """A name for what speeds and answers hold for."""
    facts = {"processor": processor_name(), "cores": num_cores(), "gpu": gpu_name(), **_versions()}
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


@functools.cache
def _versions() -> Mapping[str, str]:
    return {name: version_of(name) for name in ("foldertune", "openvino", "onnxruntime", "torch", "nncf")}
