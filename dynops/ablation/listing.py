"""Which contrasts an attribution shows, each once, and which of them a design cannot tell apart."""

import itertools
from collections.abc import Iterable, Mapping, Sequence

from dynops.ablation.claims import Contrast, Difference, Interaction, Slope
from dynops.ablation.contrasts import (
    combinations,
    contrast_kind,
    contrast_name,
    identity,
    is_estimable,
    signed_cells,
    weights,
)
from dynops.ablation.designs import Levels
from dynops.ablation.plan import Plan
from dynops.ablation.shapley import shares
from dynops.records import cell_name

KINDS = ("main", "simple", "interaction", "slope")


def listed(plan: Plan) -> tuple[Contrast, ...]:
    """Return every contrast that the attribution shows, each once, turned as the family states it.

    Main effects of each level against the baseline and the family's differences; their simple effects at every
    combination of the other factors; the interactions of their levels with those of the other factors; the family.
    Those that the design's cells do not tell are left out.
    """
    stated: dict[frozenset[tuple[str, float]], Contrast] = {}
    for contrast in plan.family:
        stated.setdefault(identity(contrast, plan), contrast)
    main = [_turned(each, stated, plan) for each in _against_baseline(plan.factors)]
    studied = [each for each in main if each.factor not in plan.regimes]
    differences = [*studied, *(each for each in plan.family if isinstance(each, Difference))]
    found: dict[frozenset[tuple[str, float]], Contrast] = {}
    free = [each for each in differences if not each.at]
    simple, interactions = _simple(differences, plan.factors), _interactions(differences, main)
    for each in (*free, *simple, *interactions, *plan.family):
        if is_estimable(each, plan):
            key = identity(each, plan)
            found.setdefault(key, stated.get(key, each))
    return tuple(sorted(found.values(), key=lambda each: KINDS.index(contrast_kind(each))))


def check(plan: Plan) -> None:
    """Check that every contrast which a plan names fits its factors and its design.

    Raises:
        SpecError: one does not; the message names what came and what is legal.
    """
    for contrast in plan.family:
        weights(contrast, plan)
    for hypothesis in plan.hypotheses:
        for part in hypothesis.parts:
            combinations(part, plan)
    shares(plan.change, plan)


def aliases(plan: Plan) -> dict[frozenset[tuple[str, float]], tuple[str, ...]]:
    """Return the names of main effects and interactions that a fraction of a factorial cannot tell apart, by identity.

    What is estimated under one of the names is the sum of all that bear them; in a full factorial there are none.
    """
    names: dict[frozenset[tuple[str, float]], list[str]] = {}
    for each in main_effects_and_interactions(plan.factors):
        assert not isinstance(each, Slope), "effects of factors alone"
        signed = {cell_name(cell): sign for cell, sign in signed_cells(each, plan)}
        if sum(signed.values()) == 0 and signed:
            size = signed[min(signed)]
            key = frozenset((cell, float(sign / size)) for cell, sign in signed.items())
            names.setdefault(key, []).append(contrast_name(each))
    return {key: tuple(each) for key, each in names.items() if len(each) > 1}


def main_effects_and_interactions(factors: Sequence[Levels]) -> tuple[Contrast, ...]:
    """Return each level against its factor's baseline, and all pairwise interactions of these."""
    main = _against_baseline(factors)
    order = [factor.name for factor in factors]
    pairs = _interactions(main, main)
    return (*main, *(each for each in pairs if order.index(each.first.factor) < order.index(each.second.factor)))


def _turned(each: Difference, stated: Mapping[frozenset[tuple[str, float]], Contrast], plan: Plan) -> Difference:
    other = stated.get(identity(each, plan)) if is_estimable(each, plan) else None
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
