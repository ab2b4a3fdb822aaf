"""The text of a study's report, in Markdown."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from dynops.ablation.effects import Effects
from dynops.ablation.plan import Plan
from dynops.ablation.results import cell_of, counted, show
from dynops.ablation.tables import (
    Table,
    attribution_table,
    cell_table,
    effect_tables,
    seeds_lacking,
    unit_name,
    verdict_table,
)
from dynops.records import RunRecord

BUDGETS = {
    "as_is": "cells are compared as they are, each at its own cost",
    "parameters": "each cell has the width at which it has as many parameters as the base",
    "macs": "each cell has the width at which it takes as many multiply-accumulates as the base",
    "latency": "each cell has the width at which a training step takes as long as the base's",
}
SERVER = "http://localhost:6006"
PAGES = {
    "cells": "#hparams",
    "figures": "#images&regexInput=%5E%5C.%24",
    "verdicts and effects": "#text&regexInput=%5E%5C.%24",
    "evidence with more seeds": "#custom_scalars&regexInput=%5E%5C.%24",
    "curves of one seed": "#scalars&regexInput=seed%3D0%24",
}
"""TensorBoard's pages of a study; beyond 40 runs it selects none by itself, so the links bring a filter along."""
FILES = (
    "`records.jsonl` holds the plan and every run, and all else is made from it: `effects.json` the numbers above, "
    "`figures/` the figures, `tensorboard/` what `tensorboard --logdir tensorboard` shows: "
    + ", ".join(f"[{name}]({SERVER}/{page})" for name, page in PAGES.items())
    + "."
)


def report_text(plan: Plan, records: Sequence[RunRecord], effects: Effects, figures: Mapping[str, Path]) -> str:
    """Write the report of a study.

    Args:
        plan: what was decided before the first run.
        records: all records of the study; equal records give equal text.
        effects: what the records say.
        figures: files of the figures by tag, relative to the report.
    """
    sections = [
        f"# {plan.name}",
        plan.question,
        "## Verdicts",
        verdict_text(effects),
        "## Setup",
        _setup(plan, records, effects),
        "## Cells",
        cell_table(effects).to_markdown(),
        _cost_statement(effects),
        *_embedded(figures, "outcome/"),
        "## Effects",
        *(part for table in effect_tables(effects, plan) for part in _titled(table)),
        *(_titled(attribution_table(effects)) if effects.attribution else []),
        *_embedded(figures, "effects/"),
        *_embedded(figures, "factors/"),
        *(["## Kernels", *_embedded(figures, "kernels/")] if _embedded(figures, "kernels/") else []),
        "## Failures, divergences and gaps",
        *_losses(plan, records),
        "## Files",
        FILES,
    ]
    return "\n\n".join(sections) + "\n"


def verdict_text(effects: Effects) -> str:
    """Write the verdict on each hypothesis, and the table of what was tested."""
    if not effects.verdicts:
        return "The plan states no hypotheses."
    lines = [f"- **{headline}**: {rest}" for headline, rest in verdict_sentences(effects)]
    return "\n".join(lines) + "\n\n" + verdict_table(effects).to_markdown()


def verdict_sentences(effects: Effects) -> list[tuple[str, str]]:
    """Return, for each hypothesis, `H1 is supported` and its claim with what it lacks if it is undecided."""
    sentences = []
    for verdict in effects.verdicts:
        rest = verdict.claim
        if verdict.verdict == "undecided":
            n = min((len(part.by_seed) for part in verdict.parts), default=0)
            rest += f" It lacks evidence: {seeds_lacking(n, verdict.seeds_needed)}."
        sentences.append((f"{verdict.name} is {verdict.verdict}", rest))
    return sentences


def _setup(plan: Plan, records: Sequence[RunRecord], effects: Effects) -> str:
    chosen = counted(records, plan)
    results = [record for record in chosen if record.accepted]
    cells = len(plan.cell_names())
    whole = sum(sum(record.seed == seed for record in results) == cells for seed in plan.seeds)
    factors = "; ".join(f"{factor.name} ({', '.join(factor.levels)})" for factor in plan.factors)
    direction = "higher" if plan.higher_is_better else "lower"
    margin = f"; equivalence margin ± {show(plan.margin, plan.unit)}" if plan.margin else "; no equivalence margin"
    versions = _distinct(records, lambda record: ", ".join(f"{name} {each}" for name, each in record.versions.items()))
    lines = [
        f"n = {whole} complete seeds of {len(plan.seeds)} planned, {len(results)} results of "
        f"{cells * len(plan.seeds)} planned runs",
        f"Factors, baseline first: {factors}",
        f"Outcome: {plan.outcome}, {direction} is better, in {unit_name(effects)}{margin}; error level {plan.level:g}",
        f"Budget rule `{plan.budget}`: {BUDGETS[plan.budget]}",
        *_tuning(plan),
        *_registration(plan),
        f"Device: {_distinct(records, lambda record: record.device)}",
        f"Versions: {versions}",
        f"Commit: {_distinct(records, lambda record: record.commit)}",
        f"Wall time of all runs together: {_duration(sum(record.seconds for record in records))}",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _registration(plan: Plan) -> list[str]:
    if plan.registration is None:
        return ["Hypotheses: not registered before the first run"]
    registered = f"registered {plan.registration.time} before the first run, hash {plan.registration.hash}"
    changes = plan.changes()
    if not changes:
        return [f"Hypotheses: {registered}, unchanged since"]
    return [
        f"Hypotheses: {registered}; **changed after that**: {'; '.join(changes)}. Verdicts are exploratory where they "
        "rest on what was changed"
    ]


def _tuning(plan: Plan) -> list[str]:
    if plan.tuned is None:
        return []
    tuned, runs = plan.tuned, len(plan.tuned.factor.levels) * len(plan.tuned.seeds)
    ends = {tuned.factor.levels[0], tuned.factor.levels[-1]}
    at_end = [name for name, chosen in zip(plan.cell_names(), tuned.chosen, strict=True) if chosen in ends]
    best = ", ".join(
        f"{chosen} for {' '.join(cells)}"
        for chosen in tuned.factor.levels
        if (cells := [name for name, each in zip(plan.cell_names(), tuned.chosen, strict=True) if each == chosen])
    )
    note = f"; **at an end of the candidates** for {' '.join(at_end)}: a better one may lie beyond" if at_end else ""
    return [
        f"Tuned for each cell on data that the comparison does not evaluate, {runs} runs a cell: {tuned.factor.name} "
        f"among {', '.join(tuned.factor.levels)} gave {best}{note}"
    ]


def _distinct(records: Sequence[RunRecord], read: Callable[[RunRecord], str]) -> str:
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


def _cost_statement(effects: Effects) -> str:
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


def _titled(table: Table) -> list[str]:
    return [f"### {table.title}", table.to_markdown() if table.rows else "None."]


def _embedded(figures: Mapping[str, Path], group: str) -> list[str]:
    return [
        f"![{tag.removeprefix(group)}]({quote(file.as_posix())})"
        for tag, file in figures.items()
        if tag.startswith(group)
    ]


def _losses(plan: Plan, records: Sequence[RunRecord]) -> list[str]:
    chosen = counted(records, plan)
    lines = [
        f"- {record.status}: {cell_of(record, plan)}, seed {record.seed}: {_last_line(record.reason)}"
        for record in chosen
        if record.status != "complete"
    ]
    present = {(cell_of(record, plan), record.seed) for record in chosen}
    for cell in plan.cell_names():
        gaps = [seed for seed in plan.seeds if (cell, seed) not in present]
        if gaps:
            lines.append(f"- not run: {cell}, {'seed' if len(gaps) == 1 else 'seeds'} {_numbers(gaps)}")
    parts = ["\n".join(lines) if lines else "None: every planned run is complete."]
    healed = sum(not record.accepted for record in records) - sum(not record.accepted for record in chosen)
    if healed:
        parts.append(f"Failed attempts that a later attempt at the same run replaced: {healed}.")
    if any(record.status == "failed" for record in chosen):
        parts.append("The whole tracebacks are in `records.jsonl`.")
    return parts


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason recorded"


def _numbers(values: Iterable[int]) -> str:
    return ", ".join(str(value) for value in values)
