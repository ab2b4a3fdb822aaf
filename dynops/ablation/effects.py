"""Effects of a study's factors, and verdicts on its hypotheses, from its records alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from dynops.ablation.plan import Contrast


@dataclass(frozen=True, kw_only=True)
class CellSummary:
    """One cell over its seeds."""

    name: str
    """The levels, as in `cell_name`."""
    levels: Mapping[str, str]
    """The level of each factor."""
    n: int
    """Number of results."""
    mean: float | None
    """Mean outcome, in units of the outcome; None without a result."""
    interval: tuple[float, float] | None
    """95 % t interval of the mean over seeds; None below three results."""
    diverged: int
    """How many of the results diverged (they count as a trivial predictor)."""
    failed: int
    """How many design points have a failure and no result."""
    parameters: int
    """Trainable parameters."""
    macs: int
    """Multiply-accumulates of one forward pass over one input."""
    step_milliseconds: float
    """Median over the seeds of the time of a training step."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """One contrast with its t interval over seeds."""

    name: str
    """Such as `kernel: pixel - constant`, or `... at channels=grouped`, or `kernel x channels: ...`."""
    kind: Literal["main", "simple", "interaction", "claim"]
    """What it is; `claim` is a part of a hypothesis."""
    contrast: Contrast | None
    """The contrast; None for a combination of contrasts."""
    in_family: bool
    """Whether the plan states it as confirmatory: only then is it Holm-adjusted."""
    by_seed: Mapping[int, float]
    """The contrast's value in each complete seed."""
    dropped: tuple[int, ...]
    """Seeds that lack a cell which the contrast needs."""
    estimate: float | None
    """Mean over seeds, in units of the outcome; None without a complete seed."""
    interval: tuple[float, float] | None
    """t interval at 1 - level; None below three seeds, where no interval can be trusted."""
    p: float | None
    """Two-sided p-value of no effect; None below three seeds."""
    p_holm: float | None
    """p after Holm over the family; None outside it."""
    p_equivalence: float | None
    """p-value of the two one-sided tests against the plan's margin; None below three seeds or without a margin."""
    verdict: Literal["differs", "equivalent", "undecided"]
    """`differs`: adjusted p below the level; `equivalent`: inside the margin; never "no effect"."""
    seeds_needed: int | None
    """How many seeds in all an undecided effect needs for 80 % power at its present size; None if decided or unknown."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the study says about one hypothesis."""

    name: str
    claim: str
    verdict: Literal["supported", "refuted", "undecided"]
    p_supported: float | None
    """Holm-adjusted p-value of the test that would support it; None below three seeds."""
    p_refuted: float | None
    """Holm-adjusted p-value of the test that would refute it; None below three seeds."""
    parts: tuple[Effect, ...]
    """The combinations of contrasts that were tested, with the margin taken off."""
    seeds_needed: int | None
    """How many seeds in all an undecided hypothesis needs; None if decided or unknown."""


@dataclass(frozen=True, kw_only=True)
class Effects:
    """All that the records of a study say."""

    outcome: str
    unit: Literal["points", "raw"]
    level: float
    margin: float
    cells: tuple[CellSummary, ...]
    effects: tuple[Effect, ...]
    verdicts: tuple[Verdict, ...]
