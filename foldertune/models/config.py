"""config.json beside model.safetensors, in timm's layout: which network, which classes, what preprocessing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foldertune.errors import SettingsError
from foldertune.models.architecture import SHAPES
from foldertune.models.catalog import model_facts
from foldertune.preprocess import Preprocess

MAX_BYTES = 10_000_000  # 100,000 long label names fit
OURS = "foldertune"  # the key of what timm does not know, and passes over
CROP_MODES = {"crop": "center", "squash": "squash", "letterbox": "border"}  # our `fit` in timm's words


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What a config.json says. preprocess None: it says nothing; label_names empty: the classes have no names.

    ours: what Foldertune wrote beside timm's keys, unchecked.
    """

    model: str
    num_classes: int
    label_names: tuple[str, ...]
    preprocess: Preprocess | None
    ours: Mapping[str, Any] = field(default_factory=dict)


def config_for(model: str, *, classes: Sequence[str], preprocess: Preprocess) -> dict[str, Any]:
    """The content of config.json for a saved network, such that timm opens the folder too."""
    facts = model_facts(model)
    side = preprocess.image_size
    resized = facts.family == "vit" and side != facts.input_px  # a ViT must be told; a ResNet takes any size
    return {
        "architecture": facts.timm_name,
        "num_classes": len(classes),
        "num_features": facts.feature_size,
        "label_names": list(classes),
        **({"model_args": {"img_size": side}} if resized else {}),
        "pretrained_cfg": {
            "input_size": [3, side, side],
            "fixed_input_size": facts.family == "vit",
            "interpolation": preprocess.interpolation,
            "crop_pct": preprocess.crop_fraction if preprocess.fit == "crop" else 1.0,
            "crop_mode": CROP_MODES[preprocess.fit],
            "mean": list(preprocess.mean),
            "std": list(preprocess.std),
            "num_classes": len(classes),
            "first_conv": "conv1" if facts.family == "resnet" else "patch_embed.proj",
            "classifier": "fc" if facts.family == "resnet" else "head",
            "license": "",
        },
    }


def read_config(path: Path) -> ModelConfig:
    """What config.json says. Raises SettingsError for no JSON, a contradiction, or an unknown network."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SettingsError(f"{path} is larger than {MAX_BYTES:,} bytes. Mend it, or move it away.")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SettingsError(f"{path} cannot be read as JSON ({error}). Mend it, or move it away.") from error
    if not isinstance(content, dict):
        raise SettingsError(f"{path} holds no table. Mend it, or move it away.")
    architecture = content.get("architecture")
    names = {model_facts(name).timm_name: name for name in SHAPES}
    if not isinstance(architecture, str) or architecture not in names:
        shown = repr(architecture[:80]) if isinstance(architecture, str) else "(its name is no text, or absent)"
        raise SettingsError(f"{path} names an unknown architecture {shown}. Accepted: {', '.join(names)}.")
    nested = content.get("pretrained_cfg")
    details: Mapping[str, Any] = nested if isinstance(nested, dict) else content
    label_names = content.get("label_names", details.get("label_names")) or ()
    num_classes = content.get("num_classes", details.get("num_classes", 1000))
    if type(num_classes) is not int or not 0 < num_classes < 2**31:
        raise SettingsError(f"The num_classes in {path} is no whole number from 1. Mend it, or move it away.")
    if not isinstance(label_names, (list, tuple)) or not all(isinstance(name, str) for name in label_names):
        raise SettingsError(f"The label_names in {path} are no list of names. Mend it, or move it away.")
    if len(label_names) not in (0, num_classes):
        raise SettingsError(f"{path} contradicts itself: {num_classes} classes and {len(label_names)} label names.")
    ours = content.get(OURS)
    if not isinstance(ours, dict | None):
        raise SettingsError(f"The key {OURS} in {path} holds no table. Mend it, or take it out.")
    return ModelConfig(names[architecture], num_classes, tuple(label_names), _preprocess(path, details), ours or {})


def _preprocess(path: Path, details: Mapping[str, Any]) -> Preprocess | None:
    if "mean" not in details or "std" not in details:
        return None
    fits = {mode: fit for fit, mode in CROP_MODES.items()}
    try:
        return Preprocess.from_dict(
            {
                "image_size": int(details.get("input_size", (3, 224, 224))[-1]),
                "crop_fraction": float(details.get("crop_pct") or 0.875),
                "fit": fits[details.get("crop_mode") or "center"],
                "interpolation": _interpolation(details.get("interpolation") or "bilinear"),
                "mean": _three(details["mean"]),
                "std": _three(details["std"]),
            }
        )
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, SettingsError) as error:
        raise SettingsError(
            f"The preprocessing in {path} is not understood ({str(error)[:200]}). Mend it, or move it away."
        ) from error


def _interpolation(name: object) -> str:
    if name not in ("bilinear", "bicubic"):
        raise ValueError(f"interpolation {str(name)[:40]!r}; known: bilinear, bicubic")
    return str(name)


def _three(values: Any) -> list[float]:
    numbers = [float(value) for value in values]
    if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
        raise ValueError("mean and std must be three finite numbers each")
    return numbers
