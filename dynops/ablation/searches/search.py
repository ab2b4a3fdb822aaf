"""A search: many combinations of levels tried for an outcome against its costs. It explores, and confirms nothing."""

import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna

from dynops.ablation.factor import Factor
from dynops.ablation.job import Job
from dynops.ablation.searches.plan import Numbers, Objective, SearchPlan, read_search
from dynops.ablation.searches.progress import SearchProgress
from dynops.ablation.searches.sampling import MOST_PROPOSALS, Asked, Sampling
from dynops.ablation.searches.tensorboard import write_trial
from dynops.ablation.searches.trials import PointTrial, trials_of
from dynops.ablation.store import RECORDS, held, write_study
from dynops.errors import DynopsError, RecordError, StudyError
from dynops.records import RunRecord, append_record, cell_name
from dynops.specs import Spec


@dataclass(frozen=True)
class Range:
    """A factor of a search whose levels are the numbers between two ends."""

    name: str
    """Name of the factor."""
    change: Callable[[Any, Any], Spec]
    """Makes a level's spec from the base and the number."""
    low: float
    """Least level."""
    high: float
    """Largest level."""
    log: bool = False
    """Whether levels are drawn evenly on the logarithmic scale."""
    whole: bool = False
    """Whether levels are integers."""

    def plan(self) -> Numbers:
        """Return the factor as plain data."""
        return Numbers(self.name, low=self.low, high=self.high, log=self.log, whole=self.whole)


@dataclass(frozen=True, kw_only=True)
class Search:
    """Points of a large space, chosen by what came before for the best outcome at each cost.

    A search finds candidates; what it finds best is flattered by chance, and a `Study` with new seeds must confirm it.
    """

    name: str
    """Name of the search; a word."""
    question: str
    """What it asks, in one sentence."""
    base: Spec
    """What every point starts from."""
    factors: Sequence[Factor | Range]
    """What is varied, in this order."""
    run: Callable[[Job], RunRecord]
    """Runs one point with one seed; what it raises is a failure of that run alone, but for the exception with which
    `on_epoch` ends a run that is pruned: it must let that through."""
    objectives: Sequence[Objective] = (Objective("accuracy", "maximise"), Objective("parameters", "minimise"))
    """What is sought; the first one is the outcome."""
    trials: int = 50
    """How many different points are tried."""
    seeds: Sequence[int] = (0,)
    """Each point is run once with each; its objectives are means over them."""
    sampler: str = "tpe"
    """What proposes points: `tpe`, `nsga2` or `random`."""
    sampler_seed: int = 0
    """Of all that the sampler draws."""
    startup: int = 10
    """Results before the sampler learns: a random start for `tpe`, the size of a generation for `nsga2`."""
    pruning: bool = False
    """Whether a run is ended whose outcome is below the median of the earlier trials at the same epoch."""
    check: Callable[[Any], None] | None = None
    """Raises a DynopsError for what cannot be run, by a look at the spec alone; it is then not sampled."""
    constraint: str = ""
    """What `check` demands, in words, for the report."""

    def point(self, levels: Mapping[str, str]) -> Spec:
        """Return what a point runs: the base, changed by one level of each factor."""
        spec = self.base
        for factor in self.factors:
            spec = _changed(spec, factor, levels[factor.name])
        return spec

    def plan(self) -> SearchPlan:
        """Return all that is decided before the first run, as plain data.

        Raises:
            SpecError: a factor, a seed, an objective or a setting is not legal.
            StudyError: points are checked, and the constraint is not said in words.
        """
        if (self.check is None) != (not self.constraint):
            raise StudyError(
                f"constraint has {self.constraint!r}, check has {self.check}: must be given both, the one for the "
                "report, the other for the points, or neither."
            )
        plan = SearchPlan(
            name=self.name,
            question=self.question,
            factors=tuple(factor.plan() for factor in self.factors),
            objectives=tuple(self.objectives),
            trials=self.trials,
            seeds=tuple(self.seeds),
            sampler=self.sampler,
            sampler_seed=self.sampler_seed,
            startup=self.startup,
            pruning=self.pruning,
            constraint=self.constraint,
        )
        singles = [(factor, level) for factor in self.factors for level in _ends(factor)]
        prints = [_fingerprint(self.base, factor, level) for factor, level in singles]
        return replace(plan, fingerprints=(self.base.fingerprint(), *prints))

    def execute(self, folder: Path) -> list[RunRecord]:
        """Try points until there are as many as planned, and return all records.

        A run's record is on disk before anything else counts, so a kill at any moment loses at most the run in flight,
        and the search then goes on as if nothing had been. A point that failed is tried again by the next call. The
        search ends early where it has tried every point there is, or finds no new one.

        Args:
            folder: of this search alone; made where it is missing.
        Raises:
            StudyError: the folder holds something else or another version of this search, or a process works on it.
        """
        plan = self.plan()
        with held(folder):
            records = _begin(folder, plan)
            before = trials_of(plan, records)
            with SearchProgress(plan, before) as progress:
                _Execution(self, plan, folder, records, progress).run(before)
        return records


class _Execution:
    """One start of a search, while its folder is held."""

    def __init__(
        self, search: Search, plan: SearchPlan, folder: Path, records: list[RunRecord], progress: SearchProgress
    ) -> None:
        self._search, self._plan, self._folder = search, plan, folder
        self._records, self._progress = records, progress
        self._sampling = Sampling(folder, plan)
        self._tried: set[str] = set()
        self._refused: set[str] = set()

    def run(self, before: Sequence[PointTrial]) -> None:
        """Take up what earlier starts left, then try what is proposed."""
        self._tried |= {trial.cell for trial in before}
        for trial in before:
            if trial.settled:
                self._sampling.add(trial)
        for trial in before:
            if not trial.settled:
                self._try(self._sampling.take(trial.levels), trial.records)
        while len(self._tried) < self._plan.trials:
            asked = self._sampling.propose(self._accepts) if self._open() else None
            if asked is None:
                self._progress.say(f"{self._ending()}: the search ends with {len(self._tried)} trials.")
                return
            self._tried.add(cell_name(asked.levels))
            self._try(asked, ())

    def _open(self) -> bool:
        return len(self._tried) + len(self._refused) < self._plan.size

    def _ending(self) -> str:
        return f"No new point in {MOST_PROPOSALS} proposals" if self._open() else "Every point was tried or refused"

    def _accepts(self, levels: dict[str, str]) -> bool:
        cell = cell_name(levels)
        if cell in self._tried or cell in self._refused:
            return False
        try:
            if self._search.check is not None:
                self._search.check(self._search.point(levels))
        except DynopsError:
            self._refused.add(cell)
            return False
        return True

    def _try(self, asked: Asked, before: Sequence[RunRecord]) -> None:
        """Run a point with each seed that lacks a result."""
        done = {record.seed for record in before if record.status != "failed"}
        for seed in self._plan.seeds:
            if seed not in done:
                self._progress.start(asked.levels, seed)
                record = self._attempt(asked, seed)
                append_record(self._folder / RECORDS, record)
                self._records.append(record)
                write_trial(self._folder / "tensorboard", self._plan, record)
        (trial,) = trials_of(self._plan, [each for each in self._records if each.levels == asked.levels])
        self._sampling.tell(asked, trial)
        self._progress.finish(trial)

    def _attempt(self, asked: Asked, seed: int) -> RunRecord:
        """Run a point with a seed; return its record, filed under the point, whatever happened."""
        history: list[dict[str, float]] = []

        def on_epoch(metrics: Mapping[str, float]) -> None:
            history.append({name: value for name, value in metrics.items() if math.isfinite(value)})
            self._progress.epoch(metrics)
            if self._plan.pruning and asked.should_be_pruned(history):
                raise optuna.TrialPruned

        place = self._folder / "runs" / cell_name(asked.levels) / f"seed={seed}"
        try:
            spec = self._search.point(asked.levels)
            job = Job(spec=spec, seed=seed, folder=place, first_block=False, on_epoch=on_epoch)
            record = _checked(self._search.run(job), self._plan)
        except optuna.TrialPruned:
            reason = f"after epoch {asked.last_epoch} it was worse than the median of the trials before at that epoch"
            record = RunRecord(seed=seed, status="pruned", reason=reason, history=tuple(history))
        except Exception:  # any failure of a run is recorded with its traceback, and the search goes on
            record = RunRecord(seed=seed, status="failed", reason=traceback.format_exc())
        return replace(record, levels=asked.levels, seed=seed)


def _changed(spec: Spec, factor: Factor | Range, level: str) -> Spec:
    if isinstance(factor, Range):
        return factor.change(spec, factor.plan().number(level))
    return factor.levels[level](spec)


def _ends(factor: Factor | Range) -> list[str]:
    if isinstance(factor, Range):
        return list(factor.plan().ends().levels)
    return list(factor.levels)


def _fingerprint(base: Spec, factor: Factor | Range, level: str) -> str:
    try:
        return _changed(base, factor, level).fingerprint()
    except DynopsError:
        return "-"


def _checked(record: RunRecord, plan: SearchPlan) -> RunRecord:
    if not isinstance(record, RunRecord):
        raise RecordError(f"record has type {type(record).__name__}: must be a RunRecord.")
    for objective in plan.objectives:
        objective.of(record)
    return record


def _begin(folder: Path, plan: SearchPlan) -> list[RunRecord]:
    """Write the plan to an empty folder, or go on with what is there; return its records."""
    records: list[RunRecord] = []
    if (folder / RECORDS).exists():
        before, records = read_search(folder)
        _check_continued(folder, before, plan)
    elif (folder / "runs").exists():
        raise StudyError(f"{folder} has runs but no {RECORDS}: restore that file, or use another folder.")
    write_study(folder, plan, records)
    return records


def _check_continued(folder: Path, before: SearchPlan, plan: SearchPlan) -> None:
    was, now = before.to_plain(), plan.to_plain()
    changed = sorted(key for key in (was.keys() | now.keys()) - {"trials"} if was.get(key) != now.get(key))
    if changed:
        raise StudyError(
            f"{folder} has search {before.name!r}, asked for is {plan.name!r}; they differ in {', '.join(changed)}: a "
            "folder holds one search with one plan. Use another folder, or the settings that it was started with."
        )
    if plan.trials < before.trials:
        raise StudyError(
            f"{folder} has {before.trials} trials planned, asked for are {plan.trials}: trials can be added to a "
            "search, not dropped. Ask for as many or more, or use another folder."
        )
