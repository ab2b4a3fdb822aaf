"""A study: a base, factors, seeds, and hypotheses; every (cell, seed) is run exactly once, whatever is killed."""

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dynops.ablation.contrasts import check
from dynops.ablation.factor import Factor
from dynops.ablation.ledger import DesignPoint, Ledger, design
from dynops.ablation.plan import Contrast, Difference, Hypothesis, Plan
from dynops.ablation.progress import Progress
from dynops.ablation.store import RECORDS, read_study, write_study
from dynops.ablation.tensorboard import write_run
from dynops.errors import RecordError, StudyError
from dynops.records import RunRecord, append_record, cell_name, write_atomically
from dynops.specs import Spec

RESULT = "result.json"


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
    """A full factorial with seeds as blocks."""

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

    def cells(self) -> list[Any]:
        """Return what each cell runs, in the order of the plan; of the kind of the base."""
        return [self.cell(levels) for levels in self.plan().cell_levels()]

    def cell(self, levels: Mapping[str, str]) -> Spec:
        """Return what a cell runs: the base, changed by one level of each factor."""
        spec = self.base
        for factor in self.factors:
            spec = factor.levels[levels[factor.name]](spec)
        return spec

    def plan(self) -> Plan:
        """Return all that is decided before the first run, as plain data.

        Raises:
            SpecError: a factor, a seed or a contrast is not one of the study's.
        """
        plan = Plan(
            name=self.name,
            question=self.question,
            factors=tuple(factor.plan() for factor in self.factors),
            seeds=tuple(self.seeds),
            outcome=self.outcome,
            unit=self.unit,
            higher_is_better=self.higher_is_better,
            margin=self.margin,
            family=tuple(self.family),
            hypotheses=tuple(self.hypotheses),
            change=tuple(self.change),
        )
        check(plan)
        cells = tuple(self.cell(levels).fingerprint() for levels in plan.cell_levels())
        return replace(plan, cells=cells)

    def execute(self, folder: Path) -> list[RunRecord]:
        """Run every point that has no result yet, and return all records.

        Points are run block after block, or cell after cell where a cell's seeds are run together. A run's result is
        on disk before anything is said about it, so a kill at any moment loses at most the runs in flight, and no
        result counts twice. A point that failed is tried again by the next call.

        Args:
            folder: of this study alone; made where it is missing.
        Raises:
            StudyError: the folder holds another study or another version of this one, or a process works on it.
        """
        plan = self.plan()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            held = FileLock(folder / "lock").acquire(timeout=0)
        except Timeout:
            raise StudyError(f"{folder} has a process that works on it: wait for it, or use another folder.") from None
        with held:
            plan, records = _reconcile(folder, plan)
            ledger = Ledger(folder, plan)
            ledger.follow(record for record in records if record.accepted)
            with Progress(plan, records) as progress:
                while taken := ledger.take(whole_cells=self.run_together is not None):
                    points = [point for point, _ in taken]
                    progress.start(points)
                    found = self._attempt([self._job(point, folder, plan, progress) for point in points])
                    made = [self._checked(point, each) for point, each in zip(points, found, strict=True)]
                    _keep_results(folder, made)
                    for record, (_, trial) in zip(made, taken, strict=True):
                        _enter(record, trial, folder, plan, ledger)
                        progress.finish(record)
                    records += made
        return records

    def _job(self, point: DesignPoint, folder: Path, plan: Plan, progress: Progress) -> Job:
        return Job(
            spec=self.cell(point.levels),
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


def _keep_results(folder: Path, records: list[RunRecord]) -> None:
    """Put results on disk, where they count from then on."""
    for record in records:
        if record.accepted:
            place = run_folder(folder, DesignPoint(levels=dict(record.levels), seed=record.seed))
            write_atomically(place / RESULT, record.to_json() + "\n")


def _enter(record: RunRecord, trial: int, folder: Path, plan: Plan, ledger: Ledger) -> None:
    """Enter a record whose result is on disk into the ledger, the records and TensorBoard."""
    if record.accepted:
        ledger.complete(trial, record)
    else:
        ledger.fail(trial)
    append_record(folder / RECORDS, record)
    write_run(folder / "tensorboard", plan, record)


def run_folder(folder: Path, point: DesignPoint) -> Path:
    """Return the folder of one run."""
    return folder / "runs" / cell_name(point.levels) / f"seed={point.seed}"


def _reconcile(folder: Path, plan: Plan) -> tuple[Plan, list[RunRecord]]:
    """Bring `records.jsonl` up to the results on disk, one accepted record a point; return its plan and records."""
    stored: list[RunRecord] = []
    if (folder / RECORDS).exists():
        before, stored = read_study(folder)
        plan = _continued(folder, before, plan)
    elif (folder / "runs").exists():
        raise StudyError(f"{folder} has runs but no {RECORDS}: restore that file, or use another folder.")
    accepted: dict[str, RunRecord] = {}
    failures = []
    for record in stored:
        if record.accepted:
            accepted.setdefault(record.point, record)
        else:
            failures.append(record)
    for point in design(plan):
        result = run_folder(folder, point) / RESULT
        if point.id not in accepted and result.exists():
            accepted[point.id] = _read_result(result, point)
    records = [*failures, *accepted.values()]
    write_study(folder, plan, records)
    return plan, records


def _read_result(path: Path, point: DesignPoint) -> RunRecord:
    try:
        record = RunRecord.from_json(path.read_bytes())
    except RecordError as error:
        raise StudyError(f"{path} has no whole result ({error}): remove it, and the point is run again.") from error
    if record.point != point.id:
        raise StudyError(f"{path} has the result of {record.cell}, seed {record.seed}: it was moved there. Remove it.")
    return record


def _continued(folder: Path, before: Plan, plan: Plan) -> Plan:
    """Return the plan with which a study goes on: the one it began with, or that one with more seeds."""
    was, now = before.to_plain(), plan.to_plain()
    ours = (was.keys() | now.keys()) - {"seeds", "first_seeds"}
    changed = sorted(key for key in ours if was.get(key) != now.get(key))
    if changed:
        raise StudyError(
            f"{folder} has study {before.name!r}, asked for is {plan.name!r}; they differ in {', '.join(changed)}: a "
            "folder holds one study with one plan. Use another folder, or the settings that it was started with."
        )
    if set(before.seeds) - set(plan.seeds):
        raise StudyError(
            f"{folder} has seeds {before.seeds}, asked for are {plan.seeds}: seeds can be added to a study, not "
            "dropped. Ask for those and more, or use another folder."
        )
    added = set(plan.seeds) - set(before.seeds)
    return replace(plan, first_seeds=before.first_seeds or (before.seeds if added else ()))
