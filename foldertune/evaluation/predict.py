"""Answers for pictures: one in memory at once, or a stream of files in order, in flat memory.

Threads read and decode while the engine works; both leave the interpreter's lock. With two streams of one core each, that decode and
answer by turns, it was not faster (docs/log.md).
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from foldertune.data.pack import ahead
from foldertune.engines import Engine
from foldertune.errors import ImageError, MissingError, SettingsError, WorkFailedError
from foldertune.evaluation.answers import calibrated_on
from foldertune.evaluation.choice import Choice, choose, in_turn
from foldertune.evaluation.metrics import softmax
from foldertune.evaluation.refusal import DEFAULT_PROMISE, told_promises
from foldertune.evaluation.saved_model import SavedModel, open_saved, read_saved_model
from foldertune.evaluation.standards import NO_STANDARDS, Standards
from foldertune.evaluation.trials import Spec
from foldertune.evaluation.unlike import NOTHING_UNLIKE, Unlike
from foldertune.images import decode, is_picture_name, read_picture_bytes
from foldertune.machine import num_cores
from foldertune.preprocess import Preprocess, decode_px, prepare
from foldertune.records import Event, Prediction, Progress, finish
from foldertune.run import event

if TYPE_CHECKING:
    from numpy.typing import NDArray

Promised = float | Literal["auto"] | None
UNKNOWN = "unknown"  # the label of a refused answer; a class may have the same name, `known` tells them apart
BATCH = 8  # pictures at once: on a processor more gains nothing
WORTH_MEASURING = 100  # pictures to answer for; fewer are done before engines would have been tried


@dataclass(frozen=True, slots=True)
class Predictor:
    """A model that answers. `engine` gives logits (B, K) for uint8 pictures (B, S, S, 3).

    least: the confidence below which the answer is "unknown", as it also is for pictures unlike all that was learned; None answers
    always, as those who compare models do.   promise: the error rate that `least` was chosen for, in words.
    """

    engine: Engine
    classes: tuple[str, ...]
    preprocess: Preprocess
    standards: Standards = NO_STANDARDS
    unlike: Unlike = NOTHING_UNLIKE
    least: float | None = None
    promise: str = ""

    def keeping(self, promise: Promised) -> Predictor:
        """The same model, refusing what it must to keep a promise; see `confidence_for`."""
        least, _ = confidence_for(promise, self.standards)
        return replace(self, least=least, promise="" if not least else f"{_error_of(promise):.0%}")

    def probabilities(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, K), rows sum to 1."""
        return softmax(self.engine.run(pictures))

    def _told(self, pictures: NDArray[np.uint8]) -> list[tuple[NDArray[np.float32], bool]]:
        """Probabilities (K,) of each picture, and whether it is unlike all that was learned."""
        logits = self.engine.run(pictures)
        unlike = [False] * len(logits) if self.least is None else self.unlike.above(logits).tolist()
        return list(zip(softmax(logits), unlike, strict=True))

    def answer(self, picture: bytes | NDArray[np.uint8], *, top_k: int = 1) -> Prediction:
        """The answer for one picture in memory, at once: the content of a file, or (H, W, 3) uint8 RGB. Its path is empty.

        Raises ImageError with the reason where the content is no picture.
        """
        pixels = decode(picture, at_least_px=decode_px(self.preprocess)) if isinstance(picture, bytes) else picture
        return self._named("", self._told(prepare(pixels, self.preprocess)[None])[0], top_k)

    def predict(self, paths: Iterable[Path], *, top_k: int = 1, workers: int | None = None) -> Iterator[Prediction]:
        """One record per path, in order; a file that cannot be answered for has its reason in `error`.

        Holds a few batches at a time, however many paths come.
        """
        workers = num_cores() if workers is None else workers
        batch: list[tuple[Path, NDArray[np.uint8] | str]] = []
        for item in ahead(self._load, paths, workers=workers):
            batch.append(item)
            if len(batch) == BATCH:
                yield from self._answer(batch, top_k)
                batch = []
        if batch:
            yield from self._answer(batch, top_k)

    def _load(self, path: Path) -> tuple[Path, NDArray[np.uint8] | str]:
        """The prepared picture, or the reason why there is none."""
        try:
            picture = decode(read_picture_bytes(path), at_least_px=decode_px(self.preprocess))
        except ImageError as error:
            return path, str(error)
        return path, prepare(picture, self.preprocess)

    def _answer(self, batch: Sequence[tuple[Path, NDArray[np.uint8] | str]], top_k: int) -> Iterator[Prediction]:
        pictures = [content for _, content in batch if not isinstance(content, str)]
        answers = iter(self._told(np.stack(pictures)) if pictures else ())
        for path, content in batch:
            if isinstance(content, str):
                yield Prediction(str(path), None, None, error=content)
                continue
            yield self._named(str(path), next(answers), top_k)

    def _named(self, path: str, told: tuple[NDArray[np.float32], bool], top_k: int) -> Prediction:
        probabilities, unlike = told
        best = np.argsort(-probabilities, kind="stable")[:top_k]
        top = tuple((self.classes[place], float(probabilities[place])) for place in best)
        label, probability = top[0]
        if self.least is None or (probability >= self.least and not unlike):
            return Prediction(path, label, probability, top=top)
        reason = "unlike the pictures that the model learned from"
        if not unlike:
            reason = f"not sure: {probability:.1%}, and {self.least:.1%} is asked for so that at most {self.promise} of answers are wrong"
        return Prediction(path, UNKNOWN, probability, top=top, known=False, reason=reason)


def confidence_for(promise: Promised, standards: Standards) -> tuple[float | None, str]:
    """The confidence that is asked for to keep a promise, and what to tell of it, mostly nothing.

    promise: a share of wrong answers among those given, one of the stored ones; None answers always, and so is what it returns; "auto"
    is 5 % where the validation pictures sufficed for it, else 0.0.
    Raises SettingsError for one that is not stored, or that they did not suffice for.
    """
    refusal = standards.refusal
    if promise is None or (promise == "auto" and not refusal.promises):
        return None, ""
    error = _error_of(promise)
    least = refusal.threshold(error)
    if least is not None:
        return least, ""
    few = (
        f"From {refusal.num_pictures:,} validation pictures no confidence can be found above which at most {error:.0%} of the answers are "
        "wrong"
    )
    if promise == "auto":
        return 0.0, f"{few}: no answer is refused for being unsure."
    raise SettingsError(
        f"{few}. Can be promised: {told_promises(refusal.promises)}. Take one of these, or --promise none."
    )


def _error_of(promise: Promised) -> float:
    return promise if isinstance(promise, float) else DEFAULT_PROMISE


def opening(
    folder: Path,
    *,
    engine: str = "auto",
    precision: str = "auto",
    num_pictures: int | None = None,
    promise: Promised = None,
) -> Generator[Progress | Event, None, Predictor]:
    """Open a saved model on the engine that was asked for, or that is the fastest good one here.

    num_pictures: how many are to be answered for, where that is known; a few are not worth measuring engines for.
    Raises what `read_saved_model`, `confidence_for`, `choose` and `open_saved` do.
    """
    saved = read_saved_model(folder)
    _, told = confidence_for(promise, saved.standards)
    many = num_pictures is None or num_pictures >= WORTH_MEASURING
    chosen = yield from choose(saved, engine=engine, precision=precision, may_measure=many)
    yield event("engine", engine=chosen.engine, precision=chosen.precision, device=chosen.device, reason=chosen.reason)
    if told:
        yield event("note", text=told)
    opened = yield from _first_that_opens(saved, in_turn(chosen, engine, precision))
    return opened.keeping(promise)


def open_model(folder: Path) -> Predictor:
    """A saved model in float32, as it is measured by `train` and `evaluate`: OpenVINO, or PyTorch where that cannot be opened.

    Raises what `read_saved_model` and `open_saved` do.
    """
    specs = in_turn(Choice("openvino", "float32", "cpu", "as it is measured"), "auto", "float32")
    return finish(_first_that_opens(read_saved_model(folder), specs))


def _first_that_opens(saved: SavedModel, specs: Sequence[Spec]) -> Generator[Progress | Event, None, Predictor]:
    """Raises what `open_saved` does for the last one."""
    calibration = calibrated_on(saved)

    def opened(spec: Spec) -> Predictor:
        engine = open_saved(saved, spec.engine, spec.precision, device=spec.device, calibration=calibration)
        return Predictor(engine, saved.classes, saved.preprocess, saved.standards, saved.unlike)

    for spec, stand_in in pairwise(specs):
        try:
            return opened(spec)
        except (WorkFailedError, MissingError) as error:
            yield event("warning", text=f"{error} {stand_in.name} answers instead.")
    return opened(specs[-1])


def picture_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Every path that is a file, and every picture file inside of those that are folders, sorted, hidden ones left out.

    A path that does not exist comes through, so that it gets a record with its error. Lazy: nothing is listed ahead.
    """
    for path in paths:
        # Path.is_dir raises for a name that is too long and for a place that nobody may look at; their records say so instead.
        yield from _inside(path) if os.path.isdir(path) else [path]  # noqa: PTH112


def _inside(folder: Path) -> Iterator[Path]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        yield folder  # its record says why, and the others are answered
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _inside(Path(entry.path))
        elif is_picture_name(entry.name):
            yield Path(entry.path)
