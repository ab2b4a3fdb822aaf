"""Factors: what a study varies, each level a function from spec to spec."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dynops.ablation.plan import Levels
from dynops.specs import Spec


@dataclass(frozen=True)
class Factor:
    """One thing that a study varies: its levels change the base by one field each."""

    name: str
    """Name of the factor."""
    levels: Mapping[str, Callable[[Any], Spec]]
    """The levels by name, the baseline first; each makes its spec from the base."""

    def plan(self) -> Levels:
        """Return the factor as plain data."""
        return Levels(self.name, tuple(self.levels))
