"""Factors: what a study varies, each level a function from spec to spec."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dynops.ablation.designs import Levels
from dynops.specs import Spec


@dataclass(frozen=True)
class Factor:
    """One thing that a study varies: its levels change the base by one field each."""

    name: str
    """Name of the factor."""
    levels: Mapping[str, Callable[[Any], Spec]]
    """The levels by name, the baseline first; each makes its spec from the base."""
    scale: Sequence[float] = ()
    """What each level measures, such as the share of the data or the width; empty where levels have no order."""

    def plan(self) -> Levels:
        """Return the factor as plain data."""
        return Levels(self.name, tuple(self.levels), scale=tuple(float(each) for each in self.scale))
