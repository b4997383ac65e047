"""Golden answers: written with a run, read back, and no engine is used that answers otherwise."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from foldertune.errors import DataError, WorkFailedError
from foldertune.evaluation.golden import Golden, parity, read_golden, refuse_other_answers, write_golden
from foldertune.evaluation.saved_model import read_saved_model

PICTURES = np.arange(5 * 4 * 4 * 3, dtype=np.uint8).reshape(5, 4, 4, 3)
LOGITS = np.array([[10, 0], [0, 4], [-2, 1], [3, 0], [0, 1]], np.float32)
GOLDEN = Golden(PICTURES, LOGITS)
MODEL = {"num_classes": 2, "side": 4}


class Known:
    """Answers the golden logits, with something added to each."""

    name = "known"

    def __init__(self, *, error: float = 0.0) -> None:
        self.error = error

    def run_all(self, pictures: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        return [self.run(pictures)]

    def run(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        places = [int(np.flatnonzero((picture == PICTURES).all((1, 2, 3)))[0]) for picture in pictures]
        return LOGITS[places] + np.float32(self.error)


def test_golden_answers_come_back_as_they_were_written(tmp_path: Path) -> None:
    write_golden(tmp_path / "golden.npz", GOLDEN)
    found = read_golden(tmp_path / "golden.npz", **MODEL)
    assert found is not None
    np.testing.assert_array_equal(found.pictures, PICTURES)
    np.testing.assert_array_equal(found.logits, LOGITS)
    assert read_golden(tmp_path / "none.npz", **MODEL) is None


@pytest.mark.parametrize("kind", ["cut short", "no archive", "other names", "zeros"])
def test_read_golden_of_a_damaged_file_says_what_to_do(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "golden.npz"
    write_golden(path, GOLDEN)
    content = path.read_bytes()
    if kind == "cut short":
        path.write_bytes(content[:100])
    elif kind == "no archive":
        path.write_bytes(b"golden")
    elif kind == "zeros":
        path.write_bytes(content[:55] + bytes(40) + content[95:])
    else:
        np.savez(path, a=PICTURES)
    with pytest.raises(DataError, match=r"is damaged \(.*Delete it: engines are then used without that check"):
        read_golden(path, **MODEL)


@pytest.mark.parametrize(
    ("pictures", "logits"),
    [
        (PICTURES, LOGITS[:2]),
        (PICTURES[:0], LOGITS[:0]),
        (PICTURES[:, 0], LOGITS),
        (PICTURES[:, :3, :3], LOGITS),  # of another side
        (PICTURES, np.repeat(LOGITS, 2, axis=1)),  # of another number of classes
        (PICTURES.astype(np.float32), LOGITS),
        (PICTURES, LOGITS.astype(np.float64)),
    ],
)
def test_read_golden_of_another_model_says_what_it_holds_and_what_to_do(
    tmp_path: Path, pictures: NDArray[Any], logits: NDArray[Any]
) -> None:
    np.savez(tmp_path / "golden.npz", pictures=pictures, logits=logits)
    with pytest.raises(DataError) as refused:
        read_golden(tmp_path / "golden.npz", **MODEL)
    assert f"{pictures.dtype} {pictures.shape} and {logits.dtype} {logits.shape} instead of" in str(refused.value)
    assert "Put the run's own file back, or delete it" in str(refused.value)


def test_read_saved_model_beside_golden_answers_of_another_model_refuses_them(small_run: Path, tmp_path: Path) -> None:
    for name in ("model.safetensors", "config.json", "preprocess.json"):
        shutil.copy(small_run / name, tmp_path)
    write_golden(tmp_path / "golden.npz", GOLDEN)
    with pytest.raises(DataError, match=r"float32 \(5, 2\) instead of uint8 \(5, 32, 32, 3\) and float32 \(5, 3\)"):
        read_saved_model(tmp_path)


def test_parity_is_the_largest_difference_over_the_largest_logit() -> None:
    assert parity(Known(), GOLDEN) == parity(Known(error=0.0), GOLDEN)
    assert parity(Known(), GOLDEN).difference == 0
    found = parity(Known(error=0.5), GOLDEN)
    assert found.difference == pytest.approx(0.05)
    assert found.agreement == 1.0


def test_parity_counts_equal_answers_and_no_numbers_as_none() -> None:
    class Turned(Known):
        def run(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
            return super().run(pictures)[:, ::-1]

    assert parity(Turned(), GOLDEN).agreement == 0.0
    found = parity(Known(error=float("nan")), GOLDEN)
    assert (found.difference, found.agreement) == (float("inf"), 0.0)


@pytest.mark.parametrize(("precision", "allowed"), [("float32", 0.0005), ("bf16", 1.4), ("int8", 4.0)])
def test_refuse_other_answers_by_what_a_precision_may_differ(precision: str, allowed: float) -> None:
    refuse_other_answers(Known(error=allowed), GOLDEN, precision=precision)
    for error in (2 * allowed + 0.002, float("nan")):
        with pytest.raises(WorkFailedError, match=f"The engine known in {precision} answers otherwise"):
            refuse_other_answers(Known(error=error), GOLDEN, precision=precision)
