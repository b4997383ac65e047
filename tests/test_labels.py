"""labels.csv: the third layout of a folder, with each of its error sentences."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from folders import look, paths_of, picture_bytes, put

from foldertune.diagnosis.copies import copy_findings
from foldertune.diagnosis.findings import Asked
from foldertune.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pictures in one folder, without classes."""
    return put(tmp_path / "photos", [f"images/{number}.png" for number in range(4)])


def labelled(folder: Path, text: str, *, encoding: str = "utf-8") -> Path:
    (folder / "labels.csv").write_bytes(text.encode(encoding))
    return folder


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(DataError) as caught:
        look(labelled(folder, text))
    return str(caught.value).replace(str(folder), "FOLDER")


PLAIN = "path,label\nimages/0.png,b\nimages/1.png,a\n"


def test_labels_rows_are_in_the_order_of_the_lines(folder: Path) -> None:
    dataset = look(labelled(folder, PLAIN))
    assert dataset.classes == ("a", "b")
    assert [(picture.row, picture.path, picture.label) for picture in dataset.pictures] == [
        (0, "images/0.png", "b"),
        (1, "images/1.png", "a"),
    ]
    assert dataset.skipped == {"not in labels.csv": 2}
    assert dataset.split_source == ""


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + PLAIN,
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("path,label", "  Path , LABEL"),
        PLAIN.replace("/", "\\"),
        PLAIN.replace("images/0", "./images//0"),
        PLAIN + "\n\n",
        PLAIN + "images/0.png,b\n",
        PLAIN.replace("images/0.png,b", '"images/0.png"," b "'),
        PLAIN.replace("path,label", "path,label,width").replace(",b", ",b,300"),
        "label,path\nb,images/0.png\na,images/1.png",
    ],
    ids=["mark", "semicolons", "tabs", "windows", "spaces", "backslash", "dots", "blank", "twice", "quotes", "more", "order"],
)  # fmt: skip
def test_labels_written_in_other_ways_mean_the_same(folder: Path, text: str) -> None:
    expected = look(labelled(folder, PLAIN))
    assert look(labelled(folder, text)) == expected


def test_labels_split_and_group_are_read(folder: Path) -> None:
    lines = ["path,label,split,group", "images/0.png,a,Train,g1", "images/1.png,b,,g2", "images/2.png,a,valid,"]
    dataset = look(labelled(folder, "\n".join(lines) + "\nimages/3.png,b,TEST,"))
    assert [picture.split for picture in dataset.pictures] == ["train", None, "val", "test"]
    assert [picture.group for picture in dataset.pictures] == ["g1", "g2", "", ""]
    assert dataset.split_source == "csv"


def test_labels_line_without_a_split_does_not_count_as_leaking(folder: Path) -> None:
    (folder / "images/1.png").write_bytes(picture_bytes(0))
    text = "path,label,split\nimages/0.png,a,train\nimages/1.png,a,\nimages/2.png,b,train\nimages/3.png,b,test\n"
    dataset = look(labelled(folder, text))
    found = copy_findings(dataset.readable, (), given_splits=True, asked=Asked(folder))
    assert [finding.kind for finding in found] == ["exact_duplicate"]


def test_labels_of_absent_or_damaged_files_are_listed_with_the_reason(folder: Path) -> None:
    (folder / "images/note.txt").write_text("no picture")
    dataset = look(labelled(folder, PLAIN + "images/none.png,a\nimages/note.txt,b\nimages,a\n"))
    problems = [picture.problem for picture in dataset.unreadable]
    assert problems[0] == "the file is not there"
    assert problems[1].startswith("not a picture")
    assert problems[2].startswith(("not a regular file", "cannot be read"))


def test_labels_with_names_of_every_kind_are_kept(folder: Path) -> None:
    names = ["12:30 \U0001f98a.png", 'comma, quote".png', "a:b.png"[2:], "=cmd().png"]
    if sys.platform == "win32":
        names = names[2:]
    put(folder, names, start=10)
    quoted = "".join('"' + name.replace('"', '""') + '",\u05e9\u05dc\u05d5\u05dd\n' for name in names)
    dataset = look(labelled(folder, PLAIN + quoted))
    assert paths_of(dataset)[2:] == names
    assert not dataset.unreadable
    assert "\u05e9\u05dc\u05d5\u05dd" in dataset.classes


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps every byte of a name")
def test_labels_in_latin_1_keep_their_bytes(folder: Path) -> None:
    put(folder, ["caf\udce9.png"], start=10)
    text = PLAIN + "caf\u00e9.png,a\n"
    dataset = look(labelled(folder, text, encoding="latin-1"))
    assert not dataset.unreadable


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_labels_link_that_leads_outside_is_not_read(folder: Path) -> None:
    secret = put(folder.parent, ["secret.png"]) / "secret.png"
    (folder / "images/link.png").symlink_to(secret)
    (folder / "away").symlink_to(folder.parent)
    dataset = look(labelled(folder, PLAIN + "images/link.png,a\naway/secret.png,a\n"))
    assert {picture.problem for picture in dataset.unreadable} == {"link that leads outside of the folder"}
    assert len(dataset.unreadable) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "FOLDER/labels.csv has the columns none. It needs path and label; split and group are optional."),
        (
            "file,class\na.png,b\n",
            "FOLDER/labels.csv has the columns file, class. It needs path and label; split and group are optional.",
        ),
        (PLAIN + ",a\n", "labels.csv, line 4: path is empty. Fill it in, or remove the line."),
        (PLAIN + "images/2.png,\n", "labels.csv, line 4: label is empty. Fill it in, or remove the line."),
        (PLAIN + "images/2.png\n", "labels.csv, line 4: label is empty. Fill it in, or remove the line."),
        (
            "path,label,split\nimages/0.png,a,dev\n",
            "labels.csv, line 2: the split is 'dev'. Accepted: train, val, valid, validation, test, or empty.",
        ),
        (
            PLAIN + "images/0.png,c\n",
            "labels.csv, line 4: the label of images/0.png is 'c' here and 'b' above. Keep one of the two lines.",
        ),
        (
            "path,label,split\nimages/0.png,a,train\n./images/0.png,a,test\n",
            "labels.csv, line 3: the split of images/0.png is 'test' here and 'train' above. Keep one of the two lines.",
        ),
    ],
)
def test_labels_at_fault_are_refused_with_the_line(folder: Path, text: str, expected: str) -> None:
    assert refusal(folder, text).replace("\\", "/") == expected


@pytest.mark.parametrize(
    "path", ["../secret.png", "images/../../secret.png", "/etc/passwd", "C:\\secret.png", "C:secret.png",
             "\\\\server\\share\\a.png", "..\\secret.png", ".", "./", "//a/b"],
)  # fmt: skip
def test_labels_path_that_leads_outside_is_refused(folder: Path, path: str) -> None:
    text = refusal(folder, f"path,label\n{path},a\n")
    assert text.startswith("labels.csv, line 2: ")
    assert text.endswith("is no path inside of FOLDER. Paths are relative to the folder.")


@pytest.mark.parametrize("text", ['path,label\n"a.png,b\n', "path,label\n" + "x" * 200_000 + ",a\n"])
def test_labels_that_are_no_csv_are_refused(folder: Path, text: str) -> None:
    found = refusal(folder, text).replace("\\", "/")
    assert found.startswith("FOLDER/labels.csv cannot be read as CSV: ")
    assert found.endswith("Save it as comma-separated UTF-8.")


def test_labels_in_utf_16_or_with_zeros_are_refused(folder: Path) -> None:
    (folder / "labels.csv").write_bytes(PLAIN.encode("utf-16"))
    with pytest.raises(DataError, match="It needs path and label"):
        look(folder)
    dataset = look(labelled(folder, PLAIN + "images/\0.png,a\n"))
    assert dataset.unreadable[0].problem.startswith("cannot be read")


def test_labels_without_lines_are_refused(folder: Path) -> None:
    assert refusal(folder, "path,label\n").startswith("No picture was found in FOLDER: 4 not in labels.csv.")
