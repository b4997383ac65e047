"""From findings to lines of a patch: what is certain is ready, what may be our mistake waits, and applied it mends what it names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from test_copy_findings import pictures_of

from foldertune.data.patch import PatchLine, apply_patch
from foldertune.diagnosis.copies import copy_findings
from foldertune.diagnosis.duplicates import Pair
from foldertune.diagnosis.findings import Asked
from foldertune.proposals import propose
from foldertune.records import Dataset, Evidence, Finding, Picture

ASKED = Asked(Path("photos"))


def dataset_of(pictures: list[Picture]) -> Dataset:
    return Dataset(Path("photos"), tuple(sorted({each.label for each in pictures})), tuple(pictures), "folders")


def finding(kind: str, *rows: Evidence) -> Finding:
    return Finding(kind, "Something.", "warning", 0.5, rows, "foldertune look photos")


def copies(dataset: Dataset, *pairs: Pair) -> list[Finding]:
    return list(copy_findings(dataset.readable, pairs, given_splits=True, asked=ASKED))


def told(lines: list[PatchLine]) -> list[tuple[str, str, str]]:
    return [("?" * line.proposed + line.action, line.path, line.reason) for line in lines]


def test_propose_for_suspects_waits_with_both_classes_and_the_content() -> None:
    dataset = dataset_of(pictures_of("train", "train", labels="ab"))
    row = Evidence("a/0.png", 0.9, "97% b, 1% a", label="a", suggested="b")
    assert propose(dataset, [finding("label_suspect", row)]) == [
        PatchLine(
            "relabel", "a/0.png", "b", "a", "looks like b: 97% b, 1% a", dataset.pictures[0].sha256, proposed=True
        )
    ]


def test_propose_keeps_one_of_each_copy_and_is_sure_only_of_the_same_content() -> None:
    pictures = pictures_of("train", "train", "train", "train", "train", "train")
    pictures[1], pictures[2] = (replace(pictures[row], sha256=pictures[0].sha256) for row in (1, 2))
    dataset = dataset_of(pictures)
    pairs = [Pair(0, 3, 0.9, "cropped"), Pair(3, 4, 0.9, "cropped"), Pair(0, 4, 0.9, "mirrored")]
    lines = propose(dataset, copies(dataset, *pairs))
    assert [(action, path) for action, path, _ in told(lines)] == [
        ("exclude", "a/1.png"), ("exclude", "a/2.png"), ("?exclude", "a/3.png"), ("?exclude", "a/4.png"),
    ]  # fmt: skip
    after, _ = apply_patch(dataset, [replace(line, proposed=False) for line in lines])
    assert [picture.path for picture in after.readable] == ["a/0.png", "a/5.png"]
    assert copies(after, *pairs) == []


def test_propose_for_a_leak_leaves_out_what_teaches_and_mends_it() -> None:
    dataset = dataset_of(pictures_of("test", "train", "val", "train"))
    pairs = [Pair(0, 1, 0.9, "cropped"), Pair(2, 3, 0.9, "the same")]
    lines = propose(dataset, copies(dataset, *pairs))
    assert told(lines) == [
        ("exclude", "a/1.png", "also in test: a/0.png"), ("exclude", "a/3.png", "also in val: a/2.png"),
    ]  # fmt: skip
    assert copies(apply_patch(dataset, lines)[0], *pairs) == []


def test_propose_for_a_leak_of_val_and_test_leaves_the_test_as_it_was() -> None:
    dataset = dataset_of(pictures_of("train", "test", "val"))
    lines = propose(dataset, copies(dataset, Pair(1, 2, 0.9, "mirrored")))
    assert told(lines) == [("exclude", "a/2.png", "also in test: a/1.png")]


def test_propose_for_a_parted_group_waits_and_names_all_of_it_that_teaches() -> None:
    pictures = [replace(each, group="Ada") for each in pictures_of("train", "train", "test", "train")]
    pictures.append(replace(pictures[0], row=4, path="a/4.png", sha256="e" * 64, group="Ben"))
    dataset = dataset_of(pictures)
    lines = propose(dataset, copies(dataset))
    reason = "of the group Ada, as a/2.png in test"
    assert told(lines) == [("?exclude", f"a/{row}.png", reason) for row in (0, 1, 3)]
    after, _ = apply_patch(dataset, [replace(line, proposed=False) for line in lines])
    assert copies(after) == []


def test_propose_what_one_finding_doubts_and_another_knows_is_known() -> None:
    pictures = [replace(each, group="Ada") for each in pictures_of("train", "train", "test")]
    dataset = dataset_of(pictures)
    lines = propose(dataset, copies(dataset, Pair(1, 2, 0.9, "cropped")))
    assert [(action, path) for action, path, _ in told(lines)] == [("?exclude", "a/0.png"), ("exclude", "a/1.png")]


def test_propose_for_a_conflict_shows_both_and_decides_nothing() -> None:
    dataset = dataset_of(pictures_of("train", "train", labels="ab"))
    lines = propose(dataset, copies(dataset, Pair(0, 1, 0.9, "mirrored")))
    assert told(lines) == [
        ("?exclude", path, "one picture, two classes: a and b: mirrored") for path in ("a/0.png", "b/1.png")
    ]


def test_propose_for_a_conflict_in_which_the_network_takes_a_side_shows_the_other_one() -> None:
    dataset = dataset_of(pictures_of("train", "train", labels="ab"))
    row = Evidence("a/0.png", 0.9, "a and b: mirrored; looks like a", other="b/1.png", label="a", suggested="a")
    suspect = finding("label_suspect", Evidence("b/1.png", 0.9, "97% a", label="b", suggested="a"))
    for findings in ([finding("label_conflict", row), suspect], [suspect, finding("label_conflict", row)]):
        # Not relabelled as well: the class that it belongs to has the picture, and both lines together would be refused.
        assert told(propose(dataset, findings)) == [
            ("?exclude", "b/1.png", "one picture, two classes: a and b: mirrored; looks like a")
        ]


def test_propose_for_a_conflict_of_which_a_member_is_suspected_offers_no_second_action() -> None:
    dataset = dataset_of(pictures_of("train", "train", labels="ab"))
    suspect = finding("label_suspect", Evidence("a/0.png", 0.9, "97% c", label="a", suggested="c"))
    lines = propose(dataset, [suspect, *copies(dataset, Pair(0, 1, 0.9, "mirrored"))])
    assert [(action, path) for action, path, _ in told(lines)] == [("?exclude", "a/0.png"), ("?exclude", "b/1.png")]


def test_propose_for_pictures_that_show_nothing_waits() -> None:
    dataset = dataset_of(pictures_of("train", "train"))
    for kind in ("blank", "dark", "overexposed", "blurred", "outlier"):
        lines = propose(dataset, [finding(kind, Evidence("a/1.png", 0.5, "why"))])
        assert told(lines) == [("?exclude", "a/1.png", f"{kind}: why")]


def test_propose_for_what_no_patch_mends_writes_nothing() -> None:
    dataset = dataset_of(pictures_of("train", "train"))
    rows = [Evidence("a/1.png", 0.5), Evidence("a", 0.5, label="a")]
    for kind in ("shortcut", "imbalance", "too_few", "tiny", "unreadable", "crop_loss", "augmentation_conflict"):
        assert propose(dataset, [finding(kind, *rows)]) == []


def test_propose_keeps_the_lines_of_the_patch_in_force_first_and_as_they_were_edited() -> None:
    dataset = dataset_of(pictures_of("train", "train", "train"))
    kept = [
        PatchLine("exclude", "a/9.png", reason="mine"),
        PatchLine("exclude", "a/1.png", reason="mine", proposed=True),
    ]
    rows = [Evidence("a/0.png", 1.0, "the same content", other=f"a/{row}.png") for row in (1, 2)]
    lines = propose(dataset, [finding("exact_duplicate", *rows)], kept)
    assert lines[:2] == kept
    assert [(line.path, line.proposed) for line in lines[2:]] == [("a/2.png", False)]


def test_propose_leaves_out_the_smaller_of_two_copies_whichever_comes_first() -> None:
    pictures = pictures_of("train", "train", labels="aa")
    for first, second in ((100, 224), (224, 100)):
        both = [replace(pictures[0], width=first, height=first), replace(pictures[1], width=second, height=second)]
        row = Evidence(both[0].path, 0.9, "the same", other=both[1].path)
        (line,) = propose(dataset_of(both), [finding("near_duplicate", row)])
        assert line.path == min(both, key=lambda one: one.width).path
        assert line.proposed
