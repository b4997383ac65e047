"""Golden answers: pictures of a run with the logits that PyTorch gives them in float32. No engine is used that answers otherwise."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foldertune.errors import DataError, WorkFailedError
from foldertune.run import written_whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from foldertune.engines import Engine

NUM_GOLDEN = 32
_A_FEW = 2  # of them are asked each time an engine is opened: a tenth of a second in float32 on two cores
# Largest difference of a logit, over the largest golden logit. float32 only adds in another order; measured 1e-6. bf16 keeps 8 bits
# of each number; measured 0.008 on clothes and 0.07 on X-rays, whose network takes statistics of its own. What is less exact than float32
# is judged by its answers (judging.py), and here only kept from nonsense.
TOLERANCE = {"float32": 1e-4, "bf16": 0.15, "fp16": 0.05, "int8": 0.5}


class OtherAnswersError(WorkFailedError):
    """An engine answers otherwise than the trained network: on this machine it always will."""


@dataclass(frozen=True, slots=True)
class Golden:
    """pictures (G, S, S, 3) uint8 and their logits (G, K) float32."""

    pictures: NDArray[np.uint8]
    logits: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Parity:
    """How far an engine is from the golden answers: of logits, over the largest; share of equal top-1 answers."""

    difference: float
    agreement: float


def write_golden(path: Path, golden: Golden) -> None:
    """Write golden.npz, complete or not at all."""
    with written_whole(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, pictures=golden.pictures, logits=golden.logits)


def read_golden(path: Path, *, num_classes: int, side: int) -> Golden | None:
    """The golden answers beside a model of `num_classes` for pictures of side x side pixels, or None where there are none.

    Raises DataError for a damaged file, and for one of another model.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            golden = Golden(stored["pictures"], stored["logits"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path} is damaged ({error}). Delete it: engines are then used without that check.") from error
    num = max(1, len(golden.pictures))
    expected = [((num, side, side, 3), np.dtype(np.uint8)), ((num, num_classes), np.dtype(np.float32))]
    found = [(each.shape, each.dtype) for each in (golden.pictures, golden.logits)]
    if found != expected:
        told = [" and ".join(f"{dtype} {shape}" for shape, dtype in each) for each in (found, expected)]
        raise DataError(
            f"{path} holds no golden answers of this model: {told[0]} instead of {told[1]}. Put the run's own file back, or delete "
            "it: engines are then used without that check."
        )
    return golden


def parity(engine: Engine, golden: Golden) -> Parity:
    """Ask an engine for all golden answers."""
    found = np.concatenate(
        [engine.run(golden.pictures[start : start + 8]) for start in range(0, len(golden.logits), 8)]
    )
    if not np.isfinite(found).all():
        return Parity(float("inf"), 0.0)
    largest = float(np.abs(golden.logits).max()) or 1.0
    agreement = float((found.argmax(1) == golden.logits.argmax(1)).mean())
    return Parity(float(np.abs(found - golden.logits).max()) / largest, agreement)


def refuse_other_answers(engine: Engine, golden: Golden, *, precision: str) -> None:
    """Raise OtherAnswersError where an engine that was just opened answers a few pictures otherwise than it must."""
    few = Golden(golden.pictures[:_A_FEW], golden.logits[:_A_FEW])
    largest = float(np.abs(golden.logits).max()) or 1.0
    found = parity(engine, few).difference * (float(np.abs(few.logits).max()) or 1.0) / largest
    if not found <= TOLERANCE[precision]:
        raise OtherAnswersError(
            f"The engine {engine.name} in {precision} answers otherwise than the trained network: logits differ by {found:.2g} of the "
            f"largest, {TOLERANCE[precision]:g} is allowed. It is not used. Take --engine torch, and report this machine."
        )
