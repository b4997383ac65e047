"""Which network: the verb `compare`. Several on one split, each a run of its own, and a verdict only where it is earned.

foldertune.compare("photos", models=["resnet18", "resnet50"]).answer

A comparison is a folder with one run folder for each training, comparison.json and comparison.html. Interrupted, it goes on when the same
is asked again with the same folder: runs that are finished are not trained a second time.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from foldertune.errors import (
    DataError,
    DivergedError,
    FoldertuneError,
    InterruptedRunError,
    MissingError,
    SettingsError,
)
from foldertune.journey import journey, tidy
from foldertune.planning import DEFAULT_MODEL, DEFAULT_WEIGHTS
from foldertune.records import Comparison, Event, finish, plain, restored
from foldertune.run import SCHEMA, AnyPath, RunFolder, event, read_json, write_json, write_text
from foldertune.settings import CompareSettings
from foldertune.stopping import StopRequest
from foldertune.wishes import new_path, refuse_inside, refuse_no_folder, wish_of

if TYPE_CHECKING:
    from foldertune.examination import Journey

DEFAULT_MODELS = ("resnet18", "resnet50")
MOST_REPEATS = 20
_RESERVED = 0.85  # of a time limit, what a plan fills; see forecast.minutes_allowed
Weights = str | Mapping[str, str]


def compare(
    folder: AnyPath,
    *,
    models: Sequence[str] = DEFAULT_MODELS,
    weights: Weights = DEFAULT_WEIGHTS,
    repeats: int = 1,
    run: AnyPath | None = None,
    **given: Unpack[CompareSettings],
) -> Comparison:
    """Train several networks on the same split with the same budget, and say which to take.

    models: names of the catalogue.   weights: for all of them, or by name; what is not named is "imagenet".
    repeats: trainings of each, with seeds that follow each other, on one split: so that what is left to the chance of training is measured.
    run: the folder of the comparison, new or one to go on with; by default comparisons/NAME-TIME.
    A network whose weights cannot be had is named in `left_out`. Raises MissingError where none of them can be had.
    """
    return finish(comparing(folder, models=models, weights=weights, repeats=repeats, run=run, **given))


def comparing(
    folder: AnyPath,
    *,
    models: Sequence[str] = DEFAULT_MODELS,
    weights: Weights = DEFAULT_WEIGHTS,
    repeats: int = 1,
    run: AnyPath | None = None,
    stop: StopRequest | None = None,
    **given: Unpack[CompareSettings],
) -> Journey[Comparison]:
    """`compare` as a generator of its progress."""
    asked = _asked(folder, models, weights, repeats, given)
    place = Path(run) if run is not None else new_path(asked.folder, parent="comparisons")
    refuse_inside(place, asked.folder, folder)
    contest = Contest(place, asked, stop or StopRequest())
    earlier = contest.open()
    if earlier is not None:
        return earlier
    try:
        return (yield from _contested(contest))
    except InterruptedRunError as error:
        raise InterruptedRunError(
            f"Interrupted; what was done is kept in {place}. The same command with --run {place} goes on.",
            error.exit_code,
        ) from error
    except FoldertuneError:
        contest.discard_empty()  # nothing half-written stays
        raise


@dataclass(frozen=True, slots=True)
class Asked:
    """What is compared. weights: by model.   settings: the same for all, checked."""

    folder: Path
    models: tuple[str, ...]
    weights: Mapping[str, str]
    repeats: int
    settings: CompareSettings

    @property
    def reference(self) -> str:
        """The network that is trained first, and whose time is the budget of the others."""
        return DEFAULT_MODEL if DEFAULT_MODEL in self.models else self.models[0]


@dataclass(frozen=True, slots=True)
class Contest:
    """One comparison: its folder, what is asked, and who may ask to stop."""

    path: Path
    asked: Asked
    stop: StopRequest

    @property
    def document(self) -> Path:
        return self.path / "comparison.json"

    @property
    def page(self) -> Path:
        return self.path / "comparison.html"

    def run_of(self, model: str, repeat: int) -> RunFolder:
        return RunFolder(self.path / (model if repeat == 0 else f"{model}-{repeat + 1}"))

    def open(self) -> Comparison | None:
        """Make the folder, or open it where it is of the very same comparison; what it found if it is finished.

        Raises SettingsError for a folder with anything else in it.
        """
        if self.document.exists():
            return self._reopened()
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise SettingsError(f"The folder {self.path} exists and is not empty. Give another --run.")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(
                f"The folder {self.path} cannot be made: {error.strerror}. Give another --run."
            ) from error
        write_json(self.document, {"schema": SCHEMA, "asked": self.asked})
        return None

    def _reopened(self) -> Comparison | None:
        facts = read_json(self.document)
        if not isinstance(facts, dict) or not isinstance(facts.get("schema"), int):
            raise DataError(f"{self.document} is not the record of a comparison (no schema number).")
        if facts["schema"] > SCHEMA:
            raise DataError(
                f"{self.path} was written by a newer version (schema {facts['schema']}; this one knows {SCHEMA}). Update foldertune."
            )
        if facts.get("asked") != plain(self.asked):
            raise SettingsError(
                f"{self.path} holds a comparison of other models, pictures or settings. Give another --run, or ask for the same again."
            )
        return restored(Comparison, facts["found"]) if "found" in facts else None

    def discard_empty(self) -> None:
        """Remove the folder where no run in it ever got to a plan."""
        runs = [path for path in self.path.iterdir() if path.is_dir()]
        for path in runs:
            with contextlib.suppress(FoldertuneError, OSError):
                RunFolder(path).discard_without_plan()
        if not any(path.is_dir() for path in self.path.iterdir()):
            shutil.rmtree(self.path, ignore_errors=True)


def _asked(folder: AnyPath, models: Sequence[str], weights: Weights, repeats: int, given: Any) -> Asked:
    """Raises SettingsError for names and numbers that make no comparison."""
    from foldertune.models.catalog import model_facts

    if not models:
        raise SettingsError("No model is named. Give --models resnet18,resnet50.")
    for name in models:
        model_facts(name)
    if twice := [name for name in models if list(models).count(name) > 1]:
        raise SettingsError(f"The model {twice[0]} is named twice. Name each once; --repeats trains it several times.")
    if not 1 <= repeats <= MOST_REPEATS:
        raise SettingsError(f"Repeats is {repeats}. Accepted: 1 to {MOST_REPEATS}.")
    by_name = dict.fromkeys(models, weights) if isinstance(weights, str) else dict(weights)
    if strange := [name for name in by_name if name not in models]:
        raise SettingsError(
            f"There are weights for {strange[0]}, which is not compared. Compared: {', '.join(models)}."
        )
    if others := sorted(set(given) - set(CompareSettings.__annotations__)):
        raise SettingsError(
            f"compare has no setting '{others[0]}'. Accepted: {', '.join(CompareSettings.__annotations__)}."
        )
    found = {
        name: wish_of(folder, {**given, "model": name, "weights": by_name.get(name, DEFAULT_WEIGHTS)})
        for name in models
    }
    refuse_no_folder(found[models[0]].folder, folder)
    settings = {name: value for name, value in found[models[0]].settings.items() if name not in ("model", "weights")}
    chosen = {name: wish.settings["weights"] for name, wish in found.items()}
    return Asked(Path(folder).absolute(), tuple(models), chosen, repeats, CompareSettings(**settings))  # type: ignore[typeddict-item]  # its own keys


def _contested(contest: Contest) -> Journey[Comparison]:
    from foldertune.evaluation.comparison_page import render_comparison
    from foldertune.evaluation.standing import stand

    asked = contest.asked
    models, left_out = yield from with_weights(contest)
    trained: dict[str, list[RunFolder]] = {model: [] for model in models}
    first: RunFolder | None = None  # whose split all others take
    minutes = asked.settings.get("max_minutes")
    rounds = [(repeat, model) for repeat in range(asked.repeats) for model in models]
    for number, (repeat, model) in enumerate(rounds, start=1):
        if model not in trained:
            continue
        run = contest.run_of(model, repeat)
        yield event("comparing", model=model, number=number, total=len(rounds), run=str(run.path))
        try:
            yield from _train(contest, run, (model, repeat, minutes), first=first)
        except (MissingError, DivergedError) as error:
            run.discard_without_plan()
            del trained[model]
            left_out.append(f"{model}: {error}")
            yield event("note", text=f"{model} is left out: {error}")
            continue
        trained[model].append(run)
        first, minutes = first or run, minutes or _budget(run)
    if not trained:
        raise MissingError(f"None of the models could be trained. {' '.join(left_out)}")
    found = yield from stand(trained)
    result = replace(found, folder=str(asked.folder), path=str(contest.path), minutes=minutes, left_out=tuple(left_out))
    write_text(contest.page, render_comparison(result))
    write_json(contest.document, {"schema": SCHEMA, "asked": asked, "found": result})
    return result


def with_weights(contest: Contest) -> Journey[tuple[list[str], list[str]]]:
    """The models whose weights are here, the reference first, and why the others are left out."""
    from foldertune.models.weights import refuse_unfit, resolve_weights

    asked = contest.asked
    for_all = len(set(asked.weights.values())) == 1 and len(asked.models) > 1
    models, left_out = list[str](), list[str]()
    for model in sorted(asked.models, key=lambda name: name != asked.reference):
        try:
            with contest.stop.standing_aside():
                refuse_unfit(resolve_weights(asked.weights[model], model), model)
        except (MissingError, SettingsError) as error:
            if isinstance(error, SettingsError) and not for_all:
                raise  # meant for this model and not its: a slip of whoever typed it
            left_out.append(f"{model}: {error}")
            yield event("note", text=f"{model} is left out: {error}")
            continue
        models.append(model)
    if not models:
        raise MissingError(f"None of the models can be compared. {' '.join(left_out)}")
    return models, left_out


def _train(
    contest: Contest, run: RunFolder, wanted: tuple[str, int, float | None], *, first: RunFolder | None
) -> Journey[None]:
    """One run to its end. wanted: its model, which of the repeats it is, and its budget in minutes.   first: whose split it takes; of it
    alone it is told what is wrong with the data.
    """
    model, repeat, minutes = wanted
    if not run.run_json.exists():
        asked = contest.asked
        settings: dict[str, Any] = {**asked.settings, "model": model, "weights": asked.weights[model]}
        settings["seed"] = asked.settings.get("seed", 0) + repeat
        if minutes is not None:
            settings["max_minutes"] = minutes
        run.begin(str(asked.folder), settings, dict.fromkeys(settings, "user"))
    elif run.open().get("state") == "finished":
        return tidy(run)
    if first is not None and not run.dataset_csv.exists():
        facts = first.open()
        run.update(dataset=facts["dataset"], decode_per_s=facts["decode_per_s"])
        shutil.copyfile(first.dataset_csv, run.dataset_csv)
    for told in journey(run, contest.stop):
        if isinstance(told, Event) and told.kind == "looked":
            _refuse_no_test(told, contest.asked.folder)
        if first is None or not isinstance(told, Event) or told.kind not in ("looked", "found"):
            yield told
    return None


def _refuse_no_test(told: Event, folder: Path) -> None:
    """Raise DataError before anything is trained that could not be compared."""
    if not told.facts["num_pictures"].get("test"):
        raise DataError(
            f"{folder} has no test pictures to compare on. Give a test folder, or leave the split to `compare`."
        )


def _budget(run: RunFolder) -> float | None:
    """Minutes that let another network learn for as long as this one did."""
    forecast = run.read_plan().forecast
    return round(max(0.1, forecast.minutes / _RESERVED), 2) if forecast else None
