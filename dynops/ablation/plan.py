"""The plan of a study: what is compared, on which blocks, by which outcome, and which hypotheses it must settle.

A plan is a spec, plain data: it is written before the first run, and the attribution needs it and the records only.
"""

from dataclasses import dataclass, field, fields

from dynops.ablation.claims import Contrast, Difference, Hypothesis
from dynops.ablation.designs import Cell, Design, FullFactorial, Levels, crossed_with
from dynops.errors import SpecError
from dynops.records import cell_name, point_id
from dynops.specs import Spec, at_least, of_kind, one_of, spec

BUDGETS = ("as_is", "parameters", "macs", "latency")


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


@spec
class Tuned(Spec):
    """What was tuned for each cell before the comparison, on held-out training data."""

    factor: Levels = field(kw_only=False)
    """What was tuned, and the candidates."""
    seeds: tuple[int, ...] = field(kw_only=False)
    """With which each candidate was trained in each cell."""
    scores: tuple[tuple[tuple[float | None, ...], ...], ...]
    """Outcome of each seed, for each candidate, for each cell in the order of `cell_levels`; None without a result."""
    chosen: tuple[str, ...]
    """The candidate that each cell has in the comparison."""


@spec
class Statement(Spec):
    """What a study claims and how it will be judged; fields as in `Plan`."""

    question: str
    outcome: str
    higher_is_better: bool
    margin: float
    level: float
    family: tuple[Contrast, ...]
    hypotheses: tuple[Hypothesis, ...]
    change: tuple[Difference, ...]
    seeds: tuple[int, ...]


STATED = tuple(each.name for each in fields(Statement))


@spec
class Registration(Spec):
    """The statement of a study as it was before its first run."""

    statement: Statement = field(kw_only=False)
    """What was stated."""
    time: str = field(kw_only=False)
    """When, in UTC."""
    hash: str = field(kw_only=False)
    """Fingerprint of the statement; Optuna's storage holds it as well."""

    def __post_init__(self) -> None:
        if self.hash != self.statement.fingerprint():
            raise SpecError(
                f"registration has hash {self.hash}, its statement {self.statement.fingerprint()}: must be equal. The "
                "statement was edited after it was written: restore it."
            )


@spec
class Plan(Spec):
    """All that is decided before the first run."""

    name: str
    """Name of the study."""
    question: str
    """What it asks, in one sentence."""
    factors: tuple[Levels, ...]
    """What is varied."""
    seeds: tuple[int, ...]
    """The blocks; each cell runs once with each seed."""
    design: Design = FullFactorial()
    """Which combinations of levels are run, in every regime."""
    regimes: tuple[str, ...] = ()
    """Factors that are not in question, but under which the others are studied: data sets, shares of the data, widths.
    Effects are shown in each of their levels and pooled over them."""
    outcome: str = "accuracy"
    """The metric that is compared."""
    unit: str = "points"
    """Unit of the effects: `points` shows a share in hundredths, `raw` shows the metric as it is."""
    higher_is_better: bool = True
    """Whether a larger outcome is a gain."""
    budget: str = "as_is"
    """How cells are made comparable: `as_is` leaves each its own cost; `parameters`, `macs` or `latency` gave each cell
    the width at which it costs what the base costs."""
    margin: float = 0.0
    """Half-width of the region in which two cells count as equivalent, in units of the outcome."""
    level: float = 0.05
    """Error level of the whole family of hypotheses, and of each table."""
    family: tuple[Contrast, ...] = ()
    """The effects that are confirmatory; all others are exploratory."""
    hypotheses: tuple[Hypothesis, ...] = ()
    """What the study must settle."""
    change: tuple[Difference, ...] = ()
    """The whole change whose gain is shared out among its parts: the level after and before of each factor in it."""
    cells: tuple[str, ...] = ()
    """Fingerprints of what each cell runs, in the order of `cell_levels`."""
    measured: tuple[str, ...] = ()
    """What each cell runs before any tuning, as JSON, where its width was found by timing; a study that goes on keeps
    it, since times never come twice."""
    tuned: Tuned | None = None
    """What each cell was tuned to; None where all have the base's settings."""
    registration: Registration | None = None
    """What was stated before the first run; None in a plan that was never executed."""

    def __post_init__(self) -> None:
        one_of("unit", self.unit, ("points", "raw"))
        one_of("budget", self.budget, BUDGETS)
        of_kind("design", self.design, Design)
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise SpecError(f"seeds has {self.seeds}: must be one or more, all different.")
        for seed in self.seeds:
            at_least("seed", seed, 0)
        if not self.margin >= 0:
            raise SpecError(f"margin has {self.margin}: must not be negative.")
        if not 0 < self.level < 0.5:
            raise SpecError(f"level has {self.level}: must lie between 0 and 0.5.")
        names = [factor.name for factor in self.factors]
        if not names or len(set(names)) != len(names):
            raise SpecError(f"factors has {names}: must be one or more, with different names.")
        for name in self.regimes:
            one_of("regimes", name, tuple(names))
        if set(self.regimes) == set(names):
            raise SpecError(f"regimes has {self.regimes}, all factors: must leave one that is in question.")

    def factor(self, name: str) -> Levels:
        """Return the factor of a name."""
        return next(factor for factor in self.factors if factor.name == name)

    def cell_levels(self) -> list[Cell]:
        """Return the levels of every cell that is run, the last factor that is in question changing fastest."""
        studied = [factor for factor in self.factors if factor.name not in self.regimes]
        regimes = [factor for factor in self.factors if factor.name in self.regimes]
        return crossed_with(self.design.cells(studied), regimes, [factor.name for factor in self.factors])

    def cell_names(self) -> list[str]:
        """Return the name of every cell, in the order of `cell_levels`."""
        return [cell_name(levels) for levels in self.cell_levels()]

    def points(self) -> list[DesignPoint]:
        """Return the design, block after block, so that a cut-off study is balanced."""
        cells = self.cell_levels()
        return [DesignPoint(levels=levels, seed=seed) for seed in self.seeds for levels in cells]

    def statement(self) -> Statement:
        """Return what the plan claims and how it will be judged."""
        return Statement(**{name: getattr(self, name) for name in STATED})

    def changes(self) -> list[str]:
        """Say what is stated otherwise than it was registered, one sentence each; none where nothing is."""
        if self.registration is None:
            return []
        was, now = self.registration.statement, self.statement()
        return [
            sentence
            for name in STATED
            if getattr(was, name) != getattr(now, name)
            for sentence in _difference(name, getattr(was, name), getattr(now, name))
        ]


def _difference(name: str, was: object, now: object) -> list[str]:
    if name == "seeds":
        assert isinstance(was, tuple)
        assert isinstance(now, tuple)
        number = len(set(now) - set(was))
        return [f"{number} {'seed was' if number == 1 else 'seeds were'} added"]
    if name != "hypotheses":
        return [f"{name} was {was!r}, is {now!r}"]
    assert isinstance(was, tuple)
    assert isinstance(now, tuple)
    before, after = ({each.name: each for each in stated} for stated in (was, now))
    said = []
    for each in dict.fromkeys([*before, *after]):
        if each not in after:
            said.append(f"{each} was dropped")
        elif each not in before:
            said.append(f"{each} was added")
        elif before[each] != after[each]:
            said.append(f"{each} was changed")
    return said or ["the hypotheses were put in another order"]
