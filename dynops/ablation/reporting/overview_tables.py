"""Tables of effects over a regime, of how cells stand, and of what explains their differences."""

from dynops.ablation.effects import Effects
from dynops.ablation.overview import Profile, Standing
from dynops.ablation.plan import Plan
from dynops.ablation.reporting.results import show, show_interval
from dynops.ablation.reporting.tables import Table, foremost, interval_name, show_p, unit_name
from dynops.ablation.verdicts import FEWEST_SEEDS


def profile_table(profile: Profile, effects: Effects, plan: Plan) -> Table:
    """List an effect in each level of a regime."""
    scale = plan.factor(profile.regime).scale
    rows = []
    for place, (level, effect) in enumerate(zip(profile.levels, profile.at, strict=True)):
        rows.append(
            (
                level,
                *((f"{scale[place]:g}",) if scale else ()),
                show(effect.estimate, effects.unit, signed=True),
                show_interval(effect.interval, effects.unit, signed=True),
                show_interval(effect.robust, effects.unit, signed=True),
                str(len(effect.by_seed)),
                show_p(effect.p),
                effect.verdict,
            )
        )
    measured = ("estimate", interval_name(effects), "bootstrap", "n", "p", "verdict")
    return Table(
        title=f"{profile.name} over {profile.regime}",
        columns=(profile.regime, *(("scale",) if scale else ()), *measured),
        sides=("lr" if scale else "l") + "rrrrrl",
        rows=tuple(rows),
        note=f"In {unit_name(effects)}. Exploratory: each verdict holds at level {effects.level:g} on its own.",
    )


def standing_table(effects: Effects, plan: Plan) -> Table:
    """List how each cell stands to the others."""
    blocks = next((each.beats_first.blocks for each in effects.standings if each.beats_first), 0)
    first = effects.standings[0].cell.replace(",", ", ") if effects.standings else "the first cell"
    together = f"Cells of all levels of {' and '.join(plan.regimes)} are ranked together. " if plan.regimes else ""
    known = any(each.front_probability is not None for each in effects.standings)
    shown, few = foremost(effects.standings, "cells, those of the best mean rank", lambda each: each.mean_rank)
    return Table(
        title="Where cells stand",
        columns=("cell", "mean rank", "better than first", interval_name(effects), "won", "on front", "share on front"),
        sides="lrrrrlr",
        rows=tuple(_standing_row(each) for each in shown),
        note=f"Over the {blocks} seeds in which all cells have a result; rank 1 is the best. better than first: share "
        f"of seeds in which the cell is better than {first}, ties half, with an interval that holds for any noise. "
        "on front: no cell has a better mean outcome at no more parameters and MACs. "
        + (
            "share on front: share of resamples of the seeds in which that is so; it says how far the front hangs on "
            "these seeds, and is no probability of a hypothesis. "
            if known
            else f"share on front: from {FEWEST_SEEDS} seeds on. "
        )
        + together
        + _friedman(effects, blocks)
        + few,
    )


def variance_table(effects: Effects) -> Table:
    """List the share of the differences between cells that each set of factors explains."""
    return Table(
        title="What explains the differences",
        columns=("factors", "share"),
        sides="lr",
        rows=tuple((" x ".join(each.factors), f"{100 * each.share:.1f} %") for each in effects.variance),
        note="Shares of the variance between the cells' means, a factor alone or an interaction: closed form on cell "
        "means, with the noise of the seeds taken off. No interval: none holds what it promises with few seeds. "
        "Shares describe these levels; for what is certain, look at the effects.",
    )


def _standing_row(each: Standing) -> tuple[str, ...]:
    beats = each.beats_first
    won = f"{beats.wins} of {beats.blocks}" + (f", {beats.ties} tied" if beats.ties else "") if beats else "-"
    return (
        each.cell.replace(",", ", "),
        f"{each.mean_rank:.2f}",
        f"{beats.probability:.2f}" if beats else "-",
        f"[{beats.interval[0]:.2f}, {beats.interval[1]:.2f}]" if beats else "-",
        won,
        "yes" if each.on_front else "no",
        "-" if each.front_probability is None else f"{each.front_probability:.2f}",
    )


def _friedman(effects: Effects, blocks: int) -> str:
    if effects.ranks_p is None:
        return "Friedman's test of equal ranks needs three cells and two seeds."
    caveat = ", rough and on the side of caution below about ten seeds" if blocks < 10 else ""
    return f"Friedman's test of equal ranks: p {_equals(effects.ranks_p)} (by the chi square distribution{caveat})."


def _equals(p: float) -> str:
    return shown if (shown := show_p(p)).startswith("<") else f"= {shown}"
