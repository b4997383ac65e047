"""The verb look: from Python and as a command; its document, its exit codes, its patch, and the folder that stays as it was."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import foldertune as command
from folders import put_classes, state_of
from huggingface_hub import constants
from PIL import ImageOps
from test_duplicates import cropped, photograph

import foldertune
from foldertune import api, cli, examination, inspection
from foldertune.data import folder as data_folder
from foldertune.data import looks
from foldertune.data import pack as data_pack
from foldertune.data.patch import read_patch
from foldertune.diagnosis import duplicates
from foldertune.diagnosis.balance import balance_findings
from foldertune.diagnosis.changes import REMEDIES, Conflict, conflict_findings
from foldertune.diagnosis.findings import KINDS, Asked, by_importance
from foldertune.errors import DataError, MissingError, SettingsError
from foldertune.images import read_picture_bytes as read_anew
from foldertune.inspection import NEEDS_WEIGHTS, untaught_places
from foldertune.preprocess import Preprocess
from foldertune.records import SEVERITIES, Event, Evidence, Examination, Finding, Progress, finish, plain
from foldertune.settings import Wish

HOSTILE = ("line\nbreak.png", "<script>alert(1)</script>.png".replace("/", "\u2215"), "=cmd().png", "\U0001f98a fox.png",
           "\U0001f98a" * 62 + "abc.png", "bell\x07\x1b[31m.png", "'quoted'.png")  # fmt: skip
NUM_READABLE = 34  # pictures of `faulty`
QUICK: dict[str, Any] = {"model": "resnet18", "image_size": 32, "device": "cpu", "precision": "float32"}


@pytest.fixture(autouse=True)
def no_weights_here(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in a cache nor from the network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path_factory.getbasetemp() / "no hub"))
    monkeypatch.setenv("HF_HOME", str(tmp_path_factory.getbasetemp() / "no hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that has learned nothing, as a file: what it says means nothing, but it says it."""
    import torch

    from foldertune.models import build
    from foldertune.models.weights import write_weights

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    write_weights(build("resnet18", num_classes=1000), path)
    return path


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Given splits with a leak, a copy, a conflict, a broken file, and names that mean something to others."""
    if os.name == "nt":
        pytest.skip("Windows has no such names")
    folder = tmp_path_factory.mktemp("faulty") / "photos of it's $HOME"
    for place, label in enumerate("ab"):
        for number in range(12):
            split = ("train", "train", "train", "test", "train", "val")[number % 6]
            path = folder / split / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            photograph(100 * place + number, size=(160, 120)).save(path)
    ImageOps.mirror(photograph(0, size=(160, 120))).save(folder / "test/a/mirrored.png")
    cropped(photograph(100, size=(160, 120))).save(folder / "train/a/conflict.png")
    shutil.copy(folder / "train/b/1.png", folder / "train/b/copy.png")
    (folder / "train/a/broken.png").write_bytes((folder / "train/a/1.png").read_bytes()[:500])
    for number, name in enumerate(HOSTILE):
        photograph(200 + number, size=(160, 120)).save(folder / "train/a" / name)
        (folder / "train/b" / name).write_bytes(b"no picture")
    return folder


@pytest.fixture
def faulty(pristine: Path) -> Iterator[Path]:
    before = state_of(pristine)
    yield pristine
    assert state_of(pristine) == before  # whatever was done, the folder is as it was


def by_kind(found: Examination) -> dict[str, Any]:
    return {finding.kind: finding for finding in found.findings}


# ------------------------------------------------------------------------------------------------------- from Python


def test_look_without_weights_finds_what_needs_none_and_names_the_rest(faulty: Path) -> None:
    found = foldertune.look(faulty, model="resnet18")
    assert found.classes == {"a": 21, "b": 13}
    assert found.num_pictures == {"train": 18 + len(HOSTILE), "val": 4, "test": 5}
    assert found.split_source == "folders"
    told = by_kind(found)
    assert {"split_leak", "label_conflict", "unreadable", "exact_duplicate", "too_few"} <= set(told)
    assert [(row.path, row.other) for row in told["split_leak"].evidence] == [("train/a/0.png", "test/a/mirrored.png")]
    assert [(row.path, row.other) for row in told["label_conflict"].evidence] == [
        ("train/a/conflict.png", "train/b/0.png")
    ]
    assert [(row.path, row.other) for row in told["exact_duplicate"].evidence] == [
        ("train/b/1.png", "train/b/copy.png")
    ]
    assert {row.path for row in told["unreadable"].evidence} == {
        "train/a/broken.png",
        *(f"train/b/{name}" for name in HOSTILE),
    }
    assert found.findings == by_importance(found.findings)
    assert len(found.left_out) == len(NEEDS_WEIGHTS)
    for kind, text in zip(NEEDS_WEIGHTS, found.left_out, strict=True):
        assert kind in KINDS
        assert text == (
            f"{kind}: there are no weights of resnet18 on this machine. Give --weights: a file, or imagenet to fetch them."
        )


def test_look_with_random_weights_says_that_they_see_nothing(faulty: Path) -> None:
    assert (
        foldertune.look(faulty, weights="random").left_out[0].startswith("label_suspect: random weights see nothing. ")
    )


def test_look_with_weights_leaves_nothing_out_tells_its_stages_and_finds_the_same_again(
    faulty: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "_SETTLED_S", -1.0)  # files count as settled at once

    def looked() -> tuple[Examination, set[str]]:
        going, stages = api.looking(faulty, weights=str(weights), **QUICK), set[str]()
        while True:
            try:
                told = next(going)
            except StopIteration as stop:
                return stop.value, stages
            if isinstance(told, Progress):
                stages.add(told.stage)

    first, stages = looked()
    assert first.left_out == ()
    assert {"look", "features", "labels", "changes"} <= stages
    assert "split_leak" in by_kind(first)
    assert "of each is wrong. The network takes " in by_kind(first)["label_conflict"].sentence
    read: list[Path] = []

    def read_picture_bytes(path: Path, **given: Any) -> bytes:
        read.append(path)
        return read_anew(path, **given)

    for module in (data_folder, data_pack):
        monkeypatch.setattr(module, "read_picture_bytes", read_picture_bytes)
    again, stages = looked()
    assert {path.name for path in read} == {"broken.png", *HOSTILE}  # why those cannot be read may be gone
    assert (again.classes, again.num_pictures, again.left_out) == (first.classes, first.num_pictures, ())
    assert [f for f in again.findings if f.kind != "unreadable"] == [
        f for f in first.findings if f.kind != "unreadable"
    ]
    assert "changes" not in stages


@pytest.mark.parametrize(
    ("least", "given", "side"),
    [(10, {}, 32), (10_000, {}, 224), (10, {"image_size": 64}, 64)],
    ids=["large", "small", "asked"],
)
def test_look_of_many_pictures_sees_them_smaller_and_says_so_unless_a_size_was_asked_for(
    least: int, given: dict[str, Any], side: int, faulty: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection, "LARGE_SET", least)
    monkeypatch.setattr(inspection, "SMALLER_PX", 32)
    told: list[Any] = []

    class OpenedError(Exception):
        """What comes after the bench is no matter here."""

    def open_bench(values: dict[str, Any], *_: Any) -> Any:
        raise OpenedError(values["image_size"])

    monkeypatch.setattr(inspection, "open_bench", open_bench)
    with pytest.raises(OpenedError, match=rf"^{side}$"):
        told.extend(api.looking(faulty, weights=str(weights), **{**QUICK, "image_size": None, **given}))
    expected = [
        f"The network looks at the {NUM_READABLE} pictures at 32 px, which takes 2% of the time. Training takes 224 px: with "
        "--image-size 224 look does too, and training finds the features that it made."
    ]
    notes = [each.facts["text"] for each in told if isinstance(each, Event) and each.kind == "note"]
    assert notes == (expected if side == 32 else [])


def test_look_sees_as_training_does_what_weights_for_smaller_pictures_were_made_for() -> None:
    wish = Wish(Path("photos"), {}, {})
    assert inspection.sees_smaller(wish, Preprocess(image_size=224), inspection.LARGE_SET)
    assert not inspection.sees_smaller(wish, Preprocess(image_size=224), inspection.LARGE_SET - 1)
    assert not inspection.sees_smaller(wish, Preprocess(image_size=inspection.SMALLER_PX), inspection.LARGE_SET)


@pytest.mark.parametrize(
    ("given", "kind", "sentence"),
    [
        ({"weights": "/none.safetensors"}, (MissingError, SettingsError), "none.safetensors"),
        ({"group_by": "p("}, SettingsError, "is no regular expression"),
        ({"group_by": "patient"}, DataError, "matches none of"),
        ({"patch": "/none.csv"}, SettingsError, "There is no patch"),
        ({"image_size": 8}, SettingsError, "Accepted: 32 to 512"),
        ({"epochs": 3}, SettingsError, "look has no setting 'epochs', which is one of training. Accepted: model, weights, "),
    ],
)  # fmt: skip
def test_look_refuses_with_a_sentence(faulty: Path, given: dict[str, Any], kind: Any, sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        foldertune.look(faulty, **given)


def test_look_by_groups_keeps_them_on_one_side_and_counts_a_parted_one_as_a_leak(tmp_path: Path) -> None:
    folder = put_classes(tmp_path / "photos", {"a": 30, "b": 30})
    going = api.looking(folder, group_by=r"/(\d)\d*\.")
    assert not any(finding.kind == "split_leak" for finding in finished(going)[0].findings)
    for label in "ab":
        (folder / "train").mkdir(exist_ok=True)
        (folder / label).rename(folder / "train" / label)
        (folder / "test" / label).mkdir(parents=True)
        (folder / "train" / label / "7.png").rename(folder / "test" / label / "7.png")
    parted, _ = finished(api.looking(folder, group_by=r"(.)\.png"))
    leak = by_kind(parted)["split_leak"]
    assert {row.other for row in leak.evidence} == {"test/a/7.png", "test/b/7.png"}
    assert all(row.note.endswith(" and test: the same group") for row in leak.evidence)


def test_look_where_val_is_made_from_train_still_finds_what_leaks_into_the_given_test(tmp_path: Path) -> None:
    folder = put_classes(tmp_path / "train", {"a": 20, "b": 20}).parent
    (folder / "test/a").mkdir(parents=True)
    shutil.copy(folder / "train/a/3.png", folder / "test/a/copy.png")
    found = foldertune.look(folder)
    assert found.split_source == "made from train"
    (row,) = by_kind(found)["split_leak"].evidence
    assert {row.path, row.other} == {"train/a/3.png", "test/a/copy.png"}


def finished(going: Any) -> tuple[Any, list[Event]]:
    events: list[Event] = []
    while True:
        try:
            told = next(going)
        except StopIteration as stop:
            return stop.value, events
        if isinstance(told, Event):
            events.append(told)


# ---------------------------------------------------------------------------------------------------------- the patch


def test_look_writes_a_patch_that_look_plan_and_train_honour(
    faulty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "patch.csv"
    _, events = finished(api.looking(faulty, write_patch=path, model="resnet18"))
    lines = {line.path: line for line in read_patch(path)}
    ready = {line.path for line in lines.values() if not line.proposed}
    assert ready == {"train/a/0.png", "train/b/copy.png"}
    assert {"train/a/conflict.png", "train/b/0.png"} <= set(lines) - ready
    (told,) = [event for event in events if event.kind == "patch"]
    assert told.facts == {"path": str(path), "num_lines": 2, "num_proposed": len(lines) - 2}

    edited = path.read_text("utf-8").replace("?exclude,train/a/conflict.png", "exclude,train/a/conflict.png")
    edited += "relabel,train/a/1.png,b,a,by hand,\n?exclude,train/a/2.png,,,waits,\nexclude,gone.png,,,,\n"
    path.write_text(edited, "utf-8")
    after, events = finished(api.looking(faulty, patch=str(path), model="resnet18"))
    assert not {"split_leak", "label_conflict", "exact_duplicate"} & set(by_kind(after))
    assert after.classes == {"a": 21 - 3, "b": 13 - 1 + 1}
    assert len(by_kind(after)["unreadable"].evidence) == 1 + len(HOSTILE)  # what is left out could be read
    notes = [event.facts["text"] for event in events if event.kind == "note"]
    waiting = sum(line.proposed for line in read_patch(path))
    assert notes == [
        f"The patch: 3 left out, 1 relabelled; {waiting} lines wait for a person to take away their ?.",
        "Pictures of the patch that are not in the folder: 1, such as 'gone.png'.",
    ]  # fmt: skip
    assert all(f"--patch {path}" in finding.remedy for finding in after.findings)
    again = tmp_path / "again.csv"
    foldertune.look(faulty, patch=str(path), write_patch=again, model="resnet18")
    assert read_patch(again)[: len(read_patch(path))] == read_patch(path)

    settings: dict[str, Any] = {
        **QUICK,
        "weights": "random",
        "patch": str(path),
        "augmentation": "none",
        "tune": "head",
    }
    _, events = finished(api.planning(faulty, **settings))
    planned = next(event.facts for event in events if event.kind == "looked")
    assert sum(planned["num_pictures"].values()) == sum(after.classes.values())
    run = foldertune.train(faulty, run=tmp_path / "run", **settings)
    with (run.path / "dataset.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        rows = {row["path"]: row for row in csv.DictReader(stream)}
    assert rows["train/a/0.png"]["problem"] == "left out by the patch: also in test: test/a/mirrored.png"
    assert rows["train/a/1.png"]["label"] == "b"
    assert rows["train/a/2.png"]["problem"] == ""
    document = json.loads((run.path / "look.json").read_text("utf-8"))
    assert document["classes"] == after.classes
    assert not {"split_leak", "label_conflict"} & {finding["kind"] for finding in document["findings"]}
    assert run.plan["patch"] == str(path)


def test_look_never_writes_a_patch_over_a_file_or_into_the_folder(faulty: Path, tmp_path: Path) -> None:
    (tmp_path / "patch.csv").write_text("mine")
    with pytest.raises(SettingsError, match="exists, and may have been edited"):
        foldertune.look(faulty, write_patch=tmp_path / "patch.csv")
    assert (tmp_path / "patch.csv").read_text() == "mine"
    with pytest.raises(SettingsError, match="which is never changed"):
        foldertune.look(faulty, write_patch=faulty / "patch.csv")


# ----------------------------------------------------------------------------------------------------------- remedies


def parsed(remedy: str) -> list[str]:
    words = shlex.split(remedy)
    assert words[0] == "foldertune"
    cli.app.parse_args(words[1:], exit_on_error=False, print_error=False)  # raises for what it does not know
    return words[1:]


def test_remedies_are_commands_that_the_program_takes(faulty: Path, tmp_path: Path) -> None:
    write = tmp_path / "it's mine.csv"
    foldertune.look(faulty, write_patch=write)
    found = foldertune.look(faulty, patch=str(write), group_by=r"(line)\nbreak", seed=7)
    for finding in found.findings:
        words = parsed(finding.remedy)
        assert words[1] == str(faulty)
        for flag, value in (("--patch", str(write)), ("--group-by", r"(line)\nbreak"), ("--seed", "7")):
            assert words[words.index(flag) + 1] == value


def test_remedies_of_every_finding_that_can_be_made_are_taken() -> None:
    asked = Asked(Path("/photos"), ("--weights", "/w.safetensors"))
    conflicts = {change: [Conflict(0, 1, 1.0, ())] for change in REMEDIES}
    made = [
        *balance_findings({"a": 100, "b": 1}, asked=asked),
        *conflict_findings([], conflicts, classes="ab", asked=asked),
    ]
    assert len(made) == 2 + len(REMEDIES)
    for remedy in (*(finding.remedy for finding in made), asked.look(), asked.patch(), *map(asked.train, (), ())):
        parsed(remedy)
    for source in Path(cli.__file__).parent.joinpath("diagnosis").glob("*.py"):
        for call in source.read_text("utf-8").split("asked.train(")[1:]:
            given = call.split(")")[0]
            if '"' in given:
                words = [word.strip().strip('"') for word in given.split(",") if '"' in word]
                parsed(asked.train(*words, *(["crop"] if words[-1] == "--fit" else [])))


# --------------------------------------------------------------------------------------------------------- the command


def test_command_prints_one_document_of_the_documented_shape(faulty: Path) -> None:
    said = command("look", faulty, "--json", "--model", "resnet18")
    assert said.code == 0
    document = said.document
    assert list(document) == ["folder", "classes", "num_pictures", "split_source", "skipped", "findings", "left_out"]
    assert document["folder"] == str(faulty)
    for finding in document["findings"]:
        assert list(finding) == ["kind", "sentence", "severity", "score", "evidence", "remedy"]
        assert finding["kind"] in KINDS
        assert finding["severity"] in SEVERITIES
        assert 0 <= finding["score"] <= 1
        for row in finding["evidence"]:
            assert list(row) == ["path", "score", "note", "other", "label", "suggested"]
            assert (faulty / row["path"]).is_file() or row["path"] in document["classes"]
            assert not row["other"] or (faulty / row["other"]).is_file()
        scores = [row["score"] for row in finding["evidence"]]
        assert scores == sorted(scores, reverse=True)
    assert document == json.loads(json.dumps(plain(foldertune.look(faulty, model="resnet18"))))


def test_command_prints_every_finding_on_lines_that_no_name_can_break(faulty: Path) -> None:
    said = command("look", faulty, "--rows", "50", "--model", "resnet18")
    assert said.code == 0
    assert "\x1b" not in said.out
    assert "\x07" not in said.out
    lines = said.out.splitlines()
    assert len(lines) == said.out.count("\n")  # also by what else may end a line
    for name in HOSTILE:
        shown = name.replace("\n", "\\n").replace("\x07", "\\x07").replace("\x1b", "\\x1b")
        assert any(line.startswith(f"    train/b/{shown}  ") for line in lines), name
    assert "SERIOUS  split_leak" in lines
    assert "    train/a/0.png and test/a/mirrored.png  train and test: mirrored" in lines
    assert lines[0] == f"34 pictures of 2 classes in {faulty}"
    assert lines[-1].startswith(f"Not looked for: {', '.join(NEEDS_WEIGHTS)}; there are no weights of resnet18 ")
    folder = shlex.quote(str(faulty))
    assert f"  Mend: foldertune look {folder} --model resnet18 --write-patch patch.csv" in lines
    few = command("look", faulty, "--rows", "1", "--model", "resnet18").out.splitlines()
    assert f"    and {len(HOSTILE)} more" in few


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["FOLDER", "--write-patch", "FOLDER/p.csv"], 2, "which is never changed"),
        (["FOLDER", "--group-by", "("], 2, "is no regular expression"),
        (["FOLDER", "--epochs", "3"], 2, "--epochs"),
        (["FOLDER/none"], 3, "There is no folder"),
        (["FOLDER/train"], 0, ""),
        (["FOLDER/train/a"], 3, "No picture was found"),
        (["FOLDER", "--weights", "/none/resnet.safetensors"], 4, "/none/resnet.safetensors"),
        ([], 2, "FOLDER is missing"),
    ],
)  # fmt: skip
def test_command_ends_with_the_exit_code_of_the_trouble(
    faulty: Path, words: list[str], code: int, sentence: str
) -> None:
    said = command("look", *(word.replace("FOLDER", str(faulty)) for word in words))
    if code:
        assert sentence in said.refused(code)
    else:
        assert said.code == 0


def test_look_says_where_nothing_was_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from foldertune.results import print_examination

    nothing = Examination("photos", {"a": 300, "b": 300}, {"train": 420, "val": 90, "test": 90}, "made", {}, ())
    print_examination(nothing, num_rows=3)
    assert capsys.readouterr().out == (
        "600 pictures of 2 classes in photos\n420 to train, 90 to validate, 90 to test (split here)\n\nNothing was found.\n"
    )


def test_watchers_of_a_run_are_told_what_is_more_than_a_note_with_its_remedy() -> None:
    from foldertune.journey import found_event
    from foldertune.terminal import event_lines

    row = Evidence("a/1.png", 1.0)
    found = [
        Finding("shortcut", "A mark.", "serious", 0.9, (row, row), "foldertune train photos"),
        Finding("imbalance", "Uneven.", "warning", 0.5, (row,), "foldertune train photos --imbalance weights"),
        Finding("alpha", "Holes.", "note", 0.5, (row,), "foldertune train photos"),
    ]
    told = found_event(found)
    assert json.loads(json.dumps(told.facts))["findings"][0] == {
        "kind": "shortcut", "sentence": "A mark.", "severity": "serious", "score": 0.9, "remedy": "foldertune train photos", "num_rows": 2,
    }  # fmt: skip
    assert event_lines(told) == [
        "Serious: A mark.", "  Mend: foldertune train photos", "Warning: Uneven.", "  Mend: foldertune train photos --imbalance weights",
    ]  # fmt: skip


def test_look_of_many_classes_of_one_picture_answers_soon(tmp_path: Path) -> None:
    folder = put_classes(tmp_path, {f"class {number}": 1 for number in range(300)})
    began = time.monotonic()
    found = foldertune.look(folder)
    assert time.monotonic() - began < 30
    assert by_kind(found)["too_few"].severity == "serious"
    assert len(by_kind(found)["too_few"].evidence) == 300


def test_look_refuses_a_patch_in_a_folder_that_is_not_there_before_anything_is_read(
    faulty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foldertune.inspection.look", lambda *_: pytest.fail("the folder was looked at"))
    with pytest.raises(SettingsError) as refused:
        foldertune.look(faulty, write_patch=tmp_path / "none" / "patch.csv")
    assert str(refused.value) == (
        f"The folder of the patch {tmp_path / 'none' / 'patch.csv'} does not exist. Make it, or give another --write-patch."
    )
    assert not (tmp_path / "none").exists()


def test_pictures_of_a_class_that_no_fold_taught_are_judged_by_nobody() -> None:
    labels, folds = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 3, 3, 4])  # of 1 all in one fold, of 2 one picture
    assert untaught_places(labels, folds).tolist() == [False, False, True, True, True]


def test_copies_are_found_once_for_each_content_and_kept_for_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOLDERTUNE_CACHE", str(tmp_path / "cache"))
    for place, name in enumerate("ab"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(4):
            photograph(4 * place + number, size=(160, 120)).save(tmp_path / "photos" / name / f"{number}.png")
    for number in range(5):
        (tmp_path / "photos/a" / f"same-{number}.png").write_bytes((tmp_path / "photos/a/0.png").read_bytes())
    ImageOps.mirror(photograph(0, size=(160, 120))).save(tmp_path / "photos/a/mirrored.png")
    asked: list[int] = []
    real = duplicates.find_pairs

    def find_pairs(sketches: Any) -> Any:
        asked.append(len(sketches))
        return real(sketches)

    monkeypatch.setattr(examination, "find_pairs", find_pairs)
    looked = [finish(examination.look(Wish(tmp_path / "photos", {}, {}))) for _ in range(2)]
    assert asked == [9]  # eight photographs and the mirrored one, whatever was copied; the second look asks nobody
    assert looked[0].kin.copies == looked[1].kin.copies
    assert len(looked[0].kin.copies) == 1
