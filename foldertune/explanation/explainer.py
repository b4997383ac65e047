"""One picture after the other: answered, mapped, checked, boxed, compared with the training pictures, drawn into a file.

Each picture is worked on alone, so that its explanation does not depend on which others were asked about; what is computed in batches is
the picture more or less covered. A few pictures are decoded ahead, and no more are held.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from foldertune.data.pack import ahead
from foldertune.engines import Engine, make_engine
from foldertune.engines.form import form_of
from foldertune.engines.torch import exact, normalisation
from foldertune.errors import ImageError, MissingError, SettingsError, WorkFailedError
from foldertune.evaluation.predict import BATCH, Predictor, open_model
from foldertune.evaluation.saved_model import SavedModel, read_saved_model
from foldertune.explanation.attribution import Method, Weights, features_of, method_for, randomised
from foldertune.explanation.boxes import hot_boxes
from foldertune.explanation.drawing import draw_map, drawn_picture, jpeg
from foldertune.explanation.geometry import Grid, window_of
from foldertune.explanation.nearest import Album, open_album
from foldertune.explanation.page import MOST_SHOWN, Shown, render_page
from foldertune.explanation.trust import check_map, failures_of, trust_of
from foldertune.images import decode_and_size, read_picture_bytes
from foldertune.machine import keep_to_cores, num_cores
from foldertune.models import build
from foldertune.models.weights import load_weights
from foldertune.preprocess import decode_px, prepare
from foldertune.records import Event, Explanation, Progress
from foldertune.run import event, write_bytes, write_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from foldertune.models.network import Network

PAGE = "explain.html"
NUM_DRAWS = 3  # of random upper layers; one alone agrees by chance with a map of 49 cells
_MOST_OF_A_NAME = 40  # characters of a picture's name that its map's keeps: 160 bytes at most
_MUCH_UNSEEN = 0.5


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be explained, and where to.

    label: the class to explain; None for the answered one.   num_nearest: training pictures to name; 0 for none.
    """

    output: Path
    label: str | None = None
    num_nearest: int = 3


@dataclass(frozen=True, slots=True)
class _Read:
    """A picture file, ready to be explained. picture: as it is drawn.   size: (width, height) of the whole picture."""

    path: Path
    picture: NDArray[np.uint8]
    square: NDArray[np.uint8]
    size: tuple[int, int]
    sha256: str


@dataclass(frozen=True, slots=True)
class Mapped:
    """What the network says of one picture. others: the same map with randomised upper layers.   features: (D,)."""

    grid: Grid
    others: tuple[Grid, ...]
    features: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Explainer:
    """A model that explains its answers. album: None where there is nothing to compare with."""

    saved: SavedModel
    predictor: Predictor
    network: Network
    method: Method
    draws: tuple[Weights, ...]
    album: Album | None
    wanted: Wanted

    def explain(self, paths: Sequence[Path]) -> Iterator[tuple[Explanation, Shown]]:
        """One record for each path, in order, with what the page shows of it; the map's file is written."""
        for read in ahead(self._read, paths, workers=num_cores()):
            if not isinstance(read, _Read):
                path, reason = read
                failed = Explanation(str(path), None, None, error=reason)
                yield failed, Shown(failed)
                continue
            yield self._explained(read)

    def _read(self, path: Path) -> _Read | tuple[Path, str]:
        """The picture, or the reason why it cannot be had."""
        try:
            content = read_picture_bytes(path)
            pixels, size = decode_and_size(content, at_least_px=decode_px(self.saved.preprocess))
        except ImageError as error:
            return path, str(error)
        square = prepare(pixels, self.saved.preprocess)
        return _Read(path, drawn_picture(pixels), square, size, hashlib.sha256(content).hexdigest())

    def _explained(self, read: _Read) -> tuple[Explanation, Shown]:
        classes, preprocess = self.saved.classes, self.saved.preprocess
        shares = self.predictor.probabilities(read.square[None])[0]
        answer = int(shares.argmax())
        number = answer if self.wanted.label is None else classes.index(self.wanted.label)
        mapped = self.map_of(read.square, number, draws=self.draws)
        grid = mapped.grid
        window = window_of(*read.size, preprocess)
        boxes = hot_boxes(grid, window, read.size)
        drawn = draw_map(read.picture, grid, window, boxes, size=read.size)
        found = Explanation(
            str(read.path), classes[number], float(shares[number]), answer=classes[answer], boxes=boxes,
            map=str(self.wanted.output / map_name(read.path, self.wanted.label)), seen=window.seen_share(*read.size),
        )  # fmt: skip
        write_bytes(Path(found.map or ""), jpeg(drawn))
        found = self._checked(found, mapped, read)
        found = self._compared(found, mapped.features, read)
        thumbnails = [self.album.thumbnail(each.path) for each in found.nearest] if self.album else []
        return found, Shown(found, drawn, tuple(thumbnails), read.size)

    def map_of(self, square: NDArray[np.uint8], number: int, *, draws: Sequence[Weights] = ()) -> Mapped:
        """The map of a class over a prepared picture (S, S, 3), and those of the network with other upper layers."""
        scale, shift = normalisation(self.saved.preprocess)
        with exact(), torch.enable_grad():
            x = torch.from_numpy(square.copy()).permute(2, 0, 1)[None].float() * scale + shift
            begun = self.method.begin(x)
            (grid,) = self.method.evidence(begun, [number])
            others = tuple(self.method.evidence(begun, [number], weights)[0] for weights in draws)
            return Mapped(grid, others, features_of(self.network, begun).numpy())

    def _checked(self, found: Explanation, mapped: Mapped, read: _Read) -> Explanation:
        """With its trust, and a sentence for what it fails."""
        number = self.saved.classes.index(found.label or "")

        def answer(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
            batches = [pictures[start : start + BATCH] for start in range(0, len(pictures), BATCH)]
            return np.concatenate([self.predictor.probabilities(batch)[:, number] for batch in batches])

        checks = check_map(mapped.grid, mapped.others, read.square, answer, seed=int(read.sha256[:8], 16))
        trust, warnings = trust_of(checks), failures_of(checks, found.label or "")
        if not found.boxes:
            trust = 0.0
            warnings = (f"Nothing that the network sees in the picture speaks for {found.label}: the map is empty.",)
        if (found.seen or 0.0) < _MUCH_UNSEEN:
            share = f"{100 * (found.seen or 0.0):.0f} %"
            warnings += (
                f"The network sees only {share} of the picture; the rest is hatched. `--fit letterbox` would train on all.",
            )
        return replace(found, checks=checks, trust=trust, warnings=warnings)

    def _compared(self, found: Explanation, features: NDArray[np.float32], read: _Read) -> Explanation:
        """With the training pictures that are most like it."""
        if self.album is None:
            return found
        warnings = found.warnings
        if self.album.holds(read.sha256):
            warnings += ("The network has learned from this very picture.",)
        nearest = self.album.nearest(features, read.sha256, self.wanted.num_nearest)
        return replace(found, nearest=nearest, warnings=warnings)


def open_explainer(folder: Path, wanted: Wanted) -> Generator[Progress | Event, None, Explainer]:
    """Raises what `read_saved_model` and `open_model` do, and SettingsError for a class that the model does not know."""
    saved = read_saved_model(folder)
    if wanted.label is not None and wanted.label not in saved.classes:
        raise SettingsError(
            f"The model knows no class {wanted.label!r}. Accepted: {', '.join(saved.classes[:100])}"
            f"{f', and {len(saved.classes) - 100:,} more' if len(saved.classes) > 100 else ''}."
        )
    keep_to_cores()
    network = build(saved.model, num_classes=len(saved.classes))
    load_weights(network, saved.run.model, replace_head=False)
    method = method_for(network)
    album = None
    if wanted.num_nearest > 0:
        album = yield from open_album(saved, lambda: _feature_engine(network, saved))
    draws = tuple(randomised(network, seed) for seed in range(NUM_DRAWS))
    return Explainer(saved, open_model(folder), network, method, draws, album, wanted)


def _feature_engine(network: Network, saved: SavedModel) -> Engine:
    form = form_of(network, saved.preprocess, outputs=("features",))
    try:
        return make_engine(form)
    except (MissingError, WorkFailedError, RuntimeError):  # as `predict` goes on without OpenVINO
        return make_engine(form, engine="torch")


def explain_files(
    explainer: Explainer, paths: Sequence[Path]
) -> Generator[Progress | Event, None, tuple[Explanation, ...]]:
    """Explain pictures into the output folder, with a page of the first 200. Yields progress."""
    output, shown, found = explainer.wanted.output, list[str](), list[Explanation]()
    for explanation, parts in explainer.explain(paths):
        found.append(explanation)
        if len(shown) < MOST_SHOWN:
            shown.append(parts.rendered(number=len(found)))
        yield Progress("explain", len(found), len(paths))
    title = f"{explainer.method.title} ({explainer.method.source})"
    write_text(output / PAGE, render_page(explainer.saved.run.path.name, title, shown, tuple(found)))
    yield event("explained", page=str(output / PAGE), num_pictures=len(found))
    return tuple(found)


def map_name(path: Path, label: str | None) -> str:
    """The name of a map's file: readable, without anything that a system or a page takes for more, and no other picture's."""
    identity = f"{os.path.abspath(path)}\n{label or ''}".encode("utf-8", "surrogateescape")  # noqa: PTH100  # resolving would follow links
    stem = re.sub(r"[^\w.-]+", "_", path.stem).strip("._-")[:_MOST_OF_A_NAME] or "picture"
    return f"{stem}-{hashlib.sha256(identity).hexdigest()[:12]}.jpg"


def refuse_among_pictures(output: Path, pictures: Sequence[Path], files: Sequence[Path], folder: Path | None) -> None:
    """Raise SettingsError where an output folder would stand among pictures.

    pictures: files and folders as they were given.   files: those that will be read.   folder: that the run was trained on.
    """
    place = output.resolve()
    among = {path.resolve() for path in pictures if os.path.isdir(path)} | ({folder.resolve()} if folder else set())  # noqa: PTH112
    inside = next((each for each in among if place.is_relative_to(each)), None)
    if inside is not None or place in {path.absolute().parent.resolve() for path in files}:
        raise SettingsError(
            f"The output {output} lies among the pictures in {inside or place}, where nothing is ever written. Give another --output."
        )


def make_output(output: Path) -> None:
    """Make the output folder. Raises SettingsError where it cannot be made."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"The output {output} cannot be made: {error.strerror}. Give another --output.") from error
