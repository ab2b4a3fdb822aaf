"""Tuning: each cell gets the setting that serves it best, such as its learning rate, before cells are compared.

A cell that was trained at another cell's best setting is not a control. The budget is the same for all cells: each
candidate is trained with each tuning seed and evaluated on held-out training data.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from dynops.ablation.factor import Factor
from dynops.ablation.plan import Plan, Tuned
from dynops.errors import SpecError, StudyError
from dynops.records import RunRecord, cell_name
from dynops.specs import Spec

FOLDER = "tuning"
"""Where a study's tuning lies in its folder: a study of its own, with records and a report."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What is tuned for each cell, and at what expense."""

    factor: Factor
    """The setting and its candidates, as levels."""
    held_out: Callable[[Any], Spec]
    """Makes a cell learn and be evaluated without the data that the comparison evaluates."""
    seeds: Sequence[int]
    """With which each candidate is trained in each cell; none of the comparison's."""

    def levels(self) -> Factor:
        """Return the candidates as levels that also hold data out."""
        return Factor(self.factor.name, {name: self._held_out(level) for name, level in self.factor.levels.items()})

    def gave(self, tuned: Tuned | None) -> bool:
        """Whether what cells were tuned to comes from these candidates and seeds."""
        return tuned is not None and (tuned.factor, tuned.seeds) == (self.factor.plan(), tuple(self.seeds))

    def tuned(self, plan: Plan, records: Sequence[RunRecord]) -> Tuned:
        """Return the best candidate of each cell.

        Args:
            plan: the study's.
            records: of the study whose last factor holds the candidates.
        Raises:
            StudyError: a cell has no result.
        """
        outcomes = {(record.cell, record.seed): record.metrics[plan.outcome] for record in records if record.accepted}
        scores = tuple(
            tuple(
                tuple(outcomes.get((cell_name(levels | {self.factor.name: name}), seed)) for seed in self.seeds)
                for name in self.factor.levels
            )
            for levels in plan.cell_levels()
        )
        return Tuned(
            self.factor.plan(),
            tuple(self.seeds),
            scores=scores,
            chosen=tuple(
                _best(cell, self.factor.levels, row, higher=plan.higher_is_better)
                for cell, row in zip(plan.cell_names(), scores, strict=True)
            ),
        )

    def _held_out(self, level: Callable[[Any], Spec]) -> Callable[[Any], Spec]:
        return lambda spec: self.held_out(level(spec))


def mean(scores: Sequence[float | None]) -> float | None:
    """Average what seeds gave; None where none gave anything."""
    return fmean(known) if (known := [score for score in scores if score is not None]) else None


def _best(cell: str, names: Mapping[str, object], rows: Sequence[Sequence[float | None]], *, higher: bool) -> str:
    """The candidate with the best mean; of equal ones the first."""
    known = {name: score for name, row in zip(names, rows, strict=True) if (score := mean(row)) is not None}
    if not known:
        raise StudyError(
            f"{cell} has no result of {', '.join(names)}: one is needed to tune it. Its records say what failed."
        )
    return (max if higher else min)(known, key=known.__getitem__)


def check_tuning(tuning: Tuning, names: Sequence[str], seeds: Sequence[int]) -> None:
    """Raise a SpecError unless the setting is none of the factors, and its seeds are none of the comparison's."""
    if tuning.factor.name in names:
        raise SpecError(f"tuning has factor {tuning.factor.name!r}: must be none of the study's {', '.join(names)}.")
    if not tuning.seeds:
        raise SpecError("tuning has no seeds: must have one or more.")
    if shared := sorted(set(tuning.seeds) & set(seeds)):
        raise SpecError(f"tuning has seeds {shared} of the comparison: must have seeds of its own.")
