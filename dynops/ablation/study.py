"""A study: a base, factors, seeds, and hypotheses; every (cell, seed) is run exactly once, whatever is killed."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from dynops.ablation.claims import Contrast, Difference, Hypothesis
from dynops.ablation.cluster import Ray
from dynops.ablation.database import shared_at
from dynops.ablation.designs import Design, FullFactorial
from dynops.ablation.factor import Factor
from dynops.ablation.job import Job, attempt, filed
from dynops.ablation.listing import check
from dynops.ablation.maker import described
from dynops.ablation.patience import patiently
from dynops.ablation.plan import DesignPoint, Plan, Tuned
from dynops.ablation.progress import Progress
from dynops.ablation.resume import reconcile
from dynops.ablation.shared import Shared, run_folder
from dynops.ablation.tuning import FOLDER, Tuning, check_tuning
from dynops.ablation.worker import Worker
from dynops.ablation.workers import Call, share
from dynops.errors import SpecError
from dynops.records import RunRecord
from dynops.specs import Spec


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

    def execute(
        self,
        folder: Path,
        workers: "int | Ray" = 1,
        *,
        storage: str | None = None,
        devices: int = 1,
        retry_failed: bool = False,
        maker: "Callable[[], Study] | None" = None,
    ) -> list[RunRecord]:
        """Run every point that has neither result nor failure, and return all records.

        Points are run block after block, or cell after cell where a cell's seeds are run together. A run's result is
        on disk before anything is said about it, so a kill at any moment loses at most the runs in flight, and no
        result counts twice. What is tuned is tuned first, in the folder `tuning`. The hypotheses are registered before
        the first run, with a hash, in the records and in Optuna's storage.

        Any number of processes, on any machines that see the folder or the database, may call this at once, and share
        the work; each returns when all is done. What a process that died was running is run again by another one, from
        its last checkpoint where that one sees the folder. A full disk or a database that is out is waited for.

        Args:
            folder: of this study alone; made where it is missing.
            workers: how many processes share the study on this machine, each on its share of the cores and with GPUs
                of its own, or in turn; 1 is this process itself, 0 writes the plan for others to work on. Or a cluster:
                `Ray()`.
            storage: a PostgreSQL database where the workers meet, `postgresql://user@host/database`, without a
                password: that comes from libpq's environment or files (`PGPASSWORD`, `PGPASSFILE`). The study's name
                there is that of the folder, in which each machine has its own runs and a copy of the records. By
                default they meet in the folder.
            devices: how many GPUs each process has.
            retry_failed: run the points that failed again, once each, and nothing else.
            maker: makes this study in another process: a function of a module that is declared to return a `Study`, or
                a `functools.partial` of one. With plain arguments it lets `dynops worker` join on any machine. Needed
                with several workers where the study's own functions are lambdas or closures, which can't be sent.
        Raises:
            StudyError: there is another study or another version of this one, or all workers died.
            SpecError: there are less than one worker, or the study can't be sent to another process.
        """
        said = None if maker is None else described(maker)
        call = Call(folder=folder, storage=storage, maker=said, retry=uuid4().hex if retry_failed else None)
        if workers == 0:
            return self._begun(call)
        if workers == 1:
            return self.work(call)
        return share(maker or partial(replace, self), call, workers, devices)

    def work(self, call: Call, *, hung: Callable[[], None] = lambda: None) -> list[RunRecord]:
        """Be one worker, and return all records when every point is settled.

        Args:
            call: what all workers of one call of `execute` are told.
            hung: called from another thread if a run makes no progress for half an hour.
        Raises:
            StudyError: as in `execute`.
        """
        with closing(shared_at(call.folder, call.storage)) as shared:
            plan = self._stated(shared, call.maker)
            if self.tuning is not None and plan.tuned is None:
                plan = self._tuned(shared, plan, self.tuning, call.retry, hung)
            return self._worked(shared, plan, retry=call.retry, only_failed=call.retry is not None, hung=hung)

    def _worked(self, shared: Shared, plan: Plan, **options: Any) -> list[RunRecord]:
        """Be one worker on a study whose tuning is known; options are those of a `Worker`."""
        worker = Worker(shared, plan, whole_cells=self.run_together is not None, **options)
        return worker.work(partial(self._records, shared.folder))

    def _begun(self, call: Call) -> list[RunRecord]:
        with closing(shared_at(call.folder, call.storage)) as shared:
            plan = self._stated(shared, call.maker)
            with shared.held():
                return reconcile(shared, plan)[1]

    def _stated(self, shared: Shared, maker: str | None = None) -> Plan:
        """Return the plan with which the study starts or goes on; what it states is then on disk."""
        self._recall(shared)
        self.plan()  # measures and checks, before anything is made
        return patiently(shared, partial(self._place, shared, maker))

    def _place(self, shared: Shared, maker: str | None) -> Plan:
        """Put the plan where the workers meet, or find what is there."""
        self._recall(shared)  # another process may have measured meanwhile
        plan = self.plan()
        before = shared.plan()
        if before is None:
            plan = reconcile(shared, plan)[0]
        elif self.tuning is not None and self.tuning.gave(before.tuned):
            plan = self._with(plan, before.tuned)
        if maker is not None:
            shared.remember(maker)
        return plan

    def _recall(self, shared: Shared) -> None:
        """Take the cells that were found by timing from a study that goes on."""
        if (before := shared.plan()) is not None:
            for levels, text in zip(before.cell_levels(), before.measured, strict=False):
                self._made[tuple(levels.values())] = Spec.from_json(text)

    def _tuned(self, shared: Shared, plan: Plan, tuning: Tuning, retry: str | None, hung: Callable[[], None]) -> Plan:
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
        with closing(shared.part(FOLDER)) as part:
            # before all of it is settled nothing can be compared
            records = search._worked(part, search._stated(part), retry=retry, hung=hung)
        return patiently(shared, partial(self._compared, shared, plan, tuning, records))

    def _compared(self, shared: Shared, plan: Plan, tuning: Tuning, records: Sequence[RunRecord]) -> Plan:
        before = shared.plan()
        assert before is not None, "it was stated"
        tuned = before.tuned if tuning.gave(before.tuned) else tuning.tuned(plan, records)
        return reconcile(shared, self._with(plan, tuned))[0]

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

    def _records(
        self,
        folder: Path,
        points: Sequence[DesignPoint],
        plan: Plan,
        progress: Progress,
        alive: Callable[[], None],
    ) -> list[RunRecord]:
        """Run points of one cell, and return the record of each."""
        jobs = [
            Job(
                spec=self._run_in(point.levels, plan),
                seed=point.seed,
                folder=run_folder(folder, point.levels, point.seed),
                first_block=point.seed == plan.seeds[0],
                on_epoch=progress.epoch,
                alive=alive,
            )
            for point in points
        ]
        found = attempt(jobs, self.run, self.run_together)
        return [filed(point, each, self.outcome) for point, each in zip(points, found, strict=True)]
