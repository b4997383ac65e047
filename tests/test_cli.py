"""The command line from outside, as a process: exit codes, the two streams, JSON documents, sentences."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from command import Said, foldertune
from folders import picture_bytes, put_classes, state_of, table_of
from PIL import Image

import foldertune as package
from foldertune import api, settings
from foldertune.errors import DataError
from foldertune.evaluation.predict import picture_files
from foldertune.models.catalog import list_models
from foldertune.records import ClassScore, Evaluation

VERBS = ("plan", "train", "evaluate", "predict", "explain", "speed", "models", "cache", "demo")
SMALL = (
    "--model",
    "resnet18",
    "--weights",
    "random",
    "--image-size",
    "32",
    "--epochs",
    "1",
    "--augmentation",
    "none",
    "--device",
    "cpu",
)
STRANGE = ("=1+1.png", "line\nbreak.png", "bell\x07\x1b[31m.png", "Ünïcode 写真.png", "with space.png")


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with names that mean something to spreadsheets, terminals or parsers, and files that are none."""
    if os.name == "nt":
        pytest.skip("Windows has no such names")
    folder = tmp_path_factory.mktemp("strange")
    for number, name in enumerate(STRANGE):
        (folder / name).write_bytes(picture_bytes(number))
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("no picture")
    return folder


# Help and version


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["train", "--help"], ["predict", "--help"]])
def test_help_of_any_verb_imports_nothing_heavy(words: list[str]) -> None:
    program = (
        "import sys; from foldertune.__main__ import main\n"
        f"sys.argv = ['foldertune', *{words!r}]\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert "foldertune" in done.stderr
    for heavy in ("torch", "numpy", "openvino", "PIL", "sklearn", "huggingface_hub", "pydantic"):
        assert f"'{heavy}'" not in done.stderr
    if words == ["--version"]:
        assert "'cyclopts'" not in done.stderr


def test_version_is_the_package_s_on_stdout() -> None:
    for flag in ("--version", "-V"):
        assert foldertune(flag) == Said(0, f"{package.__version__}\n", "")


def test_no_words_show_the_help_with_every_verb() -> None:
    said = foldertune()
    assert said == foldertune("--help")
    assert said.code == 0
    assert said.err == ""
    for verb in VERBS:
        assert f"\n│ {verb} " in said.out
    assert "Exit codes: 0 done, 1 " in said.out
    assert "--debug" in said.out


SETTINGS_OF = {
    "look": settings.LookSettings, "plan": settings.TrainSettings, "train": settings.TrainSettings,
    "compare": settings.CompareSettings,
}  # fmt: skip


@pytest.mark.parametrize("verb", SETTINGS_OF)
def test_help_has_a_flag_and_a_sentence_for_every_setting_also_those_that_are_inherited(verb: str) -> None:
    lines = foldertune(verb, "--help", COLUMNS="400").out.splitlines()
    told = {name: text for line in lines for name, text in re.findall(r"│ --([a-z-]+) .*?  +(\S.*?) +│", line)}
    for name in SETTINGS_OF[verb].__annotations__:
        assert told[name.replace("_", "-")].count(" ") > 2, name


# Wrong usage: exit 2, one sentence, what is accepted


EITHER = "Give either a folder to train on, or --resume with the run to go on with, or --from with the run to mend."
RESUMED = "A resumed run keeps its plan: --resume goes without other settings. Start a new run to change them."
NO_FOLDER = "The folder of the output /none/x.csv does not exist. Make it, or give another --output."


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("plan", "FOLDER is missing. {help}"),
        ("predict", "MODEL is missing. {help}"),
        ("evaluate", "RUN is missing. {help}"),
        ("plan F --epochs", "--epochs needs a value. {help}"),
        ("plan F --batch-siz 8", "Unknown option: --batch-siz. Did you mean --batch-size? {help}"),
        ("train F --epochs 1.5", "Invalid value for --epochs: it is '1.5'. Accepted: a whole number. {help}"),
        ("plan F --learning-rate high", "Invalid value for --learning-rate: it is 'high'. Accepted: a number. {help}"),
        ("models one two", "Nothing more is expected after what was given: two. {help}"),
        ("explain RUN", "No picture is named. Give files or folders: `foldertune explain RUN IMAGE...`."),
        ("explain RUN x.png --nearest=-1", "Nearest is -1. Accepted: 0 and more."),
        ("predict RUN", "No picture is named. Give files or folders: `foldertune predict MODEL PATH...`."),
        ("predict RUN x.png --output x.txt", "The output x.txt ends in .txt. Accepted: .csv or .jsonl."),
        ("predict RUN x.png --output /none/x.csv", NO_FOLDER),
        ("plan F --epochs 31", "Epochs is 31. The guide's range is 1 to 30; {lift}"),
        ("plan F --batch-size=-1", "Batch size is -1. The guide's range is 2 to 64; {lift}"),
        ("plan F --learning-rate 1e-2", "Learning rate is 0.01. The guide's range is 1e-05 to 0.0005; {lift}"),
        ("plan F --learning-rate nan", "Learning rate is nan. Accepted: a finite number."),
        ("plan F --image-size 16", "Image size is 16. Accepted: 32 to 512."),
        ("plan F --epochs 0 --beyond-guide", "Epochs is 0. Accepted even beyond the guide: 1 to 10000."),
        ("train", EITHER),
        ("train F --resume R", EITHER),
        ("train --resume R --epochs 3", RESUMED),
        ("train --resume R --run S", RESUMED),
    ],
)  # fmt: skip
def test_command_of_wrong_usage_exits_2_with_a_sentence(line: str, sentence: str) -> None:
    verb = line.split(maxsplit=1)[0]
    told = {"help": f"See `foldertune {verb} --help`.", "lift": "pass --beyond-guide to go outside it."}
    assert foldertune(*line.split()).refused(2) == sentence.format(**told)


def test_command_that_is_misspelt_names_what_exists() -> None:
    assert 'Did you mean "train"?' in foldertune("trian", "F").refused(2)
    assert '"light"' in foldertune("plan", "F", "--augmentation", "strong").refused(2)
    named = foldertune("models", "resnet51").refused(2)
    assert all(facts.name in named for facts in list_models())


def test_error_with_debug_shows_where_it_arose() -> None:
    said = foldertune("plan", "F", "--epochs", "31", "--debug")
    assert said.code == 2
    assert said.out == ""
    assert said.err.startswith("Traceback (most recent call last):")
    assert said.err.endswith("Epochs is 31. The guide's range is 1 to 30; pass --beyond-guide to go outside it.\n")


# Errors of folders, data and the machine


def test_train_into_a_folder_that_holds_something_is_refused(small_run: Path) -> None:
    before = state_of(small_run)
    sentence = foldertune("train", small_run.parent / "pictures", "--run", small_run).refused(2)
    assert sentence.startswith(f"The run folder {small_run} exists and is not empty.")
    assert sentence.endswith("Give another --run; the run in it is finished.")
    assert state_of(small_run) == before


@pytest.mark.parametrize("way", ["up and down again", "link"])
def test_train_with_the_run_inside_the_data_by_another_way_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    folder = put_classes(tmp_path / "photos", {"a": 3, "b": 3})
    named = tmp_path / "photos" / ".." / "photos"
    if way == "link":
        named = tmp_path / "linked"
        named.symlink_to(folder)
    before = state_of(folder)
    monkeypatch.chdir(folder)  # the run folder is made below the working directory
    assert "which is never changed. Give another --run." in foldertune("train", named).refused(2)
    assert state_of(folder) == before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["--precision", "fp16", "--device", "cpu"],
            "Precision fp16 is for GPUs; on a processor take float32 or bf16.",
        ),
        (
            ["--preset", "xray", "--tune", "head"],
            "The preset xray trains every layer; leave out --tune head, or the preset.",
        ),
        (
            ["--model", "vit_base", "--image-size", "100"],
            "Image size is 100. A ViT takes multiples of 16, such as 224 or 384.",
        ),
    ],
)
def test_train_with_settings_that_cannot_go_together_is_refused_before_anything_is_made(
    tmp_path: Path, words: list[str], sentence: str
) -> None:
    put_classes(tmp_path / "photos", {"a": 3, "b": 3})
    assert foldertune("train", tmp_path / "photos", "--run", tmp_path / "run", *words).refused(2) == sentence
    assert not (tmp_path / "run").exists()


def test_train_that_failed_before_its_plan_leaves_nothing_and_can_be_started_again(tmp_path: Path) -> None:
    folder = put_classes(tmp_path / "photos", {"a": 3, "b": 1})
    words: list[str | Path] = ["train", folder, "--run", tmp_path / "run", "--weights"]
    next((folder / "b").iterdir()).write_bytes(b"no picture")
    assert "does not exist" in foldertune(*words, "none.safetensors").refused(4)
    last = foldertune(*words, "random").err.splitlines()[-1]
    assert "No picture could be read for" in last  # what was wrong next, not that the folder of the run is not empty
    assert not (tmp_path / "run").exists()  # nothing half-written stays


@pytest.mark.parametrize("verb", ["plan", "train"])
def test_a_folder_of_one_class_is_told_before_any_weights_are_looked_for(tmp_path: Path, verb: str) -> None:
    folder = put_classes(tmp_path / "photos", {"a": 3})
    assert "has one class, 'a'" in foldertune(verb, folder, "--weights", "none.safetensors").refused(3)


def test_train_notes_where_weights_lie_so_that_another_folder_can_resume(tmp_path: Path) -> None:
    put_classes(tmp_path / "photos", {"a": 3})
    started = api.start(tmp_path / "photos", run=tmp_path / "run", weights="none.safetensors")
    assert Path(started.folder.open()["settings"]["weights"]) == Path.cwd() / "none.safetensors"
    with pytest.raises(DataError, match=r"is not finished, so its test pictures were not measured\. Go on with"):
        started.evaluate()
    with pytest.raises(DataError, match=r"is not finished, so no model was kept\. Go on with"):
        _ = started.kept
    with pytest.raises(
        DataError, match=r"is not finished, and what is less exact than float32 is judged by its answers"
    ):
        started.speed()


@pytest.mark.parametrize("inside", [".", "run", "a/b"])
def test_train_with_the_run_inside_the_data_is_refused_and_makes_nothing(tmp_path: Path, inside: str) -> None:
    put_classes(tmp_path, {"a": 3, "b": 3})
    before = state_of(tmp_path)
    sentence = foldertune("train", tmp_path, "--run", tmp_path / inside).refused(2)
    assert "which is never changed. Give another --run." in sentence
    assert state_of(tmp_path) == before


def test_train_on_data_at_fault_exits_3(tmp_path: Path) -> None:
    assert "There is no folder" in foldertune("train", tmp_path / "none", "--run", tmp_path / "run").refused(3)
    assert "There is no folder" in foldertune("plan", tmp_path / "none").refused(3)  # before weights are looked for
    put_classes(tmp_path / "one", {"only": 4})
    said = foldertune("plan", tmp_path / "one", *SMALL)
    assert (said.code, said.out) == (3, "")
    assert said.err.splitlines()[-1].startswith("foldertune: ")


def test_verbs_on_a_run_that_does_not_exist_exit_4(tmp_path: Path) -> None:
    none = tmp_path / "none"
    for words in (("evaluate", none), ("train", "--resume", none), ("predict", none, "x.png")):
        assert str(none) in foldertune(*words).refused(4)


def test_plan_with_imagenet_weights_and_no_network_exits_4_and_names_the_ways(tmp_path: Path) -> None:
    put_classes(tmp_path / "data", {"a": 12, "b": 12})
    cache = tmp_path / "cache"
    said = foldertune(
        "plan", tmp_path / "data", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "hub"), FOLDERTUNE_CACHE=str(cache)
    )
    assert (said.code, said.out) == (4, "")
    sentence = said.err.splitlines()[-1]
    for way in (
        "HF_HUB_OFFLINE",
        "https://huggingface.co/",
        str(cache / "weights"),
        "--weights PATH",
        "--weights random",
    ):
        assert way in sentence


def test_command_that_fails_in_an_unforeseen_way_exits_1_with_a_sentence() -> None:
    program = (
        "import sys; from foldertune import cli, results\n"
        "def broken(found): raise ZeroDivisionError('by\\nzero')\n"
        "results.print_models = broken\n"
        "sys.exit(cli.run(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "models"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    fault = "foldertune: ZeroDivisionError: by zero. This is a fault of Foldertune; --debug shows where.\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", fault)
    done = subprocess.run([*command, "--debug"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")


def test_output_that_the_terminal_cannot_show_becomes_escapes() -> None:
    program = (
        "import sys; from foldertune import cli, results\n"
        "results.print_models = lambda found: print('\u5199')\n"
        "sys.exit(cli.run(['models']))"
    )
    variables = {**os.environ, "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, env=variables, check=True)
    assert done.stdout == b"\\u5199" + os.linesep.encode()


# The verbs, and their documents


def test_models_prints_the_catalogue_and_its_document() -> None:
    assert [line.split()[0] for line in foldertune("models").out.splitlines()[1:8]] == [f.name for f in list_models()]
    listed = foldertune("models", "--json").document
    assert [facts["name"] for facts in listed] == [facts.name for facts in list_models()]
    one = foldertune("models", "resnet50", "--json")
    assert one.err == ""
    assert one.document == next(facts for facts in listed if facts["name"] == "resnet50")
    assert "25,557,032" in foldertune("models", "resnet50").out


def test_plan_json_is_one_document_that_settings_reads_again(small_run: Path, tmp_path: Path) -> None:
    pictures = small_run.parent / "pictures"
    said = foldertune("plan", pictures, *SMALL, "--seed", "7", "--json")
    assert said.code == 0
    assert set(said.document) == {"settings", "forecast", "warnings"}
    assert set(said.document["forecast"]) == {
        "minutes", "memory_mib", "disk_mib", "cache_mib", "accuracy", "no_accuracy"
    }  # fmt: skip
    assert said.document["forecast"]["accuracy"] is None
    assert said.document["forecast"]["no_accuracy"].startswith("a network of random weights has no features")
    rows = {row["setting"]: row for row in said.document["settings"]}
    assert all(set(row) == {"setting", "value", "reason", "rule", "source"} for row in rows.values())
    assert rows["seed"] == {
        "setting": "seed", "value": 7, "reason": "given by the user", "rule": "given", "source": "user"
    }  # fmt: skip
    assert "Weights: random\n" in said.err  # progress is told, but not where the document is

    (tmp_path / "plan.json").write_text(said.out)
    again = foldertune("plan", pictures, "--settings", tmp_path / "plan.json", "--json").document
    read = {row["setting"]: row for row in again["settings"]}
    assert {name: row["value"] for name, row in read.items()} == {name: row["value"] for name, row in rows.items()}
    assert read["seed"]["source"] == "file"


def test_train_resumed_when_finished_prints_the_run_and_changes_nothing(small_run: Path) -> None:
    before = state_of(small_run)
    said = foldertune("train", "--resume", small_run, "--json")
    assert (said.code, said.err) == (0, "")
    assert set(said.document) == {"run", "kept", "minutes", "evaluation"}
    assert said.document["run"] == str(small_run)
    assert said.document["kept"] in ("baseline", "fine-tuned")
    assert said.document["evaluation"] == foldertune("evaluate", small_run, "--json").document
    text = foldertune("train", "--resume", small_run).out
    assert f"Run:    {small_run}\nReport: {small_run / 'report.html'}\nNext:   foldertune predict {small_run}" in text
    assert state_of(small_run) == before


def test_evaluate_json_is_the_documented_record(small_run: Path) -> None:
    found = foldertune("evaluate", small_run, "--json").document
    assert set(found) == {item.name for item in fields(Evaluation)}
    assert set(found["accuracy"]) == {"value", "low", "high"}
    assert 0 <= found["accuracy"]["low"] <= found["accuracy"]["value"] <= found["accuracy"]["high"] <= 1
    assert [row["label"] for row in found["per_class"]] == found["classes"] == ["blue", "green", "red"]
    assert set(found["per_class"][0]) == {item.name for item in fields(ClassScore)}
    assert {row["recall_interval"]["value"] for row in found["per_class"]} == {
        row["recall"] for row in found["per_class"]
    }
    assert sum(map(sum, found["confusion"])) == found["num_pictures"] > 0
    right = sum(found["confusion"][i][i] for i in range(3))
    assert found["accuracy"]["value"] == pytest.approx(right / found["num_pictures"])


def test_evaluate_on_a_folder_measures_its_pictures_and_refuses_other_classes(small_run: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    for colour in ("blue", "green", "red"):
        shutil.copytree(small_run.parent / "pictures" / colour, new / colour)
        for path in (new / colour).iterdir():  # other content, the same picture: no hash is known
            with Image.open(path) as picture:
                turned = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            turned.save(path)
    said = foldertune("evaluate", small_run, new, "--output", tmp_path / "table.csv")
    assert said.code == 0
    assert said.out.startswith("48 pictures (all)\nAccuracy  ")
    assert "\\n" not in said.out
    assert [line.split()[-1] for line in said.out.splitlines() if line.startswith(("blue ", "green ", "red "))] == [
        "16"
    ] * 3
    rows = table_of(tmp_path / "table.csv")
    assert len(rows) == 48
    right = sum(row["right"] == "yes" for row in rows)
    assert f"Accuracy     {right / 48:.1%} " in said.out
    assert all((row["label"] == row["answer"]) == (row["right"] == "yes") for row in rows)
    other = foldertune("evaluate", small_run, put_classes(tmp_path, {"red": 2, "violet": 2}))
    assert (other.code, other.out) == (3, "")
    assert "violet" in other.err.splitlines()[-1]


def test_evaluate_on_a_folder_leaves_out_what_the_model_was_trained_by(small_run: Path, tmp_path: Path) -> None:
    pictures = small_run.parent / "pictures"
    rows = table_of(small_run / "dataset.csv")
    test = {row["path"] for row in rows if row["split"] == "test"}
    said = foldertune("evaluate", small_run, pictures, "--json")
    assert said.code == 0
    assert said.document["num_pictures"] == len(test)
    assert set(said.document["left_out"]) == {row["path"] for row in rows} - test
    assert said.document["confusion"] == foldertune("evaluate", small_run, "--json").document["confusion"]
    assert (
        f"{48 - len(test)} pictures are left out, because {small_run} was trained or chosen by the same: " in said.err
    )
    for row in rows:
        if row["split"] == "train":
            (tmp_path / row["path"]).parent.mkdir(exist_ok=True)
            shutil.copyfile(pictures / row["path"], tmp_path / row["path"])
    refused = foldertune("evaluate", small_run, tmp_path).refused(3)
    assert "were used to train the model, so they say nothing about it. Give a folder" in refused


def test_evaluate_output_is_the_table_of_the_run(small_run: Path, tmp_path: Path) -> None:
    assert foldertune("evaluate", small_run, "--output", tmp_path / "t.csv").code == 0
    assert (tmp_path / "t.csv").read_bytes() == (small_run / "predictions.csv").read_bytes()
    rows = table_of(tmp_path / "t.csv")
    with np.load(small_run / "predictions.npz") as stored:
        numbers, shares = stored["rows"].tolist(), stored["probabilities"].max(1)
    assert [int(row["row"]) for row in rows] == numbers
    np.testing.assert_allclose([float(row["probability"]) for row in rows], shares, atol=1e-6)
    assert "Accepted: .csv" in foldertune("evaluate", small_run, "--output", tmp_path / "t.xlsx").refused(2)


@pytest.mark.parametrize("layout", ["test alone", "one class", "csv of test alone"])
def test_evaluate_on_a_folder_that_nobody_could_train_on_measures_it(
    small_run: Path, tmp_path: Path, layout: str
) -> None:
    folder = tmp_path / "new"
    if layout == "test alone":
        put_classes(folder / "test", {"red": 2, "green": 3})
    elif layout == "one class":
        put_classes(folder, {"red": 5})
    else:
        put_classes(folder, {"red": 5})
        lines = ["path,label,split", *(f"red/{number}.png,red,test" for number in range(5))]
        (folder / "labels.csv").write_text("\n".join(lines))
    found = foldertune("evaluate", small_run, folder, "--json")
    assert found.code == 0, found.err
    assert found.document["num_pictures"] == 5
    nothing = tmp_path / "nothing" / "red"
    nothing.mkdir(parents=True)
    assert "No picture was found" in foldertune("evaluate", small_run, nothing.parent).refused(3)


# Predict


def test_predict_answers_in_order_and_goes_on_past_bad_files(small_run: Path, strange: Path) -> None:
    paths = [strange / "text.png", strange / "with space.png", strange / "none.png", strange / "=1+1.png"]
    said = foldertune("predict", small_run, *paths, "--top-k", "9", "--json")
    assert said.code == 0
    assert [record["path"] for record in said.document] == [str(path) for path in paths]
    assert [record["class"] is None for record in said.document] == [True, False, True, False]
    for record in said.document:
        if record["class"] is None:
            assert set(record) == {"path", "class", "probability", "error"}
            assert record["error"]
            continue
        assert set(record) == {"path", "class", "probability", "known", "top"}
        assert sorted(top["class"] for top in record["top"]) == ["blue", "green", "red"]  # three are all there are
        assert sum(top["probability"] for top in record["top"]) == pytest.approx(1, abs=1e-5)
        assert record["top"][0] == {"class": record["class"], "probability": record["probability"]}
        assert record["probability"] == max(top["probability"] for top in record["top"])
    engine, promise, counts = said.err.splitlines()
    assert "no answer is refused for being unsure" in promise  # seven validation pictures promise nothing
    assert engine == " 0:00  Engine: openvino in float32 on cpu (not measured here yet: `foldertune speed` does it)"
    assert counts == "2 of 4 files could not be answered for."


def test_predict_that_answers_nothing_exits_3(small_run: Path, strange: Path, tmp_path: Path) -> None:
    paths = [strange / "text.png", strange / "写真.png"]
    said = foldertune("predict", small_run, *paths, "--json", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert said.code == 3
    assert [(record["path"], record["class"]) for record in said.document] == [(str(path), None) for path in paths]
    assert said.err.splitlines()[2:] == ["2 of 2 files could not be answered for."]
    assert "There is no picture in" in foldertune("predict", small_run, tmp_path).refused(3)


def test_predict_prints_one_line_for_each_file_whatever_its_name(small_run: Path, strange: Path) -> None:
    said = foldertune("predict", small_run, strange, "--top-k", "2")
    assert said.code == 0
    assert len(said.out.splitlines()) == len(STRANGE)
    assert (
        len(said.err.splitlines()) == 2 + 2 + 1
    )  # the engine and the promise, the two that are no pictures, and the count
    assert "line\\nbreak.png  " in said.out
    assert "bell\\x07\\x1b[31m.png  " in said.out
    assert "写真.png  " in said.out
    assert "\x1b" not in said.out + said.err


def test_predict_to_csv_has_one_row_for_each_file_and_no_formula(
    small_run: Path, strange: Path, tmp_path: Path
) -> None:
    target = tmp_path / "answers.csv"
    said = foldertune("predict", small_run, strange, "--top-k", "2", "--output", target)
    assert (said.code, said.out) == (0, "")
    with target.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, strict=True))
    assert list(rows[0]) == [
        "path",
        "class",
        "probability",
        "class_2",
        "probability_2",
        "known",
        "likeliest",
        "reason",
        "error",
    ]
    assert [row["path"] for row in rows] == [str(path) for path in picture_files([strange])]
    for row in rows:
        assert bool(row["class"]) != bool(row["error"])
        if row["class"]:
            assert float(row["probability"]) >= float(row["probability_2"])
    assert [path.name for path in tmp_path.iterdir()] == ["answers.csv"]  # nothing half-written beside it


def test_predict_to_jsonl_has_one_document_for_each_file(small_run: Path, strange: Path, tmp_path: Path) -> None:
    target = tmp_path / "answers.jsonl"
    target.write_text("of an earlier time")
    said = foldertune("predict", small_run, strange, "--output", target)
    assert (said.code, said.out) == (0, "")
    records = [json.loads(line) for line in target.read_text("utf-8").splitlines()]
    assert [record["path"] for record in records] == [str(path) for path in picture_files([strange])]
    assert all(
        set(record) in ({"path", "class", "probability", "known"}, {"path", "class", "probability", "error"})
        for record in records
    )


@pytest.mark.skipif(os.name == "nt", reason="there is no such pipe on Windows")
def test_output_into_a_pipe_that_nobody_reads_ends_quietly(small_run: Path) -> None:
    for words in (["models"], ["predict", str(small_run), str(small_run.parent / "pictures")]):
        reader, writer = os.pipe()
        os.close(reader)
        command = [sys.executable, "-m", "foldertune", *words]
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
        os.close(writer)
        said = [
            line
            for line in done.stderr.splitlines()
            if "Engine: " not in line and "no confidence can be found" not in line
        ]
        assert (done.returncode, said) == (0, [])


@pytest.mark.skipif(os.name == "nt", reason="the home folder is told otherwise there")
def test_predict_notes_nothing_in_the_home_folder_beside_the_cache(small_run: Path, tmp_path: Path) -> None:
    home, cache = tmp_path / "home", str(tmp_path / "cache")
    home.mkdir()
    for further in ([], ["--precision", "int8"]):
        pictures = small_run.parent / "pictures" / "red"
        said = foldertune("predict", small_run, pictures, *further, HOME=str(home), FOLDERTUNE_CACHE=cache)
        assert said.code == 0
    assert list(home.rglob("*")) == []


# Speed


def test_speed_shows_what_was_tried_and_predict_takes_it(small_run: Path, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    said = foldertune("speed", small_run, FOLDERTUNE_CACHE=cache)
    assert said.code == 0
    head, *rows, _, taken = said.out.splitlines()
    assert head.split()[:3] == ["engine", "precision", "device"]
    assert rows[0].split()[:3] == ["openvino", "float32", "cpu"]
    assert "int8" in {row.split()[1] for row in rows}
    engine, precision = taken.split()[1], taken.split()[3]
    after = foldertune("predict", small_run, small_run.parent / "pictures", "--json", FOLDERTUNE_CACHE=cache)
    assert f"Engine: {engine} in {precision} on cpu" in after.err
    document = foldertune("speed", small_run, "--json", FOLDERTUNE_CACHE=cache).document
    assert {"engine", "precision", "device", "reason", "trials"} == set(document)


def test_predict_on_an_engine_that_cannot_says_what_it_offers(small_run: Path) -> None:
    said = foldertune("predict", small_run, small_run, "x.png", "--engine", "onnxruntime", "--precision", "bf16")
    assert said.refused(2) == "The engine onnxruntime does not compute in bf16 on cpu. It offers float32, int8, on cpu."
