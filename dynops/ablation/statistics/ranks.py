"""Cells by rank within blocks: which cell is best, how surely, and without a word about units.

A block is a seed, or a seed in one of several regimes whose outcomes have no common scale.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from dynops.ablation.statistics.arrays import check_level, finite
from dynops.ablation.verdicts import Interval
from dynops.errors import ShapeError


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Cells by their rank in each block."""

    mean_ranks: tuple[float, ...]
    """Mean rank of each cell over blocks; 1 is the best."""
    statistic: float | None
    """Friedman's chi square; None below three cells, where it says nothing that `improvement` does not."""
    p: float | None
    """p-value of no difference between cells, by the chi square distribution: rough below about ten blocks, on the
    side of caution. None below three cells."""


@dataclass(frozen=True, kw_only=True)
class Improvement:
    """How often one cell is better than another in the same block."""

    probability: float
    """Share of blocks in which it is better; a tie counts half."""
    interval: Interval
    """Interval at 1 - level that covers the probability with at least that chance."""
    wins: int
    ties: int
    blocks: int


def rank(values: ArrayLike, *, higher_is_better: bool = True) -> Ranking:
    """Rank cells in each block, ties averaged, and test whether their ranks differ.

    Args:
        values: outcomes, `n m`: n blocks of m cells.
        higher_is_better: whether a larger outcome is a gain.
    Raises:
        ShapeError: values has other axes, or one cell only.
        SpecError: values are not finite.
    Source: Friedman, The use of ranks, J. Am. Stat. Assoc. 32, 1937.
    """
    table = finite("values", values, "n m")
    if table.shape[1] < 2:
        raise ShapeError(f"values has shape {table.shape}: must have two cells or more.")
    ranks = stats.rankdata(-table if higher_is_better else table, axis=1)
    statistic, p = None, None
    if table.shape[1] > 2:
        tied = bool((np.ptp(ranks, axis=1) == 0).all())  # scipy divides 0 by 0
        statistic, p = (0.0, 1.0) if tied else map(float, stats.friedmanchisquare(*table.T))
    return Ranking(mean_ranks=tuple(map(float, ranks.mean(0))), statistic=statistic, p=p)


def improvement(
    first: ArrayLike, second: ArrayLike, level: float = 0.05, *, higher_is_better: bool = True
) -> Improvement:
    """Return the probability that the first cell is better than the second in the same block, ties half.

    With w wins and t ties in n blocks the interval goes from the lower Clopper-Pearson bound of w wins to the upper one
    of w + t: without ties it is exact. With ties it covers at least as much, since the probability lies between that of
    a win and that of a win or a tie. Blocks count as independent; where each of some fixed regimes has its own
    probability, the interval is one of their mean, and wider than it need be.

    Args:
        first: outcomes of the one cell, one a block, `n`.
        second: outcomes of the other cell in the same blocks.
        level: chance that the interval misses the probability.
        higher_is_better: whether a larger outcome is a gain.
    Raises:
        ShapeError: the two do not have the same blocks.
        SpecError: values are not finite.
    Source: Clopper and Pearson, Biometrika 26, 1934; fixed regimes: Hoeffding, Ann. Math. Stat. 27, 1956.
    """
    one, other = finite("first", first, "n"), finite("second", second, "n")
    check_level(level)
    if len(one) != len(other):
        raise ShapeError(f"first has {len(one)} blocks, second has {len(other)}: must be the same blocks.")
    gain = (one - other) * (1 if higher_is_better else -1)
    wins, ties, blocks = int((gain > 0).sum()), int((gain == 0).sum()), len(gain)
    low, high = (stats.binomtest(count, blocks).proportion_ci(1 - level) for count in (wins, wins + ties))
    return Improvement(
        probability=(wins + ties / 2) / blocks,
        interval=(float(low.low), float(high.high)),
        wins=wins,
        ties=ties,
        blocks=blocks,
    )
