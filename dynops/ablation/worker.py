"""A worker: a process that takes points of a study, runs them and enters their results, until all points are settled.

Any number of workers, on any machines that see the folder, share a study. They hold its lock for short sections only:
to take a point and to enter a result. What a worker that died was running is taken over when its lease is over.
"""

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from dynops.ablation.leases import LEASE, Leases, Tenure
from dynops.ablation.ledger import MOST_LOSSES, DesignPoint, Ledger
from dynops.ablation.plan import Plan
from dynops.ablation.progress import Progress
from dynops.ablation.reporting.tensorboard import write_run
from dynops.ablation.resume import keep_result, reconcile
from dynops.ablation.store import RECORDS, held, read_study
from dynops.records import RunRecord, append_record

PAUSE = 1.0  # seconds between two looks, while others run the last points
DIED = "The process that ran it died, {} times in a row and without a word: perhaps the machine was out of memory."

Run = Callable[[Sequence[DesignPoint], Plan, Progress], Sequence[RunRecord]]


class Worker:
    """One process at work on a study."""

    def __init__(self, folder: Path, plan: Plan, *, whole_cells: bool, since: datetime) -> None:
        """Join a study, or start it.

        Args:
            folder: of the study.
            plan: of the study.
            whole_cells: whether all points of a cell are taken at once.
            since: a point whose run failed before this moment is tried again.
        Raises:
            StudyError: the folder holds another study or another version of this one.
        """
        self._folder, self._whole_cells, self._since = folder, whole_cells, since
        self._leases = Leases(folder)
        with held(folder, wait=True):
            reconcile(folder, plan)
            self._settle()

    def work(self, run: Run) -> list[RunRecord]:
        """Run points until every one is settled, by this process or by another, and return all records.

        Args:
            run: runs points of one cell and returns a record for each, failures included.
        """
        with Progress(self._folder) as progress:
            while True:
                taken, others = self._take()
                progress.refresh()
                if taken:
                    with self._leases.kept([number for _, number in taken]):
                        points = [point for point, _ in taken]
                        progress.start(points)
                        self._enter(run(points, self._plan, progress), taken, progress)
                elif others:
                    progress.wait(others)
                    time.sleep(min(PAUSE, LEASE / 4))
                else:
                    return read_study(self._folder)[1]

    def _take(self) -> tuple[list[tuple[DesignPoint, int]], int]:
        """Take what is to be run next, and say how many trials others run."""
        with held(self._folder, wait=True):
            self._ledger.mend()
            tenures = self._leases.tenures()
            if any(tenure != Tenure.HELD for tenure in tenures.values()):
                self._settle()
            taken = self._ledger.take(self._leases.write, whole_cells=self._whole_cells)
            return taken, len(self._leases.tenures()) if not taken else 0

    def _settle(self) -> None:
        """Look at all that is in the folder, and make records and ledger agree with it; whoever died left it behind."""
        self._plan, records = reconcile(self._folder)
        self._ledger = Ledger(self._folder, self._plan)
        tenures = self._leases.tenures()
        results = [record for record in records if record.accepted]
        for point in self._ledger.follow(results, tenures, self._since):
            reason = DIED.format(MOST_LOSSES)
            failure = RunRecord(levels=point.levels, seed=point.seed, status="failed", reason=reason)
            append_record(self._folder / RECORDS, failure)
        for number, tenure in tenures.items():
            if tenure != Tenure.HELD:
                self._leases.drop(number)

    def _enter(
        self, records: Sequence[RunRecord], taken: Sequence[tuple[DesignPoint, int]], progress: Progress
    ) -> None:
        """Put results on disk, and enter them in ledger, records and TensorBoard; a point's first result counts."""
        entered = []
        with held(self._folder, wait=True):
            self._ledger.mend()
            kept = [not record.accepted or keep_result(self._folder, record) for record in records]
            running = [self._ledger.runs(number) for _, number in taken]
            for record, (_, number), first, runs in zip(records, taken, kept, running, strict=True):
                if first and runs:
                    self._ledger.end(number, record)
                    append_record(self._folder / RECORDS, record)
                    entered.append(record)
                elif not first:
                    progress.say(f"{record.cell} seed {record.seed}: another process was first; its result counts.")
            if len(entered) < len(taken):
                self._settle()
        for record in entered:
            write_run(self._folder / "tensorboard", self._plan, record)
        progress.refresh()
