"""Which engine answers for a model on this machine: each is tried once, judged, and remembered.

An engine in float32 is held against the golden answers. What is less exact is also held against float32 on the run's
validation pictures: it is refused when it surely costs more than half a point of accuracy, or answers otherwise too often.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from foldertune.engines import ENGINES, EXACTNESS, Engine, refuse_impossible
from foldertune.errors import FoldertuneError, SettingsError
from foldertune.evaluation.answers import Answers, calibrated_on, validation_answers
from foldertune.evaluation.golden import TOLERANCE, parity
from foldertune.evaluation.metrics import paired_share_difference
from foldertune.evaluation.saved_model import SavedModel, open_saved
from foldertune.machine import cpu_has_bf16, num_cores, processor_name
from foldertune.records import Event, Interval, Progress
from foldertune.run import event

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_AGREEMENT = 0.98  # of top-1 answers with float32
MOST_LOSS = 0.005  # of accuracy: half a point, which even the better end of the interval must not exceed
_WORTH = 1.2  # a less exact engine must be so many times as fast
_BATCH = 8
_TIMED_S = 0.6
Choosing = Generator[Progress | Event, None, "Choice"]


class Spec(NamedTuple):
    """What can be tried."""

    engine: str
    precision: str
    device: str


@dataclass(frozen=True, slots=True)
class Trial:
    """What was found about one engine. refused: why it is not chosen by itself; empty where it may be.

    pictures_per_s: in batches of 8.   latency_ms: of one picture, without decoding.   difference: of golden logits, over the
    largest.   agreement: share of validation pictures (else golden ones) answered as in float32.
    accuracy_loss: on validation, float32 less this, with its 95 % interval; None where nothing less exact is judged.
    """

    engine: str
    precision: str
    device: str = "cpu"
    pictures_per_s: float = 0.0
    latency_ms: float = 0.0
    difference: float | None = None
    agreement: float | None = None
    num_judged: int = 0
    accuracy_loss: Interval | None = None
    refused: str = ""

    @property
    def name(self) -> str:
        return f"{self.engine} {self.precision}" + (f" on {self.device}" if self.device != "cpu" else "")


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine to use, why, and everything that was tried on this machine so far."""

    engine: str
    precision: str
    device: str
    reason: str
    trials: tuple[Trial, ...] = ()


def choose(saved: SavedModel, *, engine: str = "auto", precision: str = "auto", may_measure: bool = True) -> Choosing:
    """The fastest engine that is good enough, among those that fit what was asked; an engine and a precision asked for are taken.

    What was tried before is remembered; with may_measure the rest is tried now, which takes up to a minute.
    Raises SettingsError for what does not exist, MissingError for what this machine lacks.
    """
    if "auto" not in (engine, precision):
        refuse_impossible(engine, precision, device=device_of(engine))
        return (yield from _as_asked(saved, engine, precision))
    wanted = [spec for spec in candidates() if _fits(spec, engine, precision)] or _asked(engine, precision)
    trials = read_trials(saved)
    missing = [spec for spec in wanted if not any(_is(trial, spec) for trial in trials)]
    if missing and may_measure:
        trials = yield from measure(saved, missing)
        missing = []
    fitting = [trial for spec in wanted for trial in trials if _is(trial, spec)]
    if missing or not fitting:
        return _unmeasured(wanted, trials)
    return pick(fitting, all_trials=trials)


def pick(fitting: list[Trial], *, all_trials: tuple[Trial, ...] = ()) -> Choice:
    """From the most exact on, whatever is faster by enough. Refused ones are taken only where nothing else is left."""
    accepted = [trial for trial in fitting if not trial.refused]
    if not accepted:
        reasons = "; ".join(f"{trial.name}: {trial.refused}" for trial in fitting)
        raise SettingsError(
            f"No engine that fits may be used ({reasons}). Name --engine and --precision to use one nevertheless."
        )
    accepted.sort(key=lambda trial: (EXACTNESS.index(trial.precision), -trial.pictures_per_s))
    best = accepted[0]
    for trial in accepted[1:]:
        if trial.pictures_per_s > _WORTH * best.pictures_per_s:
            best = trial
    return Choice(best.engine, best.precision, best.device, _reason(best, accepted), all_trials)


def _reason(best: Trial, accepted: list[Trial]) -> str:
    told = f"{best.pictures_per_s:.0f} pictures a second here"
    if best.agreement is not None and best.num_judged:
        told += f", {best.agreement:.1%} of {best.num_judged:,} answers as in float32"
    others = sorted((trial for trial in accepted if trial is not best), key=lambda trial: -trial.pictures_per_s)
    if others:
        told += f"; {others[0].name} gives {others[0].pictures_per_s:.0f}"
    return told


def measure(saved: SavedModel, specs: list[Spec]) -> Generator[Progress | Event, None, tuple[Trial, ...]]:
    """Try each (engine, precision, device) now and remember what was found, beside what was known."""
    answers = validation_answers(saved)
    for number, (engine, precision, device) in enumerate(specs):
        yield Progress("engines", number, len(specs))
        if precision == "int8" and not saved.shelf.find(f"int8-{engine}"):
            yield event("note", text=f"Preparing int8 for {engine}, once: calibrated on training pictures")
        trial = Trial(engine, precision, device)
        try:
            trial = _tried(trial, saved, answers)
        except Exception as error:  # one that cannot run here is told of and left out, whatever it raises
            trial = replace(trial, refused=" ".join(str(error).split())[:300] or type(error).__name__)
        _remember(saved, trial)
    yield Progress("engines", len(specs), len(specs))
    return read_trials(saved)


def _tried(trial: Trial, saved: SavedModel, answers: Answers | None) -> Trial:
    calibration = calibrated_on(saved)
    engine = open_saved(saved, trial.engine, trial.precision, device=trial.device, calibration=calibration)
    trial = _judged(trial, engine, saved, answers)
    side = saved.preprocess.image_size
    blank = np.zeros((_BATCH, side, side, 3), np.uint8)
    pictures = saved.golden.pictures[:_BATCH] if saved.golden is not None else blank
    per_s = len(pictures) / _median_s(lambda: engine.run(pictures))
    return replace(trial, pictures_per_s=per_s, latency_ms=1000 * _median_s(lambda: engine.run(pictures[:1])))


def _judged(trial: Trial, engine: Engine, saved: SavedModel, answers: Answers | None) -> Trial:
    """The trial with how exact the engine is, and with the reason where that is not enough."""
    if saved.golden is not None:
        found = parity(engine, saved.golden)
        trial = replace(
            trial, difference=found.difference, agreement=found.agreement, num_judged=len(saved.golden.logits)
        )
        if not found.difference <= TOLERANCE[trial.precision]:
            return replace(trial, refused=f"golden logits differ by {found.difference:.2g} of the largest")
    if trial.precision == "float32":
        return trial
    if answers is None:
        if saved.golden is None:
            return replace(
                trial, refused="there is nothing to judge it by: the run has no golden answers and no pictures"
            )
        if trial.precision == "int8" or trial.agreement != 1.0:
            return replace(trial, refused="the run's validation pictures are not here to judge it by")
        return trial
    found_answers = np.concatenate([engine.run(batch).argmax(1) for batch in answers.batches(_BATCH)])
    return _compared(trial, found_answers, answers)


def _compared(trial: Trial, found: NDArray[np.int64], answers: Answers) -> Trial:
    agreement = float((found == answers.float32).mean())
    right, was_right = found == answers.labels, answers.float32 == answers.labels
    loss = paired_share_difference(int((was_right & ~right).sum()), int((right & ~was_right).sum()), len(found))
    refused = ""
    if agreement < LEAST_AGREEMENT:
        refused = f"{agreement:.1%} of {len(found):,} validation pictures are answered as in float32, {LEAST_AGREEMENT:.0%} is the least"
    elif loss.low > MOST_LOSS:
        refused = (
            f"it costs at least {100 * loss.low:.1f} points of accuracy on validation, {100 * MOST_LOSS:g} is the most"
        )
    return replace(trial, agreement=agreement, num_judged=len(found), accuracy_loss=loss, refused=refused)


def _as_asked(saved: SavedModel, engine: str, precision: str) -> Choosing:
    """Both were named. What may cost accuracy is judged once nevertheless, so that a warning can be given."""
    spec = Spec(engine, precision, device_of(engine))
    trials = read_trials(saved)
    if precision == "int8" and not any(_is(trial, spec) for trial in trials):
        trials = yield from measure(saved, [spec])
    trial = next((trial for trial in trials if _is(trial, spec)), None)
    if trial and trial.refused and trial.agreement is not None:
        yield event("warning", text=f"{trial.name} is used because it was asked for: {trial.refused}.")
    return Choice(engine, precision, spec.device, "asked for", trials)


def _unmeasured(wanted: list[Spec], trials: tuple[Trial, ...]) -> Choice:
    """The most exact of what fits, while nobody has measured."""
    engine, precision, device = min(wanted, key=lambda spec: EXACTNESS.index(spec.precision))
    return Choice(engine, precision, device, "not measured here yet: `foldertune speed` does it", trials)


# ------------------------------------------------------------------------------------------------------------- what there is


def candidates(*, every: bool = False) -> list[Spec]:
    """(engine, precision, device) that this machine can run and that may be the fastest; `every`: all that it can run.

    On x86 processors nothing was faster than OpenVINO wherever it was measured (docs/log.md), and trying the others
    takes a minute.
    """
    gpu = device_of("torch")
    found = []
    for facts in ENGINES.values():
        device = gpu if "cuda" in facts.devices else "cpu"
        for precision in facts.precisions:
            lacks = precision == "bf16" and device == "cpu" and not cpu_has_bf16()
            useless = precision == "fp16" and device == "cpu"
            if facts.installed and not lacks and not useless:
                found.append(Spec(facts.name, precision, device))
    if every:
        return found
    likely = [spec for spec in found if spec.device != "cpu" and spec.engine == "torch"] + [
        spec for spec in found if spec.engine == "openvino"
    ]
    if platform.machine().lower() not in ("x86_64", "amd64"):
        likely += [spec for spec in found if spec.engine == "onnxruntime"]
    return likely or [spec for spec in found if spec.engine == "torch"]


def device_of(engine: str) -> str:
    """Where an engine runs here: PyTorch on an accelerator where there is one. torch is asked only where a driver is."""
    if engine not in ENGINES or "cuda" not in ENGINES[engine].devices or not Path("/proc/driver/nvidia").exists():
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _fits(spec: Spec, engine: str, precision: str) -> bool:
    return engine in ("auto", spec.engine) and precision in ("auto", spec.precision)


def _asked(engine: str, precision: str) -> list[Spec]:
    """What fits beyond the likely ones; raises where nothing does."""
    found = [spec for spec in candidates(every=True) if _fits(spec, engine, precision) and spec.engine != "compiled"]
    if found:
        return found
    name = "openvino" if engine == "auto" else engine
    refuse_impossible(name, "float32" if precision == "auto" else precision, device=device_of(name))
    return [Spec(name, "float32" if precision == "auto" else precision, device_of(name))]


def _is(trial: Trial, spec: Spec) -> bool:
    return (trial.engine, trial.precision, trial.device) == spec


# ------------------------------------------------------------------------------------------------------------- memory


def read_trials(saved: SavedModel) -> tuple[Trial, ...]:
    """What was tried on this machine with these versions; nothing where either has changed, or where it cannot be read."""
    stored = saved.shelf.read_trials()
    if stored.get("machine") != _machine():
        return ()
    try:
        return tuple(_restored(row) for row in stored["trials"])
    except (KeyError, TypeError):
        return ()


def _restored(row: Mapping[str, Any]) -> Trial:
    loss = row["accuracy_loss"]
    return Trial(**{**row, "accuracy_loss": Interval(**loss) if loss else None})


def _remember(saved: SavedModel, trial: Trial) -> None:
    others = [
        known for known in read_trials(saved) if not _is(known, Spec(trial.engine, trial.precision, trial.device))
    ]
    saved.shelf.write_trials({"machine": _machine(), "trials": [asdict(each) for each in (*others, trial)]})


def _machine() -> dict[str, Any]:
    """Speeds and answers hold for this."""
    return {"processor": processor_name(), "cores": num_cores(), **dict(_versions())}


def _versions() -> Iterator[tuple[str, str]]:
    for name in ("foldertune", "openvino", "onnxruntime", "torch", "nncf"):
        try:
            yield name, version(name)
        except PackageNotFoundError:
            yield name, ""


def _median_s(work: Callable[[], object]) -> float:
    """Of some runs after one that warms up."""
    work()
    times: list[float] = []
    while sum(times) < _TIMED_S or len(times) < 3:
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def trials_of(saved: SavedModel, *, every: bool = False) -> Choosing:
    """Try everything now, whatever is remembered; `every`: also what is not likely to be the fastest."""
    trials = yield from measure(saved, candidates(every=every))
    here = [trial for trial in trials if trial.pictures_per_s]
    try:
        return pick(here, all_trials=trials)
    except FoldertuneError:
        return _unmeasured(candidates(), trials)
