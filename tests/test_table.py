"""dataset.csv: what is written is what is read back, spreadsheets run nothing, and a changed table is refused."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from folders import invented_pictures, look, put_classes
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from foldertune.data.table import COLUMNS, dataset_facts, fingerprint, read_dataset, write_dataset
from foldertune.errors import DataError
from foldertune.records import SPLITS, Dataset, Picture

# Whatever a file system or a CSV may hold: all of Unicode, and bytes that are no UTF-8 as the surrogates that Python makes of them.
names = st.text(st.characters(exclude_categories=["Cs"]) | st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF))
HOSTILE = (
    "=cmd()", "+1", "-1", "@sum", "\tx", "\rx", "\nx", "'quoted", "''", "a\rb", "a\nb", "a\r\nb", 'a"b', "a,b;c", " ", "\u202egpj",
    "\U0001f98a", "caf\udce9", "\ufeffmark", "\uff1dcmd()", "\u2028", "\x00", "<script>", "../up", "x" * 255,
)  # fmt: skip


def dataset_of(pictures: list[Picture]) -> Dataset:
    return Dataset(
        Path("photos"), tuple(sorted({p.label for p in pictures})), tuple(pictures), "made", {"hidden": 2}, ("few",)
    )


def sample() -> Dataset:
    pictures = [replace(picture, split=SPLITS[picture.row % 3]) for picture in invented_pictures({"a": 6, "b": 6})]
    pictures[4] = replace(pictures[4], problem="empty file", sha256="", split=None, width=0, height=0)
    return dataset_of(pictures)


def written(folder: Path, dataset: Dataset) -> tuple[Path, dict[str, Any]]:
    path = folder / "dataset.csv"
    write_dataset(path, dataset)
    return path, json.loads(json.dumps(dataset_facts(dataset)))


@given(st.lists(st.tuples(names, names, names, names, st.sampled_from([None, *SPLITS])), max_size=8))
def test_read_dataset_of_written_gives_the_same(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[Any, ...]]
) -> None:
    pictures = [
        Picture(row, path, label, split, group, 3, 4, "ab" * 32, problem)
        for row, (path, label, group, problem, split) in enumerate(rows)
    ]
    dataset = dataset_of(pictures)
    path, facts = written(tmp_path_factory.getbasetemp(), dataset)
    assert read_dataset(path, facts) == dataset


@pytest.mark.parametrize("name", HOSTILE)
def test_read_dataset_of_hostile_names_gives_the_same(tmp_path: Path, name: str) -> None:
    dataset = dataset_of([Picture(0, name, name, None, name, 1, 1, "", name), Picture(1, "b", "b")])
    path, facts = written(tmp_path, dataset)
    assert read_dataset(path, facts) == dataset


@pytest.mark.parametrize("name", HOSTILE)
def test_write_dataset_no_cell_begins_a_formula(tmp_path: Path, name: str) -> None:
    path, _ = written(tmp_path, dataset_of([Picture(0, name, name, None, name, 1, 1, "", name)]))
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        for cell in [cell for row in csv.reader(stream) for cell in row]:
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"))


def test_write_dataset_format_is_a_contract(tmp_path: Path) -> None:
    path, _ = written(tmp_path, sample())
    lines = path.read_bytes().decode().split("\r\n")
    assert lines[0] == "row,path,label,split,group,width,height,sha256,problem"
    assert lines[1] == f"0,a/0.png,a,train,,4,3,{0:064x},"
    assert lines[5] == "4,a/4.png,a,,,0,0,,empty file"
    assert len(lines) == 14
    assert lines[-1] == ""
    assert lines[0].split(",") == list(COLUMNS)


def test_dataset_holds_no_metadata_of_the_pictures(tmp_path: Path) -> None:
    put_classes(tmp_path / "photos", {"a": 2, "b": 2})
    exif = Image.Exif()
    exif[0x010E], exif[0x8825] = "CANARY", {29: "1987:06:05"}  # a description, and the date of the GPS directory
    Image.new("RGB", (9, 7)).save(tmp_path / "photos/a/place.jpg", exif=exif)
    assert b"1987:06:05" in (tmp_path / "photos/a/place.jpg").read_bytes()
    path, facts = written(tmp_path, look(tmp_path / "photos"))
    for text in (path.read_text("utf-8"), json.dumps(facts)):
        assert "CANARY" not in text
        assert "1987" not in text


def test_dataset_facts_count_and_name(tmp_path: Path) -> None:
    facts = dataset_facts(sample())
    assert facts["num_pictures"] == {"train": 4, "val": 3, "test": 4}
    assert facts["num_unreadable"] == 1
    assert facts["classes"] == ["a", "b"]
    assert facts["folder"] == "photos"


def test_fingerprint_is_of_content_label_and_split_and_not_of_the_place() -> None:
    dataset = sample()
    first, *others = dataset.pictures
    assert fingerprint(replace(dataset, folder=Path("elsewhere"))) == fingerprint(dataset)
    assert fingerprint(replace(dataset, pictures=(replace(first, path="a/moved.png"), *others))) == fingerprint(dataset)
    for change in ({"sha256": "f" * 64}, {"label": "b"}, {"split": "val"}, {"problem": "gone"}):
        assert fingerprint(replace(dataset, pictures=(replace(first, **change), *others))) != fingerprint(dataset)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0,a/0.png,a,train", "0,a/0.png,b,train"),
        ("0,a/0.png,a,train", "0,a/0.png,c,train"),
        ("0,a/0.png,a,train", "0,a/0.png,a,test"),
        ("0,a/0.png", "1,a/0.png"),
        ("0,a/0.png,a,train", "0,a/0.png,a,"),
        (f"11,b/11.png,b,test,,4,3,{11:064x},\r\n", ""),
        (f"{5:064x}", f"{6:064x}"),
        (f"{7:064x},", f"{7:064x},damaged"),
    ],
)
def test_read_dataset_of_a_changed_table_is_refused(tmp_path: Path, old: str, new: str) -> None:
    path, facts = written(tmp_path, sample())
    content = path.read_bytes()
    assert content.count(old.encode()) == 1
    path.write_bytes(content.replace(old.encode(), new.encode()))
    with pytest.raises(DataError) as caught:
        read_dataset(path, facts)
    assert str(caught.value) == (
        f"{path} has been changed: its rows do not fit run.json. Restore it, or start a new run."
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [("row,path", "path"), ("a,train", "a,learn"), ("4,3", "wide,3"), ("0,a/0.png", "x,a/0.png"), (",empty file", "")],
)
def test_read_dataset_of_a_broken_table_is_refused(tmp_path: Path, old: str, new: str) -> None:
    path, facts = written(tmp_path, sample())
    path.write_bytes(path.read_bytes().replace(old.encode(), new.encode(), 1))
    with pytest.raises(DataError, match=r"dataset\.csv cannot be read .*Restore it, or start a new run\."):
        read_dataset(path, facts)


def test_read_dataset_absent_or_with_foreign_facts_is_refused(tmp_path: Path) -> None:
    path, facts = written(tmp_path, sample())
    for absent in ("folder", "classes", "fingerprint", "skipped"):
        with pytest.raises(DataError, match=absent):
            read_dataset(path, {key: value for key, value in facts.items() if key != absent})
    with pytest.raises(DataError, match=r"is missing: .* is no run folder"):
        read_dataset(tmp_path / "none" / "dataset.csv", facts)
