"""What a report says of a study's making: its setup, its costs, and what was lost."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from math import prod

from dynops.ablation.designs import FullFactorial
from dynops.ablation.effects import Effects
from dynops.ablation.plan import Plan
from dynops.ablation.reporting.document import Items
from dynops.ablation.reporting.results import cell_of, counted, show
from dynops.ablation.reporting.sentences import registered
from dynops.ablation.reporting.tables import unit_name
from dynops.ablation.reporting.tuning_text import tuning_sentence
from dynops.records import RunRecord

MOST_LINES = 100
"""Losses that are told one by one; also the seeds that one line names."""
BUDGETS = {
    "as_is": "cells are compared as they are, each at its own cost",
    "parameters": "each cell has the width at which it has as many parameters as the base",
    "macs": "each cell has the width at which it takes as many multiply-accumulates as the base",
    "latency": "each cell has the width at which a training step takes as long as the base's",
}


def counts(plan: Plan, records: Sequence[RunRecord]) -> tuple[int, int, int]:
    """Return the number of seeds in which all cells have results, of results, and of planned runs."""
    results = [record for record in counted(records, plan) if record.accepted]
    cells = len(plan.cell_names())
    whole = sum(number == cells for number in Counter(record.seed for record in results).values())
    return whole, len(results), cells * len(plan.seeds)


def setup(plan: Plan, records: Sequence[RunRecord], effects: Effects) -> list[str]:
    """Say what was compared, how, on what and with which code."""
    whole, results, planned = counts(plan, records)
    factors = "; ".join(f"{factor.name} ({', '.join(factor.levels)})" for factor in plan.factors)
    direction = "higher" if plan.higher_is_better else "lower"
    margin = f"; equivalence margin ± {show(plan.margin, plan.unit)}" if plan.margin else "; no equivalence margin"
    versions = distinct(records, lambda record: ", ".join(f"{name} {each}" for name, each in record.versions.items()))
    return [
        f"n = {whole} complete seeds of {len(plan.seeds)} planned, {results} results of {planned} planned runs",
        f"Factors, baseline first: {factors}",
        *_design(plan),
        f"Outcome: {plan.outcome}, {direction} is better, in {unit_name(effects)}{margin}; error level {plan.level:g}",
        f"Budget rule `{plan.budget}`: {BUDGETS[plan.budget]}",
        *tuning_sentence(plan),
        registered(plan),
        f"Device: {distinct(records, lambda record: record.device)}",
        f"Versions: {versions}",
        f"Commit: {distinct(records, lambda record: record.commit)}",
        f"Wall time of all runs together: {_duration(sum(record.seconds for record in records))}",
    ]


def _design(plan: Plan) -> list[str]:
    lines = []
    if plan.regimes:
        lines.append(f"Regimes, under which the other factors are studied: {', '.join(plan.regimes)}")
    if not isinstance(plan.design, FullFactorial):
        combinations = prod(len(factor.levels) for factor in plan.factors)
        lines.append(f"Design: `{plan.design!r}`, {len(plan.cell_levels())} of {combinations} combinations of levels")
    return lines


def distinct(records: Sequence[RunRecord], read: Callable[[RunRecord], str]) -> str:
    """Say what records have, and how many have what where they differ."""
    found: dict[str, int] = {}
    for record in records:
        found[read(record)] = found.get(read(record), 0) + 1
    if len(found) == 1:
        return next(iter(found)) or "not recorded"
    return "; ".join(
        f"{each or 'not recorded'} ({number} of {len(records)} records)" for each, number in sorted(found.items())
    )


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def cost_statement(effects: Effects) -> str:
    """Say whether cells are compared at equal cost."""
    cells = [cell for cell in effects.cells if cell.n]
    parts, equal = [], True
    for name, costs in (
        ("parameters", {cell.name: cell.parameters for cell in cells}),
        ("MACs", {cell.name: cell.macs for cell in cells}),
    ):
        low, high = min(costs, key=costs.__getitem__), max(costs, key=costs.__getitem__)
        if costs[low] == costs[high]:
            parts.append(f"{name} are equal in all cells ({costs[low]:,})")
            continue
        equal = False
        ratio = f", {costs[high] / costs[low]:.2f} times as many" if costs[low] else ""
        parts.append(f"{name} range from {costs[low]:,} ({low}) to {costs[high]:,} ({high}){ratio}")
    claim = "Cells are compared at equal cost" if equal else "**Cells are compared at unequal cost**"
    return f"{claim}: {'; '.join(parts)}."


def losses(plan: Plan, records: Sequence[RunRecord]) -> Iterator[str | Items]:
    """Yield what failed, diverged or was not run, with reasons."""
    chosen = counted(records, plan)
    lines = [
        f"{record.status}: {cell_of(record, plan)}, seed {record.seed}: {_last_line(record.reason)}"
        for record in chosen
        if record.status != "complete"
    ]
    present = {(cell_of(record, plan), record.seed) for record in chosen}
    for cell in plan.cell_names():
        gaps = [seed for seed in plan.seeds if (cell, seed) not in present]
        if gaps:
            lines.append(f"not run: {cell}, {'seed' if len(gaps) == 1 else 'seeds'} {_numbers(gaps)}")
    rest = [f"and {len(lines) - MOST_LINES:,} lines more like these"] if len(lines) > MOST_LINES else []
    yield Items(lines=(*lines[:MOST_LINES], *rest)) if lines else "None: every planned run is complete."
    healed = sum(not record.accepted for record in records) - sum(not record.accepted for record in chosen)
    if healed:
        yield f"Failed attempts that a later attempt at the same run replaced: {healed}."
    if any(record.status == "failed" for record in chosen):
        yield "The whole tracebacks are in `records.jsonl`."


def _last_line(text: str) -> str:
    """The last line of a reason as code, whatever signs it holds."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"`{lines[-1].replace('`', chr(39))}`" if lines else "no reason recorded"


def _numbers(values: Sequence[int]) -> str:
    rest = f" and {len(values) - MOST_LINES:,} more" if len(values) > MOST_LINES else ""
    return ", ".join(str(value) for value in values[:MOST_LINES]) + rest
