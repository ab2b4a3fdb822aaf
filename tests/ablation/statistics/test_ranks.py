"""Ranks within blocks against scipy, and the interval of an improvement by enumeration."""

from itertools import product
from math import factorial

import numpy as np
import pytest
from scipy import stats

from dynops.ablation.statistics.ranks import improvement, rank
from dynops.errors import ShapeError, SpecError

LEVEL = 0.05


def test_ranks_are_averaged_over_blocks_with_the_best_first() -> None:
    found = rank([[0.9, 0.8, 0.7], [0.9, 0.6, 0.8]])
    assert found.mean_ranks == (1.0, 2.5, 2.5)
    assert rank([[0.9, 0.8, 0.7], [0.9, 0.6, 0.8]], higher_is_better=False).mean_ranks == (3.0, 1.5, 1.5)
    assert rank([[1.0, 1.0, 0.0]]).mean_ranks == (1.5, 1.5, 3.0)


def test_friedman_is_that_of_scipy() -> None:
    values = np.random.default_rng(0).normal(size=(9, 4)) + np.arange(4)
    found = rank(values)
    assert (found.statistic, found.p) == pytest.approx(tuple(stats.friedmanchisquare(*values.T)))


def test_cells_that_tie_everywhere_do_not_differ() -> None:
    found = rank(np.ones((5, 3)))
    assert (found.mean_ranks, found.statistic, found.p) == ((2.0, 2.0, 2.0), 0.0, 1.0)


def test_two_cells_have_no_friedman_test() -> None:
    found = rank([[1.0, 2.0], [1.0, 2.0]])
    assert (found.mean_ranks, found.statistic, found.p) == ((2.0, 1.0), None, None)


def test_ranks_do_not_depend_on_the_units_of_a_block() -> None:
    values = np.random.default_rng(0).normal(size=(6, 4))
    assert rank(np.exp(3 * values) * np.arange(1, 7)[:, None]).mean_ranks == rank(values).mean_ranks


def test_improvement_without_ties_has_the_interval_of_clopper_and_pearson() -> None:
    second = np.zeros(10)
    first = np.array([1.0] * 7 + [-1.0] * 3)
    found = improvement(first, second, LEVEL)
    bounds = stats.beta.ppf(0.025, 7, 4), stats.beta.ppf(0.975, 8, 3)
    assert found.interval == pytest.approx(bounds)
    assert (found.probability, found.wins, found.ties, found.blocks) == (0.7, 7, 0, 10)
    assert improvement(first, second, LEVEL, higher_is_better=False).probability == pytest.approx(0.3)


def test_a_tie_counts_half_and_widens_the_interval() -> None:
    found = improvement([1.0, 1.0, 0.0, -1.0], np.zeros(4), LEVEL)
    assert (found.probability, found.ties) == (0.625, 1)
    low, high = stats.binomtest(2, 4).proportion_ci(0.95).low, stats.binomtest(3, 4).proportion_ci(0.95).high
    assert found.interval == pytest.approx((low, high))


@pytest.mark.parametrize(("win", "tie"), [(0.5, 0.0), (0.8, 0.2), (0.3, 0.4), (0.05, 0.9), (0.95, 0.0)])
@pytest.mark.parametrize("n", [5, 12])
def test_interval_holds_the_probability_in_95_percent_or_more(n: int, win: float, tie: float) -> None:
    chance = 0.0
    for wins, ties in product(range(n + 1), repeat=2):
        if wins + ties <= n:
            gain = np.repeat([1.0, 0.0, -1.0], [wins, ties, n - wins - ties])
            low, high = improvement(gain, np.zeros(n), LEVEL).interval
            ways = factorial(n) / factorial(wins) / factorial(ties) / factorial(n - wins - ties)
            weight = ways * win**wins * tie**ties * max(0.0, 1 - win - tie) ** (n - wins - ties)
            chance += weight * (low <= win + tie / 2 <= high)
    assert chance >= 0.95


def test_mistakes_in_blocks_are_said() -> None:
    with pytest.raises(ShapeError, match=r"^first has 2 blocks, second has 1: must be the same blocks\.$"):
        improvement([1.0, 2.0], [1.0])
    with pytest.raises(ShapeError, match=r"^values has shape \(1, 1\): must have two cells or more\.$"):
        rank([[1.0]])
    with pytest.raises(SpecError, match=r"^values has inf at \(0, 1\): must be finite\. Leave incomplete seeds out\.$"):
        rank([[1.0, np.inf]])
