"""How weights arrive: found or fetched (resolve_weights), then loaded by exact account (load_weights)."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foldertune.errors import DataError, SettingsError
from foldertune.models.catalog import ModelFacts, list_models, model_facts
from foldertune.models.config import ModelConfig, config_for, read_config
from foldertune.models.inventory import COUNTER, TensorShape, head_of, tensors_of
from foldertune.models.tensor_file import COUNTERS, FLOATS, TensorFacts, read_header, read_tensors, write_tensors
from foldertune.preprocess import Preprocess
from foldertune.run import written_whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from foldertune.models.network import Network

__all__ = [
    "Account",
    "ModelConfig",
    "ResolvedWeights",
    "config_for",
    "load_weights",
    "read_config",
    "read_weights",
    "resolve_weights",
    "write_weights",
]


@dataclass(frozen=True, slots=True)
class ResolvedWeights:
    """Weights that are on this machine now. `assumed` are sentences that must be said loudly."""

    source: str  # the tag, the path, or "random"
    path: Path | None  # None for random
    preprocess: Preprocess
    sha256: str | None
    assumed: tuple[str, ...]
    licence: str


def resolve_weights(weights: str, model: str, *, download: bool = True) -> ResolvedWeights:
    """What `--weights` means for a model, fetched where needed; nothing is loaded yet.

    weights: "imagenet" (the model's first published weights), a tag, a path to a .safetensors file or to a folder with
    model.safetensors, or "random".   download: False takes only what is on this machine already.
    Raises SettingsError for what is none of these, MissingError for what cannot be had,
    DataError for a file that is damaged or a pickle.
    """
    facts = model_facts(model)
    if weights == "random":
        published = facts.weights[0]
        return ResolvedWeights("random", None, published.preprocess, sha256=None, assumed=(), licence="")
    for published in facts.weights:
        is_default = weights == "imagenet" and published is facts.weights[0]
        if is_default or weights in (published.tag, published.repository, published.repository.partition("/")[2]):
            from foldertune.models.hub import fetch

            fetched = fetch(published, download=download)
            return ResolvedWeights(
                published.tag, fetched.path, published.preprocess, fetched.sha256, fetched.notes, published.licence
            )
    path = _as_path(weights)
    if path is None:
        raise SettingsError(_unknown(weights, facts))
    return _from_path(path, facts)


_FILE_SUFFIXES = frozenset({".safetensors", ".bin", ".ckpt", ".onnx", ".pkl", ".pt", ".pt2", ".pth", ".tar"})


def _as_path(weights: str) -> Path | None:
    """The file or folder that is meant; None where it can only be a name."""
    try:
        path = Path(weights).expanduser()
        is_path = path.exists() or path.suffix in _FILE_SUFFIXES or path.name != weights
    except (OSError, RuntimeError) as error:  # too long for this system, or the home of a user that it does not have
        reason = getattr(error, "strerror", None) or error
        raise SettingsError(f"--weights {weights[:80]!r} is no usable path: {reason}.") from error
    return path if weights and is_path and "\0" not in weights else None


def _from_path(path: Path, facts: ModelFacts) -> ResolvedWeights:
    from foldertune.models.hub import sha256_of

    if path.is_dir():
        path = path / "model.safetensors"
    read_header(path)  # a pickle or a damaged file is refused before anything else happens
    beside = path.with_name("config.json")
    config = read_config(beside) if beside.exists() else None
    if config is not None and config.model != facts.name:
        raise SettingsError(
            f"The weights {path} are of a {config.model}, as {beside} says, and the model is {facts.name}. "
            f"Pass --model {config.model}, or weights of a {facts.name}."
        )
    preprocess = config.preprocess if config else None
    assumed: tuple[str, ...] = ()
    if preprocess is None:
        says = "says nothing about preprocessing" if config else "is not there"
        assumed = (
            f"{beside} {says}, so it was assumed that {path.name} expects bilinear resizing, shorter side 256, "
            "crop 224, ImageNet mean and std.",
        )
    return ResolvedWeights(str(path), path, preprocess or Preprocess(), sha256_of(path), assumed, licence="not stated")


def _unknown(weights: str, facts: ModelFacts) -> str:
    for other in list_models():
        if any(weights == published.tag for published in other.weights):
            return (
                f"The weights {weights} are of a {other.name}, and the model is {facts.name}. "
                f"Pass --model {other.name}, or one of: {', '.join(_accepted(facts))}."
            )
    near = difflib.get_close_matches(weights, _accepted(facts), n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return (
        f"There are no weights {weights[:80]!r} for {facts.name}. Accepted: {', '.join(_accepted(facts))}, "
        f"or the path of a .safetensors file.{hint}"
    )


def _accepted(facts: ModelFacts) -> list[str]:
    return ["imagenet", *(published.tag for published in facts.weights), "random"]


@dataclass(frozen=True, slots=True)
class Account:
    """Where each tensor of a network came from, by name: the file, the network's new head, or its own start value."""

    loaded: tuple[str, ...]
    replaced: tuple[str, ...]  # the head, kept new on purpose
    absent: tuple[str, ...]  # counters that the file may lack; they keep their start value


def load_weights(network: Network, path: Path, *, replace_head: bool) -> Account:
    """Fill the network from a safetensors file and account for every tensor.

    replace_head: the network keeps its own head, whatever the file's is (another number of classes, or none).
    Half-precision files are accepted and widened. Raises DataError for a damaged file or values that are not finite,
    SettingsError for another architecture, with both sides listed.
    """
    import torch

    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    head = f"{network.head_name}." if replace_head else "\0"  # no name begins with a NUL
    replaced = tuple(name for name in wanted if name.startswith(head))
    expected = {name: shape for name, shape in wanted.items() if name not in replaced}
    tensors = read_weights(path, expected, model=network.name, ignoring=head)
    network.load_state_dict({name: torch.from_numpy(values) for name, values in tensors.items()}, strict=False)
    absent = tuple(name for name in expected if name not in tensors)
    return Account(loaded=tuple(tensors), replaced=replaced, absent=absent)


def read_weights(
    path: Path, expected: Mapping[str, TensorShape], *, model: str, ignoring: str = "\0"
) -> dict[str, NDArray[Any]]:
    """The tensors of a weights file as arrays, each accounted for: float32, and whole numbers for counters, which may be absent.

    expected: name -> shape.   ignoring: tensors whose name begins so are left in the file.   model: named in errors.
    Raises DataError for a damaged file or values that are not finite, SettingsError for another architecture.
    """
    import numpy as np

    offered = {name: facts for name, facts in read_header(path).items() if not name.startswith(ignoring)}
    if differences := _differences(_needed(expected, offered), offered):
        raise SettingsError(_unfit(path, model, differences))
    tensors = read_tensors(path, offered)
    broken = [name for name, values in tensors.items() if not np.isfinite(values).all()]
    if broken:
        raise DataError(
            f"The weights file {path} holds values that are no finite numbers in {_few(broken)}. Fetch it again."
        )
    return tensors


def refuse_unfit(weights: ResolvedWeights, model: str) -> None:
    """Raise SettingsError for a file of another network than this, without loading it. Its head may have any number of classes."""
    if weights.path is None:
        return
    head = f"{head_of(model)}."
    expected = {name: shape for name, shape in tensors_of(model, num_classes=1).items() if not name.startswith(head)}
    offered = {name: facts for name, facts in read_header(weights.path).items() if not name.startswith(head)}
    if differences := _differences(_needed(expected, offered), offered):
        raise SettingsError(_unfit(weights.path, model, differences))


def write_weights(network: Network, path: Path) -> None:
    """Write the network's tensors as safetensors, complete or not at all. Raises WorkFailedError (disk full)."""
    with written_whole(path) as temporary:
        write_tensors(temporary, network.state_dict(), metadata={"format": "pt"})


def _needed(expected: Mapping[str, TensorShape], offered: Mapping[str, TensorFacts]) -> dict[str, TensorShape]:
    return {name: shape for name, shape in expected.items() if name in offered or not name.endswith(COUNTER)}


def _unfit(path: Path, model: str, differences: list[str]) -> str:
    return (
        f"The weights file {path} is not of a {model}: {'; '.join(differences)}. "
        f"Give weights of a {model}, or name the file's own model with --model."
    )


def _differences(expected: Mapping[str, TensorShape], offered: Mapping[str, TensorFacts]) -> list[str]:
    """What keeps the file from filling the network, one clause per kind; empty where it fits."""
    missing = [name for name in expected if name not in offered]
    unknown = [name for name in offered if name not in expected]
    both = [name for name in expected if name in offered]
    shapes = [
        f"{name} {_shape(offered[name].shape)} instead of {_shape(expected[name])}"
        for name in both
        if offered[name].shape != expected[name]
    ]
    types = [
        f"{name} {offered[name].dtype}"
        for name in both
        if offered[name].dtype not in (COUNTERS if name.endswith(COUNTER) else FLOATS)
    ]
    return [
        clause
        for found, clause in (
            (missing, f"the network has {len(missing)} tensors that the file lacks ({_few(missing)})"),
            (unknown, f"the file has {len(unknown)} tensors that the network lacks ({_few(unknown)})"),
            (shapes, f"{len(shapes)} have another shape ({_few(shapes)})"),
            (types, f"{len(types)} have another type of number ({_few(types)})"),
        )
        if found
    ]


def _few(names: list[str]) -> str:
    shown = ", ".join(name[:120] if name.isprintable() else ascii(name[:120]) for name in names[:3])
    return shown if len(names) <= 3 else f"{shown}, and {len(names) - 3} more"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "one number"
