"""Small findings kept between runs in the cache folder: what a folder was found to hold, how fast a network learns here.

One JSON document each, `KIND-KEY.json`, complete or absent, with a check sum. Whatever cannot be read is found again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from foldertune.cache import cache_folder, make_room, touch
from foldertune.errors import WorkFailedError
from foldertune.run import write_text

T = TypeVar("T")
_VERSION = 2  # raised whenever the same question gets another answer


def find_note(kind: str, depends_on: Any, *, max_age_s: float = math.inf, folder: Path | None = None) -> Any | None:
    """What was kept under this kind and all that it depends on (JSON-ready), if it is not older than that; else None.

    folder: the cache folder, where it is not the user's.
    """
    path = _path(kind, depends_on, folder)
    with contextlib.suppress(OSError, ValueError, TypeError):
        check, _, text = path.read_text(encoding="ascii").partition("\n")
        made_at, content = json.loads(text)
        if int(check) == zlib.crc32(text.encode()) and 0 <= time.time() - made_at <= max_age_s:
            touch(path)
            return content
    return None


def keep_note(kind: str, depends_on: Any, content: Any, *, folder: Path | None = None) -> None:
    """Keep something JSON-ready, where the cache can be written."""
    path, text = _path(kind, depends_on, folder), json.dumps([time.time(), content])
    with contextlib.suppress(OSError, WorkFailedError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, f"{zlib.crc32(text.encode())}\n{text}")
        make_room(0, path.parent)


def noted(
    kind: str,
    depends_on: Any,
    make: Callable[[], T],
    *,
    record: Callable[..., T],
    max_age_s: float = math.inf,
    keep: Callable[[], bool] = lambda: True,
) -> T:
    """A record as it was kept, or as `make` makes it now; for later runs too if `keep`, asked after that, says so."""
    stored = find_note(kind, depends_on, max_age_s=max_age_s)
    if isinstance(stored, dict):
        with contextlib.suppress(TypeError):  # of a version with other fields
            return record(**stored)
    made = make()
    if keep():
        keep_note(kind, depends_on, asdict(made))  # type: ignore[call-overload]  # T is a dataclass, for which there is no type
    return made


def _path(kind: str, depends_on: Any, folder: Path | None) -> Path:
    identity = json.dumps([_VERSION, kind, depends_on], sort_keys=True)
    return (folder or cache_folder()) / f"{kind}-{hashlib.sha256(identity.encode()).hexdigest()[:32]}.json"
