"""A report as a page of its own: one HTML file that holds its style and figures, and needs no script and no net."""

import re
from base64 import b64encode
from collections.abc import Iterator
from html import escape
from pathlib import Path

from dynops.ablation.reporting.document import Document, Finding, Findings, Items, Picture, Section
from dynops.ablation.reporting.page_style import STYLE
from dynops.ablation.reporting.tables import Table

VERDICTS = ("supported", "refuted", "undecided", "differs", "equivalent")
"""Words that have a colour of their own; the word stands beside it."""
WIDE = 28
"""Characters beyond which a cell of a table may be broken."""
MARKS = (
    (re.compile(r"\*\*(.+?)\*\*"), r"<strong>\1</strong>"),
    (re.compile(r"\[([^\[\]]+)\]\((https?://[^()\s]+)\)"), r'<a href="\2">\1</a>'),
)
CODE = re.compile(r"`([^`]+)`")


def to_page(document: Document, folder: Path) -> str:
    """Write a document as a page.

    Args:
        document: what the page holds.
        folder: where the pictures' files are.
    """
    links = "".join(f'<li><a href="#{_anchor(each.title)}">{escape(each.title)}</a></li>' for each in document.sections)
    body = "\n".join(text for section in document.sections for text in _section(section, 2, folder))
    summary = "".join(f"<li>{_inline(words)}</li>" for words in document.summary)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(document.title)}: {escape(document.question)}</title>
<style>{STYLE}</style>
</head>
<body>
<div class="frame">
<header>
<h1>{escape(document.title)}</h1>
<p class="question">{_inline(document.question)}</p>
<ul class="summary">{summary}</ul>
</header>
<nav aria-label="Sections"><ul>{links}</ul></nav>
<main>
{body}
</main>
</div>
</body>
</html>
"""


def _section(section: Section, depth: int, folder: Path) -> Iterator[str]:
    heading = f'<h{depth} id="{_anchor(section.title)}">{escape(section.title)}</h{depth}>'
    yield f"<details>\n<summary>{heading}</summary>" if section.folded else f"<section>\n{heading}"
    for block in section.blocks:
        if isinstance(block, Section):
            yield from _section(block, depth + 1, folder)
        else:
            yield _block(block, section.title, folder)
    yield "</details>" if section.folded else "</section>"


def _block(block: str | Items | Findings | Table | Picture, title: str, folder: Path) -> str:
    if isinstance(block, str):
        return f"<p>{_inline(block)}</p>"
    if isinstance(block, Items):
        return f"<ul>{''.join(f'<li>{_inline(line)}</li>' for line in block.lines)}</ul>"
    if isinstance(block, Findings):
        return f'<ul class="findings">{"".join(map(_finding, block.rows))}</ul>'
    if isinstance(block, Table):
        return _table(block, title) if block.rows else "<p>None.</p>"
    image = b64encode((folder / block.file).read_bytes()).decode()
    name = escape(f"{block.name}: {block.title}")
    return (
        f'<figure><img alt="{name}" src="data:image/png;base64,{image}">'
        f"<figcaption>{escape(block.caption)}</figcaption></figure>"
    )


def _finding(finding: Finding) -> str:
    lacks = f'<p class="lacks">{_inline(finding.lacks)}</p>' if finding.lacks else ""
    kind = finding.verdict.split()[0]
    return (
        f'<li class="{kind}">{_badge(finding.verdict)} <b>{escape(finding.name)}</b>'
        f"<p>{_inline(finding.claim)}</p>{lacks}</li>"
    )


def _table(table: Table, title: str) -> str:
    head = "".join(
        f'<th scope="col"{_side(side)}>{escape(column)}</th>'
        for column, side in zip(table.columns, table.sides, strict=True)
    )
    rows = "".join(f"<tr>{''.join(_cells(row, table.sides))}</tr>\n" for row in table.rows)
    note = f'\n<p class="note">{_inline(table.note)}</p>' if table.note else ""
    return (
        f'<div class="scroll" role="region" aria-label="{escape(title)}" tabindex="0"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>{note}"
    )


def _cells(row: tuple[str, ...], sides: str) -> Iterator[str]:
    for cell, side in zip(row, sides, strict=True):
        kind = cell.split()[0] if cell else ""
        shown = _badge(cell) if kind in VERDICTS else escape(cell)
        yield f"<td{_side(side, wide=len(cell) > WIDE)}>{shown}</td>"


def _side(side: str, *, wide: bool = False) -> str:
    names = [*(["r"] if side == "r" else []), *(["wide"] if wide else [])]
    return f' class="{" ".join(names)}"' if names else ""


def _badge(words: str) -> str:
    return f'<span class="badge {words.split()[0]}">{escape(words)}</span>'


def _inline(text: str) -> str:
    """Write the marks that a report's text may hold as HTML, and everything else as it stands."""
    parts = CODE.split(escape(text))
    return "".join(f"<code>{part}</code>" if place % 2 else _marked(part) for place, part in enumerate(parts))


def _marked(text: str) -> str:
    for pattern, replacement in MARKS:
        text = pattern.sub(replacement, text)
    return text


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
