"""What all figures of a study share: palette, cell styles, panels without global state, and pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.typing import LineStyleType

from dynops.ablation.plan import Plan
from dynops.ablation.results import span
from dynops.ablation.verdicts import FEWEST_SEEDS
from dynops.records import cell_name

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Okabe and Ito's palette, which the colour-blind can tell apart."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES: tuple[LineStyleType, ...] = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Style:
    """How one cell is drawn, everywhere."""

    label: str
    colour: str
    marker: str
    line: LineStyleType


def cell_styles(plan: Plan) -> dict[str, Style]:
    """Give each cell a style: the first factor sets the colour, the other factors set marker and line."""
    first, rest = plan.factors[0], list(dict.fromkeys(tuple(levels.values())[1:] for levels in plan.cell_levels()))
    styles = {}
    for levels in plan.cell_levels():
        colour = first.levels.index(levels[first.name])
        other = rest.index(tuple(levels.values())[1:]) + len(rest) * (colour // len(COLOURS))
        styles[cell_name(levels)] = Style(
            ", ".join(levels.values()),
            COLOURS[colour % len(COLOURS)],
            MARKERS[other % len(MARKERS)],
            LINES[other % len(LINES)],
        )
    return styles


def panels(number: int, *, width: float, height: float, share: bool = False) -> tuple[Figure, list[Axes]]:
    """Return a figure of inches `width` x `height` and its panels side by side, sharing their outcome if asked to."""
    figure = _figure(width, height)
    axes = list(np.atleast_1d(figure.subplots(1, number, sharey=share)))
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(color="0.93")
        each.set_axisbelow(True)
    return figure, axes


def bare_panels(rows: int, columns: int, *, width: float, height: float) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure and a grid of panels without ticks, for images."""
    figure = _figure(width, height)
    grid = [list(row) for row in figure.subplots(rows, columns, squeeze=False)]
    for each in (axes for row in grid for axes in row):
        each.set_xticks([])
        each.set_yticks([])
    return figure, grid


def outcome_label(outcome: str, unit: str, *, higher_is_better: bool | None = None) -> str:
    """Name the outcome with its unit and, if told, the direction of a gain."""
    label = f"{outcome} (points)" if unit == "points" else outcome
    if higher_is_better is None:
        return label
    return f"{label}, {'higher' if higher_is_better else 'lower'} is better"


def seeds_shown(sizes: Sequence[int], *shown: str, level: float = 0.05) -> str:
    """Say in a title what is drawn over how many seeds: intervals only where there are enough seeds for one.

    >>> seeds_shown([2, 3], "mean")
    'mean, 95 % t interval (n = 2 to 3 seeds)'
    >>> seeds_shown([2], "mean", "single seeds")
    'mean, single seeds (n = 2 seeds, too few for intervals)'
    """
    enough = max(sizes) >= FEWEST_SEEDS
    parts = [shown[0], f"{100 * (1 - level):g} % t interval", *shown[1:]] if enough else shown
    return f"{', '.join(parts)} (n = {span(sizes)} seeds{'' if enough else ', too few for intervals'})"


def pixels(figure: Figure) -> np.ndarray:
    """Render a figure to its pixels, `h w c` with three channels of 0 to 255."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure
