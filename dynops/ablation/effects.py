"""Effects of a study's factors, and verdicts on its hypotheses, from its records alone."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from statistics import median
from typing import Any, Literal

from dynops.ablation.claims import Hypothesis
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
from dynops.ablation.designs import Levels
from dynops.ablation.listing import listed, main_effects_and_interactions
from dynops.ablation.plan import Plan
from dynops.ablation.power import hypothesis_seeds, seeds_for
from dynops.ablation.shapley import shares, whole
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
from dynops.errors import RecordError
from dynops.records import RunRecord, cell_name
from dynops.specs import Spec

Points = dict[str, dict[int, RunRecord]]


@dataclass(frozen=True, kw_only=True)
class CellSummary:
    """One cell over its seeds."""

    name: str
    """The levels, as in `cell_name`."""
    levels: Mapping[str, str]
    """The level of each factor."""
    n: int
    """Number of results."""
    mean: float | None
    """Mean outcome, in units of the outcome; None without a result."""
    interval: tuple[float, float] | None
    """95 % t interval of the mean over seeds; None below three results."""
    diverged: int
    """How many of the results diverged (they count as a trivial predictor)."""
    failed: int
    """How many design points have a failure and no result."""
    parameters: int
    """Trainable parameters."""
    macs: int
    """Multiply-accumulates of one forward pass over one input."""
    step_milliseconds: float
    """Median over the seeds of the time of a training step."""


@dataclass(frozen=True, kw_only=True)
class Effects:
    """All that the records of a study say."""

    outcome: str
    """The metric that is compared; every number below is in its units, whether or not higher is better."""
    unit: str
    """`points` or `raw`, as in the plan: how a report shows the numbers."""
    level: float
    """Error level."""
    margin: float
    """Half-width of the region of equivalence; 0 without one."""
    cells: tuple[CellSummary, ...]
    effects: tuple[Effect, ...]
    attribution: tuple[Effect, ...]
    """The gain of the plan's whole change, then the share of each part; empty where the plan states none."""
    verdicts: tuple[Verdict, ...]

    def to_plain(self) -> dict[str, Any]:
        """Return everything as plain data, contrasts as specs."""
        return {each.name: _plain(getattr(self, each.name)) for each in fields(self)}


def effects(records: Iterable[RunRecord], plan: Plan | None = None) -> Effects:
    """Estimate every effect of a factorial from its records, and judge the hypotheses of its plan.

    Each effect is a t interval over its values in the seeds; a diverged run is a result like any other.

    Args:
        records: of one study, in any order; of several results of one design point the first counts, and a failure
            counts where there is no result.
        plan: what was decided before the first run. Without it, factors and levels are those of the records in order
            of appearance (the first level is the baseline; a factor of one level is left out), the outcome is
            `accuracy`, and all main effects and pairwise interactions are confirmatory.
    Returns:
        Cells, effects and verdicts.
    Raises:
        RecordError: a record does not fit the plan or lacks the outcome, or no factor has two levels.
        SpecError: the plan names a contrast that does not fit its factors.
    """
    records = tuple(records)
    if plan is None:
        plan, records = _inferred(records)
    results, failures = _points(records, plan)
    outcomes = {cell: {seed: run.metrics[plan.outcome] for seed, run in runs.items()} for cell, runs in results.items()}
    seeds = sorted({record.seed for record in records})
    return Effects(
        outcome=plan.outcome,
        unit=plan.unit,
        level=plan.level,
        margin=plan.margin,
        cells=tuple(_summary(levels, results, failures, outcomes) for levels in plan.cell_levels()),
        effects=tuple(_attributed(plan, outcomes, seeds)),
        attribution=tuple(_shared_out(plan, outcomes, seeds)),
        verdicts=tuple(_settled(plan, outcomes, seeds)),
    )


def _inferred(records: Sequence[RunRecord]) -> tuple[Plan, tuple[RunRecord, ...]]:
    """Return the plan that records imply, and the records without the factors that do not vary."""
    found: dict[str, dict[str, None]] = {}
    for record in records:
        if set(record.levels) != set(records[0].levels):
            raise RecordError(
                f"{_label(record)} has factors {_listed(record.levels)}, the first record has factors "
                f"{_listed(records[0].levels)}: must be the same in all records."
            )
        for factor, level in record.levels.items():
            found.setdefault(factor, {})[level] = None
    factors = tuple(Levels(name, tuple(levels)) for name, levels in found.items() if len(levels) > 1)
    if not factors:
        raise RecordError(f"records has {len(records)} entries: must hold a factor with two or more levels.")
    plan = Plan(
        name="records",
        question="Which factors matter?",
        factors=factors,
        seeds=tuple(sorted({record.seed for record in records})),
        family=main_effects_and_interactions(factors),
    )
    names = [factor.name for factor in factors]
    return plan, tuple(replace(each, levels={name: each.levels[name] for name in names}) for each in records)


def _points(records: Sequence[RunRecord], plan: Plan) -> tuple[Points, Points]:
    """Return the first result of each design point, and the first failure of each one without a result."""
    results: Points = {cell: {} for cell in plan.cell_names()}
    failures: Points = {cell: {} for cell in plan.cell_names()}
    for record in records:
        _check(record, plan)
        cell = cell_name({factor.name: record.levels[factor.name] for factor in plan.factors})
        (results if record.accepted else failures)[cell].setdefault(record.seed, record)
    for cell, runs in failures.items():
        failures[cell] = {seed: record for seed, record in runs.items() if seed not in results[cell]}
    return results, failures


def _check(record: RunRecord, plan: Plan) -> None:
    known = {factor.name: factor.levels for factor in plan.factors}
    if set(record.levels) != set(known) or any(record.levels[name] not in levels for name, levels in known.items()):
        legal = "; ".join(f"{name}: {_listed(levels)}" for name, levels in known.items())
        raise RecordError(f"{_label(record)} has levels that the plan lacks: must have one of each factor. {legal}.")
    if record.seed not in plan.seeds:
        raise RecordError(f"{_label(record)} has a seed that the plan lacks: must be one of {_listed(plan.seeds)}.")
    if record.accepted and plan.outcome not in record.metrics:
        raise RecordError(
            f"{_label(record)} has metrics {_listed(record.metrics)}: must hold the outcome {plan.outcome}."
        )


def _summary(levels: Mapping[str, str], results: Points, failures: Points, outcomes: Outcomes) -> CellSummary:
    name = cell_name(levels)
    runs = [results[name][seed] for seed in sorted(results[name])]
    mean, interval = _estimate(sample({name: 1.0}, outcomes, sorted(outcomes[name])), 0.05)
    return CellSummary(
        name=name,
        levels=levels,
        n=len(runs),
        mean=mean,
        interval=interval,
        diverged=sum(run.status == "diverged" for run in runs),
        failed=len(failures[name]),
        parameters=runs[0].parameters if runs else 0,
        macs=runs[0].macs if runs else 0,
        step_milliseconds=median(run.step_milliseconds for run in runs) if runs else 0.0,
    )


def _attributed(plan: Plan, outcomes: Outcomes, seeds: Sequence[int]) -> list[Effect]:
    family = {identity(contrast, plan) for contrast in plan.family}
    rows = []
    for contrast in listed(plan):
        values = sample(weights(contrast, plan), outcomes, seeds)
        row = _measured(contrast_name(contrast), contrast_kind(contrast), values, plan.level, plan.margin)
        rows.append(replace(row, contrast=contrast, in_family=identity(contrast, plan) in family))
    inside = [index for index, row in enumerate(rows) if row.in_family]
    p_holm, p_equivalence = holm([rows[i].p for i in inside]), holm([rows[i].p_equivalence for i in inside])
    for index, p, equivalence in zip(inside, p_holm, p_equivalence, strict=True):
        rows[index] = replace(rows[index], p_holm=p, p_equivalence=equivalence)
    return [_judged(row, plan.level, len(inside) if row.in_family else 1) for row in rows]


def _shared_out(plan: Plan, outcomes: Outcomes, seeds: Sequence[int]) -> Iterator[Effect]:
    if not plan.change:
        return
    named = {"whole change": whole(plan.change, plan)}
    named |= zip(map(contrast_name, plan.change), shares(plan.change, plan), strict=True)
    for name, weight in named.items():
        row = _measured(name, "share", sample(weight, outcomes, seeds), plan.level, plan.margin)
        yield _judged(row, plan.level, 1)


def _measured(name: str, kind: Kind, values: Sample, level: float, margin: float) -> Effect:
    """Return an effect before multiplicity and verdict."""
    mean, interval = _estimate(values, level)
    enough = interval is not None
    return Effect(
        name=name,
        kind=kind,
        contrast=None,
        in_family=False,
        by_seed=values.by_seed,
        dropped=values.dropped,
        estimate=mean,
        interval=interval,
        p=float(p_different(values.values)) if enough else None,
        p_holm=None,
        p_equivalence=float(p_equivalent(values.values, margin)) if enough and margin > 0 else None,
        verdict="undecided",
        seeds_needed=None,
    )


def _estimate(values: Sample, level: float) -> tuple[float | None, Interval | None]:
    return mean_interval(values.values, level) if values.by_seed else (None, None)


def _judged(row: Effect, level: float, family: int) -> Effect:
    """Return an effect with its verdict, and with the seeds that it needs if it has none; it is one of `family`."""
    p = row.p_holm if row.in_family else row.p
    if p is not None and p < level:
        return replace(row, verdict="differs")
    if row.p_equivalence is not None and row.p_equivalence < level:
        return replace(row, verdict="equivalent")
    return replace(row, seeds_needed=seeds_for(row.values, level / family, "two-sided"))


def _settled(plan: Plan, outcomes: Outcomes, seeds: Sequence[int]) -> list[Verdict]:
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
            rows.append(_judged(_measured(each.name, "claim", values, plan.level, 0.0), plan.level, 1))
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


def _label(record: RunRecord) -> str:
    return f"record {record.cell or 'without levels'}, seed {record.seed},"


def _listed(values: Iterable[object]) -> str:
    return ", ".join(str(each) for each in values) or "none"


def _plain(value: Any) -> Any:
    if isinstance(value, Spec):
        return value.to_plain()
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value
