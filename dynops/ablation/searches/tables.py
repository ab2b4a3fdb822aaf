"""What the report of a search says: its setup, its front, what its factors explain, and what was lost."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from dynops.ablation.designs import Levels
from dynops.ablation.reporting.document import Block, Items
from dynops.ablation.reporting.setup_text import distinct
from dynops.ablation.reporting.tables import Table
from dynops.ablation.searches.importance import FEWEST_TRIALS
from dynops.ablation.searches.plan import Numbers, SearchPlan
from dynops.ablation.searches.progress import show_objective
from dynops.ablation.searches.trials import PointTrial, front_of, results, shown_levels
from dynops.records import RunRecord

EXPLORATORY = (
    "**Exploratory search, not an ablation.** Its trials were chosen by what came before, so they say nothing about "
    "effects, and what stands out among many is flattered by chance: run again, it will do worse. Confirm what you "
    "find here by a study with new seeds."
)
MOST_ROWS = 10
"""Rows of the table of the best trials."""


def setup(plan: SearchPlan, trials: Sequence[PointTrial]) -> Items:
    """Say what was searched, how, and by what."""
    records = [record for trial in trials for record in trial.records if record.accepted]
    statuses = Counter(trial.status for trial in trials)
    counted = ", ".join(f"{number} {status}" for status, number in sorted(statuses.items()))
    seeds = f"{len(plan.seeds)} {'seed' if len(plan.seeds) == 1 else 'seeds'} ({', '.join(map(str, plan.seeds))})"
    size = "infinitely many" if isinstance(plan.size, float) else f"{plan.size:,}"
    versions = distinct(records, lambda record: ", ".join(f"{name} {each}" for name, each in record.versions.items()))
    lines = [
        f"n = {len(trials)} trials of {plan.trials} planned ({counted}), of {size} points, each with {seeds}",
        f"Factors: {'; '.join(_factor(factor) for factor in plan.factors)}",
        f"Objectives: {', '.join(f'{each.direction} {each.metric}' for each in plan.objectives)}",
        f"Sampler: {plan.sampler} with seed {plan.sampler_seed}, {_startup(plan)}; "
        f"{'runs below the median of earlier trials are pruned' if plan.pruning else 'no run is pruned'}",
        *([f"Constraint: {plan.constraint}; other points were not sampled"] if plan.constraint else []),
        f"Data: {distinct(records, _data)}",
        f"Device: {distinct(records, lambda record: record.device)}",
        f"Versions: {versions}",
        f"Commit: {distinct(records, lambda record: record.commit)}",
        f"Wall time of all runs together: {sum(r.seconds for trial in trials for r in trial.records):.0f} s",
    ]
    return Items(lines=tuple(lines))


def front_table(plan: SearchPlan, trials: Sequence[PointTrial], *, whole_points: bool = False) -> Table:
    """List the trials that no other one beats, the cheapest first; on request the levels of a point in one column."""
    found = front_of(plan, trials)
    last = min(1, len(plan.objectives) - 1)
    note = (
        f"No other of the {len(results(trials))} results is as good in every objective and better in one. "
        f"{_means(plan)}"
    )
    title = "Front" if len(plan.objectives) > 1 else "Best"
    table = _trial_table(plan, sorted(found, key=lambda trial: (trial.values[last], trial.number)), title, note)
    return _with_whole_points(table, len(plan.factors)) if whole_points else table


def best_table(plan: SearchPlan, trials: Sequence[PointTrial]) -> Table:
    """List the trials with the best outcomes."""
    sign = -1 if plan.outcome.direction == "maximise" else 1
    found = sorted(results(trials), key=lambda trial: (sign * trial.values[0], trial.number))[:MOST_ROWS]
    note = f"The best of {len(results(trials))}, and therefore too good. {_means(plan)}"
    return _trial_table(plan, found, f"Best {plan.outcome.metric}", note)


def importance_table(plan: SearchPlan, shares: Mapping[str, Mapping[str, float]]) -> Table:
    """List what each factor explains of each objective."""
    rows = [
        (factor.name, *(f"{100 * found[factor.name]:.0f} %" for found in shares.values())) for factor in plan.factors
    ]
    note = (
        "Share of an objective's variance that a random forest on the trials gives to each factor alone (fANOVA): "
        "without interactions, no interval, not an ablation result. It depends on the levels that the plan has and on "
        "where the sampler looked."
    )
    return Table(
        title="Importance of the factors, exploratory",
        columns=("factor", *shares),
        sides="l" + "r" * len(shares),
        rows=tuple(rows) if shares else (),
        note=note if shares else f"Not shown: needs {FEWEST_TRIALS} results that are not all equal.",
    )


def ended(plan: SearchPlan, trials: Sequence[PointTrial]) -> tuple[Block, ...]:
    """List the trials that are no complete result, with their reasons."""
    lines = [
        f"{trial.status}: trial {trial.number}, {trial.cell.replace(',', ', ')}: {_reason(trial)}"
        for trial in trials
        if trial.status != "complete"
    ]
    if not lines:
        return ("None: every trial is complete.",)
    failed = any(trial.status == "failed" for trial in trials)
    return Items(lines=tuple(lines)), *(["The whole tracebacks are in `records.jsonl`."] if failed else [])


def _trial_table(plan: SearchPlan, trials: Sequence[PointTrial], title: str, note: str) -> Table:
    factors = [factor.name for factor in plan.factors]
    objectives = [objective.metric for objective in plan.objectives]
    rows = [
        (
            str(trial.number),
            *shown_levels(plan, trial.levels),
            *(show_objective(plan, place, trial) for place in range(len(objectives))),
        )
        for trial in trials
    ]
    return Table(
        title=f"{title}, exploratory",
        columns=("trial", *factors, *objectives),
        sides="r" + "l" * len(factors) + "r" * len(objectives),
        rows=tuple(rows),
        note=note,
    )


def _with_whole_points(table: Table, number: int) -> Table:
    """Join the columns of the factors, which follow the first one."""

    def joined(row: tuple[str, ...]) -> tuple[str, ...]:
        return row[0], ", ".join(row[1 : 1 + number]), *row[1 + number :]

    sides = table.sides[0] + "l" + table.sides[1 + number :]
    return replace(table, columns=joined(table.columns), sides=sides, rows=tuple(joined(row) for row in table.rows))


def _means(plan: SearchPlan) -> str:
    points = [objective.metric for objective in plan.objectives if objective.unit == "points"]
    units = f" Points are hundredths of {' and '.join(points)}." if points else ""
    n = len(plan.seeds)
    return f"n = {n} {'seed' if n == 1 else 'seeds'} a trial{', means over them' if n > 1 else ''}.{units}"


def _factor(factor: Levels | Numbers) -> str:
    if isinstance(factor, Levels):
        return f"{factor.name} ({', '.join(factor.levels)})"
    kind = "integers" if factor.whole else "numbers"
    return f"{factor.name} ({kind} from {factor.low:g} to {factor.high:g}{', logarithmic' if factor.log else ''})"


def _startup(plan: SearchPlan) -> str:
    return {
        "tpe": f"after {plan.startup} random points",
        "nsga2": f"in generations of {plan.startup}",
        "random": "which never learns",
    }[plan.sampler]


def _data(record: RunRecord) -> str:
    data = record.spec.get("data", {})
    return ", ".join([str(data.get("type", "")), *(f"{key} {data[key]}" for key in data if key != "type")]).strip()


def _reason(trial: PointTrial) -> str:
    for record in trial.records:
        lines = [line.strip() for line in record.reason.splitlines() if line.strip()]
        if record.status != "complete" and lines:
            return f"`{lines[-1].replace('`', chr(39))}`"
    return "a seed was not run yet" if trial.status == "unfinished" else "no reason recorded"
