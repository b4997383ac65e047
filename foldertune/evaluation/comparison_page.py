"""The page of a comparison: one HTML file that needs no network, no script and no other file, in light and dark."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from foldertune.evaluation.charts import side_by_side
from foldertune.evaluation.markup import (
    SPACE,
    between,
    count,
    escape,
    in_words,
    name,
    percent,
    section,
    style_sheet,
    table,
    whole_page,
)
from foldertune.evaluation.pairs import TRAINING_SHARE
from foldertune.evaluation.scatter import Spot, draw_scatter
from foldertune.machine import processor_name
from foldertune.records import Comparison, Contestant, Pair


def render_comparison(found: Comparison) -> str:
    """The page as HTML text, to be written as UTF-8 into the comparison's folder."""
    title = Path(found.folder).name
    body = "\n".join(part for part in _parts(found, title) if part)
    style = style_sheet(("foldertune.evaluation", "report.css"))
    return whole_page(f"{title} – Foldertune comparison", body, style=style)


def _parts(found: Comparison, title: str) -> Iterator[str]:
    yield _header(found, title)
    yield f'<section aria-label="Which to take"><p class="take"><strong>{escape(found.answer)}</strong></p>\n{_how(found)}</section>'
    if found.left_out:
        items = "\n".join(f"<li>{escape(text)}</li>" for text in found.left_out)
        told = "<p>Weights are given by name: <code>--weights resnet18=FILE.safetensors</code></p>"
        yield f'<section class="warnings"><h2>Left out</h2>\n<ul>\n{items}\n</ul>\n{told}</section>'
    yield section(
        "The networks",
        _networks(found),
        lead="The most accurate first, each measured on the same test pictures. All figures are in "
        '<a href="comparison.json">comparison.json</a>.',
    )
    yield section(
        "What accuracy costs",
        _charts(found) if len(found.contestants) > 1 else "",
        lead="Bars are 95 % intervals. The line joins what no other network beats in both: up is more accurate, left is cheaper. "
        f"{_measured_on(found)}",
    )
    yield section("Pair by pair", _pairs(found), lead=_pairs_lead(found))
    yield section(
        "The guide's advice, and what was measured",
        _advice(found),
        lead="The advice goes by the number of pictures alone; the measurement was made on these.",
    )


def _header(found: Comparison, title: str) -> str:
    splits = found.num_pictures
    figures = (
        count(sum(splits.values()), "picture"),
        count(found.num_classes, "class"),
        f"{splits['train']:,} to train, {splits['val']:,} to validate, {splits['test']:,} to test",
    )
    line = ' <span aria-hidden="true">·</span> '.join(figures)
    return f'<header><p class="eyebrow">Foldertune comparison</p>\n<h1><bdi>{escape(title)}</bdi></h1>\n<p>{line}</p></header>'


def _how(found: Comparison) -> str:
    """The terms of the comparison, in a line."""
    budget = f"a time limit of {found.minutes:.3g}{SPACE}minutes each" if found.minutes else "no limit of time"
    trained = "trained once" if found.repeats == 1 else f"trained {found.repeats} times with other seeds"
    warning = (
        ""
        if len(found.contestants) < 2
        else "The test pictures chose nothing until here; choosing by them makes the chosen one look a little better than it is."
    )
    told = f" {warning}" if len(found.contestants) > 1 else ""
    return f'<p class="lead">The same split for all, {budget}, {trained}.{told}</p>'


def _networks(found: Comparison) -> str:
    head = [
        "Network", "Accuracy", "95 % interval", "Log loss", "Fine-tuning, s", "One picture, ms", "Pictures per s", "MB", "Kept", "Report",
    ]  # fmt: skip
    rows = [_network(each, found) for each in found.contestants]
    return table(head, rows, caption="Every network with its figures", numeric=range(1, 8))


def _network(each: Contestant, found: Comparison) -> list[str]:
    mark = ' <span class="tag">not beaten</span>' if each.efficient and len(found.contestants) > 1 else ""
    links = [
        f'<a href="{quote(os.path.relpath(Path(run) / "report.html", found.path))}">{escape(Path(run).name)}</a>'
        for run in each.runs
    ]
    return [
        f"{name(each.model)}{mark}",
        percent(each.accuracy.value),
        between(each.accuracy),
        f"{each.log_loss:.3f}",
        f"{each.learning_s:,.0f}",
        f"{each.latency_ms:.1f}" if each.latency_ms else "—",
        f"{each.pictures_per_s:.0f}" if each.pictures_per_s else "—",
        f"{each.size_mb:.0f}",
        escape(", ".join(dict.fromkeys(each.kept))),
        " ".join(links),
    ]


def _charts(found: Comparison) -> str:
    spots = {
        ("latency", "Accuracy against time to answer", "milliseconds for a picture"): "latency_ms",
        ("training", "Accuracy against time to learn", "seconds of fine-tuning"): "learning_s",
    }
    drawn = [
        draw_scatter(*words, [Spot(each.model, each.accuracy, getattr(each, field)) for each in found.contestants])
        for words, field in spots.items()
    ]
    return side_by_side(drawn)


def _measured_on(found: Comparison) -> str:
    engines = sorted({each.engine for each in found.contestants if each.engine})
    return f"Answers in float32 by {escape(in_words(engines))}, on {escape(processor_name())}." if engines else ""


def _pairs_lead(found: Comparison) -> str:
    chance = (
        f"one training of each: how much trainings differ is not known, so the intervals allow for {1 + TRAINING_SHARE:g} times the "
        "variance that the pictures leave open; --repeats measures it"
        if found.repeats == 1
        else f"{found.repeats} trainings of each: how much they differ is in the intervals"
    )
    return f"On the same pictures, with {chance}. Probabilities are corrected for the number of pairs (Holm)."


def _pairs(found: Comparison) -> str:
    head = [
        "Pair",
        "Difference, points",
        "95 % interval",
        "Only the first right",
        "Only the second right",
        "p",
        "Verdict",
    ]
    return table(head, map(_pair, found.pairs), caption="Every pair", numeric=range(1, 6)) if found.pairs else ""


def _pair(pair: Pair) -> list[str]:
    difference = pair.difference
    return [
        f"{name(pair.first)} and {name(pair.second)}",
        f"{100 * difference.value:+.1f}",
        f"{100 * difference.low:+.1f} to {100 * difference.high:+.1f}",
        f"{pair.only_first:.3g}",
        f"{pair.only_second:.3g}",
        f"{pair.p:.3f}" if pair.p >= 0.001 else "&lt; 0.001",
        f"{name(pair.first if difference.value > 0 else pair.second)} is better"
        if pair.shown
        else "no difference shown",
    ]


def _advice(found: Comparison) -> str:
    best = found.contestants[0]
    rows = []
    for each in found.contestants:
        pair = next((pair for pair in found.pairs if (pair.first, pair.second) == (best.model, each.model)), None)
        if pair is None:
            measured = "the most accurate of these" if found.pairs else "nothing to compare it with"
        else:
            less = f"{100 * pair.difference.value:.1f} points below {best.model}"
            measured = less if pair.shown else f"{less}: no difference shown"
        rows.append([name(each.model), escape(each.advice or "gives no number of pictures"), escape(measured)])
    return table(["Network", "The guide", "Measured here"], rows, caption="Advice and measurement")
