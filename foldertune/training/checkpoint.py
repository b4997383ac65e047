"""Saved training states: complete or absent, checked by hash. No pickle: tensors in safetensors, the rest in JSON.

A state is two files: `save-000012.safetensors`, and then its marker `save-000012.json` with the other file's size and sha256
and everything that is no tensor. The marker is written last; a state without one does not count. Names count the saves and
are never used twice, so that nothing complete is ever written over: not by a second save at the same step, and not by a run
that went back to an older state. Older states are deleted only after the new one is complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foldertune.errors import WorkFailedError
from foldertune.models.tensor_file import write_tensors
from foldertune.run import write_json, written_whole

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class State:
    """Everything that training needs to go on. `tensors`: flat names; `facts`: JSON-ready."""

    step: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def save_state(folder: Path, state: State, *, keep_last: int = 2) -> Path:
    """Write a state, then delete older ones beyond `keep_last`: by default one stays to fall back on.

    Raises WorkFailedError; the older states are then untouched.
    """
    path = folder / f"save-{1 + _last_number(folder):06d}.safetensors"
    size, sha256 = save_tensors(path, state.tensors)
    marker = {"step": state.step, "size": size, "sha256": sha256, "facts": state.facts}
    write_json(path.with_suffix(".json"), marker)
    for old in _markers(folder)[keep_last:]:
        _remove(
            old, old.with_suffix(".safetensors")
        )  # the marker first: a state without tensors must never look complete
    return path


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> tuple[int, str]:
    """Write a safetensors file, complete or not at all. Returns its size in bytes and its sha256."""
    with written_whole(path) as temporary:
        write_tensors(temporary, tensors)
        return temporary.stat().st_size, file_sha256(temporary)


def load_state(folder: Path) -> tuple[State | None, list[str]]:
    """The newest complete state, or None; and a sentence for each newer one that was refused."""
    from safetensors.torch import load_file

    refused = []
    for marker in _markers(folder):
        path = marker.with_suffix(".safetensors")
        try:
            facts = json.loads(marker.read_text(encoding="utf-8"))
            state = State(facts["step"], {}, facts["facts"])
            problem = _mismatch(path, size=facts["size"], sha256=facts["sha256"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            refused.append(f"The saved state {marker.name} cannot be read ({error}).")
            continue
        if problem:
            refused.append(f"The saved state {path.name} was cut short or changed: {problem}.")
            continue
        return replace(state, tensors=load_file(path)), refused
    return None, refused


def _mismatch(path: Path, *, size: int, sha256: str) -> str:
    """How a file differs from what its marker says; empty where it does not."""
    if path.stat().st_size != size:
        return f"it has {path.stat().st_size:,} bytes instead of {size:,}, so its hash cannot match"
    found = file_sha256(path)
    return "" if found == sha256 else f"its sha256 is {found} instead of {sha256}"


def remove_states(folder: Path) -> None:
    """Delete every state of a finished run."""
    _remove(*_markers(folder), *folder.glob("save-*.safetensors"))


def remove_unfinished(folder: Path) -> None:
    """Delete tensors whose marker was never written."""
    _remove(*(path for path in folder.glob("save-*.safetensors") if not path.with_suffix(".json").exists()))


def file_sha256(path: Path) -> str:
    """The hash of a file's content, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def flatten(prefix: str, values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": value for name, value in values.items()}


def unflatten(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under a prefix, without it."""
    return {name[len(prefix) + 1 :]: value for name, value in tensors.items() if name.startswith(f"{prefix}/")}


def optimizer_tensors(optimizer: Any) -> dict[str, Tensor]:
    """The optimizer's state as flat tensors: NUMBER_OF_PARAMETER.NAME."""
    state = optimizer.state_dict()["state"]
    return {
        f"{number}.{name}": value
        for number, values in state.items()
        for name, value in values.items()
        if value is not None
    }


def restore_optimizer(optimizer: Any, tensors: dict[str, Tensor]) -> None:
    """Put `optimizer_tensors` back into an optimizer over the same parameters."""
    import torch

    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = value
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if any(number >= len(parameters) for number in state):
        raise WorkFailedError("The saved optimizer state belongs to another network than the run's plan names.")
    for place, values in state.items():
        like = parameters[place].detach()
        for name, value in values.items():
            if (
                value.shape == like.shape
            ):  # laid out in memory as before the interruption, whatever kernels make of that
                values[name] = torch.empty_like(like, dtype=value.dtype).copy_(value)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _markers(folder: Path) -> list[Path]:
    """The newest first."""
    return sorted(folder.glob("save-*.json"), reverse=True)


def _last_number(folder: Path) -> int:
    return max((int(path.stem.removeprefix("save-")) for path in folder.glob("save-[0-9]*.*")), default=0)


def _remove(*paths: Path) -> None:
    """Delete files, in this order. One that cannot be deleted costs space, not the training."""
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
