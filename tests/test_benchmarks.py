"""The benchmarks' own arithmetic: in turn, with ratios and spreads, nobody left out in silence, stored results found again."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import compare
import contest
import coverage
import environments
import forecast
import model_files
import numpy as np
import planted
import predict
import pytest
import squares
import tables
import time_to_accuracy
import unknown
from conftest import PROJECT
from contest import Contestant, Measured, hold, peer, run_measured, told_by
from environments import PEERS, Environment, PeerError, benchmark_folder, reason_of
from picture_sets import copy_set, make_set, pictures_below, spread_over
from PIL import Image
from store import Store
from tables import Row, Scale, cell, page, render, rows_of, slowness, told_command

from foldertune.images import decode, read_picture_bytes
from foldertune.preprocess import Preprocess, decode_px, prepare

# Ratios and tables


def test_slowness_of_times_is_theirs_over_ours() -> None:
    assert slowness([4.0, 6.0, 8.0], [2.0, 2.0, 4.0], rate=False) == (3.0, 2.0, 3.0)


def test_slowness_of_rates_is_ours_over_theirs() -> None:
    assert slowness([5.0, 10.0], [20.0, 20.0], rate=True) == (20 / 7.5, 2.0, 4.0)


def test_slowness_of_who_failed_midway_compares_the_rounds_that_both_have() -> None:
    assert slowness([4.0], [2.0, 1.0, 1.0], rate=False) == (4.0, 2.0, 2.0)


def cells(table: str, tool: str) -> list[str]:
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {tool} |")]
    return [part.strip() for part in line.strip("|").split("|")]


def test_render_holds_every_tool_against_ours() -> None:
    rows = [Row("ours", [2.0, 2.0, 1.0], 99.6, "a 1"), Row("theirs", [4.0, 6.0, 3.0], 200.0, "b 2", "in batches")]
    table = render(rows, Scale("s", 1), ours="ours")
    assert cells(table, "ours") == ["ours", "2.0", "1.0 to 2.0", "1", "100", "3", "a 1", ""]
    assert cells(table, "theirs") == [
        "theirs",
        "4.0",
        "3.0 to 6.0",
        "2.00 (2.00 to 3.00)",
        "200",
        "3",
        "b 2",
        "in batches",
    ]


def test_render_names_who_failed_with_the_reason() -> None:
    rows = [Row("ours", [2.0]), Row("theirs", [], versions="b 2", remark="plain", problem="no wheel")]
    assert cells(render(rows, Scale("s"), ours="ours"), "theirs") == [
        "theirs",
        "-",
        "-",
        "-",
        "-",
        "0",
        "b 2",
        "plain; **no wheel**",
    ]


def test_render_without_our_figures_has_no_ratios() -> None:
    table = render([Row("ours", [], problem="failed"), Row("theirs", [3.0])], Scale("s"), ours="ours")
    assert cells(table, "theirs")[3] == "-"


def test_cell_does_not_break_the_table() -> None:
    assert cell("a|b\nc") == "a\\|b c"


def test_told_command_names_files_and_not_where_they_lay() -> None:
    told = told_command(
        [
            "/home/somebody/runs/mugs",
            "--weights=/home/somebody/w.safetensors",
            "--variant",
            "--engine auto",
            "--times",
            "5",
        ]
    )
    assert told == 'mugs --weights=w.safetensors --variant "--engine auto" --times 5'


def test_page_has_the_command_the_machine_and_every_section() -> None:
    text = page("Speed", ["## One\n", "", "## Two"], arguments=["/x/benchmarks/steps.py", "--times", "5"], load=0.25)
    assert text.startswith("# Speed\n\n    python benchmarks/steps.py --times 5\n\n")
    assert "foldertune" in text
    assert "before the start: 0.2" in text
    assert text.endswith("\n\n## One\n\n## Two\n")


def test_publish_writes_the_page_only_where_it_is_to_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "FIGURES", tmp_path / "figures")
    tables.publish("speed", "# Speed\n", write=False)
    assert not list(tmp_path.iterdir())
    tables.publish("speed", "# Speed\n", write=True)
    assert (tmp_path / "figures" / "speed.md").read_text("utf-8") == "# Speed\n"


# In turn


class Course:
    """Stands in for the measuring of processes: notes the order, and fails where it is told to."""

    def __init__(self, failing: Mapping[str, int]) -> None:
        self.order: list[str] = []
        self._failing = failing

    def __call__(self, command: Sequence[str], variables: Mapping[str, str]) -> Measured:
        self.order.append(command[0])
        if self.order.count(command[0]) == self._failing.get(command[0]):
            raise PeerError("failed with exit code 1: no memory")
        return Measured(float(len(self.order)), 10.0, {"ms": 2.5, "variable": variables.get("who")})


def test_hold_runs_all_in_turn_and_does_not_count_the_first_round() -> None:
    contestants, course = [Contestant(name, [name]) for name in "abc"], Course({})
    hold(contestants, times=2, variables={}, measure=course)
    assert course.order == list("abcabcabc")
    assert [[run.seconds for run in each.runs] for each in contestants] == [[4, 7], [5, 8], [6, 9]]


def test_hold_names_who_fails_and_goes_on_with_the_others() -> None:
    contestants, course = [Contestant(name, [name]) for name in "abc"], Course({"a": 1, "b": 3})
    hold(contestants, times=3, variables={}, measure=course)
    assert course.order == list("abc") + list("bc") * 2 + ["c"]
    assert [len(each.runs) for each in contestants] == [0, 1, 3]
    assert [each.problem for each in contestants] == ["failed with exit code 1: no memory"] * 2 + [""]


def test_hold_gives_each_its_own_variables() -> None:
    contestants = [Contestant("a", ["a"], variables={"who": "me"}), Contestant("b", ["b"])]
    hold(contestants, times=1, variables={"who": "all"}, measure=Course({}))
    assert [each.runs[0].told["variable"] for each in contestants] == ["me", "all"]


def test_rows_of_take_wall_time_or_the_figure_that_was_told() -> None:
    contestant = Contestant("a", runs=[Measured(3.0, 10.0, {"ms": 2.5}), Measured(4.0, 30.0, {"ms": 3.5})])
    assert rows_of([contestant])[0].values == [3.0, 4.0]
    assert rows_of([contestant], "ms")[0].values == [2.5, 3.5]
    assert rows_of([contestant])[0].peak_mib == 20.0


def test_rows_of_a_figure_that_was_not_told_is_a_problem() -> None:
    (row,) = rows_of([Contestant("a", runs=[Measured(3.0, 10.0, {})])], "ms")
    assert (row.values, row.problem) == ([], "told no ms")


def test_peer_that_cannot_be_installed_takes_part_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> Environment:
        raise PeerError(f"could not be installed: {name} has no wheel")

    monkeypatch.setattr(contest, "environment", refuse)
    found = peer("timm", "predict_timm.py", [], within="timm", packages=["timm"], remark="plain")
    hold([found], times=2, variables={}, measure=Course({}))
    assert (found.problem, found.runs, found.remark) == ("could not be installed: timm has no wheel", [], "plain")


def test_run_measured_gives_time_memory_and_the_last_line_whatever_this_process_holds() -> None:
    held = bytearray(400 * 2**20)
    inner = "import time; block = bytearray(200 * 2**20); time.sleep(0.2); print('hello'); print('{\"ms\": 2.5}')"
    found = run_measured([sys.executable, "-c", inner], {})
    assert found.told == {"ms": 2.5}
    assert 0.2 < found.seconds < 30
    assert 200 < found.peak_mib < 300 < len(held)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to cores")
def test_run_measured_gives_as_many_cores_as_threads() -> None:
    inner = "import json, os; print(json.dumps({'cores': len(os.sched_getaffinity(0))}))"
    assert run_measured([sys.executable, "-c", inner], {environments.THREADS_VARIABLE: "1"}).told == {"cores": 1}


def test_run_measured_of_a_command_that_is_not_there_says_so() -> None:
    with pytest.raises(PeerError, match=r"^could not be started: FileNotFoundError"):
        run_measured(["/no/such/program"], {})


def test_run_measured_of_a_failing_process_raises_its_error() -> None:
    with pytest.raises(PeerError, match=r"^failed with exit code 1: ValueError: no such layer$"):
        run_measured([sys.executable, "-c", "raise ValueError('no such layer')"], {})


def test_run_measured_of_a_process_that_hangs_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contest, "LONGEST_S", 0.5)
    with pytest.raises(PeerError, match=r"^ended after 0 s$"):
        run_measured([sys.executable, "-c", "import time; time.sleep(60)"], {})


@pytest.mark.parametrize("output", ["", "done\n", "[1, 2]\n", '{"ms": 1}\ndone\n'])
def test_told_by_what_is_no_record_is_nothing(output: str) -> None:
    assert told_by(output) == {}


# Environments


def test_requirements_of_every_peer_are_exact_and_have_no_cuda() -> None:
    files = sorted(PEERS.glob("*.txt"))
    assert {path.stem for path in files} >= {
        "fastai",
        "onnxruntime",
        "openvino",
        "timm",
        "torchvision",
        "transformers",
        "ultralytics",
    }
    for path in files:
        for line in path.read_text("utf-8").splitlines():
            assert line.startswith("#") or re.fullmatch(r"[a-z0-9_-]+==[0-9][0-9a-z.]*", line), f"{path.name}: {line}"
            assert not line.startswith(("nvidia-cu", "triton", "cuda")), f"{path.name}: {line}"


def test_environments_that_tools_name_have_a_file() -> None:
    names = {tool.within for tool in predict.TOOLS}
    assert all((PEERS / f"{name}.txt").exists() for name in names)
    assert all((PEERS / tool.script).exists() for tool in predict.TOOLS)


def test_environment_that_cannot_be_made_says_why_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        if "venv" in command:
            Path(command[-1]).mkdir()
            return subprocess.CompletedProcess(command, 0, "", "")
        return subprocess.CompletedProcess(command, 1, "", "ERROR: No matching distribution\n")

    monkeypatch.setenv("FOLDERTUNE_BENCHMARKS", str(tmp_path))
    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(PeerError, match=r"^could not be installed: ERROR: No matching distribution$"):
        environments.environment("timm")
    assert [path.suffix for path in (tmp_path / "environments").iterdir()] == [".lock"]


def test_environment_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def make(folder: Path, requirements: Path) -> None:
        made.append(requirements.name)
        folder.mkdir()

    monkeypatch.setenv("FOLDERTUNE_BENCHMARKS", str(tmp_path))
    monkeypatch.setattr(environments, "_make", make)
    first, second = environments.environment("timm"), environments.environment("timm")
    assert first == second
    assert made == ["timm.txt"]


def test_benchmark_folder_is_the_one_named_or_in_the_users_cache(tmp_path: Path) -> None:
    assert benchmark_folder({"FOLDERTUNE_BENCHMARKS": str(tmp_path)}, Path("/home")) == tmp_path
    assert benchmark_folder({}, tmp_path).name == "foldertune-benchmarks"
    assert not benchmark_folder({}, tmp_path).is_relative_to(PROJECT)


def test_peer_variables_set_the_threads_and_drop_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDERTUNE_BENCHMARKS", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", "ours")
    found = environments.peer_variables(3)
    assert found["OMP_NUM_THREADS"] == "3"
    assert "PYTHONPATH" not in found


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("", "it gave no reason"),
        ("one\ntwo\n\n", "two"),
        ("ValueError: bad\nafterwards\n", "ValueError: bad"),
        ("ERROR: no wheel\nWARNING: old pip\n", "ERROR: no wheel"),
        (f"{Path.home()}/x is gone", ".../x is gone"),
    ],
)
def test_reason_of_a_log_is_its_error_without_folders(log: str, reason: str) -> None:
    assert reason_of(log) == reason


def test_reason_of_a_long_line_is_cut() -> None:
    assert len(reason_of("x" * 1000)) == 160


# Stored results


def test_store_works_once_and_finds_it_again(tmp_path: Path) -> None:
    store, calls = Store(tmp_path / "results"), []

    def work() -> list[int]:
        calls.append(1)
        return [1, 2]

    assert store.resume({"peer": "fastai", "flags": ["--epochs", "5"]}, work) == ([1, 2], False)
    assert store.resume({"peer": "fastai", "flags": ["--epochs", "5"]}, work) == ([1, 2], True)
    assert len(calls) == 1
    assert store.resume({"peer": "fastai", "flags": ["--epochs", "6"]}, work) == ([1, 2], False)


def test_store_keeps_nothing_of_what_fails(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail() -> None:
        raise PeerError("no memory")

    with pytest.raises(PeerError):
        store.resume({"peer": "fastai"}, fail)
    assert store.find({"peer": "fastai"}) is None
    assert not list(tmp_path.iterdir())


def test_store_does_not_trust_a_file_that_was_cut_short(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.resume({"peer": "fastai"}, lambda: [1])
    path = store.path({"peer": "fastai"})
    path.write_text(path.read_text("utf-8")[:-5], "utf-8")
    assert store.resume({"peer": "fastai"}, lambda: [2]) == ([2], False)


# Pictures, models and answers


def test_spread_over_takes_evenly_or_again() -> None:
    assert spread_over([Path(str(n)) for n in range(10)], 4) == [Path(n) for n in ("0", "2", "5", "7")]
    assert spread_over([Path("a"), Path("b")], 3) == [Path("a"), Path("b"), Path("a")]


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    random = np.random.Generator(np.random.Philox(3))
    for name in ("red/a.png", "blue/b.jpg"):
        path = tmp_path / "sources" / name
        path.parent.mkdir(parents=True)
        Image.fromarray(random.integers(0, 255, (300, 280, 3), np.uint8)).resize((600, 400)).save(path)
    return pictures_below(tmp_path / "sources")


def test_make_set_gives_jpegs_of_one_size(tmp_path: Path, sources: list[Path]) -> None:
    folder = make_set(tmp_path / "set", sources, 3, (50, 37))
    assert [path.name for path in sorted(folder.iterdir())] == ["0000.jpg", "0001.jpg", "0002.jpg"]
    with Image.open(folder / "0002.jpg") as picture:
        assert (picture.size, picture.format) == ((50, 37), "JPEG")


def test_copy_set_keeps_the_classes_apart(tmp_path: Path, sources: list[Path]) -> None:
    folder = copy_set(tmp_path / "set", sources, 3)
    names = sorted(path.relative_to(folder).as_posix() for path in pictures_below(folder))
    assert names == ["blue/00000.jpg", "blue/00002.jpg", "red/00001.png"]


def test_pictures_below_an_empty_folder_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no picture below .* Give a folder"):
        pictures_below(tmp_path)


@pytest.mark.parametrize("size", [(500, 375), (256, 256), (1400, 1100)])
def test_square_of_the_experts_scripts_has_our_pixels(
    size: tuple[int, int], tmp_path: Path, sources: list[Path]
) -> None:
    path = make_set(tmp_path / "set", sources, 1, size) / "0000.jpg"
    preprocess = Preprocess()
    ours = prepare(decode(read_picture_bytes(path), at_least_px=decode_px(preprocess)), preprocess)
    assert np.array_equal(squares.square(path, draft=True), ours)


def test_compare_tells_agreement_and_the_largest_difference() -> None:
    reference = {"a": ("red", 0.9), "b": ("blue", 0.6)}
    assert predict.compare({"a": ("red", 0.9), "b": ("blue", 0.6)}, reference) == (1.0, 0.0)
    share, largest = predict.compare({"a": ("red", 0.7), "b": ("red", 0.6)}, reference)
    assert share == 0.5
    assert largest == pytest.approx(0.2)


def test_compare_of_missing_answers_is_refused() -> None:
    with pytest.raises(PeerError, match="1 of 2 pictures have no answer"):
        predict.compare({"a": ("red", 0.9)}, {"a": ("red", 0.9), "b": ("blue", 0.6)})


@pytest.mark.parametrize(
    ("probability", "told"), [(0.90005, "same answers to 1e-04"), (0.91, "answers as the reference: 100.0%")]
)
def test_with_answers_says_whether_they_are_the_same(probability: float, told: str) -> None:
    answers = {predict.REFERENCE: {"a": ("red", 0.9)}, "ours": {"a": ("red", probability)}}
    assert predict.with_answers(Row("ours", [1.0], remark="fast"), answers).remark.startswith(f"fast; {told}")


def test_with_answers_that_are_missing_is_a_problem() -> None:
    answers: dict[str, Any] = {predict.REFERENCE: {"a": ("red", 0.9)}, "ours": {}}
    assert predict.with_answers(Row("ours", [1.0]), answers).problem == "1 of 1 pictures have no answer"


def test_chosen_peers_always_have_the_reference() -> None:
    assert predict.chosen(None) == list(predict.TOOLS)
    assert [tool.name for tool in predict.chosen(["TIMM"])] == ["timm", predict.REFERENCE]


def test_hugging_face_names_are_those_of_its_resnet() -> None:
    names = {
        "conv1.weight": "resnet.embedder.embedder.convolution.weight",
        "bn1.running_mean": "resnet.embedder.embedder.normalization.running_mean",
        "layer1.0.conv2.weight": "resnet.encoder.stages.0.layers.0.layer.1.convolution.weight",
        "layer4.2.bn3.bias": "resnet.encoder.stages.3.layers.2.layer.2.normalization.bias",
        "layer2.0.downsample.0.weight": "resnet.encoder.stages.1.layers.0.shortcut.convolution.weight",
        "layer2.0.downsample.1.weight": "resnet.encoder.stages.1.layers.0.shortcut.normalization.weight",
        "fc.bias": "classifier.1.bias",
    }
    assert {name: model_files.hugging_face_name(name) for name in names} == names


# Time to accuracy


OURS = {"baseline_accuracy": 0.80, "baseline_s": 25.0, "kept_accuracy": 0.92, "total_s": 200.0}


@pytest.mark.parametrize(("accuracy", "seconds"), [(0.80, 25.0), (0.81, 200.0), (0.92, 200.0), (0.93, None)])
def test_seconds_to_an_accuracy_is_the_first_model_that_has_it(accuracy: float, seconds: float | None) -> None:
    assert time_to_accuracy.seconds_to(accuracy, OURS) == seconds


def test_peer_row_tells_how_soon_ours_has_what_it_ends_with() -> None:
    epochs = [
        {"epoch": 1, "test_accuracy": 0.7, "seconds": 100.0},
        {"epoch": 2, "test_accuracy": 0.9, "seconds": 400.0},
    ]
    row = time_to_accuracy.peer_row(
        Contestant("fastai", versions="fastai 2"), epochs, [OURS, {**OURS, "kept_accuracy": 0.85}]
    )
    assert row == "| fastai | 0.700, 0.900 | 0.900 | 400 | 200 (200 to 200), in 1 of 2 runs | - | fastai 2 |"
    row = time_to_accuracy.peer_row(Contestant("fastai", versions="fastai 2"), epochs, [OURS, OURS])
    assert row == "| fastai | 0.700, 0.900 | 0.900 | 400 | 200 (200 to 200), in 2 of 2 runs | 0.50 | fastai 2 |"


def test_peer_row_of_one_that_failed_has_its_reason() -> None:
    row = time_to_accuracy.peer_row(Contestant("fastai", problem="no wheel"), [], [OURS])
    assert row.startswith("| fastai | **no wheel** |")


def test_epochs_of_a_peer_are_its_lines_with_seconds() -> None:
    program = f"print('loading'); print({json.dumps({'epoch': 1, 'test_accuracy': 0.5})!r}); print('done')"
    (epoch,) = time_to_accuracy.epochs_of([sys.executable, "-c", program], {})
    assert (epoch["epoch"], epoch["test_accuracy"]) == (1, 0.5)
    assert 0 <= epoch["seconds"] < 30


@pytest.mark.parametrize(
    ("program", "reason"), [("raise ValueError('bad')", "ValueError: bad"), ("print(1)", "told no accuracy")]
)
def test_epochs_of_a_peer_that_tells_nothing_are_refused(program: str, reason: str) -> None:
    with pytest.raises(PeerError, match=reason):
        time_to_accuracy.epochs_of([sys.executable, "-c", program], {})


def test_half_width_is_that_of_the_normal_interval() -> None:
    assert time_to_accuracy.half_width(0.9, 372) == pytest.approx(0.0305, abs=1e-4)


# Unknown classes and coverage


def test_told_of_scores_by_hand() -> None:
    found = unknown.told(np.arange(100.0), np.array([50.5, 96.5, 120.0]), limit=99.0)
    assert found.auroc == pytest.approx((51 + 97 + 100) / 300)
    assert [found.refused, found.by_limit, found.lost] == pytest.approx([2 / 3, 1 / 3, 0.0])
    assert unknown.mean_of([found, unknown.Told(0.0, 0.0, 0.0, 0.1)]).lost == pytest.approx(0.05)


def invented_population() -> coverage.Population:
    random = np.random.Generator(np.random.Philox(3))
    labels = np.arange(300) % 3

    def logits(skill: float) -> Any:
        return (skill * np.eye(3)[labels] + random.normal(size=(300, 3))).astype(np.float32)

    return coverage.Population(logits(3), [logits(3) for _ in range(coverage.NUM_SEEDS)], logits(1), labels, 100)


def test_coverage_counts_the_intervals_that_hold_the_populations_figures() -> None:
    table = coverage.coverage(invented_population(), ("a", "b", "c"), num_draws=30)
    shares = [float(line.split("|")[3].strip(" %")) / 100 for line in table.splitlines() if "(" in line and "|" in line]
    assert len(shares) == 9
    assert all(0.8 <= share <= 1 for share in shares)
    assert "are called equal by accuracy in " in table


def test_coverage_promises_and_calibration_tell_whether_they_hold() -> None:
    found = invented_population()
    rows = [line for line in coverage.promises(found, num_splits=20).splitlines() if re.match(r"\| \d+% ", line)]
    assert [row.split("|")[1].strip() for row in rows] == ["1%", "2%", "5%", "10%"]
    assert all(float(row.split("|")[3].strip(" %")) >= 80 for row in rows)
    assert coverage.calibration(found).endswith(("inside.", "outside."))


# The forecast of accuracy


def test_drawn_subsets_are_the_seeds_own_and_of_the_sizes_that_are_told() -> None:
    pool = {name: [Path(f"{name}/{number}.jpg") for number in range(66)] for name in "abcdefghijkl"}
    sizes = []
    for seed in range(20):
        chosen = forecast.drawn(pool, seed)
        assert chosen == forecast.drawn(pool, seed)
        counts = {len(paths) for paths in chosen.values()}
        assert len(counts) == 1
        assert all(set(paths) <= set(pool[name]) for name, paths in chosen.items())
        assert forecast.FEWEST_CLASSES <= len(chosen) <= len(pool)
        sizes.append((len(chosen), sum(map(len, chosen.values()))))
    assert all(forecast.FEWEST_OF_EACH * num <= total <= 500 for num, total in sizes)
    assert len(set(sizes)) > 10


def test_forecast_page_says_how_often_the_range_held() -> None:
    expected = {"low": 0.8, "high": 0.9, "value": 0.86, "head_accuracy": 0.85, "num_test": 40}
    row = {
        "set": "clothing", "seed": 11, "num_classes": 4, "num_pictures": 240, "tune": "all", "accuracy": expected, "told_again": True,
        "baseline": 0.85, "kept": "fine-tuned", "reached": 0.9, "plan_s": 30.0, "train_s": 100.0, "forecast_s": 90.0,
    }  # fmt: skip
    rows = [row, {**row, "reached": 0.925}, {**row, "reached": 0.775}]
    assert [forecast.is_inside(each) for each in rows] == [True, False, False]
    assert forecast.verdict_of(rows).startswith(
        "The range holds what was reached in 1 of 3 runs (33%, 95 % interval 6% to 79%)"
    )
    lines = forecast.table_of(rows).splitlines()
    assert lines[2] == (
        "| clothing | 11 | 4 | 240 | 40 | 0.850 | 0.800 to 0.900 | 0.860 | 0.850 | fine-tuned, 0.900 | yes | all | 30 s | 100 s | 90 s |"
    )
    assert "| **no** |" in lines[3]
    assert {line.count("|") for line in lines} == {16}


def test_forecast_refuses_seeds_by_which_it_was_chosen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["forecast.py", "digits", "--weights", "w.safetensors", "--seeds", "7", "101"])
    with pytest.raises(SystemExit):
        forecast.main()
    assert "by seeds [101] the forecast was chosen; give others" in capsys.readouterr().err


# Two trainings of one network


def test_compare_counts_every_pair_of_trainings_and_every_two_against_two_others() -> None:
    random = np.random.default_rng(1)
    hard = random.random(300)
    rights = np.array([(hard < 0.85) ^ (random.random(300) < 0.03) for _ in range(5)])
    found = list(compare.table(rights, np.arange(300)))
    rows = [compare._line(*row).strip("| ").split(" | ") for row in found]
    assert [line.split(" | ")[1] for line in compare.pool([found, found])] == ["20", "20", "30"]
    assert [int(row[1]) for row in rows] == [
        10,
        10,
        15,
    ]  # 5 over 2, and of each 5 left out one, 3 ways to part the others
    assert rows[1][2] == "100.0%"
    assert float(rows[1][3]) > float(rows[0][3])  # wider for what the chance of training adds
    one, other = rights[0], rights[1]
    assert compare.disagreement(rights[:2]) == pytest.approx(float((one != other).mean()))


def test_compare_holds_the_spread_of_trainings_against_pictures_that_flip_by_themselves() -> None:
    random = np.random.default_rng(2)
    hard = random.random(4000) < 0.85
    alone = np.array([hard ^ (random.random(4000) < 0.03) for _ in range(40)])
    assert compare.variance_ratio(alone) == pytest.approx(1.0, abs=0.4)
    together = np.array(
        [hard & (random.random(4000) >= share) for share in np.linspace(0, 0.2, 40)]
    )  # some are worse throughout
    assert compare.variance_ratio(together) > 5
    assert compare.variance_ratio(alone[[0, 0]]) == 0.0


def test_compare_calls_trainings_different_that_are() -> None:
    good, bad = np.arange(300) < 280, np.arange(300) < 200
    ways = list(compare.table(np.array([good, bad, good]), np.arange(300)))
    assert [[equal for equal, _ in pairs] for _, pairs in ways[:2]] == [[False, True, False]] * 2


def test_compare_takes_settings_as_the_command_line_has_them() -> None:
    assert compare.settings_of(["--tune", "upper", "--image-size", "96"]) == {"tune": "upper", "image_size": 96}
    with pytest.raises(ValueError, match="zip"):
        compare.settings_of(["--tune"])


# Planted faults


def test_planted_conflicts_put_changed_copies_under_the_next_class(tmp_path: Path) -> None:
    sources = []
    for number in range(20):
        path = tmp_path / "source" / "train" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48), (10 * number, 90, 30)).save(path)
        sources.append(planted.Source(path, "train", path.parent.name))
    folder, pairs = planted.Planter(sources, ["a", "b"], tmp_path / "made", np.random.default_rng(0)).conflicts()
    assert len(pairs) == 2
    for right, wrong in pairs:
        assert (folder / right).is_file()
        assert (folder / wrong).is_file()
        assert {Path(right).parts[0], Path(wrong).parts[0]} == {"a", "b"}
    assert len(list(folder.rglob("*.jpg"))) == 22
