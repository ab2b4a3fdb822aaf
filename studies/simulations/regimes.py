"""How often do intervals of an effect pooled over regimes hold it?"""

import numpy as np
from scipy import stats

from dynops.ablation.verdicts import FEWEST_SEEDS, t_interval
from studies.simulations.planted import DRAWS, LEVEL, covers

REGIMES = (2, 3, 4, 5, 6)
SPREADS = (0.0, 0.5, 2.0)
"""Deviation of the effect between regimes, over that between seeds."""


def pooled(
    name: str, regimes: int, spread: float, seeds: int, simulations: int, generator: np.random.Generator
) -> dict[str, float]:
    """Return how often the t interval over regimes, and the mixed model with two quantiles, hold an effect of 0."""
    draw = DRAWS[name][0]
    values = draw(generator, (simulations, regimes, seeds)) + spread * draw(generator, (simulations, regimes, 1))
    mean, error = balanced(values)
    quantiles = {
        "mixed": stats.t.ppf(1 - LEVEL / 2, regimes - 1),
        "mixed, normal quantile": stats.norm.ppf(1 - LEVEL / 2),
    }
    found = {key: covers((mean - each * error, mean + each * error), 0.0) for key, each in quantiles.items()}
    if regimes >= FEWEST_SEEDS:
        found["t over regimes"] = covers(t_interval(values.mean(-1), LEVEL), 0.0)
    return found


def balanced(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard error of the mixed model by REML, which balanced tables give in closed form.

    Args:
        values: regimes and seeds, `... r n`.
    Source: Searle, Casella and McCulloch, Variance Components, 1992, section 4.4.
    """
    regimes, seeds = values.shape[-2:]
    between = seeds * values.mean(-1).var(-1, ddof=1)
    within = values.var(-1, ddof=1).mean(-1)
    flat = values.reshape(*values.shape[:-2], -1)
    square = np.where(between > within, between, flat.var(-1, ddof=1))
    return flat.mean(-1), np.sqrt(square / (regimes * seeds))
