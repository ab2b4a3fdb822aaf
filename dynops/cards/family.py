"""The family as a table: what each operator is, and what it costs at one width and size."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from inspect import signature as parameters_of
from itertools import groupby

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn

from dynops.cards import words
from dynops.errors import DynopsError
from dynops.ops.geometry import Size
from dynops.parts import zoo
from dynops.parts.cost import macs, parameters
from dynops.parts.layer import Layer
from dynops.parts.operator import LocalOperator, Operator
from dynops.specs import at_least

COLUMNS = ("name", "signature", "channels", "window", "normalisation", "parameters", "MACs")
NUMBERS = 2
"""The last columns, set to the right."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One layer of the table, or an operator inside the layer above it."""

    group: str
    """The zoo's module."""
    name: str
    """The function that makes it, for an inner operator with its place: `name: layers.0`."""
    signature: str
    """The axes on which its kernels vary."""
    channels: str = words.DASH
    """How a kernel is spread over channels, with sizes."""
    window: str = words.DASH
    """Where it looks."""
    normalisation: str = words.DASH
    """What its kernel is normalised by."""
    parameters: int | None = None
    """Trainable parameters; None where it cannot be built."""
    macs: int | None = None
    """Multiply-accumulates of one image, by the rule of `dynops.parts.cost.macs`."""
    reason: str = ""
    """Why it cannot be built at this width and size."""


def family(
    channels: int = 96, size: Size = (56, 56), members: Iterable[Callable[..., Layer]] = zoo.FAMILY
) -> list[Row]:
    """Describe the zoo's operators at a width and size; one that cannot be built there has its reason.

    Args:
        channels: channels of the input.
        size: the input's grid, rows and columns; a sequence has the first number.
        members: functions that return layers; one that takes `channel` or `grid` is given the width or the size.
    Raises:
        SpecError: the width or the size is not a positive number.
    """
    at_least("channels", channels, 1)
    return [
        row
        for member in members
        for row in rows(
            make(member, channels, size), name=member.__name__, group=group_of(member), channels=channels, size=size
        )
    ]


def rows(layer: Layer, *, name: str, group: str = "", channels: int, size: Size) -> list[Row]:
    """Describe a layer: an operator in one row, layers combined in a row of their own and one for each operator."""
    grid = grid_of(layer, size)
    try:
        whole = layer.describe(channels, grid)
        inner = [] if isinstance(layer, Operator) else inner_operators(layer, channels, grid)
    except DynopsError as error:
        return [_row(layer, channels, group=group, name=name, reason=str(error))]
    found = [_row(layer, channels, group=group, name=name, parameters=whole.parameters, macs=whole.macs)]
    for place, module, shape in inner:
        costs = {"parameters": parameters(module), "macs": macs(module, shape)}
        found.append(_row(module.spec, module.channels, group=group, name=f"{name}: {place}", **costs))
    return found


def inner_operators(layer: Layer, channels: int, size: Size) -> list[tuple[str, LocalOperator, tuple[int, ...]]]:
    """Find the operators that layers combined build: the place of each, its module, and the shape of its input."""
    shapes: dict[nn.Module, tuple[int, ...]] = {}

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        shapes.setdefault(module, tuple(inputs[0].shape))

    with torch.device("meta"), torch.no_grad():
        built = layer.build(channels, size=size)
        found = {name: each for name, each in built.named_modules() if isinstance(each, LocalOperator)}
        for each in found.values():
            each.register_forward_pre_hook(note)
        built(torch.empty(1, channels, *size))
    return [(name, each, shapes[each]) for name, each in found.items() if each in shapes]


def make(member: Callable[..., Layer], channels: int, size: Size) -> Layer:
    """Call a function that returns a layer, with the width and the size where it takes one as `channel` or `grid`."""
    given = {"channel": channels, "grid": size}
    return member(**{name: given[name] for name in parameters_of(member).parameters if name in given})


def group_of(member: Callable[..., Layer]) -> str:
    """Name the zoo's module that a function stands in."""
    return member.__module__.split(".")[-1]


def grid_of(layer: Layer, size: Size) -> Size:
    """Return a layer's grid: the first numbers of a size, of which a volume has the first twice.

    Raises:
        SpecError: a number is not positive.
    """
    for length in size:
        at_least("size", length, 1)
    return (size[0],) * (layer.dims - len(size)) + tuple(size[: layer.dims])


def table(rows: Sequence[Row]) -> Table:
    """Make the table that rich prints, a section for each of the zoo's modules."""
    made = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, caption_justify="left")
    for place, column in enumerate(COLUMNS):
        right = place >= len(COLUMNS) - NUMBERS
        made.add_column(
            column, justify="right" if right else "left", no_wrap=right or column == "name", overflow="fold"
        )
    for group, members in _grouped(rows):
        made.add_row(Text(group, style="bold"))
        for row in members:
            made.add_row(*(Text(cell) for cell in _cells(row, rows)))
        made.add_section()
    made.caption = Text("\n".join(_notes(rows))) if _notes(rows) else None
    return made


def markdown(rows: Sequence[Row]) -> str:
    """Write the table as Markdown, the reasons below it."""
    rules = ["--:" if place >= len(COLUMNS) - NUMBERS else "---" for place in range(len(COLUMNS))]
    lines = [_line(COLUMNS), f"|{'|'.join(rules)}|"]
    for group, members in _grouped(rows):
        lines.append(_line([f"**{group}**", *[""] * (len(COLUMNS) - 1)]))
        lines += [_line(_cells(row, rows, code="`")) for row in members]
    return "\n".join(lines + [line for note in _notes(rows) for line in ("", note)])


def _row(layer: Layer, width: int, **rest: str | int) -> Row:
    parts: dict[str, str] = {}
    if isinstance(layer, Operator):
        parts = {
            "channels": words.channels(layer, width),
            "window": words.window(layer),
            "normalisation": words.normalisation(layer),
        }
    return Row(signature=words.signature(layer), **parts, **rest)  # type: ignore[arg-type]  # by name


def _grouped(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    return [(group, list(members)) for group, members in groupby(rows, key=lambda row: row.group)]


def _cells(row: Row, rows: Sequence[Row], code: str = "") -> list[str]:
    note = f"[{list(_lacking(rows)).index(row.reason) + 1}]" if row.reason else ""
    numbers = [note if number is None else words.human(number) for number in (row.parameters, row.macs)]
    texts = (row.name, row.signature, row.channels, row.window, row.normalisation)
    return [text if text == words.DASH else f"{code}{text}{code}" for text in texts[:-1]] + [texts[-1], *numbers]


def _notes(rows: Sequence[Row]) -> list[str]:
    lacking = enumerate(_lacking(rows).items(), start=1)
    return [f"[{number}] {', '.join(names)}: {reason}" for number, (reason, names) in lacking]


def _lacking(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Return each reason with the names of the layers that have it, in the order of the rows."""
    names: dict[str, list[str]] = {}
    for row in rows:
        if row.reason:
            names.setdefault(row.reason, []).append(row.name)
    return names


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
