"""Effects pooled over regimes: the mixed model against its closed form, and what its fit says."""

import warnings

import numpy as np
import pytest
from scipy import stats

from dynops.ablation.statistics.nested import pool
from dynops.errors import ShapeError, SpecError
from studies.simulations.regimes import balanced

LEVEL = 0.05


def regimes(number: int, seeds: int, spread: float, seed: int = 0) -> np.ndarray:
    """Effects of 0.02 on average, with a deviation of 0.01 over seeds, `r n`."""
    generator = np.random.default_rng(seed)
    return 0.02 + 0.01 * (generator.normal(size=(number, seeds)) + spread * generator.normal(size=(number, 1)))


def named(table: np.ndarray) -> dict[str, np.ndarray]:
    return {f"data {index}": row for index, row in enumerate(table)}


@pytest.mark.parametrize("number", [2, 3, 6])
@pytest.mark.parametrize("spread", [0.0, 0.5, 2.0])
def test_mixed_model_is_its_closed_form_in_balanced_tables(number: int, spread: float) -> None:
    for seed in range(4):
        table = regimes(number, 5, spread, seed)
        mean, error = balanced(table)
        half = float(error) * stats.t.ppf(0.975, number - 1)
        found = pool(named(table), LEVEL)
        assert found.mixed_mean == pytest.approx(float(mean), abs=1e-7)
        assert found.mixed_interval == pytest.approx((float(mean) - half, float(mean) + half), rel=2e-3)


def test_interval_over_regimes_is_that_of_scipy() -> None:
    table = regimes(4, 5, 1.0)
    found = pool(named(table), LEVEL)
    assert found.interval == pytest.approx(tuple(stats.ttest_1samp(table.mean(1), 0).confidence_interval(0.95)))
    assert found.mean == pytest.approx(table.mean())
    assert found.means == pytest.approx({f"data {index}": row.mean() for index, row in enumerate(table)})
    assert (found.regimes, found.approximate) == (4, True)


def test_planted_heterogeneity_is_recovered() -> None:
    found = pool(named(regimes(200, 5, 2.0)))
    assert found.between == pytest.approx(0.02, rel=0.15)
    assert found.within == pytest.approx(0.01, rel=0.1)
    assert found.mixed_mean == pytest.approx(0.02, abs=0.005)
    assert found.notes == ()


def test_units_do_not_matter() -> None:
    table = regimes(3, 5, 1.0)
    small, large = pool(named(table)), pool(named(1e4 * table))
    assert large.mixed_interval == pytest.approx([1e4 * end for end in small.mixed_interval or ()], rel=1e-6)


def test_regimes_that_hardly_differ_are_said_to_and_warn_nobody() -> None:
    table = regimes(3, 5, 0.0)
    table -= table.mean(1, keepdims=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = pool(named(table))
    assert found.between == pytest.approx(0, abs=1e-6)
    assert found.notes == ("no more spread between regimes than seeds explain: their deviation is at its bound 0",)


def test_a_regime_with_more_seeds_weighs_more() -> None:
    generator = np.random.default_rng(0)
    found = pool({"few": generator.normal(0, 1, 3), "many": generator.normal(0.5, 1, 60)})
    assert found.mixed_mean is not None
    assert abs(found.mixed_mean - found.means["many"]) < abs(found.mixed_mean - found.means["few"])


def test_two_regimes_have_no_t_interval() -> None:
    assert pool(named(regimes(2, 5, 1.0))).interval is None


@pytest.mark.parametrize(
    ("values", "note"),
    [
        ({"a": [1.0], "b": [2.0]}, "no mixed model: no regime has two seeds"),
        ({"a": [1.0, 1.0, 1.0], "b": [2.0, 2.0]}, "no mixed model: no regime has a spread over its seeds"),
    ],
)
def test_values_that_no_model_fits_are_said(values: dict[str, list[float]], note: str) -> None:
    found = pool(values)
    assert found.notes == (note,)
    assert found.mean == 1.5
    assert (found.mixed_mean, found.mixed_interval, found.between, found.within) == (None, None, None, None)


@pytest.mark.parametrize("spread", [0.0, 0.5, 2.0])
def test_intervals_over_four_regimes_hold_the_effect(spread: float) -> None:
    table = np.stack([regimes(4, 5, spread, seed) for seed in range(2000)])
    mean, error = balanced(table)
    half = error * stats.t.ppf(0.975, 3)
    assert np.mean(np.abs(mean - 0.02) <= half) > 0.95 - 0.02


def test_mistakes_in_regimes_are_said() -> None:
    with pytest.raises(SpecError, match=r"^values has 1 regimes: must have two or more\.$"):
        pool({"a": [1.0, 2.0]})
    with pytest.raises(ShapeError, match=r"^regime b has shape \(0,\): must have the axes `n`, none of them empty\.$"):
        pool({"a": [1.0], "b": []})
    with pytest.raises(SpecError, match=r"^level has 0: must lie between 0 and 0\.5\.$"):
        pool({"a": [1.0], "b": [2.0]}, 0)
