"""The part of a report that says what is wrong: every finding with its command, its first pictures, and its rows."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

from foldertune.evaluation.markup import count, escape, folded, name, table
from foldertune.records import Evidence, Finding

NUM_SHOWN = 5  # pictures of a finding that are drawn
NUM_LISTED = 200  # rows of a finding that are listed; the file of the run has them all

Thumbnails = Mapping[str, bytes]  # JPEGs by the path of their picture


def findings_list(findings: Sequence[Finding], thumbnails: Thumbnails, file: str) -> str:
    """Every finding, in the order in which they are given; empty where there is none.   file: of the run, which has all rows."""
    if not findings:
        return ""
    return '<div class="findings">\n' + "\n".join(_finding(each, thumbnails, file) for each in findings) + "\n</div>"


def _finding(finding: Finding, thumbnails: Thumbnails, file: str) -> str:
    kind = escape(finding.kind.replace("_", " "))
    heading = f'<h3>{kind[:1].upper()}{kind[1:]} <span class="tag {finding.severity}">{finding.severity}</span></h3>'
    command = f"<p>{'Next' if finding.severity == 'note' else 'Mend'}: <code>{escape(finding.remedy)}</code></p>"
    pictures = "\n".join(_picture(row, thumbnails) for row in finding.evidence[:NUM_SHOWN] if row.path in thumbnails)
    gallery = f'<div class="gallery small">\n{pictures}\n</div>' if pictures else ""
    return f"<article>\n{heading}\n<p>{escape(finding.sentence)}</p>\n{command}\n{gallery}{_rows(finding, file)}\n</article>"


def _picture(row: Evidence, thumbnails: Thumbnails) -> str:
    """The picture of a row; of a pair both."""
    paths = [path for path in (row.path, row.other) if path in thumbnails]
    images = "".join(
        f'<img src="data:image/jpeg;base64,{base64.b64encode(thumbnails[path]).decode("ascii")}" alt="{escape(path)}" loading="lazy">'
        for path in paths
    )
    filed = f"<dt>class</dt><dd>{name(row.label)}</dd>" if row.label else ""
    seems = f'<dt>like</dt><dd class="wrong">{name(row.suggested)}</dd>' if row.suggested else ""
    facts = f"<dl>{filed}{seems}</dl>" if filed or seems else ""
    shown = " and ".join(name(path) for path in (row.path, row.other) if path)
    wide = " pair" if len(paths) == 2 else ""
    return (
        f'<figure class="{wide.strip()}"><div class="frame">{images}</div>\n'
        f'<figcaption>{facts}<p>{escape(row.note)}</p><p class="path">{shown}</p></figcaption></figure>'
    )


def _rows(finding: Finding, file: str) -> str:
    if not finding.evidence:
        return ""
    rows = [
        [name(row.path), name(row.other), escape(row.note), f"{row.score:.2f}"] for row in finding.evidence[:NUM_LISTED]
    ]
    with_other = any(row.other for row in finding.evidence)
    head = ["What", "And", "Seen", "Score"]
    if not with_other:
        head, rows = [head[0], *head[2:]], [[row[0], *row[2:]] for row in rows]
    more = len(finding.evidence) - len(rows)
    rest = f"<p>{count(more, 'more row')} in {escape(file)}.</p>" if more > 0 else ""
    listed = table(head, rows, caption=f"Rows of {escape(finding.kind)}", numeric=[len(head) - 1])
    return folded(f"{count(len(finding.evidence), 'row')}", listed + rest)
