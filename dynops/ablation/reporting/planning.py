"""How many seeds a study needs, from the spread of its contrasts in a pilot."""

from collections.abc import Sequence
from math import isfinite
from pathlib import Path

from dynops.ablation.effects import effects
from dynops.ablation.reporting.results import SCALES, show
from dynops.ablation.reporting.tables import Table
from dynops.ablation.statistics.power import detectable, margin_for, seeds_for_effect
from dynops.ablation.store import read_study
from dynops.ablation.verdicts import FEWEST_SEEDS, POWER, Effect
from dynops.errors import SpecError, StudyError

SEEDS = (5, 8, 10, 20)
"""Numbers of seeds for which the table says what they can show."""


def needed_seeds(folder: Path, effect: float, seeds: Sequence[int] = SEEDS) -> Table:
    """Say how many seeds each stated effect of a study needs, with the spread that it has in the records so far.

    The spread of a few seeds is itself uncertain: with three its interval at 95 % goes from half to six times of it. A
    study that looks at its pilot's results before it adds seeds is exploratory, or takes `two_stage_seeds`.

    Args:
        folder: of a study, or of its pilot, with three complete seeds or more.
        effect: smallest difference that matters, in units of the outcome: 0.01 is a point of accuracy.
        seeds: numbers of seeds for which the smallest difference is given that they can show.
    Raises:
        SpecError: the effect is not positive.
        StudyError: the folder holds no study, or no stated effect has three seeds.
    """
    if not (effect > 0 and isfinite(effect)):
        raise SpecError(f"effect has {effect}: must be positive and finite, in units of the outcome.")
    plan, records = read_study(folder)
    found = [each for each in effects(records, plan).effects if each.in_family or not plan.family]
    rows = [each for each in found if len(each.by_seed) >= FEWEST_SEEDS]
    if not rows:
        raise StudyError(
            f"{folder} has {len(found)} stated effects and none with {FEWEST_SEEDS} complete seeds: a spread needs as "
            "many. Run more seeds first."
        )
    level = plan.level / len(rows)
    return Table(
        title=f"Seeds that show {show(effect, plan.unit)} with {100 * POWER:g} % power",
        columns=("effect", "n", "deviation", "seeds", *(f"shown by {n}" for n in seeds), f"margin at {seeds[-1]}"),
        sides="l" + "r" * (4 + len(seeds)),
        rows=tuple(_row(each, effect, level, seeds, plan.unit) for each in rows),
        note=f"Deviation: of the effect over seeds. Level {plan.level:g}, shared out over {len(rows)} effects. Margin: "
        "the smallest within which an effect of 0 would be shown to lie."
        + (" In points, hundredths of the outcome." if SCALES[plan.unit] != 1 else ""),
    )


def _row(each: Effect, effect: float, level: float, seeds: Sequence[int], unit: str) -> tuple[str, ...]:
    deviation = float(each.values.std(ddof=1))
    needed = seeds_for_effect(deviation, effect, level)
    return (
        each.name,
        str(len(each.by_seed)),
        show(deviation, unit),
        "-" if needed is None else f"{needed:,}",
        *(show(detectable(deviation, n, level), unit) for n in seeds),
        show(margin_for(deviation, seeds[-1], level), unit),
    )
