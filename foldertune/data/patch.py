"""Patches: what to leave out, to call otherwise or to keep together, in one small file beside the pictures. The folder is never touched.

One line per picture, with its reason, to be edited by hand. Taking a line out takes it back.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from foldertune.data.table import guarded, unguarded
from foldertune.errors import DataError, SettingsError
from foldertune.records import Dataset, Picture
from foldertune.run import write_text

COLUMNS = ("action", "path", "value", "was", "reason", "sha256")
ACTIONS = ("exclude", "relabel", "group")
PROPOSED = "?"  # before an action: it waits for a person, who takes the mark away
EXCLUDED = "left out by the patch"


@dataclass(frozen=True, slots=True)
class PatchLine:
    """One change. value: the class of a relabel, the name of a group; empty for exclude.   was: the class before.

    sha256: the content that the line was written for, empty for whatever is there; of another content the line does not speak.
    proposed: shown, not carried out.
    """

    action: str
    path: str
    value: str = ""
    was: str = ""
    reason: str = ""
    sha256: str = ""
    proposed: bool = False


def read_patch(path: Path) -> tuple[PatchLine, ...]:
    """The lines of a patch. Raises SettingsError with the line for what is not understood, and for two lines that contradict."""
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as stream:
            reader = csv.DictReader(stream, strict=True)
            columns = [name.strip().lower() for name in reader.fieldnames or ()]
            if not {"action", "path"} <= set(columns):
                raise SettingsError(
                    f"The patch {path} has the columns {', '.join(columns) or 'none'}. It needs action and path; value, was, "
                    "reason and sha256 are optional. `foldertune look FOLDER --write-patch FILE` writes one."
                )
            reader.fieldnames = columns
            lines = [_line(f"{path}, line {reader.line_num}", row) for row in reader]
    except FileNotFoundError as error:
        raise SettingsError(
            f"There is no patch {path}. `foldertune look FOLDER --write-patch FILE` writes one."
        ) from error
    except (OSError, csv.Error) as error:
        raise SettingsError(f"The patch {path} cannot be read: {error}. Save it as comma-separated UTF-8.") from error
    _refuse_contradictions(path, lines)
    return tuple(lines)


def _line(where: str, row: Mapping[str | None, str | list[str] | None]) -> PatchLine:
    text = {name: unguarded(value) for name in COLUMNS if isinstance(value := row.get(name) or "", str)}
    action = text["action"].strip().lower()
    proposed, action = action.startswith(PROPOSED), action.removeprefix(PROPOSED).strip()
    if action not in ACTIONS:
        raise SettingsError(
            f"{where}: the action is {text['action']!r}. Accepted: {', '.join(ACTIONS)}; with ? before it, it waits."
        )
    if not text["path"]:
        raise SettingsError(f"{where}: path is empty. Fill it in, or remove the line.")
    if action != "exclude" and not text["value"].strip():
        raise SettingsError(f"{where}: {action} needs a value: the {'class' if action == 'relabel' else 'group'}.")
    return PatchLine(action, text["path"], text["value"], text["was"], text["reason"], text["sha256"].strip(), proposed)


def _refuse_contradictions(path: Path, lines: Iterable[PatchLine]) -> None:
    known: dict[tuple[str, str], str] = {}
    ready = [line for line in lines if not line.proposed]
    excluded = {line.path for line in ready if line.action == "exclude"}
    for line in ready:
        before = known.setdefault((line.action, line.path), line.value)
        if before != line.value:
            raise SettingsError(
                f"The patch {path} says {line.action} {line.path} to {before!r} and to {line.value!r}. Keep one of the lines."
            )
    for line in ready:
        if line.action != "exclude" and line.path in excluded:
            raise SettingsError(
                f"The patch {path} says exclude and {line.action} of {line.path}. Keep one of the lines."
            )


def write_patch(path: Path, lines: Iterable[PatchLine]) -> None:
    """One line per change. Raises SettingsError where the file exists: it may have been edited."""
    refuse_existing(path)
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(COLUMNS)
    for line in lines:
        action = f"{PROPOSED}{line.action}" if line.proposed else line.action
        writer.writerow(guarded(value) for value in (action, line.path, line.value, line.was, line.reason, line.sha256))
    write_text(path, stream.getvalue())


def refuse_existing(path: Path) -> None:
    """Nobody's edited patch is written over."""
    if path.exists():
        raise SettingsError(f"{path} exists, and may have been edited. Give another name to --write-patch.")


def refuse_inside(path: Path, folder: Path) -> None:
    """Nothing is ever written into the folder of pictures."""
    if path.resolve().is_relative_to(folder.resolve()):
        raise SettingsError(
            f"The patch {path} would lie in {folder}, which is never changed. Give another --write-patch."
        )


def apply_patch(dataset: Dataset, lines: Iterable[PatchLine]) -> tuple[Dataset, tuple[str, ...]]:
    """The data set as the patch wants it, and sentences on lines that fit nothing there (any more).

    Pictures that are left out stay listed, with the reason as their problem. Rows keep their numbers.
    Raises DataError where nothing would be left of a class.
    """
    pictures = {picture.path: picture for picture in dataset.pictures}
    missing, other, counts = [], [], dict.fromkeys((*ACTIONS, PROPOSED), 0)
    for line in lines:
        if line.proposed:
            counts[PROPOSED] += 1
            continue
        found = pictures.get(line.path)
        if found is None:
            missing.append(line.path)
        elif line.sha256 and found.sha256 and line.sha256 != found.sha256:
            other.append(line.path)
        else:
            pictures[line.path] = _changed(found, line)
            counts[line.action] += 1
    changed = tuple(pictures[picture.path] for picture in dataset.pictures)
    _refuse_emptied(changed)
    classes = tuple(sorted({picture.label for picture in changed}))
    new = [name for name in classes if name not in dataset.classes]
    return replace(dataset, pictures=changed, classes=classes), tuple(_sentences(counts, missing, other, new))


def is_left_out(picture: Picture) -> bool:
    """Whether a patch leaves it out, though it can be read."""
    return picture.problem.startswith(EXCLUDED)


def _refuse_emptied(pictures: Iterable[Picture]) -> None:
    """A class goes by moving its pictures to another one, not in silence."""
    kept: set[str] = set()
    left_out: set[str] = set()
    for picture in pictures:
        (left_out if is_left_out(picture) else kept).add(picture.label)
    if emptied := sorted(left_out - kept):
        raise DataError(
            f"The patch leaves out every picture of {', '.join(map(repr, emptied[:5]))}. Keep some, or relabel them: a class that "
            "has no pictures cannot be learned."
        )


def _changed(picture: Picture, line: PatchLine) -> Picture:
    if line.action == "exclude":
        return picture if picture.problem else replace(picture, problem=_excluded(line.reason))
    if line.action == "relabel":
        return replace(picture, label=line.value)
    return replace(picture, group=line.value)


def _excluded(reason: str) -> str:
    return f"{EXCLUDED}: {reason}" if reason else EXCLUDED


def _sentences(counts: Mapping[str, int], missing: list[str], other: list[str], new: list[str]) -> Iterator[str]:
    done = [f"{counts[action]:,} {word}" for action, word in _DONE.items() if counts[action]]
    num = counts[PROPOSED]
    words = "line waits for a person to take away its" if num == 1 else "lines wait for a person to take away their"
    waiting = f"; {num:,} {words} {PROPOSED}" if num else ""
    yield f"The patch: {', '.join(done) or 'nothing to do'}{waiting}."
    if new:
        yield f"The patch names classes that the folder does not have, and makes them: {', '.join(map(repr, new[:5]))}."
    if missing:
        yield f"Pictures of the patch that are not in the folder: {len(missing):,}, such as {missing[0]!r}."
    if other:
        yield (
            f"Lines of the patch that were written for another content of their picture: {len(other):,}, such as that of "
            f"{other[0]!r}. They were passed over. Look at the picture, and remove the line or its sha256."
        )


_DONE = {"exclude": "left out", "relabel": "relabelled", "group": "grouped"}
