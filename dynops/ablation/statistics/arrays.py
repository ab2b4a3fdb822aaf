"""Arrays of values by seed, checked once where the statistics take them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from dynops.errors import ShapeError, SpecError


def finite(name: str, values: ArrayLike, axes: str) -> np.ndarray:
    """Return values as an array of floats with the axes that they must have.

    Args:
        name: what the message calls them.
        values: numbers.
        axes: one word for each axis, separated by blanks; `...` at the end stands for one axis or more.
    Raises:
        ShapeError: the axes are others, or one of them is empty.
        SpecError: a value is not finite.
    """
    array = np.asarray(values, dtype=float)
    words = axes.split()
    fits = array.ndim >= len(words) if words[-1] == "..." else array.ndim == len(words)
    if not fits or not array.size:
        raise ShapeError(f"{name} has shape {array.shape}: must have the axes `{axes}`, none of them empty.")
    if not np.isfinite(array).all():
        place = tuple(int(index) for index in np.argwhere(~np.isfinite(array))[0])
        raise SpecError(f"{name} has {array[place]} at {place}: must be finite. Leave incomplete seeds out.")
    return array


def check_seeds(name: str, values: Sequence[object] | np.ndarray, least: int) -> None:
    """Raise a SpecError unless there are values of `least` seeds or more, along the first axis."""
    if len(values) < least:
        raise SpecError(f"{name} has {len(values)} seeds: must have {least} or more.")


def check_level(level: float) -> None:
    """Raise a SpecError unless a level of error is one."""
    if not 0 < level < 0.5:
        raise SpecError(f"level has {level}: must lie between 0 and 0.5.")
