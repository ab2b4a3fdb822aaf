"""Effects and verdicts: contrasts of a plan, measured in each seed and judged."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

from dynops.ablation.claims import Hypothesis, Slope
from dynops.ablation.contrasts import (
    Outcomes,
    Sample,
    combinations,
    contrast_kind,
    contrast_name,
    identity,
    sample,
    weights,
)
from dynops.ablation.listing import aliases, listed
from dynops.ablation.plan import Plan
from dynops.ablation.shapley import shares, whole
from dynops.ablation.statistics.bootstrap import studentised_interval
from dynops.ablation.statistics.power import hypothesis_seeds, seeds_for
from dynops.ablation.verdicts import (
    Effect,
    Interval,
    Kind,
    Verdict,
    holm,
    mean_interval,
    p_different,
    p_equivalent,
    p_hypothesis,
    p_part,
)


def attributed(plan: Plan, outcomes: Outcomes, seeds: Sequence[int]) -> list[Effect]:
    """Return every effect that the plan's cells tell, those of the family adjusted for their number."""
    other_names = aliases(plan)
    family = {identity(contrast, plan) for contrast in plan.family}
    rows = []
    for contrast in listed(plan):
        values = sample(weights(contrast, plan), outcomes, seeds)
        name, key = contrast_name(contrast), identity(contrast, plan)
        margin = 0.0 if isinstance(contrast, Slope) else plan.margin  # which is one of outcomes, not of their slopes
        row = measured(name, contrast_kind(contrast), values, plan.level, margin)
        others = tuple(other for other in other_names.get(key, ()) if other != name)
        rows.append(replace(row, contrast=contrast, in_family=key in family, aliases=others))
    inside = [index for index, row in enumerate(rows) if row.in_family]
    p_holm, p_equivalence = holm([rows[i].p for i in inside]), holm([rows[i].p_equivalence for i in inside])
    for index, p, equivalence in zip(inside, p_holm, p_equivalence, strict=True):
        rows[index] = replace(rows[index], p_holm=p, p_equivalence=equivalence)
    return [judged(row, plan.level, len(inside) if row.in_family else 1) for row in rows]


def shared_out(plan: Plan, outcomes: Outcomes, seeds: Sequence[int]) -> Iterator[Effect]:
    """Yield the gain of the plan's whole change, and the share of each part in it."""
    if not plan.change:
        return
    named = {"whole change": whole(plan.change, plan)}
    named |= zip(map(contrast_name, plan.change), shares(plan.change, plan), strict=True)
    for name, weight in named.items():
        row = measured(name, "share", sample(weight, outcomes, seeds), plan.level, plan.margin)
        yield judged(row, plan.level, 1)


def measured(name: str, kind: Kind, values: Sample, level: float, margin: float) -> Effect:
    """Return an effect before multiplicity and verdict."""
    mean, interval = estimate(values, level)
    enough = interval is not None
    return Effect(
        name=name,
        kind=kind,
        contrast=None,
        in_family=False,
        by_seed=values.by_seed,
        dropped=values.dropped,
        aliases=(),
        estimate=mean,
        interval=interval,
        robust=studentised_interval(values.values, level, seed=0) if values.by_seed else None,
        p=float(p_different(values.values)) if enough else None,
        p_holm=None,
        p_equivalence=float(p_equivalent(values.values, margin)) if enough and margin > 0 else None,
        verdict="undecided",
        seeds_needed=None,
    )


def estimate(values: Sample, level: float) -> tuple[float | None, Interval | None]:
    """Return the mean over seeds and its t interval; None for what there are too few seeds."""
    return mean_interval(values.values, level) if values.by_seed else (None, None)


def judged(row: Effect, level: float, family: int) -> Effect:
    """Return an effect with its verdict, and with the seeds that it needs if it has none; it is one of `family`."""
    p = row.p_holm if row.in_family else row.p
    if p is not None and p < level:
        return replace(row, verdict="differs")
    if row.p_equivalence is not None and row.p_equivalence < level:
        return replace(row, verdict="equivalent")
    return replace(row, seeds_needed=seeds_for(row.values, level / family, "two-sided"))


def settled(plan: Plan, outcomes: Outcomes, seeds: Sequence[int]) -> list[Verdict]:
    """Return the verdict on each hypothesis of the plan, adjusted for their number."""
    claims = [_claims(hypothesis, plan, outcomes, seeds) for hypothesis in plan.hypotheses]
    raw = [
        p_hypothesis([p_part(part, [row.values for row in rows]) for part, rows in zip(each.parts, claim, strict=True)])
        for each, claim in zip(plan.hypotheses, claims, strict=True)
    ]
    supported, refuted = holm([p for p, _ in raw]), holm([p for _, p in raw])
    return [_verdict(*each, plan) for each in zip(plan.hypotheses, claims, supported, refuted, strict=True)]


def _claims(hypothesis: Hypothesis, plan: Plan, outcomes: Outcomes, seeds: Sequence[int]) -> list[list[Effect]]:
    """Return, for each part of a hypothesis, the combinations that it tests."""
    claims = []
    for part in hypothesis.parts:
        rows = []
        for each in combinations(part, plan):
            values = sample(each.weights, outcomes, seeds, margin=each.margin)
            rows.append(judged(measured(each.name, "claim", values, plan.level, 0.0), plan.level, 1))
        claims.append(rows)
    return claims


def _verdict(
    hypothesis: Hypothesis, claims: list[list[Effect]], supported: float | None, refuted: float | None, plan: Plan
) -> Verdict:
    verdict: Literal["supported", "refuted", "undecided"] = "undecided"
    if supported is not None and supported < plan.level:
        verdict = "supported"
    elif refuted is not None and refuted < plan.level:
        verdict = "refuted"
    needed = hypothesis_seeds([[row.values for row in rows] for rows in claims], plan.level / len(plan.hypotheses))
    return Verdict(
        name=hypothesis.name,
        claim=hypothesis.claim,
        verdict=verdict,
        p_supported=supported,
        p_refuted=refuted,
        parts=tuple(row for rows in claims for row in rows),
        seeds_needed=needed if verdict == "undecided" else None,
    )
