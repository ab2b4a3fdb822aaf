"""What a docstring says of an operator: its sentence, its remarks and its sections."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

SECTIONS = ("Formula", "Parameters", "Source", "Deviates")
_HEAD = re.compile(r"(Formula|Parameters|Source|Deviates|Args|Returns|Raises|>>>)(?:: ?|\b)(.*)")


@dataclass(frozen=True, kw_only=True)
class Docs:
    """The parts of a docstring; those that it lacks are empty."""

    sentence: str = ""
    """The first paragraph, without `Return`."""
    remarks: tuple[str, ...] = ()
    """The paragraphs between it and the sections."""
    sections: Mapping[str, str] = field(default_factory=dict)
    """The text of each section among `SECTIONS` that there is."""


def read(docstring: str | None) -> Docs:
    """Read a docstring of the house's form, as `inspect.getdoc` returns it; a section ends at the next or a blank line.

    >>> docs = read("Return a sum.\\n\\nOf all pixels.\\n\\nFormula: y = sum\\n    of x\\nSource: a book.")
    >>> docs.sentence, docs.remarks, docs.sections
    ('A sum.', ('Of all pixels.',), {'Formula': 'y = sum of x', 'Source': 'a book.'})
    """
    paragraphs: list[str] = []
    sections: dict[str, str] = {}
    for block in re.split(r"\n\s*\n", docstring or ""):
        current, plain = "", []
        for line in filter(None, map(str.strip, block.splitlines())):
            head = _HEAD.match(line)
            if head:
                current, line = head[1], head[2]
            if current:
                sections[current] = f"{sections.get(current, '')} {line}".strip()
            else:
                plain.append(line)
        if plain:
            paragraphs.append(" ".join(plain))
    first, *rest = paragraphs or [""]
    kept = {name: sections[name] for name in SECTIONS if name in sections}
    return Docs(sentence=_stated(first), remarks=tuple(rest), sections=kept)


def _stated(sentence: str) -> str:
    stated = sentence.removeprefix("Return ")
    return stated[:1].upper() + stated[1:]
