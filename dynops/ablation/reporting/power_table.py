"""What the present number of seeds could have shown, and what is lacking."""

from collections.abc import Iterator
from functools import cache

from dynops.ablation.claims import Exceeds, Hypothesis
from dynops.ablation.effects import Effects
from dynops.ablation.plan import Plan
from dynops.ablation.reporting.power_figure import detectable_deviations, deviation
from dynops.ablation.reporting.results import show
from dynops.ablation.reporting.tables import NEEDS, Table, by_p, needs, unit_name, verdict_word
from dynops.ablation.statistics.power import Alternative, margin_for
from dynops.ablation.verdicts import FEWEST_SEEDS, POWER, Effect, Verdict


def power_table(effects: Effects, plan: Plan) -> Table:
    """List what the present seeds could have shown of each hypothesis and of each confirmatory effect."""
    family = [effect for effect in effects.effects if effect.in_family]
    rows = [
        *(
            row
            for verdict, hypothesis in zip(effects.verdicts, plan.hypotheses, strict=True)
            for row in _hypothesis_rows(verdict, hypothesis, effects, plan)
        ),
        *(_effect_row(effect, effects, effects.level / len(family)) for effect in family),
    ]
    shared = f"shared out over the {len(family)} confirmatory effects and over the {len(effects.verdicts)} hypotheses"
    return _table("What this number of seeds can show", "hypothesis or effect", rows, effects, f"the level {shared}")


def lacking_table(effects: Effects) -> Table:
    """List what the present seeds could have shown of each undecided exploratory effect."""
    undecided = [effect for effect in effects.effects if not effect.in_family and effect.verdict == "undecided"]
    shown, few = by_p([effect for effect in undecided if len(effect.by_seed) >= FEWEST_SEEDS])
    rows = [_effect_row(effect, effects, effects.level) for effect in shown]
    title = "What undecided exploratory effects lack"
    return _table(title, "effect", rows, effects, "each at the level on its own", few)


def _table(title: str, first: str, rows: list[tuple[str, ...]], effects: Effects, level: str, few: str = "") -> Table:
    margin = (("equivalent within",), "r") if effects.margin else ((), "")
    within = "equivalent within: smallest margin that they could have shown an effect of 0 to lie in. "
    return Table(
        title=title,
        columns=(first, "verdict", "estimate", "deviation", "n", "could show", *margin[0], "needs n"),
        sides=f"llrrrr{margin[1]}r",
        rows=tuple(rows),
        note=f"In {unit_name(effects)}. could show: smallest size that a t test on these n seeds finds with "
        f"{100 * POWER:g} % power, {level}. {within if effects.margin else ''}needs n: {NEEDS}. "
        f"All take the deviation over these seeds as the true one, which it is not quite.{few}",
    )


def _effect_row(effect: Effect, effects: Effects, level: float) -> tuple[str, ...]:
    return _row(effect.name, effect.verdict, effect, effects, level, "two-sided", lacking=effect.seeds_needed)


def _hypothesis_rows(
    verdict: Verdict, hypothesis: Hypothesis, effects: Effects, plan: Plan
) -> Iterator[tuple[str, ...]]:
    word = verdict_word(verdict, plan)
    for place, (row, number) in enumerate(zip(verdict.parts, _tests(hypothesis), strict=True)):
        level = effects.level / len(plan.hypotheses) / number
        shown = word if place == 0 else ""
        name = f"{verdict.name}: {row.name}"
        yield _row(name, shown, row, effects, level, "larger", lacking=verdict.seeds_needed)


def _tests(hypothesis: Hypothesis) -> Iterator[int]:
    """For each combination of a hypothesis, the number that its part tests together."""
    for part in hypothesis.parts:
        number = 1 if isinstance(part, Exceeds) else 2
        yield from [number] * number


def _row(
    name: str,
    verdict: str,
    effect: Effect,
    effects: Effects,
    level: float,
    side: Alternative,
    *,
    lacking: int | None,
) -> tuple[str, ...]:
    n = len(effect.by_seed)
    enough = n >= FEWEST_SEEDS
    size = detectable_deviations(n, level, side) * deviation(effect) if enough else None
    bounded = enough and effects.margin and side == "two-sided"
    within = _margin_deviations(n, level) * deviation(effect) if bounded else None
    return (
        name,
        verdict,
        show(effect.estimate, effects.unit, signed=True),
        show(deviation(effect), effects.unit) if n > 1 else "-",
        str(n),
        show(size, effects.unit),
        *((show(within, effects.unit),) if effects.margin else ()),
        needs(n, lacking) if verdict.startswith("undecided") else "",
    )


@cache
def _margin_deviations(seeds: int, level: float) -> float:
    return margin_for(1.0, seeds, level)
