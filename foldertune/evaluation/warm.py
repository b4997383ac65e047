"""A model that stays open for one picture in memory after another."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foldertune.errors import SettingsError
from foldertune.records import finish
from foldertune.run import RunFolder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from foldertune.evaluation.predict import Predictor

_OPENING = threading.Lock()  # engines that are opened at once would be measured against each other
Identity = tuple[int, int, int] | None


def warm_model(folder: Path, *, engine: str, precision: str) -> Predictor:
    """The model, opened once for as long as its files stay as they are; it answers always. Raises what `opening` does."""
    run = RunFolder(folder)
    files = (run.model, run.config, run.preprocess, run.golden, run.unlike)  # all that `read_saved_model` reads
    with _OPENING:
        return _opened(folder.resolve(), engine, precision, tuple(_identity(file) for file in files))


@functools.lru_cache(maxsize=4)
def _opened(folder: Path, engine: str, precision: str, _: tuple[Identity, ...]) -> Predictor:
    from foldertune.evaluation.predict import opening

    return finish(opening(folder, engine=engine, precision=precision))


def _identity(path: Path) -> Identity:
    """What tells a file from another one, or from itself before a change; None where there is none."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def picture_in_memory(given: Sequence[Any]) -> bytes | NDArray[np.uint8]:
    """The one picture that was given as itself. Raises SettingsError for anything else."""
    if len(given) > 1:
        raise SettingsError(
            f"{len(given)} things were given, and not all are paths. A picture in memory is answered for alone: give one at a time, "
            "or paths."
        )
    picture = given[0]
    if isinstance(picture, (bytes, bytearray, memoryview)):
        return bytes(picture)
    shape: tuple[int, ...] = getattr(picture, "shape", ())
    dtype = str(getattr(picture, "dtype", ""))
    if len(shape) == 3 and shape[-1] == 3 and min(shape) > 0 and dtype == "uint8":
        found: NDArray[np.uint8] = picture
        return found
    told = f"an array {shape} of {dtype}" if shape else f"a {type(picture).__name__}"
    raise SettingsError(
        f"A picture was given as {told}. Accepted: a path, the content of a picture file as bytes, or pixels as an array "
        "(height, width, 3) of uint8, RGB."
    )
