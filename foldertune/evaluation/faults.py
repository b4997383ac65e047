"""The part of a report that says what is wrong: every finding with its command, its first pictures, and its rows."""

from __future__ import annotations

from collections.abc import Sequence

from foldertune.evaluation.gallery import Maps, Thumbnails, image, map_image
from foldertune.evaluation.markup import count, escape, folded, link, name, table
from foldertune.records import Evidence, Finding

NUM_SHOWN = 5  # pictures of a finding that are drawn
NUM_SUSPECTS = 12  # of pictures whose label is doubted, which a person has to look at one by one
NUM_LISTED = 200  # rows of a finding that are listed; the file of the run has them all


def shown_rows(finding: Finding) -> tuple[Evidence, ...]:
    """Those whose pictures are drawn."""
    return finding.evidence[: NUM_SUSPECTS if finding.kind == "label_suspect" else NUM_SHOWN]


def findings_list(findings: Sequence[Finding], thumbnails: Thumbnails, file: str, maps: Maps | None = None) -> str:
    """Every finding, in the order in which they are given; empty where there is none.   file: of the run, which has all rows."""
    if not findings:
        return ""
    listed = "\n".join(_finding(each, thumbnails, file, maps or {}) for each in findings)
    return f'<div class="findings">\n{listed}\n</div>'


def _finding(finding: Finding, thumbnails: Thumbnails, file: str, maps: Maps) -> str:
    kind = escape(finding.kind.replace("_", " "))
    heading = f'<h3>{kind[:1].upper()}{kind[1:]} <span class="tag {finding.severity}">{finding.severity}</span></h3>'
    command = f"<p>{'Next' if finding.severity == 'note' else 'Mend'}: <code>{escape(finding.remedy)}</code></p>"
    pictures = "\n".join(_picture(row, thumbnails, maps) for row in shown_rows(finding) if row.path in thumbnails)
    gallery = f'<div class="gallery small">\n{pictures}\n</div>' if pictures else ""
    return f"<article>\n{heading}\n<p>{escape(finding.sentence)}</p>\n{command}\n{gallery}{_rows(finding, file)}\n</article>"


def _picture(row: Evidence, thumbnails: Thumbnails, maps: Maps) -> str:
    """The picture of a row; of a pair both; beside one whose label is doubted its map."""
    paths = [path for path in (row.path, row.other) if path in thumbnails]
    mapped = map_image(maps, row.path, row.suggested)
    images = "".join(image(thumbnails[path], path) for path in paths) + mapped
    filed = f"<dt>class</dt><dd>{name(row.label)}</dd>" if row.label else ""
    other = (
        ' class="wrong"' if row.suggested != row.label else ""
    )  # of a pair the first member may be the one that is right
    seems = f"<dt>like</dt><dd{other}>{name(row.suggested)}</dd>" if row.suggested else ""
    facts = f"<dl>{filed}{seems}</dl>" if filed or seems else ""
    shown = " and ".join(name(path) for path in (row.path, row.other) if path)
    wide = ' class="pair"' if len(paths) == 2 or mapped else ""
    return (
        f'<figure{wide}><div class="frame">{images}</div>\n'
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
    rest = f"<p>{count(more, 'more row')} in {link(file)}.</p>" if more > 0 else ""
    listed = table(head, rows, caption=f"Rows of {escape(finding.kind)}", numeric=[len(head) - 1])
    return folded(f"{count(len(finding.evidence), 'row')}", listed + rest)
