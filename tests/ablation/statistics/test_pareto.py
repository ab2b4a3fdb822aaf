"""The Pareto front against plain loops, and how sure it is."""

import numpy as np
import pytest

from dynops.ablation.statistics.pareto import front, undominated
from dynops.errors import ShapeError, SpecError


def by_loops(costs: np.ndarray, gains: np.ndarray) -> list[bool]:
    """Dominance as NSGA-II defines it, on losses alone."""
    losses = np.concatenate([costs, -gains[:, None]], axis=1)
    return [not any((other <= own).all() and (other < own).any() for other in losses) for own in losses]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_front_is_that_of_the_definition(number: int) -> None:
    generator = np.random.default_rng(number)
    for _ in range(50):
        # few values, so that cells tie in costs and outcomes
        costs, gains = generator.integers(0, 4, (8, number)).astype(float), generator.integers(0, 4, 8).astype(float)
        assert list(undominated(costs, gains)) == by_loops(costs, gains)


def test_many_outcomes_at_once_are_each_of_them() -> None:
    generator = np.random.default_rng(0)
    costs, gains = generator.normal(size=(6, 2)), generator.normal(size=(5, 6))
    assert undominated(costs, gains).tolist() == [by_loops(costs, each) for each in gains]


def test_planted_front_is_found() -> None:
    values = np.tile([0.70, 0.75, 0.74, 0.80], (5, 1))
    found = front([1, 2, 3, 4], values, seed=0)
    assert found.on_front == (True, True, False, True)
    assert found.probability == (1.0, 1.0, 0.0, 1.0)
    assert front([1, 2, 3, 4], -values, seed=0, higher_is_better=False) == found


def test_a_second_cost_can_save_a_cell() -> None:
    values = np.tile([0.70, 0.75, 0.74], (3, 1))
    assert front([[1, 1], [2, 2], [3, 3]], values, seed=0).on_front == (True, True, False)
    assert front([[1, 1], [2, 2], [3, 1]], values, seed=0).on_front == (True, True, True)


def test_equal_cells_stay_on_the_front_together() -> None:
    assert front([1, 1, 2], np.tile([0.7, 0.7, 0.7], (3, 1)), seed=0).on_front == (True, True, False)


def test_the_cheapest_cell_is_always_on_the_front() -> None:
    values = np.random.default_rng(0).normal(size=(6, 4))
    assert (front([1, 2, 3, 4], values, seed=0).probability or (0,))[0] == 1


def test_a_doubtful_cell_is_on_the_front_in_about_half_of_the_resamples() -> None:
    values = np.stack([np.zeros(40), np.random.default_rng(1).normal(size=40)], axis=1)
    values[:, 1] -= values[:, 1].mean()
    probability = front([1, 2], values, seed=0).probability or (0, 0)
    assert probability[1] == pytest.approx(0.5, abs=0.05)


def test_whole_seeds_are_drawn_so_that_what_they_share_does_not_matter() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=(6, 3))
    shift = 10 * generator.normal(size=(6, 1))
    assert front([1, 2, 3], values + shift, seed=3) == front([1, 2, 3], values, seed=3)


def test_same_seed_gives_the_same_probability() -> None:
    values = np.random.default_rng(0).normal(size=(6, 5))
    one, same, other = (front(range(5), values, seed=seed, resamples=500).probability for seed in (0, 0, 1))
    assert one == same != other


def test_two_seeds_have_a_front_without_probability() -> None:
    found = front([1, 2], [[0.1, 0.2], [0.1, 0.2]], seed=0)
    assert (found.on_front, found.probability) == ((True, True), None)


def test_mistakes_in_cells_are_said() -> None:
    with pytest.raises(ShapeError, match=r"^costs has 3 cells, values has 2: must be the same cells\.$"):
        front([1, 2, 3], np.ones((3, 2)), seed=0)
    with pytest.raises(ShapeError, match=r"^values has shape \(2,\): must have the axes `n m`, none of them empty\.$"):
        front([1, 2], np.ones(2), seed=0)
    with pytest.raises(SpecError, match=r"^costs has nan at \(1, 0\): must be finite"):
        front([1, np.nan], np.ones((3, 2)), seed=0)
    with pytest.raises(SpecError, match=r"^resamples has 0: must be an integer of at least 1\.$"):
        front([1, 2], np.ones((3, 2)), seed=0, resamples=0)
