"""The report is read back with an independent HTML parser."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from invented import HOSTILE, NAMES, epoch, facts_of, invented
from PIL import Image

from foldertune.evaluation.figures import confusions
from foldertune.evaluation.gallery import Mistake, thumbnail
from foldertune.evaluation.markup import percent, table, visible
from foldertune.evaluation.metrics import evaluate_probabilities
from foldertune.evaluation.report import render_report
from foldertune.records import AccuracyRange, Decision, Interval, Picture, Plan
from foldertune.scores import CrossValidation

RUN_FILES = {
    "metrics.json", "predictions.csv", "history.jsonl", "findings.json", "look.json", "dataset.csv", "plan.json", "run.json",
    "config.json",
}  # fmt: skip
VOID = {"meta", "img", "br", "link", "hr", "input"}
# In HTML, an element of SVG may close itself.
SELF_CLOSING = {"line", "circle", "polyline"}


class Page(HTMLParser):
    """Elements with attributes, text by element, and whether every element was closed in its turn."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in SELF_CLOSING
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_render_report_ordinary_facts_show_every_figure() -> None:
    facts = facts_of(NAMES)
    text = Page(render_report(facts)).text
    for found in facts.evaluations.values():
        for share in (found.accuracy.value, found.accuracy.low, found.accuracy.high, found.macro_f1, found.top5):
            assert share is not None
            assert f"{100 * share:.1f} %" in text
        assert f"{found.log_loss:.3f}" in text
    for score in facts.evaluation.per_class:
        assert score.label in text
        for share in (score.precision, score.recall, score.f1):
            assert f"{100 * share:.1f} %" in text
    for record in facts.history:
        assert f"{record.train_loss:.3f}" in text
        assert f"{100 * (record.val_accuracy or 0):.1f} %" in text
    expected = (
        "clothing", "2026-11-23 14:51 UTC", "The fine-tuned model is kept.", "1,275", "186", "batch size", "16",
        "given by the user", "0.0003", "rule auto-rate", "none", "97.3 %", "test/a/1.jpg", "train/a/broken.jpg",
        "the file is cut short", "hidden file", "Few pictures.", "The plan worries about memory.", "3.12.4", "2.13.0",
        "4.3 minutes", "4.1 minutes", "1,890", "111",
    )  # fmt: skip
    assert [piece for piece in expected if piece not in text] == []


def test_render_report_holds_the_forecast_of_accuracy_against_what_was_reached() -> None:
    facts = facts_of(NAMES)

    def shown(**changes: Any) -> str:
        assert facts.plan.forecast is not None
        plan = dataclasses.replace(facts.plan, forecast=dataclasses.replace(facts.plan.forecast, **changes))
        return Page(render_report(dataclasses.replace(facts, plan=plan))).text

    expected = AccuracyRange(0.884, 0.82, 0.951, 0.9, 0.86, 200, 300, "why")
    reached = f"{100 * facts.evaluation.accuracy.value:.1f} %"
    told = f"Forecast: accuracy between 82.0 % and 95.1 % in 90 % of runs, 88.4 % expected. It reached {reached}."
    assert told in shown(accuracy=expected)
    assert "The accuracy was not forecast: there are <too few>." in shown(no_accuracy="there are <too few>")
    assert "accuracy was not forecast" not in shown()
    assert "Forecast: accuracy" not in shown()


def test_render_report_confusion_matrix_is_read_back_from_its_table() -> None:
    facts = facts_of(NAMES)
    source = render_report(facts)
    body = re.search(r'aria-label="Confusion matrix"><table>.*?</table>', source, re.DOTALL)
    assert body is not None
    rows = re.findall(r'<tr><th scope="row".*?</tr>', body[0])
    cells = [
        [int(cell or 0) for cell in re.findall(r"<td[^>]*>(?:<a [^>]*>)?(\d*)(?:</a>)?</td>", row)] for row in rows
    ]
    assert cells == [list(row) for row in facts.evaluation.confusion]


def test_render_report_hostile_names_stay_text() -> None:
    classes = (HOSTILE, "b" + HOSTILE, "שלום", "名前")
    plan = Plan((Decision(HOSTILE, HOSTILE, HOSTILE, HOSTILE),), None, (HOSTILE,))
    facts = facts_of(
        classes, title=HOSTILE, created=HOSTILE, verdict=HOSTILE, plan=plan, warnings=(HOSTILE,),
        mistakes=(Mistake(HOSTILE, classes[0], classes[1], 0.5, b""), Mistake(HOSTILE, HOSTILE, HOSTILE, 0.5, b"x")),
        unreadable=(Picture(0, HOSTILE, HOSTILE, problem=HOSTILE),), skipped={HOSTILE: 1},
        environment={HOSTILE: HOSTILE}, run=HOSTILE, class_counts={HOSTILE: {HOSTILE: 1}}, num_pictures={HOSTILE: 1},
    )  # fmt: skip
    source = render_report(facts)
    page = Page(source)
    source.encode("utf-8")
    assert page.named("script") == []
    assert len(page.named("style")) == 1
    assert not [key for _, attributes in page.elements for key in attributes if key.startswith("on")]
    assert "<script>alert('x')</script>\"'&\\n\\u202egnp." in page.text
    assert not re.search("[\u202e\u2028\x00]", source)
    assert page.open == []


@settings(max_examples=30)
@given(st.lists(st.text(min_size=1, max_size=12), min_size=2, max_size=4, unique=True))
def test_render_report_any_names_leave_the_structure_as_it_is(names: list[str]) -> None:
    def tags(classes: tuple[str, ...]) -> list[str]:
        page = Page(render_report(facts_of(classes, title=classes[0])))
        assert page.open == []
        return [tag for tag, _ in page.elements]

    assert tags(tuple(names)) == tags(NAMES[: len(names)])


@pytest.mark.parametrize("num_classes", [2, 10, 31, 120])
def test_render_report_any_number_of_classes_asks_for_nothing_outside(num_classes: int) -> None:
    facts = facts_of(tuple(f"species {number}" for number in range(num_classes)))
    source = render_report(facts)
    page = Page(source)
    assert page.open == []
    sources = [value or "" for _, given_ in page.elements for key, value in given_.items() if key in ("src", "srcset")]
    assert sources
    assert all(value.startswith("data:image/jpeg;base64,") for value in sources)
    anchors = {f"#{given_['id']}" for _, given_ in page.elements if "id" in given_}
    assert {given_.get("href") for given_ in page.named("a")} <= RUN_FILES | anchors
    assert not re.search(r"https?:|url\(|@import", source)
    assert len(source) < 60_000 + 60 * num_classes**2
    assert ('class="scroll matrix many"' in source) == (num_classes > 30)


def test_render_report_baseline_alone_needs_no_epoch() -> None:
    facts = facts_of(NAMES)
    alone = dataclasses.replace(
        facts, history=(), verdict="The baseline is kept.", kept="baseline", mistakes=(), unreadable=(), skipped={},
        evaluations={"baseline": facts.evaluations["baseline"]}, warnings=(), class_counts={}, environment={},
        plan=Plan(()),
    )  # fmt: skip
    page = Page(render_report(alone))
    assert page.named("svg") == []
    assert "the baseline is the model" in page.text
    for absent in ("Worst mistakes", "Worth knowing", "Left out", "fine-tuned", "Made with"):
        assert absent not in page.text


def test_render_report_class_missing_from_test_has_dashes_and_keeps_its_place() -> None:
    found = invented(NAMES, 200, absent=2)
    text = Page(render_report(facts_of(NAMES, evaluations={"baseline": found}, kept="baseline"))).text
    assert re.search(r"cat ?0 ?— ?— ?—", text)


def test_render_report_everything_right_says_so() -> None:
    found = evaluate_probabilities(np.eye(2), np.array([0, 1]), classes=("a", "b"), split="test")
    facts = facts_of(("a", "b"), evaluations={"baseline": found}, kept="baseline", mistakes=())
    text = Page(render_report(facts)).text
    assert "Every picture of the test split is answered correctly." in text
    assert "100.0 %" in text
    assert "Most frequent confusions" not in text


def test_render_report_one_epoch_is_an_open_table() -> None:
    page = Page(render_report(facts_of(NAMES, history=(epoch(1),))))
    assert page.named("svg") == []
    assert "open" in page.named("details")[0]


def test_render_report_can_be_read_without_seeing_it() -> None:
    page = Page(render_report(facts_of(NAMES)))
    assert page.named("html") == [{"lang": "en"}]
    assert all(given_.get("scope") in ("col", "row") for given_ in page.named("th"))
    assert all(given_.get("alt") for given_ in page.named("img"))
    assert len(page.named("caption")) == len(page.named("table"))
    identities = {given_["id"] for _, given_ in page.elements if "id" in given_}
    for drawing in page.named("svg"):
        assert drawing["role"] == "img"
        assert set((drawing["aria-labelledby"] or "").split()) <= identities


def test_render_report_twice_gives_the_same_text() -> None:
    assert render_report(facts_of(NAMES)) == render_report(facts_of(NAMES))


def luminance(colour: tuple[float, float, float]) -> float:
    """Relative luminance. Source: WCAG 2.2, definition of relative luminance."""
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (c / 255 for c in colour))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: tuple[float, float, float], other: tuple[float, float, float]) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("place", [0, 1], ids=["light", "dark"])
def test_report_style_text_has_contrast_on_every_ground(place: int) -> None:
    root = re.findall(r":root \{(.*?)\}", render_report(facts_of(NAMES)), re.DOTALL)[place]
    named = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6}|\d+ \d+ \d+)", root))

    def colour(name: str) -> tuple[float, float, float]:
        value = named[name]
        numbers = [int(value[i : i + 2], 16) for i in (1, 3, 5)] if value[0] == "#" else map(int, value.split())
        red, green, blue = numbers
        return float(red), float(green), float(blue)

    for text in ("text", "muted", "accent"):
        for ground in ("page", "surface"):
            assert contrast(colour(text), colour(ground)) >= 4.5, (text, ground)
    assert contrast(colour("wrong"), colour("surface")) >= 4.5
    assert contrast(colour("text"), colour("notice")) >= 4.5
    # The deepest shades of the matrix: style sheet, .right and .wrong.
    for shade, share in (("accent-rgb", 0.6), ("wrong-rgb", 0.66)):
        over = zip(colour(shade), colour("surface"), strict=True)
        red, green, blue = (share * top + (1 - share) * below for top, below in over)
        assert contrast(colour("text"), (red, green, blue)) >= 4.5, shade


def test_thumbnail_large_picture_becomes_a_small_jpeg_without_metadata() -> None:
    ramp = np.linspace(0, 255, 300 * 500 * 3).astype(np.uint8).reshape(300, 500, 3)
    small = Image.open(io.BytesIO(thumbnail(ramp)))
    assert (small.format, small.size, small.mode) == ("JPEG", (160, 96), "RGB")
    assert not small.getexif()
    assert thumbnail(ramp) == thumbnail(ramp.copy())
    assert Image.open(io.BytesIO(thumbnail(ramp, side_px=32))).size == (32, 19)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 5000, 3), (20, 10, 3)])
def test_thumbnail_odd_shapes_are_never_enlarged(shape: tuple[int, int, int]) -> None:
    width, height = Image.open(io.BytesIO(thumbnail(np.zeros(shape, np.uint8)))).size
    assert 1 <= height <= shape[0]
    assert 1 <= width <= min(160, shape[1])


def test_render_report_thumbnail_is_the_picture_in_the_page() -> None:
    facts = facts_of(NAMES)
    source = Page(render_report(facts)).named("img")[0]["src"] or ""
    assert base64.b64decode(source.partition(",")[2]) == facts.mistakes[0].thumbnail


def test_confusions_are_counted_and_sorted() -> None:
    labels, answers = np.array([0, 0, 0, 1, 2, 2]), np.array([1, 1, 0, 1, 0, 2])
    found = evaluate_probabilities(np.eye(3)[answers], labels, classes=("a", "b", "c"), split="test")
    told = [(item.label, item.answer, item.num_pictures, round(item.share, 3)) for item in confusions(found)]
    assert told == [("a", "b", 2, 0.667), ("c", "a", 1, 0.5)]


def test_visible_text_of_many_languages_is_left_alone() -> None:
    ordinary = "Übergröße 名前 שלום 👩‍🔬 é ½ – 'quoted'"
    assert visible(ordinary) == ordinary
    assert visible("a\tb\u202ec\udcff\ufeff") == "a\\tb\\u202ec\\udcff\\ufeff"


def test_table_heads_its_rows_and_columns() -> None:
    page = Page(table(["Name", "Count"], [["x", "1"]], caption="c", numeric=[1]))
    assert [given_.get("scope") for given_ in page.named("th")] == ["col", "col", "row"]
    assert page.named("td") == [{"class": "number"}]
    assert percent(0.8817) == "88.2\u00a0%"


def test_report_says_what_cross_validation_adds() -> None:
    facts = facts_of(NAMES)
    share = Interval(0.875, 0.85, 0.9)
    again = CrossValidation(share, (share,) * len(NAMES), 561, 5, 3)
    kept = dataclasses.replace(facts.evaluation, cross_validation=again)
    text = render_report(dataclasses.replace(facts, evaluations={**facts.evaluations, facts.kept: kept}))
    plain = text.replace("\u00a0", " ")
    assert "Cross-validated on all 561 pictures (3 times 5 folds), the head alone answers 87.5 % correctly" in plain
    assert "Cross-validated" not in render_report(facts)
