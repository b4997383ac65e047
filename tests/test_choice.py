"""Which engine is taken: the fastest that is exact enough, tried once, remembered, and refused when it costs accuracy."""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from foldertune.data.pack import load_pictures
from foldertune.data.table import read_dataset
from foldertune.engines import Engine, open_engine
from foldertune.engines.shelf import Shelf
from foldertune.errors import MissingError, SettingsError, WorkFailedError
from foldertune.evaluation import answers, choice, judging, predict, saved_model, trials
from foldertune.evaluation.answers import Answers, calibration_pictures, validation_answers
from foldertune.evaluation.choice import LAST_RESORT, Choice, candidates, choose, pick, trials_of
from foldertune.evaluation.judging import measure
from foldertune.evaluation.predict import open_model, opening
from foldertune.evaluation.saved_model import SavedModel, open_saved, read_saved_model
from foldertune.evaluation.trials import MOST_MACHINES, Spec, Trial, read_trials, remember
from foldertune.records import Dataset, Event, Interval, Progress, finish

FLOAT32, INT8 = Spec("openvino", "float32", "cpu"), Spec("openvino", "int8", "cpu")


@pytest.fixture
def run(small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the small run, and an empty cache."""
    monkeypatch.setenv("FOLDERTUNE_CACHE", str(tmp_path / "cache"))
    shutil.copytree(small_run, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def saved(run: Path) -> SavedModel:
    return read_saved_model(run)


@pytest.fixture
def pictures(run: Path, small_run: Path, tmp_path: Path) -> Path:
    """A copy of the pictures of the small run, which its copy takes for those that it was trained on."""
    return move_pictures(run, shutil.copytree(small_run.parent / "pictures", tmp_path / "pictures"))


def move_pictures(run: Path, folder: Path) -> Path:
    facts = json.loads((run / "run.json").read_text())
    facts["dataset"]["folder"] = str(folder)
    (run / "run.json").write_text(json.dumps(facts))
    return folder


@pytest.fixture
def next_process(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From then on only what is written down is remembered."""
    return lambda: monkeypatch.setattr(trials, "_of_this_process", {})


Open = Callable[[Spec], Engine]


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Callable[[Open], list[Spec]]:
    """Whatever is opened, by trials and for predicting, is what a function gives; returns what was asked for."""

    def take(open_spec: Open) -> list[Spec]:
        asked: list[Spec] = []

        def opened(_: SavedModel, engine: str, precision: str, *, device: str = "cpu", **__: Any) -> Engine:
            asked.append(Spec(engine, precision, device))
            return open_spec(asked[-1])

        for module in (judging, predict):
            monkeypatch.setattr(module, "open_saved", opened)
        monkeypatch.setattr(judging, "_TIMED_S", 0)
        return asked

    return take


class Answering:
    """Answers with a class by the picture's number, which its first two values are."""

    name = "invented"

    def __init__(self, found: list[int]) -> None:
        self.found = np.array(found)

    def run_all(self, pictures: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        return [self.run(pictures)]

    def run(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        numbers = pictures[:, 0, 0, 0].astype(int) * 256 + pictures[:, 0, 0, 1]
        logits: NDArray[np.float32] = np.eye(3, dtype=np.float32)[self.found[numbers]]
        return logits


def told(work: Any) -> tuple[Any, list[str]]:
    """The result of some work, and the texts that were told on the way."""
    texts: list[str] = []
    while True:
        try:
            each = next(work)
        except StopIteration as stop:
            return stop.value, texts
        if isinstance(each, Event):
            texts.append(str(each.facts.get("text", each.facts)))
        else:
            assert isinstance(each, Progress)


# What is picked


def trial(precision: str, per_s: float, *, refused: str = "", engine: str = "openvino") -> Trial:
    return Trial(engine, precision, "cpu", per_s, 1000 / per_s, refused=refused)


@pytest.mark.parametrize(
    ("tried", "expected"),
    [
        ([trial("float32", 20)], "float32"),
        ([trial("int8", 100), trial("bf16", 50), trial("float32", 25)], "int8"),
        ([trial("int8", 55), trial("bf16", 50), trial("float32", 25)], "bf16"),  # a tenth faster is not worth it
        ([trial("int8", 29), trial("bf16", 24), trial("float32", 25)], "float32"),
        ([trial("int8", 100, refused="it is wrong"), trial("bf16", 50), trial("float32", 25)], "bf16"),
        ([trial("int8", 31), trial("bf16", 29), trial("float32", 25)], "int8"),  # held against what is kept
    ],
)
def test_pick_takes_what_is_faster_by_a_fifth_from_the_most_exact_on(tried: list[Trial], expected: str) -> None:
    for order in (tried, tried[::-1]):
        assert pick(order).precision == expected


def test_pick_of_two_engines_in_one_precision_takes_the_faster() -> None:
    found = pick(
        [trial("float32", 25, engine="torch"), trial("float32", 26), trial("float32", 10, engine="onnxruntime")]
    )
    assert (found.engine, found.reason) == ("openvino", "26 pictures a second here; torch float32 gives 25")


def test_pick_of_refused_ones_alone_says_why_each_is_refused() -> None:
    with pytest.raises(
        SettingsError, match=r"openvino int8: it is wrong.*Name --engine and --precision to use one nevertheless"
    ):
        pick([trial("int8", 100, refused="it is wrong")])


# How it is judged


Judge = Callable[[list[int], list[int], list[int]], Trial]


@pytest.fixture
def judged(saved: SavedModel, engines: Callable[[Open], list[Spec]], monkeypatch: pytest.MonkeyPatch) -> Judge:
    """The trial of an int8 engine that answers `found`, on pictures whose answers in float32 and labels are given."""

    def judge(found: list[int], float32: list[int], labels: list[int]) -> Trial:
        numbers = np.arange(len(labels))
        numbered = np.stack([numbers // 256, numbers % 256, numbers % 256], 1).astype(np.uint8)[:, None, None]

        def stored(_: SavedModel, size: int) -> Iterator[Answers]:
            for start in range(0, len(labels), size):
                part = slice(start, start + size)
                yield Answers(numbered[part], np.array(labels[part]), np.array(float32[part]))

        monkeypatch.setattr(judging, "validation_answers", stored)
        engines(lambda _: Answering(found))
        (trial,) = finish(measure(replace(saved, golden=None), [Spec("openvino", "int8", "cpu")]))
        return trial

    return judge


def test_measure_of_equal_answers_is_accepted_with_an_interval_around_no_loss(judged: Judge) -> None:
    found = judged([0, 1] * 100, [0, 1] * 100, [0, 1] * 100)
    assert (found.agreement, found.refused, found.num_judged) == (1.0, "", 200)
    loss = found.accuracy_loss
    assert loss is not None
    assert loss.value == 0
    assert -0.02 < loss.low < 0 < loss.high < 0.02


def test_measure_of_answers_that_differ_too_often_is_refused_though_accuracy_is_the_same(judged: Judge) -> None:
    float32, labels = [0] * 200, [0] * 190 + [1] * 10
    found = judged([0] * 185 + [1] * 5 + [1] * 5 + [0] * 5, float32, labels)
    assert found.agreement == 0.95
    assert found.accuracy_loss is not None
    assert found.accuracy_loss.value == 0
    assert found.refused == "95.0% of 200 validation pictures are answered as in float32, 98% is the least"


def test_measure_of_answers_that_surely_cost_accuracy_is_refused_though_they_agree(judged: Judge) -> None:
    labels = [0] * 4000
    found = judged([1] * 60 + [0] * 3940, labels, labels)
    assert found.agreement == 0.985
    assert found.refused == "it costs at least 1.1 points of accuracy on validation, 0.5 is the most"
    assert judged([1] * 20 + [0] * 3980, labels, labels).refused == ""


# Tried once and remembered


def test_choose_tries_each_likely_engine_once_and_the_next_process_remembers(saved: SavedModel, run: Path) -> None:
    found, texts = told(choose(saved))
    assert isinstance(found, Choice)
    assert [(each.engine, each.precision) for each in found.trials] == [
        (spec.engine, spec.precision) for spec in candidates()
    ]
    assert {each.precision for each in found.trials} >= {"float32", "int8"}
    for each in found.trials:
        assert each.pictures_per_s > 0, each.refused
        assert each.difference is not None
        assert each.difference < 0.5
    assert texts == ["Preparing int8 for openvino, once: calibrated on training pictures"]
    again, texts = told(choose(read_saved_model(run)))
    assert (again, texts) == (found, [])


def test_choose_without_time_to_measure_takes_the_most_exact_and_says_how_to_measure(saved: SavedModel) -> None:
    found = finish(choose(saved, may_measure=False))
    assert (found.engine, found.precision) == ("openvino", "float32")
    assert found.reason == "not measured here yet: `foldertune speed` does it"
    assert read_trials(saved) == ()


EITHER = {("onnxruntime", "float32"), ("onnxruntime", "int8")}


@pytest.mark.parametrize(
    ("asked", "expected", "tried"),
    [
        ({"engine": "onnxruntime"}, EITHER, EITHER),
        ({"precision": "int8"}, {("openvino", "int8")}, {("openvino", "int8")}),
        ({"precision": "float32"}, {("openvino", "float32")}, set()),  # there is nothing to choose from
        ({"engine": "torch", "precision": "float32"}, {("torch", "float32")}, set()),
        ({"engine": "openvino", "precision": "int8"}, {("openvino", "int8")}, {("openvino", "int8")}),
    ],
)
def test_choose_tries_only_what_fits_what_was_asked(
    saved: SavedModel, asked: dict[str, str], expected: set[tuple[str, str]], tried: set[tuple[str, str]]
) -> None:
    found, _ = told(choose(saved, engine=asked.get("engine", "auto"), precision=asked.get("precision", "auto")))
    assert (found.engine, found.precision) in expected
    assert {(each.engine, each.precision) for each in found.trials} == tried


def test_choose_on_another_machine_or_with_other_versions_tries_again(
    saved: SavedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(measure(saved, [Spec("openvino", "float32", "cpu")]))
    assert len(read_trials(saved)) == 1
    monkeypatch.setattr(trials, "num_cores", lambda: 99)
    assert read_trials(saved) == ()


def test_choose_of_int8_that_was_refused_is_obeyed_with_a_warning(saved: SavedModel) -> None:
    remember(saved, Trial("openvino", "int8", agreement=0.5, refused="it is wrong"), judged=True)
    found, texts = told(choose(saved, engine="openvino", precision="int8"))
    assert (found.engine, found.precision) == ("openvino", "int8")
    assert texts == ["openvino int8 was asked for; by itself it would not be taken: it is wrong."]


def test_measure_of_an_engine_that_breaks_tells_why_and_goes_on(
    saved: SavedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = open_engine

    def opened(model: Path | bytes, *, engine: str, precision: str) -> Engine:
        if engine == "onnxruntime":
            raise RuntimeError("illegal instruction\nat 0x0")
        return real(model, engine=engine, precision=precision)

    monkeypatch.setattr(saved_model, "open_engine", opened)
    specs = [Spec("onnxruntime", "float32", "cpu"), Spec("openvino", "float32", "cpu")]
    found = {trial.engine: trial for trial in finish(measure(saved, specs))}
    broken, good = found["onnxruntime"], found["openvino"]
    assert broken.refused.endswith("illegal instruction at 0x0.")
    assert good.refused == ""
    assert pick([broken, good]).engine == "openvino"


@pytest.mark.parametrize("failure", [MemoryError(), MissingError("The folder is away."), OSError(28, "No space left")])
def test_measure_that_cannot_judge_is_remembered_by_this_process_alone(
    saved: SavedModel, engines: Callable[[Open], list[Spec]], next_process: Callable[[], None], failure: Exception
) -> None:
    def opened(spec: Spec) -> Engine:
        raise failure

    asked = engines(opened)
    for _ in range(2):
        _, texts = told(choose(saved, engine="openvino", precision="int8"))
        reason = str(failure).rstrip(".") or "MemoryError"
        assert texts[-1] == f"openvino int8 was asked for; by itself it would not be taken: {reason}."
    assert len(asked) == 1
    next_process()
    assert read_trials(saved) == ()
    finish(choose(saved, engine="openvino", precision="int8"))
    assert len(asked) == 2


def test_measure_with_a_wrong_setting_raises_and_refuses_no_engine(
    saved: SavedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOLDERTUNE_CACHE_GIB", "much")
    with pytest.raises(SettingsError, match="FOLDERTUNE_CACHE_GIB is 'much'"):
        finish(measure(saved, [Spec("openvino", "float32", "cpu")]))
    assert read_trials(saved) == ()


def test_choose_where_the_cache_takes_nothing_tries_once_in_a_process_and_takes_the_fastest(
    saved: SavedModel, engines: Callable[[Open], list[Spec]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(saved.shelf), "write_trials", lambda *_: None)
    seconds = iter([0.5, 0.5, 0.001, 0.001])
    monkeypatch.setattr(judging, "_median_s", lambda _: next(seconds))
    monkeypatch.setattr(judging, "_judged", lambda trial, *_: trial)
    monkeypatch.setattr(choice, "candidates", lambda **_: [FLOAT32, INT8])
    asked = engines(lambda _: Answering([0]))
    for _ in range(2):
        found = finish(choose(saved))
        assert (found.precision, len(found.trials)) == ("int8", 2)
    assert asked == [FLOAT32, INT8]


def test_choose_where_all_else_is_refused_takes_the_reference_and_speed_says_so(
    saved: SavedModel, engines: Callable[[Open], list[Spec]]
) -> None:
    exact = make_reference(saved)

    def opened(spec: Spec) -> Engine:
        if spec.engine == "openvino":
            raise RuntimeError("illegal instruction")
        return exact

    asked = engines(opened)
    found = finish(choose(saved))
    assert found.spec == LAST_RESORT
    assert LAST_RESORT not in asked, "nothing is left to compare it with"
    assert found.reason.startswith("the only one that fits; refused: openvino float32, ")
    assert finish(choose(saved, may_measure=False)).spec == LAST_RESORT
    found = finish(trials_of(saved))
    assert found.spec == LAST_RESORT
    assert "answers as in float32; refused: openvino float32, " in found.reason
    assert {trial.spec: trial.refused for trial in found.trials} == {
        **dict.fromkeys(candidates(), "illegal instruction"),
        LAST_RESORT: "",
    }
    with pytest.raises(SettingsError, match=r"No engine that fits may be used \(openvino .*illegal instruction"):
        finish(choose(saved, engine="openvino"))


def make_reference(saved: SavedModel) -> Engine:
    """PyTorch in float32."""
    return open_saved(saved, *LAST_RESORT[:2])


def test_speed_where_even_the_reference_fails_says_what_was_refused(
    saved: SavedModel, engines: Callable[[Open], list[Spec]]
) -> None:
    def opened(spec: Spec) -> Engine:
        raise RuntimeError(f"no {spec.engine} here")

    engines(opened)
    with pytest.raises(
        SettingsError, match=r"\(openvino float32: no openvino here; .*torch float32: no torch here\)\. Name --engine"
    ):
        finish(trials_of(saved))


def test_choose_without_time_to_measure_takes_nothing_that_nobody_judged(saved: SavedModel) -> None:
    remember(saved, Trial(*FLOAT32, refused="it is wrong"), judged=True)
    assert finish(choose(saved, may_measure=False)).spec == LAST_RESORT
    assert finish(choose(saved, precision="int8", may_measure=False)).spec == INT8


def test_choose_takes_from_all_that_was_tried_as_speed_does_but_compiles_only_when_asked(saved: SavedModel) -> None:
    for spec in candidates():
        remember(saved, Trial(*spec, pictures_per_s=20), judged=True)
    remember(saved, Trial("onnxruntime", "float32", pictures_per_s=30), judged=True)
    remember(saved, Trial("compiled", "float32", pictures_per_s=40), judged=True)
    assert finish(choose(saved)).engine == "onnxruntime"
    assert finish(choose(saved, precision="float32")).engine == "onnxruntime"
    assert finish(choose(saved, engine="compiled")).engine == "compiled"


def test_choose_where_the_gpu_is_gone_takes_nothing_that_was_tried_on_it(saved: SavedModel) -> None:
    for spec in candidates():
        remember(saved, Trial(*spec, pictures_per_s=20), judged=True)
    remember(saved, Trial("torch", "bf16", "cuda", pictures_per_s=2000), judged=True)
    for engine, precision in (("auto", "auto"), ("auto", "bf16")):
        assert finish(choose(saved, engine=engine, precision=precision)).device == "cpu"


def test_choose_on_another_gpu_tries_anew(saved: SavedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    remember(saved, Trial(*FLOAT32, pictures_per_s=20), judged=True)
    monkeypatch.setattr(trials, "gpu_name", lambda: "another one")
    assert read_trials(saved) == ()


@pytest.mark.parametrize("may_measure", [True, False])
def test_choose_takes_a_lower_precision_that_was_asked_for_though_refused_and_warns(
    saved: SavedModel, *, may_measure: bool
) -> None:
    remember(saved, Trial(*INT8, pictures_per_s=100, refused="it costs 3 points."), judged=True)
    remember(saved, Trial("onnxruntime", "int8", pictures_per_s=50, refused="it costs 4 points."), judged=True)
    chosen, texts = told(choose(saved, precision="int8", may_measure=may_measure))
    assert chosen.spec == INT8
    assert texts == ["openvino int8 was asked for; by itself it would not be taken: it costs 3 points."]


def test_open_saved_of_torch_that_cannot_run_says_where(saved: SavedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> Engine:
        raise RuntimeError("CUDA out of memory.\nTried to allocate 20 MiB.")

    monkeypatch.setattr("foldertune.evaluation.saved_model.make_engine", full)
    with pytest.raises(
        WorkFailedError,
        match=r"The engine torch in float32 cannot run on cpu: CUDA out of memory\. Tried to allocate 20 MiB",
    ):
        open_saved(saved, "torch", "float32")


def test_remember_keeps_machines_that_share_a_folder_apart_and_forgets_the_oldest(
    saved: SavedModel, next_process: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_machine(number: int) -> None:
        next_process()
        monkeypatch.setattr(trials, "num_cores", lambda: number)

    for number in range(MOST_MACHINES + 1):
        on_machine(number)
        remember(saved, Trial("openvino", "float32", pictures_per_s=number), judged=True)
        remember(saved, Trial("openvino", "int8", pictures_per_s=number), judged=True)
    for number in range(MOST_MACHINES + 1):
        on_machine(number)
        assert [trial.pictures_per_s for trial in read_trials(saved)] == [number] * 2 * (number > 0)


@pytest.mark.parametrize("content", [{"machines": 3}, {"machines": {"KEY": 3}}, {"machines": {"KEY": [{"engine": 1}]}}])
def test_read_trials_of_something_else_is_nothing(
    saved: SavedModel, monkeypatch: pytest.MonkeyPatch, content: dict[str, Any]
) -> None:
    monkeypatch.setattr(trials, "_machine", lambda: "KEY")
    saved.shelf.write_trials(content)
    assert read_trials(saved) == ()


def test_restored_trials_keep_their_intervals(saved: SavedModel, next_process: Callable[[], None]) -> None:
    found = Trial("openvino", "int8", accuracy_loss=Interval(0.01, -0.01, 0.02), refused="so")
    remember(saved, found, judged=True)
    next_process()
    assert read_trials(saved) == (found,)


# What it is judged by


def test_measure_of_float32_reads_no_picture(saved: SavedModel, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "load_pictures", lambda *_, **__: pytest.fail("a picture was read"))
    (found,) = finish(measure(saved, [FLOAT32]))
    assert (found.refused, found.agreement) == ("", 1.0)


def test_validation_answers_come_in_batches_and_a_few_are_held(
    saved: SavedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = list(validation_answers(saved, 1000))
    assert len(every) == 1
    whole, (num_pictures, *shape) = every[0], every[0].pictures.shape
    assert shape == [32, 32, 3]
    parts = list(validation_answers(saved, 2))
    assert [len(part.labels) for part in parts] == [2] * (num_pictures // 2) + [1] * (num_pictures % 2)
    for place in range(3):
        np.testing.assert_array_equal(np.concatenate([part[place] for part in parts]), whole[place])
    decoded = []

    def counted(*given: Any, **named: Any) -> Any:
        decoded.append(given)
        return load_pictures(*given, **named)

    monkeypatch.setattr(answers, "load_pictures", counted)
    monkeypatch.setattr(answers, "num_cores", lambda: 0)
    next(validation_answers(saved, 2))
    assert len(decoded) == 2


@pytest.mark.parametrize("split", ["val", "train"])
def test_pictures_that_are_gone_are_left_out_while_half_are_there(
    saved: SavedModel, run: Path, pictures: Path, split: str
) -> None:
    def num_found() -> int:
        if split == "train":
            return len(calibration_pictures(saved))
        return sum(len(batch.labels) for batch in validation_answers(saved, 8))

    rows = [line.split(",") for line in (run / "dataset.csv").read_text().splitlines()[1:]]
    chosen = [pictures / row[1] for row in rows if row[3] == split]
    assert num_found() == len(chosen)
    for path in chosen[: len(chosen) // 2]:
        path.unlink()
    assert num_found() == len(chosen) - len(chosen) // 2
    chosen[-1].write_bytes(chosen[-2].read_bytes())
    if len(chosen) % 2:
        chosen[-2].unlink()
    with pytest.raises(
        MissingError,
        match=rf"cannot be read: {rows[0][1].split('/')[0]}/.*the file is not there. Put it back.*Take --precision float32",
    ):
        num_found()


def damage_truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_zeros(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 4 : 3 * len(content) // 4] = bytes(len(content) // 2)
    path.write_bytes(bytes(content))


def damage_rows(path: Path) -> None:
    stored = dict(np.load(path))
    np.savez(path, rows=stored["rows"], probabilities=stored["probabilities"][:1])


def damage_text(path: Path) -> None:
    path.write_text("text")


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [damage_truncate, damage_zeros, damage_empty, damage_text, damage_rows, Path.unlink])
def test_validation_answers_of_damaged_predictions_say_which_file(
    saved: SavedModel, run: Path, damage: Callable[[Path], None]
) -> None:
    damage(run / "predictions.npz")
    with pytest.raises(
        MissingError, match=r"they cannot be read: .*predictions\.npz is damaged or missing.*Take --precision float32"
    ):
        list(validation_answers(saved, 8))


def without_split(split: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on every run was made without pictures of this split."""

    def read(table: Path, facts: Any) -> Dataset:
        found = read_dataset(table, facts)
        rest = (replace(one, split="test") if one.split == split else one for one in found.pictures)
        return replace(found, pictures=tuple(rest))

    monkeypatch.setattr(answers, "read_dataset", read)


def test_validation_answers_of_a_run_without_such_pictures_say_so(
    saved: SavedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_split("val", monkeypatch)
    with pytest.raises(MissingError, match=r"has no validation pictures with answers\. Take --precision float32"):
        list(validation_answers(saved, 8))


def test_calibration_pictures_of_a_run_without_training_pictures_say_so(
    saved: SavedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_split("train", monkeypatch)
    with pytest.raises(MissingError, match=r"has no training pictures to calibrate int8 on\. Take --precision float32"):
        calibration_pictures(saved)


def test_open_saved_in_int8_that_was_never_prepared_says_what_to_do(saved: SavedModel) -> None:
    with pytest.raises(MissingError) as caught:
        open_saved(saved, "openvino", "int8", calibration=None)
    assert str(caught.value) == (
        f"int8 has not been prepared for {saved.run.path}, and there are no training pictures to calibrate it on. "
        "Take --precision float32, or run `foldertune speed` where the pictures are."
    )


def test_measure_without_the_pictures_of_the_run_refuses_int8_and_says_why(
    saved: SavedModel, run: Path, next_process: Callable[[], None]
) -> None:
    folder = move_pictures(run, run / "gone")
    exact, eight = finish(measure(saved, [FLOAT32, INT8]))
    assert exact.refused == ""
    assert "int8 is calibrated on the run's training pictures, and they cannot be read: " in eight.refused
    assert f"since {folder} was looked at" in eight.refused
    assert eight.refused.endswith("Take --precision float32.")
    next_process()
    assert read_trials(saved) == (exact,), "the pictures may come back"


def test_measure_without_pictures_to_judge_by_refuses_int8_and_takes_bf16_that_is_golden(
    saved: SavedModel, run: Path, engines: Callable[[Open], list[Spec]]
) -> None:
    exact = make_reference(saved)
    engines(lambda _: exact)
    move_pictures(run, run / "gone")
    half, eight = finish(measure(saved, [Spec("openvino", "bf16", "cpu"), INT8]))
    assert (half.refused, half.agreement) == ("", 1.0)
    assert eight.refused.startswith(
        "What is less exact than float32 is judged by the run's validation pictures, and they cannot be read: "
    )
    for path in ("run.json", "dataset.csv"):
        (run / path).unlink()
    half, eight = finish(measure(replace(saved, golden=None), [Spec("openvino", "bf16", "cpu"), INT8]))
    for trial in (half, eight):
        assert "run.json is missing" in trial.refused


# Opened, and checked when opened


def damage_other_network(path: Path) -> None:
    """A graph that opens, and answers otherwise: the first products are doubled. A new block of a ResNet adds nothing that could be."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(path)
    for constant in graph.graph.initializer:
        if constant.name == "conv1.weight":
            constant.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(constant), constant.name))
    onnx.save(graph, path)


@pytest.mark.parametrize("damage", [damage_truncate, damage_zeros, damage_other_network, Path.unlink])
def test_open_saved_of_a_damaged_form_makes_it_again(
    saved: SavedModel, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    pictures = saved.golden.pictures if saved.golden else np.zeros((1, 32, 32, 3), np.uint8)
    expected = open_saved(saved, "openvino", "float32").run(pictures)
    (graph,) = (tmp_path / "cache" / "engines").rglob("graph.onnx")
    damage(graph)
    np.testing.assert_array_equal(open_saved(saved, "openvino", "float32").run(pictures), expected)


def damage_weights(path: Path) -> None:
    """Other numbers, and the check that belongs to them: what an error in memory would leave behind."""
    content = bytearray(path.read_bytes()[:-4])
    content[len(content) // 4 : 3 * len(content) // 4] = bytes(len(content) // 2)
    path.write_bytes(bytes(content) + zlib.crc32(content).to_bytes(4, "little"))


@pytest.fixture
def compilings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time that OpenVINO compiles a model."""
    import openvino

    found, real = [], openvino.Core.compile_model

    def compile_model(*given: Any, **named: Any) -> Any:
        found.append(1)
        return real(*given, **named)

    monkeypatch.setattr(openvino.Core, "compile_model", compile_model)
    return found


@pytest.mark.parametrize("damage", [None, damage_truncate, damage_zeros, damage_weights, Path.unlink])
def test_open_saved_of_a_compiled_form_reads_it_and_makes_a_damaged_one_again_from_int8(
    saved: SavedModel, tmp_path: Path, compilings: list[int], damage: Callable[[Path], None] | None
) -> None:
    pictures = saved.golden.pictures if saved.golden else np.zeros((1, 32, 32, 3), np.uint8)
    expected = open_saved(saved, "openvino", "int8", calibration=lambda: pictures).run(pictures)
    (compiled,) = (tmp_path / "cache" / "engines").rglob("compiled.blob")
    (prepared,) = (tmp_path / "cache" / "engines").rglob("graph.xml")
    made_at = prepared.stat().st_mtime_ns
    if damage is not None:
        damage(compiled)
    damaged = compiled.read_bytes() if compiled.exists() else b""
    compilings.clear()
    found = open_saved(saved, "openvino", "int8")  # without pictures: nobody may need them any more
    np.testing.assert_array_equal(found.run(pictures), expected)
    assert len(compilings) == (0 if damage is None else 1)
    assert (compiled.read_bytes() == damaged) == (damage is None)
    assert prepared.stat().st_mtime_ns == made_at
    compilings.clear()
    np.testing.assert_array_equal(open_saved(saved, "openvino", "int8").run(pictures), expected)
    assert compilings == []


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_open_saved_of_a_damaged_int8_form_and_a_damaged_graph_makes_both_again(
    saved: SavedModel, tmp_path: Path, engine: str
) -> None:
    pictures = saved.golden.pictures if saved.golden else np.zeros((1, 32, 32, 3), np.uint8)
    expected = open_saved(saved, engine, "int8", calibration=lambda: pictures).run(pictures)
    places = [path.parent for path in (tmp_path / "cache" / "engines").rglob("*") if path.is_file()]
    for path in [path for place in places for path in place.iterdir()]:
        damage_truncate(path)
    np.testing.assert_array_equal(
        open_saved(saved, engine, "int8", calibration=lambda: pictures).run(pictures), expected
    )


def test_open_saved_on_an_engine_that_fails_leaves_the_forms_of_the_others(
    saved: SavedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = saved.golden.pictures if saved.golden else np.zeros((1, 32, 32, 3), np.uint8)
    open_saved(saved, "openvino", "int8", calibration=lambda: pictures)
    forms = {"compiled.blob", "graph.xml", "graph.bin"}
    made = {path: path.stat().st_ino for path in (tmp_path / "cache").rglob("*") if path.name in forms}
    assert len(made) == 3

    def broken(*_: Any, **__: Any) -> Engine:
        raise RuntimeError("illegal instruction")

    monkeypatch.setattr(saved_model, "open_engine", broken)
    for engine in ("onnxruntime", "openvino"):
        with pytest.raises(WorkFailedError, match=f"The engine {engine} cannot open .*illegal instruction"):
            open_saved(saved, engine, "float32")
    assert {path: path.stat().st_ino for path in made} == made


def test_open_saved_drops_a_damaged_form_when_nothing_has_it_open_any_more(
    saved: SavedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows deletes no file that is mapped, and an error in hand holds the engine that maps it."""
    open_saved(saved, "openvino", "float32")
    (graph,) = (tmp_path / "cache" / "engines").rglob("graph.onnx")
    damage_other_network(graph)
    engines: list[weakref.ref[Engine]] = []
    alive: list[int] = []
    real_open, real_drop = open_engine, Shelf.drop

    def opened(*given: Any, **named: Any) -> Engine:
        made = real_open(*given, **named)
        engines.append(weakref.ref(made))
        return made

    def drop(shelf: Shelf, name: str) -> None:
        alive.extend(1 for engine in engines if engine() is not None)
        real_drop(shelf, name)

    monkeypatch.setattr(saved_model, "open_engine", opened)
    monkeypatch.setattr(Shelf, "drop", drop)
    open_saved(saved, "openvino", "float32")
    assert len(engines) == 2
    assert alive == []


def test_open_saved_without_room_in_the_cache_for_int8_goes_on_in_the_spare(
    saved: SavedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO says that a disk is full in a type of its own."""
    import openvino

    pictures = saved.golden.pictures if saved.golden else np.zeros((1, 32, 32, 3), np.uint8)
    real = openvino.save_model

    def save_model(model: Any, path: Path, **options: Any) -> None:
        if Path(path).is_relative_to(tmp_path):
            raise RuntimeError("Exception from src/core/src/pass/serialize.cpp: no space")
        real(model, path, **options)

    monkeypatch.setattr(openvino, "save_model", save_model)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(tempfile, "tempdir", str(tmp_path))
        with pytest.raises(WorkFailedError, match=r"could be written neither to .*serialize.cpp: no space\. It takes"):
            open_saved(read_saved_model(saved.run.path), "openvino", "int8", calibration=lambda: pictures)
    found = open_saved(saved, "openvino", "int8", calibration=lambda: pictures)
    assert found.run(pictures).shape == (len(pictures), 3)
    assert not list((tmp_path / "cache").rglob("graph.xml"))


def test_open_saved_of_a_compiled_form_of_another_processor_compiles_its_own(
    saved: SavedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = saved.golden.pictures if saved.golden else np.zeros((1, 32, 32, 3), np.uint8)
    open_saved(saved, "openvino", "int8", calibration=lambda: pictures)
    monkeypatch.setattr("foldertune.engines.openvino.processor_name", lambda: "another one")
    open_saved(saved, "openvino", "int8")
    assert len(list((tmp_path / "cache" / "engines").rglob("compiled.blob"))) == 2


@pytest.fixture
def wrong_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO opens, and its logits are a hundredth too large."""
    real = open_engine

    class Wrong:
        name = "openvino"

        def __init__(self, engine: Engine) -> None:
            self.engine = engine

        def run_all(self, pictures: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
            return [self.run(pictures)]

        def run(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
            return self.engine.run(pictures) * np.float32(1.01)

    monkeypatch.setattr(saved_model, "open_engine", lambda *given, **named: Wrong(real(*given, **named)))


@pytest.mark.usefixtures("wrong_openvino")
def test_measure_of_an_engine_that_answers_otherwise_is_remembered_by_later_processes(
    saved: SavedModel, next_process: Callable[[], None]
) -> None:
    finish(measure(saved, [Spec("openvino", "float32", "cpu")]))
    next_process()
    (trial,) = read_trials(saved)
    assert "answers otherwise than the trained network" in trial.refused


@pytest.mark.usefixtures("wrong_openvino")
def test_open_saved_of_an_engine_that_answers_otherwise_is_refused(saved: SavedModel) -> None:
    with pytest.raises(
        WorkFailedError, match="The engine openvino in float32 answers otherwise than the trained network"
    ):
        open_saved(saved, "openvino", "float32")


def test_opening_by_itself_falls_back_to_float32_and_then_to_the_reference(
    run: Path, saved: SavedModel, engines: Callable[[Open], list[Spec]]
) -> None:
    for spec in candidates():
        remember(saved, Trial(*spec, pictures_per_s=100 if spec == INT8 else 10), judged=True)
    exact, broken = make_reference(saved), [INT8]

    def opened(spec: Spec) -> Engine:
        if spec in broken:
            raise WorkFailedError(f"The engine {spec.name} is wrong.")
        return exact

    asked = engines(opened)
    predictor, texts = told(opening(run))
    assert predictor.classes == ("blue", "green", "red")
    assert texts[-1] == "The engine openvino int8 is wrong. openvino float32 answers instead."
    for engine in ("auto", "openvino"):
        with pytest.raises(WorkFailedError, match="The engine openvino int8 is wrong"):
            finish(opening(run, engine=engine, precision="int8"))
    broken.append(FLOAT32)
    asked.clear()
    predictor, texts = told(opening(run))
    assert texts[-1] == "The engine openvino float32 is wrong. torch float32 answers instead."
    assert asked == [INT8, FLOAT32, LAST_RESORT]
    assert open_model(run).engine is exact
    broken.append(LAST_RESORT)
    with pytest.raises(WorkFailedError, match="The engine torch float32 is wrong"):
        finish(opening(run))


def test_opening_of_int8_that_is_gone_while_the_pictures_are_away_answers_in_float32(
    run: Path, saved: SavedModel, next_process: Callable[[], None]
) -> None:
    for spec in candidates():
        remember(saved, Trial(*spec, pictures_per_s=100 if spec == INT8 else 10), judged=True)
    next_process()
    move_pictures(run, run / "gone")
    predictor, texts = told(opening(run))
    assert predictor.engine.name == "openvino"
    assert "int8 is calibrated on the run's training pictures, and they cannot be read" in texts[-1]
    assert texts[-1].endswith("openvino float32 answers instead.")


@pytest.mark.parametrize(
    ("engine", "precision"),
    [
        ("openvino", "float32"),
        ("onnxruntime", "float32"),
        ("torch", "float32"),
        ("openvino", "int8"),
        ("onnxruntime", "int8"),
    ],
)
def test_opening_on_each_engine_answers_as_the_run_stored(
    run: Path, small_run: Path, engine: str, precision: str
) -> None:
    predictor = finish(opening(run, engine=engine, precision=precision))
    stored = np.load(run / "predictions.npz")
    rows = {int(row): shares for row, shares in zip(stored["rows"], stored["probabilities"], strict=True)}
    table = [line.split(",") for line in (run / "dataset.csv").read_text().splitlines()[1:]]
    paths = [small_run.parent / "pictures" / table[row][1] for row in rows]
    answers = predictor.predict(paths, top_k=3)
    found = np.array([[dict(answer.top)[name] for name in predictor.classes] for answer in answers])
    np.testing.assert_allclose(found, list(rows.values()), atol=1e-4 if precision == "float32" else 0.1)


def test_open_model_in_float32_measures_nothing(run: Path) -> None:
    open_model(run)
    assert read_trials(read_saved_model(run)) == ()
