"""What all figures of a study share: palette, cell styles, panels without global state, and pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.typing import LineStyleType

from dynops.ablation.plan import Plan
from dynops.ablation.reporting.results import span
from dynops.ablation.verdicts import FEWEST_SEEDS
from dynops.records import cell_name

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Okabe and Ito's palette, which the colour-blind can tell apart."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p", "h")
LINES: tuple[LineStyleType, ...] = ("-", "--", ":", "-.")
MOST_NAMED = 12
"""Cells that a legend names one by one."""
MOST_CELLS = 100
"""Cells that are drawn one by one; of more, figures draw the best alone."""


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


def cell_legend(figure: Figure, plan: Plan, names: Sequence[str], *, lines: bool) -> None:
    """Add a legend of cells below a figure; of many cells, the levels of the first factor and then all of the rest."""
    styles = cell_styles(plan)
    shown = [styles[name] for name in names]
    rest = list(dict.fromkeys(style.label.partition(", ")[2] for style in styles.values()))
    colours_suffice = len(plan.factors[0].levels) <= len(COLOURS) and 1 < len(rest) <= len(MARKERS)
    compact = len(shown) > MOST_NAMED and colours_suffice
    if compact:
        first = dict(zip(plan.factors[0].levels, COLOURS, strict=False))
        colours = [Style(level, colour, "o", "-") for level, colour in first.items()]
        markers = [Style(each, "0.4", MARKERS[place % len(MARKERS)], "-") for place, each in enumerate(rest)]
        shown = [*colours, *markers]
    handles = [
        Line2D(
            [],
            [],
            color=style.colour,
            marker="" if lines else style.marker,
            linestyle=style.line if lines else "",
            label=style.label,
        )
        for style in shown
    ]
    first_name, *others = (factor.name for factor in plan.factors)
    title = f"colour: {first_name}; shape: {', '.join(others)}" if compact else ", ".join((first_name, *others))
    columns = int(figure.get_figwidth() * 9.5 // max(len(style.label) + 8 for style in shown))
    figure.legend(
        handles=handles,
        title=title,
        loc="outside lower center",
        ncols=max(1, min(6 if compact else 4, columns)),
        frameon=False,
        handlelength=3 if lines else 1,
    )


def panels(number: int, *, width: float, height: float, share: bool = False) -> tuple[Figure, list[Axes]]:
    """Return a figure of inches `width` x `height` and its panels side by side, sharing their outcome if asked to."""
    figure = _figure(width, height)
    axes = list(np.atleast_1d(figure.subplots(1, number, sharey=share)))
    for each in axes:
        _plain(each)
    return figure, axes


def grid_of_panels(rows: int, columns: int, *, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure and its panels, row by row, which share both axes."""
    figure = _figure(width, height)
    grid = [axes for row in figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False) for axes in row]
    for each in grid:
        _plain(each)
    return figure, grid


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


def png(figure: Figure) -> bytes:
    """Render a figure as PNG; an equal figure gives equal bytes."""
    image = BytesIO()
    figure.savefig(image, format="png", metadata={"Software": None})
    return image.getvalue()


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.93")
    axes.set_axisbelow(True)
