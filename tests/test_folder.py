"""A folder becomes rows: layouts, what is skipped, what is refused, and that nothing in it changes."""

from __future__ import annotations

import os
import sys
import unicodedata
from pathlib import Path

import pytest
from folders import look, paths_of, picture_bytes, put, put_classes, state_of

from foldertune.data.folder import check, refuse_at_sight, scan, walk
from foldertune.errors import DataError
from foldertune.records import finish

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps every byte of a name")
links = pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")


def refusal(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        look(folder)
    return str(caught.value).replace(str(folder), "FOLDER")


# --------------------------------------------------------------------------------------------------------------- layouts


def test_scan_class_folders_gives_rows_in_order(tmp_path: Path) -> None:
    put(tmp_path, ["b/2.png", "b/1.png", "a/deep/er/3.png", "a/4.png"])
    dataset = look(tmp_path)
    assert dataset.classes == ("a", "b")
    assert paths_of(dataset) == ["a/4.png", "a/deep/er/3.png", "b/1.png", "b/2.png"]
    assert [picture.row for picture in dataset.pictures] == [0, 1, 2, 3]
    assert {picture.split for picture in dataset.pictures} == {None}
    assert dataset.split_source == ""
    assert {(picture.width, picture.height) for picture in dataset.pictures} == {(8, 6)}
    assert len({picture.sha256 for picture in dataset.pictures}) == 4


def test_scan_with_threads_gives_the_same(tmp_path: Path) -> None:
    put_classes(tmp_path, {"a": 30, "b": 30})
    (tmp_path / "a/7.png").write_bytes(b"broken")
    assert look(tmp_path, workers=3) == look(tmp_path)


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val", "VALID", "Validation"])
def test_scan_split_folders_in_any_case_are_kept(tmp_path: Path, val: str) -> None:
    put(tmp_path, [f"{split}/{name}/{split}.png" for split in ("TRAIN", val, "Test") for name in "ab"])
    dataset = look(tmp_path)
    assert dataset.split_source == "folders"
    assert dataset.classes == ("a", "b")
    assert [(picture.split, picture.label) for picture in dataset.pictures] == [
        (split, name) for split in ("train", "val", "test") for name in "ab"
    ]


def test_scan_val_and_valid_together_are_one_split(tmp_path: Path) -> None:
    put(tmp_path, [f"{split}/{name}/1.png" for split in ("train", "val", "valid") for name in "ab"])
    assert len(look(tmp_path).of("val")) == 4


def test_scan_class_missing_from_a_split_never_shifts_labels(tmp_path: Path) -> None:
    put(tmp_path, [f"train/{name}/1.png" for name in "abcd"] + ["val/b/2.png", "val/d/2.png", "test/d/3.png"])
    dataset = look(tmp_path)
    assert dataset.classes == ("a", "b", "c", "d")
    assert [dataset.classes.index(picture.label) for picture in dataset.of("val")] == [1, 3]
    assert [dataset.classes.index(picture.label) for picture in dataset.of("test")] == [3]


def test_scan_class_missing_from_train_is_refused(tmp_path: Path) -> None:
    put(tmp_path, ["train/a/1.png", "train/b/1.png", "val/new/1.png"])
    text = "No picture could be read to train on for 'new': there is none. Add pictures, or remove the folder."
    assert refusal(tmp_path) == text


def test_scan_class_named_train_beside_others_is_a_class(tmp_path: Path) -> None:
    put_classes(tmp_path, {"bus": 2, "car": 2, "train": 2})
    dataset = look(tmp_path)
    assert dataset.classes == ("bus", "car", "train")
    assert dataset.split_source == ""


def test_scan_stray_picture_in_a_split_folder_does_not_make_it_a_class(tmp_path: Path) -> None:
    put(tmp_path, ["train/a/1.png", "train/b/1.png", "test/a/2.png", "train/preview.png"])
    dataset = look(tmp_path)
    assert dataset.classes == ("a", "b")
    assert dataset.skipped == {"outside of a class folder": 1}


def test_scan_unlabelled_split_folders_are_refused(tmp_path: Path) -> None:
    put(tmp_path, ["train/1.png", "train/2.png", "test/3.png"])
    assert refusal(tmp_path).startswith("No picture was found in FOLDER: 3 outside of a class folder. Accepted: .jpg")


def test_scan_split_folders_without_train_are_refused(tmp_path: Path) -> None:
    put(tmp_path, ["test/a/1.png", "val/a/1.png"])
    assert (
        refusal(tmp_path) == "FOLDER has 'test', 'val' but no train folder. Add train/, with one subfolder per class."
    )


def test_scan_folders_beside_the_splits_are_left_out_with_a_warning(tmp_path: Path) -> None:
    put(tmp_path, ["train/a/1.png", "train/b/1.png", "extra/c/1.png"])
    dataset = look(tmp_path)
    assert dataset.classes == ("a", "b")
    assert dataset.warnings == ("'extra' beside 'train' left out; move the pictures into a split.",)


# ------------------------------------------------------------------------------------------------------- what is skipped


def test_scan_hidden_system_and_stray_files_are_skipped_and_counted(tmp_path: Path) -> None:
    put_classes(tmp_path, {"a": 1, "b": 1})
    put(tmp_path, [".git/x.png", "a/.hidden.png", "__MACOSX/a/1.png", "a/@eaDir/1.png/thumb.jpg", "b/._1.png"])
    put(tmp_path, ["stray.png"])
    for name in ("a/notes.txt", "a/Thumbs.db", "b/data.json", "README.md", "b/picture.svg"):
        (tmp_path / name).write_text("text")
    dataset = look(tmp_path)
    assert paths_of(dataset) == ["a/0.png", "b/0.png"]
    assert dataset.skipped == {"hidden": 6, "outside of a class folder": 2, "not a picture by its name": 3}


def test_scan_upper_case_extensions_are_accepted(tmp_path: Path) -> None:
    put(tmp_path, ["a/1.PNG", "a/2.Jpg", "b/3.TIFF", "b/4.JPEG"])
    assert len(look(tmp_path).readable) == 4  # the content decides the format: all are PNG


@links
def test_scan_links_are_followed_only_to_files_inside(tmp_path: Path) -> None:
    folder = put_classes(tmp_path / "folder", {"a": 2, "b": 2})
    put(tmp_path, ["elsewhere/secret.png"])
    (folder / "a/inside.png").symlink_to("../b/1.png")
    (folder / "a/outside.png").symlink_to(tmp_path / "elsewhere/secret.png")
    (folder / "a/broken.png").symlink_to("none.png")
    (folder / "a/itself.png").symlink_to("itself.png")
    (folder / "a/folder.png").symlink_to(tmp_path / "elsewhere")
    (folder / "b/up").symlink_to("..")
    (folder / "c").symlink_to("/")
    (folder / "loop").symlink_to("loop")
    if sys.platform == "linux":
        (folder / "a/descriptor.png").symlink_to("/proc/self/fd/0")
    dataset = look(folder)
    assert paths_of(dataset) == ["a/0.png", "a/1.png", "a/inside.png", "b/0.png", "b/1.png"]
    assert dataset.classes == ("a", "b")
    expected = {"link that leads outside of the folder": 1, "broken link": 2, "link to a folder": 3}
    found = dict(dataset.skipped)
    assert found.pop("outside of a class folder") == 1  # the link that leads to itself
    if sys.platform == "linux":
        found["link that leads outside of the folder"] -= 1
    assert found == expected


@links
def test_scan_file_swapped_for_a_link_after_the_walk_is_not_read(tmp_path: Path) -> None:
    folder = put_classes(tmp_path / "folder", {"a": 40, "b": 40})
    put(tmp_path, ["secret.png"])
    found = walk(folder)
    (folder / "a/0.png").unlink()
    (folder / "a/0.png").symlink_to(tmp_path / "secret.png")
    (folder / "a").rename(tmp_path / "moved")
    (folder / "a").symlink_to(tmp_path / "moved")
    assert check(folder, found.pictures[0]).problem == "link that leads outside of the folder"
    assert check(folder, found.pictures[1]).problem == "link that leads outside of the folder"
    assert check(folder, found.pictures[40]).readable


@links
def test_scan_pipe_is_skipped_not_waited_for(tmp_path: Path) -> None:
    put_classes(tmp_path, {"a": 1, "b": 1})
    os.mkfifo(tmp_path / "a/pipe.png")
    assert look(tmp_path).skipped == {"not a regular file": 1}


def test_scan_folder_named_like_a_picture_is_walked(tmp_path: Path) -> None:
    put(tmp_path, ["a/1.png/2.png", "b/3.png"])
    assert paths_of(look(tmp_path)) == ["a/1.png/2.png", "b/3.png"]


# ----------------------------------------------------------------------------------------------------------------- names


@linux
def test_scan_names_are_kept_as_they_are(tmp_path: Path) -> None:
    composed, decomposed = unicodedata.normalize("NFC", "caf\u00e9"), unicodedata.normalize("NFD", "caf\u00e9")
    names = [composed, decomposed, "\U0001f98a fox", "\u05e9\u05dc\u05d5\u05dd \u202etxt", "=cmd()", "<script>", "a\nb"]
    names += ["x" * 255, "latin \udce9", "semi;colon,comma", "back\\slash"]
    files = [f"{name}/{name[:250]}.png" for name in names]
    put(tmp_path, files)
    dataset = look(tmp_path)
    assert dataset.classes == tuple(sorted(names))
    assert sorted(paths_of(dataset)) == sorted(files)
    assert not dataset.unreadable
    assert composed != decomposed


# --------------------------------------------------------------------------------------------------------- what is refused


def test_scan_absent_folder_file_and_empty_folder_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none").startswith("There is no folder FOLDER. Give a folder with one subfolder")
    (tmp_path / "file").write_text("text")
    assert refusal(tmp_path / "file").startswith("FOLDER is a file. Give the folder that holds")
    (tmp_path / "empty").mkdir()
    text = refusal(tmp_path / "empty")
    assert text.startswith("No picture was found in FOLDER: it is empty. Accepted: ")
    assert text.endswith("Put each class into its own subfolder.")


def test_scan_empty_class_is_refused(tmp_path: Path) -> None:
    put_classes(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "c").mkdir()
    assert refusal(tmp_path) == ("No picture could be read for 'c': there is none. Add pictures, or remove the folder.")


def test_scan_class_of_broken_pictures_is_refused_with_the_reasons(tmp_path: Path) -> None:
    put_classes(tmp_path, {"a": 2, "b": 2})
    for name in ("0", "1"):
        (tmp_path / f"b/{name}.png").write_bytes(b"")
    assert "for 'b': 2 x empty file." in refusal(tmp_path)


def test_scan_one_class_is_refused(tmp_path: Path) -> None:
    put_classes(tmp_path, {"a": 3})
    text = "FOLDER has one class, 'a'; a classifier needs at least two subfolders with pictures."
    assert refusal(tmp_path) == text


def test_scan_one_folder_of_folders_is_refused_with_the_hint(tmp_path: Path) -> None:
    put(tmp_path, ["photos/cat/1.png", "photos/dog/2.png"])
    assert refusal(tmp_path).endswith(f"Did you mean FOLDER{os.sep}photos, which has 2 folders?")


def test_scan_all_heic_is_refused_with_the_way_out(tmp_path: Path) -> None:
    try:
        import pillow_heif  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip("the extra heic is installed")
    for number in range(14):
        path = tmp_path / "ab"[number % 2] / f"IMG_{number}.HEIC"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    assert refusal(tmp_path) == (
        "No picture could be read in FOLDER: 14 x HEIC: install the extra `heic`, or convert it to JPEG. "
        "Accepted: .jpg .png .webp .gif .bmp .tif .avif (.heic with the extra `heic`)."
    )


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_scan_without_permission_names_the_folder_or_lists_the_file(tmp_path: Path) -> None:
    put_classes(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "a/0.png").chmod(0)
    assert look(tmp_path).unreadable[0].problem == "cannot be read: Permission denied"
    (tmp_path / "b").chmod(0)
    try:
        assert "cannot be read: Permission denied. Mend it or its permissions" in refusal(tmp_path)
    finally:
        (tmp_path / "b").chmod(0o700)


# ----------------------------------------------------------------------------------------------------- unreadable, unchanged


def test_scan_unreadable_picture_stays_listed_with_its_reason(tmp_path: Path) -> None:
    put_classes(tmp_path, {"a": 3, "b": 3})
    (tmp_path / "a/1.png").write_bytes(picture_bytes(1)[:40])
    (tmp_path / "b/0.png").write_text("no picture")
    dataset = look(tmp_path)
    assert [(picture.row, picture.path) for picture in dataset.unreadable] == [(1, "a/1.png"), (3, "b/0.png")]
    assert dataset.unreadable[1].problem.startswith("not a picture")
    assert dataset.unreadable[0].sha256 == ""
    assert dataset.class_counts() == {"a": 2, "b": 2}
    assert [picture.row for picture in dataset.pictures] == list(range(6))


def test_scan_large_jpeg_has_its_whole_size(tmp_path: Path) -> None:
    put_classes(tmp_path, {"a": 1, "b": 1})
    (tmp_path / "a/large.jpg").write_bytes(picture_bytes(0, kind="JPEG", size=(1300, 1100)))
    assert [(picture.width, picture.height) for picture in look(tmp_path).pictures][1] == (1300, 1100)


@links
def test_scan_changes_nothing_in_the_folder(tmp_path: Path) -> None:
    put(tmp_path, ["train/a/1.png", "train/b/2.JPG", "test/a/3.png", "train/a/.x.png"])
    (tmp_path / "train/a/broken.png").write_bytes(b"broken")
    (tmp_path / "train/a/link.png").symlink_to("1.png")
    before = state_of(tmp_path)
    look(tmp_path)
    assert state_of(tmp_path) == before
    assert len(before) == 11


def test_scan_of_few_and_uneven_pictures_warns_of_nothing(tmp_path: Path) -> None:
    """That is told by findings: tests/test_balance.py."""
    put_classes(tmp_path, {"a": 12, "b": 1})
    assert look(tmp_path).warnings == ()


def test_refuse_at_sight_goes_by_names_alone(tmp_path: Path) -> None:
    (tmp_path / "one" / "only").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "one" / "only" / "1.jpg").write_bytes(b"never opened")
    for folder, sentence in ((tmp_path / "empty", "No picture"), (tmp_path / "one", "has one class, 'only'")):
        with pytest.raises(DataError, match=sentence) as caught:
            refuse_at_sight(folder)
        assert caught.value.exit_code == 3
    with pytest.raises(DataError, match="No picture"):
        finish(scan(tmp_path / "empty", workers=0))
    (tmp_path / "one" / "other").mkdir()
    (tmp_path / "one" / "other" / "1.jpg").write_bytes(b"never opened")
    refuse_at_sight(tmp_path / "one")  # what is in the files is another matter
