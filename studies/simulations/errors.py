"""How often are verdicts wrong where either answer is, and how often do planned seeds show an effect?"""

from collections.abc import Sequence

import numpy as np
from statsmodels.stats.power import TTestPower

from dynops.ablation.claims import Exceeds
from dynops.ablation.contrasts import combinations
from dynops.ablation.plan import Plan
from dynops.ablation.statistics.power import (
    detectable,
    margin_for,
    seeds_for_effect,
    two_stage_interval,
    two_stage_seeds,
)
from dynops.ablation.verdicts import holm_rows, p_bounded, p_different, p_equivalent, p_exceeds, t_interval
from studies.simulations.planted import CELLS, FAMILY, LEVEL, cells_with, covers, noise, plan, row, rows

EDGES = (0.0, 1.0, 8.0)
"""Sizes of the effects on the edge of all hypotheses, and margins of equivalence, in deviations of a run."""
PILOT = 5


def differs(name: str, seeds: int, simulations: int, generator: np.random.Generator) -> dict[str, float]:
    """Return how often any effect of a family is said to differ that is 0: where all are, and where one is not."""
    drawn = noise(name, simulations, seeds, generator)
    null = np.arange(len(FAMILY)) > 0
    one = cells_with(np.where(null, 0.0, 5.0))
    found: dict[str, float] = {}
    for key, means, true in (("none", np.zeros(len(CELLS)), null | True), ("one", one, null)):
        wrong = family(means + drawn, margin=0.0)[0] < LEVEL
        found[f"differs, {key}"] = float(np.mean(wrong[:, true].any(1)))
    return found


def equivalent(name: str, seeds: int, simulations: int, generator: np.random.Generator) -> dict[str, float]:
    """Return how often any effect of a family passes for equivalent where all lie exactly at the margin."""
    drawn = noise(name, simulations, seeds, generator)
    signs = np.where(np.arange(len(FAMILY)) % 2, -1.0, 1.0)
    found = {}
    for margin in EDGES[1:]:
        p, p_equivalence = family(cells_with(margin * signs) + drawn, margin)
        passed = p_equivalence < LEVEL
        found[f"p equivalent, margin {margin:g}"] = float(np.mean(passed.any(1)))
        found[f"equivalent, margin {margin:g}"] = float(np.mean((passed & (p >= LEVEL)).any(1)))
    return found


def hypotheses(name: str, seeds: int, simulations: int, generator: np.random.Generator) -> dict[str, float]:
    """Return how often any hypothesis is supported, and any refuted, where all lie exactly on their edge."""
    drawn = noise(name, simulations, seeds, generator)
    found: dict[str, float] = {}
    for edge in EDGES:
        stated = plan(seeds, margin=0.0, edge=edge)
        supported, refuted = settled(edge_cells(edge) + drawn, stated)
        found |= {
            f"supported, effect {edge:g}": float(np.mean((supported < LEVEL).any(1))),
            f"refuted, effect {edge:g}": float(np.mean((refuted < LEVEL).any(1))),
        }
    return found


def edge_cells(edge: float) -> np.ndarray:
    """Return the means of the cells that put all hypotheses of `plan` on their edge."""
    effects = np.zeros(len(FAMILY))
    effects[0], effects[4] = edge, edge / 3
    return cells_with(effects)


def family(outcomes: np.ndarray, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the adjusted p-values of every effect of the family, for a difference and for equivalence, `z e`."""
    values = np.moveaxis(outcomes @ rows(FAMILY).T, 1, -1)  # z e n
    p = holm_rows(p_different(values))
    return p, holm_rows(p_equivalent(values, margin)) if margin else np.ones_like(p)


def settled(outcomes: np.ndarray, stated: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Return the adjusted p-values that would support and refute each hypothesis of a plan, `z h`."""
    support, refute = [], []
    for hypothesis in stated.hypotheses:
        pairs = []
        for part in hypothesis.parts:
            values = [outcomes @ row(each.weights) - each.margin for each in combinations(part, stated)]
            pairs.append(p_exceeds(values[0]) if isinstance(part, Exceeds) else p_bounded(values[0], values[1]))
        support.append(np.max([each for each, _ in pairs], axis=0))
        refute.append(np.minimum(1.0, len(pairs) * np.min([each for _, each in pairs], axis=0)))
    return holm_rows(np.stack(support, -1)), holm_rows(np.stack(refute, -1))


def planned(effect: float, simulations: int, generator: np.random.Generator) -> dict[str, float]:
    """Return how often planned seeds show an effect of some deviations, alone and as the only one of the family."""
    alone, among = (seeds_for_effect(1.0, effect, level) for level in (LEVEL, LEVEL / len(FAMILY)))
    assert alone is not None, "the planted effects are within reach"
    assert among is not None, "the planted effects are within reach"
    single = p_different(generator.normal(effect, 1.0, (simulations, alone))) < LEVEL
    deviation = float(np.linalg.norm(rows(FAMILY)[0]))  # of the contrast, with noise of 1 in each run
    means = cells_with(np.where(np.arange(len(FAMILY)) == 0, effect * deviation, 0.0))
    outcomes = means + generator.normal(size=(simulations, among, len(CELLS)))
    return {
        "seeds": alone,
        "power": float(np.mean(single)),
        "predicted": float(TTestPower().power(effect, alone, LEVEL)),
        "seeds in the family": among,
        "power in the family": float(np.mean(family(outcomes, 0.0)[0][:, 0] < LEVEL)),
        "predicted in the family": float(TTestPower().power(effect, among, LEVEL / len(FAMILY))),
    }


def within_reach(seeds: int, simulations: int, generator: np.random.Generator) -> dict[str, float]:
    """Return how often a number of seeds shows its smallest detectable effect, and its smallest margin."""
    drawn = generator.normal(size=(simulations, seeds))
    return {
        "detectable": float(np.mean(p_different(drawn + detectable(1.0, seeds, LEVEL)) < LEVEL)),
        "margin": float(np.mean(p_equivalent(drawn, margin_for(1.0, seeds, LEVEL)) < LEVEL)),
    }


def two_stage(effect: float, simulations: int, generator: np.random.Generator) -> dict[str, float]:
    """Return power and coverage after a pilot has decided how many seeds there are, by Stein's rule and without it."""
    stein, pretend, numbers = [], [], []
    for pilot in generator.normal(effect, 1.0, (simulations, PILOT)):
        number = two_stage_seeds(pilot, LEVEL, effect=effect)
        assert number is not None, "the planted effects are within reach"
        stein.append(two_stage_interval(_extended(pilot, number, effect, generator), PILOT, LEVEL))
        hoped = seeds_for_effect(float(pilot.std(ddof=1)), effect, LEVEL)
        assert hoped is not None, "the planted effects are within reach"
        known = _extended(pilot, max(PILOT, hoped), effect, generator)
        pretend.append([float(end) for end in t_interval(known, LEVEL)])
        numbers.append((number, max(PILOT, hoped)))
    return {
        "Stein, power": _shown(stein),
        "Stein, coverage": covers(_ends(stein), effect),
        "Stein, median seeds": float(np.median([each for each, _ in numbers])),
        "pilot taken as known, power": _shown(pretend),
        "pilot taken as known, coverage": covers(_ends(pretend), effect),
        "pilot taken as known, median seeds": float(np.median([each for _, each in numbers])),
    }


def _extended(pilot: np.ndarray, number: int, effect: float, generator: np.random.Generator) -> np.ndarray:
    return np.concatenate([pilot, generator.normal(effect, 1.0, number - len(pilot))])


def _ends(intervals: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    ends = np.array(intervals)
    return ends[:, 0], ends[:, 1]


def _shown(intervals: Sequence[Sequence[float]]) -> float:
    low, high = _ends(intervals)
    return float(np.mean((low > 0) | (high < 0)))
