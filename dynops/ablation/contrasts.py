"""Contrasts as weights over the cells of a factorial, and their value in each seed.

Every effect is linear in the outcomes: with weights w over cells c, its value in seed s is sum_c w[c] * y[c,s].
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum, log2, prod
from typing import Literal

import numpy as np

from dynops.ablation.claims import Bounded, Claim, Contrast, Difference, Exceeds, Interaction, Slope
from dynops.ablation.designs import Cell, FullFactorial, Levels
from dynops.ablation.plan import Plan
from dynops.errors import SpecError
from dynops.records import cell_name
from dynops.specs import one_of

Structure = Plan | Sequence[Levels]
"""A plan, or the factors of a full factorial."""
Weights = Mapping[str, float]
Outcomes = Mapping[str, Mapping[int, float]]

ROUNDING = 1e-12
"""Share of its terms below which a sum is rounding, so that outcomes that cancel give 0 and not 1e-17."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A combination of cells in each seed."""

    by_seed: Mapping[int, float]
    """Its value in each complete seed, in units of the outcome."""
    dropped: tuple[int, ...]
    """Seeds that lack a cell which it needs."""

    @property
    def values(self) -> np.ndarray:
        """The values in the order of the seeds, `n`."""
        return np.array(list(self.by_seed.values()), dtype=float)


def contrast_name(contrast: Contrast) -> str:
    """Name a contrast as people read it.

    >>> contrast_name(Difference("kernel", "pixel", "constant", at=(("channels", "grouped"),)))
    'kernel: pixel - constant at channels=grouped'
    """
    if isinstance(contrast, Slope):
        return f"slope along {contrast.along} of {contrast_name(contrast.effect)}"
    if isinstance(contrast, Difference):
        name = f"{contrast.factor}: {contrast.high} - {contrast.low}"
    else:
        first, second = contrast.first, contrast.second
        name = f"{first.factor} x {second.factor}: ({first.high} - {first.low}) x ({second.high} - {second.low})"
    held = cell_name(dict(_held(contrast)))
    return f"{name} at {held}" if held else name


def contrast_kind(contrast: Contrast) -> Literal["main", "simple", "interaction", "slope"]:
    """Say what a contrast is; a difference that holds any other factor is a simple effect."""
    if isinstance(contrast, Slope):
        return "slope"
    if isinstance(contrast, Interaction):
        return "interaction"
    return "simple" if contrast.at else "main"


def weights(contrast: Contrast, design: Structure) -> dict[str, float]:
    """Return the weight of each cell that a contrast needs; all others have weight 0.

    A difference gives 2/m to each of its m/2 cells at `high` and -2/m to those at `low`. An interaction, half the
    difference of differences, gives 2/m times the product of both signs to each of its m cells. A slope over the
    levels x of a scale adds up (log2 x - mean) / sum (log2 x - mean)^2 times the effect at x.

    Args:
        contrast: the difference, interaction or slope.
        design: the plan, or the factors of a full factorial.
    Returns:
        Weights by `cell_name`; they sum to 0.
    Raises:
        SpecError: the contrast does not fit the factors, or the design's cells do not tell it from other effects.
    """
    if isinstance(contrast, Slope):
        return _slope(contrast, design)
    signed = signed_cells(contrast, design)
    if isinstance(design, Plan) and not isinstance(design.design, FullFactorial):
        _check_balance(contrast, signed, design)
    return {cell_name(cell): 2 / len(signed) * sign for cell, sign in signed}


def signed_cells(contrast: Difference | Interaction, design: Structure) -> list[tuple[Cell, int]]:
    """Return the cells on the two sides of a contrast, each with its sign; arguments and errors as in `weights`."""
    factors = _factors(design)
    _check(contrast, factors)
    signs = {each.factor: {each.high: 1, each.low: -1} for each in _changes(contrast)}
    held = dict(_held(contrast))
    options = {
        factor.name: [held[factor.name]] if factor.name in held else list(signs.get(factor.name, factor.levels))
        for factor in factors
    }
    return [(cell, prod(sign[cell[factor]] for factor, sign in signs.items())) for cell in _cells(design, options)]


def is_estimable(contrast: Contrast, design: Structure) -> bool:
    """Whether the design's cells tell a contrast that fits the factors; see `weights`."""
    try:
        weights(contrast, design)
    except SpecError:
        return False
    return True


def combine(terms: Iterable[tuple[float, Weights]]) -> dict[str, float]:
    """Add weights, each times its coefficient; cells whose weights cancel are left out.

    >>> combine([(1.0, {"a": 0.5, "b": -0.5}), (0.5, {"b": 1.0, "c": -1.0})])
    {'a': 0.5, 'c': -0.5}
    """
    parts: dict[str, list[float]] = {}
    for coefficient, each in terms:
        for cell, weight in each.items():
            parts.setdefault(cell, []).append(coefficient * weight)
    total = {cell: _sum(values) for cell, values in parts.items()}
    return {cell: weight for cell, weight in total.items() if weight != 0}


def sample(weight: Weights, outcomes: Outcomes, seeds: Iterable[int], *, margin: float = 0.0) -> Sample:
    """Weigh the outcomes of each seed, and take a margin off.

    Args:
        weight: weight of each cell that is needed.
        outcomes: outcome by cell name and seed.
        seeds: the seeds to look at; one that lacks a needed cell is dropped.
        margin: what is subtracted, in units of the outcome.
    """
    by_seed, dropped = {}, []
    for seed in seeds:
        if all(seed in outcomes.get(cell, {}) for cell in weight):
            by_seed[seed] = _sum([*(value * outcomes[cell][seed] for cell, value in weight.items()), -margin])
        else:
            dropped.append(seed)
    return Sample(by_seed=by_seed, dropped=tuple(dropped))


@dataclass(frozen=True, kw_only=True)
class Combination:
    """A combination of cells that a part of a hypothesis tests against 0."""

    name: str
    """What is tested, as a formula."""
    weights: Weights
    """Weight of each cell that is needed."""
    margin: float
    """What is subtracted, in units of the outcome."""


def combinations(part: Claim, plan: Plan) -> tuple[Combination, ...]:
    """Return what a part of a hypothesis tests: the sum for `Exceeds`, two combinations for the others.

    |I| <= ratio * |A| where U = ratio * A - I and V = ratio * A + I have one sign; |I| < margin where margin - I and
    margin + I are both positive.

    Raises:
        SpecError: a contrast does not fit the plan.
    """
    if isinstance(part, Exceeds):
        total = combine([(1.0, weights(each, plan)) for each in part.contrasts])
        names = [contrast_name(each) for each in part.contrasts]
        name = names[0] if len(names) == 1 else " + ".join(f"({each})" for each in names)
        margin = f" - ({part.margin:g})" if part.margin else ""
        return (Combination(name=name + margin, weights=total, margin=part.margin),)
    small, name = weights(part.contrast, plan), contrast_name(part.contrast)
    bound = (
        (f"{part.ratio:.4g} ({contrast_name(part.by)})", weights(part.by, plan), part.ratio, 0.0)
        if isinstance(part, Bounded)
        else (f"{part.margin:g}", {}, 0.0, -part.margin)
    )
    return tuple(
        Combination(
            name=f"{bound[0]} {'+' if sign > 0 else '-'} ({name})",
            weights=combine([(bound[2], bound[1]), (float(sign), small)]),
            margin=bound[3],
        )
        for sign in (-1, 1)
    )


def identity(contrast: Contrast, design: Structure) -> frozenset[tuple[str, float]]:
    """Return what two contrasts share when one is the other, or the other with its sign changed."""
    weight = weights(contrast, design)
    sign = weight[min(weight)]
    return frozenset((cell, round(value / sign, 9)) for cell, value in weight.items())


def _factors(design: Structure) -> tuple[Levels, ...]:
    return design.factors if isinstance(design, Plan) else tuple(design)


def _cells(design: Structure, options: Mapping[str, Sequence[str]]) -> list[Cell]:
    """The cells of a design whose factors have one of some levels each."""
    if isinstance(design, Plan) and not isinstance(design.design, FullFactorial):
        cells = design.cell_levels()
        return [cell for cell in cells if all(cell[name] in levels for name, levels in options.items())]
    return [dict(zip(options, levels, strict=True)) for levels in itertools.product(*options.values())]


def _check_balance(contrast: Difference | Interaction, signed: Sequence[tuple[Cell, int]], plan: Plan) -> None:
    """Raise a SpecError unless both sides of a contrast hold the levels of all other factors in equal numbers."""
    held, changed = dict(_held(contrast)), [each.factor for each in _changes(contrast)]
    free = [factor.name for factor in plan.factors if factor.name not in held]
    sides = {sign: [cell for cell, each in signed if each == sign] for sign in (1, -1)}
    found = {
        sign: {name: sorted(cell[name] for cell in cells) for name in free if name not in changed or len(changed) > 1}
        for sign, cells in sides.items()
    }
    if not sides[1] or len(sides[1]) != len(sides[-1]) or found[1] != found[-1]:
        raise SpecError(
            f"design has {len(sides[1])} and {len(sides[-1])} cells on the two sides of {contrast_name(contrast)}: "
            "must have as many on both, alike in all other factors. Take a larger design, or hold other factors."
        )


def _slope(contrast: Slope, design: Structure) -> dict[str, float]:
    factors = {factor.name: factor for factor in _factors(design)}
    one_of("along", contrast.along, tuple(factors))
    along = factors[contrast.along]
    if not along.scale:
        raise SpecError(f"along has {along.name!r}: must be a factor with a scale. Give its levels what they measure.")
    places = [log2(each) for each in along.scale]
    middle = fsum(places) / len(places)
    spread = fsum((place - middle) ** 2 for place in places)
    return combine(
        ((place - middle) / spread, weights(held_at(contrast.effect, along.name, level), design))
        for place, level in zip(places, along.levels, strict=True)
    )


def held_at(effect: Difference | Interaction, factor: str, level: str) -> Difference | Interaction:
    """Return an effect with one more factor held at a level."""
    if isinstance(effect, Interaction):
        return replace(effect, first=replace(effect.first, at=(*effect.first.at, (factor, level))))
    return replace(effect, at=(*effect.at, (factor, level)))


def _changes(contrast: Difference | Interaction) -> tuple[Difference, ...]:
    return (contrast,) if isinstance(contrast, Difference) else (contrast.first, contrast.second)


def _held(contrast: Difference | Interaction) -> tuple[tuple[str, str], ...]:
    return tuple(dict.fromkeys(pair for each in _changes(contrast) for pair in each.at))


def _check(contrast: Difference | Interaction, factors: Sequence[Levels]) -> None:
    known = {factor.name: factor.levels for factor in factors}
    changed = [each.factor for each in _changes(contrast)]
    for each in _changes(contrast):
        one_of("factor", each.factor, tuple(known))
        one_of("high", each.high, known[each.factor])
        one_of("low", each.low, known[each.factor])
        if each.high == each.low:
            raise SpecError(f"{each.factor} has high={each.high!r}, low={each.low!r}: must be two different levels.")
    if len(set(changed)) != len(changed):
        raise SpecError(f"interaction has factor {changed[0]!r} twice: must change two different factors.")
    held = _held(contrast)
    for factor, level in held:
        one_of("factor in at", factor, tuple(known))
        one_of(f"level of {factor} in at", level, known[factor])
        if factor in changed:
            raise SpecError(f"at has factor {factor!r}: must not be a factor that the contrast changes.")
    if len(dict(held)) != len(held):
        raise SpecError(f"at has {held}: must hold each factor at one level.")


def _sum(terms: Sequence[float]) -> float:
    total = fsum(terms)
    return 0.0 if abs(total) <= ROUNDING * fsum(abs(term) for term in terms) else total
