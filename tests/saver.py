"""Saves states until it is killed, telling after each; for tests that kill it."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from foldertune.training.checkpoint import State, load_state, save_state

SIDE = 400  # a state of 2.5 MB: some milliseconds to write, so that kills fall into every part of it


def state_of(step: int) -> State:
    """A state that can be told from every other, and from itself with a hole."""
    torch.set_num_threads(1)
    return State(step, {f"model/{name}": torch.full((SIDE, SIDE), float(step)) for name in "abcd"}, {"step": step})


def steps_in(folder: Path) -> int | None:
    state, _ = load_state(folder)
    return state.step if state else None


def is_whole(state: State) -> bool:
    return all(bool((value == state.step).all()) and value.shape == (SIDE, SIDE) for value in state.tensors.values())


def save_for_ever(folder: Path, told: Connection, *, keep_last: int, delay_s: float) -> None:
    """Save step after step. delay_s: at most so long does each sync, rename and unlink take, as on a slow mount."""
    if delay_s:
        for name in ("fsync", "replace", "unlink"):
            setattr(os, name, slowed(getattr(os, name), delay_s))
    step = 0
    while True:
        step += 1
        told.send(("begin", step))
        save_state(folder, state_of(step), keep_last=keep_last)
        told.send(("end", step))


def slowed(call: Callable[..., Any], delay_s: float) -> Callable[..., Any]:
    def slow(*given: Any, **named: Any) -> Any:
        time.sleep(random.uniform(0, delay_s))
        result = call(*given, **named)
        time.sleep(random.uniform(0, delay_s))
        return result

    return slow
