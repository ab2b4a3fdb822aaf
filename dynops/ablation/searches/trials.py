"""The trials of a search: what its records say about each point that was tried, and which points are on the front."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import numpy as np

from dynops.ablation.searches.plan import Numbers, SearchPlan
from dynops.ablation.statistics.pareto import undominated
from dynops.records import RunRecord, cell_name


@dataclass(frozen=True, kw_only=True)
class PointTrial:
    """One point of a search with its runs."""

    number: int
    """From 1, in the order in which the trials ended."""
    levels: Mapping[str, str]
    """The level of each factor, in the order of the plan."""
    records: tuple[RunRecord, ...]
    """One a seed, as far as they were run."""
    status: Literal["complete", "diverged", "pruned", "failed", "unfinished"]
    """`complete` and `diverged` are results; `unfinished`: a seed was not run yet."""
    values: tuple[float, ...]
    """Each objective, the mean over seeds; empty without a result."""

    @property
    def cell(self) -> str:
        """Name of the point."""
        return cell_name(self.levels)

    @property
    def settled(self) -> bool:
        """Whether nothing of it is left to run."""
        return self.status in ("complete", "diverged", "pruned")


def trials_of(plan: SearchPlan, records: Iterable[RunRecord]) -> list[PointTrial]:
    """Gather records into trials, in the order in which these ended.

    Of several records of one point and seed, the first that settles it counts, else the last failure.

    Args:
        plan: gives factors, seeds and objectives; records outside of it are passed over.
        records: in the order in which they were written.
    """
    names = [factor.name for factor in plan.factors]
    found: dict[tuple[str, ...], dict[int, tuple[int, RunRecord]]] = {}
    for place, record in enumerate(records):
        if set(record.levels) == set(names) and record.seed in plan.seeds:
            seeds = found.setdefault(tuple(record.levels[name] for name in names), {})
            if record.seed not in seeds or seeds[record.seed][1].status == "failed":
                seeds[record.seed] = place, record
    ended = sorted(found.items(), key=lambda item: max(place for place, _ in item[1].values()))
    return [
        _trial(plan, number, dict(zip(names, levels, strict=True)), [seeds[seed][1] for seed in sorted(seeds)])
        for number, (levels, seeds) in enumerate(ended, start=1)
    ]


def _trial(plan: SearchPlan, number: int, levels: dict[str, str], records: Sequence[RunRecord]) -> PointTrial:
    statuses = {record.status for record in records}
    status: Literal["complete", "diverged", "pruned", "failed", "unfinished"] = "complete"
    if "failed" in statuses:
        status = "failed"
    elif "pruned" in statuses:
        status = "pruned"
    elif len(records) < len(plan.seeds):
        status = "unfinished"
    elif "diverged" in statuses:
        status = "diverged"
    result = status in ("complete", "diverged")
    values = tuple(fmean(objective.of(record) for record in records) for objective in plan.objectives if result)
    return PointTrial(number=number, levels=levels, records=tuple(records), status=status, values=values)


def results(trials: Iterable[PointTrial]) -> list[PointTrial]:
    """Return the trials that have a result."""
    return [trial for trial in trials if trial.values]


def front_of(
    plan: SearchPlan, trials: Sequence[PointTrial], objectives: Sequence[int] | None = None
) -> list[PointTrial]:
    """Return the trials with a result that no other one dominates: as good in every objective and better in one.

    Args:
        plan: gives the objectives and their directions.
        trials: any trials of the search.
        objectives: places of those that count; all by default.
    """
    found = results(trials)
    chosen = list(range(len(plan.objectives)) if objectives is None else objectives)
    signs = [1 if plan.objectives[place].direction == "maximise" else -1 for place in chosen]
    gains = np.array([[trial.values[place] for place in chosen] for trial in found]).reshape(-1, len(chosen)) * signs
    kept = undominated(-gains[:, 1:], gains[:, 0])
    return [trial for trial, keep in zip(found, kept, strict=True) if keep]


def shown_levels(plan: SearchPlan, levels: Mapping[str, str]) -> list[str]:
    """Write the levels of a point for a reader, in the order of the plan: numbers with three digits."""
    return [
        f"{factor.number(levels[factor.name]):.3g}"
        if isinstance(factor, Numbers) and not factor.whole
        else levels[factor.name]
        for factor in plan.factors
    ]
