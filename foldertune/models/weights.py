"""How weights arrive: found or fetched (resolve_weights), then loaded by exact account (load_weights)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from foldertune.errors import DataError, SettingsError
from foldertune.models.tensor_file import TensorFacts, read_header

if TYPE_CHECKING:
    from torch import Tensor

    from foldertune.models.network import Network

FLOATS, COUNTERS = ("F64", "F32", "F16", "BF16"), ("I64", "I32")


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
    from safetensors import SafetensorError, safe_open

    in_file, wanted = read_header(path), network.state_dict()
    head = f"{network.head_name}." if replace_head else "\0"  # no name begins with a NUL
    replaced = tuple(name for name in wanted if name.startswith(head))
    expected = {name: tensor for name, tensor in wanted.items() if name not in replaced}
    offered = {name: facts for name, facts in in_file.items() if not name.startswith(head)}
    absent = tuple(name for name in expected if name not in offered and name.endswith("num_batches_tracked"))
    differences = _differences({name: tensor for name, tensor in expected.items() if name not in absent}, offered)
    if differences:
        raise SettingsError(
            f"The weights file {path} is not of a {network.name}: {'; '.join(differences)}. "
            f"Give weights of a {network.name}, or name the file's own model with --model."
        )
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in offered}
    except (SafetensorError, OSError) as error:
        raise DataError(f"The weights file {path} is damaged: {error}. Fetch or write it again.") from error
    broken = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise DataError(
            f"The weights file {path} holds values that are no finite numbers in {_few(broken)}. Fetch it again."
        )
    network.load_state_dict(tensors, strict=False)
    return Account(loaded=tuple(tensors), replaced=replaced, absent=absent)


def _differences(expected: Mapping[str, Tensor], offered: Mapping[str, TensorFacts]) -> list[str]:
    """What keeps the file from filling the network, one clause per kind; empty where it fits."""
    missing = [name for name in expected if name not in offered]
    unknown = [name for name in offered if name not in expected]
    both = [name for name in expected if name in offered]
    shapes = [
        f"{name} {_shape(offered[name].shape)} instead of {_shape(tuple(expected[name].shape))}"
        for name in both
        if offered[name].shape != tuple(expected[name].shape)
    ]
    types = [
        f"{name} {offered[name].dtype}"
        for name in both
        if offered[name].dtype not in (FLOATS if expected[name].is_floating_point() else COUNTERS)
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
    shown = ", ".join(name[:120] for name in names[:3])
    return shown if len(names) <= 3 else f"{shown}, and {len(names) - 3} more"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "one number"
