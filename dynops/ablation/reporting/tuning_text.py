"""How each cell was tuned before the comparison, and how sure the choice is."""

from collections.abc import Sequence
from math import sqrt
from statistics import fmean, stdev
from typing import NamedTuple

from dynops.ablation.plan import Plan, Tuned
from dynops.ablation.reporting.results import show
from dynops.ablation.reporting.tables import Table
from dynops.ablation.tuning import mean

CERTAIN = 2.0
"""Standard errors by which a choice must lead the next best, or chance may have made it."""


class Lead(NamedTuple):
    """How far the chosen candidate is before the next best, over the seeds that both have."""

    next_best: str
    difference: float
    error: float | None
    """Standard error; None with fewer than two seeds."""

    @property
    def certain(self) -> bool:
        """Whether the lead is more than chance would make it."""
        return self.error is not None and self.difference > CERTAIN * self.error


def tuning_sentence(plan: Plan) -> list[str]:
    """Say what was tuned, at what expense, and what came out; nothing where nothing was tuned."""
    if plan.tuned is None:
        return []
    tuned, runs = plan.tuned, len(plan.tuned.factor.levels) * len(plan.tuned.seeds)
    names, ends = plan.cell_names(), {tuned.factor.levels[0], tuned.factor.levels[-1]}
    best = ", ".join(
        f"{chosen} for {' '.join(cells)}"
        for chosen in tuned.factor.levels
        if (cells := [name for name, each in zip(names, tuned.chosen, strict=True) if each == chosen])
    )
    at_end = [name for name, chosen in zip(names, tuned.chosen, strict=True) if chosen in ends]
    note = f"; **at an end of the candidates** for {' '.join(at_end)}: a better one may lie beyond" if at_end else ""
    unsure = sum(each is not None and not each.certain for each in _leads(plan, tuned))
    note += f"; **no more than chance before the next best** in {unsure} of {len(names)} cells" if unsure else ""
    return [
        f"Tuned for each cell on held-out training data, {runs} runs a cell: {tuned.factor.name} "
        f"among {', '.join(tuned.factor.levels)} gave {best}{note}"
    ]


def tuning_table(plan: Plan, tuned: Tuned) -> Table:
    """Show what each candidate was worth in each cell, and how sure the choice is."""
    rows = []
    for name, scores, chosen, lead in zip(
        plan.cell_names(), tuned.scores, tuned.chosen, _leads(plan, tuned), strict=True
    ):
        error = "" if lead is None or lead.error is None else f" ± {show(lead.error, plan.unit)}"
        rows.append(
            (
                name,
                *(show(mean(each), plan.unit) for each in scores),
                chosen,
                *(("-", "-", "-") if lead is None else (
                    lead.next_best,
                    f"{show(lead.difference, plan.unit, signed=True)}{error}",
                    "yes" if lead.certain else "no",
                )),
            )
        )  # fmt: skip
    return Table(
        title=f"Tuning of {tuned.factor.name}",
        columns=("cell", *tuned.factor.levels, "chosen", "next best", "lead", "certain"),
        sides="l" + "r" * len(tuned.factor.levels) + "rrrl",
        rows=tuple(rows),
        note=(
            f"Mean {plan.outcome} on held-out training data over {len(tuned.seeds)} tuning seeds. lead: of the chosen "
            "before the next best, with its standard error over these seeds; certain: more than "
            f"{CERTAIN:g} standard errors. All seeds of the comparison share the choice, so what chance has in it is "
            "part of no interval: where cells differ by less than a wrong choice costs, more tuning seeds or more "
            "held-out data are needed, not more seeds of the comparison."
        ),
    )


def _leads(plan: Plan, tuned: Tuned) -> list[Lead | None]:
    return [
        _lead(tuned.factor.levels, scores, chosen, higher=plan.higher_is_better)
        for scores, chosen in zip(tuned.scores, tuned.chosen, strict=True)
    ]


def _lead(names: Sequence[str], rows: Sequence[Sequence[float | None]], chosen: str, *, higher: bool) -> Lead | None:
    """Compare the chosen candidate with the best of the others; None where there is nothing to compare."""
    own, best = rows[names.index(chosen)], None
    for name, row in zip(names, rows, strict=True):
        pairs = [(one, other) for one, other in zip(own, row, strict=True) if one is not None and other is not None]
        if name == chosen or not pairs:
            continue
        leads = [one - other if higher else other - one for one, other in pairs]
        error = stdev(leads) / sqrt(len(leads)) if len(leads) > 1 else None
        lead = Lead(name, fmean(leads), error)
        if best is None or lead.difference < best.difference:
            best = lead
    return best
