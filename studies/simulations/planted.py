"""Planted effects: a 2x2x3 factorial with seeds as blocks, whose truth is known."""

from collections.abc import Callable, Mapping, Sequence
from itertools import product

import numpy as np

from dynops.ablation.claims import Bounded, Contrast, Difference, Exceeds, Hypothesis, Interaction
from dynops.ablation.contrasts import Weights, weights
from dynops.ablation.designs import Levels
from dynops.ablation.listing import main_effects_and_interactions
from dynops.ablation.plan import Plan
from dynops.ablation.shapley import shares
from dynops.records import cell_name
from dynops.streams import stream_seed

LEVEL = 0.05
SEEDS = (3, 5, 8, 10, 20)
FACTORS = (
    Levels("kernel", ("constant", "pixel")),
    Levels("channels", ("grouped", "every")),
    Levels("window", ("3", "5", "7")),
)
SHAPE = tuple(len(factor.levels) for factor in FACTORS)
CELLS = tuple(
    cell_name({factor.name: level for factor, level in zip(FACTORS, levels, strict=True)})
    for levels in product(*(factor.levels for factor in FACTORS))
)
KERNEL = Difference("kernel", "pixel", "constant")
CHANNELS = Difference("channels", "every", "grouped")
WINDOW = Difference("window", "7", "3")
BOTH = Interaction(KERNEL, CHANNELS)
FAMILY = main_effects_and_interactions(FACTORS)
RATIO = 1 / 3


def row(weight: Weights) -> np.ndarray:
    """Return weights as a vector over the cells."""
    return np.array([weight.get(cell, 0.0) for cell in CELLS])


def rows(contrasts: Sequence[Contrast]) -> np.ndarray:
    """Return the weights of contrasts, `e c`."""
    return np.stack([row(weights(each, FACTORS)) for each in contrasts])


INTERVALS: Mapping[str, np.ndarray] = {
    "main": rows([KERNEL])[0],
    "simple": rows([Difference("kernel", "pixel", "constant", at=(("channels", "every"), ("window", "7")))])[0],
    "interaction": rows([BOTH])[0],
    "share": row(shares((KERNEL, CHANNELS, WINDOW), FACTORS)[0]),
}
"""One contrast of each kind, as weights over the cells."""


def plan(seeds: int, margin: float, edge: float) -> Plan:
    """Return a plan whose hypotheses lie on the edge where the kernel's effect is `edge`.

    The edge is a kernel's effect of `edge`, no effect of the channels, and an interaction of a third of the kernel's.
    """
    hypotheses = (
        Hypothesis("H1", "Generation pays.", (Exceeds((KERNEL,), margin=edge),)),
        Hypothesis("H2", "A kernel of its own for each channel pays.", (Exceeds((CHANNELS,)),)),
        Hypothesis("H3", "The two act nearly alone.", (Bounded(BOTH, KERNEL, ratio=RATIO),)),
        Hypothesis("H4", "Both at once.", (Bounded(BOTH, KERNEL, ratio=RATIO), Exceeds((KERNEL,), margin=edge))),
    )
    return Plan(
        name="simulations",
        question="Are verdicts wrong no more often than they say?",
        factors=FACTORS,
        seeds=tuple(range(seeds)),
        margin=margin,
        level=LEVEL,
        family=FAMILY,
        hypotheses=hypotheses,
    )


def cells_with(effects: np.ndarray) -> np.ndarray:
    """Return means of the cells at which the family's contrasts have given values, `c`."""
    return np.linalg.pinv(rows(FAMILY)) @ effects


def normal(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw standard normal values."""
    return generator.normal(size=shape)


def skewed(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw exponential values of mean 0 and deviation 1."""
    return generator.exponential(size=shape) - 1


DRAWS: Mapping[str, tuple[Callable[[np.random.Generator, tuple[int, ...]], np.ndarray], float]] = {
    "normal": (normal, 0.0),
    "seed x factor": (normal, 1.0),
    "exponential": (skewed, 1.0),
}
"""For each noise, its distribution and the deviation of each factor's effect from seed to seed."""


def noise(name: str, simulations: int, seeds: int, generator: np.random.Generator) -> np.ndarray:
    """Draw noise of mean 0, `z n c`: of each run, of each seed, and of each factor's whole effect in each seed."""
    draw, deviation = DRAWS[name]
    found = draw(generator, (simulations, seeds, *SHAPE)) + 2 * draw(generator, (simulations, seeds, 1, 1, 1))
    for axis, levels in enumerate(SHAPE):
        side = np.linspace(-0.5, 0.5, levels).reshape([-1 if other == axis else 1 for other in range(len(SHAPE))])
        found += deviation * draw(generator, (simulations, seeds, 1, 1, 1)) * side
    return found.reshape(simulations, seeds, -1)


def generator_of(name: str) -> np.random.Generator:
    """Return the generator of one point: the same numbers whatever was measured before."""
    return np.random.default_rng(stream_seed(0, "simulations", name))


def covers(ends: tuple[np.ndarray, np.ndarray], truth: float) -> float:
    """Return the share of intervals that hold the truth."""
    return float(np.mean((ends[0] <= truth) & (truth <= ends[1])))
