"""A worker: a process that takes points of a study, runs them and enters their results, until all points are settled.

Any number of workers, on any machines, share a study. They hold it for short sections only: to take a point and to
enter a result. What a worker that died was running is taken over when its lease is over.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial

from dynops.ablation.leases import LEASE, Tenure
from dynops.ablation.ledger import MOST_LOSSES, Ledger
from dynops.ablation.patience import patiently
from dynops.ablation.plan import DesignPoint, Plan
from dynops.ablation.progress import Progress
from dynops.ablation.reporting.tensorboard import write_run
from dynops.ablation.resume import reconcile
from dynops.ablation.shared import Shared
from dynops.records import RunRecord

PAUSE = 1.0  # seconds between two looks, while others run the last points
DIED = "The process that ran it died or hung, {} times in a row and without a word: perhaps it was out of memory."

Run = Callable[[Sequence[DesignPoint], Plan, Progress, Callable[[], None]], Sequence[RunRecord]]


class Worker:
    """One process at work on a study."""

    def __init__(
        self,
        shared: Shared,
        plan: Plan,
        *,
        whole_cells: bool = False,
        retry: str | None = None,
        only_failed: bool = False,
        hung: Callable[[], None] = lambda: None,
    ) -> None:
        """Join a study, or start it.

        Args:
            shared: the study.
            plan: its plan.
            whole_cells: whether all points of a cell are taken at once.
            retry: names a call that runs failed points again, once each.
            only_failed: whether it runs nothing else.
            hung: called from another thread if a run hangs.
        Raises:
            StudyError: there is another study or another version of this one.
        """
        self._shared, self._whole_cells, self._retry, self._hung = shared, whole_cells, retry, hung
        self._only_failed = only_failed
        self._only: set[str] | None = None
        self._plan = plan
        patiently(shared, self._join)

    def work(self, run: Run) -> list[RunRecord]:
        """Run points until every one is settled, by this process or by another, and return all records.

        Args:
            run: runs points of one cell and returns a record for each, failures included; it calls its last argument
                now and then to show that it gets on.
        """
        with Progress(self._shared) as progress:
            while True:
                taken, others = patiently(self._shared, self._take, say=progress.say, again=self._settle)
                progress.refresh()
                if taken:
                    with self._shared.leases.kept([number for _, number in taken], self._hung) as alive:
                        points = [point for point, _ in taken]
                        progress.start(points)
                        self._finish(run(points, self._plan, progress, alive), taken, progress)
                elif others:
                    progress.wait(others)
                    time.sleep(min(PAUSE, LEASE / 4))
                else:
                    return self._records

    def _join(self) -> None:
        _, records = reconcile(self._shared, self._plan)
        if self._only_failed:
            accepted = {record.point for record in records if record.accepted}
            self._only = {record.point for record in records} - accepted
        self._settle()

    def _take(self) -> tuple[list[tuple[DesignPoint, int]], int]:
        """Take what is to be run next, and say how many trials others run."""
        tenures = self._shared.leases.tenures()
        if any(tenure != Tenure.HELD for tenure in tenures.values()):
            self._settle()
        taken = self._ledger.take(self._shared.leases.write, whole_cells=self._whole_cells)
        others = 0 if taken else sum(self._ledger.asks_for(number) for number in self._shared.leases.tenures())
        if not taken and not others:
            self._settle()
            taken = self._ledger.take(self._shared.leases.write, whole_cells=self._whole_cells)
        return taken, others

    def _settle(self) -> None:
        """Look at all that is there, and make records and ledger agree with it; whoever died left it behind."""
        self._plan, self._records = reconcile(self._shared)
        self._ledger = Ledger(self._shared, self._plan, self._only)
        tenures = self._shared.leases.tenures()
        for point in self._ledger.follow(self._records, tenures, self._retry):
            reason = DIED.format(MOST_LOSSES)
            failure = RunRecord(levels=point.levels, seed=point.seed, status="failed", reason=reason)
            self._shared.append(failure)
            self._records.append(failure)
        for number, tenure in tenures.items():
            if tenure != Tenure.HELD:
                self._shared.leases.drop(number)

    def _finish(
        self, records: Sequence[RunRecord], taken: Sequence[tuple[DesignPoint, int]], progress: Progress
    ) -> None:
        """Enter results, and show them."""
        numbers = [number for _, number in taken]
        enter = partial(self._enter, records, numbers, progress)
        for record in patiently(self._shared, enter, say=progress.say, again=self._settle):
            try:
                write_run(self._shared.folder / "tensorboard", self._plan, record)
            except OSError as error:
                progress.say(f"TensorBoard does not show {record.cell} seed {record.seed} before the report ({error}).")
        progress.refresh()

    def _enter(self, records: Sequence[RunRecord], numbers: Sequence[int], progress: Progress) -> list[RunRecord]:
        """Put results on disk, and enter them in ledger and records; a point's first result counts."""
        kept = [not record.accepted or self._shared.keep(record) for record in records]
        running = [self._ledger.runs(number) for number in numbers]
        for record, number, first, runs in zip(records, numbers, kept, running, strict=True):
            if not first:
                progress.say(f"{record.cell} seed {record.seed}: another process was first; its result counts.")
            elif runs and record.accepted:
                self._ledger.end(number, record)
                self._shared.append(record)
            elif runs:
                self._shared.append(record)  # first, as this is all that is left of a failure
                self._ledger.end(number, record)
        if not all(kept) or not all(running):
            self._settle()
        return [
            each for each, first, runs in zip(records, kept, running, strict=True) if first and (runs or each.accepted)
        ]
