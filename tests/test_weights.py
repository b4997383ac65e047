"""Weights arrive whole or not at all: exact account, both sides of every difference, never a silent random start."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ramps import ramp, ramp_pictures
from safetensors import SafetensorError
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn

from foldertune.errors import DataError, FoldertuneError, SettingsError, WorkFailedError
from foldertune.models import build
from foldertune.models.network import Network
from foldertune.models.weights import Account, load_weights, resolve_weights, write_weights


class Tiny(Network):
    """A network of eight tensors, so that a file of it has a few hundred bytes."""

    name, head_name, feature_size, num_stages = "tiny", "fc", 4, 1

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, num_classes)

    def run_stage(self, stage: int, x: Tensor) -> Tensor:
        output: Tensor = self.bn1(self.conv1(x))
        return output

    def pool(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))

    def classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.fc(features)
        return logits

    def stage_of(self, name: str) -> int:
        return int(name.startswith("fc."))


COUNTER = "bn1.num_batches_tracked"
Change = Callable[[dict[str, Tensor]], object]


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """Values unlike those of a new network, by name."""
    return {name: ramp(name, tuple(value.shape)) for name, value in network.state_dict().items()}


def file_of(path: Path, *, num_classes: int = 3, change: Change = lambda _: None) -> dict[str, Tensor]:
    """Write a file of a Tiny whose tensors `change` has edited in place; the tensors that went in."""
    tensors = tensors_of(Tiny(num_classes))
    change(tensors)
    save_file(tensors, path)
    return tensors


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tiny.safetensors"


# The account


def check_account(account: Account, network: nn.Module) -> None:
    """Every tensor of the network stands in exactly one place."""
    assert sorted((*account.loaded, *account.replaced, *account.absent)) == sorted(network.state_dict())


def test_load_weights_of_the_same_network_loads_every_bit(path: Path) -> None:
    network, expected = Tiny(), file_of(path)
    account = load_weights(network, path, replace_head=False)
    check_account(account, network)
    assert not account.replaced
    assert not account.absent
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("num_classes", [3, 1000])
def test_load_weights_with_a_new_head_keeps_the_network_s_own(num_classes: int, path: Path) -> None:
    network, expected = Tiny(3), file_of(path, num_classes=num_classes)
    head = state(network.fc)
    account = load_weights(network, path, replace_head=True)
    check_account(account, network)
    assert account.replaced == ("fc.weight", "fc.bias")
    assert all(torch.equal(value, head[name]) for name, value in network.fc.state_dict().items())
    assert torch.equal(network.conv1.weight, expected["conv1.weight"])


def test_load_weights_with_a_new_head_takes_a_file_without_any(path: Path) -> None:
    network = Tiny()
    file_of(path, change=lambda tensors: (tensors.pop("fc.weight"), tensors.pop("fc.bias")))
    account = load_weights(network, path, replace_head=True)
    check_account(account, network)
    assert account.replaced == ("fc.weight", "fc.bias")


def test_load_weights_without_counters_names_them_absent(path: Path) -> None:
    network = Tiny()
    file_of(path, change=lambda tensors: tensors.pop(COUNTER))
    account = load_weights(network, path, replace_head=False)
    check_account(account, network)
    assert account.absent == (COUNTER,)
    assert network.state_dict()[COUNTER] == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_load_weights_of_other_floats_are_converted(dtype: torch.dtype, path: Path) -> None:
    network = Tiny()

    def convert(tensors: dict[str, Tensor]) -> None:
        tensors.update({name: value.to(dtype) for name, value in tensors.items() if value.is_floating_point()})

    expected = file_of(path, change=convert)
    load_weights(network, path, replace_head=False)
    assert network.conv1.weight.dtype == torch.float32
    assert torch.equal(network.conv1.weight, expected["conv1.weight"].float())


# Differences


def rename(tensors: dict[str, Tensor]) -> None:
    tensors["bn1.gamma"] = tensors.pop("bn1.weight")


DIFFERENCES: dict[str, tuple[Change, tuple[str, ...]]] = {
    "missing": (lambda tensors: tensors.pop("bn1.bias"), ("the network has 1 tensors that the file lacks (bn1.bias)",)),
    "unknown": (
        lambda tensors: tensors.update({"extra": torch.zeros(1)}),
        ("the file has 1 tensors that the network lacks (extra)",),
    ),
    "renamed": (rename, ("that the file lacks (bn1.weight)", "that the network lacks (bn1.gamma)")),
    "shape": (
        lambda tensors: tensors.update({"conv1.weight": torch.zeros(4, 3, 1, 1)}),
        ("1 have another shape (conv1.weight 4x3x1x1 instead of 4x3x3x3)",),
    ),
    "no_dimension": (
        lambda tensors: tensors.update({"bn1.bias": torch.tensor(1.0)}),
        ("bn1.bias one number instead of 4",),
    ),
    "transposed": (
        lambda tensors: tensors.update({"fc.weight": tensors["fc.weight"].T.contiguous()}),
        ("fc.weight 4x3 instead of 3x4",),
    ),
    "whole_numbers": (
        lambda tensors: tensors.update({"bn1.bias": torch.zeros(4, dtype=torch.int64)}),
        ("1 have another type of number (bn1.bias I64)",),
    ),
    "bytes": (
        lambda tensors: tensors.update({"bn1.bias": torch.zeros(4, dtype=torch.uint8)}),
        ("1 have another type of number (bn1.bias U8)",),
    ),
    "fractional_counter": (
        lambda tensors: tensors.update({COUNTER: torch.tensor(0.5)}),
        ("another type of number (bn1.num_batches_tracked F32)",),
    ),
    "a_counter_too_many": (
        lambda tensors: tensors.update({"bn9.num_batches_tracked": torch.tensor(0)}),
        ("the network lacks (bn9.num_batches_tracked)",),
    ),
    "prefixed": (
        lambda tensors: [tensors.update({f"module.{name}": tensors.pop(name)}) for name in tuple(tensors)],
        ("the network has 7 tensors", "and 4 more", "the file has 8 tensors", "(module."),
    ),
    "empty": (lambda tensors: tensors.clear(), ("the network has 7 tensors that the file lacks",)),
    "escape_in_a_name": (
        lambda tensors: tensors.update({"\x1b[2J\n": torch.zeros(1)}),
        (r"the network lacks ('\x1b[2J\n')",),
    ),
}


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_load_weights_of_another_network_lists_both_sides(difference: str, path: Path) -> None:
    change, says = DIFFERENCES[difference]
    file_of(path, change=change)
    network = Tiny()
    before = state(network)
    with pytest.raises(SettingsError) as raised:
        load_weights(network, path, replace_head=False)
    message = str(raised.value)
    assert all(clause in message for clause in (*says, str(path), "is not of a tiny", "--model"))
    assert message.isprintable()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_load_weights_of_another_number_of_classes_is_refused_unless_the_head_is_replaced(path: Path) -> None:
    file_of(path, num_classes=5)
    with pytest.raises(SettingsError, match=r"fc\.weight 5x4 instead of 3x4"):
        load_weights(Tiny(3), path, replace_head=False)
    load_weights(Tiny(3), path, replace_head=True)


def test_load_weights_with_a_new_head_excuses_the_head_alone(path: Path) -> None:
    file_of(path, change=lambda tensors: tensors.update({"fc2.weight": torch.zeros(1)}))
    with pytest.raises(SettingsError, match=r"the network lacks \(fc2\.weight"):
        load_weights(Tiny(), path, replace_head=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["conv1.weight", "bn1.running_var"])
def test_load_weights_of_numbers_that_are_not_finite_names_the_tensor(name: str, value: float, path: Path) -> None:
    file_of(path, change=lambda tensors: tensors[name].view(-1)[2:3].fill_(value))
    network = Tiny()
    before = state(network)
    with pytest.raises(DataError, match=f"no finite numbers in {name}"):
        load_weights(network, path, replace_head=False)
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


def test_load_weights_of_numbers_too_large_for_the_network_names_the_tensor(path: Path) -> None:
    file_of(path, change=lambda tensors: tensors.update({"bn1.bias": torch.full((4,), 1e300, dtype=torch.float64)}))
    with pytest.raises(DataError, match=r"no finite numbers in bn1\.bias"):
        load_weights(Tiny(), path, replace_head=False)


def test_load_weights_of_a_pickle_never_calls_torch_load(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(tensors_of(Tiny()), path)
    calls: list[object] = []
    monkeypatch.setattr(torch, "load", lambda *arguments, **_: calls.append(arguments))
    monkeypatch.setattr(pickle, "load", lambda *arguments, **_: calls.append(arguments))
    for attempt in (
        lambda: load_weights(Tiny(), path, replace_head=True),
        lambda: resolve_weights(str(path), "resnet18"),
    ):
        with pytest.raises(DataError, match=r"can run any code when opened.*python -c"):
            attempt()
    assert not calls


SOUND = save(tensors_of(Tiny()))


@settings(max_examples=300)
@given(place=st.integers(0, len(SOUND) - 1), new=st.binary(max_size=4), width=st.integers(0, 4))
def test_load_weights_of_a_mutated_file_accounts_for_all_or_refuses(
    place: int, new: bytes, width: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.safetensors"
    path.write_bytes(SOUND[:place] + new + SOUND[place + width :])
    network = Tiny()
    before = state(network)
    try:
        account = load_weights(network, path, replace_head=False)
    except FoldertuneError:
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    else:
        check_account(account, network)
        assert all(bool(value.isfinite().all()) for value in network.state_dict().values())


# Writing


def test_write_weights_then_load_weights_gives_the_same_bits(path: Path) -> None:
    network, again = Tiny(), Tiny()
    network.load_state_dict(tensors_of(network))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs forget it
    write_weights(network, path)
    first = path.read_bytes()
    load_weights(again, path, replace_head=False)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in network.state_dict().items())
    write_weights(again, path)
    assert path.read_bytes() == first
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_t5_write_weights_on_a_full_disk_says_so_and_keeps_the_old_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_weights(Tiny(), path)
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(WorkFailedError, match=r"could not be written: I/O error: No space left"):
        write_weights(Tiny(), path)
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_write_weights_keeps_the_names_of_the_network(path: Path) -> None:
    write_weights(build("resnet18", num_classes=2), path)
    assert load_file(path).keys() == build("resnet18", num_classes=2).state_dict().keys()


# Real weights


def test_load_weights_of_real_weights_accounts_for_all(real_weights: Path) -> None:
    resolved = resolve_weights(str(real_weights), "resnet50")
    assert len(resolved.assumed) == 1
    network = build("resnet50", num_classes=5).eval()
    head = state(network.fc)  # type: ignore[arg-type]  # torch types children as Tensor | Module
    account = load_weights(network, real_weights, replace_head=True)
    check_account(account, network)
    assert account.replaced == ("fc.weight", "fc.bias")
    assert len(account.absent) == 53
    assert all(name.endswith("num_batches_tracked") for name in account.absent)
    in_file = load_file(real_weights)
    assert set(account.loaded) == in_file.keys() - {"fc.weight", "fc.bias"}
    assert all(torch.equal(network.state_dict()[name], in_file[name]) for name in account.loaded)
    assert all(torch.equal(value, head[name]) for name, value in network.fc.state_dict().items())  # type: ignore[union-attr]
    with torch.inference_mode():
        assert bool(network(ramp_pictures(64)).isfinite().all())


def test_load_weights_of_real_weights_into_another_network_lists_both_sides(real_weights: Path) -> None:
    with pytest.raises(SettingsError, match=r"not of a resnet101: the network has 255 tensors that the file lacks"):
        load_weights(build("resnet101", num_classes=1000), real_weights, replace_head=True)
