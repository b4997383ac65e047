"""The run folder: files complete or absent, facts that can be trusted, requests to stop, folders that are refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from invented import epoch

from foldertune import run as run_module
from foldertune.errors import DataError, MissingError, SettingsError, WorkFailedError
from foldertune.records import AccuracyRange, Decision, Forecast, Plan, plain
from foldertune.run import (
    SCHEMA,
    RunFolder,
    environment,
    event,
    fsync_folder,
    read_json,
    write_bytes,
    write_json,
    write_text,
    written_whole,
)
from foldertune.stopping import StopRequest


@pytest.fixture
def made(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    write_json(folder.run_json, {"schema": SCHEMA, "state": "started"})
    return folder


# -------------------------------------------------------------------------------------------------------- whole files


def test_written_whole_on_a_clean_exit_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with written_whole(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def half_write(path: Path, error: BaseException) -> None:
    with written_whole(path) as temporary:
        temporary.write_text("half")
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("x"), MemoryError()])
def test_written_whole_left_by_an_error_keeps_the_old_file_and_lets_the_error_pass(
    error: BaseException, tmp_path: Path
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(error)):
        half_write(path, error)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_written_whole_left_by_a_system_error_says_which_file_and_why(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(WorkFailedError) as caught:
        half_write(path, OSError(28, "No space left on device"))
    assert str(path) in str(caught.value)
    assert "No space left on device" in str(caught.value)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_written_whole_in_a_folder_that_is_not_there_fails_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(WorkFailedError, match="could not be written: No such file"):
        write_text(tmp_path / "missing" / "a.txt", "x")


def test_write_text_keeps_every_name_a_file_may_have(tmp_path: Path) -> None:
    text = "Käfer, 虫, a\nb, \udcff"
    write_text(tmp_path / "a", text)
    assert (tmp_path / "a").read_bytes() == text.encode("utf-8", "surrogateescape")


def test_write_bytes_again_and_again_leaves_the_last_content_alone(tmp_path: Path) -> None:
    for number in range(4):
        write_bytes(tmp_path / "a", bytes([number]) * (10 - number))
    assert (tmp_path / "a").read_bytes() == bytes([3]) * 7
    assert len(list(tmp_path.iterdir())) == 1


def test_fsync_folder_of_a_missing_folder_fails(tmp_path: Path) -> None:
    if os.name == "nt":
        pytest.skip("Windows cannot open folders")
    with pytest.raises(FileNotFoundError):
        fsync_folder(tmp_path / "missing")


@pytest.mark.parametrize("text", ["", "{", "\x00", '{"a": 1'])
def test_read_json_of_a_broken_file_names_it(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(DataError, match=r"run\.json cannot be read"):
        read_json(tmp_path / "run.json")


def test_read_json_of_a_missing_file_says_that_this_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no run folder, or not a whole one"):
        read_json(tmp_path / "run.json")


def test_stop_request_standing_aside_lets_signals_do_what_they_did() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest().listening() as stop:
        listening = signal.getsignal(signal.SIGTERM)
        with stop.standing_aside():
            assert signal.getsignal(signal.SIGTERM) == before
        assert signal.getsignal(signal.SIGTERM) == listening != before
    assert signal.getsignal(signal.SIGTERM) == before
    with stop.standing_aside():  # nobody listens: nothing to give back
        assert signal.getsignal(signal.SIGTERM) == before


# ------------------------------------------------------------------------------------------------------ the run folder


def test_create_makes_the_folder_with_its_parents(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "today")
    folder.create()
    assert folder.checkpoints.is_dir()


def test_create_takes_an_empty_folder(tmp_path: Path) -> None:
    RunFolder(tmp_path).create()
    assert (tmp_path / "checkpoints").is_dir()


def test_create_over_anything_else_refuses_and_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(SettingsError, match=r"exists and is not empty\. Give another --run\.$") as caught:
        RunFolder(tmp_path).create()
    assert "resume" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_create_over_a_start_that_never_got_to_its_plan_begins_anew(made: RunFolder) -> None:
    made.dataset_csv.write_text("row,path")
    made.append_event(event("started"))
    (made.path.parent / "other").write_text("x")
    made.create()
    assert [path.name for path in made.path.iterdir()] == ["checkpoints"]


def test_create_over_a_start_that_is_going_on_is_refused(made: RunFolder) -> None:
    with made.locked(), pytest.raises(WorkFailedError, match="Another process is going through"):
        made.create()
    assert made.run_json.exists()


def test_create_over_a_run_says_how_to_go_on_with_it(made: RunFolder) -> None:
    write_json(made.plan_json, [])
    write_json(made.run_json, {"schema": SCHEMA, "state": "finished"})
    with pytest.raises(SettingsError, match=r"Give another --run; the run in it is finished\.$"):
        made.create()
    write_json(made.run_json, {"schema": SCHEMA, "state": "started"})
    with pytest.raises(SettingsError, match=f"foldertune train --resume {made.path}"):
        made.create()


def test_create_over_a_file_refuses(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    with pytest.raises(SettingsError, match="Give another --run"):
        RunFolder(tmp_path / "a").create()
    with pytest.raises(SettingsError, match="cannot be made: Not a directory"):
        RunFolder(tmp_path / "a" / "b").create()


def test_open_of_no_folder_and_of_no_run_say_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="There is no run folder"):
        RunFolder(tmp_path / "missing").open()
    with pytest.raises(DataError, match=r"run\.json is missing"):
        RunFolder(tmp_path).open()


def test_open_of_a_newer_schema_refuses_and_says_to_update(made: RunFolder) -> None:
    write_json(made.run_json, {"schema": SCHEMA + 1})
    with pytest.raises(DataError, match=rf"newer version \(schema {SCHEMA + 1}; this one knows {SCHEMA}\). Update"):
        made.open()


@pytest.mark.parametrize("content", [{}, [], {"schema": "1"}, 7, None])
def test_open_of_something_else_refuses(content: object, made: RunFolder) -> None:
    write_json(made.run_json, content)
    with pytest.raises(DataError, match="no schema number"):
        made.open()


@pytest.mark.parametrize("schema", range(1, SCHEMA + 1))
def test_open_of_every_schema_so_far_is_read(schema: int, made: RunFolder) -> None:
    write_json(made.run_json, {"schema": schema, "state": "finished"})
    assert made.open() == {"schema": schema, "state": "finished"}


def test_update_changes_only_what_is_given(made: RunFolder) -> None:
    made.update(state="finished", path=Path("a/b"), minutes=1.5)
    made.update(minutes=2.5)
    assert made.open() == {"schema": SCHEMA, "state": "finished", "path": "a/b", "minutes": 2.5}


def test_remove_orphans_deletes_temporary_files_of_any_process_and_nothing_else(made: RunFolder) -> None:
    for path in (
        made.path / ".part-1-run.json", made.checkpoints / f".part-{os.getpid()}-save-000001.json",
        made.checkpoints / ".tmpAb12Cd", made.path / "report.html", made.checkpoints / "save-000001.json",
    ):  # fmt: skip
        path.write_text("x")
    assert made.remove_orphans() == 3
    left = {path.name for folder in (made.path, made.checkpoints) for path in folder.iterdir()}
    assert left == {"run.json", "checkpoints", "report.html", "save-000001.json"}
    assert made.remove_orphans() == 0


def test_remove_orphans_of_a_run_without_checkpoints_folder_is_fine(tmp_path: Path) -> None:
    assert RunFolder(tmp_path).remove_orphans() == 0


# -------------------------------------------------------------------------------------------- plan, history and events


def test_read_plan_gives_back_what_was_written(made: RunFolder) -> None:
    plan = Plan((Decision("epochs", 3, "enough", "auto-epochs"), Decision("seed", 1, "given", "given", "user")))
    made.write_plan(plan)
    assert made.read_plan() == plan
    made.update(forecast={"minutes": 1.0, "memory_mib": 2.0, "disk_mib": 3.0})
    assert made.read_plan() == replace(plan, forecast=Forecast(1.0, 2.0, 3.0))  # of a run before there were ranges


def test_read_plan_gives_back_the_range_of_accuracy_and_drops_what_a_newer_version_knows(made: RunFolder) -> None:
    expected = AccuracyRange(0.9, 0.8, 1.0, 0.9, 0.85, 200, 30, "why")
    forecast = Forecast(1.0, 2.0, 3.0, 0.5, expected)
    made.write_plan(Plan(()))
    made.update(forecast=plain(forecast))
    assert made.read_plan().forecast == forecast
    made.update(forecast={**plain(forecast), "colour": 1})
    assert made.read_plan().forecast == forecast
    made.update(forecast=plain(replace(forecast, accuracy=None, no_accuracy="too few")))
    assert made.read_plan().forecast == Forecast(1.0, 2.0, 3.0, 0.5, None, "too few")
    made.update(forecast={"minutes": 1.0})
    with pytest.raises(DataError, match=r"plan\.json is not a plan of this version"):
        made.read_plan()


@pytest.mark.parametrize("rows", [[{"setting": "epochs"}], [{"setting": "a", "colour": 1}]])
def test_read_plan_of_another_version_refuses_by_name(rows: list[object], made: RunFolder) -> None:
    write_json(made.plan_json, rows)
    with pytest.raises(DataError, match=r"plan\.json is not a plan of this version"):
        made.read_plan()


def test_read_history_gives_back_what_was_written_to_the_last_digit(made: RunFolder) -> None:
    records = [epoch(1, train_loss=0.1 + 0.2, val_loss=None, val_accuracy=None), epoch(2, train_loss=1e-17)]
    assert made.read_history() == []
    made.write_history(records)
    assert made.read_history() == records
    assert len(made.history.read_text().splitlines()) == 2


def test_read_history_of_a_newer_version_leaves_out_what_it_does_not_know(made: RunFolder) -> None:
    made.write_history([epoch(1)])
    line = {**json.loads(made.history.read_text()), "colour": "red"}
    made.history.write_text(json.dumps(line) + "\n")
    assert made.read_history() == [epoch(1)]


@pytest.mark.parametrize("text", ["{", "[1]", '{"epoch": 1}', "\xff\n"])
def test_read_history_that_is_damaged_is_named_with_what_to_do(text: str, made: RunFolder) -> None:
    made.history.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"history.jsonl cannot be read .+ Restore it, or start a new run"):
        made.read_history()


def test_locked_run_refuses_a_second_process_until_the_first_is_through(made: RunFolder) -> None:
    held = (
        "import sys, pathlib; from foldertune.run import RunFolder\n"
        "with RunFolder(pathlib.Path(sys.argv[1])).locked(): print(1, flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", held, str(made.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "1\n"
    with pytest.raises(WorkFailedError, match=r"Another process is going through .+ Wait until it ends"), made.locked():
        pass
    other.kill()  # the system takes its lock back
    other.communicate()
    with made.locked():
        pass


def test_minutes_spent_adds_every_attempt_up_to_its_last_event(made: RunFolder) -> None:
    assert made.minutes_spent() == 0.0
    for kind, now in (("started", 1000), ("epoch", 1090), ("started", 5000), ("epoch", 5030), ("kept", 5060)):
        made.append_event(replace(event(kind), time=float(now)))
    with made.events.open("a") as stream:
        stream.write('{"kind": "epo')  # what a full disk left
    assert made.minutes_spent() == pytest.approx(2.5)


def test_append_event_adds_one_line_each(made: RunFolder) -> None:
    for number in range(3):
        made.append_event(event("note", text=f"a\nb {number} \udcff Käfer", path=Path("x"), few=(1, 2)))
    lines = made.events.read_bytes().decode("utf-8", "surrogateescape").splitlines()
    found = [json.loads(line) for line in lines]
    assert [told["facts"]["text"] for told in found] == [f"a\nb {number} \udcff Käfer" for number in range(3)]
    assert found[0]["facts"]["few"] == [1, 2]
    assert found[0]["kind"] == "note"
    assert found[0]["time"] <= found[2]["time"]


def test_append_event_that_cannot_be_written_does_not_end_the_run(made: RunFolder) -> None:
    made.events.mkdir()  # nothing can be appended to a folder
    made.append_event(event("note", text="x"))
    assert made.events.is_dir()


def test_environment_names_the_versions_without_importing_torch() -> None:
    found = environment()
    assert {"python", "platform", "machine", "torch", "numpy", "foldertune"} <= set(found)
    assert "import torch" not in Path(run_module.__file__).read_text(encoding="utf-8")


# ---------------------------------------------------------------------------------------------------- requests to stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_listening_takes_a_signal_as_a_request_and_gives_the_handlers_back(number: signal.Signals) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    with StopRequest().listening() as stop:
        assert stop.signal == 0
        signal.raise_signal(number)
        assert stop.signal == number
    assert {each: signal.getsignal(each) for each in before} == before


def test_listening_ends_the_usual_way_at_a_second_ctrl_c() -> None:
    with StopRequest().listening() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_listening_gives_the_handlers_back_after_an_error() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ValueError, match="x"), StopRequest().listening():
        raise ValueError("x")
    assert signal.getsignal(signal.SIGTERM) == before


def test_listening_in_another_thread_changes_nothing() -> None:
    before, inside = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with StopRequest().listening() as stop:
            inside.append((signal.getsignal(signal.SIGTERM), stop.signal))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [(before, 0)]


def test_read_json_gives_back_names_that_are_no_text(tmp_path: Path) -> None:
    name = b"a/\xff.jpg".decode("utf-8", "surrogateescape")
    write_json(tmp_path / "look.json", {"path": name})
    assert read_json(tmp_path / "look.json") == {"path": name}


def test_minutes_spent_counts_until_now_where_the_attempt_is_not_over(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    rows = [("started", 0.0), ("epoch", 60.0), ("started", 600.0), ("epoch", 660.0)]
    run.events.write_text("".join(json.dumps({"kind": kind, "time": time, "facts": {}}) + "\n" for kind, time in rows))
    assert run.minutes_spent() == pytest.approx(2.0)
    assert run.minutes_spent(until=720.0) == pytest.approx(3.0)
    assert run.minutes_spent(until=0.0) == pytest.approx(2.0)  # a clock that was set back takes nothing away


def test_start_that_was_cut_off_before_its_first_file_is_nothing_of_worth(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.checkpoints.mkdir(parents=True)
    (run.path / ".part-7-run.json").touch()
    run.create()
    assert [path.name for path in run.path.iterdir()] == ["checkpoints"]
    (run.path / "notes.txt").write_text("mine")
    with pytest.raises(SettingsError, match="exists and is not empty"):
        run.create()
    assert (run.path / "notes.txt").read_text() == "mine"
