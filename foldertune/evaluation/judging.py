"""Engines on trial: how exact each is, and how fast.

An engine in float32 is held against the golden answers. What is less exact is also held against float32 on the run's
validation pictures: it is refused when it surely costs more than half a point of accuracy, or answers otherwise too often.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from foldertune.engines import Engine
from foldertune.errors import MissingError, SettingsError
from foldertune.evaluation.answers import calibrated_on, validation_answers
from foldertune.evaluation.golden import TOLERANCE, OtherAnswersError, parity
from foldertune.evaluation.metrics import paired_share_difference
from foldertune.evaluation.saved_model import SavedModel, open_saved
from foldertune.evaluation.trials import Spec, Trial, read_trials, remember
from foldertune.records import Event, Progress
from foldertune.run import event

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_AGREEMENT = 0.98  # of top-1 answers with float32
MOST_LOSS = 0.005  # of accuracy: half a point, which even the better end of the interval must not exceed
_BATCH = 8
_TIMED_S = 0.6
_MOST_LETTERS = 1000  # of a reason; libraries' errors bring whole traces


def measure(saved: SavedModel, specs: list[Spec]) -> Generator[Progress | Event, None, tuple[Trial, ...]]:
    """Try each (engine, precision, device) now; returns what was found beside what was known.

    A verdict is remembered. One that could not be reached, whatever went wrong, counts for this process alone.
    Raises SettingsError for a setting that is wrong whatever the engine.
    """
    for number, spec in enumerate(specs):
        yield Progress("engines", number, len(specs))
        if spec.precision == "int8" and not saved.shelf.find(f"int8-{spec.engine}"):
            yield event("note", text=f"Preparing int8 for {spec.engine}, once: calibrated on training pictures")
        try:
            remember(saved, _tried(spec, saved), judged=True)
        except SettingsError:
            raise
        except Exception as error:  # one that cannot run here is told of and left out, whatever it raises
            reason = " ".join(str(error).split())[:_MOST_LETTERS] or type(error).__name__
            remember(saved, Trial(*spec, refused=reason), judged=isinstance(error, OtherAnswersError))
    yield Progress("engines", len(specs), len(specs))
    return read_trials(saved)


def _tried(spec: Spec, saved: SavedModel) -> Trial:
    engine = open_saved(saved, spec.engine, spec.precision, device=spec.device, calibration=calibrated_on(saved))
    trial = _judged(Trial(*spec), engine, saved)
    side = saved.preprocess.image_size
    blank = np.zeros((_BATCH, side, side, 3), np.uint8)
    pictures = saved.golden.pictures[:_BATCH] if saved.golden is not None else blank
    per_s = len(pictures) / _median_s(lambda: engine.run(pictures))
    return replace(trial, pictures_per_s=per_s, latency_ms=1000 * _median_s(lambda: engine.run(pictures[:1])))


def _judged(trial: Trial, engine: Engine, saved: SavedModel) -> Trial:
    """The trial with how exact the engine is, and with the reason where that is not enough.

    Raises MissingError where there is nothing to judge it by.
    """
    if saved.golden is not None:
        found = parity(engine, saved.golden)
        trial = replace(
            trial, difference=found.difference, agreement=found.agreement, num_judged=len(saved.golden.logits)
        )
        if not found.difference <= TOLERANCE[trial.precision]:
            return replace(trial, refused=f"golden logits differ by {found.difference:.2g} of the largest")
    if trial.precision == "float32":
        return trial
    try:
        return _compared(trial, engine, saved)
    except MissingError:
        if trial.precision == "int8" or trial.agreement != 1.0:
            raise
        return trial  # more exact than int8, and right on all golden pictures


def _compared(trial: Trial, engine: Engine, saved: SavedModel) -> Trial:
    """The trial with what the engine answers on validation pictures, held against float32."""
    rows: list[NDArray[np.int64]] = []  # (3, B): what the engine answers, what float32 does, what is right
    for batch in validation_answers(saved, _BATCH):
        rows.append(np.stack([engine.run(batch.pictures).argmax(1), batch.float32, batch.labels]))
    found, float32, labels = np.concatenate(rows, axis=1)
    agreement = float((found == float32).mean())
    right, was_right = found == labels, float32 == labels
    loss = paired_share_difference(int((was_right & ~right).sum()), int((right & ~was_right).sum()), len(found))
    refused = ""
    if agreement < LEAST_AGREEMENT:
        refused = f"{agreement:.1%} of {len(found):,} validation pictures are answered as in float32, {LEAST_AGREEMENT:.0%} is the least"
    elif loss.low > MOST_LOSS:
        refused = (
            f"it costs at least {100 * loss.low:.1f} points of accuracy on validation, {100 * MOST_LOSS:g} is the most"
        )
    return replace(trial, agreement=agreement, num_judged=len(found), accuracy_loss=loss, refused=refused)


def _median_s(work: Callable[[], object]) -> float:
    """Of some runs after one that warms up."""
    work()
    times: list[float] = []
    while sum(times) < _TIMED_S or len(times) < 3:
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return float(np.median(times))
