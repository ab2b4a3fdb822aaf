"""What is said of an effect and of a hypothesis, and the tests on per-seed values behind it.

The t tests and intervals look at the last axis of an array, `... n`, so that a simulation and a study share them. They
need three seeds. Values without any spread leave no doubt: p is 0 on their side and 1 on the other.

Chances of an error, each at most `level` for normal contrasts, whatever their means and deviations:
- any wrong `differs`, and any wrong `equivalent`, in the whole family (Holm); in each exploratory effect on its own;
- any wrong `supported`, and any wrong `refuted`, among all hypotheses of a plan (Holm).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from dynops.ablation.claims import Bounded, Claim, Contrast, Exceeds
from dynops.ablation.contrasts import ROUNDING

FEWEST_SEEDS = 3
"""Seeds below which no interval and no p-value is given."""
MOST_SEEDS = 10_000
"""Seeds above which an effect counts as out of reach."""
POWER = 0.8
"""Chance to detect an effect that `seeds_needed` asks for."""

Kind = Literal["main", "simple", "interaction", "slope", "claim", "share"]
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Effect:
    """One contrast with its t interval over seeds."""

    name: str
    """Such as `kernel: pixel - constant`, or `... at channels=grouped`, or `kernel x channels: ...`."""
    kind: Kind
    """What it is; `claim` is a part of a hypothesis, `share` a part of a whole change or all of it."""
    contrast: Contrast | None
    """The contrast; None for a claim and a share."""
    in_family: bool
    """Whether the plan states it as confirmatory: only then is it Holm-adjusted."""
    aliases: tuple[str, ...]
    """Effects that the design's cells cannot tell from this one: the estimate is that of their sum."""
    by_seed: Mapping[int, float]
    """The contrast's value in each complete seed."""
    dropped: tuple[int, ...]
    """Seeds that lack a cell which the contrast needs."""
    estimate: float | None
    """Mean over seeds, in units of the outcome; None without a complete seed."""
    interval: tuple[float, float] | None
    """t interval at 1 - level; None below three seeds, where no interval can be trusted."""
    robust: tuple[float, float] | None
    """Studentised bootstrap interval at 1 - level, which a skewed contrast moves; None below five seeds."""
    p: float | None
    """Two-sided p-value of no effect; None below three seeds."""
    p_holm: float | None
    """p after Holm over the family; None outside it."""
    p_equivalence: float | None
    """p of the two one-sided tests against the plan's margin, after Holm in the family; None below three seeds."""
    verdict: Literal["differs", "equivalent", "undecided"]
    """`differs`: adjusted p below the level; else `equivalent`: inside the margin; never "no effect"."""
    seeds_needed: int | None
    """How many seeds in all an undecided effect needs to differ, with 80 % power at its present size, the level shared
    out over the family; None if decided, unknown or above 10,000."""

    @property
    def values(self) -> np.ndarray:
        """The values in the order of `by_seed`, `n`."""
        return np.array(list(self.by_seed.values()), dtype=float)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the study says about one hypothesis."""

    name: str
    """Short name, such as `H1`."""
    claim: str
    """The claim in words."""
    verdict: Literal["supported", "refuted", "undecided"]
    """`supported` or `refuted`: its adjusted p below the level; else `undecided`."""
    p_supported: float | None
    """Holm-adjusted p-value of the test that would support it; None below three seeds."""
    p_refuted: float | None
    """Holm-adjusted p-value of the test that would refute it; None below three seeds."""
    parts: tuple[Effect, ...]
    """The combinations of contrasts that were tested, with the margin taken off."""
    seeds_needed: int | None
    """How many seeds in all an undecided hypothesis needs; None if decided, unknown or above 10,000."""


def t_interval(values: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Return both ends of the t interval of the mean at 1 - level.

    Args:
        values: one value a seed, `... n`.
        level: chance to miss the mean.
    """
    mean, error = mean_and_error(values)
    half = error * stats.t.ppf(1 - level / 2, values.shape[-1] - 1)
    return mean - half, mean + half


def mean_interval(values: np.ndarray | Sequence[float], level: float = 0.05) -> tuple[float, Interval | None]:
    """Return the mean and its t interval at 1 - level; the interval is None below three values.

    >>> mean_interval([1.0, 2.0])
    (1.5, None)
    """
    each = np.asarray(values, dtype=float)
    if len(each) < FEWEST_SEEDS:
        return float(each.mean()), None
    low, high = t_interval(each, level)
    return float(each.mean()), (float(low), float(high))


def p_larger(values: np.ndarray, than: float = 0.0) -> np.ndarray:
    """Return the p-value of the one-sided t test that would show a mean larger than a bound.

    Args:
        values: one value a seed, `... n`.
        than: the bound.
    """
    mean, error = mean_and_error(values)
    distance = mean - than
    distance = np.where(np.abs(distance) <= ROUNDING * (np.abs(mean) + abs(than)), 0.0, distance)
    doubtful = error > 0
    p = stats.t.sf(distance / np.where(doubtful, error, 1.0), values.shape[-1] - 1)
    return np.where(doubtful, p, np.where(distance > 0, 0.0, 1.0))


def p_different(values: np.ndarray) -> np.ndarray:
    """Return the two-sided p-value of a mean of 0; values as in `p_larger`."""
    return np.minimum(1.0, 2 * np.minimum(p_larger(values), p_larger(-values)))


def p_equivalent(values: np.ndarray, margin: float) -> np.ndarray:
    """Return the p-value of the two one-sided tests that would show a mean within (-margin, margin).

    Source: Schuirmann, J. Pharmacokinet. Biopharm. 15, 1987.
    """
    return np.maximum(p_larger(values, -margin), p_larger(-values, -margin))


def p_exceeds(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the p-values that would support and refute a mean above 0; values as in `p_larger`."""
    return p_larger(values), p_larger(-values)


def p_bounded(upper: np.ndarray, lower: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the p-values that would support and refute |I| <= ratio * |A|.

    With U = ratio * A - I and V = ratio * A + I the claim is U * V >= 0: the means have one sign. Each of the two sign
    patterns of a result is an intersection of two one-sided tests, and where the result is wrong at least one of the
    two means lies on the other side, so that a pattern has at most the level of one test. Two patterns, hence the
    factor 2; A = I = 0 with U and V fully correlated needs all of it.

    Args:
        upper: U in each seed, `... n`.
        lower: V in each seed, `... n`; its seeds may be others.
    Source: Berger, Technometrics 24, 1982 (intersection-union tests).
    """
    above, below = (p_larger(upper), p_larger(-upper)), (p_larger(lower), p_larger(-lower))
    agree = np.minimum(np.maximum(above[0], below[0]), np.maximum(above[1], below[1]))
    oppose = np.minimum(np.maximum(above[0], below[1]), np.maximum(above[1], below[0]))
    return np.minimum(1.0, 2 * agree), np.minimum(1.0, 2 * oppose)


def p_within(upper: np.ndarray, lower: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the p-values that would support and refute |I| < margin.

    With U = margin - I and V = margin + I the claim is that both means are positive, an intersection of two one-sided
    tests. Either being negative refutes it: two tests, hence the factor 2.

    Args:
        upper: U in each seed, `... n`.
        lower: V in each seed, `... n`.
    Source: Schuirmann, J. Pharmacokinet. Biopharm. 15, 1987.
    """
    outside = np.minimum(p_larger(-upper), p_larger(-lower))
    return np.maximum(p_larger(upper), p_larger(lower)), np.minimum(1.0, 2 * outside)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust the p-values of a family; one that is not known yet counts as 1, so that the family keeps its size.

    >>> [None if p is None else round(p, 3) for p in holm([0.01, None, 0.02])]
    [0.03, None, 0.04]
    """
    adjusted = holm_rows(np.array([1.0 if p is None else p for p in p_values]))
    return [None if p is None else float(value) for p, value in zip(p_values, adjusted, strict=True)]


def holm_rows(p: np.ndarray) -> np.ndarray:
    """Adjust families of p-values, `... m`: the i-th smallest times m + 1 - i, and no less than those below it.

    Source: Holm, A simple sequentially rejective multiple test procedure, Scand. J. Stat. 6, 1979.
    """
    order = np.argsort(p, axis=-1)
    steps = np.take_along_axis(p, order, -1) * np.arange(p.shape[-1], 0, -1)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(1.0, np.maximum.accumulate(steps, axis=-1)), -1)
    return adjusted


def p_part(part: Claim, values: Sequence[np.ndarray]) -> tuple[float | None, float | None]:
    """Return the p-values that would support and refute a part; None where a combination has too few seeds.

    Args:
        part: the claim.
        values: each of its combinations by seed, `n`, in the order of `combinations`.
    """
    if min(len(each) for each in values) < FEWEST_SEEDS:
        return None, None
    if isinstance(part, Exceeds):
        supported, refuted = p_exceeds(*values)
    else:
        supported, refuted = (p_bounded if isinstance(part, Bounded) else p_within)(*values)
    return float(supported), float(refuted)


def p_hypothesis(parts: Sequence[tuple[float | None, float | None]]) -> tuple[float | None, float | None]:
    """Return the p-values that would support and refute a hypothesis, from those of its parts.

    All parts must hold: the largest p supports it (intersection-union). One part that does not hold is enough: the
    smallest p, times the number of parts, refutes it (Bonferroni).
    """
    support = [p for p, _ in parts if p is not None]
    refute = [p for _, p in parts if p is not None]
    return (
        max(support) if len(support) == len(parts) else None,
        min(1.0, len(parts) * min(refute)) if refute else None,
    )


def mean_and_error(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard error; the error is 0, and not rounding, where the values have no spread."""
    mean = values.mean(-1)
    error = values.std(-1, ddof=1) / values.shape[-1] ** 0.5
    spread = values.max(-1) - values.min(-1)
    return mean, np.where(spread <= ROUNDING * np.abs(values).max(-1), 0.0, error)
