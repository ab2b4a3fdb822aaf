"""What every window is: a rule that says which input pixels each output pixel sees."""

from abc import ABC, abstractmethod
from math import prod
from typing import Self

import torch
from torch import Tensor

from dynops.errors import ShapeError, SpecError
from dynops.specs import Spec, at_least

Size = tuple[int, ...]
Margin = tuple[int, int]


class Geometry(Spec, ABC):
    """Base of all windows; each axis of the grid has a rule of its own."""

    __slots__ = ()
    dims: int
    """Dimensions of the grid: 1 for sequences, 2 for images, 3 for video and volumes."""

    @property
    @abstractmethod
    def strides(self) -> Size:
        """Pixels from one output to the next, in each dimension."""

    @property
    @abstractmethod
    def bounded(self) -> bool:
        """Whether a tap may lie outside the input, where it sees zero."""

    @property
    @abstractmethod
    def masked(self) -> bool:
        """Whether a normalised kernel puts no weight on taps outside the input."""

    @property
    @abstractmethod
    def fixed(self) -> bool:
        """Whether tap k lies at the same place relative to every output."""

    @abstractmethod
    def strided(self, stride: int) -> Self:
        """Return the window with another stride."""

    @abstractmethod
    def tap_grid(self, size: Size | None) -> Size:
        """Return the number of taps in each dimension, for an input's grid.

        Raises:
            SpecError: the number depends on the grid, and that is not known.
        """

    @abstractmethod
    def check(self, size: Size) -> None:
        """Raise a ShapeError unless an input of this size has the pixels that the window needs."""

    @abstractmethod
    def places(self, size: Size, axis: int, device: torch.device | None) -> Tensor:
        """Return the pixel that tap k of output p sees on an axis, `p k`; -1 where it sees none."""

    @abstractmethod
    def reaches(self, size: Size | None) -> Size:
        """Return, for each dimension, how many relative places the taps of all outputs have; errors as `tap_grid`."""

    @abstractmethod
    def relative(self, size: Size, axis: int, device: torch.device | None) -> Tensor:
        """Return where tap k of output p lies relative to it on an axis, `p k`, counted from 0."""

    def own(self, size: Size) -> Size:
        """Return, for each dimension, which of the relative places is the output's own pixel."""
        return tuple(length // 2 for length in self.reaches(size))

    def output_size(self, size: Size) -> Size:
        """Return the output's grid for that of the input."""
        return tuple(-(-length // stride) for length, stride in zip(size, self.strides, strict=True))

    def positions(self, size: Size, device: torch.device | None = None) -> list[Tensor]:
        """Return, for each dimension, the pixel that tap k of output p sees, `p k`; -1 where it sees none."""
        return [self.places(size, axis, device) for axis in range(self.dims)]

    def inside(self, size: Size, device: torch.device | None = None) -> Tensor:
        """Return whether tap k of output p sees a pixel, `k p` with one axis for each dimension of the grid."""
        whole = torch.ones((), dtype=torch.bool, device=device)
        for axis, table in enumerate(self.positions(size, device)):
            whole = whole & self._spread(table >= 0, axis)
        return whole.expand(*self.tap_grid(size), *self.output_size(size)).flatten(0, self.dims - 1)

    def offsets(self, size: Size, device: torch.device | None = None, reach: int | None = None) -> Tensor:
        """Return the relative place of tap k of output p, `k p`, as an index into `reaches` laid out row by row.

        Args:
            size: the input's grid.
            device: where the index is made.
            reach: side of the part around the output's own pixel that is counted, odd; beyond it the index is -1.
        """
        index = torch.zeros((), dtype=torch.long, device=device)
        outside = torch.zeros((), dtype=torch.bool, device=device)
        sides = self.reaches(size) if reach is None else (reach,) * self.dims
        for axis, (own, side) in enumerate(zip(self.own(size), sides, strict=True)):
            first = 0 if reach is None else own - reach // 2
            place = self._spread(self.relative(size, axis, device), axis) - first
            outside = outside | (place < 0) | (place >= side)
            index = index + place * prod(sides[axis + 1 :])
        index = index.masked_fill(outside, -1)
        return index.expand(*self.tap_grid(size), *self.output_size(size)).flatten(0, self.dims - 1)

    def index(self, tables: list[Tensor]) -> tuple[Tensor, ...]:
        """Return tables `p k` as an index of `k h w` into the last axes of a tensor."""
        return tuple(self._spread(table.clamp(min=0), axis) for axis, table in enumerate(tables))

    def _spread(self, table: Tensor, axis: int) -> Tensor:
        view = [1] * 2 * self.dims
        view[axis], view[self.dims + axis] = table.shape[1], table.shape[0]
        return table.T.reshape(view)


def each(value: int | Size, dims: int) -> Size:
    """Return a number for each dimension."""
    return value if isinstance(value, tuple) else (value,) * dims


def check_sizes(name: str, value: object, dims: int, least: int) -> None:
    """Raise a SpecError unless the value is an integer, or one for each dimension, of at least `least`."""
    if isinstance(value, tuple) and len(value) != dims:
        raise SpecError(f"{name} has {value!r}, dims has {dims}: must be an integer or hold one for each dimension.")
    for number in value if isinstance(value, tuple) else (value,):
        at_least(name, number, least)


def continued(positions: Tensor, length: int, border: str) -> Tensor:
    """Return the pixel that stands at each position of an axis which a border continues; -1 where none does."""
    if border == "reflect":
        last = length - 1
        return last - (last - positions % max(2 * last, 1)).abs()
    if border == "replicate":
        return positions.clamp(0, length - 1)
    if border == "circular":
        return positions % length
    return torch.where((positions >= 0) & (positions < length), positions, -1)


def check_reflects(axis: int, length: int, reach: int) -> None:
    """Raise a ShapeError unless a window that is reflected at the edge reaches less than there are pixels."""
    if reach >= length:
        raise ShapeError(
            f"value has {length} pixels in dimension {axis}, window reaches {reach} beyond them: "
            "border 'reflect' reaches less than there are pixels. Use border='replicate'."
        )
