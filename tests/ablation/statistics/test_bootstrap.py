"""The studentised bootstrap against plain loops, and its coverage by simulation."""

import numpy as np
import pytest

from dynops.ablation.statistics.bootstrap import draw_seeds, studentised_ends, studentised_interval
from dynops.errors import ShapeError, SpecError

LEVEL = 0.05


def by_loops(values: np.ndarray, draws: np.ndarray) -> tuple[float, float]:
    """The interval from the book's recipe, one resample at a time."""
    n, found = len(values), []
    for counts in draws.astype(int):
        chosen = np.repeat(values, counts)
        error = chosen.std(ddof=1) / n**0.5
        away = chosen.mean() - values.mean()
        found.append(away / error if error > 1e-12 else np.copysign(np.inf, away))
    found.sort()
    part = round((len(draws) + 1) * LEVEL / 2)
    error = values.std(ddof=1) / n**0.5
    return values.mean() - found[-part] * error, values.mean() - found[part - 1] * error


@pytest.mark.parametrize("n", [5, 8, 20])
def test_interval_is_that_of_the_recipe(n: int) -> None:
    values = np.random.default_rng(n).exponential(size=n)
    expected = by_loops(values, draw_seeds(n, 399, 7))
    assert studentised_interval(values, LEVEL, seed=7, resamples=399) == pytest.approx(expected, rel=1e-9)


def test_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(0).normal(size=8)
    one, same, other = (studentised_interval(values, LEVEL, seed=seed) for seed in (0, 0, 1))
    assert one == same != other


def test_many_samples_at_once_are_each_of_them() -> None:
    values, draws = np.random.default_rng(0).normal(size=(3, 2, 6)), draw_seeds(6, 199, 0)
    low, high = studentised_ends(values, LEVEL, draws)
    assert low.shape == high.shape == (3, 2)
    assert (low[1, 1], high[1, 1]) == pytest.approx(by_loops(values[1, 1], draws))


def test_interval_moves_and_stretches_with_the_values() -> None:
    values = np.random.default_rng(1).normal(size=7)
    low, high = studentised_interval(values, LEVEL, seed=0) or (0, 0)
    assert studentised_interval(3 + 2 * values, LEVEL, seed=0) == pytest.approx((3 + 2 * low, 3 + 2 * high))
    assert studentised_interval(-values, LEVEL, seed=0) == pytest.approx((-high, -low))
    assert low < values.mean() < high


def test_interval_of_skewed_values_is_longer_on_their_long_side() -> None:
    values = np.random.default_rng(2).exponential(size=20)
    low, high = studentised_interval(values, LEVEL, seed=0) or (0, 0)
    assert high - values.mean() > values.mean() - low


@pytest.mark.parametrize("n", [5, 10])
def test_95_percent_intervals_cover_the_mean_in_93_to_97_percent(n: int) -> None:
    values = np.random.default_rng(n).normal(1.0, 2.0, (4000, n))
    low, high = studentised_ends(values, LEVEL, draw_seeds(n, 999, 0))
    assert 0.93 < np.mean((low <= 1) & (high >= 1)) < 0.97


def test_values_without_spread_leave_no_doubt() -> None:
    assert studentised_interval([0.3] * 6, LEVEL, seed=0) == pytest.approx((0.3, 0.3))


def test_there_is_no_interval_where_it_could_not_be_trusted() -> None:
    assert studentised_interval([1.0, 2.0, 3.0, 4.0], LEVEL, seed=0) is None
    # a third of the resamples leave out the one seed that differs
    assert studentised_interval([1.0, 1.0, 1.0, 1.0, 2.0], LEVEL, seed=0) is None


def test_mistakes_in_values_are_said() -> None:
    with pytest.raises(ShapeError, match=r"^values has shape \(2, 5\): must have the axes `n`, none of them empty\.$"):
        studentised_interval(np.ones((2, 5)), LEVEL, seed=0)
    with pytest.raises(SpecError, match=r"^values has nan at \(1,\): must be finite\. Leave incomplete seeds out\.$"):
        studentised_interval([1.0, np.nan], LEVEL, seed=0)
    with pytest.raises(SpecError, match=r"^level has 0\.95: must lie between 0 and 0\.5\.$"):
        studentised_interval([1.0] * 5, 0.95, seed=0)
    with pytest.raises(SpecError, match=r"^resamples has 0: must be an integer of at least 1\.$"):
        studentised_interval([1.0] * 5, LEVEL, seed=0, resamples=0)
