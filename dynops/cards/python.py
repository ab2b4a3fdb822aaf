"""A spec as the Python that makes it, broken into lines."""

import io
import tokenize
from itertools import pairwise
from typing import NamedTuple

from dynops.specs import Spec

INDENT = "    "


class Outline(NamedTuple):
    """What stands outside all brackets of an expression."""

    brackets: list[list[int]]
    """Of each pair that holds something: where it opens, its commas, where it closes."""
    signs: dict[str, list[int]]
    """Where `+` and `*` stand."""


def python(value: Spec, width: int = 88) -> str:
    """Write a spec as Python with lines of at most `width` characters where that can be; it evaluates to the spec.

    >>> from dynops.parts import zoo
    >>> print(python(zoo.conv2d(), 60))
    Operator(
        kernel=Static(),
        channels=Channels('i -> o'),
        window=Window(3),
    )
    """
    return _broken(repr(value), width)


def _broken(text: str, width: int) -> str:
    outline = _outline(text)
    if len(text) <= width or not outline.brackets:
        return text
    for cuts in outline.signs.values():
        if cuts:
            first, *others = (text[start:end].strip() for start, end in zip([0, *cuts], [*cuts, None], strict=True))
            return "\n".join([_broken(first, width), *(_inside(other, width) for other in others)])
    return _opened(text, width, max(outline.brackets, key=lambda places: places[-1] - places[0]))


def _opened(text: str, width: int, places: list[int]) -> str:
    """Give each thing in a pair of brackets a line of its own."""
    opened, *commas, closed = places
    items = [text[start + 1 : end].strip() for start, end in pairwise(places)]
    # brackets around a sum get no comma, which would make them a tuple
    comma = "," if commas or text[opened - 1 : opened].isidentifier() else ""
    inside = [_inside(item, width) + comma for item in items if item]
    return "\n".join([text[: opened + 1], *inside, text[closed:]])


def _inside(text: str, width: int) -> str:
    return INDENT + _broken(text, width - len(INDENT) - 1).replace("\n", f"\n{INDENT}")


def _outline(text: str) -> Outline:
    brackets: list[list[int]] = []
    signs: dict[str, list[int]] = {"+": [], "*": []}
    depth = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        place = token.start[1]
        if token.string in ("(", "["):
            depth += 1
            if depth == 1:
                brackets.append([place])
        elif token.string in (")", "]"):
            depth -= 1
            if depth == 0:
                brackets[-1].append(place)
        elif token.string == "," and depth == 1:
            brackets[-1].append(place)
        elif token.string in signs and depth == 0 and place > 0:  # one at the front was cut there
            signs[token.string].append(place)
    return Outline([places for places in brackets if places[-1] - places[0] > 1], signs)
