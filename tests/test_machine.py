"""The facts about a machine, with invented control groups and devices."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from foldertune import machine
from foldertune.errors import MissingError
from foldertune.machine import (
    OthersWatch,
    cpu_has_bf16,
    find_machine,
    forget_peak_memory,
    free_disk_mib,
    has_gpu_driver,
    held_memory_mib,
    keep_freed_memory,
    memory_mib,
    num_cores,
    peak_memory_mib,
    processor_name,
)

MIB = 2**20


@pytest.fixture
def control_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty control group in place of the machine's own."""
    monkeypatch.setattr(machine, "_CONTROL_GROUP", tmp_path)
    return tmp_path


def limit_memory(group: Path, *, limit: str, current: int, inactive: int) -> None:
    (group / "memory.max").write_text(f"{limit}\n")
    (group / "memory.current").write_text(f"{current}\n")
    (group / "memory.stat").write_text(f"anon 5\nfile 9\ninactive_file {inactive}\nactive_file 7\n")


def test_num_cores_is_the_affinity_without_a_control_group(control_group: Path) -> None:
    expected = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert num_cores() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000", 64),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("50000 100000", 1),
        ("", 64),
        ("9999999 100000", 64),
    ],
)
def test_num_cores_keeps_to_the_quota_of_a_container(
    control_group: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    (control_group / "cpu.max").write_text(text)
    assert num_cores() == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", 64), ("200000", 2), ("50000", 1), ("", 64)])
def test_num_cores_keeps_to_the_quota_of_a_container_of_version_1(
    control_group: Path, monkeypatch: pytest.MonkeyPatch, quota: str, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    (control_group / "cpu").mkdir()
    (control_group / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (control_group / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert num_cores() == expected


def test_memory_mib_keeps_to_the_limit_of_version_1(control_group: Path) -> None:
    (control_group / "memory").mkdir()
    for name, number in (("limit_in_bytes", 100 * MIB), ("usage_in_bytes", 90 * MIB)):
        (control_group / "memory" / f"memory.{name}").write_text(f"{number}\n")
    (control_group / "memory" / "memory.stat").write_text(f"cache 5\ninactive_file {30 * MIB}\ntotal_inactive_file 7\n")
    assert memory_mib() == (100, 40)


def test_memory_mib_without_a_control_group_is_the_machines(control_group: Path) -> None:
    total, free = memory_mib()
    assert 0 < free <= total


def test_memory_mib_keeps_to_the_limit_and_counts_what_is_given_back(control_group: Path) -> None:
    limit_memory(control_group, limit=str(100 * MIB), current=90 * MIB, inactive=30 * MIB)
    total, free = memory_mib()
    assert total == 100
    assert free == 40


def test_memory_mib_over_its_limit_is_none_free(control_group: Path) -> None:
    limit_memory(control_group, limit=str(100 * MIB), current=120 * MIB, inactive=0)
    assert memory_mib() == (100, 0)


def test_memory_mib_without_a_limit_is_the_machines(control_group: Path) -> None:
    before = memory_mib()[0]
    limit_memory(control_group, limit="max", current=1, inactive=0)
    assert memory_mib()[0] == before


def test_peak_memory_mib_grows_with_what_is_held() -> None:
    before = peak_memory_mib()
    held = bytearray(int((before + 64) * MIB))
    held[::4096] = b"\1" * len(held[::4096])
    assert peak_memory_mib() >= before + 32
    assert 1 < before < 1_000_000


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="this system keeps the peak for good")
def test_forget_peak_memory_lets_the_peak_begin_at_what_is_held_now() -> None:
    block = bytearray(256 * MIB)
    del block
    assert peak_memory_mib() > held_memory_mib() + 200
    forget_peak_memory()
    assert peak_memory_mib() < held_memory_mib() + 50


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells a process's own peak")
def test_peak_memory_mib_is_not_that_of_the_process_which_started_this_one() -> None:
    held = bytearray(400 * MIB)
    code = "from foldertune.machine import peak_memory_mib; print(peak_memory_mib())"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert float(told.stdout) < 200 < len(held)


def test_free_disk_mib_of_a_folder_to_be_made_is_that_of_its_parent(tmp_path: Path) -> None:
    assert free_disk_mib(tmp_path / "a" / "b" / "c") == pytest.approx(free_disk_mib(tmp_path), rel=0.01)
    assert free_disk_mib(Path("relative/to/be/made")) > 0


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ("fpu sse avx512f avx512_bf16 amx_tile", True),
        ("fpu sse avx512f", False),
        ("fp asimd bf16 i8mm", True),
        ("", False),
    ],
)
def test_cpu_has_bf16_reads_the_kernels_list(monkeypatch: pytest.MonkeyPatch, features: str, expected: bool) -> None:
    monkeypatch.setattr(Path, "read_text", lambda _: f"flags\t\t: {features}\n")
    assert cpu_has_bf16() is expected


def test_cpu_has_bf16_without_a_list_is_false(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: Path) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", absent)
    assert cpu_has_bf16() is False


def test_processor_name_tells_processors_apart_that_call_themselves_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "processor : 0\nmodel name\t: AMD EPYC\ncpu family\t: 25\nmodel\t\t: 17\n"
    monkeypatch.setattr("pathlib.Path.read_text", lambda self: lines)
    assert processor_name() == "AMD EPYC, family 25, model 17"


def test_processor_name_without_the_kernels_list_is_what_python_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(self: Path) -> str:
        raise OSError("no such file")

    monkeypatch.setattr("pathlib.Path.read_text", absent)
    assert processor_name()


@pytest.mark.parametrize(
    ("everyone_s", "own_s", "taken"),
    [(20.0, 19.8, False), (20.0, 10.0, True), (11.0, 10.0, False), (13.0, 10.0, True), (20.0, 17.0, True)],
)
def test_took_cores_is_what_others_worked_beyond_the_cores_left_over(
    monkeypatch: pytest.MonkeyPatch, everyone_s: float, own_s: float, taken: bool
) -> None:
    told = iter([(100.0, 5.0, 50.0), (100.0 + everyone_s, 5.0 + own_s, 60.0)])
    monkeypatch.setattr(machine, "_seconds_worked", lambda: next(told))
    monkeypatch.setattr(machine, "num_cores", lambda: 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert OthersWatch().took_cores() is taken


def test_took_cores_leaves_others_the_cores_that_this_process_may_not_use(monkeypatch: pytest.MonkeyPatch) -> None:
    told = iter([(0.0, 0.0, 0.0), (75.0, 20.0, 10.0)])
    monkeypatch.setattr(machine, "_seconds_worked", lambda: next(told))
    monkeypatch.setattr(machine, "num_cores", lambda: 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert not OthersWatch().took_cores()


def test_took_cores_counts_other_processes_and_not_this_one() -> None:
    before = machine._seconds_worked()
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        pass
    middle = machine._seconds_worked()
    code = "import time\nend = time.monotonic() + 0.6\nwhile time.monotonic() < end: pass"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    after = machine._seconds_worked()
    assert middle[1] - before[1] > 0.1
    assert after[1] - middle[1] < 0.3
    assert after[0] - middle[0] > 0.3


def test_find_machine_cpu_is_always_there(tmp_path: Path) -> None:
    found = find_machine("cpu", run_folder=tmp_path / "run")
    assert (found.device, found.device_name, found.accelerated) == ("cpu", "processor", False)
    assert found.num_cores == num_cores()
    assert found.device_memory_mib == found.free_memory_mib <= found.memory_mib
    assert found.free_disk_mib > 0


def test_find_machine_device_that_is_not_here_names_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert find_machine("auto").device == "cpu"
    with pytest.raises(MissingError) as caught:
        find_machine("cuda")
    assert caught.value.exit_code == 4
    text = "The device cuda is not here. This machine has: cpu. Pass --device cpu, or leave it out."
    assert str(caught.value) == text


def test_find_machine_auto_prefers_the_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Invented 3000")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (6 * 2**30, 8 * 2**30))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *, including_emulation: not including_emulation)
    found = find_machine()
    assert (found.device, found.device_name, found.device_memory_mib) == ("cuda", "Invented 3000", 6144)
    assert found.bf16
    assert found.accelerated


def test_find_machine_tells_the_room_of_run_and_cache_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDERTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(machine, "room_bytes", lambda: 5 * MIB)
    monkeypatch.setattr(machine, "free_disk_mib", {tmp_path / "run": 900.0}.__getitem__)
    found = find_machine("cpu", run_folder=tmp_path / "run")
    assert (found.free_disk_mib, found.free_cache_mib, found.cache_beside_run) == (900, 5, True)
    monkeypatch.setattr(machine, "_disk_of", {tmp_path / "run": 1, tmp_path / "cache": 2}.__getitem__)
    assert not find_machine("cpu", run_folder=tmp_path / "run").cache_beside_run


def test_keep_freed_memory_may_be_called_anywhere_and_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_freed_memory()
    keep_freed_memory()
    called: list[str] = []
    monkeypatch.setattr("ctypes.CDLL", called.append)
    monkeypatch.setattr(sys, "platform", "win32")
    keep_freed_memory()
    assert called == []


@pytest.mark.parametrize(
    ("system", "files", "programs", "expected"),
    [
        ("linux", [], [], False),
        ("linux", ["/proc/driver/nvidia"], [], True),
        ("linux", ["/dev/dxg"], [], True),  # Linux inside of Windows
        ("linux", [], ["nvidia-smi"], False),
        ("darwin", [], [], False),
        ("win32", [], [], False),
        ("win32", [], ["nvidia-smi"], True),
        ("win32", [], ["nvcuda"], True),
        ("win32", ["/proc/driver/nvidia"], [], False),
    ],
)
def test_has_gpu_driver_finds_what_each_system_shows(
    monkeypatch: pytest.MonkeyPatch, system: str, files: list[str], programs: list[str], expected: bool
) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: path.as_posix() in files)
    for place in ("shutil.which", "ctypes.util.find_library"):
        monkeypatch.setattr(place, lambda name: name if name in programs else None)
    assert has_gpu_driver(system) is expected
