"""The picture of a network's card: its sections from left to right, where their operators look, and what they cost."""

from collections.abc import Sequence
from textwrap import fill

import numpy as np
from matplotlib.colors import to_rgb

from dynops.cards import words
from dynops.cards.looks import looks
from dynops.cards.page import Page
from dynops.cards.panels import COLOURS, FRAME
from dynops.nets.features import Section, Slot
from dynops.nets.network import Shape

LEFT, COLUMN, RIGHT = 1.5, 1.95, -0.3
"""Inches: the margin of row names, a section's column, and what is left free behind the last."""
SIDE, DECK = 1.35, 0.5
"""Inches of the largest grid's side, and of the most by which a stage's blocks lie behind one another."""
APART = 0.06
"""Inches between two blocks of a stage, where they are few."""
BAR, WIDE = 1.0, 0.9
"""Inches of the highest bar, and of its width."""
LINE = 0.165
"""Inches of a line of notes."""
PALE, BEHIND = "#cfd6de", "#e9edf1"
OPERATORS = COLOURS[1]
VECTOR = 0.14
"""Inches of the width of a vector, which has no grid."""


def network_picture(found: Sequence[Section], shape: Shape, *, title: str, said: str) -> Page:
    """Draw a network.

    Args:
        found: its sections, in order.
        shape: channels, rows and columns of an image.
        title: its name.
        said: what stands below it.
    """
    described = [_described(section) for section in found]
    lines = max(text.count("\n") + 1 for text in described)
    deck, top = SIDE + DECK, 1.05
    below = top + deck + 0.12 + LINE * lines + 0.35
    page = Page(LEFT + COLUMN * len(found) + RIGHT, below + 2 * (BAR + 0.6) + 0.55)
    page.text(0.2, 0.15, title, size=15, weight="bold")
    page.text(0.2, 0.5, said, size=9.5)
    page.text(0.2, top + 0.05, "image", size=8.5, weight="bold")
    page.text(0.2, top + 0.25, f"{words.by(shape[1:])} pixels\n{shape[0]} channels", size=8)
    widest = max(max(_drawn_grid(section), default=1) for section in found)
    for number, (section, text) in enumerate(zip(found, described, strict=True)):
        left = LEFT + COLUMN * number
        page.text(left, top - 0.15, section.name, weight="bold", size=10)
        _draw_section(page, left, top + deck, section, widest)
        page.text(left, top + deck + 0.12, text, size=8)
    counts = [(section.parameters, section.operator_parameters) for section in found]
    _draw_bars(page, below, "parameters", counts)
    products = [(section.macs, section.operator_macs) for section in found]
    _draw_bars(page, below + BAR + 0.6, "MACs", products)
    _draw_notes(page, below + 2 * (BAR + 0.6) + 0.1)
    return page


def _described(section: Section) -> str:
    lines = [words.by(section.grid) if section.grid else "a vector", f"{section.channels} channels"]
    if section.stride is not None:
        lines[0] += f", stride {section.stride}"
    if section.blocks > 1:
        lines.append(f"{section.blocks} blocks")
    for slot in section.slots:
        where = "" if slot.grid == section.grid else f" at {words.by(slot.grid)}"
        seen = fill(f"{words.window(slot.operator)} on {slot.channels} channels{where}", 30)
        spread = fill(words.channels(slot.operator, slot.channels), 30)
        lines += ["", *seen.split("\n"), *spread.split("\n"), words.signature(slot.operator)]
    return "\n".join(lines)


def _drawn_grid(section: Section) -> tuple[int, ...]:
    """The grid on which the first operator stands, and else the section's own."""
    return section.slots[0].grid if section.slots else section.grid


def _draw_section(page: Page, left: float, bottom: float, section: Section, widest: int) -> None:
    """Draw a section's blocks behind one another, and on the first where its operator looks."""
    grid = _drawn_grid(section)
    if not grid:
        page.rectangle(left, bottom - SIDE / 2, VECTOR, SIDE / 2, PALE, FRAME)
        return
    height, width = (SIDE * (length / widest) ** 0.5 for length in grid)
    step = min(APART, DECK / max(section.blocks - 1, 1))
    for behind in range(section.blocks - 1, 0, -1):
        shift = behind * step
        page.rectangle(left + shift, bottom - height - shift, width, height, BEHIND, "0.5", min(0.6, 12 * step))
    page.rectangle(left, bottom - height, width, height, BEHIND)
    if section.slots:
        taps = _taps(section.slots[0])
        ground, colour = np.array(to_rgb(BEHIND)), np.array(to_rgb(OPERATORS))
        strength = np.minimum(0.55 + 0.15 * taps, 1.0)[..., None] * (taps > 0)[..., None]
        rows, columns = taps.shape
        panel = page.panel(left, bottom - height, width, height, (rows, columns))
        panel.image(ground * (1 - strength) + colour * strength)
        if height / rows > 0.03:
            panel.mesh("white", 0.4)
    page.panel(left, bottom - height, width, height, (1, 1)).frame(FRAME, 0.8)


def _taps(slot: Slot) -> np.ndarray:
    """Count the taps of the output in the middle that see each pixel of the grid."""
    middle = tuple(length // 2 for length in slot.grid)
    (look,) = looks(slot.operator.window, slot.grid, [middle])
    return look.taps[look.inside].reshape(slot.grid)


def _draw_bars(page: Page, top: float, name: str, counts: Sequence[tuple[int, int]]) -> None:
    """Draw a bar for each section, of which the operators' part stands at the foot."""
    whole, operators = (sum(column) for column in zip(*counts, strict=True))
    page.text(0.2, top + 0.05, name, size=8.5, weight="bold")
    page.text(0.2, top + 0.25, f"{words.human(whole)} in all,\n{_share(operators, whole)} in operators", size=8)
    most = max(max(count for count, _ in counts), 1)
    foot = top + 0.2 + BAR
    for number, (count, inside) in enumerate(counts):
        left, height = LEFT + COLUMN * number, BAR * count / most
        part = BAR * inside / most
        page.rectangle(left, foot - height, WIDE, height - part, PALE)
        page.rectangle(left, foot - part, WIDE, part, OPERATORS)
        page.text(left, foot - height - 0.17, words.human(count), size=8.5)
        if inside:
            page.text(left + WIDE + 0.06, foot - 0.15, _share(inside, count), size=7.5, colour=OPERATORS)
    page.rectangle(LEFT, foot, COLUMN * (len(counts) - 1) + WIDE, 0.012, FRAME)


def _share(part: int, whole: int) -> str:
    share = 100 * part / max(whole, 1)
    return f"{share:.0f} %" if share >= 0.5 or not part else "< 1 %"


def _draw_notes(page: Page, top: float) -> None:
    page.rectangle(LEFT, top, 0.12, 0.12, OPERATORS)
    page.text(LEFT + 0.2, top - 0.02, "an operator: what the output in the middle sees; its part of the costs", size=8)
    page.text(
        LEFT, top + 0.2, "a side grows as the root of the grid's; one sheet for each block", size=8, colour="0.35"
    )
