"""Saved states under damage and kills: refused by name, and a complete one lies on disk at every instant (rows T3, T6, T7)."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from saver import is_whole, save_for_ever, state_of

from foldertune.run import RunFolder
from foldertune.training.checkpoint import State, load_state, remove_unfinished, save_state

# --------------------------------------------------------------------------------------------------------- T6: damage


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGE: dict[str, Callable[[Path], None]] = {
    "a flipped bit": flip_a_byte,
    "cut short": cut_short,
    "emptied": empty,
    "deleted": Path.unlink,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_t6_load_state_refuses_damaged_tensors_by_name_and_hash_and_falls_back(damage: str, tmp_path: Path) -> None:
    for step in (1, 2):
        save_state(tmp_path, state_of(step))
    DAMAGE[damage](tmp_path / "save-000002.safetensors")
    state, refused = load_state(tmp_path)
    assert state is not None
    assert state.step == 1
    assert is_whole(state)
    (sentence,) = refused
    assert "save-000002" in sentence
    assert ("sha256" if damage == "a flipped bit" else "No such file" if damage == "deleted" else "hash") in sentence


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"step": 2}', '{"step": 2, "facts": {}, "size": "x"}', "\ud800"]
)
def test_t6_load_state_refuses_a_damaged_marker_by_name_and_falls_back(text: str, tmp_path: Path) -> None:
    for step in (1, 2):
        save_state(tmp_path, state_of(step))
    (tmp_path / "save-000002.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    state, refused = load_state(tmp_path)
    assert state is not None
    assert state.step == 1
    assert [sentence for sentence in refused if "save-000002" in sentence] == refused
    assert len(refused) == 1


@pytest.mark.parametrize("place", range(0, 100, 7))
def test_t6_load_state_refuses_a_flip_anywhere(place: int, tmp_path: Path) -> None:
    path = save_state(tmp_path, State(1, {"a": torch.ones(5)}, {}))
    data = bytearray(path.read_bytes())
    data[place * len(data) // 100] ^= 0x10
    path.write_bytes(data)
    state, refused = load_state(tmp_path)
    assert state is None
    assert len(refused) == 1


def test_t6_load_state_with_every_state_damaged_names_each(tmp_path: Path) -> None:
    for step in (1, 2):
        flip_a_byte(save_state(tmp_path, state_of(step)))
    state, refused = load_state(tmp_path)
    assert state is None
    assert [number in sentence for number, sentence in zip(("000002", "000001"), refused, strict=True)] == [True, True]


# ------------------------------------------------------------------------------------- T7 and T3: a complete one, always


def test_t7_at_every_call_of_a_save_a_complete_state_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_state(tmp_path, state_of(1), keep_last=1)
    looked: list[int] = []

    def watched(call: Callable[..., Any]) -> Callable[..., Any]:
        def watching(*given: Any, **named: Any) -> Any:
            for moment in ("before", "after"):
                state, _ = load_state(tmp_path)
                assert state is not None, f"{moment} {call.__name__}{given}"
                assert is_whole(state)
                looked.append(state.step)
                if moment == "before":
                    with contextlib.suppress(FileNotFoundError):
                        call(*given, **named)

        return watching

    for name in ("fsync", "replace", "unlink"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
    steps = (2, 2, 2, 3, 1)  # the same step again, and going back, must not write over what is complete
    for step in steps:
        save_state(tmp_path, state_of(step), keep_last=1)
        assert looked[-1] == step
    assert len(looked) >= 2 * 8 * len(steps)
    assert len(list(tmp_path.iterdir())) == 2


def kill_while_saving(folder: Path, *, keep_last: int, delay_s: float) -> None:
    """Kill a process at a random moment of its saving; what it leaves must be loadable, and the next start must clean up."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "safetensors.torch", "foldertune.training.checkpoint"])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(
        target=save_for_ever, args=(folder, theirs), kwargs={"keep_last": keep_last, "delay_s": delay_s}
    )
    process.start()
    theirs.close()
    begun, ended = 0, 0
    try:
        while ended < 1:
            assert ours.poll(60)
            begun, ended = noted(ours.recv(), begun, ended)
        time.sleep(random.uniform(0, 0.05 + 8 * delay_s))
    finally:
        process.kill()
        process.join()
    with contextlib.suppress(EOFError):
        while True:
            begun, ended = noted(ours.recv(), begun, ended)
    run = RunFolder(folder.parent)
    run.remove_orphans()
    remove_unfinished(folder)
    state, refused = load_state(folder)
    assert state is not None
    assert is_whole(state)
    assert refused == []
    assert ended <= state.step <= begun  # lost: at most the save that was going on
    leftover = {path.name for path in folder.iterdir()}
    assert len(leftover) <= 2 * (keep_last + 1)
    assert all(name.startswith("save-") for name in leftover)
    assert {name.removesuffix(".json") for name in leftover if name.endswith(".json")} == {
        name.removesuffix(".safetensors") for name in leftover if name.endswith(".safetensors")
    }


def noted(told: tuple[str, int], begun: int, ended: int) -> tuple[int, int]:
    return (told[1], ended) if told[0] == "begin" else (begun, told[1])


needs_forkserver = pytest.mark.skipif(
    "forkserver" not in multiprocessing.get_all_start_methods(), reason="processes are killed where they can be forked"
)


@needs_forkserver
@pytest.mark.parametrize(("num_kills", "delay_s"), [(3, 0.0), (2, 0.01)])
def test_t3_killed_while_saving_always_leaves_a_loadable_state(num_kills: int, delay_s: float, tmp_path: Path) -> None:
    for number in range(num_kills):
        folder = tmp_path / str(number) / "checkpoints"
        folder.mkdir(parents=True)
        kill_while_saving(folder, keep_last=1, delay_s=delay_s)


@needs_forkserver
@pytest.mark.slow
@pytest.mark.parametrize(("num_kills", "delay_s"), [(200, 0.0), (50, 0.03)])
def test_t3_killed_hundreds_of_times_always_leaves_a_loadable_state(
    num_kills: int, delay_s: float, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoints"
    for number in range(num_kills):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        kill_while_saving(folder, keep_last=1 + number % 2, delay_s=delay_s)
