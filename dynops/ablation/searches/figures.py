"""Figures of a search: its front, how it got there, and how much each factor explains."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter
from matplotlib.transforms import Bbox

from dynops.ablation.designs import Levels
from dynops.ablation.reporting.drawing import COLOURS, MARKERS, panels
from dynops.ablation.reporting.results import SCALES
from dynops.ablation.searches.plan import COSTS, Objective, SearchPlan
from dynops.ablation.searches.trials import PointTrial, front_of, results, shown_levels

WIDE = 8
"""Costs that differ by more than this factor get a logarithmic axis."""
GREY = "0.45"
NAMES = {"parameters": "trainable parameters", "macs": "multiply-accumulates", "step_milliseconds": "step, ms"}
MARK = 13
"""Side of a mark that a label must not touch, in pixels."""
PLACES = tuple(
    (radius * x, radius * y)
    for radius in (9, 15, 22, 30)
    for x, y in ((0, 1), (-0.8, 0.8), (0.8, 0.8), (0, -1), (-1.1, 0), (1.1, 0), (0.8, -0.8), (-0.8, -0.8))
)
"""Where a label may stand, in points from its mark; the first of those that hide least is taken."""


def search_figures(
    plan: SearchPlan, trials: Sequence[PointTrial], shares: Mapping[str, Mapping[str, float]]
) -> dict[str, Figure]:
    """Draw every figure that the trials allow.

    Args:
        plan: the plan of the trials.
        trials: all trials of the search.
        shares: what each factor explains, by objective and factor.
    Returns:
        Figures by tag: `front`, `history`, `importance`.
    """
    figures = {}
    if results(trials):
        if len(plan.objectives) > 1:
            figures["front"] = front_figure(plan, trials)
        figures["history"] = history_figure(plan, trials)
    if shares:
        figures["importance"] = importance_figure(shares, len(results(trials)))
    return figures


def front_figure(plan: SearchPlan, trials: Sequence[PointTrial]) -> Figure:
    """Draw the outcome against each other objective: all results, the front as a line, its trials by their number.

    The line is the front of the two objectives of its panel; full marks are on the front of all objectives.
    """
    found, best = results(trials), front_of(plan, trials)
    number = len(plan.objectives) - 1
    drawn = [each for each in found if any(each in front_of(plan, found, (0, place)) for place in range(1, number + 1))]
    named = sorted({trial.number: trial for trial in (*best, *drawn)}.values(), key=lambda trial: trial.number)
    figure, sides = panels(number, width=1.5 + 5.0 * number, height=5.4 + 0.17 * len(named), share=True)
    for axes, place in zip(sides, range(1, number + 1), strict=True):
        _scale(axes, [trial.values[place] for trial in found], plan.objectives[place])
        _step(axes, plan, front_of(plan, found, (0, place)), place)
        for trial in found:
            _mark(axes, _xy(plan, trial, place), _style(plan, trial), full=trial in best)
        axes.set_xlabel(_label(plan.objectives[place]))
        axes.margins(y=0.12)
    sides[0].set_ylabel(_label(plan.outcome))
    figure.suptitle(f"Exploratory search: {len(best)} of {len(found)} results are on the front ({_seeds(plan)})")
    _mark_legend(figure, plan, found)
    _number_legend(figure, plan, named)
    figure.draw_without_rendering()
    for axes, place in zip(sides, range(1, number + 1), strict=True):
        _number(axes, {trial.number: _xy(plan, trial, place) for trial in named}, [_xy(plan, t, place) for t in found])
    return figure


def history_figure(plan: SearchPlan, trials: Sequence[PointTrial]) -> Figure:
    """Draw the outcome trial by trial with the best so far, and how much of the final front was known when."""
    found, best = results(trials), front_of(plan, trials)
    several = len(plan.objectives) > 1
    figure, sides = panels(1 + several, width=11.0 if several else 7.5, height=4.5)
    _outcomes(sides[0], plan, trials, {"result": found, "on the final front" if several else "best": best})
    figure.legend(*sides[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    if several:
        known = [sum(trial.number <= number for trial in best) for number in range(len(trials) + 1)]
        sides[1].step(range(len(trials) + 1), known, where="post", color=COLOURS[0])
        sides[1].set_ylim(0, 1.08 * len(best))
        sides[1].set_ylabel(f"trials of the final front (of {len(best)}) found so far")
        sides[1].yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for axes in sides:
        axes.set_xlabel("trial")
        axes.set_xlim(0, len(trials) + 1)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    counted = f"{len(found)} results of {len(trials)} trials ({_seeds(plan)})"
    figure.suptitle(f"Exploratory search by {plan.sampler}: {counted}")
    return figure


def _outcomes(
    axes: Axes, plan: SearchPlan, trials: Sequence[PointTrial], groups: Mapping[str, Sequence[PointTrial]]
) -> None:
    """Draw groups of results, each over the one before, the best so far, and what ended without a result."""
    scale = SCALES[plan.outcome.unit]
    for (name, group), colour in zip(groups.items(), (GREY, COLOURS[0]), strict=True):
        values = [trial.values[0] * scale for trial in group]
        axes.plot([trial.number for trial in group], values, "o", color=colour, markersize=4.5, label=name)
    found = results(trials)
    running = np.maximum.accumulate if plan.outcome.direction == "maximise" else np.minimum.accumulate
    steps = running([trial.values[0] * scale for trial in found])
    numbers = [trial.number for trial in found]
    axes.step([*numbers, len(trials)], [*steps, steps[-1]], where="post", color=COLOURS[2], label="best so far")
    for status, marker in (("pruned", "|"), ("failed", "x")):
        ended = [trial.number for trial in trials if trial.status == status]
        if ended:
            where = axes.get_xaxis_transform()
            axes.plot(ended, [0.02] * len(ended), marker, color=COLOURS[1], markersize=6, label=status, transform=where)
    axes.set_ylabel(_label(plan.outcome))


def importance_figure(shares: Mapping[str, Mapping[str, float]], number: int) -> Figure:
    """Draw what each factor explains of each objective, the factor that explains most of the outcome at the top.

    Args:
        shares: of variance, by objective and factor.
        number: how many results they come from.
    """
    first = next(iter(shares.values()))
    factors = sorted(first, key=first.__getitem__)
    figure, (axes,) = panels(1, width=8.0, height=1.7 + (0.3 + 0.24 * len(shares)) * len(factors))
    thick = 0.8 / len(shares)
    for place, (objective, found) in enumerate(shares.items()):
        heights = [index + 0.4 - (place + 0.5) * thick for index in range(len(factors))]
        widths = [found[factor] for factor in factors]
        bars = axes.barh(heights, widths, 0.9 * thick, color=COLOURS[place % len(COLOURS)], label=objective)
        axes.bar_label(bars, [f"{100 * width:.0f} %" for width in widths], padding=3, fontsize=8, color="0.3")
    axes.set_yticks(range(len(factors)), factors)
    axes.set_xlim(0, 1.05)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("share of the variance, main effect alone (fANOVA)")
    axes.legend(frameon=False, loc="lower right")
    figure.suptitle(f"Exploratory: what each factor explains of the spread of {number} trials, no effect", fontsize=11)
    return figure


def _seeds(plan: SearchPlan) -> str:
    return f"n = {len(plan.seeds)} {'seed' if len(plan.seeds) == 1 else 'seeds'} a trial"


def _label(objective: Objective) -> str:
    name = NAMES.get(objective.metric, objective.metric)
    unit = " (points)" if objective.unit == "points" else ""
    return f"{name}{unit}, {'higher' if objective.direction == 'maximise' else 'lower'} is better"


def _xy(plan: SearchPlan, trial: PointTrial, place: int) -> tuple[float, float]:
    x, y = (trial.values[each] * SCALES[plan.objectives[each].unit] for each in (place, 0))
    return x, y


def _style(plan: SearchPlan, trial: PointTrial) -> tuple[str, str]:
    """Give the first factor's level a colour and a marker; numbers have one for all."""
    factor = plan.factors[0]
    place = factor.levels.index(trial.levels[factor.name]) if isinstance(factor, Levels) else 0
    return COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]


def _scale(axes: Axes, values: Sequence[float], objective: Objective) -> None:
    low, high = min(values), max(values)
    if low > 0 and high > WIDE * low:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    if objective.metric in COSTS:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _step(axes: Axes, plan: SearchPlan, line: Iterable[PointTrial], place: int) -> None:
    """Draw the front of a panel as the border of what it dominates."""
    points = np.repeat(sorted({_xy(plan, trial, place) for trial in line}), 2, axis=0)
    xs, ys = points[1:, 0], points[:-1, 1]
    if plan.objectives[place].direction == "maximise":
        xs, ys = points[:-1, 0], points[1:, 1]
    axes.plot(xs, ys, color="0.25", linewidth=1.2, zorder=1)


def _mark(axes: Axes, at: tuple[float, float], style: tuple[str, str], *, full: bool) -> None:
    colour, marker = style
    axes.plot(
        *at,
        marker,
        color=colour,
        markersize=8 if full else 5,
        alpha=1.0 if full else 0.45,
        markerfacecolor=colour if full else "none",
        zorder=3 if full else 2,
    )


def _number(axes: Axes, at: Mapping[int, tuple[float, float]], marks: Sequence[tuple[float, float]]) -> None:
    """Write the numbers of trials beside their marks, each where it hides least, with a leader where that is far."""
    renderer = axes.figure.canvas.get_renderer()  # type: ignore[attr-defined]  # every figure has the Agg canvas
    taken = [Bbox.from_bounds(x - MARK / 2, y - MARK / 2, MARK, MARK) for x, y in axes.transData.transform(marks)]
    lines = [line.get_path().transformed(line.get_transform()) for line in axes.lines if line.get_linestyle() == "-"]
    for number, point in sorted(at.items(), key=lambda item: item[1]):
        label = axes.annotate(
            str(number),
            point,
            PLACES[0],
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=8,
            arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 5},
        )
        label.set_in_layout(False)
        boxes = {}
        for place in PLACES:
            label.set_position(place)
            label.update_positions(renderer)
            boxes[place] = Text.get_window_extent(label, renderer).padded(1)  # without the leader
        hidden = {
            place: 3 * sum(box.overlaps(other) for other in taken)
            + sum(path.intersects_bbox(box, filled=False) for path in lines)
            + 9 * (not axes.bbox.containsx(box.x0) or not axes.bbox.containsx(box.x1))
            for place, box in boxes.items()
        }
        best = min(PLACES, key=hidden.__getitem__)
        label.set_position(best)
        taken.append(boxes[best])


def _mark_legend(figure: Figure, plan: SearchPlan, found: Sequence[PointTrial]) -> None:
    """Say what colours and marks stand for."""
    factor = plan.factors[0]
    named = isinstance(factor, Levels)
    styles = {trial.levels[factor.name]: _style(plan, trial) for trial in found} if named else {}
    handles = [
        Line2D([], [], linestyle="", color=styles[level][0], marker=styles[level][1], label=level)
        for level in (factor.levels if isinstance(factor, Levels) else ())
        if level in styles
    ]
    handles += [
        Line2D([], [], linestyle="", color=GREY, marker="o", markersize=8, label="front of all"),
        Line2D([], [], linestyle="", color=GREY, marker="o", markersize=5, markerfacecolor="none", label="other"),
        Line2D([], [], color="0.25", linewidth=1.2, label="front of the panel"),
    ]
    figure.legend(handles=handles, title=factor.name if named else None, loc="outside right upper", frameon=False)


def _number_legend(figure: Figure, plan: SearchPlan, named: Sequence[PointTrial]) -> None:
    """Say what the numbered trials are."""
    lines = [f"{trial.number}  {', '.join(shown_levels(plan, trial.levels))}" for trial in named]
    columns = int(figure.get_figwidth() * 11 // (max(len(line) for line in lines) + 6))
    figure.legend(
        handles=[Line2D([], [], linestyle="", label=line) for line in lines],
        title=f"trial  {', '.join(factor.name for factor in plan.factors)}",
        loc="outside lower center",
        ncols=max(1, min(4, columns)),
        frameon=False,
        handlelength=0,
        handletextpad=0,
        fontsize=8.5,
    )
