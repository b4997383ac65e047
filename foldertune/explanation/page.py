"""The page of explanations: one HTML file that needs no network, no script and no other file, in light and dark."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from foldertune.evaluation.markup import SPACE, count, escape, folded, name, percent, style_sheet, table, whole_page
from foldertune.explanation.drawing import RAMP, jpeg
from foldertune.records import Checks, Explanation, Neighbour

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_SHOWN = 200  # pictures of a page, some 20 MB; the maps of all lie beside it
DOUBTFUL = 0.3  # trust below which a map is called weak even where it passes every check; a guess


@dataclass(frozen=True, slots=True)
class Shown:
    """What a page shows of one picture. drawn: the map over it.   thumbnails: of the nearest, empty where there is none to show.

    size: (width, height) of the whole picture in pixels.
    """

    explanation: Explanation
    drawn: NDArray[np.uint8] | None = None
    thumbnails: tuple[bytes, ...] = ()
    size: tuple[int, int] = (0, 0)

    def rendered(self, *, number: int) -> str:
        """The picture's part of the page.   number: its place, from 1."""
        found = self.explanation
        title = f'<h2 id="picture-{number}">{name(found.path)}</h2>'
        if found.error is not None or self.drawn is None:
            problem = escape(found.error or "")
            return f'<section class="failed">{title}\n<p class="doubt">Not explained: {problem}.</p></section>'
        alt = f"The picture with what speaks for {escape(found.label or '')} in bright colours"
        image = f'<img class="map" src="{_data(jpeg(self.drawn, quality=82))}" alt="{alt}">'
        facts = "\n".join(part for part in _facts(found, self.thumbnails) if part)
        pair = f'<div class="pair"><div class="seen">{image}</div>\n<div class="facts">{facts}</div></div>'
        return f"<section>{title}\n{pair}\n{_boxes(found, self.size)}</section>"


def render_page(title: str, method: str, shown: Sequence[str], found: Sequence[Explanation]) -> str:
    """The page as HTML text, to be written as UTF-8.   shown: what `rendered` gave, of the first pictures of `found`."""
    style = style_sheet(("foldertune.evaluation", "report.css"), ("foldertune.explanation", "explain.css"))
    body = "\n".join([_header(title, found), _legend(method), *shown, _left_out(len(found) - len(shown))])
    return whole_page(f"{title} – explanations", body, style=style)


def _header(title: str, found: Sequence[Explanation]) -> str:
    explained = [each for each in found if each.error is None]
    marked = sum(bool(each.trust is not None and (each.warnings or each.trust < DOUBTFUL)) for each in explained)
    figures = [
        count(len(found), "picture"),
        f"{len(found) - len(explained):,} not explained" if len(explained) < len(found) else "",
    ]
    figures.append(f"{marked:,} with a warning or little trust" if marked else "")
    line = ' <span aria-hidden="true">·</span> '.join(figure for figure in figures if figure)
    return f'<header><p class="eyebrow">Foldertune explanations</p>\n<h1><bdi>{escape(title)}</bdi></h1>\n<p>{line}</p></header>'


def _legend(method: str) -> str:
    stops = ", ".join(f"rgb({red} {green} {blue}) {100 * place:.0f}%" for place, (red, green, blue) in RAMP)
    scale = f'<span class="ramp" aria-hidden="true" style="background:linear-gradient(90deg, {stops})"></span>'
    return (
        f'<section class="legend"><p>speaks little for the class {scale} speaks most</p>\n'
        f"<p>The map is {escape(method)}. Frames are around its hot parts. What is hatched the network did not see. Trust says how "
        "much of the map follows from what was learned, and how much its hot parts matter to the answer: hiding them must lower the "
        "probability more than hiding others does.</p></section>"
    )


def _left_out(number: int) -> str:
    return f"<p>{count(number, 'more picture')} in the files beside this page.</p>" if number else ""


def _facts(found: Explanation, thumbnails: Sequence[bytes]) -> Iterator[str]:
    probability = percent(found.probability or 0.0)
    yield f'<p class="answer">{name(found.label or "")} <span class="figure">{probability}</span></p>'
    if found.label != found.answer:
        yield f"<p>This class was asked about. The answer is {name(found.answer or '')}.</p>"
    trust = found.trust or 0.0
    kind = "doubt" if found.warnings or trust < DOUBTFUL else "good"
    bar = f'<span class="bar" aria-hidden="true"><i style="width:{100 * trust:.0f}%"></i></span>'
    yield f'<p class="trust {kind}"><span>Trust</span> {bar} <strong>{trust:.2f}</strong></p>'
    if found.warnings:
        yield '<ul class="doubts">' + "".join(f"<li>{escape(text)}</li>" for text in found.warnings) + "</ul>"
    if found.nearest:
        tiles = "\n".join(_neighbour(*pair) for pair in zip(found.nearest, thumbnails, strict=True))
        yield f'<h3>Nearest training pictures</h3>\n<div class="near">{tiles}</div>'
    if found.checks is not None:
        yield folded("How trust was found", _checks(found.checks))


def _neighbour(near: Neighbour, thumbnail: bytes) -> str:
    label = escape(near.label)
    if thumbnail:
        shown = f'<img src="{_data(thumbnail)}" alt="A training picture of {label}">'
    else:
        shown = '<span class="nothing">no picture</span>'
    note = f'<p class="path">{escape(near.note)}</p>' if near.note else ""
    caption = f'<p class="label">{name(near.label)}</p><p>alike {near.similarity:.3f}</p>'
    return f'<figure><div class="frame">{shown}</div><figcaption>{caption}<p class="path">{name(near.path)}</p>{note}</figcaption></figure>'


def _checks(checks: Checks) -> str:
    rows = [
        ["Likeness to maps of randomised layers", f"{checks.likeness:.2f}", "rank correlation; near 0 is good"],
        ["Uncovered from the hottest place on", f"{checks.insertion:.3f}", "mean probability; high is good"],
        ["Covered from the hottest place on", f"{checks.deletion:.3f}", "mean probability; low is good"],
        ["Uncovered in random orders", f"{checks.by_chance:.3f}", f"differ by {checks.luck:.3f} at most"],
        ["Largest change of the probability", f"{checks.span:.3f}", "in all of these"],
    ]
    return table(["Check", "Found", "Meaning"], rows, caption="How trust was found", numeric=[1])


def _boxes(found: Explanation, size: tuple[int, int]) -> str:
    rows = [
        [f"{box.left}, {box.top}", f"{box.right - box.left}{SPACE}×{SPACE}{box.bottom - box.top}", percent(box.share)]
        for box in found.boxes
    ]
    caption = f"Hot parts in a picture of {size[0]} × {size[1]} pixels"
    head = ["Left, top", "Width × height", "Share of the heat"]
    return folded(caption, table(head, rows, caption=caption, numeric=[1, 2])) if rows else ""


def _data(content: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode('ascii')}"
