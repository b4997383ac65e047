"""A patch changes what is learned from and never the folder; what it says is done, told, and taken back by taking the line out."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import PROJECT
from folders import invented_pictures, look, put, state_of
from hypothesis import given
from hypothesis import strategies as st
from test_table import HOSTILE, names

from foldertune.data import patch
from foldertune.data.patch import (
    ACTIONS,
    COLUMNS,
    EXCLUDED,
    PatchLine,
    apply_patch,
    is_left_out,
    read_patch,
    refuse_inside,
    write_patch,
)
from foldertune.errors import DataError, SettingsError
from foldertune.records import Dataset

LONG = "\U0001f98a" * 62 + "fox.png"  # 255 bytes of UTF-8


def dataset_of(counts: dict[str, int]) -> Dataset:
    return Dataset(Path("photos"), tuple(sorted(counts)), tuple(invented_pictures(counts)), "")


def lines_of(path: Path, *rows: str, head: str = ",".join(COLUMNS)) -> tuple[PatchLine, ...]:
    path.write_text("\n".join([head, *rows]) + "\n", "utf-8")
    return read_patch(path)


def refusal(path: Path, *rows: str, head: str = ",".join(COLUMNS)) -> str:
    with pytest.raises(SettingsError) as caught:
        lines_of(path, *rows, head=head)
    return str(caught.value).replace(str(path), "FILE")


def labels_of(dataset: Dataset) -> dict[str, str]:
    return {picture.path: picture.label for picture in dataset.pictures}


# --------------------------------------------------------------------------------------------------------- what it does


def test_apply_patch_leaves_out_relabels_and_groups_those_pictures_and_no_others() -> None:
    before = dataset_of({"a": 4, "b": 4})
    lines = [
        PatchLine("exclude", "a/1.png", reason="blank"),
        PatchLine("relabel", "b/5.png", value="a", was="b"),
        PatchLine("group", "a/2.png", value="Ada"),
        PatchLine("group", "b/6.png", value="Ada"),
    ]
    after, notes = apply_patch(before, lines)
    expected = list(before.pictures)
    expected[1] = replace(expected[1], problem=f"{EXCLUDED}: blank")
    expected[5] = replace(expected[5], label="a")
    expected[2], expected[6] = (replace(expected[row], group="Ada") for row in (2, 6))
    assert after.pictures == tuple(expected)
    assert after.classes == ("a", "b")
    assert notes == ("The patch: 1 left out, 1 relabelled, 2 grouped.",)
    assert [is_left_out(picture) for picture in after.pictures] == [row == 1 for row in range(8)]


actions = st.sampled_from(ACTIONS)
some_lines = st.lists(
    st.builds(
        PatchLine, action=actions, path=st.integers(0, 12).map(lambda row: f"{'ab'[row // 6 % 2]}/{row}.png"),
        value=st.sampled_from("abcde"), reason=st.sampled_from(["", "why"]), proposed=st.booleans(),
    ),
    max_size=6,
)  # fmt: skip


@given(some_lines)
def test_apply_patch_twice_is_once_keeps_rows_and_nothing_proposed_is_done(lines: list[PatchLine]) -> None:
    before = dataset_of({"a": 6, "b": 6, "c": 1})
    try:
        once, notes = apply_patch(before, lines)
    except DataError:
        return
    assert apply_patch(once, lines)[0] == once
    assert [(p.row, p.path, p.sha256) for p in once.pictures] == [(p.row, p.path, p.sha256) for p in before.pictures]
    ready, said = apply_patch(before, [line for line in lines if not line.proposed])
    assert (ready, said[1:]) == (once, notes[1:])
    assert set(once.classes) == {picture.label for picture in once.pictures}


def test_apply_patch_of_proposed_lines_does_nothing_and_says_so() -> None:
    before = dataset_of({"a": 2, "b": 2})
    lines = [
        PatchLine("exclude", "a/0.png", proposed=True), PatchLine("relabel", "b/3.png", value="a", proposed=True),
        PatchLine("exclude", "not there", proposed=True),
    ]  # fmt: skip
    assert apply_patch(before, lines) == (
        before,
        ("The patch: nothing to do; 3 lines wait for a person to take away their ?.",),
    )


def test_apply_patch_passes_over_lines_of_other_pictures_and_other_content_and_names_them() -> None:
    before = dataset_of({"a": 3, "b": 3})
    lines = [
        PatchLine("exclude", "a/9.png"),
        PatchLine("exclude", "a/0.png", sha256="f" * 64),
        PatchLine("exclude", "a/1.png", sha256=before.pictures[1].sha256),
    ]
    after, notes = apply_patch(before, lines)
    assert [is_left_out(picture) for picture in after.pictures] == [False, True, False, False, False, False]
    assert notes == (
        "The patch: 1 left out.",
        "Pictures of the patch that are not in the folder: 1, such as 'a/9.png'.",
        "Lines of the patch that were written for another content of their picture: 1, such as that of 'a/0.png'. They were passed "
        "over. Look at the picture, and remove the line or its sha256.",
    )


def test_apply_patch_that_relabels_to_an_unknown_class_makes_it_loudly() -> None:
    after, notes = apply_patch(dataset_of({"a": 3, "b": 3}), [PatchLine("relabel", "a/0.png", value="aa")])
    assert after.classes == ("a", "aa", "b")
    assert notes[1] == "The patch names classes that the folder does not have, and makes them: 'aa'."


def test_apply_patch_that_moves_a_whole_class_into_another_one_is_fine() -> None:
    lines = [PatchLine("relabel", f"b/{row}.png", value="a") for row in (3, 4)]
    after, notes = apply_patch(dataset_of({"a": 3, "b": 2, "c": 2}), lines)
    assert after.classes == ("a", "c")
    assert notes == ("The patch: 2 relabelled.",)


@pytest.mark.parametrize("counts", [{"a": 2, "b": 2, "c": 2}, {"a": 2, "b": 2}])
def test_apply_patch_that_leaves_out_all_of_a_class_is_refused(counts: dict[str, int]) -> None:
    with pytest.raises(DataError) as caught:
        apply_patch(dataset_of(counts), [PatchLine("exclude", f"b/{row}.png") for row in (2, 3)])
    assert str(caught.value) == (
        "The patch leaves out every picture of 'b'. Keep some, or relabel them: a class that has no pictures cannot be learned."
    )


def test_apply_patch_that_leaves_out_what_cannot_be_read_keeps_the_reason() -> None:
    before = dataset_of({"a": 2, "b": 2})
    broken = replace(before.pictures[0], problem="empty file", sha256="")
    before = replace(before, pictures=(broken, *before.pictures[1:]))
    assert apply_patch(before, [PatchLine("exclude", "a/0.png")])[0] == before


def test_patch_of_a_folder_changes_no_file_of_it(tmp_path: Path) -> None:
    folder = put(tmp_path / "photos", ["a/=cmd().png", "a/2.png", f"b/{LONG}", "b/4.png"])
    before = state_of(folder)
    dataset = look(folder)
    lines = [
        PatchLine("exclude", "a/=cmd().png", sha256=dataset.pictures[1].sha256),
        PatchLine("relabel", f"b/{LONG}", value="a"),
    ]
    write_patch(tmp_path / "patch.csv", lines)
    after, _ = apply_patch(dataset, read_patch(tmp_path / "patch.csv"))
    assert labels_of(after)[f"b/{LONG}"] == "a"
    assert [picture.path for picture in after.unreadable] == ["a/=cmd().png"]
    assert state_of(folder) == before
    assert apply_patch(look(folder), ())[0] == dataset  # without its lines all is as it was


# ------------------------------------------------------------------------------------------------------------- the file


@given(
    st.lists(
        st.tuples(actions, names.filter(bool), names.filter(str.strip), names, names, st.booleans()),
        max_size=6,
        unique_by=lambda row: row[1],
    )
)
def test_read_patch_of_written_gives_the_same(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[Any, ...]]
) -> None:
    lines = tuple(
        PatchLine(action, path, value, was, reason, "ab" * 32, proposed)
        for action, path, value, was, reason, proposed in rows
    )
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.unlink(missing_ok=True)
    write_patch(path, lines)
    assert read_patch(path) == lines


@pytest.mark.parametrize("name", [*HOSTILE, LONG])
def test_write_patch_gives_spreadsheets_no_formula_and_keeps_every_name(tmp_path: Path, name: str) -> None:
    line = PatchLine("relabel", name, value=name if name.strip() else "a", was=name, reason=name)
    write_patch(tmp_path / "patch.csv", [line])
    assert read_patch(tmp_path / "patch.csv") == (line,)
    with (tmp_path / "patch.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        header, cells = csv.reader(stream)
    assert tuple(header) == COLUMNS
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d")) for cell in cells)


def test_read_patch_of_two_columns_typed_by_hand_is_enough(tmp_path: Path) -> None:
    found = lines_of(
        tmp_path / "p.csv", " Exclude ,a/1.png", "? exclude,a/2.png", "exclude,a/1.png", head="Action, PATH"
    )
    assert found == (
        PatchLine("exclude", "a/1.png"), PatchLine("exclude", "a/2.png", proposed=True), PatchLine("exclude", "a/1.png"),
    )  # fmt: skip


def test_read_patch_as_a_spreadsheet_saves_it(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes("\ufeffaction,path,value\r\nrelabel,a/1.png,\u00e9t\u00e9\r\n".encode())
    assert read_patch(path) == (PatchLine("relabel", "a/1.png", "\u00e9t\u00e9"),)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (["delete,a/1.png"], "FILE, line 2: the action is 'delete'. Accepted: exclude, relabel, group; with ? before it, it waits."),
        (["exclude,a/1.png", ",a/2.png"], "FILE, line 3: the action is ''. Accepted: exclude, relabel, group; with ? before it, it waits."),
        (["exclude,"], "FILE, line 2: path is empty. Fill it in, or remove the line."),
        (["relabel,a/1.png, "], "FILE, line 2: relabel needs a value: the class."),
        (["group,a/1.png,"], "FILE, line 2: group needs a value: the group."),
        (["relabel,a/1.png,b", "relabel,a/1.png,c"],
         "The patch FILE says relabel a/1.png to 'b' and to 'c'. Keep one of the lines."),
        (["relabel,a/1.png,b", "exclude,a/1.png"], "The patch FILE says exclude and relabel of a/1.png. Keep one of the lines."),
        (["group,a/1.png,x", "exclude,a/1.png", "group,a/1.png,y"],
         "The patch FILE says group a/1.png to 'x' and to 'y'. Keep one of the lines."),
    ],
)  # fmt: skip
def test_read_patch_refuses_with_the_line(tmp_path: Path, rows: list[str], sentence: str) -> None:
    assert refusal(tmp_path / "p.csv", *rows) == sentence


def test_read_patch_of_lines_of_which_one_waits_is_no_contradiction(tmp_path: Path) -> None:
    assert len(lines_of(tmp_path / "p.csv", "relabel,a/1.png,b", "?relabel,a/1.png,c")) == 2


def test_read_patch_refuses_what_is_no_patch(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    assert refusal(path, head="file,class").startswith(
        "The patch FILE has the columns file, class. It needs action and path; value, was, reason and sha256 are optional. "
    )
    path.write_text("")
    with pytest.raises(SettingsError, match="has the columns none"):
        read_patch(path)
    path.write_text('action,path\nexclude,"a')
    with pytest.raises(SettingsError, match=r"cannot be read: .*Save it as comma-separated UTF-8\."):
        read_patch(path)
    with pytest.raises(SettingsError, match=r"There is no patch .*--write-patch FILE` writes one"):
        read_patch(tmp_path / "none.csv")
    with pytest.raises(SettingsError, match="cannot be read: "):
        read_patch(tmp_path)


def test_write_patch_never_writes_over_one_and_never_into_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "patch.csv"
    write_patch(path, [])
    with pytest.raises(SettingsError, match=r"exists, and may have been edited\. Give another name to --write-patch"):
        write_patch(path, [])
    (tmp_path / "photos/a").mkdir(parents=True)
    refuse_inside(path, tmp_path / "photos")
    for inside in ("photos/p.csv", "photos/a/../p.csv", "photos/a/p.csv"):
        with pytest.raises(SettingsError, match=r"which is never changed\. Give another --write-patch"):
            refuse_inside(tmp_path / inside, tmp_path / "photos")


def test_page_names_every_column_and_action() -> None:
    page = (PROJECT / "docs/patch.md").read_text("utf-8")
    assert all(f"| `{name}` |" in page for name in COLUMNS)
    assert all(f"`{name}`" in page for name in ACTIONS)
    assert f"`{patch.PROPOSED}`" in page
