"""The plan of a study: what is compared, on which blocks, by which outcome, and which hypotheses it must settle.

A plan is a spec, plain data: it is written before the first run, and the attribution needs it and the records only.
"""

import math
from dataclasses import field
from itertools import product

from dynops.errors import SpecError
from dynops.records import cell_name
from dynops.specs import Spec, at_least, one_of, spec


@spec
class Levels(Spec):
    """A factor as the attribution sees it: its name and the names of its levels, the baseline first."""

    name: str = field(kw_only=False)
    """Name of the factor."""
    levels: tuple[str, ...] = field(kw_only=False)
    """Names of the levels; the first one is the baseline."""

    def __post_init__(self) -> None:
        if len(self.levels) < 2 or len(set(self.levels)) != len(self.levels):
            raise SpecError(f"factor {self.name} has levels {self.levels}: must be two or more, all different.")
        for text in (self.name, *self.levels):
            if not text or set(text) & set(",=/\\ \n"):
                raise SpecError(
                    f"factor has name or level {text!r}: must be a word without blanks, `,`, `=` and slashes."
                )


@spec
class Difference(Spec):
    """Outcome at one level of a factor minus outcome at another, averaged over the cells of the other factors.

    A main effect where `at` is empty; a simple effect where `at` fixes all other factors.
    """

    factor: str = field(kw_only=False)
    """Name of the factor that changes."""
    high: str = field(kw_only=False)
    """Level that is added."""
    low: str = field(kw_only=False)
    """Level that is subtracted."""
    at: tuple[tuple[str, str], ...] = ()
    """Other factors that are held, as (factor, level)."""


@spec
class Interaction(Spec):
    """Half the difference of differences: how far one factor's effect depends on another factor's level.

    ((hh - lh) - (hl - ll)) / 2 for the levels high, low of both factors, averaged over the cells of the other factors.
    """

    first: Difference = field(kw_only=False)
    """The one factor and its two levels."""
    second: Difference = field(kw_only=False)
    """The other factor and its two levels."""


Contrast = Difference | Interaction


@spec
class Exceeds(Spec):
    """The claim that a sum of contrasts is larger than a margin."""

    contrasts: tuple[Contrast, ...] = field(kw_only=False)
    """Contrasts whose sum is judged."""
    margin: float = 0.0
    """In units of the outcome."""

    def __post_init__(self) -> None:
        if not self.contrasts:
            raise SpecError("contrasts has (): Exceeds must hold one or more.")


@spec
class Bounded(Spec):
    """The claim |contrast| <= ratio * |by|, both signs open."""

    contrast: Contrast = field(kw_only=False)
    """The contrast that is claimed to be small."""
    by: Contrast = field(kw_only=False)
    """The contrast that bounds it."""
    ratio: float
    """How large a share of `by` it may reach."""

    def __post_init__(self) -> None:
        if not 0 < self.ratio < math.inf:
            raise SpecError(f"ratio has {self.ratio}: must be positive and finite.")


@spec
class Hypothesis(Spec):
    """A claim that a study must settle: supported where all its parts hold, refuted where one surely does not."""

    name: str = field(kw_only=False)
    """Short name, such as `H1`."""
    claim: str = field(kw_only=False)
    """The claim in words."""
    parts: tuple[Exceeds | Bounded, ...] = field(kw_only=False)
    """The claim in contrasts."""

    def __post_init__(self) -> None:
        if not self.parts:
            raise SpecError(f"hypothesis {self.name} has parts=(): must have one or more.")


@spec
class Plan(Spec):
    """All that is decided before the first run."""

    name: str
    """Name of the study."""
    question: str
    """What it asks, in one sentence."""
    factors: tuple[Levels, ...]
    """The factors of the full factorial."""
    seeds: tuple[int, ...]
    """The blocks; each cell runs once with each seed."""
    first_seeds: tuple[int, ...] = ()
    """The blocks of the first plan, if more were added to a study that had begun; its verdicts then are exploratory."""
    outcome: str = "accuracy"
    """The metric that is compared."""
    unit: str = "points"
    """Unit of the effects: `points` shows a share in hundredths, `raw` shows the metric as it is."""
    higher_is_better: bool = True
    """Whether a larger outcome is a gain."""
    budget: str = "as is"
    """How cells are made comparable: `as is` compares them with the costs that they have."""
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

    def __post_init__(self) -> None:
        one_of("unit", self.unit, ("points", "raw"))
        one_of("budget", self.budget, ("as is",))
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

    def cell_levels(self) -> list[dict[str, str]]:
        """Return the levels of every cell, the last factor changing fastest."""
        names = [factor.name for factor in self.factors]
        return [dict(zip(names, levels, strict=True)) for levels in product(*(f.levels for f in self.factors))]

    def cell_names(self) -> list[str]:
        """Return the name of every cell, in the order of `cell_levels`."""
        return [cell_name(levels) for levels in self.cell_levels()]
