"""The tables of a report: models side by side, classes, what is taken for what. Ready HTML from evaluations."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from foldertune.evaluation.gallery import pair_anchor
from foldertune.evaluation.markup import between, count, escape, name, percent, table
from foldertune.records import ClassScore, Evaluation

# Above this many classes a confusion matrix has small cells, without numbers' own width.
MANY_CLASSES = 30
NUM_CONFUSIONS = 10


@dataclass(frozen=True, slots=True)
class Confusion:
    """How often pictures of one class were answered as another; share is that of the class's pictures."""

    label: str
    answer: str
    num_pictures: int
    share: float


def models_table(evaluations: Mapping[str, Evaluation], kept: str) -> str:
    """Every measured model in a row, its accuracy drawn with its interval on one common scale."""
    low = math.floor(10 * min(found.accuracy.low for found in evaluations.values())) / 10
    high = math.ceil(10 * max(found.accuracy.high for found in evaluations.values())) / 10
    with_top5 = any(found.top5 is not None for found in evaluations.values())

    def row(key: str, found: Evaluation) -> list[str]:
        mark = ' <span class="tag">kept</span>' if key == kept else ""
        top5 = [percent(found.top5) if found.top5 is not None else "—"] if with_top5 else []
        return [
            escape(key) + mark,
            percent(found.accuracy.value),
            between(found.accuracy),
            _interval_bar(found, low, high, kept=key == kept),
            *top5,
            percent(found.macro_f1),
            f"{found.log_loss:.3f}",
        ]

    scale = f'<span class="scale"><span>{100 * low:.0f} %</span><span>{100 * high:.0f} %</span></span>'
    head = ["Model", "Accuracy", "95 % interval", scale, *(["Top 5"] if with_top5 else []), "Macro F1", "Log loss"]
    numeric = set(range(1, len(head))) - {3}
    return table(
        head, [row(*item) for item in evaluations.items()], caption="Models on the test split", numeric=numeric
    )


def classes_table(evaluation: Evaluation) -> str:
    """Precision, recall and F1 of every class with bars; a dash where the split has no picture of a class."""

    def row(score: ClassScore) -> list[str]:
        if not score.num_pictures:
            return [name(score.label), "0", "—", "—", "—"]
        values = (score.recall, score.precision, score.f1)
        return [name(score.label), f"{score.num_pictures:,}", *map(_bar, values)]

    head = ["Class", "Pictures", "Recall", "Precision", "F1"]
    return table(head, map(row, evaluation.per_class), caption="Figures of every class", numeric=range(1, 5))


def weakest_classes(evaluation: Evaluation, num_classes: int = 3) -> str:
    """The classes found least often, as a sentence; empty where every picture is right."""
    present = [score for score in evaluation.per_class if score.num_pictures and score.recall < 1]
    weakest = sorted(present, key=lambda score: score.recall)[:num_classes]
    if not weakest:
        return "Every picture of the test split is answered correctly."
    listed = ", ".join(f"{name(score.label)} ({percent(score.recall)})" for score in weakest)
    return f"Found least often: {listed}."


def confusions(evaluation: Evaluation) -> list[Confusion]:
    """Every pair of classes that was mixed up, the most frequent first, equals in class order."""
    found = [
        Confusion(evaluation.classes[i], evaluation.classes[j], number, number / sum(row))
        for i, row in enumerate(evaluation.confusion)
        for j, number in enumerate(row)
        if number and i != j
    ]
    return sorted(found, key=lambda confusion: -confusion.num_pictures)


def confusions_list(evaluation: Evaluation) -> str:
    """The most frequent confusions as a list."""
    found = confusions(evaluation)[:NUM_CONFUSIONS]
    if not found:
        return ""
    items = "\n".join(
        f"<li>{name(item.label)} taken for {name(item.answer)}: "
        f'<span class="nowrap">{count(item.num_pictures, "picture")} ({percent(item.share)} of the class)</span></li>'
        for item in found
    )
    return f'<div class="confusions"><h3>Most frequent confusions</h3>\n<ol>\n{items}\n</ol></div>'


def confusion_table(evaluation: Evaluation, opened: Collection[tuple[str, str]] = ()) -> str:
    """The confusion matrix, classes down and answers across; the shade of a cell is its share of the class.

    opened: pairs of class and answer whose pictures are on the page; their cells lead there.
    """
    many = " many" if len(evaluation.classes) > MANY_CLASSES else ""
    across = "".join(
        f'<th scope="col" title="{escape(label)}"><span class="upright">{name(label)}</span></th>'
        for label in evaluation.classes
    )
    body = "\n".join(
        f'<tr><th scope="row" title="{escape(label)}">{name(label)}</th>{_confusion_cells(evaluation, number, opened)}</tr>'
        for number, label in enumerate(evaluation.classes)
    )
    return (
        f'<div class="scroll matrix{many}" tabindex="0" role="region" aria-label="Confusion matrix"><table>\n'
        "<caption>Confusion matrix: one row for each class, one column for each answer</caption>\n"
        f'<thead><tr><th scope="col" class="corner">class ↓ answer →</th>{across}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _confusion_cells(evaluation: Evaluation, number: int, opened: Collection[tuple[str, str]]) -> str:
    row, labels = evaluation.confusion[number], evaluation.classes
    total = max(1, sum(row))
    return "".join(
        _confusion_cell(
            labels, (number, answer), value, value / total, opened=(labels[number], labels[answer]) in opened
        )
        for answer, value in enumerate(row)
    )


def _confusion_cell(labels: Sequence[str], place: tuple[int, int], value: int, share: float, *, opened: bool) -> str:
    right = place[0] == place[1]
    if not value:
        return '<td class="right"></td>' if right else "<td></td>"
    label, answer = (escape(labels[number]) for number in place)
    said = f"{label}: {value} right" if right else f"{label} taken for {answer}: {value}"
    kind = "right" if right else "wrong"
    shown = f'<a href="#{pair_anchor(*place)}" aria-label="{said}">{value}</a>' if opened else str(value)
    return f'<td class="{kind}" style="--share:{share:.2f}" title="{said} ({percent(share)})">{shown}</td>'


def _bar(share: float) -> str:
    """A bar and its number; the bar repeats the number, so it is hidden from screen readers."""
    drawn = f'<span class="bar" aria-hidden="true"><i style="width:{100 * share:.1f}%"></i></span>'
    return f'<span class="measure">{drawn}<span>{percent(share)}</span></span>'


def _interval_bar(found: Evaluation, low: float, high: float, *, kept: bool) -> str:
    extent = (high - low) or 1.0
    left, middle, right = (
        100 * (value - low) / extent for value in (found.accuracy.low, found.accuracy.value, found.accuracy.high)
    )
    kind = "whisker kept" if kept else "whisker"
    return (
        f'<span class="{kind}" aria-hidden="true"><i style="left:{left:.1f}%;width:{right - left:.1f}%"></i>'
        f'<b style="left:{middle:.1f}%"></b></span>'
    )
