"""Where an effect changes its sign on a scale, such as the share of the data or the width.

Values are those of a contrast, `n m`: in each of n seeds, at each of m scales. All is linear in log2(scale).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from dynops.ablation.contrasts import ROUNDING
from dynops.ablation.statistics.arrays import check_level, finite
from dynops.ablation.verdicts import FEWEST_SEEDS
from dynops.errors import ShapeError, SpecError

Reach = Literal["closed", "open below", "open above", "open", "empty", "unknown"]


@dataclass(frozen=True, kw_only=True)
class SignChange:
    """The scale at which an effect changes its sign."""

    crossings: int
    """How often the mean effect changes its sign from the smallest scale to the largest."""
    estimate: float | None
    """Where it does; None unless it does exactly once."""
    low: float | None
    """Smallest scale that may be it; None if that lies beyond the scales, or there is none."""
    high: float | None
    """Largest scale that may be it; None if that lies beyond the scales, or there is none."""
    reach: Reach
    """Whether the interval is `closed`, or open on a side where the smallest or largest scale may be it; `empty`: no
    scale that was measured or lies between may be it; `unknown`: fewer than three seeds."""

    @property
    def single(self) -> bool:
        """Whether the mean effect changes its sign exactly once."""
        return self.crossings == 1


def sign_change(values: ArrayLike, scale: Sequence[float], level: float = 0.05) -> SignChange:
    """Return the scale at which an effect changes its sign.

    Between two scales the effect is interpolated in log2(scale), in each seed. The interval holds all points of the
    axis at which the t test over seeds does not reject an effect of 0, and what lies between them. So it covers the
    sign change of the interpolated effect with a chance of 1 - level or more, wherever that is: 95 % from eight seeds
    on, 97 and 99 % with five and three, where it is mostly open. A curve that bends between two scales has its sign
    change elsewhere.

    Args:
        values: the effect, `n m`, in units of the outcome.
        scale: the m scales, positive and all different, in any order.
        level: chance that the interval misses the sign change.
    Raises:
        ShapeError: values and scale do not fit together.
        SpecError: values are not finite, or the scales are not positive and different.
    Source: Fieller, Some problems in interval estimation, J. R. Stat. Soc. B 16, 1954, in each segment.
    """
    table, axis = _table(values, scale)
    check_level(level)
    crossings, place = _crossings(table.mean(0), axis)
    estimate = None if place is None else float(2**place)
    if len(table) < FEWEST_SEEDS:
        return SignChange(crossings=crossings, estimate=estimate, low=None, high=None, reach="unknown")
    points = list(_accepted(table, axis, level))
    if not points:
        return SignChange(crossings=crossings, estimate=estimate, low=None, high=None, reach="empty")
    below, above = min(points) == axis[0], max(points) == axis[-1]
    reach: Reach = "open" if below and above else "open below" if below else "open above" if above else "closed"
    return SignChange(
        crossings=crossings,
        estimate=estimate,
        low=None if below else float(2 ** min(points)),
        high=None if above else float(2 ** max(points)),
        reach=reach,
    )


def _crossings(mean: np.ndarray, axis: np.ndarray) -> tuple[int, float | None]:
    """Return how often means change their sign along an axis, and where if it is once; a 0 has no sign."""
    signed = np.flatnonzero(mean)
    changes = [(left, right) for left, right in pairwise(signed) if mean[left] * mean[right] < 0]
    if len(changes) != 1:
        return len(changes), None
    left, right = changes[0]
    if right > left + 1:
        return 1, float(axis[left + 1 : right].mean())
    return 1, float(axis[left] + (axis[right] - axis[left]) * mean[left] / (mean[left] - mean[right]))


def _accepted(table: np.ndarray, axis: np.ndarray, level: float) -> Iterator[float]:
    """Yield the ends of the pieces of an axis on which the t test does not reject 0.

    With w from 0 to 1 between two scales the effect is a + w b, and the test accepts where
    mean(a + w b)^2 <= t^2 var(a + w b) / n: a quadratic inequality, p w^2 + 2 q w + r <= 0.
    """
    ratio = stats.t.ppf(1 - level / 2, len(table) - 1) ** 2 / len(table)
    for left in range(len(axis) - 1):
        start, rise = table[:, left], table[:, left + 1] - table[:, left]
        cov = ratio * np.cov(start, rise)
        a, b = start.mean(), rise.mean()
        p, q, r = b * b - cov[1, 1], a * b - cov[0, 1], a * a - cov[0, 0]
        size = a * a + cov[0, 0], b * b + cov[1, 1]
        found = _roots(p, q, r, ROUNDING * size[0] * size[1])
        if r <= ROUNDING * size[0]:
            found.append(0.0)
        if p + 2 * q + r <= ROUNDING * (size[0] + size[1]):
            found.append(1.0)
        for w in found:
            if 0 <= w <= 1:
                yield float(axis[left + 1]) if w == 1 else float(axis[left] + w * (axis[left + 1] - axis[left]))


def _roots(p: float, q: float, r: float, rounding: float) -> list[float]:
    """Return where p w^2 + 2 q w + r is 0; a discriminant that is only rounding is 0."""
    square = q * q - p * r
    if square < -rounding:
        return []
    far = -(q + np.copysign(np.sqrt(square if square > rounding else 0.0), q))
    roots = [(far, p), (r, far)] if square > rounding else [(-q, p)]
    return [float(over / under) for over, under in roots if under]


def _table(values: ArrayLike, scale: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    table, scales = finite("values", values, "n m"), finite("scale", scale, "m")
    if table.shape[1] != len(scales):
        raise ShapeError(f"values has {table.shape[1]} columns, scale has {len(scales)} scales: must be as many.")
    if len(scales) < 2 or scales.min() <= 0 or len(np.unique(scales)) < len(scales):
        raise SpecError(f"scale has {tuple(map(float, scales))}: must be two or more, positive and all different.")
    order = np.argsort(scales)
    return table[:, order], np.log2(scales[order])
