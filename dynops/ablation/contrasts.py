"""Contrasts as weights over the cells of a factorial, and their value in each seed.

Every effect is linear in the outcomes: with weights w over cells c, its value in seed s is sum_c w[c] * y[c,s].
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import comb, fsum, prod
from typing import Literal

import numpy as np

from dynops.ablation.plan import Bounded, Contrast, Difference, Exceeds, Interaction, Levels, Plan
from dynops.errors import SpecError
from dynops.records import cell_name
from dynops.specs import one_of

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
    if isinstance(contrast, Difference):
        name = f"{contrast.factor}: {contrast.high} - {contrast.low}"
    else:
        first, second = contrast.first, contrast.second
        name = f"{first.factor} x {second.factor}: ({first.high} - {first.low}) x ({second.high} - {second.low})"
    held = cell_name(dict(_held(contrast)))
    return f"{name} at {held}" if held else name


def contrast_kind(contrast: Contrast) -> Literal["main", "simple", "interaction"]:
    """Say what a contrast is; a difference that holds any other factor is a simple effect."""
    if isinstance(contrast, Interaction):
        return "interaction"
    return "simple" if contrast.at else "main"


def weights(contrast: Contrast, design: Plan | Sequence[Levels]) -> dict[str, float]:
    """Return the weight of each cell that a contrast needs; all others have weight 0.

    A difference gives 2/m to each of its m/2 cells at `high` and -2/m to those at `low`. An interaction, half the
    difference of differences, gives 2/m times the product of both signs to each of its m cells.

    Args:
        contrast: the difference or interaction.
        design: the plan, or its factors.
    Returns:
        Weights by `cell_name`; they sum to 0.
    Raises:
        SpecError: the contrast does not fit the factors.
    """
    factors = design.factors if isinstance(design, Plan) else tuple(design)
    _check(contrast, factors)
    signs = {each.factor: {each.high: 1, each.low: -1} for each in _changes(contrast)}
    held = dict(_held(contrast))
    options = [
        [held[factor.name]] if factor.name in held else list(signs.get(factor.name, factor.levels))
        for factor in factors
    ]
    names = [factor.name for factor in factors]
    cells = [dict(zip(names, levels, strict=True)) for levels in itertools.product(*options)]
    return {
        cell_name(levels): 2 / len(cells) * prod(sign[levels[factor]] for factor, sign in signs.items())
        for levels in cells
    }


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


def combinations(part: Exceeds | Bounded, plan: Plan) -> tuple[Combination, ...]:
    """Return what a part of a hypothesis tests: the sum for `Exceeds`, U and V for `Bounded`.

    |I| <= ratio * |A| where U = ratio * A - I and V = ratio * A + I have one sign.

    Raises:
        SpecError: a contrast does not fit the plan.
    """
    if isinstance(part, Exceeds):
        total = combine([(1.0, weights(each, plan)) for each in part.contrasts])
        names = [contrast_name(each) for each in part.contrasts]
        name = names[0] if len(names) == 1 else " + ".join(f"({each})" for each in names)
        margin = f" - ({part.margin:g})" if part.margin else ""
        return (Combination(name=name + margin, weights=total, margin=part.margin),)
    small, large = weights(part.contrast, plan), weights(part.by, plan)
    return tuple(
        Combination(
            name=f"{part.ratio:.4g} ({contrast_name(part.by)}) {'+' if sign > 0 else '-'} "
            f"({contrast_name(part.contrast)})",
            weights=combine([(part.ratio, large), (float(sign), small)]),
            margin=0.0,
        )
        for sign in (-1, 1)
    )


def shares(change: Sequence[Difference], design: Plan | Sequence[Levels]) -> list[dict[str, float]]:
    """Return the weights of each part's Shapley share in the gain of a whole change.

    A share averages what a part adds over all orders in which the parts can be changed, so that the shares add up to
    the whole gain, whatever interacts. With k parts, that of part i sums over the sets S of other parts
    |S|! (k - |S| - 1)! / k! times what i adds where S has changed and the rest has not; factors that do not change are
    averaged over.

    Args:
        change: for each part, its factor with the level after and before.
        design: the plan, or its factors.
    Raises:
        SpecError: two parts change one factor, a part holds another, or one does not fit the factors.
    Source: Shapley, A value for n-person games, 1953.
    """
    names = [part.factor for part in change]
    if len(set(names)) != len(names):
        raise SpecError(f"change has factors {', '.join(names)}: must change each factor once.")
    for part in change:
        if part.at:
            raise SpecError(f"change has {part!r}: a part of a whole change holds no other factor. Leave `at` out.")
    return [_share(part, [other for other in change if other is not part], design) for part in change]


def whole(change: Sequence[Difference], design: Plan | Sequence[Levels]) -> dict[str, float]:
    """Return the weights of the gain of a whole change; arguments and errors as in `shares`."""
    return combine([(1.0, share) for share in shares(change, design)])


def check(plan: Plan) -> None:
    """Check that every contrast which a plan names fits its factors.

    Raises:
        SpecError: one does not; the message names what came and what is legal.
    """
    for contrast in plan.family:
        weights(contrast, plan)
    for hypothesis in plan.hypotheses:
        for part in hypothesis.parts:
            combinations(part, plan)
    shares(plan.change, plan)


def identity(contrast: Contrast, design: Plan | Sequence[Levels]) -> frozenset[tuple[str, float]]:
    """Return what two contrasts share when one is the other, or the other with its sign changed."""
    weight = weights(contrast, design)
    sign = weight[min(weight)]
    return frozenset((cell, round(value / sign, 9)) for cell, value in weight.items())


def listed(plan: Plan) -> tuple[Contrast, ...]:
    """Return every contrast that the attribution shows, each once, turned as the family states it.

    Main effects of each level against the baseline and the family's differences; their simple effects at every
    combination of the other factors; the interactions of their levels with those of the other factors; the family.
    """
    stated: dict[frozenset[tuple[str, float]], Contrast] = {}
    for contrast in plan.family:
        stated.setdefault(identity(contrast, plan), contrast)
    main = [_turned(each, stated, plan) for each in _against_baseline(plan.factors)]
    differences = [*main, *(each for each in plan.family if isinstance(each, Difference))]
    found: dict[frozenset[tuple[str, float]], Contrast] = {}
    free = [each for each in differences if not each.at]
    simple, interactions = _simple(differences, plan.factors), _interactions(differences, main)
    for each in (*free, *simple, *interactions, *plan.family):
        key = identity(each, plan)
        found.setdefault(key, stated.get(key, each))
    return tuple(sorted(found.values(), key=lambda each: ("main", "simple", "interaction").index(contrast_kind(each))))


def main_effects_and_interactions(factors: Sequence[Levels]) -> tuple[Contrast, ...]:
    """Return each level against its factor's baseline, and all pairwise interactions of these."""
    main = _against_baseline(factors)
    order = [factor.name for factor in factors]
    pairs = _interactions(main, main)
    return (*main, *(each for each in pairs if order.index(each.first.factor) < order.index(each.second.factor)))


def _share(part: Difference, others: list[Difference], design: Plan | Sequence[Levels]) -> dict[str, float]:
    terms = []
    for size in range(len(others) + 1):
        coefficient = 1 / (len(others) + 1) / comb(len(others), size)
        for changed in itertools.combinations(others, size):
            at = tuple((other.factor, other.high if other in changed else other.low) for other in others)
            terms.append((coefficient, weights(Difference(part.factor, part.high, part.low, at=at), design)))
    return combine(terms)


def _turned(each: Difference, stated: Mapping[frozenset[tuple[str, float]], Contrast], plan: Plan) -> Difference:
    other = stated.get(identity(each, plan), each)
    return other if isinstance(other, Difference) else each


def _against_baseline(factors: Sequence[Levels]) -> list[Difference]:
    return [Difference(each.name, level, each.levels[0]) for each in factors for level in each.levels[1:]]


def _simple(differences: Iterable[Difference], factors: Sequence[Levels]) -> list[Difference]:
    simple = []
    for each in differences:
        held = dict(each.at)
        others = [factor for factor in factors if factor.name != each.factor]
        options = [[held[factor.name]] if factor.name in held else factor.levels for factor in others]
        for levels in itertools.product(*options):
            at = tuple((factor.name, level) for factor, level in zip(others, levels, strict=True))
            simple.append(Difference(each.factor, each.high, each.low, at=at))
    return simple


def _interactions(differences: Iterable[Difference], main: Iterable[Difference]) -> list[Interaction]:
    free = [Difference(each.factor, each.high, each.low) for each in differences]
    return [Interaction(each, other) for each, other in itertools.product(free, main) if each.factor != other.factor]


def _changes(contrast: Contrast) -> tuple[Difference, ...]:
    return (contrast,) if isinstance(contrast, Difference) else (contrast.first, contrast.second)


def _held(contrast: Contrast) -> tuple[tuple[str, str], ...]:
    return tuple(dict.fromkeys(pair for each in _changes(contrast) for pair in each.at))


def _check(contrast: Contrast, factors: Sequence[Levels]) -> None:
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
