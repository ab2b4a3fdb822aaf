"""A study: a base, factors, seeds, and hypotheses; every (cell, seed) is run exactly once, whatever is killed."""

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dynops.ablation.claims import Contrast, Difference, Hypothesis
from dynops.ablation.designs import Design, FullFactorial
from dynops.ablation.factor import Factor
from dynops.ablation.ledger import DesignPoint, Ledger
from dynops.ablation.listing import check
from dynops.ablation.plan import Plan
from dynops.ablation.progress import Progress
from dynops.ablation.reporting.tensorboard import write_run
from dynops.ablation.resume import keep_results, reconcile, run_folder
from dynops.ablation.store import RECORDS, held, read_study
from dynops.ablation.tuning import FOLDER, Tuning, check_tuning
from dynops.errors import RecordError, SpecError
from dynops.records import RunRecord, append_record
from dynops.specs import Spec


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a study hands to `run`."""

    spec: Spec
    """The cell: the base, changed by the levels."""
    seed: int
    """The block."""
    folder: Path
    """Where the run may keep checkpoints."""
    first_block: bool
    """Whether this is the study's first seed, which keeps images for the report."""
    on_epoch: Callable[[Mapping[str, float]], None]
    """Shows progress: to be called with the metrics of each epoch."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """A factorial, or a part of one, with seeds as blocks."""

    name: str
    """Name of the study; a word."""
    question: str
    """What it asks, in one sentence."""
    base: Spec
    """What every cell starts from."""
    factors: Sequence[Factor]
    """What is varied, in this order."""
    seeds: Sequence[int]
    """The blocks."""
    run: Callable[[Job], RunRecord]
    """Runs one cell with one seed; what it raises is a failure of that run alone."""
    run_together: Callable[[Sequence[Job]], Sequence[RunRecord]] | None = None
    """Runs one cell with all its waiting seeds at once, in the place of `run`, and returns their records in that
    order; what it raises is a failure of each of them."""
    design: Design = field(default_factory=FullFactorial)
    """Which combinations of levels are run."""
    regimes: Sequence[str] = ()
    """Factors under which the others are studied, such as the share of the data; the design is run in each."""
    budget: str = "as_is"
    """`as_is` leaves each cell its cost; `parameters`, `macs` or `latency`: `match` brings it to the base's."""
    match: Callable[[Any, Any, str], Spec] | None = None
    """Makes of a cell, the base in its regime and the budget a cell that costs as much as the base."""
    tuning: Tuning | None = None
    """What each cell is tuned to before the comparison; None leaves all at the base's settings."""
    outcome: str = "accuracy"
    """The metric that is compared."""
    unit: str = "points"
    """`points` shows hundredths of a share, `raw` the metric as it is."""
    higher_is_better: bool = True
    """Whether a larger outcome is a gain."""
    margin: float = 0.0
    """Half-width of the region of equivalence, in units of the outcome."""
    family: Sequence[Contrast] = ()
    """The confirmatory effects."""
    hypotheses: Sequence[Hypothesis] = ()
    """What the study must settle."""
    change: Sequence[Difference] = ()
    """The whole change whose gain is shared out among its parts."""

    _made: dict[tuple[str, ...], Spec] = field(default_factory=dict, init=False, repr=False, compare=False)

    def cells(self) -> list[Any]:
        """Return what each cell runs, in the order of the plan and before any tuning; of the kind of the base."""
        return [self.cell(levels) for levels in self.plan().cell_levels()]

    def cell(self, levels: Mapping[str, str]) -> Spec:
        """Return what a cell runs: the base, changed by one level of each factor, at the cost that the budget asks."""
        key = tuple(levels.values())
        if key not in self._made:
            spec = self._changed(levels, [factor.name for factor in self.factors])
            if self.match is not None and self.budget != "as_is":
                spec = self.match(spec, self._changed(levels, self.regimes), self.budget)
            self._made[key] = spec
        return self._made[key]

    def _changed(self, levels: Mapping[str, str], names: Sequence[str]) -> Spec:
        """The base, changed by some of the factors."""
        spec = self.base
        for factor in self.factors:
            if factor.name in names:
                spec = factor.levels[levels[factor.name]](spec)
        return spec

    def plan(self) -> Plan:
        """Return all that is decided before the first run, as plain data.

        Raises:
            SpecError: a factor, a seed or a contrast is not one of the study's, or a budget can't be met.
        """
        if (self.match is None) != (self.budget == "as_is"):
            raise SpecError(
                f"budget has {self.budget!r}, match has {self.match}: a budget other than 'as_is' needs a function "
                "that matches a cell to the base, and 'as_is' takes none."
            )
        if self.tuning is not None:
            check_tuning(self.tuning, [factor.name for factor in self.factors], self.seeds)
        plan = Plan(
            name=self.name,
            question=self.question,
            factors=tuple(factor.plan() for factor in self.factors),
            seeds=tuple(self.seeds),
            design=self.design,
            regimes=tuple(self.regimes),
            budget=self.budget,
            outcome=self.outcome,
            unit=self.unit,
            higher_is_better=self.higher_is_better,
            margin=self.margin,
            family=tuple(self.family),
            hypotheses=tuple(self.hypotheses),
            change=tuple(self.change),
        )
        check(plan)
        made = [self.cell(levels) for levels in plan.cell_levels()]
        measured = tuple(spec.to_json() for spec in made) if self.budget == "latency" else ()
        return replace(plan, cells=tuple(spec.fingerprint() for spec in made), measured=measured)

    def execute(self, folder: Path) -> list[RunRecord]:
        """Run every point that has no result yet, and return all records.

        Points are run block after block, or cell after cell where a cell's seeds are run together. A run's result is
        on disk before anything is said about it, so a kill at any moment loses at most the runs in flight, and no
        result counts twice. A point that failed is tried again by the next call. What is tuned is tuned first, in the
        folder `tuning`. The hypotheses are registered before the first run, with a hash, in the records and in Optuna's
        storage.

        Args:
            folder: of this study alone; made where it is missing.
        Raises:
            StudyError: the folder holds another study or another version of this one, or a process works on it.
        """
        self._recall(folder)
        plan = self.plan()
        with held(folder):
            if self.tuning is not None:
                if not (folder / RECORDS).exists():
                    reconcile(folder, plan)  # what is stated is written before what is tuned
                plan = self._tuned(folder, plan, self.tuning)
            return self._compare(folder, plan)

    def _recall(self, folder: Path) -> None:
        """Take the cells that were found by timing from a study that goes on."""
        if self.budget == "latency" and (folder / RECORDS).exists():
            before, _ = read_study(folder)
            for levels, text in zip(before.cell_levels(), before.measured, strict=False):
                self._made[tuple(levels.values())] = Spec.from_json(text)

    def _tuned(self, folder: Path, plan: Plan, tuning: Tuning) -> Plan:
        """Tune each cell, and return the plan with what it was tuned to."""
        search = replace(
            self,
            name=f"{self.name}-tuning",
            question=f"Which {tuning.factor.name} serves each cell best?",
            factors=(*self.factors, tuning.levels()),
            regimes=(*self.regimes, tuning.factor.name),
            seeds=tuning.seeds,
            tuning=None,
            family=(),
            hypotheses=(),
            change=(),
        )
        for levels in plan.cell_levels():
            for name, level in tuning.levels().levels.items():
                search._made[*levels.values(), name] = level(self.cell(levels))  # as wide as in the comparison
        records = search.execute(folder / FOLDER)
        plan = replace(plan, tuned=tuning.tuned(plan, records))
        return replace(plan, cells=tuple(self._run_in(levels, plan).fingerprint() for levels in plan.cell_levels()))

    def _run_in(self, levels: Mapping[str, str], plan: Plan) -> Spec:
        """What a cell runs, tuned as the plan says."""
        spec = self.cell(levels)
        if self.tuning is None or plan.tuned is None:
            return spec
        return self.tuning.factor.levels[plan.tuned.chosen[plan.cell_levels().index(dict(levels))]](spec)

    def _compare(self, folder: Path, plan: Plan) -> list[RunRecord]:
        """Run what the plan still lacks, under the folder's lock."""
        plan, records = reconcile(folder, plan)
        ledger = Ledger(folder, plan)
        ledger.follow(record for record in records if record.accepted)
        with Progress(plan, records) as progress:
            while taken := ledger.take(whole_cells=self.run_together is not None):
                points = [point for point, _ in taken]
                progress.start(points)
                found = self._attempt([self._job(point, folder, plan, progress) for point in points])
                made = [self._checked(point, each) for point, each in zip(points, found, strict=True)]
                keep_results(folder, made)
                for record, (_, trial) in zip(made, taken, strict=True):
                    _enter(record, trial, folder, plan, ledger)
                    progress.finish(record)
                records += made
        return records

    def _job(self, point: DesignPoint, folder: Path, plan: Plan, progress: Progress) -> Job:
        return Job(
            spec=self._run_in(point.levels, plan),
            seed=point.seed,
            folder=run_folder(folder, point),
            first_block=point.seed == plan.seeds[0],
            on_epoch=progress.epoch,
        )

    def _attempt(self, jobs: list[Job]) -> Sequence[RunRecord | str]:
        """Run jobs of one cell; return their records, or the traceback of their failure for each."""
        try:
            if self.run_together is None:
                return [self.run(job) for job in jobs]
            records = list(self.run_together(jobs))
            came, asked = [record.seed for record in records], [job.seed for job in jobs]
            if came != asked:
                raise RecordError(f"records has seeds {came}, jobs has {asked}: must be one record a job, in order.")
            return records
        except Exception:  # any failure of a run is recorded with its traceback, and the study goes on
            return [traceback.format_exc()] * len(jobs)

    def _checked(self, point: DesignPoint, found: RunRecord | str) -> RunRecord:
        """File a record under its point; a failed one, where a run failed or lacks the outcome."""
        if isinstance(found, RunRecord) and self.outcome in found.metrics:
            return replace(found, levels=point.levels, seed=point.seed)
        if not isinstance(found, str):
            came = (
                f"metrics {sorted(found.metrics)}" if isinstance(found, RunRecord) else f"type {type(found).__name__}"
            )
            found = f"record has {came}: must hold {self.outcome!r}, the outcome."
        return RunRecord(levels=point.levels, seed=point.seed, status="failed", reason=found)


def _enter(record: RunRecord, trial: int, folder: Path, plan: Plan, ledger: Ledger) -> None:
    """Enter a record whose result is on disk into the ledger, the records and TensorBoard."""
    if record.accepted:
        ledger.complete(trial, record)
    else:
        ledger.fail(trial)
    append_record(folder / RECORDS, record)
    write_run(folder / "tensorboard", plan, record)
