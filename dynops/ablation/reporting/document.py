"""Documents: what a report holds, in blocks, and the Markdown of it. `page` writes the same blocks as HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from dynops.ablation.reporting.tables import Table


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The verdict on one hypothesis."""

    name: str
    """Short name, such as `H1`."""
    verdict: str
    """`supported`, `refuted` or `undecided`, and what must stand beside it in brackets."""
    claim: str
    """The claim in words."""
    lacks: str = ""
    """What an undecided one lacks, in a sentence."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure."""

    name: str
    """What it shows, in a few words."""
    title: str
    """What it shows, with the number of seeds, for readers who do not see it."""
    caption: str
    """How it is read."""
    file: Path
    """Where it is, relative to the report."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The verdicts on all hypotheses."""

    rows: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True)
class Items:
    """Sentences, one below the other."""

    lines: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Section:
    """Blocks under a heading."""

    title: str
    blocks: "tuple[Block, ...]"
    folded: bool = False
    """Whether a reader of the page opens it first; Markdown shows it as it is."""


Block = str | Items | Findings | Table | Picture | Section
"""A string is a paragraph; text may hold `**bold**`, code in backticks and `[links](http...)`, and nothing else."""


@dataclass(frozen=True, kw_only=True)
class Document:
    """A whole report."""

    title: str
    question: str
    summary: tuple[str, ...]
    """What must be seen first, in a few words each."""
    sections: tuple[Section, ...]


def to_markdown(document: Document) -> str:
    """Write a document as Markdown."""
    head = [f"# {document.title}", document.question, " · ".join(document.summary)]
    body = [text for section in document.sections for text in (f"## {section.title}", section_text(section))]
    return "\n\n".join([*head, *body]) + "\n"


def section_text(section: Section, *, depth: int = 3, width: int | None = None) -> str:
    """Write what stands below a section's heading as Markdown.

    Args:
        section: the section.
        depth: of the headings within.
        width: number of characters at which cells of tables are broken; None leaves them whole.
    """
    parts = []
    for block in section.blocks:
        if isinstance(block, Section):
            parts += [f"{'#' * depth} {block.title}", section_text(block, depth=depth + 1, width=width)]
        else:
            parts.append(_block(block, width))
    return "\n\n".join(parts)


def _block(block: str | Items | Findings | Table | Picture, width: int | None) -> str:
    if isinstance(block, str):
        return block
    if isinstance(block, Items):
        return "\n".join(f"- {line}" for line in block.lines)
    if isinstance(block, Findings):
        return "\n".join(f"- **{headline}**: {rest}" for headline, rest in map(sentence, block.rows))
    if isinstance(block, Table):
        return block.to_markdown(width) if block.rows else "None."
    return f"![{block.name}]({quote(block.file.as_posix())})"


def sentence(finding: Finding) -> tuple[str, str]:
    """Return `H1 is supported`, and its claim with what it lacks if it is undecided."""
    stop = "" if finding.claim.endswith((".", "!", "?")) else "."
    rest = f"{finding.claim}{stop} {finding.lacks}" if finding.lacks else finding.claim
    return f"{finding.name} is {finding.verdict}", rest


def pictures(files: Mapping[str, Picture], group: str) -> Sequence[Picture]:
    """Return the pictures whose tags begin with a group's name."""
    return [picture for tag, picture in files.items() if tag.startswith(f"{group}/")]
