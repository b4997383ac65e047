"""What was asked, checked: a folder, settings from keywords and from a file, and where a run should lie."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from foldertune.data.groups import check_pattern
from foldertune.errors import DataError, SettingsError
from foldertune.planning import refuse_contradictions
from foldertune.run import AnyPath
from foldertune.settings import Wish, check_settings, read_settings


def wish_of(folder: AnyPath, given: Any, *, settings: AnyPath | None = None) -> Wish:
    """given: settings by name.   settings: a file of more, which go behind. Raises SettingsError for what is not accepted."""
    from_file = read_settings(Path(settings)) if settings is not None else {}
    typed = check_settings(given)
    merged = check_settings({**from_file, **typed})
    for name in ("device", "tune"):
        if merged.get(name) == "auto":
            del merged[name]  # type: ignore[misc]  # the plan decides, and says why
    refuse_contradictions(merged)
    if (
        merged.get("weights", "").endswith(".safetensors")
        or (Path(merged.get("weights", "")) / "model.safetensors").exists()
    ):
        # A run may be resumed from another folder.
        merged["weights"] = str(Path(merged["weights"]).expanduser().absolute())
    if merged.get("patch"):
        merged["patch"] = str(Path(merged["patch"]).expanduser().absolute())
    if merged.get("group_by"):
        check_pattern(merged["group_by"])
    sources = {name: "user" if name in typed else "file" for name in merged}
    return Wish(Path(folder).absolute(), merged, sources)


def new_path(folder: Path, *, parent: str) -> Path:
    """A path of a new folder that is named after a folder of pictures and the time."""
    name = re.sub(r"[^\w.-]+", "-", folder.name).strip("-.") or "pictures"
    return Path(parent) / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def refuse_no_folder(folder: Path, given: AnyPath) -> None:
    """Raise DataError where there is none. given: as the user named it."""
    if not folder.is_dir():
        raise DataError(f"There is no folder {given}. Give a folder with one subfolder of pictures per class.")


def refuse_inside(place: Path, folder: Path, given: AnyPath) -> None:
    """Raise SettingsError for a place to write to inside the folder of pictures."""
    if place.resolve().is_relative_to(folder.resolve()):
        raise SettingsError(f"The run folder {place} lies in {given}, which is never changed. Give another --run.")
