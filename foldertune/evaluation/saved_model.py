"""A trained model on disk, and the engines that can be made of it: prepared once, kept on its shelf, checked when opened."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from foldertune.engines import Engine, make_engine, open_engine, refuse_impossible
from foldertune.engines.form import Form, read_form
from foldertune.engines.openvino import COMPILED, OpenVinoEngine, compiled_for
from foldertune.engines.shelf import Shelf, shelf_key
from foldertune.errors import FoldertuneError, MissingError, WorkFailedError
from foldertune.evaluation.golden import Golden, read_golden, refuse_other_answers
from foldertune.evaluation.standards import NO_STANDARDS, Standards, read_standards
from foldertune.evaluation.unlike import NOTHING_UNLIKE, Unlike, read_unlike
from foldertune.models.config import read_config
from foldertune.preprocess import Preprocess
from foldertune.run import RunFolder, read_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# The training pictures that int8 is calibrated on; asked only where it is not prepared yet.
Calibration = Callable[[], "NDArray[np.uint8]"]
_GRAPH, _COMPILED = "graph.onnx", f"compiled{COMPILED}"


@dataclass(frozen=True, slots=True)
class SavedModel:
    """model.safetensors with what stands beside it. golden: None where training stored none."""

    run: RunFolder
    model: str
    classes: tuple[str, ...]
    preprocess: Preprocess
    golden: Golden | None
    shelf: Shelf
    standards: Standards = NO_STANDARDS
    unlike: Unlike = NOTHING_UNLIKE

    def form(self) -> Form:
        """The network as numbers, read anew."""
        return read_form(self.run.model, model=self.model, num_classes=len(self.classes), preprocess=self.preprocess)


def read_saved_model(folder: Path) -> SavedModel:
    """The saved model of a run, or of any folder with model.safetensors and config.json.

    Raises MissingError where there is none, DataError or SettingsError where it is damaged.
    """
    run = RunFolder(folder)
    if not run.model.is_file() or not run.config.is_file():
        raise MissingError(_no_model(run))
    if run.run_json.exists():
        run.open()  # a newer version's files may mean something else
    config = read_config(run.config)
    preprocess = Preprocess.from_dict(read_json(run.preprocess)) if run.preprocess.exists() else config.preprocess
    preprocess = preprocess or Preprocess()
    classes = config.label_names or tuple(str(number) for number in range(config.num_classes))
    key = shelf_key(run.model, model=config.model, num_classes=config.num_classes, preprocess=preprocess.to_dict())
    golden = read_golden(run.golden, num_classes=len(classes), side=preprocess.image_size)
    shelf = Shelf(key, num_bytes=run.model.stat().st_size)
    standards, unlike = read_standards(config.ours, run.config), read_unlike(run.unlike, num_classes=len(classes))
    return SavedModel(run, config.model, classes, preprocess, golden, shelf, standards, unlike)


def open_saved(
    saved: SavedModel, engine: str, precision: str, *, device: str = "cpu", calibration: Calibration | None = None
) -> Engine:
    """An engine for the model, its answers checked.

    Raises what `refuse_impossible` does, MissingError for int8 without pictures to calibrate on, and WorkFailedError for an
    engine that answers otherwise than the trained network, also after it was made anew.
    """
    refuse_impossible(engine, precision, device=device)
    if engine in ("torch", "compiled"):
        try:
            made = make_engine(saved.form(), engine=engine, precision=precision, device=device)
            _check(saved, made, precision)
        except RuntimeError as error:  # a GPU that is full, or gone
            raise WorkFailedError(
                f"The engine {engine} in {precision} cannot run on {device}: {_line(error)}."
            ) from error
        return made
    for name in filter(saved.shelf.find, _forms(engine, precision)):
        try:
            return _from_shelf(saved, engine, precision, calibration)
        except MissingError:
            raise
        except Exception:  # the libraries raise many types on a damaged file, and a wrong answer is one of ours
            pass
        # Not above: there the error holds the engine, and Windows deletes no file that one has mapped.
        saved.shelf.drop(name)
    return _from_shelf(saved, engine, precision, calibration)


def _forms(engine: str, precision: str) -> list[str]:
    """The forms that an engine is opened from, the last made first: what it was made from may be good and is dear to make."""
    if precision != "int8":
        return ["float32"]
    return [_compiled_name(), _quantized_name(engine)] if engine == "openvino" else [_quantized_name(engine)]


def _from_shelf(saved: SavedModel, engine: str, precision: str, calibration: Calibration | None) -> Engine:
    # In float32 a compiled form is four times as large, writing it takes as much memory, and answering is slow beside compiling.
    may_be_compiled = (engine, precision) == ("openvino", "int8")
    compiled = saved.shelf.find(_compiled_name()) if may_be_compiled else None
    if compiled is not None:
        path = compiled / _COMPILED
    else:
        path = _quantized(saved, engine, calibration) if precision == "int8" else _graph(saved)
    try:
        made = open_engine(path, engine=engine, precision=precision)
    except FoldertuneError:
        raise
    except Exception as error:
        raise WorkFailedError(f"The engine {engine} cannot open {path}: {_line(error)}.") from error
    _check(saved, made, precision)
    if may_be_compiled and compiled is None:
        _keep_compiled(saved, made)
    return made


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".")


def _keep_compiled(saved: SavedModel, engine: Engine) -> None:
    """Put what compiling made on the shelf; without it the next process compiles again."""
    if isinstance(engine, OpenVinoEngine):
        with contextlib.suppress(OSError, RuntimeError, WorkFailedError):  # full disks; what OpenVINO cannot write
            saved.shelf.add(_compiled_name(), lambda folder: engine.write_compiled(folder / _COMPILED))


def _quantized_name(engine: str) -> str:
    return f"int8-{engine}"


def _compiled_name() -> str:
    """Of the compiled int8 form, which is of use on this machine alone."""
    machine = hashlib.sha256(json.dumps(compiled_for()).encode()).hexdigest()[:16]
    return f"compiled-int8-{machine}"


def _check(saved: SavedModel, engine: Engine, precision: str) -> None:
    if saved.golden is not None:
        refuse_other_answers(engine, saved.golden, precision=precision)


def _graph(saved: SavedModel) -> Path:
    """The float32 graph on the shelf."""

    def write(folder: Path) -> None:
        from foldertune.engines.graph import onnx_graph

        (folder / _GRAPH).write_bytes(onnx_graph(saved.form()).SerializeToString())

    return saved.shelf.add("float32", write) / _GRAPH


def _quantized(saved: SavedModel, engine: str, calibration: Calibration | None) -> Path:
    """The int8 form on the shelf."""
    name = f"graph{'.xml' if engine == 'openvino' else '.onnx'}"
    if found := saved.shelf.find(_quantized_name(engine)):
        return found / name
    if calibration is None:
        raise MissingError(
            f"int8 has not been prepared for {saved.run.path}, and there are no training pictures to calibrate it on. "
            "Take --precision float32, or run `foldertune speed` where the pictures are."
        )
    from foldertune.engines.quantize import quantize

    open_saved(saved, engine, "float32")  # a damaged graph would give a damaged int8 form, so it is made again now
    source, pictures = _graph(saved), calibration()

    def write(folder: Path) -> None:
        quantize(source, folder / name, pictures, engine=engine, transformer=saved.model.startswith("vit"))

    return saved.shelf.add(_quantized_name(engine), write) / name


def _no_model(run: RunFolder) -> str:
    if not run.path.exists():
        return f"There is no run {run.path}. Give the folder that `foldertune train --run` made."
    if run.run_json.exists():
        return f"The run {run.path} has no model yet. Finish it: `foldertune train --resume {run.path}`."
    return f"{run.path} holds no model (model.safetensors and config.json). Give the folder that `foldertune train --run` made."
