"""Designs: factors as the attribution sees them, and which of their cells are run."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import field
from itertools import combinations, product
from math import isfinite

from dynops.errors import SpecError
from dynops.specs import Spec, at_least, spec

Cell = dict[str, str]
"""The level of each factor."""


@spec
class Levels(Spec):
    """A factor as the attribution sees it: its name and the names of its levels, the baseline first."""

    name: str = field(kw_only=False)
    """Name of the factor."""
    levels: tuple[str, ...] = field(kw_only=False)
    """Names of the levels; the first one is the baseline."""
    scale: tuple[float, ...] = ()
    """What each level measures, such as the share of the data or the width; empty where levels have no order."""

    def __post_init__(self) -> None:
        if len(self.levels) < 2 or len(set(self.levels)) != len(self.levels):
            raise SpecError(f"factor {self.name} has levels {self.levels}: must be two or more, all different.")
        for text in (self.name, *self.levels):
            if not text or set(text) & set(",=/\\ \n"):
                raise SpecError(
                    f"factor has name or level {text!r}: must be a word without blanks, `,`, `=` and slashes."
                )
        if self.scale and (
            len(set(self.scale)) != len(self.levels) or not all(each > 0 and isfinite(each) for each in self.scale)
        ):
            raise SpecError(
                f"factor {self.name} has scale {self.scale}: must be one positive number a level, all different."
            )


class Design(Spec, ABC):
    """Base of all designs: which combinations of levels are run."""

    __slots__ = ()

    @abstractmethod
    def cells(self, factors: Sequence[Levels]) -> list[Cell]:
        """Return the levels of every cell that is run, the last factor changing fastest.

        Raises:
            SpecError: the design does not fit the factors.
        """


@spec
class FullFactorial(Design):
    """Every combination of levels: all effects and interactions can be told apart."""

    def cells(self, factors: Sequence[Levels]) -> list[Cell]:
        return _crossed(factors)


@spec
class Fraction(Design):
    """A regular fraction of a factorial of two-level factors, as small as a resolution allows.

    With resolution 4 main effects are told apart from each other and from pairwise interactions, which stand for each
    other in groups; with resolution 5 these are told apart, too. Each factor is a column of signs; a set of columns
    has resolution R if no R - 1 of them multiply to one sign. The first columns are the base's, each further one is
    the product of the base's columns that comes first and keeps the resolution.

    Source: Box and Hunter, The 2^(k-p) fractional factorial designs, Technometrics 3, 1961.
    """

    resolution: int = 4
    """Length of the shortest product of factors that is constant: 3, 4 or 5."""

    def __post_init__(self) -> None:
        at_least("resolution", self.resolution, 3)
        if self.resolution > 5:
            raise SpecError(f"resolution has {self.resolution}: must be 3, 4 or 5. Run the full factorial instead.")

    def cells(self, factors: Sequence[Levels]) -> list[Cell]:
        for factor in factors:
            if len(factor.levels) != 2:
                raise SpecError(
                    f"factor {factor.name} has {len(factor.levels)} levels, design is a fraction: must have two. "
                    "Take two of them, or the full factorial."
                )
        base, columns = _columns(len(factors), self.resolution)
        runs = [
            {
                factor.name: factor.levels[(column & run).bit_count() % 2]
                for factor, column in zip(factors, columns, strict=True)
            }
            for run in range(2**base)
        ]
        order = {tuple(cell.values()): place for place, cell in enumerate(_crossed(factors))}
        return sorted(runs, key=lambda cell: order[tuple(cell.values())])


@spec
class OneFactor(Design):
    """The baseline with one factor let in, and the target with one factor left out.

    The target has the last level of each factor. With four factors or more all contrasts are simple effects: at the
    baseline, of factors let in, and at the target, of factors left out.
    """

    ways: tuple[str, ...] = ("in", "out")
    """`in`: each other level alone beside the baseline's; `out`: each other level in the place of the target's."""

    def __post_init__(self) -> None:
        if not self.ways or set(self.ways) - {"in", "out"} or len(set(self.ways)) < len(self.ways):
            raise SpecError(f"ways has {self.ways}: must be 'in', 'out' or both.")

    def cells(self, factors: Sequence[Levels]) -> list[Cell]:
        ends = {"in": {each.name: each.levels[0] for each in factors}}
        ends["out"] = {each.name: each.levels[-1] for each in factors}
        chosen = [ends[way] for way in self.ways]
        chosen += [ends[way] | {each.name: level} for way in self.ways for each in factors for level in each.levels]
        return [cell for cell in _crossed(factors) if cell in chosen]


def crossed_with(cells: Sequence[Cell], regimes: Sequence[Levels], order: Sequence[str]) -> list[Cell]:
    """Return every cell in every regime, the factors in an order."""
    return [{name: (cell | regime)[name] for name in order} for cell, regime in product(cells, _crossed(regimes))]


def _crossed(factors: Sequence[Levels]) -> list[Cell]:
    names = [factor.name for factor in factors]
    return [dict(zip(names, levels, strict=True)) for levels in product(*(factor.levels for factor in factors))]


def _columns(factors: int, resolution: int) -> tuple[int, list[int]]:
    """Return the size of the smallest base, and a column for each factor as a set of the base's, in bits."""
    for base in range(1, factors + 1):
        columns: list[int] = [1 << place for place in range(base)]
        for candidate in range(1, 2**base):
            if len(columns) >= factors:
                return base, columns[:factors]
            if candidate not in columns and not _is_product(candidate, columns, resolution - 2):
                columns.append(candidate)
        if len(columns) >= factors:
            return base, columns[:factors]
    raise AssertionError("a base of all factors is a full factorial")


def _is_product(candidate: int, columns: Sequence[int], most: int) -> bool:
    """Whether a column is the product of at most so many others."""
    for number in range(2, most + 1):
        for chosen in combinations(columns, number):
            total = 0
            for column in chosen:
                total ^= column
            if total == candidate:
                return True
    return False
