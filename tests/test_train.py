"""The main job on real photographs, from the folder to answers for new pictures, and every file of the run folder."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import foldertune as command
from folders import state_of
from safetensors import safe_open

import foldertune
from foldertune import api, bench, recipe
from foldertune.errors import DataError
from foldertune.machine import OthersWatch
from foldertune.models.config import read_config
from foldertune.records import SPLITS, Event, Interval, finish, plain
from foldertune.run import SCHEMA
from foldertune.settings import TrainSettings
from foldertune.training import blend, checkpoint, verdict
from foldertune.training.verdict import Verdict

FILES = {
    "run.json", "dataset.csv", "plan.json", "history.jsonl", "events.jsonl", "checkpoints", "model.safetensors",
    "config.json", "preprocess.json", "labels.txt", "predictions.npz", "predictions.csv", "golden.npz",
    "unlike.npz", "metrics.json", "look.json", "findings.json", "report.html", "README.md", ".lock",
}  # fmt: skip
# float32, because that is how the saved model answers: in bf16 the figures of a run differ from it in the third digit.
QUICK = TrainSettings(image_size=64, epochs=2, seed=3, device="cpu", precision="float32")


def subset(source: Path, target: Path, *, num_classes: int, num_train: int, num_test: int) -> Path:
    """The first pictures of the first classes of a folder that has train and test."""
    for split, count in (("train", num_train), ("test", num_test)):
        for folder in sorted(path for path in (source / split).iterdir() if path.is_dir())[:num_classes]:
            for picture in sorted(folder.iterdir())[:count]:
                copy = target / split / folder.name / picture.name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(picture, copy)
    return target


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a cache of its own."""
    path = tmp_path_factory.mktemp("seedlings")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOLDERTUNE_CACHE", str(path / "cache"))
        yield path


@pytest.fixture(scope="module")
def photographs(material: Callable[[str], Path], place: Path) -> Path:
    """Seedlings of four kinds: twelve of each to learn from, five of each to test on."""
    return subset(material("data/seedlings"), place / "photographs", num_classes=4, num_train=12, num_test=5)


@pytest.fixture(scope="module")
def quick(real_weights: Path) -> TrainSettings:
    return TrainSettings(weights=str(real_weights), **QUICK)


@pytest.fixture(scope="module")
def run(photographs: Path, quick: TrainSettings, place: Path) -> foldertune.Run:
    before = state_of(photographs)
    made = foldertune.train(photographs, run=place / "run", **quick)
    assert state_of(photographs) == before  # nothing in the folder is ever changed
    return made


def read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


# The run folder


def test_train_leaves_exactly_the_files_of_the_contract(run: foldertune.Run) -> None:
    assert {path.name for path in run.path.iterdir()} == FILES
    assert list((run.path / "checkpoints").iterdir()) == []  # the states of a finished run are gone


def test_train_writes_what_was_asked_and_found_into_run_json(run: foldertune.Run, photographs: Path) -> None:
    facts = read(run.path / "run.json")
    assert facts["schema"] == SCHEMA
    assert facts["state"] == "finished"
    assert facts["folder"] == str(photographs)
    assert facts["settings"]["epochs"] == 2
    assert set(facts["sources"].values()) == {"user"}
    assert facts["versions"]["foldertune"] == foldertune.__version__
    assert facts["dataset"]["num_pictures"]["test"] == 20
    assert 0 < facts["minutes"] < 10
    assert "sha256" in facts["weights"]


def test_train_again_with_other_settings_measures_and_prepares_nothing_again(
    run: foldertune.Run, photographs: Path, quick: TrainSettings, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OthersWatch, "took_cores", lambda _: False)  # whatever else runs beside the tests
    monkeypatch.setattr(bench, "held_memory_mib", lambda: 500.0)  # whatever they hold

    def entries() -> dict[str, int]:
        return {path.name: path.stat().st_ino for path in (place / "cache").iterdir() if path.is_file()}

    foldertune.train(photographs, run=place / "second", **quick)  # now the files are old enough to be known again
    before = entries()
    other = TrainSettings(**quick, learning_rate=2e-4)
    again = foldertune.train(photographs, run=place / "third", **other)
    assert entries() == before
    assert {name.partition("-")[0] for name in before} == {
        "pictures", "canvases", "features", "head", "judged", "stock", "glances", "copies", "looks", "decoding", "survey", "probe",
        "trials", "inputs",
    }  # fmt: skip
    assert read(again.path / "run.json")["probe"] == read(place / "second" / "run.json")["probe"]
    assert again.plan["learning_rate"] == 2e-4


def test_train_lists_every_picture_with_its_hash_in_dataset_csv(run: foldertune.Run, photographs: Path) -> None:
    with (run.path / "dataset.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, strict=True))
    assert [int(row["row"]) for row in rows] == list(range(68))
    for row in rows:
        content = (photographs / row["path"]).read_bytes()
        assert row["sha256"] == hashlib.sha256(content).hexdigest()
        assert row["label"] == Path(row["path"]).parent.name
        assert (row["split"] == "test") == row["path"].startswith("test/")


def test_train_writes_a_plan_with_reasons_and_a_history_and_events(run: foldertune.Run, quick: TrainSettings) -> None:
    plan = read(run.path / "plan.json")
    assert all(row["reason"] and row["rule"] and row["source"] in ("user", "file", "rule") for row in plan)
    assert {row["setting"] for row in plan if row["source"] == "user"} == set(quick)
    assert run.plan["epochs"] == 2
    assert run.plan.values() == {row["setting"]: row["value"] for row in plan}
    history = lines(run.path / "history.jsonl")
    assert [record["epoch"] for record in history] == [1, 2]
    assert history == [plain(record) for record in run.history]
    assert all(math.isfinite(record["train_loss"]) for record in history)
    kinds = [told["kind"] for told in lines(run.path / "events.jsonl")]
    assert (kinds[0], kinds[-1]) == ("started", "finished")
    assert kinds.count("epoch") == 2
    assert set(kinds) == {
        "started",
        "looked",
        "found",
        "weights",
        "planned",
        "baseline",
        "expected",
        "examined",
        "epoch",
        "learned",
        "kept",
        "evaluated",
        "diagnosed",
        "finished",
    }


def test_train_saves_a_model_that_names_its_classes(run: foldertune.Run) -> None:
    labels = (run.path / "labels.txt").read_text("utf-8").splitlines()
    config = read_config(run.path / "config.json")
    assert config.model == "resnet50"
    assert list(config.label_names or ()) == labels == sorted(labels)
    assert len(labels) == 4
    assert read(run.path / "preprocess.json")["image_size"] == 64
    with safe_open(run.path / "model.safetensors", "numpy") as tensors:
        assert tensors.get_slice("fc.weight").get_shape() == [4, 2048]
        assert tensors.get_slice("conv1.weight").get_shape() == [64, 3, 7, 7]


def test_train_writes_a_report_and_a_card_that_stand_alone(run: foldertune.Run) -> None:
    links: list[str] = []

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            links.extend(value or "" for name, value in attrs if name in ("src", "href"))

    text = (run.path / "report.html").read_text("utf-8")
    Links().feed(text)
    assert text.startswith("<!DOCTYPE html>")
    assert f"{100 * run.evaluate().accuracy.value:.1f} %" in text.replace("\u00a0", " ")
    assert links
    # Nothing is loaded; the rows that figures come from lie beside it.
    assert all(link.startswith(("data:image/", "#")) or (run.path / link).is_file() for link in links)
    card = (run.path / "README.md").read_text("utf-8")
    assert card.startswith("---\n")
    assert all(label in card for label in run.evaluate().classes)


def test_train_tells_the_accuracy_to_expect_everywhere_alike(run: foldertune.Run) -> None:
    assert run.plan.forecast is not None
    found = run.plan.forecast.accuracy
    assert found is not None
    assert read(run.path / "run.json")["forecast"]["accuracy"] == plain(found)
    told = [each["facts"] for each in lines(run.path / "events.jsonl") if each["kind"] == "expected"]
    assert told == [{"accuracy": plain(found), "no_accuracy": ""}]
    assert 0 <= found.low <= found.value <= found.high <= 1
    with (run.path / "dataset.csv").open(newline="", encoding="utf-8") as stream:
        assert found.num_judged == sum(row["split"] == "train" for row in csv.DictReader(stream))
    assert found.num_test == 20
    report = (run.path / "report.html").read_text("utf-8").replace("\u00a0", " ")
    reached = run.evaluate().accuracy.value
    assert (
        f"Forecast: accuracy between {100 * found.low:.1f} % and {100 * found.high:.1f} % in 90 % of runs, "
        f"{100 * found.value:.1f} % expected. It reached {100 * reached:.1f} %." in report
    )


# Figures and answers


def test_evaluate_of_a_run_returns_the_stored_record_and_measures_nothing(run: foldertune.Run) -> None:
    before = state_of(run.path)
    first, second = foldertune.evaluate(run.path), run.evaluate()
    assert first == second
    assert state_of(run.path) == before
    metrics = read(run.path / "metrics.json")
    assert plain(first) == metrics["evaluations"][run.kept]["test"]
    assert first.num_pictures == 20
    assert first.accuracy.low <= first.accuracy.value <= first.accuracy.high
    assert first.accuracy.value > 0.35  # by chance a quarter would be right


def test_evaluation_agrees_with_the_stored_predictions(run: foldertune.Run) -> None:
    found = run.evaluate()
    with np.load(run.path / "predictions.npz") as stored:
        test = stored["split"] == "test"
        labels, shares = stored["labels"][test], stored["probabilities"][test]
        assert {"val", "test"} <= set(stored["split"]) <= set(SPLITS)
    assert (shares.argmax(1) == labels).mean() == pytest.approx(found.accuracy.value)
    assert -np.log(shares[np.arange(20), labels]).mean() == pytest.approx(found.log_loss, abs=1e-5)
    confusion = np.zeros((4, 4), int)
    np.add.at(confusion, (labels, shares.argmax(1)), 1)
    assert confusion.tolist() == [list(row) for row in found.confusion]


def test_predict_on_the_test_pictures_agrees_with_the_stored_predictions(
    run: foldertune.Run, photographs: Path
) -> None:
    classes = run.evaluate().classes
    with np.load(run.path / "predictions.npz") as stored:
        by_row = dict(zip(stored["rows"].tolist(), stored["probabilities"], strict=True))
    with (run.path / "dataset.csv").open(newline="", encoding="utf-8") as stream:
        rows = {str(photographs / row["path"]): int(row["row"]) for row in csv.DictReader(stream)}
    answers = list(run.predict(photographs / "test", top_k=4))
    assert len(answers) == 20
    for answer in answers:
        shares = [dict(answer.top)[name] for name in classes]
        np.testing.assert_allclose(shares, by_row[rows[answer.path]], atol=1e-4)


def test_evaluate_on_the_same_folder_finds_what_the_run_found(run: foldertune.Run, photographs: Path) -> None:
    again, stored = foldertune.evaluate(run, photographs), run.evaluate()
    assert again.split == stored.split == "test"
    assert again.confusion == stored.confusion
    assert again.log_loss == pytest.approx(stored.log_loss, abs=1e-3)


# The other verbs from Python


def test_plan_names_every_value_as_the_run_decided_it_and_writes_nothing(
    run: foldertune.Run, photographs: Path, quick: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    planned = foldertune.plan(photographs, **quick)
    assert planned.values() == run.plan.values()
    assert planned.warnings == run.plan.warnings
    assert planned.forecast is not None
    assert planned.forecast.minutes > 0
    assert run.plan.forecast is not None
    assert planned.forecast.accuracy == run.plan.forecast.accuracy
    assert not list(tmp_path.iterdir())


def test_load_and_resume_of_a_finished_run_return_it_as_it_is(run: foldertune.Run) -> None:
    before = state_of(run.path)
    assert foldertune.load(run.path) == run == foldertune.resume(run.path)
    assert state_of(run.path) == before


def test_resume_after_the_baseline_ends_with_the_same_answers(
    run: foldertune.Run, photographs: Path, quick: TrainSettings, tmp_path: Path
) -> None:
    started = api.start(photographs, run=tmp_path / "run", **quick)
    going = api.going(started)
    next(told for told in going if isinstance(told, Event) and told.kind == "baseline")
    going.close()
    # The baseline can answer already, long before the run is finished.
    assert [answer.error for answer in started.predict(photographs / "test")] == [None] * 20
    foldertune.resume(started.path)
    with np.load(run.path / "predictions.npz") as whole, np.load(started.path / "predictions.npz") as resumed:
        assert set(whole) == set(resumed)
        assert all(np.array_equal(whole[name], resumed[name]) for name in whole)
    assert asdict(started.evaluate()) == asdict(run.evaluate())


def test_resume_with_other_weights_is_refused(photographs: Path, quick: TrainSettings, tmp_path: Path) -> None:
    weights = tmp_path / "resnet50.safetensors"
    shutil.copyfile(Path(quick["weights"]), weights)
    settings = quick.copy()
    settings["weights"] = str(weights)
    started = api.start(photographs, run=tmp_path / "run", **settings)
    going = api.going(started)
    next(told for told in going if isinstance(told, Event) and told.kind == "planned")
    going.close()
    with weights.open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\x00" if weights.read_bytes()[-1:] != b"\x00" else b"\x01")
    with pytest.raises(
        DataError, match=r"are not those that .+ began with .+ Put the earlier file back, or start a new"
    ):
        foldertune.resume(started.path)


def test_plan_with_the_device_auto_names_the_device(photographs: Path, quick: TrainSettings, place: Path) -> None:
    settings = quick.copy()
    settings["device"] = "auto"
    plan = foldertune.plan(photographs, **settings)
    assert plan["device"] in ("cpu", "cuda", "mps")


def test_resume_after_the_kept_model_was_written_ends_with_the_same_bits(
    photographs: Path, quick: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way back to the pretrained weights must not lead to a model that was on this way already."""
    kept = Verdict("fine-tuned", Interval(0.1, 0.0, 0.2), 2.0, "The fine-tuned model is kept.")
    monkeypatch.setattr(recipe, "FAR_FROM", math.inf)  # far pictures go no way back
    monkeypatch.setattr(blend, "SHARES", (0.5,))
    monkeypatch.setattr(verdict, "judge", lambda *_, **__: kept)
    whole = foldertune.train(photographs, run=tmp_path / "whole", **quick)
    started = api.start(photographs, run=tmp_path / "run", **quick)
    going = api.going(started)
    next(told for told in going if isinstance(told, Event) and told.kind == "evaluated")
    going.close()
    foldertune.resume(started.path)
    assert "blended" in {told["kind"] for told in lines(whole.path / "events.jsonl")}
    assert (started.path / "model.safetensors").read_bytes() == (whole.path / "model.safetensors").read_bytes()
    assert list((started.path / "checkpoints").iterdir()) == []


def test_t3_killed_when_all_is_done_the_run_is_finished_and_trains_nothing_again(
    photographs: Path, quick: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the word that the run is finished and the end of its saved states."""

    def killed(_: Path) -> None:
        raise KeyboardInterrupt

    started = api.start(photographs, run=tmp_path / "run", **quick)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "remove_states", killed)
        with pytest.raises(KeyboardInterrupt):
            finish(api.going(started))
    model = (started.path / "model.safetensors").read_bytes()
    assert list(api.going(started)) == []
    assert (started.path / "model.safetensors").read_bytes() == model
    assert list((started.path / "checkpoints").iterdir()) == []


# Everything as a user would, at full size


@pytest.mark.slow
def test_command_trains_twelve_kinds_of_seedlings_at_full_size(
    material: Callable[[str], Path], real_weights: Path, tmp_path: Path
) -> None:
    folder = subset(material("data/seedlings"), tmp_path / "photographs", num_classes=12, num_train=10, num_test=4)
    cache = str(tmp_path / "cache")
    said = command(
        "train",
        folder,
        "--weights",
        real_weights,
        "--epochs",
        "2",
        "--run",
        tmp_path / "run",
        "--json",
        FOLDERTUNE_CACHE=cache,
    )
    assert said.code == 0
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES
    assert said.document["evaluation"]["num_pictures"] == 48
    assert said.document["evaluation"]["accuracy"]["value"] > 0.4  # by chance a twelfth would be right
    assert "Baseline: " in said.err
    assert "Epoch 2/2 " in said.err
    answers = command("predict", tmp_path / "run", folder / "test", "--json", FOLDERTUNE_CACHE=cache).document
    right = sum(Path(answer["path"]).parent.name == answer["class"] for answer in answers)
    assert right / len(answers) == pytest.approx(said.document["evaluation"]["accuracy"]["value"])
