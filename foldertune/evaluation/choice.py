"""Which engine answers for a model on this machine: the fastest of those that were tried and found good enough.

Where none is, PyTorch in float32 on the processor answers: what all others are held against.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Generator, Iterable
from dataclasses import dataclass

from foldertune.engines import ENGINES, EXACTNESS, refuse_impossible
from foldertune.errors import SettingsError
from foldertune.evaluation.judging import measure
from foldertune.evaluation.saved_model import SavedModel
from foldertune.evaluation.trials import Spec, Trial, read_trials
from foldertune.machine import cpu_has_bf16, has_gpu_driver
from foldertune.records import Event, Progress
from foldertune.run import event

LAST_RESORT = Spec("torch", "float32", "cpu")
_WORTH = 1.2  # a less exact engine must be so many times as fast
Choosing = Generator[Progress | Event, None, "Choice"]


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine to use, why, and everything that was tried on this machine so far."""

    engine: str
    precision: str
    device: str
    reason: str
    trials: tuple[Trial, ...] = ()

    @property
    def spec(self) -> Spec:
        return Spec(self.engine, self.precision, self.device)


def choose(saved: SavedModel, *, engine: str = "auto", precision: str = "auto", may_measure: bool = True) -> Choosing:
    """The fastest engine that is good enough, among those that fit what was asked; a lower precision asked for is taken, with a warning.

    What was tried before is remembered, also what is not likely to be the fastest. With may_measure the likely ones that
    are left are tried now, which takes a minute or two; without, float32 answers untried.
    Raises SettingsError for what does not exist or where all that fits is refused, MissingError for what this machine lacks.
    """
    if "auto" not in (engine, precision):
        refuse_impossible(engine, precision, device=device_of(engine))
        return (yield from _as_asked(saved, engine, precision))
    trials = read_trials(saved)
    for specs in (_likely(engine, precision), _last_resort(engine, precision)):
        refused = {trial.spec for trial in trials if trial.refused}
        left = sorted((spec for spec in specs if spec not in refused), key=_inexactness)
        unknown = [spec for spec in left if spec not in {trial.spec for trial in trials}]
        alone = [spec.precision for spec in left] == ["float32"]  # nothing to judge, nothing to compare it with
        if unknown and (alone or not may_measure) and left[0].precision in ("float32", precision):
            why = "the only one that fits" if alone else "not measured here yet: `foldertune speed` does it"
            return Choice(*left[0], why + _refusals(_fitting(trials, engine, precision)), trials)
        if unknown and may_measure:
            trials = yield from measure(saved, unknown)
        if not all(trial.refused for trial in _fitting(trials, engine, precision)):
            break
    fitting = _fitting(trials, engine, precision)
    could_run = [trial for trial in fitting if trial.pictures_per_s]
    if precision not in ("auto", "float32") and could_run and all(trial.refused for trial in fitting):
        fastest = max(could_run, key=lambda trial: trial.pictures_per_s)
        return (yield from _as_asked(saved, fastest.engine, precision))
    return pick(fitting, all_trials=trials)


def trials_of(saved: SavedModel, *, every: bool = False) -> Choosing:
    """Try everything now, whatever is remembered; `every`: also what is not likely to be the fastest."""
    specs = candidates(every=every)
    trials = yield from measure(saved, specs)
    if all(trial.refused for trial in trials if trial.spec in specs):
        yield from measure(saved, _last_resort("auto", "auto"))
    return (yield from choose(saved))


def pick(fitting: list[Trial], *, all_trials: tuple[Trial, ...] = ()) -> Choice:
    """From the most exact on, whatever is faster by enough. Raises SettingsError with the reasons where all are refused."""
    accepted = [trial for trial in fitting if not trial.refused]
    if not accepted:
        reasons = "; ".join(f"{trial.name}: {trial.refused.rstrip('.')}" for trial in fitting)
        raise SettingsError(
            f"No engine that fits may be used ({reasons or 'none was tried'}). Name --engine and --precision to use one "
            "nevertheless."
        )
    accepted.sort(key=lambda trial: (_inexactness(trial.spec), -trial.pictures_per_s))
    best = accepted[0]
    for trial in accepted[1:]:
        if trial.pictures_per_s > _WORTH * best.pictures_per_s:
            best = trial
    return Choice(*best.spec, _reason(best, accepted) + _refusals(fitting), all_trials)


def _reason(best: Trial, accepted: list[Trial]) -> str:
    told = f"{best.pictures_per_s:.0f} pictures a second here"
    if best.agreement is not None and best.num_judged:
        told += f", {best.agreement:.1%} of {best.num_judged:,} answers as in float32"
    others = sorted((trial for trial in accepted if trial is not best), key=lambda trial: -trial.pictures_per_s)
    if others:
        told += f"; {others[0].name} gives {others[0].pictures_per_s:.0f}"
    return told


def _refusals(trials: Iterable[Trial]) -> str:
    names = ", ".join(trial.name for trial in trials if trial.refused)
    return f"; refused: {names}" if names else ""


def in_turn(chosen: Choice, engine: str, precision: str) -> list[Spec]:
    """What was chosen, and what stands in where it cannot be opened: float32 that fits what was asked and is not refused."""
    exact = [Spec(name, "float32", device_of(name)) for name in (chosen.engine, "openvino")]
    stand_ins = [spec for spec in exact if _fits(spec, engine, precision)] + _last_resort(engine, precision)
    refused = {trial.spec for trial in chosen.trials if trial.refused}
    return list(dict.fromkeys([chosen.spec, *(spec for spec in stand_ins if spec not in refused)]))


def _as_asked(saved: SavedModel, engine: str, precision: str) -> Choosing:
    """Both were named. What may cost accuracy is judged once nevertheless, so that a warning can be given."""
    spec = Spec(engine, precision, device_of(engine))
    trials = read_trials(saved)
    if precision == "int8" and spec not in {trial.spec for trial in trials}:
        trials = yield from measure(saved, [spec])
    for trial in trials:
        if trial.spec == spec and trial.refused:
            text = f"{spec.name} was asked for; by itself it would not be taken: {trial.refused.rstrip('.')}."
            yield event("warning", text=text)
    return Choice(*spec, "asked for", trials)


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
    if engine not in ENGINES or "cuda" not in ENGINES[engine].devices or not has_gpu_driver(sys.platform):
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _fits(spec: Spec, engine: str, precision: str) -> bool:
    """Whether it is what was asked for, on a device that is here. What compiles for half a minute must be asked for by name."""
    named = engine == spec.engine or (engine == "auto" and spec.engine != "compiled")
    return named and precision in ("auto", spec.precision) and spec.device in ("cpu", device_of(spec.engine))


def _fitting(trials: Iterable[Trial], engine: str, precision: str) -> list[Trial]:
    return [trial for trial in trials if _fits(trial.spec, engine, precision)]


def _likely(engine: str, precision: str) -> list[Spec]:
    """Of what fits, what may be the fastest, else all; raises what `refuse_impossible` does where nothing fits."""
    for found in (candidates(), candidates(every=True)):
        if fitting := [spec for spec in found if _fits(spec, engine, precision)]:
            return fitting
    name, precision = ("openvino" if engine == "auto" else engine), ("float32" if precision == "auto" else precision)
    refuse_impossible(name, precision, device=device_of(name))
    return [Spec(name, precision, device_of(name))]


def _last_resort(engine: str, precision: str) -> list[Spec]:
    """Tried only where all else is refused."""
    return [LAST_RESORT] if _fits(LAST_RESORT, engine, precision) and ENGINES[LAST_RESORT.engine].installed else []


def _inexactness(spec: Spec) -> int:
    return EXACTNESS.index(spec.precision)
