"""Shares of variance against the sums of squares of statsmodels, and planted ones recovered."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from dynops.ablation.statistics.variance import component, variance_shares
from dynops.errors import ShapeError, SpecError

NAMES = ("kernel", "channels", "window")
SETS = {("kernel",), ("channels",), ("window",), ("kernel", "channels"), ("kernel", "window"), ("channels", "window")}


def outcomes(noise: float, seeds: int = 4, seed: int = 0) -> np.ndarray:
    """A 2x2x3 table: variances 1 of kernel, 0.25 of channels, 0.64 of their interaction, 0 of the rest."""
    a, b = np.array([-1, 1])[:, None, None], np.array([-1, 1])[None, :, None]
    means = 5 + a + 0.5 * b + 0.8 * a * b + np.zeros(3)
    generator = np.random.default_rng(seed)
    return means + generator.normal(size=(seeds, 1, 1, 1)) + noise * generator.normal(size=(seeds, 2, 2, 3))


@pytest.mark.parametrize("levels", [(2, 2, 3), (3, 2)])
def test_components_have_the_sums_of_squares_of_an_analysis_of_variance(levels: tuple[int, ...]) -> None:
    table = np.random.default_rng(0).normal(size=(1, *levels))
    names = NAMES[: len(levels)]
    frame = pd.DataFrame(list(product(*map(range, levels))), columns=list(names)).astype(str)
    frame["y"] = table.ravel()
    # the largest interaction is what the others leave
    terms = {axes: ":".join(f"C({names[axis]})" for axis in axes) for axes in _axes(len(names))[:-1]}
    peer = anova_lm(ols("y ~ " + " + ".join(terms.values()), frame).fit())["sum_sq"]
    for axes, term in [*terms.items(), (tuple(range(len(names))), "Residual")]:
        assert ((component(table, axes) + np.zeros(table.shape)) ** 2).sum() == pytest.approx(peer[term])


@pytest.mark.parametrize("levels", [(2, 2, 3), (3, 2), (4,)])
def test_components_add_up_to_the_cells(levels: tuple[int, ...]) -> None:
    table = np.random.default_rng(0).normal(size=(3, *levels))
    whole = sum(component(table, axes) + np.zeros(table.shape) for axes in _axes(len(levels)))
    mean = table.mean(tuple(range(1, table.ndim)), keepdims=True)
    assert np.asarray(whole) + mean == pytest.approx(table)


def _axes(factors: int) -> list[tuple[int, ...]]:
    chosen = [tuple(axis for axis in range(factors) if bits >> axis & 1) for bits in range(1, 2**factors)]
    return sorted(chosen, key=len)


def test_shares_without_noise_are_exact() -> None:
    found = variance_shares(outcomes(0.0), NAMES)
    assert set(found.share) == SETS | {NAMES}
    total = 1 + 0.25 + 0.64
    expected = {("kernel",): 1 / total, ("channels",): 0.25 / total, ("kernel", "channels"): 0.64 / total}
    assert dict(found.share) == pytest.approx({name: expected.get(name, 0.0) for name in found.share}, abs=1e-12)
    assert found.noise == pytest.approx(0, abs=1e-12)
    assert found.variance[("kernel",)] == pytest.approx(1)


def test_noise_is_taken_off() -> None:
    each = [variance_shares(outcomes(1.0, seed=seed), NAMES) for seed in range(400)]
    for name, expected in ((("kernel",), 1.0), (("channels",), 0.25), (("kernel", "channels"), 0.64)):
        assert np.mean([found.variance[name] for found in each]) == pytest.approx(expected, abs=0.06)
    # noise of variance 1 in 12 runs over 4 seeds, less the mean's own degree of freedom
    assert np.mean([found.noise for found in each]) == pytest.approx(11 / 12 / 4, rel=0.05)


def test_noise_that_seeds_put_on_a_factor_is_taken_off_its_share_alone() -> None:
    generator = np.random.default_rng(1)
    side = np.array([-1, 1])[:, None, None]
    found = [
        variance_shares(outcomes(0.0) + generator.normal(size=(4, 1, 1, 1)) * side, NAMES).variance for _ in range(600)
    ]
    assert np.mean([each[("kernel",)] for each in found]) == pytest.approx(1, abs=0.15)
    assert found[0][("channels",)] == pytest.approx(0.25)


def test_shares_add_up_to_one_and_are_not_negative() -> None:
    for seed in range(20):
        share = variance_shares(outcomes(2.0, seed=seed), NAMES).share
        assert sum(share.values()) == pytest.approx(1)
        assert min(share.values()) >= 0


def test_cells_that_do_not_differ_have_no_shares() -> None:
    found = variance_shares(np.ones((3, 2, 2)), NAMES[:2])
    assert set(found.share.values()) == {0.0}


def test_mistakes_in_tables_are_said() -> None:
    with pytest.raises(ShapeError, match=r"^values has shape \(3, 2, 2\), factors has kernel: must be `n` and one"):
        variance_shares(np.ones((3, 2, 2)), NAMES[:1])
    with pytest.raises(SpecError, match=r"^values has 1 seeds: must have 2 or more\.$"):
        variance_shares(np.ones((1, 2, 2)), NAMES[:2])
    with pytest.raises(SpecError, match=r"^values has shape \(3, 1\): each factor must have two levels or more\.$"):
        variance_shares(np.ones((3, 1)), NAMES[:1])
