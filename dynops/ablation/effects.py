"""Effects of a study's factors, and verdicts on its hypotheses, from its records alone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from statistics import median
from typing import Any

from dynops.ablation.contrasts import Outcomes, sample
from dynops.ablation.designs import Levels
from dynops.ablation.judging import attributed, estimate, settled, shared_out
from dynops.ablation.listing import main_effects_and_interactions
from dynops.ablation.overview import (
    Profile,
    Standing,
    VarianceShare,
    profiles,
    ranks_p,
    standings,
    variance,
    whole_seeds,
)
from dynops.ablation.plan import Plan
from dynops.ablation.verdicts import Effect, Verdict
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
    profiles: tuple[Profile, ...]
    """Each effect of the family in each regime, and over them; empty where the plan names none."""
    standings: tuple[Standing, ...]
    """How each cell stands to the others, in the order of `cells`; empty without a seed in which all have results."""
    ranks_p: float | None
    """p-value of Friedman's test that the cells' ranks do not differ; None below three cells or two seeds."""
    variance: tuple[VarianceShare, ...]
    """What each set of factors explains of the cells' means, the largest first; of a whole factorial alone."""

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
    table = whole_seeds(plan, outcomes, seeds)
    costs = [(run.parameters, run.macs) for runs in results.values() for run in list(runs.values())[:1]]
    return Effects(
        outcome=plan.outcome,
        unit=plan.unit,
        level=plan.level,
        margin=plan.margin,
        cells=tuple(_summary(levels, results, failures, outcomes) for levels in plan.cell_levels()),
        effects=tuple(attributed(plan, outcomes, seeds)),
        attribution=tuple(shared_out(plan, outcomes, seeds)),
        verdicts=tuple(settled(plan, outcomes, seeds)),
        profiles=tuple(profiles(plan, outcomes, seeds)),
        standings=standings(plan, table, costs),
        ranks_p=ranks_p(plan, table),
        variance=variance(plan, table),
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
    seeds = frozenset(plan.seeds)
    for record in records:
        _check(record, plan, seeds)
        cell = cell_name({factor.name: record.levels[factor.name] for factor in plan.factors})
        (results if record.accepted else failures)[cell].setdefault(record.seed, record)
    for cell, runs in failures.items():
        failures[cell] = {seed: record for seed, record in runs.items() if seed not in results[cell]}
    return results, failures


def _check(record: RunRecord, plan: Plan, seeds: frozenset[int]) -> None:
    known = {factor.name: factor.levels for factor in plan.factors}
    if set(record.levels) != set(known) or any(record.levels[name] not in levels for name, levels in known.items()):
        legal = "; ".join(f"{name}: {_listed(levels)}" for name, levels in known.items())
        raise RecordError(f"{_label(record)} has levels that the plan lacks: must have one of each factor. {legal}.")
    if record.seed not in seeds:
        raise RecordError(f"{_label(record)} has a seed that the plan lacks: must be one of {_listed(plan.seeds)}.")
    if record.accepted and plan.outcome not in record.metrics:
        raise RecordError(
            f"{_label(record)} has metrics {_listed(record.metrics)}: must hold the outcome {plan.outcome}."
        )


def _summary(levels: Mapping[str, str], results: Points, failures: Points, outcomes: Outcomes) -> CellSummary:
    name = cell_name(levels)
    runs = [results[name][seed] for seed in sorted(results[name])]
    mean, interval = estimate(sample({name: 1.0}, outcomes, sorted(outcomes[name])), 0.05)
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
