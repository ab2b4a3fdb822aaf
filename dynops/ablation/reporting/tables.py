"""Tables of a study's verdicts, cells and effects: rows of text, for Markdown, pages and the terminal alike."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf
from textwrap import wrap
from typing import Literal, TypeVar

from rich.table import Table as TerminalTable
from rich.text import Text

from dynops.ablation.effects import CellSummary, Effect, Effects, Verdict
from dynops.ablation.plan import Plan
from dynops.ablation.reporting.results import show, show_interval
from dynops.ablation.verdicts import FEWEST_SEEDS, MOST_SEEDS, POWER

T = TypeVar("T")
MOST_ROWS = 300
"""Rows of a table; of more, those that matter most are listed."""
SIDES: dict[str, Literal["left", "right"]] = {"l": "left", "r": "right"}
RULES = {"l": ":--", "r": "--:"}
BOOTSTRAP = "studentised bootstrap interval over seeds, which follows a skewed contrast where t does not"
NEEDS = f"seeds in all for {100 * POWER:g} % power at its present size"


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text under named columns."""

    title: str
    columns: tuple[str, ...]
    sides: str
    """One letter a column: `l` or `r`, the side to which it is set."""
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    """A sentence below the table."""

    def to_markdown(self, width: int | None = None) -> str:
        """Write the table as Markdown, without its title, cells broken at a width where one is given, heads at half."""
        rows = [row if width is None else [_broken(cell, width) for cell in row] for row in self.rows]
        head = self.columns if width is None else [_broken(name, width // 2) for name in self.columns]
        lines = [_line(head), _line(RULES[side] for side in self.sides), *map(_line, rows)]
        return "\n".join([*lines, "", self.note] if self.note else lines)

    def to_terminal(self, *columns: str) -> TerminalTable:
        """Make the table that rich prints, of the named columns."""
        made = TerminalTable(title=Text(self.title))
        places = [self.columns.index(column) for column in columns]
        for place in places:
            made.add_column(Text(self.columns[place]), justify=SIDES[self.sides[place]], overflow="fold")
        for row in self.rows:
            made.add_row(*(Text(row[place]) for place in places))
        return made


def foremost(items: Sequence[T], what: str, rank: Callable[[T], float]) -> tuple[list[T], str]:
    """Return what a table lists, in its order, and a sentence about what it leaves out.

    Args:
        items: all that could be listed.
        what: what they are, and which of them are listed, such as `effects, those of the smallest p`.
        rank: smaller for what matters more.
    """
    if len(items) <= MOST_ROWS:
        return list(items), ""
    places = sorted(range(len(items)), key=lambda place: rank(items[place]))[:MOST_ROWS]
    note = f" Listed are {MOST_ROWS} of {len(items):,} {what}; `effects.json` has all."
    return [items[place] for place in sorted(places)], note


def terminal_tables(effects: Effects, plan: Plan) -> list[TerminalTable]:
    """Make the tables that a study prints at its end: the cells, and the confirmatory effects if there are any."""
    cells, (confirmatory, _) = cell_table(effects, plan), effect_tables(effects, plan)
    interval = interval_name(effects)
    made = [cells.to_terminal("cell", f"mean {effects.outcome}", "95 % interval", "n", "parameters", "MACs")]
    if confirmatory.rows:
        made.append(confirmatory.to_terminal("effect", "estimate", interval, "n", "p Holm", "verdict"))
    return made


def verdict_table(effects: Effects, plan: Plan) -> Table:
    """List each hypothesis with its verdict, and each combination that was tested with its estimate."""
    rows = [row for verdict in effects.verdicts for row in _verdict_rows(verdict, plan, effects)]
    return Table(
        title="Verdicts",
        columns=(
            "hypothesis",
            "verdict",
            "tested against 0",
            "estimate",
            interval_name(effects),
            "n",
            "p for",
            "p against",
        ),
        sides="lllrrrrr",
        rows=tuple(rows),
        note=f"Estimates are in {unit_name(effects)}, with the margin of the claim taken off. "
        "p for and p against are Holm-adjusted over all hypotheses.",
    )


def cell_table(effects: Effects, plan: Plan) -> Table:
    """List each cell with its mean outcome, its costs and its losses."""
    sign = -1 if plan.higher_is_better else 1
    cells, few = foremost(effects.cells, "cells, the best", lambda cell: inf if cell.mean is None else sign * cell.mean)
    return Table(
        title="Cells",
        columns=(
            "cell",
            f"mean {effects.outcome}",
            "95 % interval",
            "n",
            "parameters",
            "MACs",
            "step, ms",
            "diverged",
            "failed",
        ),
        sides="lrrrrrrrr",
        rows=tuple(_cell_row(cell, effects) for cell in cells),
        note=f"Means over seeds, in {unit_name(effects)}. A diverged run counts as a trivial predictor; "
        f"failed counts design points that have a failure and no result.{few}",
    )


def effect_tables(effects: Effects, plan: Plan) -> tuple[Table, Table]:
    """List the effects of the confirmatory family, and apart from them the exploratory ones."""
    margin = f" p equivalent: against ± {show(effects.margin, effects.unit)}." if effects.margin else ""
    note = f"Estimates are in {unit_name(effects)}. bootstrap: {BOOTSTRAP}.{margin} needs n: {NEEDS}."
    measured = ("effect", "estimate", interval_name(effects), "bootstrap", "n", "p")
    inside, few = by_p([effect for effect in effects.effects if effect.in_family])
    outside, few_outside = by_p([effect for effect in effects.effects if not effect.in_family])
    confirmatory = Table(
        title="Confirmatory effects",
        columns=(*measured, "p Holm", "p equivalent, Holm", "verdict", "needs n"),
        sides="lrrrrrrrlr",
        rows=tuple(_effect_row(effect, effects, plan) for effect in inside),
        note=f"The family that the plan states: verdicts hold at level {effects.level:g} over the family. {note}{few}",
    )
    exploratory = Table(
        title="Exploratory effects, unadjusted",
        columns=(*measured, "p equivalent", "verdict", "needs n"),
        sides="lrrrrrrlr",
        rows=tuple(_effect_row(effect, effects, plan) for effect in outside),
        note=f"Outside the stated family: each verdict holds at level {effects.level:g} on its own, without adjustment "
        f"for their number; it suggests, and confirms nothing. {note}{few_outside}",
    )
    return confirmatory, exploratory


def by_p(shown: Sequence[Effect]) -> tuple[list[Effect], str]:
    """Return the effects that a table lists, and a sentence about those that it leaves out."""
    return foremost(shown, "effects, those of the smallest p", lambda effect: inf if effect.p is None else effect.p)


def attribution_table(effects: Effects) -> Table:
    """List the gain of the whole change, and what each part of it adds."""
    known = effects.attribution and effects.attribution[0].verdict == "differs"
    gain = effects.attribution[0].estimate if known else None
    return Table(
        title="Attribution of the whole change",
        columns=("part", "share", "of the whole", interval_name(effects), "bootstrap", "n", "p"),
        sides="lrrrrrr",
        rows=tuple(_share_row(each, gain, effects) for each in effects.attribution),
        note=f"Shapley shares, in {unit_name(effects)}: what a part adds, averaged over all orders of changing the "
        "parts; they add up to the whole, of which a part has a percentage where the whole differs from 0. "
        "Exploratory, without adjustment for their number.",
    )


def unit_name(effects: Effects) -> str:
    """Name the unit in a sentence."""
    return f"points (hundredths of {effects.outcome})" if effects.unit == "points" else f"units of {effects.outcome}"


def verdict_word(verdict: Verdict, plan: Plan) -> str:
    """Return a verdict, marked where it rests on what was changed after the study was registered."""
    return f"{verdict.verdict} (exploratory)" if verdict.name in changed_hypotheses(plan) else verdict.verdict


def changed_hypotheses(plan: Plan) -> set[str]:
    """Return the names of hypotheses that are judged otherwise than it was registered; none in a plan without it.

    Those that were added or changed; all, where the outcome, its direction or the error level was changed.
    """
    if plan.registration is None:
        return set()
    was, now = plan.registration.statement, plan.statement()
    judged = (was.outcome, was.higher_is_better, was.level) == (now.outcome, now.higher_is_better, now.level)
    return {each.name for each in now.hypotheses if not judged or each not in was.hypotheses}


def seeds_lacking(n: int, seeds_needed: int | None) -> str:
    """Say what an undecided effect or hypothesis lacks."""
    if n < FEWEST_SEEDS:
        return f"needs at least {FEWEST_SEEDS} complete seeds, has {n}"
    if seeds_needed is None:
        return f"not within {MOST_SEEDS:,} seeds at its present size, has {n}"
    return f"about {seeds_needed:,} {NEEDS}, has {n}"


def _verdict_rows(verdict: Verdict, plan: Plan, effects: Effects) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for number, part in enumerate(verdict.parts):
        first = number == 0
        rows.append(
            (
                verdict.name if first else "",
                verdict_word(verdict, plan) if first else "",
                part.name,
                show(part.estimate, effects.unit, signed=True),
                show_interval(part.interval, effects.unit, signed=True),
                str(len(part.by_seed)),
                show_p(verdict.p_supported) if first else "",
                show_p(verdict.p_refuted) if first else "",
            )
        )
    return rows


def _cell_row(cell: CellSummary, effects: Effects) -> tuple[str, ...]:
    costs = (f"{cell.parameters:,}", f"{cell.macs:,}", f"{cell.step_milliseconds:.2f}") if cell.n else ("-",) * 3
    return (
        cell.name.replace(",", ", "),
        show(cell.mean, effects.unit),
        show_interval(cell.interval, effects.unit),
        str(cell.n),
        *costs,
        str(cell.diverged),
        str(cell.failed),
    )


def _effect_row(effect: Effect, effects: Effects, plan: Plan) -> tuple[str, ...]:
    n = len(effect.by_seed)
    return (
        effect.name,
        show(effect.estimate, effects.unit, signed=True),
        show_interval(effect.interval, effects.unit, signed=True),
        show_interval(effect.robust, effects.unit, signed=True),
        str(n) if n == len(plan.seeds) else f"{n} of {len(plan.seeds)}",
        show_p(effect.p),
        *((show_p(effect.p_holm),) if effect.in_family else ()),
        show_p(effect.p_equivalence),
        effect.verdict,
        needs(n, effect.seeds_needed) if effect.verdict == "undecided" else "",
    )


def _share_row(share: Effect, gain: float | None, effects: Effects) -> tuple[str, ...]:
    part = f"{100 * share.estimate / gain:.0f} %" if share.estimate is not None and gain else "-"
    return (
        share.name,
        show(share.estimate, effects.unit, signed=True),
        part,
        show_interval(share.interval, effects.unit, signed=True),
        show_interval(share.robust, effects.unit, signed=True),
        str(len(share.by_seed)),
        show_p(share.p),
    )


def needs(n: int, seeds_needed: int | None) -> str:
    """Write how many seeds in all an undecided effect or hypothesis needs."""
    if n < FEWEST_SEEDS:
        return f"at least {FEWEST_SEEDS}"
    return f">{MOST_SEEDS:,}" if seeds_needed is None else f"{seeds_needed:,}"


def show_p(p: float | None) -> str:
    """Write a p-value with three digits; a missing one is a dash."""
    if p is None:
        return "-"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def interval_name(effects: Effects) -> str:
    """Head a column of intervals."""
    return f"{100 * (1 - effects.level):g} % interval"


def _broken(cell: str, width: int) -> str:
    return "<br>".join(wrap(cell, width)) if len(cell) > width else cell


def _line(cells: Iterable[str] | Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
