"""Shares: what each part adds to a whole change, and what each set of factors explains."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dynops.ablation.effects import Effect, Effects
from dynops.ablation.reporting.drawing import COLOURS, outcome_label, panels, seeds_shown
from dynops.ablation.reporting.results import SCALES, show

MOST_SETS = 20
"""Sets of factors that are drawn; the smaller ones are left to the table."""


def attribution_bars(effects: Effects) -> Figure | None:
    """Draw the parts of the whole change one after the other, so that they end where the whole does; None without one.

    A part's bar begins where the one above it ended. The line across its end is the interval of its own share.
    """
    known = [each for each in effects.attribution if each.estimate is not None]
    if not known:
        return None
    whole, *parts = known
    scale = SCALES[effects.unit]
    figure, (axes,) = panels(1, width=10.0, height=1.8 + 0.45 * len(known))
    axes.axvline(0, color="0.3", linewidth=1)
    start = 0.0
    for place, part in enumerate(parts):
        assert part.estimate is not None, "parts have an estimate"
        _bar(axes, place, part, start, scale, COLOURS[0] if part.estimate >= 0 else COLOURS[1])
        start += part.estimate
        axes.plot([start * scale] * 2, [place - 0.3, place + 1.3], color="0.5", linewidth=1, linestyle=":")
    _bar(axes, len(parts), whole, 0.0, scale, "0.45")
    _rows(axes, [_named(each, effects.unit) for each in (*parts, whole)])
    axes.set_xlabel(f"gain in {outcome_label(effects.outcome, effects.unit)}")
    sizes = [len(each.by_seed) for each in known]
    figure.suptitle(
        "Shapley shares of the whole change, each from where the one above ends\n"
        + seeds_shown(sizes, "mean over seeds", level=effects.level),
        fontsize=11,
    )
    return figure


def variance_bars(effects: Effects) -> Figure | None:
    """Draw the share of the differences between cells that each set of factors explains; None where none is known."""
    shown = effects.variance[:MOST_SETS]
    if not shown or not any(each.share for each in shown):
        return None
    figure, (axes,) = panels(1, width=8.0, height=1.4 + 0.36 * len(shown))
    for place, each in enumerate(shown):
        axes.barh(place, 100 * each.share, height=0.6, color=COLOURS[0 if len(each.factors) == 1 else 1])
        axes.annotate(
            f"{100 * each.share:.0f} %", (100 * each.share, place), (4, 0), textcoords="offset points", va="center"
        )
    _rows(axes, [" x ".join(each.factors) for each in shown])
    axes.set_xlim(0, 108)
    axes.set_xlabel("share of the variance between cell means, in %")
    hidden = len(effects.variance) - len(shown)
    rest = f"\n{hidden} smaller ones are in the table only" if hidden else ""
    figure.suptitle(f"What explains the differences: factors (blue), interactions (orange){rest}", fontsize=11)
    return figure


def _bar(axes: Axes, place: int, share: Effect, start: float, scale: float, colour: str) -> None:
    assert share.estimate is not None, "bars have an estimate"
    axes.barh(place, share.estimate * scale, left=start * scale, height=0.6, color=colour, alpha=0.75)
    if share.interval is not None:
        ends = [(start + end) * scale for end in share.interval]
        axes.plot(ends, [place, place], color="0.1", linewidth=1.5, marker="|", markersize=8)


def _named(share: Effect, unit: str) -> str:
    return f"{share.name}   {show(share.estimate, unit, signed=True)}"


def _rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
