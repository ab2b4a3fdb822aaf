"""What a number of seeds can show: the smallest effect that a test finds, against the number of seeds."""

from functools import cache

from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, LogLocator, NullLocator

from dynops.ablation.effects import Effect, Effects
from dynops.ablation.plan import Plan
from dynops.ablation.reporting.drawing import COLOURS, LINES, outcome_label, panels
from dynops.ablation.reporting.results import SCALES
from dynops.ablation.statistics.power import Alternative, detectable
from dynops.ablation.verdicts import FEWEST_SEEDS, POWER, mean_and_error

STEPS = (3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 64, 96, 128)
"""Numbers of seeds at which the curve is drawn."""
AHEAD = 4
"""The curve goes on to this many times the present number of seeds."""


@cache
def detectable_deviations(seeds: int, level: float, alternative: Alternative = "two-sided") -> float:
    """Return the smallest effect that a t test shows with 80 % power, in deviations of the effect."""
    return detectable(1.0, seeds, level, alternative=alternative)


def deviation(effect: Effect) -> float:
    """Return an effect's standard deviation over its seeds, of which there are two or more."""
    return float(mean_and_error(effect.values)[1] * len(effect.values) ** 0.5)


def power_curve(plan: Plan, effects: Effects) -> Figure | None:
    """Draw the smallest effect that each confirmatory test shows with 80 % power, against the number of seeds.

    Deviations are those of the present seeds, and the level is shared out over the family. Points are the estimates at
    the present number of seeds: one above its line is larger than what that number shows. None without a family, or
    below three seeds.
    """
    family = [effect for effect in effects.effects if effect.in_family]
    shown = [effect for effect in family if len(effect.by_seed) >= FEWEST_SEEDS and deviation(effect)]
    if not shown:
        return None
    scale, level = SCALES[effects.unit], effects.level / len(family)
    present = max(len(effect.by_seed) for effect in shown)
    steps = sorted({present, *(step for step in STEPS if step <= max(STEPS[8], AHEAD * present))})
    figure, (axes,) = panels(1, width=8.5, height=4.6 + 0.22 * len(shown))
    for place, effect in enumerate(shown):
        colour, line = COLOURS[place % len(COLOURS)], LINES[place // len(COLOURS) % len(LINES)]
        sizes = [deviation(effect) * scale * detectable_deviations(step, level) for step in steps]
        axes.plot(steps, sizes, color=colour, linestyle=line, label=effect.name)
        assert effect.estimate is not None, "an effect with seeds has an estimate"
        if effect.estimate:
            axes.plot(len(effect.by_seed), abs(effect.estimate) * scale, "o", color=colour, markersize=7)
    axes.axvline(present, color="0.6", linestyle=":", linewidth=1.5)
    axes.annotate(f"n = {present}", (present, 1), (4, -4), ("data", "axes fraction"), "offset points", va="top")
    if effects.margin:
        axes.axhline(effects.margin * scale, color="0.6", linewidth=1)
        axes.annotate(
            "margin", (0, effects.margin * scale), (4, 3), ("axes fraction", "data"), "offset points", color="0.4"
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(steps))
    axes.xaxis.set_major_formatter(FixedFormatter([str(step) for step in steps]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("seeds")
    axes.set_ylabel(f"effect on {outcome_label(effects.outcome, effects.unit)}")
    figure.suptitle(
        f"Smallest effect that is shown with {100 * POWER:g} % power, by seeds (deviations as at n = {present})\n"
        f"dots: size of the estimates; level {effects.level:g} shared out over {len(family)}",
        fontsize=11,
    )
    figure.legend(loc="outside lower center", ncols=1, frameon=False)
    return figure
