"""What a study's records say beside single effects: effects over regimes, how cells stand, what factors explain."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dynops.ablation.claims import Difference, Interaction, Slope
from dynops.ablation.contrasts import (
    Outcomes,
    contrast_kind,
    contrast_name,
    held_at,
    sample,
    weights,
)
from dynops.ablation.designs import FullFactorial
from dynops.ablation.judging import judged, measured
from dynops.ablation.plan import Plan
from dynops.ablation.statistics.nested import Pooled, pool
from dynops.ablation.statistics.pareto import front
from dynops.ablation.statistics.ranks import Improvement, improvement, rank
from dynops.ablation.statistics.scale import SignChange, sign_change
from dynops.ablation.statistics.variance import variance_shares
from dynops.ablation.verdicts import Effect
from dynops.records import cell_name

RESAMPLING_SEED = 0
Cells = Mapping[str, np.ndarray]
"""Outcomes of the seeds in which every cell has a result, `n`, by cell."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One effect over the levels of a regime."""

    name: str
    """Name of the effect."""
    regime: str
    """Factor whose levels are the regimes."""
    levels: tuple[str, ...]
    """Its levels."""
    at: tuple[Effect, ...]
    """The effect at each level; exploratory, each at the level of error on its own."""
    pooled: Pooled | None
    """The effect of a regime drawn at random, by a mixed model and over the regimes' means; None without results."""
    slope: Effect | None
    """By how much it grows with each doubling; None where the regime has no scale."""
    sign_change: SignChange | None
    """Where on the scale it changes its sign; likewise."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a cell stands to the others, over the seeds in which all have a result."""

    cell: str
    """Name of the cell."""
    mean_rank: float
    """Mean over seeds of its rank in the outcome; 1 is the best."""
    beats_first: Improvement | None
    """How often it is better than the first cell in the same seed; None for the first cell."""
    on_front: bool
    """Whether no cell has a better mean outcome at no more parameters and MACs."""
    front_probability: float | None
    """Share of resamples of the seeds in which that is so; None below three seeds."""


@dataclass(frozen=True, kw_only=True)
class VarianceShare:
    """What a set of factors explains of the differences between the cells' means."""

    factors: tuple[str, ...]
    """One factor: its main effect; several: their interaction."""
    share: float
    """Share of the variance over cells, the noise of the seeds taken off."""


def whole_seeds(plan: Plan, outcomes: Outcomes, seeds: Sequence[int]) -> Cells:
    """Return the outcomes of the seeds in which every cell has a result."""
    names = plan.cell_names()
    whole = [seed for seed in seeds if all(seed in outcomes[name] for name in names)]
    return {name: np.array([outcomes[name][seed] for seed in whole]) for name in names}


def profiles(plan: Plan, outcomes: Outcomes, seeds: Sequence[int]) -> Iterator[Profile]:
    """Yield each difference and interaction of the family that holds no regime, over each regime."""
    for contrast in plan.family:
        if isinstance(contrast, Slope):
            continue
        used = contrast_factors(contrast)
        for regime in plan.regimes:
            if regime not in used:
                yield _profile(plan, contrast, regime, outcomes, seeds)


def contrast_factors(contrast: Difference | Interaction) -> set[str]:
    """Return the factors that a contrast changes or holds."""
    parts = (contrast.first, contrast.second) if isinstance(contrast, Interaction) else (contrast,)
    return {part.factor for part in parts} | {factor for part in parts for factor, _ in part.at}


def _profile(
    plan: Plan, contrast: Difference | Interaction, regime: str, outcomes: Outcomes, seeds: Sequence[int]
) -> Profile:
    factor = plan.factor(regime)
    at = tuple(_effect(plan, held_at(contrast, regime, level), outcomes, seeds) for level in factor.levels)
    whole = [seed for seed in seeds if all(seed in effect.by_seed for effect in at)]
    values = np.array([[effect.by_seed[seed] for effect in at] for seed in whole])
    known = {level: effect.values for level, effect in zip(factor.levels, at, strict=True) if effect.by_seed}
    return Profile(
        name=contrast_name(contrast),
        regime=regime,
        levels=factor.levels,
        at=at,
        pooled=pool(known, plan.level) if len(known) > 1 else None,
        slope=_effect(plan, Slope(contrast, regime), outcomes, seeds) if factor.scale else None,
        sign_change=sign_change(values, factor.scale, plan.level) if factor.scale and whole else None,
    )


def _effect(plan: Plan, contrast: Difference | Interaction | Slope, outcomes: Outcomes, seeds: Sequence[int]) -> Effect:
    values = sample(weights(contrast, plan), outcomes, seeds)
    margin = 0.0 if isinstance(contrast, Slope) else plan.margin
    row = measured(contrast_name(contrast), contrast_kind(contrast), values, plan.level, margin)
    return judged(replace(row, contrast=contrast), plan.level, 1)


def standings(plan: Plan, table: Cells, costs: Sequence[tuple[float, ...]]) -> tuple[Standing, ...]:
    """Return how each cell stands; nothing without a seed in which all cells have results.

    Args:
        plan: says whether higher is better.
        table: outcomes of all cells.
        costs: of each cell.
    """
    names = list(table)
    values = np.stack([table[name] for name in names], axis=1)  # n m
    if not len(values):
        return ()
    higher = plan.higher_is_better
    found = front(costs, values, seed=RESAMPLING_SEED, higher_is_better=higher)
    mean_ranks = rank(values, higher_is_better=higher).mean_ranks
    return tuple(
        Standing(
            cell=name,
            mean_rank=mean_ranks[place],
            beats_first=improvement(values[:, place], values[:, 0], plan.level, higher_is_better=higher)
            if place
            else None,
            on_front=found.on_front[place],
            front_probability=None if found.probability is None else found.probability[place],
        )
        for place, name in enumerate(names)
    )


def ranks_p(plan: Plan, table: Cells) -> float | None:
    """Return the p-value of equal ranks."""
    values = np.stack(list(table.values()), axis=1)
    if len(values) < 2 or values.shape[1] < 3:
        return None
    return rank(values, higher_is_better=plan.higher_is_better).p


def variance(plan: Plan, table: Cells) -> tuple[VarianceShare, ...]:
    """Return what each set of factors explains; nothing unless all combinations of levels are run with two seeds."""
    if not isinstance(plan.design, FullFactorial):
        return ()
    values = np.stack([table[cell_name(levels)] for levels in plan.design.cells(plan.factors)], axis=1)
    if len(values) < 2:
        return ()
    sizes = [len(factor.levels) for factor in plan.factors]
    found = variance_shares(values.reshape(len(values), *sizes), [factor.name for factor in plan.factors])
    shares = [VarianceShare(factors=factors, share=share) for factors, share in found.share.items()]
    return tuple(sorted(shares, key=lambda each: -each.share))
