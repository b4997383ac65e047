"""The verbs, for Python. The command line and the studio call these and nothing below them.

foldertune.look("photos").findings      # what is wrong with the pictures, and what mends it
run = foldertune.train("photos")        # look, split, plan, baseline, fine-tune, evaluate, report
run.evaluate().accuracy                 # with its 95 % interval
foldertune.compare("photos").answer     # which network to take, or that no difference is shown
for answer in run.predict("new/"): ...  # one record per picture
run.predict(content_of_a_jpeg).label    # one picture in memory, at once
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, get_type_hints, overload

from foldertune.answering import evaluate, predict, speed
from foldertune.cache import bound_bytes
from foldertune.comparing import compare
from foldertune.errors import FoldertuneError, InterruptedRunError, SettingsError
from foldertune.explaining import explain
from foldertune.records import EpochRecord, Evaluation, Examination, Explanation, Finding, Plan, Prediction, finish
from foldertune.run import AnyPath, RunFolder, read_json
from foldertune.settings import LookSettings, TrainSettings, Wish, is_beyond_guide
from foldertune.stopping import StopRequest
from foldertune.team import join, num_restarts
from foldertune.wishes import new_path, refuse_inside, refuse_no_folder, wish_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from foldertune.evaluation.choice import Choice
    from foldertune.evaluation.predict import Promised
    from foldertune.examination import Journey
    from foldertune.models.catalog import ModelFacts
    from foldertune.trying import Tried


__all__ = [
    "Run",
    "compare",
    "demo",
    "diagnose",
    "evaluate",
    "explain",
    "list_models",
    "load",
    "look",
    "plan",
    "predict",
    "resume",
    "speed",
    "train",
]


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder, with the verbs that work on it. `foldertune.load(path)` opens one."""

    path: Path

    def __fspath__(self) -> str:
        """Wherever a path of a run is taken, the run itself is too."""
        return str(self.path)

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
        self.folder.refuse_unfinished("so no model was kept")
        return str(read_json(self.folder.metrics)["kept"])

    def evaluate(self, folder: AnyPath | None = None, *, output: AnyPath | None = None) -> Evaluation:
        """`foldertune.evaluate` of this run."""
        return evaluate(self, folder, output=output)

    @overload
    def predict(
        self,
        picture: bytes | NDArray[np.uint8],
        /,
        *,
        top_k: int = ...,
        engine: str = ...,
        precision: str = ...,
        promise: Promised = ...,
    ) -> Prediction: ...
    @overload
    def predict(
        self, /, *paths: AnyPath, top_k: int = ..., engine: str = ..., precision: str = ..., promise: Promised = ...
    ) -> Iterator[Prediction]: ...
    def predict(self, /, *pictures: Any, **options: Any) -> Prediction | Iterator[Prediction]:
        """`foldertune.predict` with this run's model."""
        answered: Prediction | Iterator[Prediction] = predict(self, *pictures, **options)
        return answered

    def diagnose(self) -> tuple[Finding, ...]:
        """`foldertune.diagnose` of this run."""
        return diagnose(self)

    def try_remedies(self, *, max_minutes: float | None = None) -> Tried:
        """What the best remedies of the diagnosis earn on validation, each trained for a short while from where the run began.

        max_minutes: for all of them together; None is five. The run stays as it is.
        """
        return finish(trying(self, max_minutes=max_minutes))

    def mend(self, finding: str, *, run: AnyPath | None = None) -> Run:
        """Train anew on the same folder, with the settings changed as what mends one of this run's findings says.

        finding: its kind.   run: the run folder to make.
        """
        started = start_mended(self, finding, run=run)
        finish(going(started))
        return started

    def explain(
        self, /, *pictures: AnyPath, label: str | None = None, nearest: int = 3, output: AnyPath | None = None
    ) -> tuple[Explanation, ...]:
        """`foldertune.explain` with this run's model."""
        return explain(self, *pictures, label=label, nearest=nearest, output=output)

    def speed(self, *, every: bool = False) -> Choice:
        """`foldertune.speed` of this run's model."""
        return speed(self, every=every)


def look(folder: AnyPath, *, write_patch: AnyPath | None = None, **given: Unpack[LookSettings]) -> Examination:
    """What is in a folder and what is wrong with it, the most important first. Nothing in it is ever changed.

    write_patch: a new .csv file for what would mend it, to be read, edited and given to `patch`.
    Without `weights` those of this machine are taken; where there are none, `left_out` says what was not looked for.
    """
    return finish(looking(folder, write_patch=write_patch, **given))


def looking(
    folder: AnyPath, *, write_patch: AnyPath | None = None, **given: Unpack[LookSettings]
) -> Journey[Examination]:
    """`look` as a generator of its progress."""
    from foldertune.inspection import inspect

    if others := sorted(set(given) - set(get_type_hints(LookSettings))):
        raise SettingsError(
            f"look has no setting '{others[0]}', which is one of training. Accepted: {', '.join(get_type_hints(LookSettings))}."
        )
    wish = wish_of(folder, given)
    refuse_no_folder(wish.folder, folder)
    return inspect(wish, None if write_patch is None else Path(write_patch))


def plan(folder: AnyPath, *, settings: AnyPath | None = None, **given: Unpack[TrainSettings]) -> Plan:
    """Every setting of a training with its value and reason, and what it will take here. Trains and writes nothing.

    settings: a .json or .toml file of settings, or an earlier plan.json; keywords go before it.
    """
    return finish(planning(folder, settings=settings, **given))


def planning(folder: AnyPath, *, settings: AnyPath | None = None, **given: Unpack[TrainSettings]) -> Journey[Plan]:
    """`plan` as a generator of its progress, for whoever shows it."""
    from foldertune.journey import plan_only

    wish = wish_of(folder, given, settings=settings)
    refuse_no_folder(wish.folder, folder)
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
    wish = wish_of(folder, given, settings=settings)
    refuse_no_folder(wish.folder, folder)
    team, (num_starts, most_starts) = join(), num_restarts()
    if run is None and most_starts:
        raise SettingsError("With --max-restarts a run needs a name, by which it is found again: give --run DIR.")
    place = RunFolder(Path(team.text(str(run or new_path(wish.folder, parent="runs")))))
    refuse_inside(place.path, wish.folder, folder)
    if team.is_first and not (
        num_starts and _is_of(place, wish)
    ):  # else torchrun has started us again: the run goes on
        place.begin(str(wish.folder), wish.settings, wish.sources)
    team.wait()
    return Run(place.path)


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


def start_mended(earlier: AnyPath, finding: str, *, run: AnyPath | None = None) -> Run:
    """Make the run folder of a training like an earlier one, with its settings changed as what mends a finding says.

    finding: a kind of the earlier run's findings.   Raises SettingsError where there is none of that kind, or no setting mends it.
    """
    from foldertune.diagnosing import mended_settings

    place = load(earlier).folder
    facts = place.open()
    settings, changes = mended_settings(place, finding)
    if is_beyond_guide(settings):
        settings["beyond_guide"] = True  # what came from a plan is not bound by the guide's ranges
    started = start(facts["folder"], run=run, **settings)
    if join().is_first:
        started.folder.update(origin={"run": str(place.path), "finding": finding, "changes": changes})
    return started


def load(run: AnyPath) -> Run:
    """Open a run folder. Raises MissingError or DataError where it is none."""
    place = RunFolder(Path(run))
    place.open()
    return Run(place.path)


def diagnose(run: AnyPath) -> tuple[Finding, ...]:
    """What was wrong with a run and what mends it, the gravest first; also of one that was interrupted or that diverged.

    Read from the run folder alone; nothing is computed anew. Raises DataError for a run that never came to a plan.
    """
    from foldertune.diagnosing import diagnose_run

    return tuple(cause.finding for cause in diagnose_run(load(run).folder))


def trying(run: AnyPath, *, max_minutes: float | None = None) -> Journey[Tried]:
    """`Run.try_remedies` as a generator of its progress."""
    from foldertune.trying import DEFAULT_MINUTES, try_remedies

    return try_remedies(load(run).folder, max_minutes=DEFAULT_MINUTES if max_minutes is None else max_minutes)


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


def list_models() -> tuple[ModelFacts, ...]:
    """The catalogue: every network with its facts, its weights and when to take it."""
    from foldertune.models.catalog import list_models as listed

    return listed()
