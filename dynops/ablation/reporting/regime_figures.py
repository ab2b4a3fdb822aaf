"""An effect over the levels of a regime: how it grows, and where it changes its sign."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from dynops.ablation.effects import Effects
from dynops.ablation.overview import Profile
from dynops.ablation.plan import Plan
from dynops.ablation.reporting.drawing import COLOURS, outcome_label, panels, seeds_shown
from dynops.ablation.reporting.results import SCALES
from dynops.ablation.statistics.scale import SignChange

BEYOND = 1.25
"""By how much the axis goes beyond the scale on either side."""


def over_regime(plan: Plan, effects: Effects, profile: Profile) -> Figure:
    """Draw an effect at each level of a regime with its interval, the zero line, the margin and the sign change.

    A regime with a scale has an axis in doublings. There the line between the levels is the interpolation in which the
    sign change is found, and a band across it holds the scales that may be the sign change.
    """
    scale = plan.factor(profile.regime).scale
    places = list(scale or range(len(profile.levels)))
    figure, (axes,) = panels(1, width=8.0, height=4.8)
    factor = SCALES[effects.unit]
    axes.axhline(0, color="0.3", linewidth=1)
    if effects.margin:
        axes.axhspan(-effects.margin * factor, effects.margin * factor, color="0.92", zorder=0)
    _points(axes, profile, places, factor, joined=bool(scale))
    _levels(axes, profile.levels, places, scaled=bool(scale))
    if profile.sign_change is not None:
        _mark(axes, profile.sign_change, min(places), max(places))
    axes.set_xlabel(f"{profile.regime} (logarithmic)" if scale else profile.regime)
    axes.set_ylabel(f"effect on {outcome_label(effects.outcome, effects.unit)}")
    shown = seeds_shown(
        [len(effect.by_seed) for effect in profile.at if effect.by_seed], "mean over seeds", level=effects.level
    )
    band = f"; grey: ± {effects.margin * factor:g}" if effects.margin else ""
    figure.suptitle(f"{profile.name} over {profile.regime}\n{shown}{band}", fontsize=11)
    return figure


def _points(axes: Axes, profile: Profile, places: Sequence[float], factor: float, *, joined: bool) -> None:
    known = [
        (x, effect.estimate * factor)
        for x, effect in zip(places, profile.at, strict=True)
        if effect.estimate is not None
    ]
    for x, effect in zip(places, profile.at, strict=True):
        if effect.interval is not None:
            axes.plot([x, x], [end * factor for end in effect.interval], color=COLOURS[0], linewidth=2)
    known = sorted(known) if joined else known
    axes.plot(*zip(*known, strict=True), "o", color=COLOURS[0], markersize=8, label="effect")
    if joined:
        axes.plot(*zip(*known, strict=True), color=COLOURS[0], linewidth=1, alpha=0.6)


def _levels(axes: Axes, levels: Sequence[str], places: Sequence[float], *, scaled: bool) -> None:
    if not scaled:
        axes.set_xticks(range(len(levels)), levels)
        axes.set_xlim(-0.5, len(levels) - 0.5)
        return
    axes.set_xscale("log", base=2)
    axes.set_xlim(min(places) / BEYOND, max(places) * BEYOND)
    axes.xaxis.set_major_locator(FixedLocator(list(places)))
    axes.xaxis.set_minor_locator(NullLocator())
    named = [
        level if level in (number := f"{place:g}", f"{place}") else f"{level}\n{number}"
        for level, place in zip(levels, places, strict=True)
    ]
    axes.xaxis.set_major_formatter(FixedFormatter(named))


def _mark(axes: Axes, change: SignChange, smallest: float, largest: float) -> None:
    """Mark where the effect changes its sign; a band that is open ends where the scales that were measured end."""
    if change.reach not in ("empty", "unknown"):
        low, high = change.low or smallest, change.high or largest
        axes.axvspan(low, high, color=COLOURS[1], alpha=0.15, linewidth=0, zorder=0)
    if change.estimate is None:
        return
    axes.axvline(change.estimate, color=COLOURS[1], linestyle="--", linewidth=1.5)
    right = change.estimate**2 > smallest * largest
    axes.annotate(
        f"changes its sign at {change.estimate:.3g}",
        (change.estimate, 1),
        xycoords=("data", "axes fraction"),
        xytext=(-5 if right else 5, -4),
        textcoords="offset points",
        ha="right" if right else "left",
        va="top",
        color=COLOURS[1],
    )
