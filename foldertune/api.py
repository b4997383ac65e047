"""The verbs, for Python. The command line and the studio call these and nothing below them.

run = foldertune.train("photos")        # look, split, plan, baseline, fine-tune, evaluate, report
run.evaluate().accuracy                 # with its 95 % interval
for answer in run.predict("new/"): ...  # one record per picture
run.predict(content_of_a_jpeg).label    # one picture in memory, at once
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, overload

from foldertune.cache import bound_bytes
from foldertune.errors import DataError, FoldertuneError, InterruptedRunError, SettingsError
from foldertune.planning import refuse_contradictions
from foldertune.records import ClassScore, EpochRecord, Evaluation, Interval, Plan, Prediction, finish
from foldertune.run import SCHEMA, RunFolder, StopRequest, environment, read_json, write_json
from foldertune.settings import TrainSettings, Wish, check_settings, read_settings
from foldertune.team import join, num_restarts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from foldertune.evaluation.choice import Choice
    from foldertune.journey import Journey
    from foldertune.models.catalog import ModelFacts

AnyPath = str | Path


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder, with the verbs that work on it. `foldertune.load(path)` opens one."""

    path: Path

    @property
    def folder(self) -> RunFolder:
        """Where each file of the run lies."""
        return RunFolder(self.path)

    @property
    def plan(self) -> Plan:
        """Every setting of the run with its value and reason."""
        return self.folder.read_plan()

    @property
    def history(self) -> list[EpochRecord]:
        """One record per epoch of fine-tuning; empty where only a head was fitted."""
        return self.folder.read_history()

    @property
    def kept(self) -> str:
        """Which model was kept: "baseline" or "fine-tuned". Raises DataError where the run is not finished."""
        _refuse_unfinished(self.folder, "so no model was kept")
        return str(read_json(self.folder.metrics)["kept"])

    def evaluate(self, folder: AnyPath | None = None) -> Evaluation:
        """`foldertune.evaluate` of this run."""
        return evaluate(self, folder)

    @overload
    def predict(
        self, picture: bytes | NDArray[np.uint8], /, *, top_k: int = ..., engine: str = ..., precision: str = ...
    ) -> Prediction: ...
    @overload
    def predict(
        self, /, *paths: AnyPath, top_k: int = ..., engine: str = ..., precision: str = ...
    ) -> Iterator[Prediction]: ...
    def predict(self, /, *pictures: Any, **options: Any) -> Prediction | Iterator[Prediction]:
        """`foldertune.predict` with this run's model."""
        answered: Prediction | Iterator[Prediction] = predict(self, *pictures, **options)
        return answered

    def speed(self, *, every: bool = False) -> Choice:
        """`foldertune.speed` of this run's model."""
        return speed(self, every=every)


def plan(folder: AnyPath, *, settings: AnyPath | None = None, **given: Unpack[TrainSettings]) -> Plan:
    """Every setting of a training with its value and reason, and what it will take here. Trains and writes nothing.

    settings: a .json or .toml file of settings, or an earlier plan.json; keywords go before it.
    """
    return finish(planning(folder, settings=settings, **given))


def planning(folder: AnyPath, *, settings: AnyPath | None = None, **given: Unpack[TrainSettings]) -> Journey[Plan]:
    """`plan` as a generator of its progress, for whoever shows it."""
    from foldertune.journey import plan_only

    wish = _wish(folder, settings, given)
    _refuse_no_folder(wish.folder, folder)
    return plan_only(wish)


def train(
    folder: AnyPath, *, run: AnyPath | None = None, settings: AnyPath | None = None, **given: Unpack[TrainSettings]
) -> Run:
    """From a folder of pictures to a trained and evaluated model in a run folder.

    run: the run folder to make; by default runs/NAME-TIME below the working directory.
    settings: a .json or .toml file of settings, or an earlier plan.json; keywords go before it.
    Raises the errors of `foldertune.errors`; an interrupted run goes on with `resume`.
    """
    started = start(folder, run=run, settings=settings, **given)
    finish(going(started))
    return started


def resume(run: AnyPath) -> Run:
    """Go on with an interrupted run; one that is finished is returned as it is."""
    opened = load(run)
    finish(going(opened))
    return opened


def start(
    folder: AnyPath, *, run: AnyPath | None = None, settings: AnyPath | None = None, **given: Unpack[TrainSettings]
) -> Run:
    """Check the settings and make the run folder; nothing is read or trained yet. `going` does the rest."""
    wish = _wish(folder, settings, given)
    _refuse_no_folder(wish.folder, folder)
    team, (num_starts, most_starts) = join(), num_restarts()
    if run is None and most_starts:
        raise SettingsError("With --max-restarts a run needs a name, by which it is found again: give --run DIR.")
    place = RunFolder(Path(team.text(str(run or _new_run_path(wish.folder)))))
    if place.path.resolve().is_relative_to(wish.folder.resolve()):
        raise SettingsError(
            f"The run folder {place.path} lies in {folder}, which is never changed. Give another --run."
        )
    if team.is_first and not (
        num_starts and _is_of(place, wish)
    ):  # else torchrun has started us again: the run goes on
        _begin(place, wish)
    team.wait()
    return Run(place.path)


def _begin(place: RunFolder, wish: Wish) -> None:
    place.create()
    facts = {
        "schema": SCHEMA,
        "state": "started",
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": environment(),
    }
    write_json(
        place.run_json, {**facts, "folder": str(wish.folder), "settings": wish.settings, "sources": wish.sources}
    )


def _is_of(place: RunFolder, wish: Wish) -> bool:
    """Whether a run began with this very wish."""
    if not place.run_json.exists():
        return False
    facts = place.open()
    return (facts["folder"], facts["settings"]) == (str(wish.folder), wish.settings)


def going(run: Run, stop: StopRequest | None = None) -> Journey[None]:
    """Go through a run to its end, yielding events and progress. A finished run yields nothing.

    A run that fails before it has a plan leaves no folder: the corrected command begins anew.
    Of several processes that torchrun has started, the first tells of the run; the others train along and yield nothing.
    """
    from foldertune.follower import follow
    from foldertune.journey import journey, tidy

    team, stop = join(), stop or StopRequest()
    finished = run.folder.open().get("state") == "finished"
    if not team.is_first:
        return None if finished else follow(run.folder, stop, team)
    if finished:
        return tidy(run.folder)
    try:
        bound_bytes()  # one that makes no sense is refused now, not when the first pack is made
        yield from journey(run.folder, stop, team)
    except InterruptedRunError:
        raise
    except FoldertuneError:
        run.folder.discard_without_plan()  # nothing half-written stays
        raise


def load(run: AnyPath) -> Run:
    """Open a run folder. Raises MissingError or DataError where it is none."""
    place = RunFolder(Path(run))
    place.open()
    return Run(place.path)


def evaluate(run: Run | AnyPath, folder: AnyPath | None = None) -> Evaluation:
    """How good a run's model is: on its own test pictures (the stored record), or on all pictures of another folder."""
    opened = run if isinstance(run, Run) else load(run)
    if folder is None:
        return _stored_evaluation(opened)
    return finish(evaluating(opened, folder))


def evaluating(run: Run, folder: AnyPath) -> Journey[Evaluation]:
    """`evaluate` on a folder as a generator of its progress."""
    from foldertune.evaluation.folder import evaluate_folder
    from foldertune.evaluation.predict import open_model

    return (yield from evaluate_folder(open_model(run.path), Path(folder)))


@overload
def predict(
    model: Run | AnyPath,
    picture: bytes | NDArray[np.uint8],
    /,
    *,
    top_k: int = ...,
    engine: str = ...,
    precision: str = ...,
) -> Prediction: ...
@overload
def predict(
    model: Run | AnyPath, /, *paths: AnyPath, top_k: int = ..., engine: str = ..., precision: str = ...
) -> Iterator[Prediction]: ...
def predict(
    model: Run | AnyPath, /, *pictures: Any, top_k: int = 1, engine: str = "auto", precision: str = "auto"
) -> Prediction | Iterator[Prediction]:
    """Answers for pictures: for paths one record each, in order; for one picture in memory its record at once.

    model: a run, or a folder with model.safetensors and config.json.   top_k: how many classes each record names.
    pictures: files and folders, which are walked (a bad file has its reason in `error`); or the content of one picture file as
    bytes, or its pixels, (H, W, 3) uint8 RGB. For pictures in memory the model stays open, for the next one.
    engine: openvino, onnxruntime, torch, compiled, or auto, the fastest here that is good enough.   precision: float32, bf16,
    int8 or auto. The first time that auto is used for many pictures, or for one in memory, engines are tried for a minute or two.
    Raises ImageError for bytes that are no picture, and what opening the model raises.
    """
    if not all(isinstance(each, (str, Path)) for each in pictures):
        from foldertune.evaluation.warm import picture_in_memory, warm_model

        _check_top_k(top_k)
        picture = picture_in_memory(pictures)
        return warm_model(_folder_of(model), engine=engine, precision=precision).answer(picture, top_k=top_k)
    return finish(predicting(model, *pictures, top_k=top_k, engine=engine, precision=precision))


def predicting(
    model: Run | AnyPath, *paths: AnyPath, top_k: int = 1, engine: str = "auto", precision: str = "auto"
) -> Journey[Iterator[Prediction]]:
    """`predict` of files as a generator of what is told until the first answer can come."""
    from foldertune.evaluation.predict import WORTH_MEASURING, opening, picture_files

    _check_top_k(top_k)
    files = picture_files(Path(path) for path in paths)
    first = list(islice(files, WORTH_MEASURING))
    if not first:
        raise DataError(
            f"There is no picture in {', '.join(map(str, paths)) or 'nothing'}. Give picture files, or folders with some."
        )
    predictor = yield from opening(_folder_of(model), engine=engine, precision=precision, num_pictures=len(first))
    return predictor.predict(chain(first, files), top_k=top_k)


def speed(run: Run | AnyPath, *, every: bool = False) -> Choice:
    """Try the engines of this machine on a run's model, and remember what was found for `predict`.

    every: also those that are not likely to be the fastest.
    """
    return finish(speeding(run, every=every))


def speeding(run: Run | AnyPath, *, every: bool = False) -> Journey[Choice]:
    """`speed` as a generator of its progress."""
    from foldertune.evaluation.choice import trials_of
    from foldertune.evaluation.saved_model import read_saved_model

    place = RunFolder(_folder_of(run))
    if place.run_json.exists():  # else a model that came without its run
        _refuse_unfinished(place, "and what is less exact than float32 is judged by its answers")
    return trials_of(read_saved_model(place.path), every=every)


def demo(run: AnyPath | None = None) -> Run:
    """The main job on 1,797 handwritten digits that scikit-learn carries; no download.

    run: a new folder for the pictures and the run; by default foldertune-demo-TIME below the working directory.
    """
    return finish(demoing(run))


def demoing(run: AnyPath | None = None, stop: StopRequest | None = None) -> Journey[Run]:
    """`demo` as a generator of its events and progress."""
    from foldertune.digits import SETTINGS, write_digits

    place = Path(run) if run is not None else Path(f"foldertune-demo-{time.strftime('%Y%m%d-%H%M%S')}")
    yield from write_digits(place)
    started = start(place / "digits", run=place / "run", **SETTINGS)
    yield from going(started, stop)
    return started


def _folder_of(model: Run | AnyPath) -> Path:
    return model.path if isinstance(model, Run) else Path(model)


def _check_top_k(top_k: int) -> None:
    if top_k < 1:
        raise SettingsError(f"Top k is {top_k}. Accepted: 1 and more.")


def list_models() -> tuple[ModelFacts, ...]:
    """The catalogue: every network with its facts, its weights and when to take it."""
    from foldertune.models.catalog import list_models as listed

    return listed()


def _wish(folder: AnyPath, settings: AnyPath | None, given: Any) -> Wish:
    from_file = read_settings(Path(settings)) if settings is not None else {}
    typed = check_settings(given)
    merged = check_settings({**from_file, **typed})
    for name in ("device", "tune"):
        if merged.get(name) == "auto":
            del merged[name]  # type: ignore[misc]  # the plan decides, and says why
    refuse_contradictions(merged)
    if (
        merged.get("weights", "").endswith(".safetensors")
        or (Path(merged.get("weights", "")) / "model.safetensors").exists()
    ):
        # A run may be resumed from another folder.
        merged["weights"] = str(Path(merged["weights"]).expanduser().absolute())
    sources = {name: "user" if name in typed else "file" for name in merged}
    return Wish(Path(folder).absolute(), merged, sources)


def _new_run_path(folder: Path) -> Path:
    name = re.sub(r"[^\w.-]+", "-", folder.name).strip("-.") or "pictures"
    return Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def _refuse_no_folder(folder: Path, given: AnyPath) -> None:
    if not folder.is_dir():
        raise DataError(f"There is no folder {given}. Give a folder with one subfolder of pictures per class.")


def _refuse_unfinished(run: RunFolder, consequence: str) -> None:
    if run.open().get("state") != "finished":
        raise DataError(
            f"The run {run.path} is not finished, {consequence}. Go on with `foldertune train --resume {run.path}`."
        )


def _stored_evaluation(run: Run) -> Evaluation:
    _refuse_unfinished(run.folder, "so its test pictures were not measured")
    facts = read_json(run.folder.metrics)
    try:
        stored = facts["evaluations"][facts["kept"]]["test"]
        return Evaluation(
            **{
                **stored,
                "accuracy": Interval(**stored["accuracy"]),
                "per_class": tuple(ClassScore(**row) for row in stored["per_class"]),
                "confusion": tuple(tuple(row) for row in stored["confusion"]),
                "classes": tuple(stored["classes"]),
            }
        )
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{run.folder.metrics} holds no test figures: the run has no test pictures, or is not whole."
        ) from error
