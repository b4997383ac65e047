"""The card's front matter is read by the hub's own library, its tables line by line."""

from __future__ import annotations

import re
from typing import Any

import pytest
from huggingface_hub import ModelCard
from invented import HOSTILE, NAMES, facts_of, invented

from foldertune.evaluation.card import render_card
from foldertune.evaluation.markup import visible
from foldertune.evaluation.report import ReportFacts
from foldertune.preprocess import Preprocess


def card_of(facts: ReportFacts, **changes: Any) -> str:
    given_: dict[str, Any] = {
        "model": "resnet50", "weights_source": "https://huggingface.co/timm/resnet50.tv_in1k",
        "licence": "BSD-3-Clause", "preprocess": Preprocess().to_dict(), **changes,
    }  # fmt: skip
    return render_card(facts, **given_)


def test_render_card_front_matter_is_read_by_the_hub_library() -> None:
    facts = facts_of(NAMES)
    data: Any = ModelCard(card_of(facts)).data
    assert [data[name] for name in ("pipeline_tag", "library_name", "license")] == [
        "image-classification",
        "timm",
        "bsd-3-clause",
    ]
    assert data.metrics == ["accuracy", "f1"]
    assert data.eval_results is not None
    assert [result.metric_type for result in data.eval_results] == ["accuracy", "f1"]
    assert data.eval_results[0].metric_value == pytest.approx(facts.evaluation.accuracy.value, abs=1e-6)


@pytest.mark.parametrize(("licence", "named"), [("", "not-stated"), ("CC BY-NC/ours: yes", "cc-by-nc-ours-yes")])
def test_render_card_unknown_licence_is_other(licence: str, named: str) -> None:
    data: Any = ModelCard(card_of(facts_of(NAMES), licence=licence)).data
    assert (data.license, data.license_name) == ("other", named)


def test_render_card_says_where_no_licence_is_known() -> None:
    for licence in ("", "not stated"):
        assert "The starting weights come with no licence that is known here." in card_of(
            facts_of(NAMES), licence=licence
        )
    assert "The starting weights are under BSD-3-Clause." in card_of(facts_of(NAMES), licence="BSD-3-Clause")


@pytest.mark.parametrize(
    "title", [HOSTILE, "yes", "- a: b", "1e3", "", "a\n---\nlicense: mit", "{x}: 'y' \"z\" #", "😀"]
)
def test_render_card_hostile_title_stays_a_string(title: str) -> None:
    data: Any = ModelCard(card_of(facts_of(NAMES, title=title))).data
    assert data.license == "bsd-3-clause"
    assert data.to_dict()["model-index"][0]["name"] == visible(title)


def test_render_card_ordinary_facts_show_figures_and_counts() -> None:
    facts = facts_of(NAMES)
    found, text = facts.evaluation, card_of(facts).replace("\u00a0", " ")
    for share in (found.accuracy.value, found.accuracy.low, found.accuracy.high, found.macro_f1):
        assert f"{100 * share:.1f} %" in text
    for score in found.per_class:
        assert f"| {score.label} | {score.num_pictures} | {100 * score.recall:.1f} % |" in text
    for piece in ("| ant | 111 | 30 |", "1,275 train", "foldertune predict RUN picture.jpg", "timm.create_model"):
        assert piece in text
    assert "Not for medical use" in text
    assert "<https://huggingface.co/timm/resnet50.tv_in1k>" in text


def test_render_card_names_of_classes_do_not_break_its_tables() -> None:
    text = card_of(facts_of((HOSTILE, "a|b", "c")))
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    widths = {len(re.findall(r"(?<!\\)\|", row)) for row in rows}
    assert widths == {4, 6, 7}
    assert not re.search(r"(?<!\\)<script", text)
    text.encode("utf-8")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("https://huggingface.co/timm/resnet50.tv_in1k", "The starting weights were trained on ImageNet."),
        ("vit_base_patch16_224.augreg2_in21k_ft_in1k", "The starting weights were trained on ImageNet."),
        ("/data/mine.safetensors", "if these were: ImageNet's own terms are for non-commercial research"),
        ("random", "trained from random weights"),
    ],
)
def test_render_card_source_of_weights_decides_what_is_said_of_imagenet(source: str, said: str) -> None:
    text = card_of(facts_of(NAMES), weights_source=source)
    assert said in text
    assert ("ImageNet" in text) == (source != "random")


def test_render_card_class_missing_from_test_is_named_as_a_limit() -> None:
    found = invented(NAMES, 200, absent=2)
    text = card_of(facts_of(NAMES, evaluations={"baseline": found}, kept="baseline", class_counts={}))
    assert "Nothing is known about classes without test pictures: cat." in text
    assert "| cat | 0 | — | — | — |" in text
