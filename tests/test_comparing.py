"""Networks compared: on one split, with one budget, gone on with after an interruption, and refused where it would mean nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import foldertune
from invented import hostile_comparison

import foldertune as product
from foldertune.comparing import Asked, Contest, comparing, with_weights
from foldertune.errors import DataError, InterruptedRunError, MissingError, SettingsError, WorkFailedError
from foldertune.evaluation.comparison_page import render_comparison
from foldertune.evaluation.standing import read_answers, refuse_unlike, which_to_take
from foldertune.guide import guide_says
from foldertune.records import Comparison, Contestant, Event, Interval, Pair, finish, plain, restored
from foldertune.run import RunFolder, read_json, write_json
from foldertune.stopping import StopRequest

SETTINGS: dict[str, Any] = {"image_size": 32, "epochs": 1, "augmentation": "none", "device": "cpu", "seed": 4}
MODELS = ["resnet34", "resnet18"]


@pytest.fixture(scope="module")
def place(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with `pictures`, and a cache of its own for all tests of this file."""
    path = tmp_path_factory.mktemp("compared")
    shutil.copytree(small_run.parent / "pictures", path / "pictures")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOLDERTUNE_CACHE", str(path / "cache"))
        yield path


@pytest.fixture(scope="module")
def told() -> list[Event]:
    return []


@pytest.fixture(scope="module")
def found(place: Path, told: list[Event]) -> Comparison:
    work = comparing(
        place / "pictures", models=MODELS, weights="random", repeats=2, run=place / "comparison", **SETTINGS
    )
    while True:
        try:
            event = next(work)
        except StopIteration as stop:
            result: Comparison = stop.value
            return result
        if isinstance(event, Event):
            told.append(event)


def test_every_network_is_trained_as_often_as_asked_on_the_very_same_split(found: Comparison) -> None:
    runs = [Path(run) for each in found.contestants for run in each.runs]
    assert len(runs) == 4
    tables = {(run / "dataset.csv").read_bytes() for run in runs}
    assert len(tables) == 1
    assert [read_json(run / "plan.json")[3]["value"] for run in runs] == [4, 5, 4, 5]  # seeds
    assert {read_json(run / "run.json")["state"] for run in runs} == {"finished"}


def test_the_data_is_told_of_once_and_each_training_is_announced(found: Comparison, told: list[Event]) -> None:
    assert found
    kinds = [event.kind for event in told]
    assert kinds.count("looked") == 1
    assert [event.facts["model"] for event in told if event.kind == "comparing"] == ["resnet34", "resnet18"] * 2


def test_the_figures_are_those_of_the_runs(found: Comparison) -> None:
    for each in found.contestants:
        accuracies = []
        for run in map(Path, each.runs):
            with np.load(run / "predictions.npz") as stored:
                test = stored["split"] == "test"
                accuracies.append(float((stored["probabilities"][test].argmax(1) == stored["labels"][test]).mean()))
        assert each.accuracies == pytest.approx(accuracies)
        assert each.accuracy.value == pytest.approx(np.mean(accuracies))
        assert each.size_mb == pytest.approx((Path(each.runs[0]) / "model.safetensors").stat().st_size / 1e6)
        assert each.latency_ms > 0
    by_name = {each.model: each for each in found.contestants}
    assert by_name["resnet18"].parameters == 11_178_051  # 11,689,512 with 1000 classes
    assert found.contestants[0].accuracy.value >= found.contestants[1].accuracy.value
    (pair,) = found.pairs
    assert pair.difference.value == pytest.approx(
        found.contestants[0].accuracy.value - found.contestants[1].accuracy.value
    )
    assert any(each.efficient for each in found.contestants)


def test_all_have_the_budget_of_the_first(found: Comparison) -> None:
    plans = {run: read_json(Path(run) / "plan.json") for each in found.contestants for run in each.runs}
    limits = {
        Path(run).name: next(r["value"] for r in rows if r["setting"] == "max_minutes") for run, rows in plans.items()
    }
    assert {limits["resnet34"], limits["resnet34-2"]} == {None}  # named first: its time is the budget of the others
    assert {limits["resnet18"], limits["resnet18-2"]} == {found.minutes}
    sources = {row["setting"]: row["source"] for row in plans[str(Path(found.path) / "resnet18-2")]}
    assert (sources["max_minutes"], sources["seed"], sources["epochs"]) == ("compare", "compare", "user")


def test_asked_again_a_finished_comparison_is_told_as_it_was(found: Comparison, place: Path) -> None:
    again = product.compare(
        place / "pictures", models=MODELS, weights="random", repeats=2, run=place / "comparison", **SETTINGS
    )
    assert again == found
    stored = read_json(place / "comparison" / "comparison.json")["found"]
    assert restored(Comparison, stored) == found
    assert stored == plain(found)


def test_the_page_tells_it_all_and_links_to_the_reports(found: Comparison, place: Path) -> None:
    page = (place / "comparison" / "comparison.html").read_text("utf-8")
    assert page == render_comparison(found)
    assert 'href="resnet18/report.html"' in page
    assert 'href="resnet34-2/report.html"' in page
    for each in found.contestants:
        assert (place / "comparison" / Path(each.runs[0]).name / "report.html").exists()
    assert page.count("<svg") == 2
    assert "<script" not in page


def test_names_of_folders_stay_text_in_the_page() -> None:
    page = render_comparison(hostile_comparison())
    assert "<script" not in page
    assert page.count("</style>") == 1
    assert "\u202e" not in page


def test_interrupted_it_says_how_to_go_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    stop = StopRequest()
    stop.signal = 15
    work = comparing(place / "pictures", models=MODELS, weights="random", run="broken off", stop=stop, **SETTINGS)
    with pytest.raises(
        InterruptedRunError,
        match=r"what was done is kept in .*broken off\. The same command with --run '.*broken off' goes on\.$",
    ) as error:
        finish(work)
    assert error.value.exit_code == 143


def test_gone_on_with_it_trains_what_is_missing_and_nothing_else(found: Comparison, place: Path) -> None:
    cut = place / "cut off"
    shutil.copytree(place / "comparison", cut)
    facts = read_json(cut / "comparison.json")
    del facts["found"]
    write_json(cut / "comparison.json", facts)
    (cut / "comparison.html").unlink()
    shutil.rmtree(cut / "resnet18-2")
    kept = {path: path.stat().st_mtime_ns for path in cut.glob("*/model.safetensors")}
    again = product.compare(place / "pictures", models=MODELS, weights="random", repeats=2, run=cut, **SETTINGS)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert [each.accuracies for each in again.contestants] == [each.accuracies for each in found.contestants]
    assert (cut / "comparison.html").exists()


def test_cut_off_in_the_middle_of_a_training_and_at_the_worst_moments_it_goes_on(
    found: Comparison, place: Path
) -> None:
    """The last training has its table of pictures, but not yet its plan; another one has not written its first file."""
    cut = place / "cut in the middle"
    shutil.copytree(place / "comparison", cut)
    facts = read_json(cut / "comparison.json")
    write_json(cut / "comparison.json", {key: value for key, value in facts.items() if key != "found"})
    for path in (cut / "resnet18-2").iterdir():
        if path.name not in ("run.json", "dataset.csv", "checkpoints"):
            path.unlink()
    begun = read_json(cut / "resnet18-2" / "run.json")
    write_json(cut / "resnet18-2" / "run.json", {**begun, "state": "started"})
    shutil.rmtree(cut / "resnet34-2")
    (cut / "resnet34-2" / "checkpoints").mkdir(parents=True)
    (cut / "resnet34-2" / ".part-1-run.json").touch()
    again = product.compare(place / "pictures", models=MODELS, weights="random", repeats=2, run=cut, **SETTINGS)
    assert [each.accuracies for each in again.contestants] == [each.accuracies for each in found.contestants]


def test_pictures_or_weights_that_changed_between_the_runs_are_refused(found: Comparison, place: Path) -> None:
    moved = place / "moved"
    shutil.copytree(place / "comparison", moved)
    runs = {"resnet34": [RunFolder(moved / "resnet34"), RunFolder(moved / "resnet34-2")]}
    refuse_unlike(runs)
    last = runs["resnet34"][1]
    before = last.open()
    last.update(weights={**before["weights"], "sha256": "other"})
    with pytest.raises(
        DataError, match="The runs of resnet34 began from different weights: the file was changed meanwhile"
    ):
        refuse_unlike(runs)
    last.update(weights=before["weights"], dataset={**before["dataset"], "fingerprint": "other"})
    with pytest.raises(DataError, match=r"moved are of different pictures: the folder was changed meanwhile\. Begin"):
        refuse_unlike(runs)
    (moved / "resnet34" / "predictions.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"predictions\.npz is damaged or missing"):
        read_answers(runs["resnet34"][0])


def test_a_comparison_that_was_moved_tells_where_its_runs_are_now(found: Comparison, place: Path) -> None:
    elsewhere = place / "elsewhere"
    shutil.copytree(place / "comparison", elsewhere)
    again = product.compare(place / "pictures", models=MODELS, weights="random", repeats=2, run=elsewhere, **SETTINGS)
    assert again.path == str(elsewhere)
    assert all(Path(run).parent == elsewhere for each in again.contestants for run in each.runs)
    facts = read_json(elsewhere / "comparison.json")
    facts["found"]["contestants"][0].pop("accuracy")
    write_json(elsewhere / "comparison.json", facts)
    with pytest.raises(DataError, match=r"comparison\.json is not whole .*Delete it, and ask for the same again"):
        product.compare(place / "pictures", models=MODELS, weights="random", repeats=2, run=elsewhere, **SETTINGS)


def test_two_at_once_in_one_folder_are_refused(found: Comparison, place: Path) -> None:
    asked: dict[str, Any] = {"models": MODELS, "weights": "random", "repeats": 2, **SETTINGS}
    with RunFolder(Path(found.path)).locked(), pytest.raises(WorkFailedError, match="Another process is going through"):
        product.compare(place / "pictures", run=found.path, **asked)
    assert (Path(found.path) / "comparison.json").exists()


def test_what_somebody_put_into_the_folder_stays_when_nothing_came_of_it(place: Path, tmp_path: Path) -> None:
    asked = Asked(place / "pictures", ("resnet18",), {"resnet18": "random"}, True, 1, {})
    for folder in (tmp_path / "noted", tmp_path / "empty"):
        contest = Contest(folder, asked, StopRequest())
        with contest.opened() as earlier:
            assert earlier is None
            contest.run_of("resnet18", 0).create()
            if folder.name == "noted":
                (folder / "note.txt").write_text("mine")
            contest.discard_empty()
    assert [path.name for path in (tmp_path / "noted").iterdir()] == ["note.txt"]
    assert not (tmp_path / "empty").exists()


def test_a_network_without_weights_is_named_and_left_out(place: Path) -> None:
    weights = {"resnet18": "random", "resnet50": str(place / "none.safetensors")}
    found = product.compare(
        place / "pictures", models=["resnet18", "resnet50"], weights=weights, run=place / "alone", **SETTINGS
    )
    assert [each.model for each in found.contestants] == ["resnet18"]
    assert not found.pairs
    (text,) = found.left_out
    assert text.startswith("resnet50: ")
    assert "none.safetensors" in text
    assert "nothing to compare it with" in found.answer


def test_where_no_network_has_weights_nothing_is_made(place: Path) -> None:
    with pytest.raises(MissingError, match=r"None of the models can be compared\. resnet18: .*none\.safetensors"):
        product.compare(
            place / "pictures",
            models=["resnet18"],
            weights=str(place / "none.safetensors"),
            run=place / "no",
            **SETTINGS,
        )
    assert not (place / "no").exists()


def test_weights_of_another_network_are_refused_where_they_are_meant_for_it(found: Comparison, place: Path) -> None:
    """For all of them, those that they do not fit are left out."""
    of_18 = Path(next(each for each in found.contestants if each.model == "resnet18").runs[0]) / "model.safetensors"
    alone = place / "eighteen.safetensors"
    shutil.copyfile(of_18, alone)
    with pytest.raises(SettingsError, match=r"is not of a resnet34: .*Give weights of a resnet34"):
        product.compare(
            place / "pictures", models=MODELS, weights={"resnet34": str(alone)}, run=place / "no", **SETTINGS
        )
    assert not (place / "no").exists()
    asked = Asked(place / "pictures", tuple(MODELS), dict.fromkeys(MODELS, str(alone)), True, 1, {})
    models, left_out = finish(with_weights(Contest(place / "no", asked, StopRequest())))
    assert models == ["resnet18"]
    assert left_out[0].startswith("resnet34: The weights file")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"models": []}, r"No model is named\. Give --models"),
        ({"models": ["resnet18", "resnet18"]}, r"resnet18 is named twice\. Name each once; --repeats"),
        ({"models": ["resnet19"]}, "resnet19"),
        ({"repeats": 0}, r"Repeats is 0\. Accepted: 1 to 20\."),
        ({"weights": {"vit_base": "random"}}, "There are weights for vit_base, which is not compared"),
        ({"model": "resnet18"}, "compare has no setting 'model'"),
        ({"epochs": 99}, "Epochs is 99"),
    ],
)
def test_what_makes_no_comparison_is_refused_before_anything_is_made(
    place: Path, changes: dict[str, Any], sentence: str
) -> None:
    asked = {"models": MODELS, "weights": "random", "run": place / "refused", **SETTINGS, **changes}
    with pytest.raises(SettingsError, match=sentence):
        product.compare(place / "pictures", **asked)
    assert not (place / "refused").exists()


def test_a_folder_that_holds_something_else_is_refused(found: Comparison, place: Path) -> None:
    (place / "full").mkdir()
    (place / "full" / "diary.txt").write_text("mine")
    with pytest.raises(SettingsError, match=r"full exists and is not empty\. Give another --run\."):
        product.compare(place / "pictures", models=MODELS, weights="random", run=place / "full", **SETTINGS)
    with pytest.raises(SettingsError, match="holds a comparison of other models, pictures or settings"):
        product.compare(place / "pictures", models=MODELS, weights="random", run=found.path, **SETTINGS)
    with pytest.raises(SettingsError, match="which is never changed"):
        product.compare(place / "pictures", models=MODELS, weights="random", run=place / "pictures" / "x", **SETTINGS)
    assert [path.name for path in (place / "full").iterdir()] == ["diary.txt"]


def test_a_record_of_a_newer_version_and_a_broken_one_are_refused(tmp_path: Path, place: Path) -> None:
    newer, broken = tmp_path / "newer", tmp_path / "broken"
    for folder, content in ((newer, {"schema": 99}), (broken, [1])):
        folder.mkdir()
        write_json(folder / "comparison.json", content)
    asked = {"models": MODELS, "weights": "random", **SETTINGS}
    with pytest.raises(DataError, match=r"written by a newer version \(schema 99; this one knows 1\)\. Update"):
        product.compare(place / "pictures", run=newer, **asked)
    with pytest.raises(DataError, match="is not the record of a comparison"):
        product.compare(place / "pictures", run=broken, **asked)


def test_no_folder_and_no_test_pictures_are_refused_and_leave_nothing(place: Path, tmp_path: Path) -> None:
    asked = {"models": MODELS, "weights": "random", **SETTINGS}
    with pytest.raises(DataError, match=r"There is no folder .*nowhere"):
        product.compare(tmp_path / "nowhere", run=tmp_path / "run", **asked)
    for number, picture in enumerate(sorted((place / "pictures").rglob("*.png"))[::12]):
        target = tmp_path / "given" / ("one", "other")[number % 2] / picture.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture, target)
    with pytest.raises(DataError, match="has no test pictures to compare on") as error:
        product.compare(tmp_path / "given", run=tmp_path / "run", **asked)
    assert error.value.exit_code == 3
    assert not (tmp_path / "run").exists()


def test_the_command_prints_one_document_or_a_table(place: Path, found: Comparison) -> None:
    words: list[str | Path] = [
        "compare",
        place / "pictures",
        "--models",
        "resnet34,resnet18",
        "--weights",
        "random",
        "--repeats",
        "2",
    ]
    words += [
        "--image-size",
        "32",
        "--epochs",
        "1",
        "--augmentation",
        "none",
        "--device",
        "cpu",
        "--seed",
        "4",
        "--run",
        found.path,
    ]
    said = foldertune(*words, "--json")
    assert said.code == 0, said.err
    assert said.document == plain(found)
    table = foldertune(*words)
    assert table.code == 0
    assert " ".join(found.answer.split()) in " ".join(table.out.split())
    assert f"Page:   {Path(found.path) / 'comparison.html'}" in table.out
    assert f"foldertune predict {Path(found.path) / found.take} PICTURE..." in table.out
    for each in found.contestants:
        assert f"{each.accuracy.value:.1%}" in table.out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--models", ","], "No model is named."),
        (
            ["--weights", "resnet18=a", "--weights", "b"],
            "--weights is 'b'. Accepted: NAME=WEIGHTS with the name of a network",
        ),
        (
            ["--weights", "resnet18=a", "--weights", "resnet18=b"],
            "There are two --weights for resnet18: a and b. Give one.",
        ),
        (["--weights", "resnet101=random"], "There are weights for resnet101, which is not compared."),
    ],
)
def test_the_command_refuses_what_it_cannot_read(place: Path, words: list[str], sentence: str) -> None:
    assert sentence in foldertune("compare", place / "pictures", *words).refused(2)


# Which to take


def contestant(model: str, accuracy: float, latency_ms: float) -> Contestant:
    return Contestant(
        model, "w", ("r",), ("baseline",), Interval(accuracy, accuracy - 0.02, accuracy + 0.02), (accuracy,), 0.9, 0.3, 1.0, 30.0,
        10, 5.0, latency_ms, 50.0, "openvino", "",
    )  # fmt: skip


def pair(first: str, second: str, low: float, high: float) -> Pair:
    return Pair(first, second, Interval((low + high) / 2, low, high), 5, 1, 0.01, low > 0)


LEVEL = "No difference shown between a and b: a is ahead of b by 1.0 points (-1.0 to 3.0)."


@pytest.mark.parametrize(
    ("latencies", "pairs", "take", "answer"),
    [
        ([10], [], "a", "a alone was trained: 93.0 % (91.0 to 95.0), with nothing to compare it with."),
        ([10, 5], [pair("a", "b", 0.01, 0.03)], "a", "Take a: it is better than b by 2.0 points (1.0 to 3.0)."),
        (
            [10, 5], [pair("a", "b", -0.01, 0.03)], "b",
            f"Take b, 2.0 times as fast as a, unless up to 3.0 points of accuracy matter more. {LEVEL}",
        ),
        (
            [10, 5], [pair("a", "b", -0.09, 0.11)], "a",
            "Take a, the most accurate here: b is 2.0 times as fast, but may be up to 11.0 points less accurate. More test pictures or "
            "--repeats would tell. No difference shown between a and b: a is ahead of b by 1.0 points (-9.0 to 11.0).",
        ),
        (
            [10, 9.5], [pair("a", "b", -0.01, 0.03)], "a",
            f"Take a, the most accurate, and none of those that are not shown to be worse is clearly faster. {LEVEL}",
        ),
        ([10, 0], [pair("a", "b", -0.01, 0.03)], "a", f"Take a, the most accurate, and none of those that are not shown to be worse is "
         f"clearly faster. {LEVEL}"),
        ([0, 5], [pair("a", "b", -0.01, 0.03)], "a", f"Take a, the most accurate here. {LEVEL}"),
        ([0, 0], [pair("a", "b", -0.01, 0.03)], "a", f"Take a, the most accurate here. {LEVEL}"),
        (
            [10, 20, 5], [pair("a", "b", -0.01, 0.03), pair("a", "c", 0.02, 0.06), pair("b", "c", 0, 0.02)], "a",
            "Take a, the most accurate, and none of those that are not shown to be worse is clearly faster. "
            f"{LEVEL} a is better than c by 4.0 points (2.0 to 6.0).",
        ),
    ],
)  # fmt: skip
def test_which_to_take(latencies: list[float], pairs: list[Pair], take: str, answer: str) -> None:
    """What was not measured, 0 here, is no reason."""
    contestants = [contestant(name, 0.93, latency) for name, latency in zip("abc", latencies, strict=False)]
    assert which_to_take(contestants, pairs) == (take, answer)


@pytest.mark.parametrize(
    ("model", "num", "said"),
    [
        ("resnet18", 500, "takes it (for under 1,000 pictures; here are 500)"),
        ("resnet18", 1000, "does not take it (for under 1,000 pictures; here are 1,000)"),
        ("resnet50", 1000, "takes it (for 1,000 to 10,000 pictures; here are 1,000)"),
        ("vit_base", 5000, "does not take it (for over 5,000 pictures; here are 5,000)"),
        ("resnet18", 5000, "does not take it (for under 1,000 pictures; here are 5,000)"),
        ("resnet50", 1833, "takes it (for 1,000 to 10,000 pictures; here are 1,833)"),
        ("vit_base", 800, "does not take it (for over 5,000 pictures; here are 800)"),
        ("resnet152", 800, ""),
    ],
)
def test_guide_says(model: str, num: int, said: str) -> None:
    assert guide_says(model, num) == said


def test_json_of_a_comparison_is_plain(found: Comparison) -> None:
    assert json.loads(json.dumps(plain(found)))["contestants"][0]["model"] == found.contestants[0].model
