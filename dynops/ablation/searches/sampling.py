"""Where the points of a search come from: an Optuna study that is made anew from the results at each start.

A proposal depends on the plan, on the results so far and on nothing else, since the sampler is seeded anew for each. So
a search that was killed proposes, after its results were added again, what it would have proposed undisturbed, and the
point that was being run comes first. The journal is a view for Optuna's own tools; nothing is read back from it.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import MedianPruner, NopPruner
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import Trial, TrialState

from dynops.ablation.designs import Levels
from dynops.ablation.searches.plan import Numbers, SearchPlan
from dynops.ablation.searches.trials import PointTrial
from dynops.ablation.shared import JOURNAL
from dynops.specs import digest

CANDIDATES = 24
"""TPE takes the best of so many draws, and of fewer after each known point, lest it proposes that for ever."""
PATIENCE = 20
"""So many proposals of the sampler in a row may be known points; those that follow are random."""
MOST_PROPOSALS = 1000
"""So many proposals in a row may be known points; then the search ends."""
DIRECTIONS = {"maximise": StudyDirection.MAXIMIZE, "minimise": StudyDirection.MINIMIZE}
UNJUDGED_EPOCHS = 1
"""Epochs of each run that no pruner judges: after the first, most networks are alike."""

History = Iterable[Mapping[str, float]]


class Asked:
    """A point that runs, as Optuna sees it."""

    def __init__(self, trial: Trial, plan: SearchPlan) -> None:
        self._trial = trial
        self._reported: set[int] = set()
        self._metric = plan.outcome.metric.removeprefix("best_")  # an epoch has `accuracy`, the end `best_accuracy`
        self.levels = {factor.name: _text(factor, trial.params[factor.name]) for factor in plan.factors}

    @property
    def number(self) -> int:
        """Number of Optuna's trial."""
        return self._trial.number

    @property
    def last_epoch(self) -> int:
        """The last epoch that was reported."""
        return max(self._reported, default=0)

    def report(self, history: History) -> None:
        """Say how the run went, epoch by epoch; what was said before is passed over."""
        for number, entry in enumerate(history, start=1):
            epoch = int(entry.get("epoch", number))
            if self._metric in entry and epoch not in self._reported:
                self._trial.report(entry[self._metric], epoch)
                self._reported.add(epoch)

    def should_be_pruned(self, history: History) -> bool:
        """Judge a run by its epochs so far; one without the outcome is not judged."""
        self.report(history)
        return bool(self._reported) and self._trial.should_prune()


class Sampling:
    """The trials of a search as Optuna sees them; one process at a time may hold it."""

    def __init__(self, folder: Path, plan: SearchPlan) -> None:
        """Start the journal of a folder anew."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        path = (folder / JOURNAL).resolve()
        for left in path.parent.glob(f"{path.name}*"):  # with the lock of a process that was killed
            left.unlink()
        backend = JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path)))
        self._plan = plan
        self._settled = 0
        self._distributions = distributions(plan)
        self._study = optuna.create_study(
            storage=JournalStorage(backend),
            study_name=plan.name,
            directions=[DIRECTIONS[objective.direction] for objective in plan.objectives],
            sampler=_sampler(plan, plan.sampler),
            pruner=MedianPruner(n_startup_trials=plan.startup, n_warmup_steps=UNJUDGED_EPOCHS + 1)
            if plan.pruning
            else NopPruner(),
        )

    def add(self, trial: PointTrial) -> None:
        """Add a trial that an earlier start settled, at its place in the order."""
        self.tell(self.take(trial.levels), trial)

    def take(self, levels: Mapping[str, str]) -> Asked:
        """Take a point that the search chose, not the sampler."""
        self._study.enqueue_trial(params_of(self._plan, levels))
        trial = self._study.ask(self._distributions)
        self._place(trial)
        return Asked(trial, self._plan)

    def propose(self, accept: Callable[[dict[str, str]], bool]) -> Asked | None:
        """Propose a point that is accepted; None if none is in a long row of proposals."""
        for attempt in range(MOST_PROPOSALS):
            kind = self._plan.sampler if attempt < PATIENCE else "random"
            self._study.sampler = _sampler(self._plan, kind, self._settled, attempt=attempt)
            trial = self._study.ask(self._distributions)
            asked = Asked(trial, self._plan)
            if accept(asked.levels):
                self._study.sampler = _sampler(self._plan, self._plan.sampler)
                self._place(trial)
                return asked
            self._study.tell(trial, state=TrialState.FAIL)
        return None

    def tell(self, asked: Asked, trial: PointTrial) -> None:
        """Say how a trial ended."""
        if self._plan.pruning:
            asked.report(entry for record in trial.records for entry in record.history)
        if trial.values:
            self._study.tell(asked.number, list(trial.values))
        else:
            self._study.tell(asked.number, state=TrialState.PRUNED if trial.status == "pruned" else TrialState.FAIL)
        self._settled += trial.settled

    def _place(self, trial: Trial) -> None:
        """Give a trial its generation, without which it has no descendants; NSGA-II gives one to what it samples."""
        sampler = self._study.sampler
        if isinstance(sampler, NSGAIISampler):
            generation = sampler.get_trial_generation(self._study, self._study.trials[trial.number])
            sampler.get_parent_population(self._study, generation)


def distributions(plan: SearchPlan) -> dict[str, BaseDistribution]:
    """Return Optuna's view of each factor."""
    return {factor.name: _distribution(factor) for factor in plan.factors}


def params_of(plan: SearchPlan, levels: Mapping[str, str]) -> dict[str, str | float]:
    """Return Optuna's view of a point."""
    return {
        factor.name: factor.number(levels[factor.name]) if isinstance(factor, Numbers) else levels[factor.name]
        for factor in plan.factors
    }


def _distribution(factor: Levels | Numbers) -> BaseDistribution:
    if isinstance(factor, Levels):
        return CategoricalDistribution(factor.levels)
    if factor.whole:
        return IntDistribution(int(factor.low), int(factor.high), log=factor.log)
    return FloatDistribution(float(factor.low), float(factor.high), log=factor.log)


def _text(factor: Levels | Numbers, value: str | float) -> str:
    return factor.text(float(value)) if isinstance(factor, Numbers) else str(value)


def _sampler(plan: SearchPlan, kind: str, settled: int = 0, attempt: int = 0) -> BaseSampler:
    """Make a sampler that draws what belongs to this moment of the search."""
    seed = int(digest([plan.sampler_seed, settled, attempt]), 16) % 2**32
    if kind == "tpe":
        return TPESampler(
            n_startup_trials=plan.startup,
            n_ei_candidates=max(1, CANDIDATES // (1 + attempt)),
            multivariate=True,
            constant_liar=False,
            seed=seed,
        )
    if kind == "nsga2":
        return NSGAIISampler(population_size=plan.startup, seed=seed)
    return RandomSampler(seed=seed)
