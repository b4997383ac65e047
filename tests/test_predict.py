"""Answers for many pictures: flat memory, at once, in order, and the same in any company."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import command
import numpy as np
import pytest
from folders import picture_bytes, put
from numpy.typing import NDArray
from picture_files import run_apart

import foldertune
from foldertune.errors import DataError, ImageError, MissingError, SettingsError
from foldertune.evaluation.predict import BATCH, Predictor, open_model, picture_files
from foldertune.images import decode
from foldertune.records import Prediction

GROWTH_MIB = 30


@pytest.fixture(scope="module")
def predictor(small_run: Path) -> Predictor:
    return open_model(small_run)


@pytest.fixture(scope="module")
def pictures(small_run: Path) -> list[Path]:
    return sorted((small_run.parent / "pictures").rglob("*.png"))


def probabilities(answers: Iterator[Prediction], classes: tuple[str, ...]) -> NDArray[np.float64]:
    """(N, K) in class order, from records that name every class."""
    return np.array([[dict(answer.top)[name] for name in classes] for answer in answers])


# The same answers


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_predict_with_any_number_of_workers_gives_the_same_answers(
    predictor: Predictor, pictures: list[Path], workers: int
) -> None:
    apart = [next(predictor.predict([path], top_k=3, workers=0)) for path in pictures]
    together = list(predictor.predict(pictures, top_k=3, workers=workers))
    assert [answer.path for answer in together] == [str(path) for path in pictures]
    assert [answer.label for answer in together] == [answer.label for answer in apart]
    found = probabilities(iter(together), predictor.classes)
    np.testing.assert_allclose(found, probabilities(iter(apart), predictor.classes), atol=1e-5)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("num_pictures", [1, BATCH - 1, BATCH, BATCH + 1, 2 * BATCH + 3])
def test_predict_of_batches_of_any_size_answers_each_picture_once(
    predictor: Predictor, pictures: list[Path], num_pictures: int
) -> None:
    answers = list(predictor.predict(pictures[:num_pictures], workers=2))
    assert [answer.path for answer in answers] == [str(path) for path in pictures[:num_pictures]]
    assert all(answer.error is None for answer in answers)


def test_predict_with_bad_files_between_changes_no_other_answer(
    predictor: Predictor, pictures: list[Path], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    mixed = [path for picture in pictures[:10] for path in (bad, picture, tmp_path / "none.png")]
    answers = list(predictor.predict(mixed, top_k=3, workers=2))
    assert [answer.error is None for answer in answers] == [False, True, False] * 10
    assert {answer.error for answer in answers[2::3]} == {"the file is not there"}
    alone = probabilities(predictor.predict(pictures[:10], top_k=3), predictor.classes)
    np.testing.assert_allclose(probabilities(iter(answers[1::3]), predictor.classes), alone, atol=1e-5)


def test_predict_names_the_top_k_from_the_most_probable_on(predictor: Predictor, pictures: list[Path]) -> None:
    for top_k, num_named in ((1, 1), (2, 2), (3, 3), (99, 3)):
        (answer,) = predictor.predict(pictures[:1], top_k=top_k)
        assert len(answer.top) == num_named
        assert answer.top[0] == (answer.label, answer.probability)
        shares = [share for _, share in answer.top]
        assert shares == sorted(shares, reverse=True)


# At once, and in flat memory


def test_predict_of_endless_paths_answers_at_once(predictor: Predictor, pictures: list[Path]) -> None:
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        for path in itertools.cycle(pictures):
            taken += 1
            assert taken < 500, "the paths are listed ahead"
            yield path

    workers = 2
    first = list(itertools.islice(predictor.predict(endless(), workers=workers), 3))
    assert [answer.path for answer in first] == [str(path) for path in pictures[:3]]
    assert taken <= BATCH + 8 * workers + 1


def test_predict_from_python_asks_for_one_picture_before_it_opens_the_model(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no picture in .*empty"):
        foldertune.predict(tmp_path / "no-model", _folder(tmp_path / "empty"))
    with pytest.raises(DataError, match="There is no picture in nothing"):
        foldertune.predict(tmp_path / "no-model")
    with pytest.raises(SettingsError, match="Top k is 0"):
        foldertune.predict(tmp_path / "no-model", "a.png", top_k=0)
    with pytest.raises(MissingError, match="There is no run"):
        foldertune.predict(tmp_path / "no-model", "a.png")


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_predict_of_hundreds_of_pictures_keeps_its_memory(small_run: Path, tmp_path: Path) -> None:
    for number in range(600):
        (tmp_path / f"{number:03d}.png").write_bytes(picture_bytes(number, size=(160, 120)))
    found = run_apart(
        """
        import sys
        from pathlib import Path
        import psutil
        from foldertune.evaluation.predict import open_model, picture_files

        predictor, sizes = open_model(Path(sys.argv[1])), []
        for number, answer in enumerate(predictor.predict(picture_files([Path(sys.argv[2])]), workers=2), start=1):
            assert answer.error is None
            if number % 100 == 0:
                sizes.append(psutil.Process().memory_info().rss / 2**20)
        print(*sizes)
        """,
        str(small_run),
        str(tmp_path),
    )
    sizes = [float(word) for word in found.split()]
    assert len(sizes) == 6
    assert max(sizes) - sizes[0] < GROWTH_MIB


# Which files


def test_picture_files_of_folders_and_files_come_in_order(tmp_path: Path) -> None:
    put(tmp_path, ["b/2.png", "b/1.PNG", "b/inner/3.jpg", "a.png", ".hidden/4.png", "b/.5.png"])
    (tmp_path / "b" / "notes.txt").write_text("no picture")
    found = picture_files([tmp_path / "b", tmp_path / "a.png", tmp_path / "none.png", tmp_path / "b" / "notes.txt"])
    names = [path.relative_to(tmp_path).as_posix() for path in found]
    assert names == ["b/1.PNG", "b/2.png", "b/inner/3.jpg", "a.png", "none.png", "b/notes.txt"]


def test_predict_goes_on_past_a_folder_that_cannot_be_read(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, ["a/1.png", "b/2.png", "c/3.png"])
    real = os.scandir

    def scandir(folder: Path) -> Any:
        if Path(folder).name == "b":
            raise PermissionError(13, "Permission denied", str(folder))
        return real(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    answers = list(predictor.predict(picture_files([tmp_path])))
    assert [Path(answer.path).name for answer in answers] == ["1.png", "b", "3.png"]
    assert [bool(answer.error) for answer in answers] == [False, True, False]


def test_predict_goes_on_past_a_path_that_cannot_even_be_looked_at(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, ["1.png", "2.png"])
    closed, long, real = tmp_path / "closed" / "3.png", tmp_path / ("n" * 300 + ".png"), os.stat

    def stat(path: Any, *given: Any, **named: Any) -> os.stat_result:
        if path == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *given, **named)

    monkeypatch.setattr(os, "stat", stat)
    answers = list(predictor.predict(picture_files([tmp_path / "1.png", closed, long, tmp_path / "2.png"])))
    assert [bool(answer.error) for answer in answers] == [False, True, True, False]
    assert answers[2].error == "cannot be read: File name too long"


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_picture_files_do_not_follow_a_link_to_a_folder(tmp_path: Path) -> None:
    put(tmp_path, ["in/1.png", "out/2.png"])
    (tmp_path / "in" / "round").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "away").symlink_to(tmp_path / "out")
    assert [path.name for path in picture_files([tmp_path / "in"])] == ["1.png"]


# What is no model


def test_open_model_of_something_else_says_what_it_is(small_run: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="There is no run"):
        open_model(tmp_path / "none")
    with pytest.raises(MissingError, match="holds no model"):
        open_model(tmp_path)
    (tmp_path / "run.json").write_bytes((small_run / "run.json").read_bytes())
    with pytest.raises(MissingError, match=r"has no model yet. Finish it: `foldertune train --resume"):
        open_model(tmp_path)


def test_open_model_of_a_bare_model_folder_answers_as_the_run_does(
    small_run: Path, tmp_path: Path, predictor: Predictor, pictures: list[Path]
) -> None:
    for name in ("model.safetensors", "config.json"):
        (tmp_path / name).write_bytes((small_run / name).read_bytes())
    bare = open_model(tmp_path)
    assert (bare.classes, bare.preprocess) == (predictor.classes, predictor.preprocess)
    found = [probabilities(each.predict(pictures[:8], top_k=3), each.classes) for each in (bare, predictor)]
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


# One picture in memory


def test_predict_of_bytes_and_of_pixels_answers_at_once_as_the_file_does(
    small_run: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FOLDERTUNE_CACHE", str(tmp_path / "cache"))
    run = foldertune.load(small_run)
    for path in pictures[:3]:
        (file,) = run.predict(path, top_k=3, precision="float32")
        content = run.predict(path.read_bytes(), top_k=3, precision="float32")
        pixels = run.predict(decode(path.read_bytes()), top_k=3, precision="float32")
        assert isinstance(content, Prediction)
        assert content == pixels
        assert content.path == ""
        assert content.label == file.label
        np.testing.assert_allclose([share for _, share in content.top], [share for _, share in file.top], atol=1e-5)


def test_predict_in_memory_opens_the_model_once_and_again_when_its_file_changes(
    small_run: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import shutil

    from foldertune.evaluation import predict as module

    monkeypatch.setenv("FOLDERTUNE_CACHE", str(tmp_path / "cache"))
    shutil.copytree(small_run, tmp_path / "run")
    opened, real = [], module.opening

    def opening(folder: Path, **options: Any) -> Any:
        opened.append(folder)
        return real(folder, **options)

    monkeypatch.setattr(module, "opening", opening)
    content = pictures[0].read_bytes()
    for _ in range(3):
        foldertune.predict(tmp_path / "run", content, precision="float32")
    assert len(opened) == 1
    os.utime(tmp_path / "run" / "model.safetensors", ns=(1, 1))
    foldertune.predict(tmp_path / "run", content, precision="float32")
    assert len(opened) == 2


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            12,
            "A picture was given as a int. Accepted: a path, the content of a picture file as bytes, or pixels as an array",
        ),
        (np.zeros((4, 4), np.uint8), r"A picture was given as an array \(4, 4\) of uint8\. Accepted: a path"),
        (np.zeros((4, 4, 3), np.float32), r"A picture was given as an array \(4, 4, 3\) of float32\. Accepted: a path"),
        (np.zeros((0, 4, 3), np.uint8), r"A picture was given as an array \(0, 4, 3\) of uint8\. Accepted: a path"),
    ],
)
def test_predict_of_something_that_is_no_picture_says_what_is_accepted(
    small_run: Path, given: Any, sentence: str
) -> None:
    with pytest.raises(SettingsError, match=sentence):
        foldertune.predict(small_run, given, precision="float32")


def test_predict_of_bytes_that_are_no_picture_raises_the_reason(small_run: Path) -> None:
    with pytest.raises(ImageError, match="not a picture, or damaged at its beginning"):
        foldertune.predict(small_run, b"no picture", precision="float32")


def test_predict_in_memory_without_a_model_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(
        MissingError, match=r"There is no run .*none\. Give the folder that `foldertune train --run` made"
    ):
        foldertune.predict(tmp_path / "none", b"")


# Lightness


def test_predict_of_a_folder_imports_no_torch(small_run: Path, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from foldertune.cli import run\n"
        "code = run(sys.argv[1:])\n"
        "print([name for name in ('torch', 'onnx', 'nncf', 'sklearn', 'scipy') if name in sys.modules], code)"
    )
    variables = {**os.environ, "FOLDERTUNE_CACHE": str(tmp_path / "cache")}
    words = ["predict", str(small_run), str(small_run.parent / "pictures"), "--output", str(tmp_path / "a.csv")]
    found = [
        subprocess.run(
            [sys.executable, "-c", program, *words, *further], check=True, capture_output=True, text=True, env=variables
        ).stdout
        for further in ([], [], ["--precision", "int8"], ["--precision", "int8"])
    ]
    # Whatever is prepared is prepared the first time; from then on nothing heavy is needed.
    assert found[1] == "[] 0\n"
    assert found[3] == "[] 0\n"
    assert "torch" not in found[0]


def test_predict_refuses_the_run_of_a_newer_version(small_run: Path, tmp_path: Path, pictures: list[Path]) -> None:
    """Its files may mean something else, and a wrong answer would look like any other."""
    newer = tmp_path / "newer"
    shutil.copytree(small_run, newer)
    facts = json.loads((newer / "run.json").read_text("utf-8"))
    (newer / "run.json").write_text(json.dumps({**facts, "schema": 99}), "utf-8")
    said = command.foldertune("predict", newer, pictures[0]).refused(3)
    assert said == f"{newer} was written by a newer version (schema 99; this one knows 1). Update foldertune."


def test_predict_into_a_file_says_where_it_is(small_run: Path, tmp_path: Path, pictures: list[Path]) -> None:
    said = command.foldertune("predict", small_run, *pictures[:2], "--engine", "torch", "--output", tmp_path / "a.csv")
    assert said.code == 0
    assert f"Written: {tmp_path / 'a.csv'}, 2 files, each with its answer" in said.err
