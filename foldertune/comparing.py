"""Which network: the verb `compare`. Several on one split, each a run of its own, and a verdict only where it is earned.

foldertune.compare("photos", models=["resnet18", "resnet50"]).answer

A comparison is a folder with one run folder for each training, comparison.json and comparison.html. Interrupted, it goes on when the same
is asked again with the same folder: runs that are finished are not trained a second time.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
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
    WorkFailedError,
)
from foldertune.journey import journey, tidy
from foldertune.machine import give_back_memory
from foldertune.planning import DEFAULT_MODEL, DEFAULT_WEIGHTS
from foldertune.records import Comparison, Event, finish, plain, restored
from foldertune.run import SCHEMA, AnyPath, RunFolder, event, read_json, write_bytes, write_json, write_text
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
    place = (Path(run) if run is not None else new_path(asked.folder, parent="comparisons")).absolute()
    refuse_inside(place, asked.folder, folder)
    contest = Contest(place, asked, stop or StopRequest())
    with contest.opened() as earlier:
        if earlier is not None:
            return earlier
        try:
            return (yield from _contested(contest))
        except InterruptedRunError as error:
            raise InterruptedRunError(
                f"Interrupted; what was done is kept in {place}. The same command with --run {shlex.quote(str(place))} goes on.",
                error.exit_code,
            ) from error
        except FoldertuneError:
            contest.discard_empty()  # nothing half-written stays
            raise


@dataclass(frozen=True, slots=True)
class Asked:
    """What is compared. weights: by model; for_all: whether they were given once for all.   settings: the same for all, checked."""

    folder: Path
    models: tuple[str, ...]
    weights: Mapping[str, str]
    for_all: bool
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

    @contextlib.contextmanager
    def opened(self) -> Iterator[Comparison | None]:
        """Make the folder, or open it where it is of the very same comparison; what was found if it is finished.

        Nobody else works on it while inside. Raises SettingsError for a folder with anything else in it, WorkFailedError where another
        process is at it.
        """
        if not self.document.exists():
            self._make()
        try:
            with RunFolder(self.path).locked():
                yield self._earlier()
        finally:
            if not self.document.exists():  # it was left as nothing
                with contextlib.suppress(OSError):
                    (self.path / ".lock").unlink(missing_ok=True)
                    self.path.rmdir()

    def _make(self) -> None:
        if self.path.exists() and (not self.path.is_dir() or any(path.name != ".lock" for path in self.path.iterdir())):
            raise SettingsError(f"The folder {self.path} exists and is not empty. Give another --run.")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(
                f"The folder {self.path} cannot be made: {error.strerror}. Give another --run."
            ) from error
        self.note()

    def note(self, **facts: Any) -> None:
        """Write comparison.json: what is asked, and what else there is to be known of it."""
        write_json(self.document, {"schema": SCHEMA, "asked": self.asked, **facts})

    def noted(self) -> Mapping[str, Any]:
        """comparison.json. Raises DataError where it cannot be read, SettingsError where it is of something else."""
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
        return facts

    def _earlier(self) -> Comparison | None:
        """What was found, with its runs where they are now."""
        facts = self.noted()
        if "found" not in facts:
            return None
        try:
            found = restored(Comparison, facts["found"])
            here = tuple(
                replace(each, runs=tuple(str(self.path / Path(run).name) for run in each.runs))
                for each in found.contestants
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{self.document} is not whole ({error}). Delete it, and ask for the same again."
            ) from error
        return replace(found, path=str(self.path), contestants=here)

    def split_of(self) -> RunFolder | None:
        """A run whose table of pictures the others take: the one that began first."""
        runs = [RunFolder(path) for path in self.path.iterdir() if (path / "plan.json").exists()]
        return min(runs, key=lambda run: run.open().get("created", ""), default=None)

    def discard_empty(self) -> None:
        """Remove what was made where no run ever got to a plan, and nothing else."""
        for path in [path for path in self.path.iterdir() if path.is_dir()]:
            with contextlib.suppress(FoldertuneError, OSError):
                RunFolder(path).discard_without_plan()
        if not any(path.is_dir() for path in self.path.iterdir()):
            self.document.unlink(missing_ok=True)


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
    for_all = isinstance(weights, str)
    by_name: dict[str, str] = dict.fromkeys(models, weights) if isinstance(weights, str) else dict(weights)
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
    return Asked(Path(folder).absolute(), tuple(models), chosen, for_all, repeats, CompareSettings(**settings))  # type: ignore[typeddict-item]  # its own keys


def _contested(contest: Contest) -> Journey[Comparison]:
    from foldertune.evaluation.comparison_page import render_comparison
    from foldertune.evaluation.standing import stand

    asked = contest.asked
    models, left_out = yield from with_weights(contest)
    trained: dict[str, list[RunFolder]] = {model: [] for model in models}
    rounds = [(repeat, model) for repeat in range(asked.repeats) for model in models]
    for number, (repeat, model) in enumerate(rounds, start=1):
        if model not in trained:
            continue
        run = contest.run_of(model, repeat)
        yield event("comparing", model=model, number=number, total=len(rounds), run=str(run.path))
        try:
            yield from _train(contest, run, model, repeat)
        except (MissingError, DivergedError) as error:
            run.discard_without_plan()
            del trained[model]
            yield _left_out(left_out, model, error)
            continue
        trained[model].append(run)
    if not trained:
        raise MissingError(f"None of the models could be trained. {' '.join(left_out)}")
    found = yield from _stoppable(stand(trained), contest.stop)
    minutes = asked.settings.get("max_minutes") or contest.noted().get("minutes")
    result = replace(found, folder=str(asked.folder), path=str(contest.path), minutes=minutes, left_out=tuple(left_out))
    write_text(contest.page, render_comparison(result))
    contest.note(found=result)
    return result


def with_weights(contest: Contest) -> Journey[tuple[list[str], list[str]]]:
    """The models whose weights are here, the reference first, and why the others are left out.

    Raises SettingsError for weights that were named for a network and are not of it, MissingError where none is left.
    """
    from foldertune.models.weights import refuse_unfit, resolve_weights

    asked = contest.asked
    models, left_out = list[str](), list[str]()
    for model in sorted(asked.models, key=lambda name: name != asked.reference):
        try:
            with contest.stop.standing_aside():
                refuse_unfit(resolve_weights(asked.weights[model], model), model)
        except (MissingError, DataError, WorkFailedError, SettingsError) as error:
            if isinstance(error, SettingsError) and not asked.for_all:
                raise  # meant for this model and not its: a slip of whoever typed it
            yield _left_out(left_out, model, error)
            continue
        models.append(model)
    if not models:
        raise MissingError(f"None of the models can be compared. {' '.join(left_out)}")
    return models, left_out


def _left_out(told: list[str], model: str, error: FoldertuneError) -> Event:
    told.append(f"{model}: {error}")
    return event("note", text=f"{model} is left out: {error}")


def _train(contest: Contest, run: RunFolder, model: str, repeat: int) -> Journey[None]:
    """One run to its end, on the split of the one that began first; of that one alone it is told what is wrong with the data."""
    first = contest.split_of()
    if not run.run_json.exists():
        settings, sources = _settings_of(contest, model, repeat)
        run.begin(str(contest.asked.folder), settings, sources)
    elif run.open().get("state") == "finished":
        return tidy(run)
    is_first = first is None or first.path == run.path
    if first is not None and not is_first and not run.dataset_csv.exists():
        facts = first.open()
        run.update(dataset=facts["dataset"], decode_per_s=facts["decode_per_s"])
        write_bytes(run.dataset_csv, first.dataset_csv.read_bytes())
    give_back_memory()  # of the network before: what is free decides about the next one
    for told in journey(run, contest.stop):
        if isinstance(told, Event) and told.kind == "looked":
            _refuse_no_test(told, contest.asked.folder)
        if is_first or not isinstance(told, Event) or told.kind not in ("looked", "found"):
            yield told
    if "minutes" not in contest.noted():
        contest.note(yardstick=model, minutes=_budget(run))
    return None


def _settings_of(contest: Contest, model: str, repeat: int) -> tuple[dict[str, Any], dict[str, str]]:
    """The settings of a run, and who gave each. The network whose time is the budget of the others has no limit but the user's."""
    asked, noted = contest.asked, contest.noted()
    given = {**asked.settings, "model": model, "weights": asked.weights[model]}
    settings: dict[str, Any] = {**given, "seed": asked.settings.get("seed", 0) + repeat}
    if "max_minutes" not in given and noted.get("minutes") and model != noted.get("yardstick"):
        settings["max_minutes"] = noted["minutes"]
    return settings, {name: "user" if given.get(name) == settings[name] else "compare" for name in settings}


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


def _stoppable(work: Journey[Comparison], stop: StopRequest) -> Journey[Comparison]:
    """Some work that looks at no request to stop, ended between its steps."""
    while True:
        try:
            told = next(work)
        except StopIteration as ended:
            result: Comparison = ended.value
            return result
        if stop.signal:
            raise InterruptedRunError("Interrupted.", 128 + stop.signal)
        yield told
