"""Text and numbers as HTML. Names of classes and files come from strangers; whatever they hold stays visible text."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any

from foldertune.records import Interval

# Marks that reorder the text around them, and one that no text file may hold inside.
_TREACHEROUS = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
# Control characters, lone surrogates (undecodable bytes of a path), line separators, and what is no character at all.
_INVISIBLE = frozenset({"Cc", "Cs", "Zl", "Zp", "Cn"})
SPACE = "\u00a0"
# A browser that keeps to this loads nothing and runs nothing, whatever the names of files hold.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def whole_page(title: str, body: str, *, style: str) -> str:
    """An HTML file in light and dark that needs nothing beside it.   title: text.   body: ready HTML.   style: CSS."""
    head = "\n".join(
        [
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{style}</style>",
        ]
    )
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n'


def style_sheet(*files: tuple[str, str]) -> str:
    """The text of style sheets, each a package and a file in it, one after another."""
    return "\n".join(resources.files(package).joinpath(file).read_text(encoding="utf-8") for package, file in files)


def visible(text: str) -> str:
    """The text with every character that would hide, reorder or break lines written out as an escape, such as \\n."""
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if character in _TREACHEROUS or unicodedata.category(character) in _INVISIBLE
        else character
        for character in text
    )


def escape(text: str) -> str:
    """Text for an element or a quoted attribute."""
    return html.escape(visible(text), quote=True)


def name(text: str) -> str:
    """The name of a class or a file, kept apart from the writing direction of what stands around it."""
    return f"<bdi>{escape(text)}</bdi>"


def in_words(names: Sequence[str], *, last: str = "and") -> str:
    """Some names as a part of a sentence: "a", "a and b", "a, b and c"."""
    return f"{', '.join(names[:-1])} {last} {names[-1]}" if len(names) > 1 else names[0]


def percent(share: float) -> str:
    """A share as percent with one decimal: 0.882 is "88.2 %"."""
    return f"{100 * share:.1f}{SPACE}%"


def between(interval: Interval) -> str:
    """The ends of an interval of a share: "84.5 % to 91.1 %"."""
    return f"{percent(interval.low)} to {percent(interval.high)}"


def count(number: int, thing: str) -> str:
    """A number with its noun: "1 picture", "1,275 pictures", "2 classes"."""
    plural = thing if number == 1 else f"{thing}es" if thing.endswith("s") else f"{thing}s"
    return f"{number:,}{SPACE}{plural}"


def setting_value(value: Any) -> str:
    """The value of a setting in words."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str, numeric: Iterable[int] = ()) -> str:
    """A table of ready HTML cells. The first cell of a row heads it; columns in `numeric` stand at the right."""
    right = frozenset(numeric)

    def tag(element: str, column: int, cell: str, attributes: str = "") -> str:
        kind = ' class="number"' if column in right else ""
        return f"<{element}{attributes}{kind}>{cell}</{element}>"

    titles = "".join(tag("th", column, title, ' scope="col"') for column, title in enumerate(head))
    body = "\n".join(
        "<tr>"
        + "".join(
            tag("td", column, cell) if column else tag("th", column, cell, ' scope="row"')
            for column, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    start = '<table class="short">' if len(head) < 3 else "<table>"
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{caption}">{start}<caption>{caption}</caption>\n'
        f"<thead><tr>{titles}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def link(file: str) -> str:
    """A way to a file of the run, which lies beside the report."""
    return f'<a href="{escape(file)}">{escape(file)}</a>'


def section(title: str, content: str, *, lead: str = "", rows: Sequence[str] = ()) -> str:
    """A titled part of the page; nothing where it has no content.   rows: the files of the run that its figures come from."""
    if not content:
        return ""
    lead = f'<p class="lead">{lead}</p>\n' if lead else ""
    return f"<section><h2>{title}</h2>\n{lead}{content}\n{rows_line(rows)}</section>"


def rows_line(files: Sequence[str]) -> str:
    """Where the rows behind some figures are; nothing where no file is named."""
    return f'<p class="rows">Rows: {", ".join(map(link, files))}</p>\n' if files else ""


def folded(title: str, content: str, *, opened: bool = False) -> str:
    """A part of the page that opens on demand; nothing where it has no content."""
    start = "<details open>" if opened else "<details>"
    return f"{start}<summary>{title}</summary>\n{content}\n</details>" if content else ""
