"""dataset.csv: the data set as a table that a person can open and a resumed run reads back."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from foldertune.errors import DataError
from foldertune.records import SPLITS, Dataset, Picture, Split
from foldertune.run import write_text

COLUMNS = ("row", "path", "label", "split", "group", "width", "height", "sha256", "problem")
# What spreadsheets take for the beginning of a formula (OWASP, "CSV Injection"; the last four are full-width).
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def write_dataset(path: Path, dataset: Dataset) -> None:
    """One line per picture, readable or not. Text that a spreadsheet would run as a formula gets a leading apostrophe."""
    stream = io.StringIO()
    writer = csv.writer(stream)  # its line ending of two characters is what makes it quote each of them inside of names
    writer.writerow(COLUMNS)
    for picture in dataset.pictures:
        writer.writerow(guarded(value) for value in (getattr(picture, name) for name in COLUMNS))
    write_text(path, stream.getvalue())


def read_dataset(path: Path, facts: Mapping[str, Any]) -> Dataset:
    """The data set of a run. facts: what `dataset_facts` gave. Raises DataError for a table that was changed by hand."""
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
            pictures = tuple(_picture(row) for row in csv.DictReader(stream, strict=True))
        dataset = Dataset(
            Path(facts["folder"]), tuple(facts["classes"]), pictures,
            facts["split_source"], dict(facts["skipped"]), tuple(facts["warnings"]),
        )  # fmt: skip
        known = facts["fingerprint"]
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing: {path.parent} is no run folder, or not a whole one.") from error
    except (OSError, csv.Error, AttributeError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path} cannot be read ({error}). Restore it, or start a new run.") from error
    in_order = all(picture.row == row and picture.label in dataset.classes for row, picture in enumerate(pictures))
    if not in_order or fingerprint(dataset) != known:
        raise DataError(f"{path} has been changed: its rows do not fit run.json. Restore it, or start a new run.")
    return dataset


def dataset_facts(dataset: Dataset) -> dict[str, Any]:
    """What run.json says of the data set; with dataset.csv it is the whole record."""
    return {
        "folder": str(dataset.folder),
        "classes": list(dataset.classes),
        "split_source": dataset.split_source,
        "skipped": dict(dataset.skipped),
        "warnings": list(dataset.warnings),
        "num_pictures": {split: len(dataset.of(split)) for split in SPLITS},
        "num_unreadable": len(dataset.unreadable),
        "fingerprint": fingerprint(dataset),
    }


def fingerprint(dataset: Dataset) -> str:
    """A hash of what was learned from: content, label and split of every readable picture; not of where the folder lies."""
    digest = hashlib.sha256()
    for picture in dataset.readable:
        digest.update(f"{picture.sha256} {picture.label} {picture.split}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def guarded(value: object) -> str:
    """Text that no spreadsheet runs as a formula."""
    text = "" if value is None else str(value)
    # The mark itself gets one too, so that it can be taken off again.
    return f"'{text}" if text.startswith((*FORMULA, "'")) else text


def unguarded(text: str) -> str:
    """What `guarded` was given."""
    return text.removeprefix("'")


def _picture(row: Mapping[str, str]) -> Picture:
    text = {name: unguarded(row[name]) for name in COLUMNS}
    if text["split"] not in ("", *SPLITS):
        raise ValueError(f"split {text['split']!r}")
    return Picture(
        row=int(text["row"]), path=text["path"], label=text["label"], split=cast("Split | None", text["split"] or None),
        group=text["group"], width=int(text["width"]), height=int(text["height"]), sha256=text["sha256"], problem=text["problem"],
    )  # fmt: skip
