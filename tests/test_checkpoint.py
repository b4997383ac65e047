"""Saved states: there and back, the order of writing, failures (rows T4 and T5)."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from saver import is_whole, state_of, steps_in

from foldertune.errors import WorkFailedError
from foldertune.training.checkpoint import (
    State,
    file_sha256,
    flatten,
    load_state,
    optimizer_tensors,
    remove_states,
    remove_unfinished,
    restore_optimizer,
    save_state,
    save_tensors,
    unflatten,
)

NAMES = ("save-000001.json", "save-000001.safetensors")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, str, int]]:
    """Every sync, rename and deletion in tmp_path: (call, file name, its size when called)."""
    seen: list[tuple[str, str, int]] = []
    real_fsync, real_replace, real_unlink = os.fsync, os.replace, os.unlink

    def fsync(descriptor: int) -> None:
        number = os.fstat(descriptor).st_ino
        files = {path.stat().st_ino: path for path in (tmp_path, *tmp_path.iterdir())}
        path = files[number]
        seen.append(
            ("fsync", "folder" if path == tmp_path else path.name, path.stat().st_size if path.is_file() else 0)
        )
        real_fsync(descriptor)

    def replace(source: Any, target: Any) -> None:
        seen.append(("rename", Path(target).name, Path(source).stat().st_size))
        real_replace(source, target)

    def unlink(path: Any, **named: Any) -> None:
        if Path(path).exists():
            seen.append(("unlink", Path(path).name, 0))
        real_unlink(path, **named)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(os, "unlink", unlink)
    return seen


# ------------------------------------------------------------------------------------------------------------ there and back


def test_save_state_and_load_state_give_back_every_tensor_and_fact(tmp_path: Path) -> None:
    tensors = {
        "model/a": torch.randn(3, 4), "half": torch.ones(2, dtype=torch.bfloat16), "rng": torch.get_rng_state(),
        "scalar": torch.tensor(3.5), "empty": torch.zeros(0, 3), "channels": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    }  # fmt: skip
    save_state(tmp_path, State(12, tensors, {"loss": 0.1, "best": float("inf"), "history": [{"epoch": 1}]}))
    state, refused = load_state(tmp_path)
    assert state is not None
    assert refused == []
    assert (state.step, state.facts) == (12, {"loss": 0.1, "best": float("inf"), "history": [{"epoch": 1}]})
    assert state.tensors.keys() == tensors.keys()
    for name, value in tensors.items():
        assert state.tensors[name].dtype == value.dtype
        assert torch.equal(state.tensors[name], value)


def test_load_state_of_an_empty_or_missing_folder_is_none(tmp_path: Path) -> None:
    assert load_state(tmp_path) == (None, [])
    assert load_state(tmp_path / "missing") == (None, [])


def test_save_state_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_state(tmp_path / name, state_of(3))
    assert content(tmp_path / "a") == content(tmp_path / "b")


@pytest.mark.parametrize(("keep_last", "kept"), [(1, [5]), (2, [5, 4]), (9, [5, 4, 3, 2, 1])])
def test_save_state_keeps_the_last_ones(keep_last: int, kept: list[int], tmp_path: Path) -> None:
    for step in range(1, 6):
        save_state(tmp_path, state_of(step), keep_last=keep_last)
    assert len(list(tmp_path.iterdir())) == 2 * len(kept)
    for step in kept:
        state, _ = load_state(tmp_path)
        assert state is not None
        assert state.step == step
        assert is_whole(state)
        for path in tmp_path.glob(f"save-{step:06d}.*"):
            path.unlink()


def test_load_state_after_going_back_takes_the_state_that_was_saved_last(tmp_path: Path) -> None:
    for step in (10, 20, 15):  # 20 was damaged, the run went on from 10
        save_state(tmp_path, state_of(step))
    assert steps_in(tmp_path) == 15


def test_remove_states_leaves_other_files(tmp_path: Path) -> None:
    (tmp_path / "baseline.safetensors").write_bytes(b"x")
    save_state(tmp_path, state_of(1))
    (tmp_path / "save-000009.safetensors").write_bytes(b"unfinished")
    remove_states(tmp_path)
    assert list(content(tmp_path)) == ["baseline.safetensors"]


def test_remove_unfinished_deletes_only_tensors_without_marker(tmp_path: Path) -> None:
    save_state(tmp_path, state_of(1))
    (tmp_path / "save-000002.safetensors").write_bytes(b"unfinished")
    remove_unfinished(tmp_path)
    assert tuple(content(tmp_path)) == NAMES


def test_unflatten_takes_only_its_own_prefix() -> None:
    one = torch.ones(1)
    tensors = {**flatten("model", {"a.b": one, "c/d": one}), **flatten("models", {"x": one})}
    assert unflatten("model", tensors).keys() == {"a.b", "c/d"}


@pytest.mark.parametrize("name", ["AdamW", "SGD"])
def test_restore_optimizer_goes_on_as_if_nothing_had_happened(name: str) -> None:
    def made() -> tuple[list[torch.nn.Parameter], torch.optim.Optimizer]:
        weights = [torch.nn.Parameter(torch.ones(4, 3, 2, 2).to(memory_format=torch.channels_last))]
        more = {"momentum": 0.9} if name == "SGD" else {}
        return weights, getattr(torch.optim, name)(weights, lr=0.1, **more)

    def step(weights: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer, number: int) -> None:
        weights[0].grad = torch.sin(torch.arange(48.0) + number).view(4, 3, 2, 2).to(memory_format=torch.channels_last)
        optimizer.step()

    weights, optimizer = made()
    for number in range(3):
        step(weights, optimizer, number)
    saved = {
        key: value.clone(memory_format=torch.contiguous_format) for key, value in optimizer_tensors(optimizer).items()
    }
    again, other = made()
    with torch.no_grad():
        again[0].copy_(weights[0])
    restore_optimizer(other, saved)
    step(weights, optimizer, 3)
    step(again, other, 3)
    assert torch.equal(weights[0], again[0])
    assert len(optimizer_tensors(optimizer)) > 0
    for key, value in optimizer_tensors(optimizer).items():
        assert torch.equal(optimizer_tensors(other)[key], value)
        assert optimizer_tensors(other)[key].stride() == value.stride()


def test_restore_optimizer_of_another_network_refuses() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    with pytest.raises(WorkFailedError, match="another network"):
        restore_optimizer(optimizer, {"1.momentum_buffer": torch.ones(1)})


# --------------------------------------------------------------------------------------------------------- T4: the order


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot sync folders")
def test_t4_save_state_syncs_renames_and_marks_in_order(tmp_path: Path, calls: list[tuple[str, str, int]]) -> None:
    save_state(tmp_path, state_of(1), keep_last=1)
    sizes = {name: len(value) for name, value in content(tmp_path).items()}
    tensors, marker = NAMES[1], NAMES[0]
    hidden = f".part-{os.getpid()}-"
    assert calls == [
        ("fsync", hidden + tensors, sizes[tensors]),  # all was written before the sync
        ("rename", tensors, sizes[tensors]),
        ("fsync", "folder", 0),
        ("fsync", hidden + marker, sizes[marker]),
        ("rename", marker, sizes[marker]),
        ("fsync", "folder", 0),
    ]


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot sync folders")
def test_t4_save_state_deletes_the_old_one_only_after_the_new_marker_is_synced(
    tmp_path: Path, calls: list[tuple[str, str, int]]
) -> None:
    save_state(tmp_path, state_of(1), keep_last=1)
    calls.clear()
    save_state(tmp_path, state_of(2), keep_last=1)
    assert [call for call, _, _ in calls] == ["fsync", "rename", "fsync"] * 2 + ["unlink"] * 2
    assert calls[-3][:2] == ("fsync", "folder")
    assert [name for _, name, _ in calls[-2:]] == list(NAMES)  # the marker first


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_save_tensors_gives_the_file_the_mode_that_the_user_wants(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    save_tensors(tmp_path / "model.safetensors", {"a": torch.ones(3)})
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_t4_save_tensors_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"old")
    size, sha256 = save_tensors(path, {"a": torch.ones(3)})
    assert (size, sha256) == (path.stat().st_size, file_sha256(path))
    assert list(content(tmp_path)) == ["model.safetensors"]


# --------------------------------------------------------------------------------------------------------- T5: failures


def refuses(folder: Path, *words: str) -> None:
    """Saving fails with a sentence that names file and reason; what was in the folder is there as before, and nothing else."""
    before = content(folder)
    with pytest.raises(WorkFailedError) as caught:
        save_state(folder, state_of(2), keep_last=1)
    for word in (str(folder / "save-000002"), "could not be written", "unchanged", *words):
        assert word in str(caught.value)
    # A whole file of tensors may stay where only its marker failed; it does not count, and the next start deletes it.
    remove_unfinished(folder)
    assert content(folder) == before
    assert steps_in(folder) == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EPERM, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("name", ["fsync", "replace"])
@pytest.mark.parametrize("at", [0, 1])
def test_t5_save_state_with_a_failing_call_keeps_the_old_state(
    number: int, name: str, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_state(tmp_path, state_of(1))
    real, seen = getattr(os, name), []

    def failing(*given: Any) -> None:
        seen.append(given)
        if len(seen) == 1 + at * (2 if name == "fsync" else 1):
            raise OSError(number, os.strerror(number))
        real(*given)

    monkeypatch.setattr(os, name, failing)
    refuses(tmp_path, os.strerror(number))


@pytest.mark.skipif(os.name == "nt", reason="there are no such limits on Windows")
def test_t5_save_state_cut_off_in_the_middle_of_a_write_keeps_the_old_state(tmp_path: Path) -> None:
    import resource

    save_state(tmp_path, state_of(1))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))  # a write beyond it fails with EFBIG
    try:
        with pytest.raises(
            WorkFailedError, match=r"save-000002\.safetensors could not be written: .*[Ff]ile too large"
        ):
            save_state(tmp_path, state_of(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert tuple(content(tmp_path)) == NAMES
    assert steps_in(tmp_path) == 1


def test_t5_save_state_in_a_read_only_folder_keeps_the_old_state(tmp_path: Path) -> None:
    save_state(tmp_path, state_of(1))
    tmp_path.chmod(0o500)
    try:
        if os.access(tmp_path, os.W_OK):
            pytest.skip("this user may write to read-only folders; the read-only mount is tried instead")
        refuses(tmp_path, "ermission")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("at", ["before", "fsync", "replace"])
def test_t5_save_state_in_a_folder_that_disappears_fails_with_a_sentence(
    at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    save_state(folder, state_of(1))
    if at == "before":
        shutil.rmtree(folder)
    else:
        real = getattr(os, at)

        def vanishing(*given: Any) -> None:
            shutil.rmtree(folder, ignore_errors=True)
            real(*given)

        monkeypatch.setattr(os, at, vanishing)
    with pytest.raises(WorkFailedError, match="could not be written"):
        save_state(folder, state_of(2))
    assert not folder.exists()


def test_t5_save_state_that_cannot_delete_the_old_one_still_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_state(tmp_path, state_of(1), keep_last=1)

    def refusing(path: Any, **_: Any) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(path))

    monkeypatch.setattr(os, "unlink", refusing)
    save_state(tmp_path, state_of(2), keep_last=1)
    assert steps_in(tmp_path) == 2


@pytest.fixture
def small_mount(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for one state and a half."""
    folder = tmp_path / "mount"
    folder.mkdir()
    if not sys.platform.startswith("linux") or not shutil.which("mount"):
        pytest.skip("mounting is tried on Linux alone")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("this user may not mount; a patched call and a limit on file sizes stand in")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_t5_save_state_on_a_full_file_system_keeps_the_old_state(small_mount: Path) -> None:
    save_state(small_mount, state_of(1))
    refuses(small_mount, "No space left on device")


def test_t5_save_state_on_a_read_only_file_system_keeps_the_old_state(small_mount: Path) -> None:
    save_state(small_mount, state_of(1))
    subprocess.run(["mount", "-o", "remount,ro", str(small_mount)], check=True)
    refuses(small_mount, "Read-only file system")
