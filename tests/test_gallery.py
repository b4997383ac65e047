"""The pictures of a report: anchors that the matrix leads to, bounds that keep the file small."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from invented import HOSTILE, facts_of
from PIL import Image

from foldertune.evaluation.gallery import NUM_UNFOLDED, Mistake, MixedPair, mistakes_gallery, pair_anchor, pairs_gallery
from foldertune.evaluation.report import render_report
from foldertune.records import Evidence, Finding, Picture
from foldertune.scores import ConfusedPair
from foldertune.training.exhibits import (
    MOST_OF_FINDINGS,
    MOST_OF_PAIRS,
    NUM_MISTAKES,
    find_mistakes,
    finding_thumbnails,
    mapped_pictures,
    mixed_pairs,
    shared_out,
)

CLASSES = ("a", "b", "c")


class Pictures:
    """A pack of which each picture is of one grey, its place."""

    def read(self, places: Any) -> Any:
        return np.stack([np.full((8, 8, 3), place % 256, np.uint8) for place in places])


def material_of(num_test: int) -> tuple[Any, Any]:
    """Test pictures of which every third is answered rightly, and their probabilities (N, K)."""
    labels = np.arange(num_test) % 3
    answers = np.where(np.arange(num_test) % 9 < 3, labels, (labels + 1) % 3)
    sure = np.linspace(0.5, 0.9, num_test, dtype=np.float32)
    probabilities = np.repeat((1 - sure[:, None]) / 2, 3, axis=1)
    probabilities[np.arange(num_test), answers] = sure
    test = tuple(Picture(row, f"test/{row}.jpg", CLASSES[label], split="test") for row, label in enumerate(labels))
    train = tuple(Picture(1000 + row, f"train/{row}.jpg", "a", split="train") for row in range(20))
    material = SimpleNamespace(
        dataset=SimpleNamespace(classes=CLASSES, folder=Path("nowhere")), pictures={"train": train, "val": (), "test": test},
        labels={"test": labels}, packs={split: Pictures() for split in ("train", "val", "test")},
    )  # fmt: skip
    return material, probabilities


def confused_of(material: Any, probabilities: Any) -> list[ConfusedPair]:
    """As the record of an evaluation has them: the surest answer first."""
    found: dict[tuple[str, str], list[Picture]] = {}
    for place in np.argsort(-probabilities.max(1), kind="stable"):
        picture, answer = material.pictures["test"][place], CLASSES[int(probabilities[place].argmax())]
        if answer != picture.label:
            found.setdefault((picture.label, answer), []).append(picture)
    return [
        ConfusedPair(*pair, len(each), tuple(p.row for p in each), tuple(p.path for p in each))
        for pair, each in found.items()
    ]


def test_find_mistakes_are_the_surest_wrong_answers() -> None:
    material, probabilities = material_of(90)
    found = find_mistakes(material, probabilities)
    expected = [row for row in range(89, -1, -1) if row % 9 >= 3][:NUM_MISTAKES]
    assert [each.path for each in found] == [f"test/{row}.jpg" for row in expected]
    assert found[0].probability == pytest.approx(0.9)
    assert all(each.answer != each.label for each in found)


def test_mixed_pairs_show_the_pictures_of_each_pair_with_their_probability() -> None:
    material, probabilities = material_of(90)
    confused = confused_of(material, probabilities)
    for pair, source in zip(mixed_pairs(material, probabilities, confused), confused, strict=True):
        assert (pair.label, pair.answer, pair.num_pictures) == (source.label, source.answer, source.num_pictures)
        assert [each.path for each in pair.shown] == list(source.paths)[: len(pair.shown)]
        for each in pair.shown:
            assert each.probability == pytest.approx(probabilities[int(each.path[5:-4])].max())
            assert (each.label, each.answer) == (pair.label, pair.answer)


@given(st.lists(st.integers(0, 30), max_size=12), st.integers(0, 60))
def test_shared_out_is_even_and_gives_all_that_there_is(counts: list[int], total: int) -> None:
    given_ = shared_out(counts, total)
    assert sum(given_) == min(total, sum(counts))
    assert all(0 <= one <= most for one, most in zip(given_, counts, strict=True))
    cut = [one for one, most in zip(given_, counts, strict=True) if one < most]
    assert not cut or max(given_) - min(cut) <= 1


def finding(kind: str, rows: tuple[Evidence, ...]) -> Finding:
    return Finding(kind, "sentence", "warning", 0.5, rows, "command")


def test_finding_thumbnails_are_bounded_and_of_the_first_findings() -> None:
    material, _ = material_of(300)
    findings = [
        finding("outlier", tuple(Evidence(f"test/{5 * number + row}.jpg", 0.5) for row in range(9)))
        for number in range(50)
    ]
    found = finding_thumbnails(material, findings)
    assert list(found) == [f"test/{row}.jpg" for row in range(MOST_OF_FINDINGS)]


def test_mapped_pictures_are_mistakes_for_their_answer_and_suspects_for_what_they_are_like() -> None:
    material, probabilities = material_of(90)
    rows = tuple(Evidence(f"train/{row}.jpg", 0.9, label="a", suggested="c") for row in range(20))
    found = mapped_pictures(material, probabilities, [finding("label_suspect", rows), finding("outlier", rows)])
    mistakes = [each for each in found if each.split == "test"]
    assert [each.path for each in mistakes] == [each.path for each in find_mistakes(material, probabilities)]
    assert all(probabilities[each.place].argmax() == each.class_number for each in mistakes)
    suspects = [each for each in found if each.split == "train"]
    assert [(each.path, each.place, each.class_number) for each in suspects] == [
        (f"train/{row}.jpg", row, 2) for row in range(12)
    ]


def mistakes_of(number: int) -> tuple[Mistake, ...]:
    return tuple(Mistake(f"test/{row}.jpg", "a", "b", 0.9, b"jpeg") for row in range(number))


def test_mistakes_gallery_folds_those_after_the_first_dozen() -> None:
    text = mistakes_gallery(mistakes_of(NUM_UNFOLDED + 5), {})
    assert text.partition("<details>")[0].count("<figure>") == NUM_UNFOLDED
    assert "5\u00a0more mistakes" in text
    assert "<details>" not in mistakes_gallery(mistakes_of(NUM_UNFOLDED), {})


def test_mistakes_gallery_shows_the_map_of_the_answer_alone() -> None:
    maps = {("test/0.jpg", "b"): b"map", ("test/1.jpg", "a"): b"other"}
    text = mistakes_gallery(mistakes_of(2), maps)
    assert text.count("<img ") == 3
    assert "what speaks for b in bright colours" in text


def test_pairs_gallery_says_what_is_left_out_and_where_it_is() -> None:
    pair = MixedPair("a", HOSTILE, 30, mistakes_of(4))
    text = pairs_gallery([pair], ("a", HOSTILE))
    assert f'id="{pair_anchor(0, 1)}"' in text
    assert '26\u00a0more pictures in <a href="predictions.csv">' in text
    assert "more" not in pairs_gallery([MixedPair("a", "b", 4, mistakes_of(4))], ("a", "b")).replace("&more", "")


def test_report_cells_of_shown_pairs_lead_to_their_pictures_and_no_others() -> None:
    source = render_report(facts_of(("x", "y", "z")))
    links = re.findall(r'<td class="wrong"[^>]*><a href="#([^"]+)"', source)
    assert sorted(links) == [pair_anchor(0, 1), pair_anchor(1, 0)]
    for anchor in links:
        assert source.count(f'id="{anchor}"') == 1
    assert "these are the 2 most frequent" in source
    assert '<td class="right"' in source
    assert not re.search(r'<td class="right"[^>]*><a', source)


def test_report_without_test_pictures_of_pairs_has_no_links_in_its_matrix() -> None:
    source = render_report(facts_of(("x", "y", "z"), pairs=()))
    assert 'href="#' not in source
    assert "Confused pairs" not in source


def test_report_says_that_maps_are_no_proof_where_there_are_some() -> None:
    facts = facts_of(("x", "y", "z"))
    assert render_report(facts).count("A map is no proof: <code>foldertune explain RUN IMAGE</code>") == 1
    rows = (Evidence("test/a/1.jpg", 0.9, label="x", suggested="y"),)
    doubted = dataclasses.replace(
        facts, data_findings=(finding("label_suspect", rows),), thumbnails={"test/a/1.jpg": b"jpeg"}
    )
    source = render_report(doubted)
    assert source.count("A map is no proof") == 2
    assert '<figure class="pair">' in source
    assert "A map is no proof" not in render_report(dataclasses.replace(doubted, maps={}))


def test_shown_pictures_are_at_most_two_hundred() -> None:
    assert NUM_MISTAKES + MOST_OF_FINDINGS + MOST_OF_PAIRS == 200
    material, probabilities = material_of(900)
    pairs = mixed_pairs(material, probabilities, confused_of(material, probabilities))
    assert sum(len(pair.shown) for pair in pairs) <= MOST_OF_PAIRS
    assert sum(pair.num_pictures for pair in pairs) == 600


def test_finding_thumbnails_show_the_whole_picture_also_what_the_network_does_not_see(tmp_path: Path) -> None:
    """A mark in a corner that the crop cuts off has to be seen."""
    wide = np.zeros((100, 300, 3), np.uint8)
    wide[:, 280:] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    content = (tmp_path / "wide.png").read_bytes()
    kept = Picture(0, "wide.png", "a", split="train", width=300, height=100, sha256=hashlib.sha256(content).hexdigest())
    gone = dataclasses.replace(kept, row=1, path="gone.png")
    material: Any = SimpleNamespace(
        dataset=SimpleNamespace(classes=CLASSES, folder=tmp_path), pictures={"train": (kept, gone), "val": (), "test": ()},
        labels={}, packs={"train": Pictures()},
    )  # fmt: skip
    rows = (Evidence("wide.png", 1.0), Evidence("gone.png", 1.0))
    shown = finding_thumbnails(material, [Finding("shortcut", "A sentence.", "serious", 0.9, rows, "a command")])
    sizes = {path: Image.open(io.BytesIO(jpeg)).size for path, jpeg in shown.items()}
    assert sizes["wide.png"] == (160, 53)
    assert sizes["gone.png"][0] == sizes["gone.png"][1]  # what the pack has, a square
    assert np.asarray(Image.open(io.BytesIO(shown["wide.png"])))[26, 155].min() > 200


def test_find_mistakes_marks_those_whose_label_is_doubted() -> None:
    material, probabilities = material_of(30)
    first = find_mistakes(material, probabilities)[0]
    assert not first.doubted
    suspects = Finding(
        "label_suspect", "A sentence.", "warning", 0.9, (Evidence(first.path, 0.9, suggested="b"),), "a command"
    )
    marked = find_mistakes(material, probabilities, [suspects])
    assert [one.path for one in marked if one.doubted] == [first.path]
    assert mistakes_gallery(marked, {}).count(">doubted</span>") == 1
