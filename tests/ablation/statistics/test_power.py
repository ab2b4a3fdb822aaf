"""Seeds, effects and margins against statsmodels, simulation and the planning table of our notes."""

from math import ceil

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from dynops.ablation.statistics.power import (
    detectable,
    hypothesis_seeds,
    margin_for,
    seeds_for,
    seeds_for_effect,
    two_stage_interval,
    two_stage_seeds,
)
from dynops.ablation.verdicts import MOST_SEEDS, p_equivalent, t_interval
from dynops.errors import SpecError

LEVEL = 0.05
RUNS = 20_000
SLACK = 4 * (0.2 * 0.8 / RUNS) ** 0.5
"""Four standard errors of a simulated power of 80 %."""


@pytest.mark.parametrize("alternative", ["two-sided", "larger"])
@pytest.mark.parametrize("size", [0.1, 0.3, 1.0, 2.0])
def test_seeds_for_is_the_power_of_statsmodels(alternative: str, size: float) -> None:
    values = np.array([-1.0, 0.0, 1.0]) + size
    peer = float(TTestPower().solve_power(size, nobs=None, alpha=LEVEL, power=0.8, alternative=alternative))
    assert seeds_for(values, LEVEL, alternative) == max(3, int(np.ceil(peer)))
    assert seeds_for(-values, LEVEL, alternative) == seeds_for(values, LEVEL, alternative)


def test_seeds_for_gives_up_where_the_effect_is_out_of_reach_or_unknown() -> None:
    noise = np.array([-1.0, 0.0, 1.0])
    assert seeds_for(noise + 0.0281, LEVEL, "two-sided") == pytest.approx(MOST_SEEDS, rel=0.01)
    assert seeds_for(noise + 0.027, LEVEL, "two-sided") is None
    assert seeds_for(noise, LEVEL, "two-sided") is None
    assert seeds_for(np.ones(2), LEVEL, "two-sided") is None
    assert seeds_for(np.ones(3), LEVEL, "two-sided") == 3


def test_undecided_hypothesis_needs_the_seeds_of_its_hardest_part() -> None:
    noise = np.array([-1.0, 0.0, 1.0])
    easy, hard = noise + 1.0, noise + 0.3
    alone = seeds_for(hard, LEVEL, "larger")
    assert hypothesis_seeds([[easy], [hard]], LEVEL) == alone
    assert hypothesis_seeds([[easy, hard]], LEVEL) == seeds_for(hard, LEVEL / 2, "larger")
    assert hypothesis_seeds([[easy], [noise]], LEVEL) is None
    assert hypothesis_seeds([[easy], [hard[:2]]], LEVEL) is None


def test_hypothesis_that_points_the_other_way_needs_the_seeds_that_refute_it() -> None:
    noise = np.array([-1.0, 0.0, 1.0])
    refuting = seeds_for(noise - 1.0, LEVEL / 3, "larger")
    assert hypothesis_seeds([[noise - 1.0], [noise + 0.01], [noise - 0.3]], LEVEL) == refuting


@pytest.mark.parametrize(
    ("n", "effect", "of_seven", "margin"),
    [
        (3, 3.26, 8.66, 2.66),
        (5, 1.68, 2.87, 1.60),
        (6, 1.43, 2.27, 1.40),
        (8, 1.16, 1.70, 1.15),
        (10, 1.00, 1.41, 1.01),
        (20, 0.66, 0.87, 0.68),
    ],
)
def test_detectable_effects_and_margins_are_those_of_the_planning_table(
    n: int, effect: float, of_seven: float, margin: float
) -> None:
    assert detectable(1.0, n, LEVEL) == pytest.approx(effect, abs=0.006)
    assert detectable(1.0, n, LEVEL / 7) == pytest.approx(of_seven, abs=0.006)
    assert margin_for(1.0, n, LEVEL) == pytest.approx(margin, abs=0.011)  # its margins were simulated


@pytest.mark.parametrize("alternative", ["two-sided", "larger"])
def test_power_is_that_of_statsmodels_where_statsmodels_has_a_number(alternative: str) -> None:
    compared = 0
    for n in (3, 5, 10, 50):
        for level in (0.05, 0.05 / 7):
            for power in (0.5, 0.8, 0.95):
                effect = detectable(2.0, n, level, power, alternative)
                peer = float(TTestPower().power(effect / 2, n, level, alternative=alternative))
                if np.isfinite(peer):
                    compared += 1
                    assert peer == pytest.approx(power, abs=1e-8)
    assert compared > 20


def test_strong_effects_need_few_seeds_where_statsmodels_has_no_number() -> None:
    assert np.isnan(TTestPower().power(3.1, 5, LEVEL / 7))
    assert seeds_for_effect(1.0, 3.1, LEVEL / 7) == 5
    sizes = [seeds_for_effect(1.0, size, LEVEL / 7) for size in np.linspace(0.3, 30, 400)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 3


def test_an_effect_needs_the_seeds_with_which_it_is_detectable() -> None:
    for n in (3, 4, 8, 30):
        effect = detectable(0.02, n, LEVEL)
        assert seeds_for_effect(0.02, 1.0001 * effect, LEVEL) == n
        assert seeds_for_effect(0.02, -0.9999 * effect, LEVEL) == n + 1
    assert seeds_for_effect(0.0, 0.1, LEVEL) == 3
    assert seeds_for_effect(1.0, 1e-3, LEVEL) is None


@pytest.mark.parametrize("n", [3, 5, 20])
def test_a_margin_is_shown_with_its_power(n: int) -> None:
    values = np.random.default_rng(n).normal(size=(RUNS, n))
    for power in (0.5, 0.8):
        shown = np.mean(p_equivalent(3 * values, margin_for(3.0, n, LEVEL, power)) < LEVEL)
        assert shown == pytest.approx(power, abs=1.3 * SLACK)


def test_two_stages_need_the_seeds_of_steins_formula() -> None:
    pilot = np.array([-1.0, 0.0, 1.0]) + 5  # deviation 1, two degrees of freedom
    t = stats.t(2)
    assert two_stage_seeds(pilot, LEVEL, half_width=1.0) == ceil(t.ppf(0.975) ** 2) == 19
    assert two_stage_seeds(pilot, LEVEL, effect=-1.0) == ceil((t.ppf(0.975) + t.ppf(0.8)) ** 2) == 29
    assert two_stage_seeds(pilot, LEVEL, half_width=100.0) == 3
    assert two_stage_seeds(pilot, LEVEL, effect=0.01) is None


def test_two_stages_keep_level_and_power_whatever_the_deviation() -> None:
    generator = np.random.default_rng(0)
    for deviation in (0.4, 0.8):
        held, shown = [], []
        for pilot in generator.normal(1.0, deviation, (2000, 4)):
            number = two_stage_seeds(pilot, LEVEL, effect=1.0)
            assert number is not None
            values = np.concatenate([pilot, generator.normal(1.0, deviation, number - 4)])
            low, high = two_stage_interval(values, 4, LEVEL)
            held.append(low <= 1 <= high)
            shown.append(low > 0 or high < 0)
        assert np.mean(held) == pytest.approx(0.95, abs=0.02)
        assert np.mean(shown) > 0.8 - 0.036


def test_two_stage_interval_without_more_seeds_is_the_t_interval() -> None:
    values = np.random.default_rng(0).normal(size=6)
    assert two_stage_interval(values, 6, LEVEL) == pytest.approx([float(end) for end in t_interval(values, LEVEL)])


def test_mistakes_in_planning_are_said() -> None:
    with pytest.raises(SpecError, match=r"^effect has 0: must not be 0, which no number of seeds shows\.$"):
        seeds_for_effect(1.0, 0, LEVEL)
    with pytest.raises(SpecError, match=r"^deviation has -1: must be finite and not negative\.$"):
        detectable(-1, 5, LEVEL)
    with pytest.raises(SpecError, match=r"^level has 0\.7: must lie between 0 and 0\.5\.$"):
        margin_for(1, 5, 0.7)
    with pytest.raises(SpecError, match=r"^power has 0\.01, level has 0\.05: must lie between the level and 1\.$"):
        margin_for(1, 5, LEVEL, 0.01)
    with pytest.raises(SpecError, match=r"^seeds has 2: must be an integer of at least 3\.$"):
        detectable(1, 2, LEVEL)
    with pytest.raises(SpecError, match=r"^pilot has 2 seeds: must have 3 or more\.$"):
        two_stage_seeds(np.ones(2), LEVEL, effect=1)
    for goal in ({}, {"half_width": 1.0, "effect": 1.0}):
        with pytest.raises(SpecError, match=r"^half_width has .*, effect has .*: must be exactly one of the two\.$"):
            two_stage_seeds(np.arange(3.0), LEVEL, **goal)
    with pytest.raises(SpecError, match=r"^half_width has None, effect has 0\.0: must not be 0\.$"):
        two_stage_seeds(np.arange(3.0), LEVEL, effect=0.0)
    with pytest.raises(SpecError, match=r"^values has 3 seeds, pilot has 4: must have those of the pilot or more\.$"):
        two_stage_interval(np.arange(3.0), 4, LEVEL)
