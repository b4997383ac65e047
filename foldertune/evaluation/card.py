"""The model card of a run: README.md with the front matter that the Hugging Face hub reads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from foldertune.evaluation.markup import SPACE, between, count, percent, visible
from foldertune.evaluation.report import ReportFacts

# The hub's own names of licences. Source: https://huggingface.co/docs/hub/repositories-licenses
HUB_LICENCES = {
    "apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0",
    "gpl-3.0", "lgpl-3.0", "agpl-3.0", "mpl-2.0", "unlicense", "openrail",
}  # fmt: skip
# How sources of weights name ImageNet's two sets: timm's in1k, in21k, in22k, in12k and the full word.
_IMAGENET = re.compile(r"imagenet|in1k|in12k|in2[12]k", re.IGNORECASE)
# What begins something in Markdown; an underscore inside a word does not.
_MARKDOWN = re.compile(r"([\\`*\[\]|~<>&$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")
_ADDRESS = re.compile(r"https://[A-Za-z0-9._/-]+")


def render_card(
    facts: ReportFacts, *, model: str, weights_source: str, licence: str, preprocess: Mapping[str, Any]
) -> str:
    """The card as Markdown text, to be written as UTF-8.

    model: the network's name, such as "resnet50".   weights_source: address, tag or path of the starting weights, or
    "random".   licence: that of the starting weights as an SPDX name; "" where it is not known.
    preprocess: Preprocess.to_dict().
    """
    parts = [
        _front_matter(facts, licence),
        f"# {_text(facts.title)}",
        f"A {_text(model)} that tells {count(len(facts.classes), 'class')} of pictures apart, made with Foldertune on "
        f"{_text(facts.created)}. {_text(facts.verdict)}",
        *_figures(facts),
        *_training(facts, model, weights_source),
        *_usage(preprocess),
        *_limits(facts),
        *_licences(weights_source, licence),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(facts: ReportFacts, licence: str) -> str:
    """YAML; every string of a user is written as a JSON string, which YAML reads the same."""
    found, title, known = facts.evaluation, _quoted(facts.title), licence.lower() in HUB_LICENCES
    metrics = [("accuracy", "Accuracy", found.accuracy.value), ("f1", "Macro F1", found.macro_f1)]
    named = re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-") or "not-stated"
    lines = [
        f"license: {licence.lower()}" if known else f"license: other\nlicense_name: {_quoted(named)}",
        "library_name: timm",
        "pipeline_tag: image-classification",
        "tags:\n- image-classification\n- timm\n- foldertune",
        "metrics:\n- accuracy\n- f1",
        f"model-index:\n- name: {title}\n  results:\n  - task:\n      type: image-classification",
        f"    dataset:\n      type: imagefolder\n      name: {title}\n      split: {_quoted(found.split)}",
        "    metrics:",
        *(f"    - type: {kind}\n      name: {name}\n      value: {value:.6f}" for kind, name, value in metrics),
    ]
    return "\n".join(["---", *lines, "---"])


def _figures(facts: ReportFacts) -> Iterator[str]:
    found = facts.evaluation
    yield "## Figures"
    yield (
        f"**Accuracy {percent(found.accuracy.value)}**, with a 95{SPACE}% interval of {between(found.accuracy)}, "
        f"measured once on {count(found.num_pictures, 'picture')} of the {_text(found.split)} split, "
        "which chose nothing."
    )
    head = ["Model", "Accuracy", f"95{SPACE}% interval", "Top 5", "Macro F1", "Log loss"]
    rows = [
        [
            _text(key) + (" (kept)" if key == facts.kept else ""),
            percent(one.accuracy.value),
            between(one.accuracy),
            "—" if one.top5 is None else percent(one.top5),
            percent(one.macro_f1),
            f"{one.log_loss:.3f}",
        ]
        for key, one in facts.evaluations.items()
    ]
    yield _table(head, rows)
    yield "### Classes"
    yield _table(["Class", "Pictures", "Recall", "Precision", "F1"], [
        [_text(score.label), f"{score.num_pictures:,}", *(
            percent(value) if score.num_pictures else "—" for value in (score.recall, score.precision, score.f1)
        )]
        for score in found.per_class
    ])  # fmt: skip


def _training(facts: ReportFacts, model: str, weights_source: str) -> Iterator[str]:
    yield "## What it was trained on"
    source = f"<{weights_source}>" if _ADDRESS.fullmatch(weights_source) else _text(weights_source)
    start = "random weights" if weights_source == "random" else f"the weights {source}"
    splits = ", ".join(f"{number:,} {_text(split)}" for split, number in facts.num_pictures.items())
    yield (
        f"Pictures: {splits}. {_text(model)} started from {start} and took {facts.minutes:.1f} minutes. "
        "The train split taught it, the val split chose between states, the test split only measured."
    )
    if facts.class_counts:
        names = list(facts.class_counts)
        yield _table(
            ["Class", *map(_text, names)],
            [
                [_text(label), *(f"{facts.class_counts[split].get(label, 0):,}" for split in names)]
                for label in facts.classes
            ],
        )
    if facts.unreadable:
        yield f"Left out, each with its reason in report.html: {count(len(facts.unreadable), 'picture')}."
    yield "Every setting with its reason stands in plan.json and report.html."


def _usage(preprocess: Mapping[str, Any]) -> Iterator[str]:
    yield "## How to use it"
    yield "With Foldertune, where RUN is this folder:"
    yield "```sh\nfoldertune predict RUN picture.jpg\n```"
    yield "With timm (tried with 1.0.31), started in this folder:"
    yield (
        "```python\n"
        "import json\n\nimport timm\nimport torch\nfrom PIL import Image\n\n"
        'model = timm.create_model("local-dir:.", pretrained=True).eval()\n'
        "config = timm.data.resolve_model_data_config(model)\n"
        "transform = timm.data.create_transform(**config, is_training=False)\n"
        'names = json.load(open("config.json", encoding="utf-8"))["label_names"]\n'
        "with torch.inference_mode():\n"
        '    picture = transform(Image.open("picture.jpg").convert("RGB"))\n'
        "    probabilities = model(picture[None]).softmax(1)[0]\n"
        "print(names[int(probabilities.argmax())], float(probabilities.max()))\n"
        "```"
    )
    yield "Its preprocessing (preprocess.json):"
    yield f"```json\n{json.dumps(dict(preprocess))}\n```"


def _limits(facts: ReportFacts) -> Iterator[str]:
    yield "## Limits"
    limits = [
        "A picture that shows none of its classes is often answered as one of them all the same: only some are told as unknown.",
        "The figures hold for pictures like those of the test split: other cameras, places or times may do worse.",
        "Pictures of one object, person or place in several splits make the figures too good.",
        "Not for medical use, and not where a wrong answer can harm somebody.",
    ]
    missing = [_text(score.label) for score in facts.evaluation.per_class if not score.num_pictures]
    if missing:
        limits.insert(1, f"Nothing is known about classes without test pictures: {', '.join(missing)}.")
    yield "\n".join(f"- {sentence}" for sentence in [*limits, *map(_text, facts.all_warnings)])


def _licences(weights_source: str, licence: str) -> Iterator[str]:
    yield "## Licence"
    if weights_source == "random":
        yield "It was trained from random weights. The terms of the training pictures apply."
        return
    stated = (
        f"are under {_text(licence)}"
        if licence not in ("", "not stated")
        else "come with no licence that is known here"
    )
    yield f"The starting weights {stated}. The terms of the training pictures apply as well."
    terms = "ImageNet's own terms are for non-commercial research: check whether they bind your use."
    if _IMAGENET.search(weights_source):
        yield f"The starting weights were trained on ImageNet. {terms}"
    else:
        yield f"Most published starting weights were trained on ImageNet; if these were: {terms}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column at the left, the others, which are numbers, at the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(text: str) -> str:
    """Text that Markdown shows as it is."""
    return _MARKDOWN.sub(r"\\\1", visible(text))


def _quoted(text: str) -> str:
    return json.dumps(visible(text), ensure_ascii=False)
