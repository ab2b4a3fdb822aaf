"""Contrasts of cells, and the claims about them that a study must settle: plain data, stated before the first run."""

import math
from dataclasses import field

from dynops.errors import SpecError
from dynops.specs import Spec, spec


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


@spec
class Slope(Spec):
    """How much an effect grows with each doubling of a factor that has a scale, such as data or width.

    The least-squares slope of the effect at each level over log2 of what the level measures.
    """

    effect: Difference | Interaction = field(kw_only=False)
    """The effect, of other factors."""
    along: str = field(kw_only=False)
    """Name of the factor with a scale."""


Contrast = Difference | Interaction | Slope


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
class Within(Spec):
    """The claim that a contrast is smaller than a margin, whatever its sign: that a change costs nothing."""

    contrast: Contrast = field(kw_only=False)
    """The contrast that is claimed to be nothing."""
    margin: float
    """In units of the outcome."""

    def __post_init__(self) -> None:
        if not 0 < self.margin < math.inf:
            raise SpecError(f"margin has {self.margin}: must be positive and finite.")


Claim = Exceeds | Bounded | Within


@spec
class Hypothesis(Spec):
    """A claim that a study must settle: supported where all its parts hold, refuted where one surely does not."""

    name: str = field(kw_only=False)
    """Short name, such as `H1`."""
    claim: str = field(kw_only=False)
    """The claim in words."""
    parts: tuple[Claim, ...] = field(kw_only=False)
    """The claim in contrasts."""

    def __post_init__(self) -> None:
        if not self.parts:
            raise SpecError(f"hypothesis {self.name} has parts=(): must have one or more.")
