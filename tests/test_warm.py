"""One model for pictures in memory: opened once, by whichever thread comes first, and again when one of its files changes."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import foldertune
from foldertune.errors import SettingsError
from foldertune.evaluation import predict as module

PIXELS = np.full((40, 48, 3), 90, np.uint8)


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Path:
    shutil.copytree(small_run, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def openings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders of the models that are opened, each of them slowly."""
    found, real = [], module.opening

    def opening(folder: Path, **options: Any) -> Any:
        found.append(folder)
        time.sleep(0.2)
        return (yield from real(folder, **options))

    monkeypatch.setattr(module, "opening", opening)
    return found


def test_predict_in_memory_from_several_threads_opens_the_model_once(run: Path, openings: list[Path]) -> None:
    loaded = foldertune.load(run)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: loaded.predict(PIXELS, precision="float32"), range(8)))
    assert openings == [run.resolve()]
    assert len(set(answers)) == 1


def rename_a_class(run: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    config["label_names"] = [name.upper() for name in config["label_names"]]
    (run / "config.json").write_text(json.dumps(config))


def touch_preprocessing(run: Path) -> None:
    (run / "preprocess.json").write_text((run / "preprocess.json").read_text() + "\n")


@pytest.mark.parametrize(
    ("change", "label"),
    [(rename_a_class, str.upper), (touch_preprocessing, str), (lambda run: (run / "golden.npz").unlink(), str)],
)
def test_predict_in_memory_after_a_file_of_the_model_has_changed_answers_by_the_new_one(
    run: Path, openings: list[Path], change: Callable[[Path], None], label: Callable[[str], str]
) -> None:
    before = foldertune.predict(run, PIXELS, precision="float32")
    change(run)
    after = foldertune.predict(run, PIXELS, precision="float32")
    assert after.label == label(str(before.label))
    assert len(openings) == 2


@pytest.mark.parametrize("given", [12, None, np.zeros((4, 4), np.uint8)])
def test_predict_of_something_that_is_no_picture_is_refused_before_a_model_is_opened(
    run: Path, openings: list[Path], given: Any
) -> None:
    with pytest.raises(SettingsError, match="A picture was given as"):
        foldertune.predict(run, given)
    assert openings == []


@pytest.mark.parametrize("given", [(b"1", b"2"), (PIXELS, PIXELS), ("a.png", PIXELS), (b"1", "a.png")])
def test_predict_of_several_things_that_are_not_all_paths_says_to_give_one_at_a_time(
    run: Path, openings: list[Path], given: tuple[bytes | str | NDArray[np.uint8], ...]
) -> None:
    things: Any = given
    with pytest.raises(SettingsError, match=r"2 things were given, and not all are paths\. .*give one at a time"):
        foldertune.load(run).predict(*things)
    assert openings == []
