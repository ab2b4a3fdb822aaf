"""One run of a study: what it is handed, and how its end, good or bad, becomes a record."""

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from dynops.ablation.plan import DesignPoint
from dynops.errors import RecordError
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
    alive: Callable[[], None] = lambda: None
    """Shows that the run gets on: to be called after each step, or not at all. A run that called it and then is silent
    for half an hour counts as hung, and another worker takes it over."""


def attempt(
    jobs: Sequence[Job],
    run: Callable[[Job], RunRecord],
    run_together: Callable[[Sequence[Job]], Sequence[RunRecord]] | None,
) -> Sequence[RunRecord | str]:
    """Run jobs of one cell; return their records, or the traceback of their failure for each."""
    try:
        if run_together is None:
            return [run(job) for job in jobs]
        records = list(run_together(jobs))
        came, asked = [record.seed for record in records], [job.seed for job in jobs]
        if came != asked:
            raise RecordError(f"records has seeds {came}, jobs has {asked}: must be one record a job, in order.")
        return records
    except Exception as error:  # any failure of a run is recorded with its traceback, and the study goes on
        return [_reason(error)] * len(jobs)


def filed(point: DesignPoint, found: RunRecord | str, outcome: str) -> RunRecord:
    """File a record under its point; a failed one, where a run failed or lacks the outcome."""
    if isinstance(found, RunRecord) and outcome in found.metrics:
        return replace(found, levels=point.levels, seed=point.seed)
    if not isinstance(found, str):
        came = f"metrics {sorted(found.metrics)}" if isinstance(found, RunRecord) else f"type {type(found).__name__}"
        found = f"record has {came}: must hold {outcome!r}, the outcome."
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
