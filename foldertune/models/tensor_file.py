"""A safetensors file, read with distrust: what is in it, why it is refused, and its tensors as arrays. Reading needs no tensor library.

Format: 8 bytes little-endian length, that many bytes of JSON {name: {dtype, shape, data_offsets}}, then the tensors.
Source: the safetensors format description; its own reader checks again what is checked here.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foldertune.errors import DataError, MissingError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

MAX_HEADER_BYTES = 10_000_000  # ViT-L needs 40 kB; the cap keeps a lying header from costing memory and seconds
FLOATS, COUNTERS = ("F64", "F32", "F16", "BF16"), ("I64", "I32")
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_ARCHIVE_MARKS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # zip (torch), bare pickle
_OLD_PICKLE_MARKS = (b"(", b"c", b"]", b"}")  # first opcodes of protocols 0 and 1, whose last one is always a full stop
_TAR_MARK = slice(257, 262)  # "ustar" stands here in a tar archive, torch's oldest form


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """One tensor of a file: dtype as safetensors names it, such as "F32", and shape."""

    dtype: str
    shape: tuple[int, ...]
    begin: int = field(default=0, compare=False)  # its first byte, counted from the start of the file


def read_header(path: Path) -> dict[str, TensorFacts]:
    """Names, dtypes and shapes of a safetensors file, judged by content, not by its name.

    Raises MissingError where no file is, DataError for a pickle (with the way to convert it) and anything damaged.
    """
    try:
        if not path.is_file() and path.exists():
            raise MissingError(
                f"{path} is not a file. Give a .safetensors file, or a folder with model.safetensors in it."
            )
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(512)
            length = int.from_bytes(start[:8], "little")
            honest = len(start) > 8 and start[8:9] == b"{" and length <= size - 8
            if not honest or length > MAX_HEADER_BYTES:
                file.seek(max(0, size - 1))
                raise DataError(_not_safetensors(path, start, end=file.read(1), length=length, size=size))
            file.seek(8)
            header = file.read(length)
    except FileNotFoundError as error:
        raise MissingError(f"The weights file {path} does not exist. Check the path given with --weights.") from error
    except OSError as error:
        raise MissingError(f"The weights file {path} cannot be read: {error.strerror or error}.") from error
    try:
        return _checked(_parsed(header), data_begin=8 + length, num_data_bytes=size - 8 - length)
    except ValueError as error:
        raise DataError(f"The weights file {path} is damaged: {error}. Fetch or write it again.") from error


_NUMPY = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}


def read_tensors(path: Path, facts: Mapping[str, TensorFacts]) -> dict[str, NDArray[Any]]:
    """Some tensors of a file whose header said `facts`: floating-point numbers as float32, others as they are.

    Raises DataError where the file has become shorter, or cannot be read any more.
    """
    import numpy as np

    tensors = {}
    try:
        with path.open("rb") as file:
            for name, fact in facts.items():
                file.seek(fact.begin)
                stored = "<u2" if fact.dtype == "BF16" else _NUMPY[fact.dtype]
                values = np.fromfile(file, stored, math.prod(fact.shape)).reshape(fact.shape)
                tensors[name] = _as_float32(values, fact.dtype) if fact.dtype in FLOATS else values
    except (OSError, ValueError) as error:
        raise DataError(f"The weights file {path} is damaged: {error}. Fetch or write it again.") from error
    return tensors


def _as_float32(values: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    import numpy as np

    if dtype == "BF16":  # the upper half of a float32, which numpy has no type for
        return (values.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which whoever asked refuses by name
        return values.astype(np.float32, copy=False)


def _not_safetensors(path: Path, start: bytes, *, end: bytes, length: int, size: int) -> str:
    old_pickle = start.startswith(_OLD_PICKLE_MARKS) and end == b"."
    if old_pickle or start.startswith(_ARCHIVE_MARKS) or start[_TAR_MARK] == b"ustar":
        return (
            f"{path} is a pickle or an archive that may hold one, which can run any code when opened, so it is not "
            f"opened. Where you trust it, convert it once: {conversion_command(path)}"
        )
    if start[8:9] == b"{":
        return (
            f"The weights file {path} is damaged: its header claims {length:,} bytes, the file has {size:,} "
            f"and a header may have {MAX_HEADER_BYTES:,}. Fetch or write it again."
        )
    return (
        f"{path} is not a safetensors file ({size:,} bytes). "
        "Accepted with --weights: imagenet, a tag, a .safetensors file, or random."
    )


def conversion_command(path: Path) -> str:
    """The command that turns a pickled checkpoint of tensors into safetensors, without running code from it."""
    converted = path.with_suffix(".safetensors")
    if converted == path:  # a pickle under a wrong name must not be written over while it is read
        converted = path.with_suffix(".converted.safetensors")
    code = (
        "from torch import load; from safetensors.torch import save_file; "
        f"t = load(open({str(path)!r}, 'rb'), map_location='cpu', weights_only=True); t = t.get('state_dict', t); "
        f"save_file({{k: v.contiguous() for k, v in t.items()}}, {str(converted)!r})"
    )
    if re.fullmatch(r"[\w./\\: -]+", str(path)):
        return f'python -c "{code}"'
    return f"python -c {shlex.quote(code)}"  # a hostile file name must not become a command


def _parsed(header: bytes) -> dict[str, Any]:
    def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) != len(pairs):
            raise ValueError("a name stands twice in its header")
        return table

    try:
        content = json.loads(header.decode("utf-8"), object_pairs_hook=refuse_duplicates)
    except (RecursionError, UnicodeDecodeError) as error:
        raise ValueError("its header is not readable JSON") from error
    except json.JSONDecodeError as error:
        raise ValueError("its header is not valid JSON") from error
    if not isinstance(content, dict):
        raise ValueError("its header is not a table")  # noqa: TRY004  # the file is at fault, not a caller's type
    content.pop("__metadata__", None)
    return content


def write_tensors(path: Path, tensors: Mapping[str, Tensor], *, metadata: dict[str, str] | None = None) -> None:
    """Write torch tensors, wherever they are. Raises OSError (disk full)."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(content, path, metadata=metadata)
    except SafetensorError as error:  # how the library reports a full disk
        raise OSError(0, str(error)) from error


def _checked(content: Mapping[str, Any], *, data_begin: int, num_data_bytes: int) -> dict[str, TensorFacts]:
    """Each entry well formed, and together they cover the data exactly once."""
    facts, spans = {}, []
    for name, entry in content.items():
        try:
            dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"the entry of {name[:80]!r} is incomplete") from error
        numbers = (*shape, begin, end)
        if not all(type(number) is int and 0 <= number < 2**63 for number in numbers) or len(shape) > 8:
            raise ValueError(f"the shape or place of {name[:80]!r} is impossible")
        if not isinstance(dtype, str) or dtype not in _BYTES:
            raise ValueError(f"{name[:80]!r} has the type {str(dtype)[:20]!r}; known: {', '.join(_BYTES)}")
        needed = math.prod(shape) * _BYTES[dtype]
        if end - begin != needed:
            raise ValueError(f"{name[:80]!r} has {end - begin:,} bytes, its shape and type need {needed:,}")
        facts[name] = TensorFacts(dtype, shape, data_begin + begin)
        spans.append((begin, end))
    reached = 0
    for begin, end in sorted(spans):
        if begin != reached:
            raise ValueError("its tensors overlap or leave gaps")
        reached = end
    if reached != num_data_bytes:
        raise ValueError(f"its tensors need {reached:,} bytes, the file holds {num_data_bytes:,} (cut short?)")
    return facts
