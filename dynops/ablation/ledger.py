"""The ledger: an Optuna study that holds one trial for each attempt at a design point, so that Optuna's tools open it.

Optuna is queue and ledger here, never the scheduler: its samplers lose or repeat cells when a process dies. What is
accepted is decided by the results on disk; the ledger follows them and can be made anew from them.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from heapq import heapify, heappop, heappush
from pathlib import Path

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from dynops.ablation.leases import Tenure
from dynops.ablation.plan import Plan
from dynops.errors import StudyError
from dynops.records import RunRecord, point_id

JOURNAL = "journal.log"
POINT = "point"
REGISTRATION = "registration"
LOSSES = "losses"
MOST_LOSSES = 3
"""How many processes may die of a point before it counts as failed."""
GRACE = 3
"""Seconds after which the lock of Optuna's journal is broken."""


@dataclass(frozen=True, kw_only=True)
class DesignPoint:
    """One cell with one seed."""

    levels: dict[str, str]
    """The level of each factor."""
    seed: int
    """The block."""

    @property
    def id(self) -> str:
        """Identity of the point."""
        return point_id(self.levels, self.seed)


def design(plan: Plan) -> list[DesignPoint]:
    """Return the points of a plan, block after block, so that a cut-off study is balanced."""
    return [DesignPoint(levels=levels, seed=seed) for seed in plan.seeds for levels in plan.cell_levels()]


class Ledger:
    """The trials of a study, as one process sees them; to be used under the lock of the study's folder."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        """Open or make the ledger of a folder."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._journal = (folder / JOURNAL).resolve()
        self.mend()
        # the absolute path and this lock are the pair that a stale lock cannot hang; under the folder's lock a lock
        # that is some seconds old is stale
        lock = JournalFileOpenLock(str(self._journal), grace_period=GRACE)
        self._storage = JournalStorage(JournalFileBackend(str(self._journal), lock_obj=lock))
        self._study = optuna.create_study(
            storage=self._storage,
            study_name=plan.name,
            direction="maximize" if plan.higher_is_better else "minimize",
            sampler=optuna.samplers.RandomSampler(seed=0),
            pruner=optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
        _register(self._study, folder, plan)
        self._study_id = self._storage.get_study_id_from_name(plan.name)
        self._outcome = plan.outcome
        self._points = {point.id: point for point in design(plan)}
        self._places = {point: place for place, point in enumerate(self._points)}
        self._queue: list[tuple[int, str, int]] = []  # a heap: place in the design, point, trial
        self._known = 0  # trials that were looked at for the queue
        self._distributions = {factor.name: CategoricalDistribution(factor.levels) for factor in plan.factors}

    def mend(self) -> None:
        """Cut off what a process that died left half written."""
        _drop_torn_tail(self._journal)

    def follow(
        self, accepted: Iterable[RunRecord], tenures: Mapping[int, Tenure], since: datetime
    ) -> list[DesignPoint]:
        """Make the ledger say what the accepted results say, and queue what has none.

        A trial that nobody holds is completed if its result is there; else it is failed, and its point queued again.
        Every result has one completed trial.

        Args:
            accepted: the results.
            tenures: how running trials are held.
            since: a point whose run failed before this moment is queued again.
        Returns:
            Points that are given up: the processes that ran them died too often.
        """
        results = {record.point: record for record in accepted}
        trials = [trial for trial in self._study.get_trials(deepcopy=False) if POINT in trial.user_attrs]
        completed = {trial.user_attrs[POINT] for trial in trials if trial.state == TrialState.COMPLETE}
        failed = {trial.user_attrs[POINT]: trial for trial in trials if trial.state == TrialState.FAIL}
        queued, lost = set(), []
        for trial in trials:
            point = trial.user_attrs[POINT]
            if trial.state.is_finished():
                continue
            if point in results:
                self._settle(trial, None if point in completed else results[point])
                completed.add(point)
            elif trial.state == TrialState.WAITING or tenures.get(trial.number) == Tenure.HELD:
                queued.add(point)
            else:
                lost.append(trial)
        given_up = []
        for trial in lost:
            point = trial.user_attrs[POINT]
            losses = trial.user_attrs.get(LOSSES, 0) + (tenures.get(trial.number) == Tenure.LOST)
            if point in self._points and point not in queued:
                if losses < MOST_LOSSES:
                    self._enqueue(point, losses)
                else:
                    given_up.append(self._points[point])
                queued.add(point)
            self._fail(trial.number)  # last, so that a kill before it leaves something to be found
        for point in self._points:
            if point in results and point not in completed:
                self._study.add_trial(self._finished(results[point]))
            elif point not in results and point not in queued:
                ended = failed[point].datetime_complete if point in failed else None
                if ended is None or ended < since:
                    self._enqueue(point)
        self._queue, self._known = [], 0
        return given_up

    def take(self, lease: Callable[[int], None], *, whole_cells: bool = False) -> list[tuple[DesignPoint, int]]:
        """Take what is to be run next: points with the numbers of their trials, none if none is queued.

        Args:
            lease: takes a trial's number before it is said to run.
            whole_cells: whether to take all queued points of the first one's cell; else the first one alone.
        """
        self._look_for_new_trials()
        while self._queue and not self._waits(self._queue[0][2]):
            heappop(self._queue)  # another process took it
        if not self._queue:
            return []
        taken = [heappop(self._queue)]
        if whole_cells:
            cell = self._points[taken[0][1]].levels
            same = [each for each in self._queue if self._points[each[1]].levels == cell]
            self._queue = [each for each in self._queue if each not in same]
            heapify(self._queue)
            taken += sorted(each for each in same if self._waits(each[2]))
        for _, _, number in taken:
            lease(number)
            self._start(number)
        return [(self._points[point], number) for _, point, number in taken]

    def runs(self, number: int) -> bool:
        """Whether a trial runs, and was not given to another process."""
        return self._trial(number).state == TrialState.RUNNING

    def end(self, number: int, record: RunRecord) -> None:
        """Complete a trial with its result, or say that it ended without one."""
        if record.accepted:
            self._study.tell(number, self._value(record))
        else:
            self._fail(number)

    def _fail(self, number: int) -> None:
        self._study.tell(number, state=TrialState.FAIL)

    def _trial(self, number: int) -> FrozenTrial:
        return self._storage.get_trial(self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number))

    def _waits(self, number: int) -> bool:
        return self._trial(number).state == TrialState.WAITING

    def _look_for_new_trials(self) -> None:
        """Queue what was enqueued since the last look, whoever did it; in the order of the design."""
        while True:
            try:
                trial = self._trial(self._known)
            except KeyError:
                return
            point = trial.user_attrs.get(POINT)
            if trial.state == TrialState.WAITING and point in self._points:
                heappush(self._queue, (self._places[point], point, trial.number))
            self._known += 1

    def _start(self, number: int) -> None:
        """Say that a trial runs."""
        identity = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
        self._storage.set_trial_state_values(identity, TrialState.RUNNING)
        running = Trial(self._study, identity)
        for name, distribution in self._distributions.items():
            running.suggest_categorical(name, distribution.choices)  # the queued level, for Optuna's own tools to show

    def _settle(self, trial: FrozenTrial, record: RunRecord | None) -> None:
        """End a trial that waits or runs, with the result of its point, or with none where another trial has it."""
        if trial.state == TrialState.WAITING:
            self._start(trial.number)
        if record is None:
            self._fail(trial.number)
        else:
            self.end(trial.number, record)

    def _value(self, record: RunRecord) -> float:
        return record.metrics[self._outcome]

    def _enqueue(self, point: str, losses: int = 0) -> None:
        design_point = self._points[point]
        attributes = {POINT: point, "seed": design_point.seed, LOSSES: losses}
        self._study.enqueue_trial(dict(design_point.levels), user_attrs=attributes)

    def _finished(self, record: RunRecord) -> FrozenTrial:
        return create_trial(
            state=TrialState.COMPLETE,
            value=self._value(record),
            params={name: record.levels[name] for name in self._distributions},
            distributions=dict(self._distributions),
            user_attrs={POINT: record.point, "seed": record.seed},
        )


def _register(study: optuna.Study, folder: Path, plan: Plan) -> None:
    """Write the hash of what is stated beforehand into the storage, or compare it with the one that is there."""
    if plan.registration is None:
        return
    known = study.user_attrs.get(REGISTRATION)
    if known is None or not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL)):
        study.set_user_attr(REGISTRATION, {"hash": plan.registration.hash, "time": plan.registration.time})
    elif known["hash"] != plan.registration.hash:
        raise StudyError(
            f"{folder} has registration {plan.registration.hash} in its records, {known['hash']} in {JOURNAL}: must be "
            "equal. The records' first line was edited after the first run: restore it."
        )


def _drop_torn_tail(path: Path) -> None:
    """Cut what a kill left half written at the end; the next line would be glued to it, and no line could be read."""
    if not path.exists() or not path.stat().st_size:
        return
    with open(path, "rb+") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.flush()
        os.fsync(file.fileno())
