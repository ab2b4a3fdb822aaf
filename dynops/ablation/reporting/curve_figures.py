"""Learning curves of cells: all in one panel, or, where they are many, in a panel for each level of a factor."""

from collections.abc import Mapping, Sequence
from math import ceil
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dynops.ablation.plan import Plan
from dynops.ablation.reporting.drawing import (
    COLOURS,
    LINES,
    MOST_CELLS,
    Style,
    cell_legend,
    cell_styles,
    grid_of_panels,
    outcome_label,
    panels,
    seeds_shown,
)
from dynops.ablation.reporting.learning import Curves, averaged, curve_keys, history_key, learning, with_intervals
from dynops.ablation.reporting.results import SCALES
from dynops.records import RunRecord, cell_name

FEW = 8
"""Cells whose curves one panel can hold."""
COLUMNS = 4
"""Panels side by side, where there are many."""
WIDTH = 11.0
"""Inches that they take together."""
LEVEL = 0.05


def curves(plan: Plan, records: Sequence[RunRecord]) -> Figure | None:
    """Draw the learning curves of each cell's complete runs, mean over seeds with a 95 % band; None without any.

    Up to eight cells share a panel for the training loss and one for the outcome. More are drawn in a panel for each
    level of one factor, the outcome alone, with the curves of all other cells in grey behind. Of more than 100 cells
    the eight best are drawn.
    """
    keys = curve_keys(plan, records)
    if not keys:
        return None
    found = {key: learning(plan, records, key) for key in keys}
    cells = found[keys[-1]]
    if FEW < len(cells) <= MOST_CELLS:
        return _by_panel(plan, cells, keys[-1])
    if len(cells) > MOST_CELLS:
        best = _best(cells, higher_is_better=plan.higher_is_better and keys[-1] != "train_loss")
        found = {key: {name: seeds for name, seeds in found[key].items() if name in best} for key in keys}
    return _together(plan, found, len(cells))


def _best(found: Curves, *, higher_is_better: bool) -> set[str]:
    """The cells whose last values, averaged over seeds, are best."""
    ends = {name: fmean(list(curve.values())[-1] for curve in seeds.values()) for name, seeds in found.items()}
    return set(sorted(ends, key=ends.__getitem__, reverse=higher_is_better)[:FEW])


def _together(plan: Plan, found: Mapping[str, Curves], number: int) -> Figure:
    styles = cell_styles(plan)
    names = list(next(iter(found.values())))
    figure, sides = panels(len(found), width=10.5 if len(found) > 1 else 7.5, height=4.5 + 0.1 * len(names))
    for axes, (key, of_cells) in zip(sides, found.items(), strict=True):
        for name in of_cells:
            _curve(axes, of_cells, name, styles[name], _scale(plan, key))
        axes.set_ylabel(_label(plan, key))
        _epochs(axes)
    left_out = f"\nthe {len(names)} of {number:,} cells whose curves end best" if number > len(names) else ""
    figure.suptitle(_title(next(iter(found.values()))) + left_out)
    cell_legend(figure, plan, names, lines=True)
    return figure


def _by_panel(plan: Plan, found: Curves, key: str) -> Figure:
    factor = split(plan)
    rest = list(dict.fromkeys(_rest(levels, factor) for levels in plan.cell_levels()))
    styles = {
        each: Style(each, COLOURS[place % len(COLOURS)], "o", LINES[place // len(COLOURS) % len(LINES)])
        for place, each in enumerate(rest)
    }
    levels = plan.factor(factor).levels
    columns = min(COLUMNS, len(levels))
    rows = ceil(len(levels) / columns)
    figure, sides = grid_of_panels(rows, columns, width=WIDTH, height=0.8 * WIDTH / columns * rows + 0.8)
    scale = _scale(plan, key)
    for place, (axes, level) in enumerate(zip(sides, levels, strict=False)):
        own = {cell_name(each): styles[_rest(each, factor)] for each in plan.cell_levels() if each[factor] == level}
        for name in found:
            if name not in own:
                _background(axes, found, name, scale)
        for name in found:
            if name in own:
                _curve(axes, found, name, own[name], scale)
        axes.set_title(f"{factor}={level}", fontsize=10)
        if place + columns >= len(levels):  # the lowest of its column
            _epochs(axes)
            axes.tick_params(labelbottom=True)
    for axes in sides[len(levels) :]:
        axes.set_visible(False)
    for row in range(rows):
        sides[row * columns].set_ylabel(_label(plan, key))
    figure.suptitle(f"{_title(found)}\nall other cells in grey")
    if len(rest) > 1:
        handles = [Line2D([], [], color=each.colour, linestyle=each.line, label=each.label) for each in styles.values()]
        wide = int(figure.get_figwidth() * 9.5 // max(len(each) + 8 for each in rest))
        figure.legend(handles=handles, loc="outside lower center", ncols=max(1, min(6, wide)), frameon=False)
    return figure


def split(plan: Plan) -> str:
    """Return the factor with a panel a level: that which leaves panels and lines in a panel most alike in number."""
    cells, sizes = len(plan.cell_levels()), {factor.name: len(factor.levels) for factor in plan.factors}
    return min(sizes, key=lambda name: (max(sizes[name], cells / sizes[name]), -sizes[name]))


def _rest(levels: dict[str, str], factor: str) -> str:
    return ", ".join(level for name, level in levels.items() if name != factor)


def _curve(axes: Axes, found: Curves, name: str, style: Style, scale: float) -> None:
    sums = with_intervals(averaged(found, [name]), LEVEL)
    epochs = list(sums)
    means = [mean * scale for mean, _ in sums.values()]
    marker = style.marker if len(epochs) == 1 else ""
    axes.plot(epochs, means, color=style.colour, linestyle=style.line, marker=marker)
    ends = [interval or (mean, mean) for mean, interval in sums.values()]
    lows, highs = ([end[side] * scale for end in ends] for side in (0, 1))
    axes.fill_between(epochs, lows, highs, color=style.colour, alpha=0.12, linewidth=0)


def _background(axes: Axes, found: Curves, name: str, scale: float) -> None:
    sums = averaged(found, [name])
    means = [scale * sum(values) / len(values) for values in sums.values()]
    axes.plot(list(sums), means, color="0.88", linewidth=0.8, zorder=0.5)


def _epochs(axes: Axes) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _label(plan: Plan, key: str) -> str:
    return "training loss" if key == "train_loss" else outcome_label(f"evaluation {key}", plan.unit)


def _scale(plan: Plan, key: str) -> float:
    return SCALES[plan.unit] if key == history_key(plan.outcome) else 1.0


def _title(found: Curves) -> str:
    sizes = [len(seeds) for seeds in found.values()]
    return f"Learning curves of complete runs: {seeds_shown(sizes, 'mean over seeds')}"
