"""The ledger: an Optuna study that holds one trial for each attempt at a design point, so that Optuna's tools open it.

Optuna is queue and ledger here, never the scheduler: its samplers lose or repeat cells when a process dies. What is
accepted is decided by the results on disk; the ledger follows them and can be made anew from them.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from dynops.ablation.plan import Plan
from dynops.errors import StudyError
from dynops.records import RunRecord, point_id

JOURNAL = "journal.log"
POINT = "point"
REGISTRATION = "registration"


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
    """The trials of a study; one process at a time may hold it."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        """Open or make the ledger of a folder."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        path = (folder / JOURNAL).resolve()
        _drop_torn_tail(path)
        # the absolute path and this lock are the pair that a stale lock cannot hang
        backend = JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path)))
        self._storage = JournalStorage(backend)
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
        self._queue: list[tuple[DesignPoint, int]] = []
        self._outcome = plan.outcome
        self._points = {point.id: point for point in design(plan)}
        self._distributions = {factor.name: CategoricalDistribution(factor.levels) for factor in plan.factors}

    def follow(self, accepted: Iterable[RunRecord]) -> None:
        """Make the ledger say what the accepted results say; nobody else may be running.

        A trial that a dead process left running is completed if its result is there, and failed otherwise. Every
        point without a result is queued once; every result has one completed trial.
        """
        results = {record.point: record for record in accepted}
        completed, queued = set(), set()
        for trial in self._study.get_trials(deepcopy=False):
            point = trial.user_attrs.get(POINT)
            if trial.state == TrialState.RUNNING:
                if point in results and point not in completed:
                    self._study.tell(trial.number, self._value(results[point]))
                    completed.add(point)
                else:
                    self._study.tell(trial.number, state=TrialState.FAIL)
            elif trial.state == TrialState.COMPLETE:
                completed.add(point)
            elif trial.state == TrialState.WAITING:
                queued.add(point)
        for point in self._points:
            if point in results and point not in completed:
                self._study.add_trial(self._finished(results[point]))
            elif point not in results and point not in queued:
                self._enqueue(point)
        self._queue = self._waiting()

    def take(self, *, whole_cells: bool = False) -> list[tuple[DesignPoint, int]]:
        """Take what is to be run next: points with the numbers of their trials, none if none is queued.

        Args:
            whole_cells: whether to take all queued points of the first one's cell; else the first one alone.
        """
        if not self._queue:
            return []
        first, _ = self._queue[0]
        taken = [each for each in self._queue if each[0].levels == first.levels] if whole_cells else self._queue[:1]
        self._queue = [each for each in self._queue if each not in taken]
        for _, number in taken:
            self._start(number)
        return taken

    def complete(self, number: int, record: RunRecord) -> None:
        """Complete a trial with an accepted result."""
        self._study.tell(number, self._value(record))

    def fail(self, number: int) -> None:
        """Say that a trial ended without a result."""
        self._study.tell(number, state=TrialState.FAIL)

    def _start(self, number: int) -> None:
        """Say that a trial runs."""
        identity = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
        self._storage.set_trial_state_values(identity, TrialState.RUNNING)
        running = Trial(self._study, identity)
        for name, distribution in self._distributions.items():
            running.suggest_categorical(name, distribution.choices)  # the queued level, for Optuna's own tools to show

    def _value(self, record: RunRecord) -> float:
        return record.metrics[self._outcome]

    def _enqueue(self, point: str) -> None:
        design_point = self._points[point]
        attributes = {POINT: point, "seed": design_point.seed}
        self._study.enqueue_trial(dict(design_point.levels), user_attrs=attributes)

    def _waiting(self) -> list[tuple[DesignPoint, int]]:
        """The queued points with their trials' numbers, in the order of the design, whenever they were queued."""
        order = {point: place for place, point in enumerate(self._points)}
        waiting = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        queued = [(trial.user_attrs[POINT], trial.number) for trial in waiting]
        return [(self._points[point], number) for point, number in sorted(queued, key=lambda each: order[each[0]])]

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
    if not path.exists():
        return
    with open(path, "rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole != len(content):
            file.truncate(whole)
            file.flush()
            os.fsync(file.fileno())
