"""The parts of an operator in a few words: what stands in the table of the family."""

import re
from collections.abc import Iterator
from dataclasses import fields

from dynops.axes import GRIDS
from dynops.errors import ShapeError
from dynops.ops.blocks import Block, Global
from dynops.ops.geometry import Geometry, Size, each
from dynops.ops.window import Window
from dynops.parts.channels import Channels, Split
from dynops.parts.layer import Layer
from dynops.parts.mixture import Mixture
from dynops.parts.normalise import Normaliser
from dynops.parts.operator import Operator
from dynops.parts.query import QueryKey
from dynops.specs import Spec

DASH = "-"
UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def human(number: int) -> str:
    """Write a count with at most one decimal and its unit.

    >>> human(580), human(4388), human(999_950), human(115_605_504)
    ('580', '4.4 k', '1.0 M', '115.6 M')
    """
    for factor, unit in UNITS:
        if number >= factor * 0.99995:  # what would be rounded up to a thousand of the unit below
            return f"{number / factor:.1f} {unit}"
    return str(number)


def by(size: Size) -> str:
    """Write a grid: `56x48`."""
    return "x".join(map(str, size))


def signature(layer: Layer) -> str:
    """Write the axes on which a layer's kernels vary, on its own grid: `{b, h, w}`."""
    grid = GRIDS[layer.dims].split()
    varies = [letter for letter in ("b", *grid) if ("h" if letter in grid else "b") in layer.signature]
    return "{" + ", ".join(varies) + "}"


def channels(operator: Operator, width: int) -> str:
    """Write the channels' pattern with the sizes of its letters at a width, or with those that are given.

    >>> from dynops.parts import zoo
    >>> channels(zoo.involution(), 64), channels(zoo.involution(), 60)
    ('(g s), g=4 s=16', '(g s), s=16')
    """
    given = operator.channels
    try:
        return sized(given.pattern, given.resolve(operator.value.width(width) if operator.value else width))
    except ShapeError:
        return sized(given.pattern, given)


def sized(pattern: str, sizes: Channels | Split) -> str:
    """Write a pattern with the sizes of its letters, as far as they are known."""
    letters = dict.fromkeys(letter for letter in pattern if letter in "gois")
    known = {letter: sizes.i if isinstance(sizes, Split) else None for letter in letters if letter == "i"}
    known |= {letter: getattr(sizes, letter) for letter in letters if letter != "i"}
    given = " ".join(f"{letter}={known[letter]}" for letter in letters if known[letter] is not None)
    return f"{pattern}, {given}" if given else pattern


def window(operator: Operator) -> str:
    """Write where an operator looks, and where it writes.

    >>> from dynops.parts import zoo
    >>> window(zoo.conv2d(3, stride=2, dilation=4)), window(zoo.window_attention(shift=3)), window(zoo.carafe())
    ('3x3 /2 d4', 'block 7 shift 3 mask', '5x5, writes 2x2 x2')
    """
    parts = [_looks(operator.window)]
    if operator.offsets is not None:
        parts.append("offsets")
    if operator.scatter is not None:
        steps = _each("x", operator.scatter.strides, 1)
        parts.append(" ".join(["writes", by(operator.scatter.sizes), *steps]))
    return ", ".join(parts)


def normalisation(operator: Operator) -> str:
    """Name what normalises the kernel over its taps, and a router over its experts.

    >>> from dynops.parts import zoo
    >>> normalisation(zoo.odconv()), normalisation(zoo.involution())
    ('softmax (router), sigmoid', '-')
    """
    return ", ".join(dict.fromkeys(_normalisers(operator.kernel, ""))) or DASH


def _looks(geometry: Geometry) -> str:
    words: list[str] = []
    if isinstance(geometry, Window):
        dilations = _each("d", geometry.dilations, 1)
        words = [by(geometry.sizes), *_each("/", geometry.strides, 1), *dilations]
        words += [word for word in (geometry.padding, geometry.border) if word not in ("centre", "zeros")]
    elif isinstance(geometry, Block):
        words = ["block", *_each("", geometry.sizes, 0)]
        words += _each("+ ", each(geometry.halo, geometry.dims), 0)
        words += _each("shift ", each(geometry.shift, geometry.dims), 0)
        words += [*_each("/", geometry.strides, 1), *([] if geometry.border == "zeros" else [geometry.border])]
    elif isinstance(geometry, Global):
        words = ["global", *_each("/", geometry.strides, 1)]
        words += [] if geometry.grid is None else [f"to {by(each(geometry.grid, geometry.dims))}"]
    return " ".join(words) or repr(geometry)


def _each(sign: str, sizes: Size, usual: int) -> list[str]:
    """Write a number for each dimension, once where they are equal, and not where it is the usual one."""
    if set(sizes) == {usual}:
        return []
    return [sign + (str(sizes[0]) if len(set(sizes)) == 1 else by(sizes))]


def _normalisers(value: object, place: str) -> Iterator[str]:
    if isinstance(value, tuple):
        for each_value in value:
            yield from _normalisers(each_value, place)
    elif isinstance(value, Normaliser):
        yield re.sub(r"(?<!^)(?=[A-Z])", "_", type(value).__name__).lower() + place
    elif isinstance(value, Spec):
        if isinstance(value, QueryKey) and value.distribution:
            yield f"softmax (keys){place}"
        for field in fields(value):  # type: ignore[arg-type]  # `spec` makes every concrete one a dataclass
            router = isinstance(value, Mixture) and field.name == "router"
            yield from _normalisers(getattr(value, field.name), " (router)" if router else place)
