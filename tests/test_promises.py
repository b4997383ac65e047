"""Answers that a model had better not give: what `predict` says of them, in records, on the terminal and in files."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import foldertune as command
from folders import table_of

import foldertune
from foldertune.commands.answering import promised
from foldertune.errors import SettingsError
from foldertune.evaluation.predict import Predictor, open_model
from foldertune.evaluation.refusal import Promise, Refusal
from foldertune.evaluation.standards import Standards, standards_document
from foldertune.evaluation.unlike import Unlike, write_unlike
from foldertune.models.config import OURS

REFUSAL = Refusal(120, (Promise(0.01, None), Promise(0.02, 0.999999), Promise(0.05, 0.8), Promise(0.10, 0.0)))


@pytest.fixture(scope="module")
def model(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the small run's model with thresholds of ours, and nothing else of the run."""
    place = tmp_path_factory.mktemp("model")
    for name in ("model.safetensors", "config.json", "preprocess.json", "golden.npz"):
        shutil.copyfile(small_run / name, place / name)
    config = json.loads((place / "config.json").read_text("utf-8"))
    config[OURS] = standards_document(Standards(REFUSAL))
    (place / "config.json").write_text(json.dumps(config), "utf-8")
    return place


@pytest.fixture(scope="module")
def pictures(small_run: Path) -> list[Path]:
    return sorted((small_run.parent / "pictures").rglob("*.png"))[:12]


def test_predict_below_the_threshold_answers_unknown_and_still_lists_the_classes(
    model: Path, pictures: list[Path]
) -> None:
    always = list(foldertune.predict(model, *pictures, top_k=2, promise=None))
    assert all(answer.known and answer.label == answer.top[0][0] for answer in always)
    for promise, least in ((0.05, 0.8), (0.02, 0.999999), (0.10, 0.0)):
        found = list(foldertune.predict(model, *pictures, top_k=2, promise=promise))
        for answer, forced in zip(found, always, strict=True):
            assert answer.top == forced.top
            assert answer.probability == forced.probability
            assert answer.known == (forced.top[0][1] >= least)
            if not answer.known:
                assert answer.label == "unknown"
                assert f"so that at most {promise:.0%} of answers are wrong" in answer.reason
    assert list(foldertune.predict(model, *pictures, top_k=2)) == list(
        foldertune.predict(model, *pictures, top_k=2, promise=0.05)
    )


def test_predict_of_a_picture_in_memory_keeps_the_same_promise(model: Path, pictures: list[Path]) -> None:
    content = pictures[0].read_bytes()
    always, never = (
        foldertune.predict(model, content, engine="openvino", precision="float32", promise=promise)
        for promise in (None, 0.02)
    )
    assert always.known
    assert (never.known, never.label, never.top) == (False, "unknown", always.top)


def test_predict_promise_that_cannot_be_kept_is_refused_with_those_that_can(model: Path, pictures: list[Path]) -> None:
    said = command("predict", model, pictures[0], "--promise", "0.01").refused(2)
    assert (
        "From 120 validation pictures no confidence can be found above which at most 1% of the answers are wrong"
        in said
    )
    assert "Can be promised: 0.02, 0.05, 0.1." in said
    assert "Accepted: none, 0.01, 0.02, 0.05, 0.1" in command(
        "predict", model, pictures[0], "--promise", "0.3"
    ).refused(2)
    assert "such as 0.05" in command("predict", model, pictures[0], "--promise", "often").refused(2)


def test_predict_on_too_few_validation_pictures_says_so_and_answers(small_run: Path, pictures: list[Path]) -> None:
    said = command("predict", small_run, *pictures, "--json")
    assert "no answer is refused for being unsure" in said.err
    assert all(row["known"] for row in said.document)
    assert "refused" not in command("predict", small_run, pictures[0], "--promise", "none").err


def test_predict_prints_and_writes_what_was_refused(model: Path, pictures: list[Path], tmp_path: Path) -> None:
    printed = command("predict", model, *pictures, "--promise", "2%")
    assert printed.code == 0
    assert all("  unknown (" in line for line in printed.out.splitlines())
    found = command("predict", model, *pictures, "--promise", "0.02", "--json").document
    assert {row["class"] for row in found} == {"unknown"}
    assert all(
        not row["known"] and row["reason"] and row["top"][0]["probability"] == row["probability"] for row in found
    )
    command("predict", model, *pictures, "--promise", "0.02", "--top-k", "2", "--output", tmp_path / "o.csv")
    rows = table_of(tmp_path / "o.csv")
    assert [row["likeliest"] for row in rows] == [row["top"][0]["class"] for row in found]
    assert {(row["class"], row["known"], row["error"]) for row in rows} == {("unknown", "no", "")}
    assert all(row["class_2"] and row["reason"].startswith("not sure: ") for row in rows)
    command("predict", model, pictures[0], model / "none.png", "--output", tmp_path / "e.csv", "--promise", "none")
    one, other = table_of(tmp_path / "e.csv")
    assert (one["known"], one["class"], other["known"], other["class"]) == ("yes", one["likeliest"], "", "")


def test_predict_refuses_pictures_unlike_all_that_was_learned(
    model: Path, pictures: list[Path], tmp_path: Path
) -> None:
    shutil.copytree(model, tmp_path / "model")
    write_unlike(
        tmp_path / "model" / "unlike.npz",
        Unlike("energy", -1e9, np.zeros((3, 3), np.float32), np.eye(3, dtype=np.float32)),
    )
    found = list(foldertune.predict(tmp_path / "model", *pictures, promise=0.10))
    assert {(answer.label, answer.reason) for answer in found} == {
        ("unknown", "unlike the pictures that the model learned from")
    }
    assert all(answer.known for answer in foldertune.predict(tmp_path / "model", *pictures, promise=None))


def test_keeping_of_a_model_without_promises_answers_always(model: Path) -> None:
    opened = open_model(model)
    bare = replace(opened, standards=Standards())
    assert isinstance(bare, Predictor)
    assert bare.keeping("auto") == bare
    with pytest.raises(SettingsError, match="saved without promises"):
        bare.keeping(0.05)
    assert opened.least is None  # those who compare models get every answer


@pytest.mark.parametrize(("text", "promise"), [("none", None), ("auto", "auto"), ("0.05", 0.05), ("5%", 0.05)])
def test_promised_reads_what_may_be_typed(text: str, promise: Any) -> None:
    assert promised(text) == promise


@pytest.mark.parametrize("text", ["", "0", "1", "5", "-0.1", "nan", "%"])
def test_promised_refuses_what_is_no_share(text: str) -> None:
    with pytest.raises(SettingsError, match=r"Accepted: none, auto, or the share"):
        promised(text)
