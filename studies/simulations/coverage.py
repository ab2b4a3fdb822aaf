"""How often do intervals hold the truth? Contrasts, slopes, sign changes, and shares of variance."""

from itertools import combinations

import numpy as np

from dynops.ablation.claims import Difference, Slope
from dynops.ablation.contrasts import weights
from dynops.ablation.designs import Levels
from dynops.ablation.statistics.bootstrap import FEWEST, RESAMPLES, draw_seeds, studentised_ends
from dynops.ablation.statistics.scale import SignChange, sign_change
from dynops.ablation.statistics.variance import component, variance_shares
from dynops.ablation.verdicts import t_interval
from dynops.records import cell_name
from studies.simulations.planted import DRAWS, INTERVALS, LEVEL, SHAPE, cells_with, covers, noise

BLOCK = 500
"""Simulations whose resamples are held in memory at once."""
SCALES = (0.01, 0.03, 0.1, 0.3, 1.0)
AXIS = Levels("scale", tuple(map(str, SCALES)), scale=SCALES)
KERNEL = Levels("kernel", ("static", "pixel"))
CURVE = np.array([-2.0, -1.2, -0.3, 0.8, 1.6])
"""The planted effect at each scale: it bends, and changes its sign between 0.1 and 0.3."""
PLANTED = (1.0, 0.6, 0.3, 0.3, 0.8, 0.0, 0.0, 0.0, 0.0)
"""The planted effects, in the order of the family."""
FEW = 1000
"""Simulations of the shares of variance, each with its own resamples."""


def contrasts(name: str, seeds: int, simulations: int, generator: np.random.Generator) -> dict[str, float]:
    """Return how often the t interval and the studentised bootstrap hold each kind of contrast."""
    means = cells_with(np.array(PLANTED))
    outcomes = means + noise(name, simulations, seeds, generator)
    draws = draw_seeds(seeds, RESAMPLES, seed=0)
    found = {}
    for kind, weight in INTERVALS.items():
        values, truth = outcomes @ weight, float(means @ weight)
        found[f"t, {kind}"] = covers(t_interval(values, LEVEL), truth)
        if seeds >= FEWEST:
            blocks = [
                studentised_ends(values[start : start + BLOCK], LEVEL, draws) for start in range(0, simulations, BLOCK)
            ]
            low, high = (np.concatenate(each) for each in zip(*blocks, strict=True))
            found[f"bootstrap, {kind}"] = covers((low, high), truth)
    return found


def scales(name: str, seeds: int, simulations: int, generator: np.random.Generator) -> dict[str, float]:
    """Return how often the intervals of slope and sign change hold the truth, and how many of the latter close."""
    draw, deviation = DRAWS[name]
    doublings = np.log2(SCALES) - np.log2(SCALES).mean()
    effect = Difference("kernel", "pixel", "static")
    weight = weights(Slope(effect, "scale"), (KERNEL, AXIS))
    rising = np.array([weight[cell_name({"kernel": "pixel", "scale": level})] for level in AXIS.levels])
    values = CURVE + draw(generator, (simulations, seeds, len(SCALES))) + draw(generator, (simulations, seeds, 1))
    values += 0.2 * deviation * draw(generator, (simulations, seeds, 1)) * doublings
    rises = float(CURVE @ doublings / (doublings @ doublings))
    truth = sign_change(np.stack([CURVE] * 3), SCALES).estimate
    assert truth is not None, "the planted effect changes its sign once"
    changes = [sign_change(each, SCALES, LEVEL) for each in values]
    return {
        "slope": covers(t_interval(values @ rising, LEVEL), rises),
        "sign change": float(np.mean([holds(each, truth) for each in changes])),
        "sign change, closed": float(np.mean([each.reach == "closed" for each in changes])),
        "sign change, single": float(np.mean([each.single for each in changes])),
    }


def holds(found: SignChange, truth: float) -> bool:
    """Whether the interval of a sign change holds a scale."""
    if found.reach == "empty":
        return False
    return (found.low is None or found.low <= truth) and (found.high is None or truth <= found.high)


def shares(name: str, seeds: int, simulations: int, generator: np.random.Generator) -> dict[str, float]:
    """Return how far a share of variance is off, and how often a percentile bootstrap over seeds would hold it."""
    means = cells_with(np.array(PLANTED))
    simulations = min(simulations, FEW)
    outcomes = (means + noise(name, simulations, seeds, generator)).reshape(simulations, seeds, *SHAPE)
    sets = [axes for size in (1, 2, 3) for axes in combinations(range(3), size)]
    names = tuple(map(str, range(3)))
    # a table without noise: two equal seeds
    truth = variance_shares(np.stack([means.reshape(SHAPE)] * 2), names).share[("0",)]
    found = np.array([variance_shares(each, names).share[("0",)] for each in outcomes])
    counts = draw_seeds(seeds, 400, seed=0)
    counts = counts[(counts > 0).sum(1) > 1]
    variances = np.stack([_variance(outcomes, axes, counts) for axes in sets])  # set z r
    resampled = variances[0] / np.maximum(variances.sum(0), np.finfo(float).tiny)
    low, high = np.quantile(resampled, [LEVEL / 2, 1 - LEVEL / 2], axis=-1)
    return {
        "share, bias": float(found.mean() - truth),
        "share, error": float(((found - truth) ** 2).mean() ** 0.5),
        "share, percentile": covers((low, high), truth),
    }


def _variance(outcomes: np.ndarray, axes: tuple[int, ...], counts: np.ndarray) -> np.ndarray:
    """The variance of a component in each resample, corrected for noise, `z r`."""
    simulations, seeds = outcomes.shape[:2]
    each = component(outcomes.reshape(-1, *SHAPE), axes).reshape(simulations, seeds, -1)
    share = counts / seeds
    square = (np.einsum("rn,znc->zrc", share, each) ** 2).mean(-1)
    noisy = (np.einsum("rn,zn->zr", share, (each**2).mean(-1)) - square) / (seeds - 1)
    return np.maximum(square - noisy, 0.0)
