"""Which engine is taken: the fastest that is exact enough, tried once, remembered, and refused when it costs accuracy."""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from foldertune.engines import Engine, open_engine
from foldertune.engines.shelf import Shelf
from foldertune.errors import MissingError, SettingsError, WorkFailedError
from foldertune.evaluation import choice, saved_model
from foldertune.evaluation.answers import Answers, calibration_pictures, validation_answers
from foldertune.evaluation.choice import Choice, Spec, Trial, candidates, choose, measure, pick, read_trials
from foldertune.evaluation.predict import open_model, opening
from foldertune.evaluation.saved_model import SavedModel, open_saved, read_saved_model
from foldertune.records import Event, Interval, Progress, finish


@pytest.fixture
def run(small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the small run, and an empty cache."""
    monkeypatch.setenv("FOLDERTUNE_CACHE", str(tmp_path / "cache"))
    shutil.copytree(small_run, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def saved(run: Path) -> SavedModel:
    return read_saved_model(run)


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
    ("trials", "expected"),
    [
        ([trial("float32", 20)], "float32"),
        ([trial("int8", 100), trial("bf16", 50), trial("float32", 25)], "int8"),
        ([trial("int8", 55), trial("bf16", 50), trial("float32", 25)], "bf16"),  # a tenth faster is not worth it
        ([trial("int8", 29), trial("bf16", 24), trial("float32", 25)], "float32"),
        ([trial("int8", 100, refused="it is wrong"), trial("bf16", 50), trial("float32", 25)], "bf16"),
        ([trial("int8", 31), trial("bf16", 29), trial("float32", 25)], "int8"),  # held against what is kept
    ],
)
def test_pick_takes_what_is_faster_by_a_fifth_from_the_most_exact_on(trials: list[Trial], expected: str) -> None:
    for order in (trials, trials[::-1]):
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


def judged(found: list[int], float32: list[int], labels: list[int]) -> Trial:
    answers = Answers(np.zeros((len(labels), 1, 1, 3), np.uint8), np.array(labels), np.array(float32))
    return choice._compared(trial("int8", 100), np.array(found), answers)


def test_compared_of_equal_answers_is_accepted_with_an_interval_around_no_loss() -> None:
    found = judged([0, 1] * 100, [0, 1] * 100, [0, 1] * 100)
    assert (found.agreement, found.refused, found.num_judged) == (1.0, "", 200)
    loss = found.accuracy_loss
    assert loss is not None
    assert loss.value == 0
    assert -0.02 < loss.low < 0 < loss.high < 0.02


def test_compared_of_answers_that_differ_too_often_is_refused_though_accuracy_is_the_same() -> None:
    float32, labels = [0] * 200, [0] * 190 + [1] * 10
    found = judged([0] * 185 + [1] * 5 + [1] * 5 + [0] * 5, float32, labels)
    assert found.agreement == 0.95
    assert found.accuracy_loss is not None
    assert found.accuracy_loss.value == 0
    assert found.refused == "95.0% of 200 validation pictures are answered as in float32, 98% is the least"


def test_compared_of_answers_that_surely_cost_accuracy_is_refused_though_they_agree() -> None:
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


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"engine": "onnxruntime"}, {("onnxruntime", "float32"), ("onnxruntime", "int8")}),
        ({"precision": "int8"}, {("openvino", "int8")}),
        ({"engine": "torch", "precision": "float32"}, {("torch", "float32")}),
    ],
)
def test_choose_tries_only_what_fits_what_was_asked(
    saved: SavedModel, asked: dict[str, str], expected: set[tuple[str, str]]
) -> None:
    found, _ = told(choose(saved, engine=asked.get("engine", "auto"), precision=asked.get("precision", "auto")))
    assert (found.engine, found.precision) in expected
    assert {(each.engine, each.precision) for each in found.trials} <= expected


def test_choose_on_another_machine_or_with_other_versions_tries_again(
    saved: SavedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(measure(saved, [Spec("openvino", "float32", "cpu")]))
    assert len(read_trials(saved)) == 1
    monkeypatch.setattr(choice, "num_cores", lambda: 99)
    assert read_trials(saved) == ()


def test_choose_of_int8_that_was_refused_is_obeyed_with_a_warning(saved: SavedModel) -> None:
    finish(measure(saved, [Spec("openvino", "int8", "cpu")]))
    stored = saved.shelf.read_trials()
    stored["trials"][0] |= {"refused": "it is wrong", "agreement": 0.5}
    saved.shelf.write_trials(stored)
    found, texts = told(choose(saved, engine="openvino", precision="int8"))
    assert (found.engine, found.precision) == ("openvino", "int8")
    assert texts == ["openvino int8 is used because it was asked for: it is wrong."]


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
    broken, good = finish(measure(saved, specs))
    assert broken.refused.endswith("illegal instruction at 0x0.")
    assert good.refused == ""
    assert pick([broken, good]).engine == "openvino"


def test_measure_without_the_pictures_of_the_run_refuses_int8_and_says_why(saved: SavedModel, run: Path) -> None:
    facts = json.loads((run / "run.json").read_text())
    facts["dataset"]["folder"] = str(run / "gone")
    (run / "run.json").write_text(json.dumps(facts))
    assert validation_answers(saved) is None
    with pytest.raises(
        MissingError, match=r"the run's training pictures, and they cannot be read.*Take --precision float32"
    ):
        calibration_pictures(saved)
    exact, eight = finish(measure(saved, [Spec("openvino", "float32", "cpu"), Spec("openvino", "int8", "cpu")]))
    assert exact.refused == ""
    assert "int8 is calibrated on the run's training pictures" in eight.refused
    assert finish(choose(saved, precision="float32")).precision == "float32"


def test_restored_trials_keep_their_intervals(saved: SavedModel) -> None:
    loss = Interval(0.01, -0.01, 0.02)
    choice._remember(saved, Trial("openvino", "int8", accuracy_loss=loss, refused="so"))
    assert read_trials(saved) == (Trial("openvino", "int8", accuracy_loss=loss, refused="so"),)


# Opened, and checked when opened


def damage_truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_zeros(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 4 : 3 * len(content) // 4] = bytes(len(content) // 2)
    path.write_bytes(bytes(content))


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


def test_open_saved_of_an_engine_that_answers_otherwise_is_refused(
    saved: SavedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    with pytest.raises(
        WorkFailedError, match="The engine openvino in float32 answers otherwise than the trained network"
    ):
        open_saved(saved, "openvino", "float32")


def test_opening_by_itself_falls_back_to_float32_where_the_chosen_engine_fails(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from foldertune.evaluation import predict

    finish(choose(read_saved_model(run)))
    real = open_saved

    def opened(saved: SavedModel, engine: str, precision: str, **options: Any) -> Engine:
        if precision == "int8":
            raise WorkFailedError("The engine is wrong.")
        return real(saved, engine, precision, **options)

    chosen = Choice("openvino", "int8", "cpu", "fastest")

    def chooses(*_: Any, **__: Any) -> Any:
        yield Progress("engines", 1, 1)
        return chosen

    monkeypatch.setattr(predict, "open_saved", opened)
    monkeypatch.setattr(predict, "choose", chooses)
    predictor, texts = told(opening(run))
    assert predictor.classes == ("blue", "green", "red")
    assert texts[-1] == "The engine is wrong. OpenVINO in float32 answers instead."
    with pytest.raises(WorkFailedError, match="The engine is wrong"):
        finish(opening(run, engine="openvino", precision="int8"))


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
