"""Which records of a study count, and how their outcome is shown in its unit."""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache

from dynops.ablation.plan import Plan
from dynops.records import RunRecord, cell_name

SCALES = {"points": 100.0, "raw": 1.0}
"""What an outcome is multiplied by to be shown in a unit."""
MOST_RUNS = 1000
"""Runs beyond which only the first seeds have a run of their own in TensorBoard, which takes minutes to open more."""


def counted(records: Iterable[RunRecord], plan: Plan) -> list[RunRecord]:
    """Return one record for each design point of the plan that has any: its first result, else its first failure.

    Args:
        records: in the order in which they were accepted; those outside the plan are passed over.
        plan: gives the order, seed by seed and cell by cell.
    """
    chosen: dict[tuple[tuple[str, ...], int], RunRecord] = {}
    for record in records:
        if set(record.levels) == {factor.name for factor in plan.factors}:
            point = (tuple(record.levels[factor.name] for factor in plan.factors), record.seed)
            if point not in chosen or (record.accepted and not chosen[point].accepted):
                chosen[point] = record
    points = [(tuple(levels.values()), seed) for seed in plan.seeds for levels in plan.cell_levels()]
    return [chosen[point] for point in points if point in chosen]


@cache
def shown_seeds(plan: Plan) -> frozenset[int]:
    """Return the seeds whose runs TensorBoard shows: all, or the first ones where all would be too many."""
    return frozenset(plan.seeds[: max(1, MOST_RUNS // len(plan.cell_levels()))])


def show(value: float | None, unit: str, *, signed: bool = False) -> str:
    """Write an outcome in its unit: hundredths with two digits for `points`, four digits for `raw`.

    >>> show(0.0123, "points", signed=True)
    '+1.23'
    """
    if value is None:
        return "-"
    sign = "+" if signed else ""
    return format(value * SCALES[unit], f"{sign}.2f" if unit == "points" else f"{sign}.4g")


def show_interval(interval: tuple[float, float] | None, unit: str, *, signed: bool = False) -> str:
    """Write an interval in its unit; a missing one is a dash."""
    if interval is None:
        return "-"
    return f"[{show(interval[0], unit, signed=signed)}, {show(interval[1], unit, signed=signed)}]"


def span(numbers: Iterable[int]) -> str:
    """Write a range of counts.

    >>> span([8, 6, 8])
    '6 to 8'
    """
    low, high = min(known := list(numbers)), max(known)
    return str(low) if low == high else f"{low} to {high}"


def cell_of(record: RunRecord, plan: Plan) -> str:
    """Name a record's cell with its factors in the order of the plan."""
    return cell_name({factor.name: record.levels[factor.name] for factor in plan.factors})


def comparable(plan: Plan, names: Sequence[str]) -> bool:
    """Whether cells that differ in the named factors alone can be averaged over all others, and then compared.

    They can where each combination of these factors' levels meets all other factors' levels in equal numbers.
    """
    others = [factor.name for factor in plan.factors if factor.name not in names]
    met: dict[tuple[str, ...], Counter[tuple[str, str]]] = {}
    for levels in plan.cell_levels():
        count = met.setdefault(tuple(levels[name] for name in names), Counter())
        count.update((name, levels[name]) for name in others)
    first = next(iter(met.values()))
    return all(count == first for count in met.values())
