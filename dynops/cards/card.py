"""A card: what a layer is, what it costs and where it comes from, as text, and its picture."""

import re
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent, wrap

from dynops.cards import words
from dynops.cards.docs import Docs
from dynops.cards.family import grid_of, rows
from dynops.cards.picture import picture
from dynops.cards.python import python
from dynops.cards.sample import samples
from dynops.errors import SpecError
from dynops.ops.geometry import Size
from dynops.parts.layer import Description, Layer
from dynops.parts.operator import Operator

WIDTH = 100
"""Characters of a line."""
_EQUATION = re.compile(r"; (?=\w+(\[[^]]*\])? = )")
TERM = 13
"""Characters of the names at its front."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """What was said and drawn of a layer."""

    name: str
    """Its title."""
    description: Description
    """What it is and costs at the width and size asked for."""
    text: str
    """All that there is to read."""
    path: Path
    """The picture, a PNG."""


def card(
    layer: Layer,
    *,
    name: str,
    channels: int = 96,
    size: Size = (56, 56),
    folder: Path | str = ".",
    docs: Docs | None = None,
) -> Card:
    """Describe a layer in text, and draw its picture to `card-NAME.png`.

    Args:
        layer: an operator, or layers combined, of which each operator is drawn.
        name: its title, which names the picture as well.
        channels: channels of the input.
        size: the input's grid, rows and columns; a sequence has the first number.
        folder: where the picture goes; it is made where it is missing.
        docs: what a docstring says of the layer, as `read` returns it.
    Raises:
        ShapeError: the layer cannot be built at this width, or run on this grid.
        SpecError: the width or the size is not a positive number, or the folder cannot be one.
    """
    docs, grid, path = docs or Docs(), grid_of(layer, size), picture_path(name, Path(folder))
    description = layer.describe(channels, grid)
    place = f"{channels} channels, {words.by(grid)}"
    costs = f"{description.parameters:,} parameters, {words.human(description.macs)} MACs at {place}"
    lines = [docs.sentence, docs.sections.get("Formula", ""), f"signature {description.signature}, {costs}"]
    page = picture(samples(layer, channels, grid), title=name, lines=[line for line in lines if line])
    page.write(path)
    text = "\n\n".join(
        block
        for block in (
            "\n".join([name, *_folded(docs.sentence), *(line for remark in docs.remarks for line in _folded(remark))]),
            "\n".join(_stated(docs, description)),
            "Python\n" + indent(python(layer, WIDTH - 4), "    "),
            f"At {place}\n" + "\n".join(_counted(description)),
            "\n".join(_inner(layer, name, channels, grid)),
        )
        if block
    )
    return Card(name=name, description=description, text=text, path=path)


def picture_path(name: str, folder: Path) -> Path:
    """Return where the picture of a card goes, and make the folder.

    Raises:
        SpecError: the name is none of a file, or the folder cannot be one.
    """
    if Path(name).name != name:
        raise SpecError(f"name has {name!r}: must be a part of a file's name. Leave out '/'.")
    if folder.exists() and not folder.is_dir():
        raise SpecError(f"folder has {str(folder)!r}: must be a folder, not a file.")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"card-{name}.png"


def _stated(docs: Docs, description: Description) -> list[str]:
    sections = dict(docs.sections)
    if "Formula" in sections:
        sections["Formula"] = _EQUATION.sub("\n", sections["Formula"])
    if "Parameters" in sections:
        formula, rest, letters = sections["Parameters"].partition(";")
        sections["Parameters"] = f"{formula} = {description.parameters:,}{rest}{letters}"
    return [line for term, text in sections.items() for line in _entry(term, text)]


def _counted(description: Description) -> list[str]:
    entries = {
        "signature": description.signature,
        "kernel": description.kernel or words.DASH,
        "parameters": f"{description.parameters:,}",
        "MACs": f"{description.macs:,}",
        "output": words.by(description.output),
    }
    return [line for term, text in entries.items() for line in _entry(term, text)]


def _inner(layer: Layer, name: str, channels: int, grid: Size) -> list[str]:
    """List the operators of layers combined."""
    if isinstance(layer, Operator):
        return []
    lines = ["Its operators"]
    for row in rows(layer, name=name, channels=channels, size=grid)[1:]:
        costs = f"{words.human(row.parameters or 0)} parameters, {words.human(row.macs or 0)} MACs"
        parts = (row.signature, row.channels, row.window, row.normalisation, costs)
        lines += _entry(row.name.removeprefix(f"{name}: "), "; ".join(part for part in parts if part != words.DASH))
    return lines if len(lines) > 1 else []


def _entry(term: str, text: str) -> list[str]:
    front = " " * TERM
    folded = [line for part in text.split("\n") for line in wrap(part, WIDTH - TERM, break_on_hyphens=False)]
    if len(term) >= TERM:
        return [term, *(front + line for line in folded)]
    return [term.ljust(TERM) + folded[0], *(front + line for line in folded[1:])]


def _folded(text: str) -> list[str]:
    return wrap(text, WIDTH, break_on_hyphens=False)
