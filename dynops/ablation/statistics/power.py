"""How many seeds a study needs, and what a number of seeds can show.

Everything is exact for normal contrasts. Deviations are those of a contrast over seeds, in units of the outcome, as
effects and margins are. A deviation that comes from a pilot is itself uncertain: `two_stage_seeds` allows for that, all
else takes it as known.
"""

from collections.abc import Callable, Sequence
from math import ceil, isfinite
from typing import Literal

import numpy as np
from scipy import integrate, optimize, stats

from dynops.ablation.verdicts import FEWEST_SEEDS, MOST_SEEDS, POWER, Interval, mean_and_error
from dynops.errors import SpecError
from dynops.specs import at_least

Alternative = Literal["two-sided", "larger"]

LARGEST = 1e6
"""Deviations beyond which nothing is looked for: no level of use needs as many, even at three seeds."""


def seeds_for(values: np.ndarray, level: float, alternative: Alternative) -> int | None:
    """Return how many seeds a t test needs for 80 % power if mean and deviation stay as they are.

    Args:
        values: one value a seed, `n`.
        level: error level of the test.
        alternative: `two-sided`, or `larger` for a one-sided test on the side of the mean.
    Returns:
        The number of seeds; None if more than 10,000, or if it cannot be known.
    """
    if len(values) < FEWEST_SEEDS:
        return None
    mean, error = mean_and_error(values)
    if mean == 0:
        return None
    return seeds_for_effect(float(error * len(values) ** 0.5), float(mean), level, alternative=alternative)


def seeds_for_effect(
    deviation: float, effect: float, level: float, power: float = POWER, alternative: Alternative = "two-sided"
) -> int | None:
    """Return the smallest number of seeds with which a t test shows an effect.

    Args:
        deviation: standard deviation of the contrast over seeds, such as a pilot's.
        effect: the effect to be shown, in units of the outcome; its sign does not matter.
        level: error level of the test, shared out over the family where there is one.
        power: chance to show the effect.
        alternative: `two-sided`, or `larger` for a one-sided test on the side of the effect.
    Returns:
        The number of seeds, three or more; None if more than 10,000.
    Raises:
        SpecError: a number is out of its range.
    """
    _check(deviation, level, power)
    if not effect:
        raise SpecError(f"effect has {effect}: must not be 0, which no number of seeds shows.")
    if deviation == 0:
        return FEWEST_SEEDS
    size = abs(effect) / deviation
    least, most = FEWEST_SEEDS, FEWEST_SEEDS
    while _power(size, most, level, alternative) < power:
        if most == MOST_SEEDS:
            return None
        least, most = most + 1, min(2 * most, MOST_SEEDS)
    while least < most:
        middle = (least + most) // 2
        enough = _power(size, middle, level, alternative) >= power
        least, most = (least, middle) if enough else (middle + 1, most)
    return most


def hypothesis_seeds(values: Sequence[Sequence[np.ndarray]], level: float) -> int | None:
    """Return how many seeds would settle a hypothesis if all means and deviations stay as they are.

    The largest need of its parts; once a part points the other way, the smallest need of such parts.

    Args:
        values: for each part, each of its combinations by seed, `n`.
        level: error level, already shared out among the hypotheses.
    """
    if any(len(each) < FEWEST_SEEDS for part in values for each in part):
        return None
    against = [part for part in values if float(np.prod([each.mean() for each in part])) < 0]
    if against:
        needs = [_part_seeds(part, level / len(values)) for part in against]
        return min((need for need in needs if need is not None), default=None)
    return _largest([_part_seeds(part, level) for part in values])


def detectable(
    deviation: float, seeds: int, level: float, power: float = POWER, alternative: Alternative = "two-sided"
) -> float:
    """Return the smallest effect that a t test shows with a number of seeds; arguments as in `seeds_for_effect`.

    Returns:
        The effect, in units of the outcome.
    Raises:
        SpecError: a number is out of its range.
    """
    _check(deviation, level, power)
    at_least("seeds", seeds, FEWEST_SEEDS)
    return deviation * _reached(lambda size: _power(size, seeds, level, alternative), power)


def margin_for(deviation: float, seeds: int, level: float, power: float = POWER) -> float:
    """Return the smallest margin within which two one-sided tests show a contrast to lie whose mean is 0.

    With mean m and standard error e over n seeds they succeed where |m| < margin - t e. Given e that has the chance
    2 Phi((margin - t e) sqrt(n) / deviation) - 1, which is integrated over the chi distribution of e: exact.

    Args:
        deviation: standard deviation of the contrast over seeds.
        seeds: number of seeds, n.
        level: error level of the two tests.
        power: chance to show the equivalence.
    Returns:
        The margin, in units of the outcome.
    Raises:
        SpecError: a number is out of its range.
    Source: Phillips, J. Pharmacokinet. Biopharm. 18, 1990; the test is Schuirmann's, ibid. 15, 1987.
    """
    _check(deviation, level, power)
    at_least("seeds", seeds, FEWEST_SEEDS)
    return deviation * _reached(lambda margin: _equivalence_power(margin, seeds, level), power)


def two_stage_seeds(
    pilot: np.ndarray,
    level: float,
    *,
    half_width: float | None = None,
    effect: float | None = None,
    power: float = POWER,
) -> int | None:
    """Return the number of seeds in all, after a look at a pilot: the chances hold although the pilot decides on it.

    With the pilot's deviation s and t quantiles of its n - 1 degrees of freedom, (t s / half_width)^2 seeds give
    `two_stage_interval` at most that half width, and ((t + t_power) s / effect)^2 seeds give its test that power,
    whatever the deviation is. That costs seeds: a pilot of three pays with t = 4.3.

    Args:
        pilot: one value a seed, `n`.
        level: chance that the interval misses the mean; error level of the two-sided test.
        half_width: half width that the interval may have, in units of the outcome; or
        effect: the effect that the test must show, in units of the outcome.
        power: chance to show the effect.
    Returns:
        The number of seeds, at least those of the pilot; None if more than 10,000.
    Raises:
        SpecError: the pilot has fewer than three seeds, or not one of `half_width` and `effect` is given.
    Source: Stein, A two-sample test for a linear hypothesis whose power is independent of the variance, Ann. Math.
        Stat. 16, 1945.
    """
    if len(pilot) < FEWEST_SEEDS:
        raise SpecError(f"pilot has {len(pilot)} seeds: must have {FEWEST_SEEDS} or more.")
    if (half_width is None) == (effect is None):
        raise SpecError(f"half_width has {half_width}, effect has {effect}: must be exactly one of the two.")
    goal = abs(half_width if half_width is not None else effect or 0.0)
    deviation = float(mean_and_error(pilot)[1] * len(pilot) ** 0.5)
    _check(deviation, level, power)
    if not goal:
        raise SpecError(f"half_width has {half_width}, effect has {effect}: must not be 0.")
    quantile = sum(stats.t.ppf([1 - level / 2, power] if effect is not None else [1 - level / 2], len(pilot) - 1))
    needed = (quantile * deviation / goal) ** 2
    return None if needed > MOST_SEEDS else max(len(pilot), ceil(needed))


def two_stage_interval(values: np.ndarray, pilot: int, level: float) -> Interval:
    """Return the interval of the mean after `two_stage_seeds`: the mean of all seeds, the deviation of the pilot's.

    Given the pilot's deviation the number of seeds is fixed, so that mean / error has Student's distribution exactly.
    With the deviation of all seeds it has not.

    Args:
        values: one value a seed, `n`, the pilot's first.
        pilot: number of seeds in the pilot.
        level: chance to miss the mean.
    Raises:
        SpecError: the pilot has fewer than three seeds, or there are fewer values than in the pilot.
    Source: as in `two_stage_seeds`.
    """
    at_least("pilot", pilot, FEWEST_SEEDS)
    if len(values) < pilot:
        raise SpecError(f"values has {len(values)} seeds, pilot has {pilot}: must have those of the pilot or more.")
    error = float(mean_and_error(values[:pilot])[1]) * (pilot / len(values)) ** 0.5
    half, mean = error * float(stats.t.ppf(1 - level / 2, pilot - 1)), float(values.mean())
    return mean - half, mean + half


def _part_seeds(values: Sequence[np.ndarray], level: float) -> int | None:
    # `p_bounded` doubles its p-value, so that each of its two combinations is tested at half the level.
    return _largest([seeds_for(each, level / len(values), "larger") for each in values])


def _largest(needs: Sequence[int | None]) -> int | None:
    known = [need for need in needs if need is not None]
    return max(known) if len(known) == len(needs) else None


def _power(size: float, seeds: int, level: float, alternative: Alternative) -> float:
    """Return the power of a t test, with a mean of `size` deviations.

    The two-sided test is an F test. statsmodels adds up two tails of noncentral t, and has no number for the far one.
    """
    sides = 2 if alternative == "two-sided" else 1
    critical = stats.t.isf(level / sides, seeds - 1)
    both = float(stats.ncf.sf(critical**2, 1, seeds - 1, size**2 * seeds))
    other = float(stats.nct.cdf(-critical, seeds - 1, size * seeds**0.5)) if sides == 1 else 0.0
    return both - other if isfinite(other) else both


def _equivalence_power(margin: float, seeds: int, level: float) -> float:
    """Return the chance to show equivalence, with a margin in deviations; c is deviation over its true value."""
    quantile, chi = stats.t.ppf(1 - level, seeds - 1), stats.chi(seeds - 1, scale=(seeds - 1) ** -0.5)
    widest = margin * seeds**0.5 / quantile
    chance, _ = integrate.quad(
        lambda c: chi.pdf(c) * (2 * stats.norm.cdf(margin * seeds**0.5 - quantile * c) - 1),
        chi.ppf(1e-14),
        min(widest, chi.isf(1e-14)),
        epsabs=1e-12,
    )
    return max(0.0, chance)


def _reached(power_of: Callable[[float], float], power: float) -> float:
    high = 1.0
    while power_of(high) < power and high < LARGEST:
        high *= 2
    return float(optimize.brentq(lambda size: power_of(size) - power, 0.0, high, xtol=1e-10))


def _check(deviation: float, level: float, power: float) -> None:
    if not (deviation >= 0 and isfinite(deviation)):
        raise SpecError(f"deviation has {deviation}: must be finite and not negative.")
    if not 0 < level < 0.5:
        raise SpecError(f"level has {level}: must lie between 0 and 0.5.")
    if not level < power < 1:
        raise SpecError(f"power has {power}, level has {level}: must lie between the level and 1.")
