"""A folder becomes rows: which files are pictures of which class, and which of them can be read. Nothing in the folder is changed.

Three layouts: FOLDER/class/**, FOLDER/{train,val,test}/class/**, or FOLDER/labels.csv with the columns path and label, and
optionally split and group.
"""

from __future__ import annotations

import csv
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath

from foldertune.data.glances import LOOKED_PX, MOST_GLANCES, Glanced, glance
from foldertune.data.groups import group_pictures
from foldertune.data.looks import Looks
from foldertune.data.pack import ahead
from foldertune.errors import DataError, ImageError
from foldertune.images import decode_with_facts, is_picture_name, read_picture_bytes
from foldertune.records import SPLITS, Dataset, Picture, Progress, Split, Work

SPLIT_NAMES: dict[str, Split] = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
LABELS_FILE = "labels.csv"
# What systems leave in folders without being asked: macOS, Windows, Synology, ext4. Names with a leading dot are hidden anyway.
SYSTEM_NAMES = frozenset(
    ("__MACOSX", "Thumbs.db", "desktop.ini", "$RECYCLE.BIN", "System Volume Information", "@eaDir", "lost+found")
)


@dataclass(frozen=True, slots=True)
class Found:
    """What walking the folder found, before any file is opened."""

    pictures: tuple[Picture, ...]
    classes: tuple[str, ...]
    split_source: str
    skipped: Counter[str]
    warnings: tuple[str, ...] = ()


def scan(
    folder: Path,
    *,
    workers: int,
    to_learn: bool = True,
    group_by: str = "",
    looks: Looks | None = None,
    glanced: Glanced | None = None,
) -> Work[Dataset]:
    """Walk the folder, then read and decode every picture once. `workers` threads decode.

    Files that have not changed since an earlier run are not read again. looks: for who wants to know how fast it went.
    group_by: see `group_pictures`.   glanced: takes the glances of the first pictures that are read.
    Raises DataError where there is nothing to learn from: no folder, no readable picture, fewer than two classes, an empty
    class. With to_learn=False, to measure a model on: only where no picture can be read.
    """
    found = walk(folder, to_learn=to_learn)
    if group_by:  # before anything is decoded: a pattern that matches nothing is a slip of who typed it
        found = replace(found, pictures=group_pictures(found.pictures, group_by))
    looks, checked = looks or Looks(folder, workers=workers), []

    def checked_by(folder: Path, picture: Picture) -> Picture:
        return check(folder, picture, glanced)

    for picture in ahead(lambda picture: looks.at(picture, checked_by), found.pictures, workers=workers):
        checked.append(picture)
        if len(checked) % 32 == 0 or len(checked) == len(found.pictures):
            yield Progress("look", len(checked), len(found.pictures))
    looks.keep()
    dataset = Dataset(folder, found.classes, tuple(checked), found.split_source, dict(found.skipped), found.warnings)
    if not to_learn and dataset.readable:
        return dataset
    refuse_unusable(dataset)
    return dataset


def walk(folder: Path, *, to_learn: bool = True) -> Found:
    """Which files are pictures of which class, by names alone."""
    if not folder.exists():
        raise DataError(f"There is no folder {folder}. Give a folder with one subfolder of pictures per class.")
    if not folder.is_dir():
        raise DataError(f"{folder} is a file. Give the folder that holds one subfolder of pictures per class.")
    try:
        found = _walk_labels(folder) if (folder / LABELS_FILE).is_file() else _walk_folders(folder, to_learn=to_learn)
    except OSError as error:
        raise DataError(
            f"{error.filename} cannot be read: {error.strerror}. Mend it or its permissions, or move it away."
        ) from error
    numbered = tuple(replace(picture, row=row) for row, picture in enumerate(found.pictures))
    return replace(found, pictures=numbered)


def refuse_at_sight(folder: Path) -> None:
    """Raise what `scan` would for a folder that the names of its files show to be useless, before anything is fetched for it."""
    found = walk(folder)
    refuse_unusable(Dataset(folder, found.classes, found.pictures, found.split_source, dict(found.skipped)))


def check(folder: Path, picture: Picture, glanced: Glanced | None = None) -> Picture:
    """The picture with its size and hash, or with its problem.   glanced: takes its glance, while there is room."""
    try:
        content = read_picture_bytes(folder / picture.path, inside=folder)
        pixels, (width, height), file = decode_with_facts(content, at_least_px=LOOKED_PX)
    except ImageError as error:
        return replace(picture, problem=str(error))
    sha256 = hashlib.sha256(content).hexdigest()
    if glanced is not None and len(glanced) < MOST_GLANCES:
        glanced[sha256] = glance(pixels, file)
    return replace(picture, width=width, height=height, sha256=sha256)


def refuse_unusable(dataset: Dataset) -> None:
    """Raise DataError where nothing can be learned from the folder, with what to do next."""
    if not dataset.readable:
        raise DataError(_nothing_readable(dataset))
    if len(dataset.classes) < 2:
        only = dataset.folder / dataset.classes[0]
        num_inner = sum(entry.is_dir() and not entry.name.startswith(".") for entry in only.glob("*"))
        hint = f" Did you mean {only}, which has {num_inner} folders?" if num_inner > 1 else ""
        raise DataError(
            f"{dataset.folder} has one class, {dataset.classes[0]!r}; a classifier needs at least two subfolders with pictures.{hint}"
        )
    teaching = {picture.label for picture in dataset.readable if picture.split in (None, "train")}
    if empty := [name for name in dataset.classes if name not in teaching]:
        where = " to train on" if any(picture.split for picture in dataset.pictures) else ""
        raise DataError(
            f"No picture could be read{where} for {_names(empty)}: {_problems(dataset, empty)}. Add pictures, or remove the folder."
        )


def _walk_folders(folder: Path, *, to_learn: bool) -> Found:
    skipped: Counter[str] = Counter()
    tops = _entries(folder, skipped)
    folders = [entry.name for entry in tops if entry.is_dir(follow_symlinks=False)]
    splits = {name: SPLIT_NAMES[name.lower()] for name in folders if name.lower() in SPLIT_NAMES}
    others = [name for name in folders if name not in splits]
    if not splits or (others and any(_has_pictures(folder / name) for name in splits)):
        skipped.clear()
        names, pictures = _walk_classes(folder, PurePosixPath(), None, skipped)
        return Found(tuple(pictures), tuple(sorted(names)), "", skipped)
    if to_learn and "train" not in splits.values():
        raise DataError(
            f"{folder} has {_names(list(splits))} but no train folder. Add train/, with one subfolder per class."
        )
    skipped["outside of a class folder"] += len(tops) - len(folders)
    classes: set[str] = set()
    pictures = []
    for name in sorted(splits, key=lambda name: SPLITS.index(splits[name])):
        names, found = _walk_classes(folder / name, PurePosixPath(name), splits[name], skipped)
        classes |= names
        pictures += found
    warnings = (f"{_names(others)} beside {_names(list(splits))} left out; move the pictures into a split.",)
    return Found(tuple(pictures), tuple(sorted(classes)), "folders", +skipped, warnings if others else ())


def _has_pictures(folder: Path) -> bool:
    """Whether pictures lie directly in a folder, which beside others makes it a class and not a split."""
    with os.scandir(folder) as entries:
        return any(is_picture_name(entry.name) and not _leads_to_folder(entry) for entry in entries)


def _walk_classes(
    top: Path, prefix: PurePosixPath, split: Split | None, skipped: Counter[str]
) -> tuple[set[str], list[Picture]]:
    """Every subfolder of `top` is a class, with its pictures at any depth."""
    classes: set[str] = set()
    pictures: list[Picture] = []
    for entry in _entries(top, skipped):
        if not entry.is_dir(follow_symlinks=False):
            skipped["outside of a class folder"] += 1
            continue
        classes.add(entry.name)
        root = top if split is None else top.parent
        pictures += [Picture(0, path, entry.name, split) for path in _walk_files(root, prefix / entry.name, skipped)]
    return classes, pictures


def _walk_files(root: Path, inside: PurePosixPath, skipped: Counter[str]) -> Iterator[str]:
    """Relative paths of the picture files below root / inside, in sorted order."""
    for entry in _entries(root / inside, skipped):
        path = inside / entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from _walk_files(root, path, skipped)
        elif problem := _no_picture(root, entry):
            skipped[problem] += 1
        else:
            yield str(path)


def _entries(folder: Path, skipped: Counter[str]) -> list[os.DirEntry[str]]:
    """What a folder holds, sorted, without what is hidden and without links to folders (both counted)."""
    kept = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith(".") or entry.name in SYSTEM_NAMES:
            skipped["hidden"] += 1
        elif entry.is_symlink() and _leads_to_folder(entry):
            skipped["link to a folder"] += 1
        else:
            kept.append(entry)
    return kept


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _no_picture(root: Path, entry: os.DirEntry[str]) -> str:
    """Why a file is not taken for a picture; empty if it is."""
    if not is_picture_name(entry.name):
        return "not a picture by its name"
    try:
        regular = stat.S_ISREG(entry.stat().st_mode)
    except OSError:
        return "broken link"
    if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(root.resolve()):
        return "link that leads outside of the folder"
    return "" if regular else "not a regular file"


# ------------------------------------------------------------------------------------------------------------- labels.csv


def _walk_labels(folder: Path) -> Found:
    pictures: dict[str, Picture] = {}
    for line, row in _read_labels(folder / LABELS_FILE):
        picture = _labelled(folder, line, row)
        known = pictures.setdefault(picture.path, picture)
        for column in ("label", "split", "group"):
            if (here := getattr(picture, column)) != (above := getattr(known, column)):
                raise DataError(
                    f"{LABELS_FILE}, line {line}: the {column} of {picture.path} is {here!r} here and {above!r} above. "
                    "Keep one of the two lines."
                )
    skipped: Counter[str] = Counter()
    elsewhere = sum(path not in pictures for path in _walk_files(folder, PurePosixPath(), skipped))
    skipped["not in labels.csv"] = elsewhere
    skipped["not a picture by its name"] -= 1  # labels.csv itself
    source = "csv" if any(picture.split for picture in pictures.values()) else ""
    return Found(tuple(pictures.values()), tuple(sorted({p.label for p in pictures.values()})), source, +skipped)


def _read_labels(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, row with lower-case column names) for each row."""
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as stream:
            header = stream.readline()
            stream.seek(0)
            reader = csv.DictReader(stream, delimiter=max(",;\t", key=header.count), strict=True)
            columns = [name.strip().lower() for name in reader.fieldnames or ()]
            if not {"path", "label"} <= set(columns):
                raise DataError(
                    f"{path} has the columns {', '.join(columns) or 'none'}. It needs path and label; split and group are optional."
                )
            reader.fieldnames = columns
            for row in reader:
                yield (
                    reader.line_num,
                    {key: (value or "").strip() for key, value in row.items() if isinstance(key, str)},
                )
    except (OSError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}. Save it as comma-separated UTF-8.") from error


def _labelled(folder: Path, line: int, row: dict[str, str]) -> Picture:
    where = f"{LABELS_FILE}, line {line}"
    path, label, split = row["path"].replace("\\", "/"), row["label"], row.get("split", "").lower()
    if not path or not label:
        raise DataError(f"{where}: {'path' if not path else 'label'} is empty. Fill it in, or remove the line.")
    if split and split not in SPLIT_NAMES:
        raise DataError(f"{where}: the split is {split!r}. Accepted: {', '.join(SPLIT_NAMES)}, or empty.")
    parts = PurePosixPath(path)
    if not parts.parts or parts.is_absolute() or ".." in parts.parts or PureWindowsPath(path).drive:
        raise DataError(f"{where}: {path!r} is no path inside of {folder}. Paths are relative to the folder.")
    return Picture(0, str(parts), label, SPLIT_NAMES.get(split), row.get("group", ""))


# ---------------------------------------------------------------------------------------------------------------- sentences


def _nothing_readable(dataset: Dataset) -> str:
    accepted = "Accepted: .jpg .png .webp .gif .bmp .tif .avif (.heic with the extra `heic`)."
    if not dataset.pictures:
        found = ", ".join(f"{count} {reason}" for reason, count in dataset.skipped.items()) or "it is empty"
        return f"No picture was found in {dataset.folder}: {found}. {accepted} Put each class into its own subfolder."
    return f"No picture could be read in {dataset.folder}: {_problems(dataset, list(dataset.classes))}. {accepted}"


def _problems(dataset: Dataset, labels: list[str]) -> str:
    problems = Counter(picture.problem for picture in dataset.unreadable if picture.label in labels)
    if not problems:
        return "there is none" if len(labels) == 1 else "there are none"
    return "; ".join(f"{count} x {problem}" for problem, count in problems.most_common(3))


def _names(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
