"""A study: a base, factors, seeds, and hypotheses; every (cell, seed) is run exactly once, whatever is killed."""

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dynops.ablation.claims import Contrast, Difference, Hypothesis
from dynops.ablation.designs import Design, FullFactorial
from dynops.ablation.factor import Factor
from dynops.ablation.ledger import DesignPoint
from dynops.ablation.listing import check
from dynops.ablation.plan import Plan, Tuned
from dynops.ablation.progress import Progress
from dynops.ablation.resume import reconcile, run_folder
from dynops.ablation.store import RECORDS, held, read_study
from dynops.ablation.tuning import FOLDER, Tuning, check_tuning
from dynops.ablation.worker import Worker
from dynops.ablation.workers import share
from dynops.errors import RecordError, SpecError
from dynops.records import RunRecord
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

    def execute(self, folder: Path, workers: int = 1, *, again: "Callable[[], Study] | None" = None) -> list[RunRecord]:
        """Run every point that has no result yet, and return all records.

        Points are run block after block, or cell after cell where a cell's seeds are run together. A run's result is
        on disk before anything is said about it, so a kill at any moment loses at most the runs in flight, and no
        result counts twice. A point that failed is tried again by the next call. What is tuned is tuned first, in the
        folder `tuning`. The hypotheses are registered before the first run, with a hash, in the records and in Optuna's
        storage.

        Any number of processes, on any machines that see the folder, may call this at once, and share the work; each
        returns when all is done. What a process that died was running is run again by another one.

        Args:
            folder: of this study alone; made where it is missing.
            workers: how many processes share the study on this machine, each on its share of the cores or on a GPU; 1
                is this process itself.
            again: makes this study in another process: a function of a module, or a `functools.partial` of one. Needed
                with several workers where the study's own functions are lambdas or closures, which can't be sent there.
        Raises:
            StudyError: the folder holds another study or another version of this one, or all workers died.
            SpecError: there are less than one worker, or the study can't be sent to another process.
        """
        if workers == 1:
            return self.work(folder, since=datetime.now())
        return share(folder, workers, again or partial(replace, self))

    def work(self, folder: Path, *, since: datetime) -> list[RunRecord]:
        """Be one worker: as `execute`, but only points that failed before a moment are tried again."""
        plan = self._stated(folder)
        if self.tuning is not None and plan.tuned is None:
            plan = self._tuned(folder, plan, self.tuning, since)
        whole_cells = self.run_together is not None
        return Worker(folder, plan, whole_cells=whole_cells, since=since).work(partial(self._records, folder))

    def _stated(self, folder: Path) -> Plan:
        """Return the plan with which the study starts or goes on; what it states is then on disk."""
        self._recall(folder)
        self.plan()  # measures and checks, before anything is made
        with held(folder, wait=True):
            self._recall(folder)  # another process may have measured meanwhile
            plan = self.plan()
            if not (folder / RECORDS).exists():
                return reconcile(folder, plan)[0]
            before, _ = read_study(folder)
            if self.tuning is not None and self.tuning.gave(before.tuned):
                plan = self._with(plan, before.tuned)
            return plan

    def _recall(self, folder: Path) -> None:
        """Take the cells that were found by timing from a study that goes on."""
        if self.budget == "latency" and (folder / RECORDS).exists():
            before, _ = read_study(folder)
            for levels, text in zip(before.cell_levels(), before.measured, strict=False):
                self._made[tuple(levels.values())] = Spec.from_json(text)

    def _tuned(self, folder: Path, plan: Plan, tuning: Tuning, since: datetime) -> Plan:
        """Tune each cell, with all who work on the study, and return the plan with what it was tuned to."""
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
        records = search.work(folder / FOLDER, since=since)
        with held(folder, wait=True):
            before, _ = read_study(folder)
            found = before.tuned if tuning.gave(before.tuned) else tuning.tuned(plan, records)
            return reconcile(folder, self._with(plan, found))[0]

    def _with(self, plan: Plan, tuned: Tuned | None) -> Plan:
        """The plan of the comparison, once it is known what each cell was tuned to."""
        plan = replace(plan, tuned=tuned)
        return replace(plan, cells=tuple(self._run_in(levels, plan).fingerprint() for levels in plan.cell_levels()))

    def _run_in(self, levels: Mapping[str, str], plan: Plan) -> Spec:
        """What a cell runs, tuned as the plan says."""
        spec = self.cell(levels)
        if self.tuning is None or plan.tuned is None:
            return spec
        return self.tuning.factor.levels[plan.tuned.chosen[plan.cell_levels().index(dict(levels))]](spec)

    def _records(self, folder: Path, points: Sequence[DesignPoint], plan: Plan, progress: Progress) -> list[RunRecord]:
        """Run points of one cell, and return the record of each."""
        jobs = [
            Job(
                spec=self._run_in(point.levels, plan),
                seed=point.seed,
                folder=run_folder(folder, point),
                first_block=point.seed == plan.seeds[0],
                on_epoch=progress.epoch,
            )
            for point in points
        ]
        return [self._checked(point, each) for point, each in zip(points, self._attempt(jobs), strict=True)]

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
        except Exception as error:  # any failure of a run is recorded with its traceback, and the study goes on
            return [_reason(error)] * len(jobs)

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


def _reason(error: Exception) -> str:
    """Why a run failed: its traceback, and in plain words that there was no memory left."""
    trace = "".join(traceback.format_exception(error))
    short = isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
    return (
        f"{trace}Out of memory: run this cell on a larger device, with fewer workers or with smaller batches."
        if short
        else trace
    )
