"""What a user may set, once: the same keys are flags (`--batch-size`), keywords (`batch_size=`) and lines of a settings file.

An absent key means that the plan decides and says why. Ranges of the guide (SPEC 2) bind what a user types; `beyond_guide` lifts them.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args, get_type_hints

from foldertune.errors import SettingsError

Preset = Literal["auto", "documented", "guide-defaults", "products", "xray", "plants"]
AugmentationStrength = Literal["none", "light", "standard", "heavy"]
Orientation = Literal["upright", "any"]
Fit = Literal["crop", "squash", "letterbox"]
Precision = Literal["float32", "bf16", "fp16"]
Device = Literal["auto", "cpu", "cuda", "mps"]
Tune = Literal["auto", "all", "upper", "head"]
Imbalance = Literal["none", "weights", "sampling"]
OptimizerName = Literal["adamw", "sgd"]


class NetworkSettings(TypedDict, total=False):
    """Which network, and what it begins from."""

    model: str
    """Network: resnet18, resnet34, resnet50, resnet101, resnet152, vit_base or vit_large (see `foldertune models`)."""
    weights: str
    """Pretrained weights: imagenet, a tag of `foldertune models`, a path to a .safetensors file, or random."""


class DataSettings(TypedDict, total=False):
    """Which pictures, how they are split and how a network sees them."""

    patch: str
    """A patch that `foldertune look --write-patch` wrote: pictures to leave out, to relabel, to keep together."""
    group_by: str
    """A regular expression on the paths; pictures for which it finds the same, such as a patient, stay in one split."""
    image_size: int
    """Side of the network's square input in pixels, 32 to 512."""
    fit: Fit
    """How a picture meets the square: crop its centre, squash it, or letterbox it."""
    precision: Precision
    """Arithmetic of training: float32, bf16 or fp16."""
    device: Device
    """Where to train: auto, cpu, cuda or mps."""
    seed: int
    """Seed of the split, the order and the augmentation, from 0."""
    workers: int
    """Threads that decode pictures, from 0."""


class CourseSettings(TypedDict, total=False):
    """How a network learns."""

    preset: Preset
    """Where values come from: auto (measured), documented (the guide's table), guide-defaults, products, xray, plants."""
    batch_size: int
    """Pictures per optimizer step, 2 to 64."""
    epochs: int
    """Passes over the training pictures, 1 to 30."""
    learning_rate: float
    """Peak learning rate, 1e-5 to 5e-4."""
    eval_steps: int
    """Epochs between validations, from 1."""
    augmentation: AugmentationStrength
    """How much each training picture varies: none, light, standard or heavy."""
    orientation: Orientation
    """Whether pictures have an upright side, or may be turned by quarter turns while training: upright or any."""
    flip: bool
    """Whether pictures may be mirrored, left to right, while training."""
    hue: bool
    """Whether the hue of pictures may vary while training."""
    max_minutes: float
    """Time limit of the whole run, in minutes."""
    beyond_guide: bool
    """Lift the guide's ranges of batch size, epochs and learning rate."""
    tune: Tune
    """Which layers learn: all, upper (the lower ones run once and are cached), head, or auto, which decides by the device and the time."""
    optimizer: OptimizerName
    """adamw or sgd."""
    imbalance: Imbalance
    """What to do about uneven classes: none, weights in the loss, or balanced sampling."""
    label_smoothing: float
    """Share of the label's probability spread over all classes, 0 to 0.5."""
    ema: bool
    """Keep an exponential moving average of the weights and validate that."""
    accumulate: int
    """Batches per optimizer step (gradient accumulation), from 1."""
    early_stop: int
    """Validations without improvement after which training ends; 0 never ends it early."""
    save_minutes: float
    """Longest time between two saved states, in minutes; what an interruption can lose."""


class LookSettings(NetworkSettings, DataSettings, total=False):
    """The settings of `look`, which `plan` and `train` share; every key is optional."""


class CompareSettings(DataSettings, CourseSettings, total=False):
    """The settings of `compare`, the same for every network; every key is optional."""


class TrainSettings(LookSettings, CourseSettings, total=False):
    """The settings of `plan` and `train`; every key is optional."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked: the folder, the settings, and for each setting whether it was typed or read from a file."""

    folder: Path
    settings: TrainSettings
    sources: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Range:
    """Accepted values of a number, both ends included. `guide` ranges can be lifted with beyond_guide."""

    low: float
    high: float
    guide: bool = False

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


RANGES: Mapping[str, Range] = {
    "batch_size": Range(2, 64, guide=True),
    "epochs": Range(1, 30, guide=True),
    "learning_rate": Range(1e-5, 5e-4, guide=True),
    "eval_steps": Range(1, math.inf),
    "image_size": Range(32, 512),
    "seed": Range(0, 2**32 - 1),
    "max_minutes": Range(0.1, math.inf),
    "label_smoothing": Range(0, 0.5),
    "accumulate": Range(1, 1024),
    "early_stop": Range(0, math.inf),
    "workers": Range(0, 256),
    "save_minutes": Range(0, math.inf),
}
# What remains impossible beyond the guide: no empty batch, no empty training, no rate that only diverges.
BEYOND_GUIDE: Mapping[str, Range] = {
    "batch_size": Range(1, 65536),
    "epochs": Range(1, 10_000),
    "learning_rate": Range(1e-8, 10.0),
}

_HINTS = get_type_hints(TrainSettings)


def check_settings(given: Mapping[str, Any]) -> TrainSettings:
    """The settings with their types checked and their ranges kept; None values count as absent.

    Raises SettingsError with the accepted values, the range, and what lifts it.
    """
    checked: dict[str, Any] = {}
    for name, value in given.items():
        if name not in _HINTS:
            raise SettingsError(f"There is no setting '{name}'. Accepted: {', '.join(_HINTS)}.")
        if value is not None:
            checked[name] = _typed(name, value)
    beyond = bool(checked.get("beyond_guide", False))
    for name, value in checked.items():
        if name in RANGES:
            _check_range(name, value, beyond=beyond)
    return checked  # type: ignore[return-value]  # each key was checked against the TypedDict's own hints


def is_beyond_guide(settings: Mapping[str, Any]) -> bool:
    """Whether a value lies outside of the guide's ranges, so that it takes beyond_guide."""
    return any(RANGES[name].guide and value not in RANGES[name] for name, value in settings.items() if name in RANGES)


def read_settings(path: Path) -> TrainSettings:
    """Settings from a .json or .toml file: a flat table of settings, or an earlier plan.json."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"The settings file {path} cannot be read: {error}.") from error
    try:
        content = tomllib.loads(text) if path.suffix.lower() == ".toml" else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"The settings file {path} is not valid {path.suffix or 'JSON'}: {error}.") from error
    if isinstance(content, dict) and isinstance(content.get("settings"), list):
        content = content["settings"]  # what `plan --json` prints
    if isinstance(content, list):
        return _from_plan(path, content)
    if not isinstance(content, dict):
        raise SettingsError(f"The settings file {path} holds neither a table of settings nor a plan.")
    return check_settings(content)


def _from_plan(path: Path, rows: list[Any]) -> TrainSettings:
    """A plan was within its own rules, so the guide's ranges do not bind it a second time."""
    try:
        values = {row["setting"]: row["value"] for row in rows}
    except (TypeError, KeyError) as error:
        raise SettingsError(f"{path} is not a plan: each row needs 'setting' and 'value'.") from error
    known = {name: value for name, value in values.items() if name in _HINTS}
    return check_settings({**known, "beyond_guide": True})


def _typed(name: str, value: Any) -> Any:
    hint = _HINTS[name]
    choices = get_args(hint)
    if choices:
        if value not in choices:
            raise SettingsError(f"{_shown(name)} is {value!r}. Accepted: {', '.join(choices)}.")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 2**1000 else math.inf
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        kind = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[hint]
        raise SettingsError(f"{_shown(name)} is {value!r}. Accepted: {kind}.")
    if hint is float and not math.isfinite(value):
        raise SettingsError(f"{_shown(name)} is {value}. Accepted: a finite number.")
    return value


def _check_range(name: str, value: float, *, beyond: bool) -> None:
    allowed = RANGES[name]
    if value in allowed:
        return
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    if not allowed.guide:
        raise SettingsError(f"{_shown(name)} is {shown}. Accepted: {_span(allowed)}.")
    if not beyond:
        raise SettingsError(
            f"{_shown(name)} is {shown}. The guide's range is {_span(allowed)}; pass --beyond-guide to go outside it."
        )
    if value not in BEYOND_GUIDE[name]:
        raise SettingsError(f"{_shown(name)} is {shown}. Accepted even beyond the guide: {_span(BEYOND_GUIDE[name])}.")


def _span(allowed: Range) -> str:
    return f"{allowed.low:.10g} and more" if math.isinf(allowed.high) else f"{allowed.low:.10g} to {allowed.high:.10g}"


def _shown(name: str) -> str:
    return name.replace("_", " ").capitalize()
