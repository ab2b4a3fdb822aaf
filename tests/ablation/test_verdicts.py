"""Tests on per-seed values against scipy and statsmodels, and their error levels by simulation."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from dynops.ablation.claims import Bounded, Difference, Exceeds, Hypothesis, Interaction
from dynops.ablation.designs import Levels
from dynops.ablation.effects import effects
from dynops.ablation.plan import Plan
from dynops.ablation.verdicts import (
    holm,
    holm_rows,
    p_bounded,
    p_different,
    p_equivalent,
    p_exceeds,
    p_hypothesis,
    p_larger,
    p_part,
    t_interval,
)
from dynops.records import RunRecord

LEVEL = 0.05
RUNS = 20_000
CEILING = LEVEL + 4 * (LEVEL * (1 - LEVEL) / RUNS) ** 0.5
"""The level, and four standard errors of the simulation."""

Make = Callable[..., list[RunRecord]]
Plant = Callable[..., dict[str, dict[int, float]]]

DYNAMIC = Difference("kernel", "pixel", "constant")
SPECIFIC = Difference("channels", "every", "grouped")
BOTH = Interaction(DYNAMIC, SPECIFIC)
INDEPENDENT = (Bounded(BOTH, DYNAMIC, ratio=1 / 3), Bounded(BOTH, SPECIFIC, ratio=1 / 3))
PLAN = Plan(
    name="core",
    question="Which part drives the gain?",
    factors=(Levels("kernel", ("constant", "pixel")), Levels("channels", ("grouped", "every"))),
    seeds=tuple(range(8)),
    hypotheses=(
        Hypothesis("H1", "The parts act independently.", INDEPENDENT),
        Hypothesis("H2", "Generation pays.", (Exceeds((DYNAMIC,), margin=0.01),)),
    ),
)


def draws(mean: float, deviation: float, n: int, seed: int) -> np.ndarray:
    return mean + deviation * np.random.default_rng(seed).normal(size=(RUNS, n))


@pytest.mark.parametrize("n", [3, 5, 20])
def test_interval_and_p_values_are_those_of_scipy(n: int) -> None:
    for seed in range(5):
        values = np.random.default_rng(seed).normal(0.3, 1.0, n)
        peer = stats.ttest_1samp(values, 0.0)
        assert p_different(values) == pytest.approx(peer.pvalue, rel=1e-10)
        assert t_interval(values, LEVEL) == pytest.approx(tuple(peer.confidence_interval(0.95)), rel=1e-10)
        greater = stats.ttest_1samp(values, 0.1, alternative="greater")
        assert p_larger(values, 0.1) == pytest.approx(greater.pvalue, rel=1e-10)
        sides = [stats.ttest_1samp(values, 0.0, alternative=side).pvalue for side in ("greater", "less")]
        assert p_exceeds(values) == pytest.approx(tuple(sides), rel=1e-10)


@pytest.mark.parametrize("n", [3, 5, 20])
def test_paired_tests_are_those_of_scipy_and_statsmodels(n: int) -> None:
    for seed in range(5):
        high, low = np.random.default_rng(seed).normal(size=(2, n))
        assert p_different(high - low) == pytest.approx(stats.ttest_rel(high, low).pvalue, rel=1e-10)
        assert p_equivalent(high - low, 0.7) == pytest.approx(ttost_paired(high, low, -0.7, 0.7)[0], rel=1e-10)


def test_tests_of_many_samples_at_once_are_those_of_each() -> None:
    values = np.random.default_rng(0).normal(size=(4, 6))
    assert np.array_equal(p_different(values), [float(p_different(each)) for each in values])
    assert np.array_equal(t_interval(values, LEVEL)[0], [float(t_interval(each, LEVEL)[0]) for each in values])


@pytest.mark.parametrize("constant", [0.2, -0.1, 1e-7, 3e5])
def test_values_without_spread_leave_no_doubt(constant: float) -> None:
    values = np.full(7, constant)
    assert p_different(values) == 0
    assert t_interval(values, LEVEL) == pytest.approx((constant, constant))
    assert p_exceeds(values) == pytest.approx((0, 1) if constant > 0 else (1, 0))
    assert p_equivalent(values, 2 * abs(constant)) == 0
    assert p_equivalent(values, abs(constant)) == 1
    assert p_larger(values, constant) == 1


def test_zeros_do_not_differ_and_are_equivalent() -> None:
    zeros = np.zeros(3)
    assert p_different(zeros) == 1
    assert t_interval(zeros, LEVEL) == pytest.approx((0, 0))
    assert p_equivalent(zeros, 0.01) == 0
    assert p_exceeds(zeros) == pytest.approx((1, 1))
    assert p_bounded(zeros, zeros) == pytest.approx((1, 1))


@pytest.mark.parametrize("n", [3, 5, 8, 20])
def test_95_percent_intervals_cover_the_mean_in_95_percent(n: int) -> None:
    low, high = t_interval(draws(0.7, 2.0, n, seed=n), LEVEL)
    assert 0.945 < np.mean((low <= 0.7) & (high >= 0.7)) < 0.955


def test_intervals_of_skewed_effects_cover_the_mean_in_93_to_97_percent() -> None:
    values = np.random.default_rng(1).normal(size=(RUNS, 8)) + np.random.default_rng(2).exponential(0.7, (RUNS, 8))
    low, high = t_interval(values, LEVEL)
    assert 0.93 < np.mean((low <= 0.7) & (high >= 0.7)) < 0.97


@pytest.mark.parametrize("n", [3, 8])
def test_differs_is_wrong_in_at_most_the_level(n: int) -> None:
    assert 0.045 < np.mean(p_different(draws(0.0, 1.0, n, seed=n)) < LEVEL) < CEILING


@pytest.mark.parametrize("n", [3, 8])
@pytest.mark.parametrize("deviation", [0.01, 0.3, 1.0])
def test_equivalent_is_wrong_in_at_most_the_level_at_the_margin(n: int, deviation: float) -> None:
    for mean in (0.5, -0.5):
        assert np.mean(p_equivalent(draws(mean, deviation, n, seed=n), 0.5) < LEVEL) < CEILING


@pytest.mark.parametrize("n", [3, 8])
def test_exceeds_is_supported_or_refuted_wrongly_in_at_most_the_level(n: int) -> None:
    supported, refuted = p_exceeds(draws(0.0, 1.0, n, seed=n))
    assert 0.045 < np.mean(supported < LEVEL) < CEILING
    assert 0.045 < np.mean(refuted < LEVEL) < CEILING


@pytest.mark.parametrize("n", [3, 8])
@pytest.mark.parametrize("size", [0.0, 0.1, 0.5, 2.0, 20.0])
@pytest.mark.parametrize("spread", [0.01, 0.3, 1.0, 3.0, 100.0])
def test_bound_is_supported_or_refuted_wrongly_in_at_most_the_level_on_its_edge(
    n: int, size: float, spread: float
) -> None:
    # On the edge I = ratio * A either answer may be wrong; `spread` is the deviation of I over that of ratio * A.
    small, large = draws(size, spread, n, seed=1), draws(size, 1.0, n, seed=2)
    supported, refuted = p_bounded(large - small, large + small)
    assert np.mean(supported < LEVEL) < CEILING
    assert np.mean(refuted < LEVEL) < CEILING


def test_bound_without_any_effect_needs_the_whole_factor_of_two() -> None:
    for spread, which in ((1e-3, 0), (1e3, 1)):
        small, large = draws(0.0, spread, 5, seed=1), draws(0.0, 1.0, 5, seed=2)
        p = p_bounded(large - small, large + small)[which]
        assert 0.045 < np.mean(p < LEVEL) < CEILING
        assert np.mean(p / 2 < LEVEL) > 0.09


def test_bound_stays_within_the_level_for_correlated_effects() -> None:
    for correlation in (-0.9, -0.5, 0.5, 0.9):
        noise, own = draws(0.0, 1.0, 5, seed=1), draws(0.0, 1.0, 5, seed=2)
        for size in (0.0, 1.0, 10.0):
            small, large = size + correlation * noise + (1 - correlation**2) ** 0.5 * own, size + noise
            supported, refuted = p_bounded(large - small, large + small)
            assert np.mean(supported < LEVEL) < CEILING
            assert np.mean(refuted < LEVEL) < CEILING


def test_bound_is_found_for_effects_of_both_signs() -> None:
    for sign in (1.0, -1.0):
        small, large = draws(0.0, 1.0, 8, seed=1), draws(sign * 6, 1.0, 8, seed=2)
        assert np.mean(p_bounded(large - small, large + small)[0] < LEVEL) > 0.95
        assert np.mean(p_bounded(small - large, small + large)[1] < LEVEL) > 0.95


@pytest.mark.parametrize(("small", "large"), [(0.0, 1.0), (0.0, -1.0), (0.9, 1.0), (-0.9, -1.0)])
def test_bound_without_spread_is_settled(small: float, large: float) -> None:
    upper, lower = np.full(4, large - small), np.full(4, large + small)
    assert p_bounded(upper, lower) == pytest.approx((0, 1))
    assert p_bounded(-upper, lower) == pytest.approx((1, 0))


def test_hypothesis_of_several_parts_keeps_the_level() -> None:
    # One part is just false and the other surely true; then both are just true.
    first, second = draws(0.0, 1.0, 6, seed=1), draws(9.0, 1.0, 6, seed=2)
    p = np.maximum(p_exceeds(first)[0], p_exceeds(second)[0])
    assert 0.045 < np.mean(p < LEVEL) < CEILING
    both = [p_exceeds(draws(0.0, 1.0, 6, seed=seed)) for seed in (1, 2)]
    settled = [
        p_hypothesis([(float(a), float(b)), (float(c), float(d))])
        for a, b, c, d in zip(*both[0], *both[1], strict=True)
    ]
    assert 0.04 < np.mean([refuted < LEVEL for _, refuted in settled if refuted is not None]) < CEILING
    assert np.mean([supported < LEVEL for supported, _ in settled if supported is not None]) < 0.01


def test_hypothesis_needs_all_parts_to_hold_and_one_to_fail() -> None:
    assert p_hypothesis([(0.01, 0.99), (0.03, 0.97)]) == (0.03, 1.0)
    assert p_hypothesis([(0.99, 0.01), (0.03, 0.97)]) == (0.99, 0.02)
    assert p_hypothesis([(None, None), (0.97, 0.03)]) == (None, 0.06)
    assert p_hypothesis([(None, None)]) == (None, None)


def test_parts_below_three_seeds_are_not_tested() -> None:
    assert p_part(Exceeds((DYNAMIC,)), [np.ones(2)]) == (None, None)
    bounded = Bounded(BOTH, DYNAMIC, ratio=0.5)
    assert p_part(bounded, [np.ones(3), np.ones(2)]) == (None, None)
    assert p_part(bounded, [np.ones(3), np.ones(3)]) == (0.0, 1.0)
    assert p_part(Exceeds((DYNAMIC,)), [np.ones(3)]) == (0.0, 1.0)


def test_holm_holds_the_level_over_a_family_of_correlated_effects() -> None:
    # 2x2 under the global null, with the three effects of one table of four cells; then with one true effect.
    cells = np.random.default_rng(0).normal(size=(4000, 6, 4)) * (1, 1, 2, 2)
    signs = np.array([[-1, -1, 1, 1], [-1, 1, -1, 1], [1, -1, -1, 1]])
    effects = np.einsum("r s c, e c -> r e s", cells, signs) / 2
    ceiling = LEVEL + 4 * (LEVEL * (1 - LEVEL) / 4000) ** 0.5
    for planted in (0.0, 9.0):
        p = p_different(effects + planted * np.array([1, 0, 0])[:, None])
        adjusted = np.array([holm(list(each)) for each in p])
        wrong = adjusted[:, 1:] if planted else adjusted
        assert np.mean((wrong < LEVEL).any(1)) < ceiling
        assert np.mean((p[:, 1:] < LEVEL).any(1)) > ceiling
    assert np.mean(adjusted[:, 0] < LEVEL) > 0.99


def test_holm_of_nothing_known_is_nothing_known() -> None:
    assert (holm([None, None]), holm([])) == ([None, None], [])


def test_independent_parts_support_the_bound_and_dependent_parts_refute_it(records_of: Make, planted: Plant) -> None:
    independent = effects(records_of(planted(dynamic=0.1, specific=-0.1, both=0.005, noise=0.005)), PLAN)
    assert [each.verdict for each in independent.verdicts] == ["supported", "supported"]
    dependent = effects(records_of(planted(dynamic=0.02, specific=-0.1, both=-0.08, noise=0.005)), PLAN)
    assert dependent.verdicts[0].verdict == "refuted"
    none = effects(records_of(planted(dynamic=-0.02, specific=0.0, both=0.0, noise=0.02)), PLAN)
    assert [each.verdict for each in none.verdicts] == ["undecided", "refuted"]


def test_parts_of_a_verdict_show_what_was_tested_less_its_margin(records_of: Make, planted: Plant) -> None:
    found = effects(records_of(planted(dynamic=0.08, specific=0.03, both=0.02)), PLAN)
    first, second = found.verdicts
    assert [each.kind for each in first.parts] == ["claim"] * 4
    expected = [0.08 / 3 - 0.02, 0.08 / 3 + 0.02, 0.03 / 3 - 0.02, 0.03 / 3 + 0.02]
    assert [each.estimate for each in first.parts] == pytest.approx(expected, rel=1e-9)
    assert first.verdict == "refuted"
    assert [each.estimate for each in second.parts] == pytest.approx([0.07], rel=1e-9)
    assert second.parts[0].interval == pytest.approx((0.07, 0.07), rel=1e-9)


def test_hypotheses_share_the_level_by_holm(records_of: Make, planted: Plant) -> None:
    outcomes = planted(dynamic=0.03, specific=0.02, both=0.0, noise=0.02)
    parts = (Exceeds((DYNAMIC,), margin=0.01), Exceeds((SPECIFIC,)), Exceeds((BOTH,)))
    plan = replace(PLAN, hypotheses=tuple(Hypothesis(f"H{i}", "c", (part,)) for i, part in enumerate(parts)))
    found = effects(records_of(outcomes), plan)
    by_seed = [np.array(list(verdict.parts[0].by_seed.values())) for verdict in found.verdicts]
    for side, name in (("greater", "p_supported"), ("less", "p_refuted")):
        raw = [stats.ttest_1samp(values, 0, alternative=side).pvalue for values in by_seed]
        adjusted = multipletests(raw, method="holm")[1]
        assert [getattr(each, name) for each in found.verdicts] == pytest.approx(list(adjusted), rel=1e-9)


def test_holm_of_many_families_is_holm_of_each() -> None:
    p = np.random.default_rng(0).uniform(0, 0.1, (20, 5))
    assert np.array([multipletests(each, method="holm")[1] for each in p]) == pytest.approx(holm_rows(p))


def test_undecided_hypothesis_says_how_many_seeds_it_needs(records_of: Make, planted: Plant) -> None:
    verdict = effects(records_of(planted(dynamic=0.018, specific=0.0, both=0.0, noise=0.03, seed=1)), PLAN).verdicts[1]
    assert verdict.verdict == "undecided"
    assert verdict.seeds_needed is not None
    assert verdict.seeds_needed > 8
