"""The header of a safetensors file under attack: every lie is a clean error, no pickle is ever opened."""

from __future__ import annotations

import io
import json
import os
import pickle
import shlex
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from foldertune.errors import DataError, FoldertuneError, MissingError
from foldertune.models.tensor_file import MAX_HEADER_BYTES, TensorFacts, conversion_command, read_header, read_tensors

DATA = bytes(range(24))
ENTRY = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


def file_bytes(header: object, data: bytes = DATA, *, length: int | None = None) -> bytes:
    """A file with this header: a table, or the bytes themselves; `length` is what it claims where that is a lie."""
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(encoded) if length is None else length).to_bytes(8, "little") + encoded + data


def refusal(path: Path) -> str:
    """The one line with which a file is refused."""
    with pytest.raises(DataError) as raised:
        read_header(path)
    message = str(raised.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 1500
    return message


# Against the format's own library


def test_read_header_equals_what_safetensors_wrote(tmp_path: Path) -> None:
    tensors = {
        "a": np.zeros((2, 3), "float32"),
        "b.weight": np.ones((1, 4, 1), "float16"),
        "counter": np.array(7, "int64"),
        "empty": np.zeros((0, 5), "float64"),
        "mask": np.array([True, False]),
    }
    path = tmp_path / "x.safetensors"
    path.write_bytes(save(tensors, metadata={"format": "pt"}))
    assert read_header(path) == {
        "a": TensorFacts("F32", (2, 3)),
        "b.weight": TensorFacts("F16", (1, 4, 1)),
        "counter": TensorFacts("I64", ()),
        "empty": TensorFacts("F64", (0, 5)),
        "mask": TensorFacts("BOOL", (2,)),
    }


def test_read_header_judges_by_content_not_by_name(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(file_bytes({"x": ENTRY}))
    assert read_header(path) == {"x": TensorFacts("F32", (2, 3))}


def test_read_tensors_widens_every_floating_point_type_and_keeps_counters(tmp_path: Path) -> None:
    values = np.array([[1.5, -2.25], [0.0, 3e4]])
    stored = {
        "f64": values,
        "f32": values.astype("float32"),
        "f16": values.astype("float16"),
        "counter": np.array(7, "int64"),
    }
    path = tmp_path / "x.safetensors"
    path.write_bytes(save(stored))
    found = read_tensors(path, read_header(path))
    for name in ("f64", "f32", "f16"):
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(
            found[name], values.astype("float16").astype("float32") if name == "f16" else values
        )
    assert found["counter"].dtype == np.dtype("int64")
    assert int(found["counter"]) == 7


def test_read_tensors_of_bf16_agrees_with_torch(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    tensor = torch.randn(3, 5, generator=torch.Generator().manual_seed(1)).bfloat16()
    save_file({"x": tensor}, tmp_path / "x.safetensors")
    facts = read_header(tmp_path / "x.safetensors")
    np.testing.assert_array_equal(read_tensors(tmp_path / "x.safetensors", facts)["x"], tensor.float().numpy())


def test_read_tensors_of_a_file_that_became_shorter_says_that_it_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(save({"x": np.zeros((4, 4), "float32")}))
    facts = read_header(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"x\.safetensors is damaged: .*Fetch or write it again"):
        read_tensors(path, facts)


# Lies


def entry(**changes: object) -> dict[str, object]:
    return {"x": {**ENTRY, **changes}}


TWO = {"x": ENTRY, "y": {"dtype": "F32", "shape": [1], "data_offsets": [20, 24]}}
LIES: dict[str, tuple[bytes, str]] = {
    "length_2_63": (file_bytes({"x": ENTRY}, length=2**63), "9,223,372,036,854,775,808 bytes"),
    "length_2_64": (file_bytes({"x": ENTRY}, length=2**64 - 1), "18,446,744,073,709,551,615 bytes"),
    "length_one_past_end": (file_bytes({"x": ENTRY}, b"", length=len(json.dumps({"x": ENTRY})) + 1), "header claims"),
    "length_short": (file_bytes({"x": ENTRY}, length=20), "not valid JSON"),
    "length_0": (file_bytes({"x": ENTRY}, length=0), "not valid JSON"),
    "offsets_overlap": (file_bytes(TWO), "overlap or leave gaps"),
    "offsets_equal": (file_bytes({"x": ENTRY, "y": ENTRY}), "overlap or leave gaps"),
    "offsets_gap": (file_bytes(entry(data_offsets=[4, 28]), DATA + b"1234"), "overlap or leave gaps"),
    "offsets_past_end": (file_bytes(entry(shape=[2, 300], data_offsets=[0, 2400])), "the file holds 24"),
    "offsets_swapped": (file_bytes(entry(data_offsets=[24, 0])), "has -24 bytes"),
    "offsets_negative": (file_bytes(entry(data_offsets=[-24, 0])), "is impossible"),
    "offsets_2_64": (file_bytes(entry(data_offsets=[2**64, 2**64 + 24])), "is impossible"),
    "offsets_three": (file_bytes(entry(data_offsets=[0, 24, 24])), "is incomplete"),
    "offsets_text": (file_bytes(entry(data_offsets="ab")), "is impossible"),
    "offsets_fraction": (file_bytes(entry(data_offsets=[0, 24.0])), "is impossible"),
    "offsets_bool": (file_bytes(entry(dtype="U8", shape=[1], data_offsets=[False, True]), b"1"), "is impossible"),
    "shape_nan": (file_bytes(entry(shape=[float("nan")])), "is impossible"),
    "shape_infinite": (file_bytes(entry(shape=[float("inf"), 0])), "is impossible"),
    "shape_negative": (file_bytes(entry(shape=[-2, -3])), "is impossible"),
    "shape_wraps_to_24_bytes": (file_bytes(entry(shape=[2**62 + 6])), "has 24 bytes"),
    "shape_product_huge": (file_bytes(entry(shape=[2**62] * 8)), "has 24 bytes"),
    "shape_many": (file_bytes(entry(shape=[1] * 5000 + [6])), "is impossible"),
    "shape_other_size": (file_bytes(entry(shape=[2, 4])), "need 32"),
    "shape_null": (file_bytes(entry(shape=None)), "is incomplete"),
    "shape_number_of_5000_digits": (file_bytes(b'{"x":{"shape":[' + b"9" * 5000 + b"]}}"), "is damaged"),
    "dtype_other_size": (file_bytes(entry(dtype="F64")), "need 48"),
    "dtype_unknown": (file_bytes(entry(dtype="object")), "known: F64, F32"),
    "dtype_number": (file_bytes(entry(dtype=4)), "known: F64, F32"),
    "dtype_table": (file_bytes(entry(dtype={})), "known: F64, F32"),
    "dtype_absent": (file_bytes({"x": {"shape": [1], "data_offsets": [0, 4]}}), "is incomplete"),
    "entry_number": (file_bytes({"x": 5}), "is incomplete"),
    "entry_list": (file_bytes({"x": ["dtype", "shape", "data_offsets"]}), "is incomplete"),
    "name_twice": (file_bytes(b'{"x":%b,"x":%b}' % ((json.dumps(ENTRY).encode(),) * 2)), "stands twice"),
    "dtype_twice": (
        file_bytes(b'{"x":{"dtype":"F32","dtype":"F64","shape":[6],"data_offsets":[0,24]}}'),
        "stands twice",
    ),
    "data_after_the_last": (file_bytes({"x": ENTRY}, DATA + b"payload"), "the file holds 31"),
    "data_cut_short": (file_bytes({"x": ENTRY}, DATA[:-1]), "cut short?"),
    "data_without_a_tensor": (file_bytes({}), "the file holds 24"),
    "header_no_json": (file_bytes(b"{" + b"a" * 40), "not valid JSON"),
    "header_cut": (file_bytes(json.dumps({"x": ENTRY}).encode()[:-1]), "not valid JSON"),
    "header_list": (file_bytes(b"[1, 2]"), "is not a safetensors file"),
    "header_deep": (file_bytes(b'{"x":' + b"[" * 1_000_000), "not readable JSON"),
    "header_utf_16": (file_bytes(json.dumps({"x": ENTRY}).encode("utf-16-le")), "not valid JSON"),
    "header_invalid_utf_8": (file_bytes(b'{"\xff":1}'), "not readable JSON"),
    "empty": (b"", "0 bytes"),
    "seven_bytes": (b"1234567", "7 bytes"),
    "eight_bytes": (b"\0" * 8, "8 bytes"),
    "text": (b"<html><body>Not found</body></html>" * 20, "is not a safetensors file"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + b"\0" * 600, "is not a safetensors file"),
}


@pytest.mark.parametrize("lie", LIES)
def test_read_header_of_a_lie_names_it(lie: str, tmp_path: Path) -> None:
    content, says = LIES[lie]
    path = tmp_path / "lie.safetensors"
    path.write_bytes(content)
    assert says in refusal(path)


@pytest.mark.parametrize("claimed", [MAX_HEADER_BYTES + 1, 100_000_000, 2**40])
def test_read_header_of_a_huge_header_costs_no_memory(claimed: int, tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    path.write_bytes(file_bytes(b"{", b"", length=claimed))
    os.truncate(path, claimed + 8)  # the file is as long as it says, and takes no space on the disk
    tracemalloc.start()
    try:
        assert f"{claimed:,} bytes" in refusal(path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_read_header_without_a_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"does not exist.*--weights"):
        read_header(tmp_path / "none.safetensors")
    with pytest.raises(MissingError, match="is not a file"):
        read_header(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_read_header_of_a_pipe_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(MissingError, match="is not a file"):
        read_header(tmp_path / "pipe.safetensors")


SOUND = save({"conv.weight": np.ones((2, 3), "float32"), "n": np.array(3, "int64"), "b": np.zeros(4, "float16")})
HEADER_END = 8 + int.from_bytes(SOUND[:8], "little")
PIECES = (b'"', b"{", b"}", b"[", b"]", b",", b":", b"-", b"0", b"9" * 20, b"null", b"NaN", b"1e9", b"\\u0000", b"\xff")


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A sound file with one to four bytes or tokens of its header replaced, put in or taken out."""
    content = bytearray(SOUND)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, HEADER_END - 1))
        width = draw(st.integers(0, 3))
        content[place : place + width] = draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=3)))
    return bytes(content)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "x.safetensors"


def safetensors_reads(path: Path) -> dict[str, tuple[int, ...]] | None:
    """Names and shapes as the format's library sees them; None where it refuses the file."""
    try:
        with safe_open(path, framework="np") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # no mapping
    except SafetensorError:
        return None


@settings(max_examples=400)
@given(content=mutated())
def test_read_header_of_a_mutated_file_agrees_with_safetensors_or_refuses(content: bytes, scratch: Path) -> None:
    scratch.write_bytes(content)
    theirs = safetensors_reads(scratch)
    try:
        ours = read_header(scratch)
    except FoldertuneError:
        return
    if theirs is not None:  # theirs may refuse more: it checks again when the tensors are read
        assert {name: facts.shape for name, facts in ours.items()} == theirs


def test_read_header_of_a_renamed_tensor_takes_it(scratch: Path) -> None:
    """The property above is not empty: some changes leave a sound file."""
    scratch.write_bytes(SOUND.replace(b"conv.weight", b"conv.w_ight"))
    assert read_header(scratch).keys() == {"conv.w_ight", "n", "b"}


# Pickles


class Touch:
    """Unpickling this creates a file: the canary."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def torch_saved(content: object, *, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("code/__torch__.py", "import os")
    return buffer.getvalue()


def tarred(content: bytes, format_: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format_) as archive:
        member = tarfile.TarInfo("pickle")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def pickles(touch: Touch) -> dict[str, bytes]:
    """Files that run the canary when they are unpickled, by kind."""
    checkpoint = {"fc.weight": torch.zeros(2), "state": touch}
    return {
        **{f"protocol_{number}": pickle.dumps(touch, number) for number in range(6)},
        **{f"list_protocol_{number}": pickle.dumps([touch], number) for number in (0, 1)},
        **{f"table_protocol_{number}": pickle.dumps({"x": touch}, number) for number in (0, 1)},
        "torch_zip": torch_saved(checkpoint),
        "torch_legacy": torch_saved(checkpoint, legacy=True),
        "tar_ustar": tarred(pickle.dumps(touch), tarfile.USTAR_FORMAT),
        "tar_gnu": tarred(pickle.dumps(touch), tarfile.GNU_FORMAT),
        "zip_member": zipped(pickle.dumps(touch)),
        "global_first": b"cpathlib\nPosixPath\n(S'%b'\ntR." % str(touch.path).encode(),
    }


@pytest.fixture
def unopened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the openers that were called; each of them fails the test in addition."""
    called: list[str] = []
    for module, name in (
        (torch, "load"),
        (torch.jit, "load"),
        (pickle, "load"),
        (pickle, "loads"),
        (pickle, "Unpickler"),
    ):

        def trap(*_: object, _name: str = f"{module.__name__}.{name}", **__: object) -> None:
            called.append(_name)
            raise AssertionError(f"{_name} was called")

        monkeypatch.setattr(module, name, trap)
    return called


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt", "model.bin", "weights"])
@pytest.mark.parametrize("kind", pickles(Touch(Path())))
def test_read_header_of_a_pickle_refuses_it_unopened(kind: str, name: str, tmp_path: Path, unopened: list[str]) -> None:
    canary, path = tmp_path / "canary", tmp_path / name
    content = pickles(Touch(canary))[kind]
    path.write_bytes(content)
    message = refusal(path)
    assert "can run any code when opened, so it is not opened" in message
    assert conversion_command(path) in message
    assert not unopened
    assert not canary.exists()


def test_canary_of_these_tests_would_be_seen(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Touch(tmp_path / "canary")))
    assert (tmp_path / "canary").exists()


def convert(path: Path) -> subprocess.CompletedProcess[str]:
    """Run the command that the refusal shows, as a shell would split it."""
    _, *arguments = shlex.split(conversion_command(path))
    return subprocess.run([sys.executable, *arguments], check=False, capture_output=True, text=True)


@pytest.mark.parametrize("name", ["net.pt", "net.safetensors", 'it\'s $(touch canary) "a" net.pth'])
def test_conversion_command_makes_a_file_that_is_accepted(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(torch_saved({"state_dict": {"x": torch.arange(6.0).reshape(2, 3).T}}))
    before = path.read_bytes()
    done = convert(path)
    assert done.returncode == 0, done.stderr
    (converted,) = (found for found in tmp_path.iterdir() if found != path)
    assert read_header(converted) == {"x": TensorFacts("F32", (3, 2))}
    np.testing.assert_array_equal(load_file(converted)["x"], np.arange(6.0, dtype="float32").reshape(2, 3).T)
    assert path.read_bytes() == before


def test_conversion_command_of_a_hostile_pickle_runs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(torch_saved({"x": torch.zeros(2), "y": Touch(tmp_path / "canary")}))
    assert convert(path).returncode != 0
    assert [found.name for found in tmp_path.iterdir()] == ["net.pt"]
