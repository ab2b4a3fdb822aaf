"""Which cells are worth their costs: the Pareto front of outcome against costs, and how sure it is."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from dynops.ablation.statistics.arrays import finite
from dynops.ablation.statistics.bootstrap import draw_seeds
from dynops.ablation.verdicts import FEWEST_SEEDS
from dynops.errors import ShapeError
from dynops.specs import at_least

RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Front:
    """The cells that no other cell dominates."""

    on_front: tuple[bool, ...]
    """Whether each cell is on the front of the mean outcomes."""
    probability: tuple[float, ...] | None
    """Share of resamples of the seeds in which each cell is on the front; None below three seeds. A measure of how far
    the front hangs on these seeds, and no probability of a hypothesis."""


def front(
    costs: ArrayLike,
    values: ArrayLike,
    *,
    seed: int,
    higher_is_better: bool = True,
    resamples: int = RESAMPLES,
) -> Front:
    """Find the cells that are worth their costs, and how surely.

    One cell dominates another if it is no worse in its outcome and in every cost, and better in one of them; equals
    stay together. Whole seeds are drawn anew, so that what the cells of a seed have in common stays in common. Costs
    have no noise.

    Args:
        costs: `m q`: q costs of each of m cells, such as parameters and MACs; lower is better. `m` for a single one.
        values: outcomes, `n m`: n seeds.
        seed: of the resampling; the same seed gives the same result.
        higher_is_better: whether a larger outcome is a gain.
        resamples: how often the seeds are drawn anew.
    Raises:
        ShapeError: costs and values do not have the same cells.
        SpecError: a value or a cost is not finite.
    Source: Deb et al., A fast and elitist multiobjective genetic algorithm: NSGA-II, IEEE Trans. Evol. Comput. 6, 2002
        (dominance).
    """
    table, prices = finite("values", values, "n m"), np.asarray(costs, dtype=float)
    prices = finite("costs", prices[:, None] if prices.ndim == 1 else prices, "m q")
    at_least("resamples", resamples, 1)
    if len(prices) != table.shape[1]:
        raise ShapeError(f"costs has {len(prices)} cells, values has {table.shape[1]}: must be the same cells.")
    gains = table if higher_is_better else -table
    on_front = undominated(prices, gains.mean(0))
    probability = None
    if len(table) >= FEWEST_SEEDS:
        means = draw_seeds(len(table), resamples, seed) @ gains / len(table)
        probability = tuple(map(float, undominated(prices, means).mean(0)))
    return Front(on_front=tuple(map(bool, on_front)), probability=probability)


def undominated(costs: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Say of each cell whether no other cell dominates it.

    Args:
        costs: `m q`, lower is better.
        gains: `... m`, higher is better.
    Returns:
        `... m`, boolean.
    """
    differences = costs[:, None] - costs[None, :]  # m m q: of the first less the second
    no_dearer = np.asarray((differences <= 0).all(-1))
    cheaper = no_dearer & np.asarray((differences < 0).any(-1))
    found = np.ones(gains.shape, dtype=bool)
    for cell in range(len(costs)):
        own = gains[..., cell, None]
        beaten = (no_dearer[:, cell] & (gains > own)) | (cheaper[:, cell] & (gains >= own))
        found[..., cell] = ~beaten.any(-1)
    return found
