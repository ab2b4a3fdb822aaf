"""Figures of a study's outcome, costs, curves and kernels: pure functions from records to matplotlib figures."""

from collections.abc import Mapping, Sequence
from itertools import combinations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import ScaledTranslation

from dynops.ablation.drawing import COLOURS, LINES, MARKERS, Style, cell_styles, outcome_label, panels, seeds_shown
from dynops.ablation.effects import CellSummary, Effects
from dynops.ablation.forest import forest
from dynops.ablation.heat_maps import kernel_maps
from dynops.ablation.plan import Plan
from dynops.ablation.results import SCALES, cell_of, counted
from dynops.ablation.verdicts import mean_interval
from dynops.records import RunRecord

History = Sequence[Mapping[str, float]]

SPREAD = 12
"""Cells of equal cost are drawn side by side, an inch for this many."""
WIDE = 8
"""Costs that differ by more than this factor get a logarithmic axis."""
CHARACTERS = 70
"""Names of levels that are longer in all are turned."""


def all_figures(plan: Plan, records: Sequence[RunRecord], effects: Effects) -> dict[str, Figure]:
    """Draw every figure that the records allow.

    Returns:
        Figures by tag, such as `effects/all`, `factors/kernel by channels`, `kernels/kernel=pixel,channels=shared`.
    """
    figures = {}
    if any(effect.estimate is not None for effect in effects.effects):
        figures["effects/all"] = forest(effects)
    for across, by in pairs(plan):
        figures[f"factors/{across} by {by}" if by else f"factors/{across}"] = interaction(plan, records, across, by)
    if any(cell.mean is not None for cell in effects.cells):
        figures["outcome/cost"] = costs(plan, effects)
    curve = curves(plan, records)
    if curve is not None:
        figures["outcome/learning curves"] = curve
    for record in counted(records, plan):
        tag = f"kernels/{cell_of(record, plan)}"
        if record.images.get("kernels") and tag not in figures:
            figures[tag] = kernel_maps(record)
    return figures


def pairs(plan: Plan) -> list[tuple[str, str | None]]:
    """Return the pairs of factors that the interaction figures cross; the one with more levels comes first."""
    factors = sorted(plan.factors, key=lambda factor: -len(factor.levels))
    if len(factors) == 1:
        return [(factors[0].name, None)]
    return [(first.name, second.name) for first, second in combinations(factors, 2)]


def interaction(plan: Plan, records: Sequence[RunRecord], across: str, by: str | None = None) -> Figure:
    """Draw the outcome by level of one factor, a line for each level of another, seeds faint and t intervals.

    A seed that lacks one of the cells that a point averages is left out of that point.

    Args:
        plan: the plan of the records.
        records: the study's records.
        across: factor on the horizontal axis.
        by: factor with a line for each level; None for a study of one factor.
    """
    levels = {factor.name: factor.levels for factor in plan.factors}
    figure, (axes,) = panels(1, width=8.0, height=4.8)
    lines = levels[by] if by else ("",)
    sizes = []
    for place, line in enumerate(lines):
        shift = 0.09 * (place - (len(lines) - 1) / 2)
        points = {}
        for position, level in enumerate(levels[across]):
            values = _by_seed(plan, records, {across: level, **({by: line} if by else {})})
            sizes.append(len(values))
            if values:
                points[position + shift] = values
        _profile(axes, points, place, line)
    crowded = sum(len(level) + 2 for level in levels[across]) > CHARACTERS
    axes.set_xticks(range(len(levels[across])), levels[across])
    if crowded:
        axes.tick_params(axis="x", labelrotation=30, labelrotation_mode="xtick")
    axes.set_xlim(-0.5, len(levels[across]) - 0.5)
    axes.set_xlabel(across)
    axes.set_ylabel(outcome_label(plan.outcome, plan.unit, higher_is_better=plan.higher_is_better))
    crossed = f"{plan.outcome} by {across}" + (f" and {by}" if by else "")
    figure.suptitle(f"{crossed}: {seeds_shown(sizes, 'mean', 'single seeds')}")
    if by:
        axes.legend(title=by, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return figure


def costs(plan: Plan, effects: Effects) -> Figure:
    """Draw each cell's mean outcome with its interval against its parameters and against its MACs."""
    cells = [cell for cell in effects.cells if cell.mean is not None]
    styles = cell_styles(plan)
    figure, sides = panels(2, width=10.5, height=4.5 + 0.1 * len(cells), share=True)
    for axes, cost in zip(sides, ("parameters", "macs"), strict=True):
        _cost_panel(axes, cells, {cell.name: getattr(cell, cost) for cell in cells}, styles, SCALES[effects.unit])
    sides[0].set_xlabel("trainable parameters")
    sides[1].set_xlabel("multiply-accumulates of one forward pass")
    sides[0].set_ylabel(outcome_label(effects.outcome, effects.unit, higher_is_better=plan.higher_is_better))
    figure.suptitle(f"{effects.outcome} against cost: {seeds_shown([cell.n for cell in cells], 'cell means')}")
    _cell_legend(figure, plan, [styles[cell.name] for cell in cells], lines=False)
    return figure


def curves(plan: Plan, records: Sequence[RunRecord]) -> Figure | None:
    """Draw the learning curves of each cell's complete runs, mean over seeds with a 95 % band; None without any."""
    groups: dict[str, list[History]] = {name: [] for name in plan.cell_names()}
    for record in counted(records, plan):
        if record.status == "complete" and record.history:
            groups[cell_of(record, plan)].append(record.history)
    groups = {name: group for name, group in groups.items() if group}
    outcome = history_key(plan.outcome)
    present = {key for group in groups.values() for history in group for entry in history for key in entry}
    keys = [key for key in dict.fromkeys(("train_loss", outcome)) if key in present]
    if not keys:
        return None
    styles = cell_styles(plan)
    figure, sides = panels(len(keys), width=10.5 if len(keys) > 1 else 7.5, height=4.5 + 0.1 * len(groups))
    for axes, key in zip(sides, keys, strict=True):
        for name, group in groups.items():
            _curve(axes, group, key, styles[name], SCALES[plan.unit] if key == outcome else 1.0)
        axes.set_ylabel("training loss" if key == "train_loss" else outcome_label(f"evaluation {key}", plan.unit))
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    sizes = [len(group) for group in groups.values()]
    figure.suptitle(f"Learning curves of complete runs: {seeds_shown(sizes, 'mean over seeds')}")
    _cell_legend(figure, plan, [styles[name] for name in groups], lines=True)
    return figure


def history_key(outcome: str) -> str:
    """Name the entry of a record's history that becomes the outcome: `best_accuracy` comes from `accuracy`."""
    return outcome.removeprefix("best_")


def _by_seed(plan: Plan, records: Sequence[RunRecord], held: Mapping[str, str]) -> list[float]:
    cells = [levels for levels in plan.cell_levels() if held.items() <= levels.items()]
    found: dict[int, list[float]] = {}
    for record in counted(records, plan):
        if record.accepted and plan.outcome in record.metrics and held.items() <= record.levels.items():
            found.setdefault(record.seed, []).append(record.metrics[plan.outcome] * SCALES[plan.unit])
    return [sum(values) / len(values) for values in found.values() if len(values) == len(cells)]


def _profile(axes: Axes, points: Mapping[float, Sequence[float]], place: int, label: str) -> None:
    colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
    means = []
    for x, values in points.items():
        mean, interval = mean_interval(values)
        means.append(mean)
        axes.plot([x + 0.045] * len(values), values, marker, color=colour, alpha=0.25, markersize=4)
        if interval is not None:
            axes.plot([x, x], interval, color=colour, linewidth=2)
    line = LINES[place % len(LINES)] if label else ""
    axes.plot(list(points), means, color=colour, linestyle=line, marker=marker, markersize=8, label=label or "mean")


def _cost_panel(
    axes: Axes, cells: Sequence[CellSummary], at: Mapping[str, int], styles: Mapping[str, Style], scale: float
) -> None:
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
    for cell in cells:
        assert cell.mean is not None, "cells hold those with a result"
        peers = [name for name, value in at.items() if value == at[cell.name]]
        offset = (peers.index(cell.name) - (len(peers) - 1) / 2) / SPREAD
        transform = axes.transData + ScaledTranslation(offset, 0, axes.figure.dpi_scale_trans)
        style, mean, x = styles[cell.name], cell.mean * scale, at[cell.name]
        ends = [end * scale for end in cell.interval or (cell.mean, cell.mean)]
        axes.plot([x, x], ends, color=style.colour, linewidth=2, transform=transform)
        axes.plot(x, mean, style.marker, color=style.colour, markersize=8, transform=transform)
        axes.update_datalim([(x, end) for end in ends])
    axes.autoscale_view(scalex=False)


def _curve(axes: Axes, histories: Sequence[History], key: str, style: Style, scale: float) -> None:
    by_epoch: dict[float, list[float]] = {}
    for history in histories:
        for number, entry in enumerate(history, start=1):
            if key in entry:
                by_epoch.setdefault(entry.get("epoch", number), []).append(entry[key] * scale)
    epochs = sorted(by_epoch)
    if not epochs:
        return
    sums = [mean_interval(by_epoch[epoch]) for epoch in epochs]
    marker = style.marker if len(epochs) == 1 else ""
    axes.plot(epochs, [mean for mean, _ in sums], color=style.colour, linestyle=style.line, marker=marker)
    lows, highs = zip(*(interval or (mean, mean) for mean, interval in sums), strict=True)
    axes.fill_between(epochs, lows, highs, color=style.colour, alpha=0.12, linewidth=0)


def _cell_legend(figure: Figure, plan: Plan, styles: Sequence[Style], *, lines: bool) -> None:
    handles = [
        Line2D(
            [],
            [],
            color=style.colour,
            marker="" if lines else style.marker,
            linestyle=style.line if lines else "",
            label=style.label,
        )
        for style in styles
    ]
    title = ", ".join(factor.name for factor in plan.factors)
    columns = int(figure.get_figwidth() * 9.5 // max(len(style.label) + 8 for style in styles))
    figure.legend(
        handles=handles,
        title=title,
        loc="outside lower center",
        ncols=max(1, min(4, columns)),
        frameon=False,
        handlelength=3,
    )
