"""A network's card: its sections with what stands in them and what they cost, as text, and its picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap

from dynops.cards import words
from dynops.cards.card import WIDTH, picture_path
from dynops.cards.network_picture import network_picture
from dynops.cards.python import python
from dynops.nets.features import RULE, Section, sections
from dynops.nets.network import Network, Shape
from dynops.specs import at_least

COLUMNS = ("section", "channels", "grid", "stride", "blocks", "parameters", "in operators", "MACs", "in operators")


@dataclass(frozen=True, kw_only=True)
class NetworkCard:
    """What was said and drawn of a network."""

    name: str
    """Its title."""
    sections: tuple[Section, ...]
    """Its stem, stages and head."""
    text: str
    """All that there is to read."""
    path: Path
    """The picture, a PNG."""


def network_card(
    network: Network, *, name: str, shape: Shape = (3, 224, 224), outputs: int = 1000, folder: Path | str = "."
) -> NetworkCard:
    """Describe a network in text, and draw its picture to `card-NAME.png`.

    Args:
        network: any network.
        name: its title, which names the picture as well.
        shape: channels, rows and columns of an image.
        outputs: number of classes.
        folder: where the picture goes; it is made where it is missing.
    Raises:
        ShapeError: the network cannot be built for the shape.
        SpecError: a number is not positive, or the folder cannot be one.
    """
    for title, value in zip(("channels", "size", "size", "outputs"), (*shape, outputs), strict=True):
        at_least(title, value, 1)
    found = sections(network, shape, outputs)
    path = picture_path(name, Path(folder))
    costs = [
        f"{words.human(sum(each.parameters for each in found))} parameters",
        f"{words.human(sum(each.macs for each in found))} MACs at {words.by(shape[1:])}",
    ]
    network_picture(found, shape, title=name, said=", ".join([*costs, f"{outputs} classes"])).write(path)
    text = "\n\n".join(
        (
            name,
            "Python\n" + "\n".join(f"    {line}" for line in python(network, WIDTH - 4).splitlines()),
            f"At {words.by(shape)}, {outputs} classes\n" + "\n".join(_table(found)),
            "Its operators\n" + "\n".join(_operators(found)),
            "\n".join(wrap(RULE, WIDTH)),
        )
    )
    return NetworkCard(name=name, sections=found, text=text, path=path)


def slot_words(section: Section) -> list[str]:
    """Say what each operator of a section is: where it looks, and how a kernel is spread over its channels."""
    return [
        f"{words.window(slot.operator)}; {words.channels(slot.operator, slot.channels)}; "
        f"{words.signature(slot.operator)}"
        for slot in section.slots
    ]


def _table(found: Sequence[Section]) -> list[str]:
    rows = [
        (
            each.name,
            str(each.channels),
            words.by(each.grid) or words.DASH,
            str(each.stride or words.DASH),
            str(each.blocks),
            f"{each.parameters:,}",
            f"{each.operator_parameters:,}",
            f"{each.macs:,}",
            f"{each.operator_macs:,}",
        )
        for each in found
    ]
    sums = [
        f"{sum(counts):,}"
        for counts in zip(
            *((each.parameters, each.operator_parameters, each.macs, each.operator_macs) for each in found), strict=True
        )
    ]
    lines = [COLUMNS, *rows, ("in all", "", "", "", "", *sums)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def _operators(found: Sequence[Section]) -> list[str]:
    front = max(len(each.name) for each in found) + 2
    lines = [
        f"{each.name.ljust(front)}{slot.times} x {slot.channels} channels: {said}"
        for each in found
        for slot, said in zip(each.slots, slot_words(each), strict=True)
    ]
    return lines or ["none"]
