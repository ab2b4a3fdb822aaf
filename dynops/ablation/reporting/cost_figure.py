"""What cells are worth: their outcome against parameters and multiply-accumulates, with the Pareto front."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import ScaledTranslation

from dynops.ablation.effects import CellSummary, Effects
from dynops.ablation.plan import Plan
from dynops.ablation.reporting.drawing import (
    MOST_CELLS,
    Style,
    cell_legend,
    cell_styles,
    outcome_label,
    panels,
    seeds_shown,
)
from dynops.ablation.reporting.results import SCALES
from dynops.ablation.statistics.pareto import undominated

SPREAD = 12
"""Cells of equal cost are drawn side by side, an inch for this many or for all of them."""
WIDE = 8
"""Costs that differ by more than this factor get a logarithmic axis."""
SMALL, LARGE = 5.0, 12.0
"""Size of a point that is never on the front, and of one that always is."""
BEST = 24
"""Cells that are drawn where there are too many, beside those on the front."""
UNSURE = 8.0
"""Size of a point where there are too few seeds to say."""


def costs(plan: Plan, effects: Effects) -> Figure:
    """Draw each cell's mean outcome with its interval against its parameters and against its MACs.

    A line follows the cells with the best mean outcome at no more of the cost below. The larger a point, the more
    resamples of the seeds have its cell on the front of outcome, parameters and MACs together. Of more than 100 cells
    only the best ones and those on the front are drawn.
    """
    known_cells = [cell for cell in effects.cells if cell.mean is not None]
    cells = _drawn(known_cells, plan, effects)
    styles = cell_styles(plan)
    sizes = {each.cell: each.front_probability for each in effects.standings}
    known = any(size is not None for size in sizes.values())
    figure, sides = panels(2, width=10.5, height=5.0 + 0.02 * len(cells), share=True)
    for axes, cost in zip(sides, ("parameters", "macs"), strict=True):
        at = {cell.name: getattr(cell, cost) for cell in cells}
        _axis(axes, at)
        _front(axes, cells, at, effects, higher_is_better=plan.higher_is_better)
        for cell in cells:
            _point(axes, cell, at, styles[cell.name], _size(sizes.get(cell.name)), SCALES[effects.unit])
        axes.autoscale_view(scalex=False)
    sides[0].set_xlabel("trainable parameters")
    sides[1].set_xlabel("multiply-accumulates of one forward pass")
    sides[0].set_ylabel(outcome_label(effects.outcome, effects.unit, higher_is_better=plan.higher_is_better))
    drawn = f"{effects.outcome} against cost: {seeds_shown([cell.n for cell in cells], 'cell means')}"
    sized = "; the larger a point, the surer it is on the front of outcome and both costs" if known else ""
    few = f"\nof {len(known_cells):,} cells the {BEST} best, and those on the front" if cells != known_cells else ""
    figure.suptitle(f"{drawn}\ngrey: the best mean at no more of this cost{sized}{few}", fontsize=11)
    cell_legend(figure, plan, [cell.name for cell in cells], lines=False)
    return figure


def _drawn(cells: list[CellSummary], plan: Plan, effects: Effects) -> list[CellSummary]:
    """All cells, or those that matter where there are too many."""
    if len(cells) <= MOST_CELLS:
        return cells
    means = sorted((cell.mean for cell in cells if cell.mean is not None), reverse=plan.higher_is_better)
    best = set(means[:BEST])
    on_front = {each.cell for each in effects.standings if each.on_front}
    return [cell for cell in cells if cell.mean in best or cell.name in on_front]


def _size(probability: float | None) -> float:
    return UNSURE if probability is None else SMALL + (LARGE - SMALL) * probability


def _axis(axes: Axes, at: Mapping[str, int]) -> None:
    low, high = min(at.values()), max(at.values())
    if low > 0 and high > WIDE * low:
        axes.set_xscale("log")
        axes.set_xlim(low / (high / low) ** 0.12, high * (high / low) ** 0.12)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 10 * WIDE * low else (1,)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        pad = 0.12 * (high - low) or 0.5 * high or 1.0
        axes.set_xlim(low - pad, high + pad)
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _front(
    axes: Axes, cells: Sequence[CellSummary], at: Mapping[str, int], effects: Effects, *, higher_is_better: bool
) -> None:
    means = np.array([cell.mean for cell in cells], dtype=float)
    prices = np.array([[at[cell.name]] for cell in cells], dtype=float)
    on_front = undominated(prices, means if higher_is_better else -means)
    points = sorted({(float(prices[place, 0]), means[place] * SCALES[effects.unit]) for place in on_front.nonzero()[0]})
    right = axes.get_xlim()[1]
    x, y = zip(*points, (right, points[-1][1]), strict=True)
    axes.plot(x, y, color="0.75", linewidth=1.5, drawstyle="steps-post", zorder=1, label="front")


def _point(axes: Axes, cell: CellSummary, at: Mapping[str, int], style: Style, size: float, scale: float) -> None:
    assert cell.mean is not None, "cells hold those with a result"
    peers = [name for name, value in at.items() if value == at[cell.name]]
    offset = (peers.index(cell.name) - (len(peers) - 1) / 2) / max(SPREAD, len(peers))
    transform = axes.transData + ScaledTranslation(offset, 0, axes.figure.dpi_scale_trans)
    mean, x = cell.mean * scale, at[cell.name]
    ends = [end * scale for end in cell.interval or (cell.mean, cell.mean)]
    axes.plot([x, x], ends, color=style.colour, linewidth=1.5, alpha=0.6, transform=transform)
    axes.plot(x, mean, style.marker, color=style.colour, markersize=size, transform=transform)
    axes.update_datalim([(x, end) for end in ends])
