"""Where outputs look on a grid, as numbers: how many taps see each pixel inside and outside."""

from dataclasses import dataclass

import numpy as np
import torch

from dynops.ops.blocks import Block, Common, Global
from dynops.ops.geometry import Geometry, Size
from dynops.ops.window import Window


@dataclass(frozen=True, kw_only=True, eq=False)
class Look:
    """The taps of one output on its input's last two dimensions; a sequence has one row."""

    taps: np.ndarray
    """Number of taps that see each pixel, `h w` with a margin outside the input on all sides."""
    inside: np.ndarray
    """Which of these are pixels of the input."""
    own: tuple[float, float] | None
    """Row and column of the output itself, counted from the input's first pixel; None where outputs are no pixels."""


def outputs_shown(grid: Size) -> dict[str, Size]:
    """Choose three outputs, in the middle of those dimensions that are not drawn.

    >>> outputs_shown((9, 11))
    {'corner': (0, 0), 'edge': (0, 5), 'middle': (4, 5)}
    """
    middle = tuple(length // 2 for length in grid)
    if len(grid) == 1:
        return {"first": (0,), "middle": middle, "last": (grid[0] - 1,)}
    front = middle[:-2]
    return {"corner": (*front, 0, 0), "edge": (*front, 0, middle[-1]), "middle": middle}


def looks(window: Geometry, size: Size, outputs: list[Size]) -> list[Look]:
    """Find the taps of outputs, with one margin for all; a mask leaves out what lies outside.

    Args:
        window: where to look.
        size: the grid that is looked at.
        outputs: positions on the output's grid.
    """
    axes = range(max(window.dims - 2, 0), window.dims)
    tables = {axis: _aims(window, size, axis) for axis in axes}
    seen = {axis: [table[position[axis]] for position in outputs] for axis, table in tables.items()}
    margin = 0
    if not window.masked:
        margin = max(0, *(_beyond(taps, size[axis]) for axis in axes for taps in seen[axis]))
    found = []
    for number, position in enumerate(outputs):
        counts = [_counted(seen[axis][number], size[axis], margin) for axis in axes]
        own = [position[axis] * window.strides[axis] for axis in axes]
        if window.dims == 1:
            counts, own = [np.ones(1, dtype=int), *counts], [0, *own]
        inside = np.zeros((len(counts[0]), len(counts[1])), dtype=bool)
        lines = slice(None) if window.dims == 1 else slice(margin, margin + size[-2])
        inside[lines, margin : margin + size[-1]] = True
        moved = isinstance(window, Global) and window.grid is not None
        found.append(Look(taps=np.outer(*counts), inside=inside, own=None if moved else (own[0], own[1])))
    return found


def own_tap(window: Geometry, size: Size, output: Size) -> Size | None:
    """Find the tap that sees the output's own pixel; None where there is none."""
    if isinstance(window, Global) and window.grid is not None:
        return None
    found = []
    for axis, table in enumerate(window.positions(size)):
        (taps,) = torch.nonzero(table[output[axis]] == output[axis] * window.strides[axis], as_tuple=True)
        if not len(taps):
            return None
        found.append(int(taps[len(taps) // 2]))
    return tuple(found)


def borders(window: Geometry, size: Size, axis: int) -> list[int]:
    """Return the pixels of an axis at which a new block begins."""
    if not isinstance(window, Common):
        return []
    table = window.places(size, axis, None)
    steps = (table[1:] != table[:-1]).any(1).nonzero()[:, 0] + 1
    return [int(step) * window.strides[axis] for step in steps]


def _aims(window: Geometry, size: Size, axis: int) -> np.ndarray:
    """Where tap k of output p lies on an axis, `p k`, outside the input as well where nothing continues it."""
    places = window.places(size, axis, None).numpy()
    if not window.bounded:
        return places
    if isinstance(window, Window):
        return window.aims(size, axis, None).numpy()
    assert isinstance(window, Block), "no other window is bounded"
    taps = np.arange(places.shape[1])
    first = np.argmax(places >= 0, axis=1)  # the taps of a block follow one another
    start = np.take_along_axis(places, first[:, None], 1) - first[:, None]
    return start + taps


def _beyond(taps: np.ndarray, length: int) -> int:
    return int(max(-taps.min(), taps.max() - length + 1))


def _counted(taps: np.ndarray, length: int, margin: int) -> np.ndarray:
    places = taps + margin
    kept = places[(places >= 0) & (places < length + 2 * margin)]
    return np.bincount(kept, minlength=length + 2 * margin)
