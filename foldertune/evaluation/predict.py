"""Answers for pictures: a saved model opened, and a stream of files answered in order, in flat memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foldertune.data.pack import ahead
from foldertune.engines import Engine, make_engine
from foldertune.errors import ImageError, MissingError
from foldertune.evaluation.metrics import softmax
from foldertune.images import decode, is_picture_name, read_picture_bytes
from foldertune.machine import num_cores
from foldertune.models.config import read_config
from foldertune.preprocess import Preprocess, decode_px, prepare
from foldertune.records import Prediction
from foldertune.run import RunFolder, read_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH = 8  # pictures at once: on a processor more gains nothing


@dataclass(frozen=True, slots=True)
class Predictor:
    """A model that answers. `engine` gives logits (B, K) for uint8 pictures (B, S, S, 3)."""

    engine: Engine
    classes: tuple[str, ...]
    preprocess: Preprocess

    def probabilities(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, K), rows sum to 1."""
        return softmax(self.engine.run(pictures))

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
        answers: Iterator[NDArray[np.float32]] = iter(self.probabilities(np.stack(pictures))) if pictures else iter(())
        for path, content in batch:
            if isinstance(content, str):
                yield Prediction(str(path), None, None, error=content)
                continue
            probabilities = next(answers)
            best = np.argsort(-probabilities, kind="stable")[:top_k]
            top = tuple((self.classes[place], float(probabilities[place])) for place in best)
            yield Prediction(str(path), *top[0], top=top)


def open_model(folder: Path, *, device: str = "cpu") -> Predictor:
    """The saved model of a run, or of any folder with model.safetensors and config.json.

    Raises MissingError where there is none, DataError or SettingsError where it is damaged.
    """
    from foldertune.engines.torch import Graph
    from foldertune.models import build
    from foldertune.models.weights import load_weights

    run = RunFolder(folder)
    if not run.model.is_file() or not run.config.is_file():
        raise MissingError(_no_model(run))
    config = read_config(run.config)
    preprocess = Preprocess.from_dict(read_json(run.preprocess)) if run.preprocess.exists() else config.preprocess
    network = build(config.model, num_classes=config.num_classes)
    load_weights(network, run.model, replace_head=False)
    preprocess = preprocess or Preprocess()
    engine = make_engine(Graph(network, preprocess), preprocess.image_size, device=device)
    classes = config.label_names or tuple(str(number) for number in range(config.num_classes))
    return Predictor(engine, classes, preprocess)


def picture_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Every path that is a file, and every picture file inside of those that are folders, sorted, hidden ones left out.

    A path that does not exist comes through, so that it gets a record with its error. Lazy: nothing is listed ahead.
    """
    for path in paths:
        yield from _inside(path) if path.is_dir() else [path]


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


def _no_model(run: RunFolder) -> str:
    if not run.path.exists():
        return f"There is no run {run.path}. Give the folder that `foldertune train --run` made."
    if run.run_json.exists():
        return f"The run {run.path} has no model yet. Finish it: `foldertune train --resume {run.path}`."
    return f"{run.path} holds no model (model.safetensors and config.json). Give the folder that `foldertune train --run` made."
