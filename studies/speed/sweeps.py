"""One axis at a time around one shape: how time grows with pixels, channels, taps, groups, images, and the dtype."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import linregress

from studies.speed.peers import BASE, DIRECTIONS, OWN
from studies.speed.place import DTYPES, Place, Shape

CENTRE = Shape(8, 64, 28, 28, 7, 4)
PEERS = (OWN, BASE)
VALUES: dict[str, tuple[int, ...]] = {
    "size": (7, 14, 28, 56, 112, 224),
    "k": (3, 5, 7, 9, 11, 13, 15),
    "channels": (16, 32, 64, 128, 256, 512),
    "groups": (1, 2, 4, 8, 16, 32, 64),
    "batch": (1, 2, 4, 8, 16, 32),
}
"""What each axis takes; the other axes stay, but that 16 channels share a kernel at any number of channels."""
KINDS = {"cpu": ("float32", "bfloat16", "float64"), "cuda": ("float32", "bfloat16", "float16")}
"""Dtypes by type of device."""
UNITS = {"size": "pixels", "k": "taps", "channels": "channels", "batch": "images"}
"""What time should be proportional to, by axis; sizes and taps a side count squared."""
LAST = 4
"""Points, the largest of an axis, to which a line is fitted: small sums take the time of a call."""


class Point(NamedTuple):
    """One sum of a sweep."""

    axis: str
    value: int | str
    place: Place

    def __str__(self) -> str:
        return f"{self.axis} {self.value}"


class Growth(NamedTuple):
    """How time grows along an axis: as the unit to the power of the slope."""

    slope: float
    error: float
    """Standard error of the slope."""
    points: int


def points(device: torch.device, dtype: torch.dtype) -> list[Point]:
    """List the sums of all sweeps, in order."""
    found = [
        Point(axis, value, Place(shape_at(axis, value), device, dtype))
        for axis, values in VALUES.items()
        for value in values
    ]
    return found + [Point("dtype", name, Place(CENTRE, device, DTYPES[name])) for name in KINDS[device.type]]


def shape_at(axis: str, value: int) -> Shape:
    """Return the shape of one value of an axis."""
    changes: dict[str, dict[str, int]] = {
        "size": {"h": value, "w": value},
        "k": {"k": value},
        "channels": {"c": value, "g": value * CENTRE.g // CENTRE.c},
        "groups": {"g": value},
        "batch": {"b": value},
    }
    return CENTRE._replace(**changes[axis])


def growth(axis: str, found: Mapping[int, Sequence[float]]) -> Growth:
    """Fit a line to the logarithms of median time and unit, at the largest values of an axis.

    Args:
        axis: one of `UNITS`.
        found: seconds of all rounds by value.
    """
    values = sorted(found)[-LAST:]
    power = 2 if axis in ("size", "k") else 1
    fit = linregress(power * np.log(values), np.log([median(found[value]) for value in values]))
    return Growth(float(fit.slope), float(fit.stderr), len(values))


def growths(saved: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Growth]]]:
    """Return the growth by axis, peer and direction, of all sweeps that are complete enough for a line.

    Args:
        saved: what the study kept.
    """
    found: dict[str, dict[str, dict[str, Growth]]] = {}
    for axis in UNITS:
        swept = of_axis(saved, axis)
        if len(swept) < LAST:
            continue
        for peer in PEERS:
            for direction in DIRECTIONS:
                times = {value: timed["peers"][peer][direction] for value, timed in swept.items()}
                numbers = {value: each for value, each in times.items() if not isinstance(each, str)}
                if len(numbers) >= LAST:
                    found.setdefault(axis, {}).setdefault(peer, {})[direction] = growth(axis, numbers)
    return found


def of_axis(saved: Mapping[str, Any], axis: str) -> dict[Any, Any]:
    """Return what was measured along an axis, by value."""
    return {point["value"]: point for point in saved["points"].values() if point.get("axis") == axis}
