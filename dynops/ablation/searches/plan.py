"""The plan of a search: what is varied, what is sought, and how points are proposed; and the file that keeps it.

The file is `records.jsonl`, as in a study: the plan in the first line, then one record a line.
"""

import math
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path

from dynops.ablation.designs import Levels
from dynops.ablation.reporting.results import SCALES
from dynops.ablation.store import read_planned
from dynops.errors import RecordError, SpecError
from dynops.records import RunRecord
from dynops.specs import Spec, at_least, one_of, spec

COSTS = ("parameters", "macs", "step_milliseconds")
"""Objectives that a record holds beside its metrics."""
SAMPLERS = ("tpe", "nsga2", "random")


@spec
class Objective(Spec):
    """What a search seeks: a metric of the record, or one of its costs, and which way."""

    metric: str = field(kw_only=False)
    """A metric of the record, such as `accuracy`, or a cost: `parameters`, `macs`, `step_milliseconds`."""
    direction: str = field(kw_only=False)
    """`maximise` or `minimise`."""
    unit: str = "raw"
    """`points` shows a share in hundredths, `raw` shows the number as it is."""

    def __post_init__(self) -> None:
        one_of("direction", self.direction, ("maximise", "minimise"))
        one_of("unit", self.unit, tuple(SCALES))

    def of(self, record: RunRecord) -> float:
        """Read the objective off a record.

        Raises:
            RecordError: the record does not hold it.
        """
        if self.metric in COSTS:
            return float(getattr(record, self.metric))
        if self.metric not in record.metrics:
            raise RecordError(f"record has metrics {sorted(record.metrics)}: must hold {self.metric!r}, an objective.")
        return record.metrics[self.metric]


@spec
class Numbers(Spec):
    """A factor whose levels are numbers, as the report sees it."""

    name: str = field(kw_only=False)
    """Name of the factor."""
    low: float
    """Least level."""
    high: float
    """Largest level."""
    log: bool = False
    """Whether levels are drawn evenly on the logarithmic scale."""
    whole: bool = False
    """Whether levels are integers."""

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf:
            raise SpecError(f"factor {self.name} has low={self.low}, high={self.high}: low must be below high, finite.")
        if self.log and self.low <= 0:
            raise SpecError(f"factor {self.name} has low={self.low}: must be positive on a logarithmic scale.")
        if self.whole and not (float(self.low).is_integer() and float(self.high).is_integer()):
            raise SpecError(
                f"factor {self.name} has low={self.low}, high={self.high}: must be integers, as all levels."
            )
        self.ends()  # it checks the name

    def ends(self) -> Levels:
        """Return the factor with its ends alone."""
        return Levels(self.name, (self.text(self.low), self.text(self.high)))

    def text(self, number: float) -> str:
        """Write a level as a record has it; nothing of it is lost."""
        return repr(int(number) if self.whole else float(number))

    def number(self, level: str) -> int | float:
        """Read a level back from a record."""
        return int(level) if self.whole else float(level)


@spec
class SearchPlan(Spec):
    """All that is decided before the first run of a search."""

    name: str
    """Name of the search."""
    question: str
    """What it asks, in one sentence."""
    factors: tuple[Levels | Numbers, ...]
    """What is varied."""
    objectives: tuple[Objective, ...]
    """What is sought; the first one is the outcome, which figures set against the others."""
    trials: int
    """How many different points are tried."""
    seeds: tuple[int, ...] = (0,)
    """Each point is run once with each; its objectives are means over them."""
    sampler: str = "tpe"
    """What proposes points: `tpe`, `nsga2` or `random`."""
    sampler_seed: int = 0
    """Of all that the sampler draws."""
    startup: int = 10
    """Results before the sampler learns: a random start for `tpe`, the size of a generation for `nsga2`."""
    pruning: bool = False
    """Whether a run is ended whose outcome is below the median of the earlier trials at the same epoch."""
    constraint: str = ""
    """What every point obeys, in words; others are not sampled."""
    fingerprints: tuple[str, ...] = ()
    """Of the base, and of the base with each single level; `-` for a level that the base refuses."""

    def __post_init__(self) -> None:
        one_of("sampler", self.sampler, SAMPLERS)
        at_least("trials", self.trials, 1)
        at_least("startup", self.startup, 2)
        at_least("sampler_seed", self.sampler_seed, 0)
        for seed in self.seeds:
            at_least("seed", seed, 0)
        _different("seeds", self.seeds)
        _different("factors", [factor.name for factor in self.factors])
        _different("objectives", [objective.metric for objective in self.objectives])
        if self.pruning:
            _check_pruning(self)

    @property
    def outcome(self) -> Objective:
        """The first objective."""
        return self.objectives[0]

    @property
    def size(self) -> float:
        """How many points there are; infinite with a range of numbers."""
        return math.prod(len(each.levels) if isinstance(each, Levels) else math.inf for each in self.factors)


def _different(name: str, values: Sequence[object]) -> None:
    if not values or len(set(values)) != len(values):
        raise SpecError(f"{name} has {tuple(values)}: must be one or more, all different.")


def _check_pruning(plan: SearchPlan) -> None:
    sought = [objective.metric for objective in plan.objectives]
    if len(sought) > 1 or sought[0] in COSTS:
        raise SpecError(
            f"pruning has True, objectives has {', '.join(sought)}: must be one metric that every epoch has. "
            "Seek that alone, or do not prune."
        )
    if len(plan.seeds) > 1:
        raise SpecError(f"pruning has True, seeds has {plan.seeds}: must be one seed. Take one, or do not prune.")


def read_search(path: Path) -> tuple[SearchPlan, list[RunRecord]]:
    """Read a search's plan and records; a torn last line, left by a kill while it was written, is passed over.

    Args:
        path: the search's folder, or its `records.jsonl`.
    Raises:
        StudyError: there is no such file, or its first line holds no plan of a search.
        RecordError: a whole line is not a record; nothing is changed on disk.
    """
    return read_planned(path, SearchPlan, "search")
