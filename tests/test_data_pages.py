"""docs/data.md and docs/pictures.md say what the code does."""

from __future__ import annotations

import re

import pytest
from conftest import PROJECT
from folders import invented_pictures

from foldertune import images
from foldertune.data.folder import LABELS_FILE, SPLIT_NAMES, SYSTEM_NAMES
from foldertune.data.groups import BURST_S
from foldertune.data.split import SHARES, assign
from foldertune.data.table import COLUMNS
from foldertune.diagnosis.balance import FEW_OF_A_CLASS, FEW_PICTURES, IMBALANCE
from foldertune.records import SPLITS

DATA = (PROJECT / "docs/data.md").read_text("utf-8")
PICTURES = (PROJECT / "docs/pictures.md").read_text("utf-8")


def line_with(page: str, beginning: str) -> str:
    (line,) = [line for line in page.splitlines() if line.startswith(beginning)]
    return line


def test_pictures_page_lists_the_extensions_and_formats() -> None:
    listed = re.findall(r"`(\.\w+)`", line_with(PICTURES, "Accepted extensions"))
    assert listed == sorted(images.EXTENSIONS)
    formats = line_with(PICTURES, "Accepted formats")
    assert all(name in formats.upper() for name in images.FORMATS)


def test_pictures_page_states_the_limits_and_the_background() -> None:
    assert f"| pixels | {images.MOST_MEGAPIXELS:g} megapixels |" in PICTURES
    assert f"| size of a file | {images.MOST_BYTES // 2**20} MiB |" in PICTURES
    assert f"| scans of one JPEG | {images.MOST_SCANS} |" in PICTURES
    assert str(images.BACKGROUND) in PICTURES
    assert "`FOLDERTUNE_MAX_MEGAPIXELS`" in PICTURES


def test_data_page_states_names_thresholds_and_columns() -> None:
    assert all(f"`{name}`" in DATA for name in (*SPLIT_NAMES, *COLUMNS, LABELS_FILE))
    assert f"fewer than {FEW_PICTURES} in all" in DATA
    assert f"fewer than {FEW_OF_A_CLASS} pictures" in DATA
    assert f"has {IMBALANCE} times as many pictures" in DATA
    assert f"within {BURST_S:g} seconds" in DATA
    named = re.findall(r"`([^`]+)`", line_with(DATA, "| names that begin with a dot"))
    assert set(named) <= SYSTEM_NAMES


def test_data_page_states_the_shares() -> None:
    shares = {split: int(percent) for percent, split in re.findall(r"(\d+) %[^(%]*\(`(\w+)`\)", DATA)}
    assert shares == {split: round(100 * share) for split, share in SHARES.items()}


@pytest.mark.parametrize(
    "row", re.findall(r"^\| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", DATA, re.MULTILINE), ids=lambda row: row[0]
)
def test_data_page_table_of_small_classes_is_true(row: tuple[str, ...]) -> None:
    size, *expected = map(int, row)
    assigned = list(assign(invented_pictures({"a": size}), SPLITS, seed=0).values())
    assert [assigned.count(split) for split in SPLITS] == expected


@pytest.mark.parametrize(
    "reason",
    ["hidden", "not a picture by its name", "outside of a class folder", "link to a folder", "broken link",
     "link that leads outside of the folder", "not a regular file", "not in labels.csv"],
)  # fmt: skip
def test_data_page_names_each_reason_as_the_code_does(reason: str) -> None:
    assert f"| {reason} |" in DATA
    assert f'"{reason}"' in (PROJECT / "foldertune/data/folder.py").read_text("utf-8")


def test_data_page_names_every_reason_of_the_code() -> None:
    source = (PROJECT / "foldertune/data/folder.py").read_text("utf-8")
    reasons = set(re.findall(r'skipped\["([^"]+)"\]', source)) | set(re.findall(r'return "([a-z][^"]+)"', source))
    reasons -= {"there is none", "there are none"}
    assert len(reasons) >= 7
    assert {reason for reason in reasons if f"| {reason} |" not in DATA} == set()
