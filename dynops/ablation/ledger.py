"""The ledger: an Optuna study that holds one trial for each attempt at a design point, so that Optuna's tools open it.

Optuna is queue and ledger here, never the scheduler: its samplers lose or repeat cells when a process dies. What is
accepted is decided by the results on disk; the ledger follows them and can be made anew from them.
"""

from collections.abc import Callable, Container, Iterable, Mapping
from heapq import heapify, heappop, heappush
from pathlib import Path

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from dynops.ablation.leases import Tenure
from dynops.ablation.plan import DesignPoint, Plan
from dynops.ablation.shared import Shared
from dynops.errors import StudyError
from dynops.records import RunRecord

POINT = "point"
REGISTRATION = "registration"
LOSSES = "losses"
RETRY = "retry"
MOST_LOSSES = 3
"""How many processes may die of a point before it counts as failed."""


class Ledger:
    """The trials of a study, as one process sees them; to be used under the lock of the study's folder."""

    def __init__(self, shared: Shared, plan: Plan, only: Container[str] | None = None) -> None:
        """Open or make the ledger of a study.

        Args:
            shared: the study.
            plan: its plan.
            only: the points that this process may take; all by default.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._storage = shared.storage
        name = shared.name(plan)
        self._study = optuna.create_study(
            storage=self._storage,
            study_name=name,
            direction="maximize" if plan.higher_is_better else "minimize",
            sampler=optuna.samplers.RandomSampler(seed=0),
            pruner=optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
        _register(self._study, shared.folder, plan)
        self._study_id = self._storage.get_study_id_from_name(name)
        self._outcome = plan.outcome
        self._points = {point.id: point for point in plan.points()}
        self._places = {point: place for place, point in enumerate(self._points)}
        self._queue: list[tuple[int, str, int]] = []  # a heap: place in the design, point, trial
        self._known = 0  # trials that were looked at for the queue
        self._only = only
        self._distributions = {factor.name: CategoricalDistribution(factor.levels) for factor in plan.factors}

    def follow(
        self, records: Iterable[RunRecord], tenures: Mapping[int, Tenure], retry: str | None = None
    ) -> list[DesignPoint]:
        """Make the ledger say what the records say, and queue what has none.

        A trial that nobody holds is completed if its result is there; else it is failed, and its point queued again.
        Every result has one completed trial.

        Args:
            records: what is known of the points: results and failures.
            tenures: how running trials are held.
            retry: names a call that tries failed points again: each is queued once more for it. None is by default.
        Returns:
            Points that are given up: the processes that ran them died too often.
        """
        known = list(records)
        results = {record.point: record for record in known if record.accepted}
        failures = {record.point for record in known} - set(results)
        trials = [trial for trial in self._study.get_trials(deepcopy=False) if POINT in trial.user_attrs]
        completed = {trial.user_attrs[POINT] for trial in trials if trial.state == TrialState.COMPLETE}
        repeated = {(trial.user_attrs[POINT], trial.user_attrs.get(RETRY)) for trial in trials}
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
        if retry is not None:
            failures -= {point for point in failures if (point, retry) not in repeated}
        given_up = []
        for trial in lost:
            point = trial.user_attrs[POINT]
            losses = trial.user_attrs.get(LOSSES, 0) + (tenures.get(trial.number) == Tenure.LOST)
            if point in self._points and point not in queued:
                if losses < MOST_LOSSES:
                    self._enqueue(point, losses=losses, retry=retry)
                else:
                    given_up.append(self._points[point])
                queued.add(point)
            self._fail(trial.number)  # last, so that a kill before it leaves something to be found
        for point in self._points:
            if point in results and point not in completed:
                self._study.add_trial(self._finished(results[point]))
            elif point not in results and point not in queued and point not in failures:
                self._enqueue(point, retry=retry)
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
            same: list[tuple[int, str, int]] = []
            others: list[tuple[int, str, int]] = []
            for each in self._queue:
                (same if self._points[each[1]].levels == cell else others).append(each)
            self._queue = others
            heapify(self._queue)
            taken += sorted(each for each in same if self._waits(each[2]))
        for _, _, number in taken:
            lease(number)
        return [(self._points[point], number) for _, point, number in taken if self._start(number)]

    def asks_for(self, number: int) -> bool:
        """Whether a trial is of a point that this process may take."""
        return self._only is None or self._trial(number).user_attrs.get(POINT) in self._only

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
        known = [] if self._known else self._study.get_trials(deepcopy=False)  # one look for all, at first
        while True:
            try:
                trial = known[self._known] if self._known < len(known) else self._trial(self._known)
            except KeyError:
                return
            point = trial.user_attrs.get(POINT)
            allowed = self._only is None or point in self._only
            if trial.state == TrialState.WAITING and point in self._points and allowed:
                heappush(self._queue, (self._places[point], point, trial.number))
            self._known += 1

    def _start(self, number: int) -> bool:
        """Say that a trial runs; return False if another process said so."""
        identity = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
        return self._storage.set_trial_state_values(identity, TrialState.RUNNING)

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

    def _enqueue(self, point: str, *, losses: int = 0, retry: str | None = None) -> None:
        levels, seed = self._points[point].levels, self._points[point].seed
        waiting = create_trial(
            state=TrialState.WAITING,
            params=dict(levels),  # now and not when it starts, as each entry waits for the disk
            distributions=dict(self._distributions),
            user_attrs={POINT: point, "seed": seed, LOSSES: losses, RETRY: retry},
        )
        self._study.add_trial(waiting)

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
            f"{folder} has registration {plan.registration.hash} in its records, {known['hash']} in Optuna's storage: "
            "must be equal. The records' first line was edited after the first run: restore it."
        )
