"""All figures of a study: pure functions from records to matplotlib figures."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dynops.ablation.effects import Effects
from dynops.ablation.plan import Plan
from dynops.ablation.reporting.cost_figure import costs
from dynops.ablation.reporting.curve_figures import curves
from dynops.ablation.reporting.drawing import (
    COLOURS,
    LINES,
    MARKERS,
    MOST_CELLS,
    outcome_label,
    panels,
    seeds_shown,
)
from dynops.ablation.reporting.forest import forest
from dynops.ablation.reporting.heat_maps import kernel_maps
from dynops.ablation.reporting.power_figure import power_curve
from dynops.ablation.reporting.regime_figures import over_regime
from dynops.ablation.reporting.results import SCALES, cell_of, comparable, counted
from dynops.ablation.reporting.share_figures import attribution_bars, variance_bars
from dynops.ablation.verdicts import mean_interval
from dynops.records import RunRecord

CHARACTERS = 70
"""Names of levels that are longer in all are turned."""


def all_figures(plan: Plan, records: Sequence[RunRecord], effects: Effects) -> dict[str, Figure]:
    """Draw every figure that the records allow.

    Returns:
        Figures by tag, such as `effects/all`, `factors/kernel by channels`, `kernels/kernel=pixel,channels=shared`.
    """
    return dict(_figures(plan, records, effects))


def _figures(plan: Plan, records: Sequence[RunRecord], effects: Effects) -> Iterator[tuple[str, Figure]]:
    if any(effect.estimate is not None for effect in effects.effects):
        yield "effects/all", forest(effects)
    for across, by in pairs(plan):
        yield (f"factors/{across} by {by}" if by else f"factors/{across}"), interaction(plan, records, across, by)
    for profile in effects.profiles:
        if any(effect.estimate is not None for effect in profile.at):
            yield f"over {profile.regime}/{profile.name}", over_regime(plan, effects, profile)
    if any(cell.mean is not None for cell in effects.cells):
        yield "outcome/cost", costs(plan, effects)
    for tag, figure in (
        ("outcome/learning curves", curves(plan, records)),
        ("shares/attribution", attribution_bars(effects)),
        ("shares/variance", variance_bars(effects)),
        ("power/seeds", power_curve(plan, effects)),
    ):
        if figure is not None:
            yield tag, figure
    drawn: set[str] = set()
    for record in counted(records, plan):
        cell = cell_of(record, plan)
        if record.images.get("kernels") and cell not in drawn and len(drawn) < MOST_CELLS:
            drawn.add(cell)
            yield f"kernels/{cell}", kernel_maps(record)


def pairs(plan: Plan) -> list[tuple[str, str | None]]:
    """Return the pairs of factors that the interaction figures cross; the one with more levels comes first.

    Pairs whose cells the design does not let compare are left out.
    """
    names = [factor.name for factor in sorted(plan.factors, key=lambda factor: -len(factor.levels))]
    if len(names) == 1:
        return [(names[0], None)]
    return [pair for pair in combinations(names, 2) if comparable(plan, pair)]


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
    found = _by_levels(plan, records, (across, by) if by else (across,))
    for place, line in enumerate(lines):
        shift = 0.09 * (place - (len(lines) - 1) / 2)
        points = {}
        for position, level in enumerate(levels[across]):
            values = found.get((level, line) if by else (level,), [])
            if values:
                sizes.append(len(values))
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


def _by_levels(plan: Plan, records: Sequence[RunRecord], names: Sequence[str]) -> dict[tuple[str, ...], list[float]]:
    """The outcome by the levels of some factors, in each seed that has all their cells."""
    cells = Counter(tuple(levels[name] for name in names) for levels in plan.cell_levels())
    found: dict[tuple[str, ...], dict[int, list[float]]] = {}
    for record in counted(records, plan):
        if record.accepted and plan.outcome in record.metrics:
            of_seed = found.setdefault(tuple(record.levels[name] for name in names), {})
            of_seed.setdefault(record.seed, []).append(record.metrics[plan.outcome] * SCALES[plan.unit])
    return {
        levels: [sum(values) / len(values) for values in of_seed.values() if len(values) == cells[levels]]
        for levels, of_seed in found.items()
    }


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
