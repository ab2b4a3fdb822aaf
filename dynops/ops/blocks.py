"""Windows that many pixels have in common: blocks of a grid, and the whole grid."""

from abc import abstractmethod
from dataclasses import field, replace
from typing import NamedTuple, Self

import torch
from torch import Tensor

from dynops.errors import ShapeError, SpecError
from dynops.ops.geometry import Geometry, Size, check_reflects, check_sizes, continued, each
from dynops.specs import one_of, spec


class Tiling(NamedTuple):
    """How one axis falls into tiles whose outputs all see the same pixels."""

    outputs: int
    """Outputs of a tile."""
    front: int
    """Outputs that the first tile lacks."""
    places: Tensor
    """The pixel that tap k of tile t sees, `t k`; -1 where it sees none."""


class Common(Geometry):
    """Base of the windows that many pixels have in common."""

    __slots__ = ()

    @property
    def fixed(self) -> bool:
        return False

    @abstractmethod
    def tiling(self, size: Size, axis: int, device: torch.device | None) -> Tiling:
        """Return how an axis of the grid falls into tiles."""

    def places(self, size: Size, axis: int, device: torch.device | None) -> Tensor:
        tiling = self.tiling(size, axis, device)
        outputs = torch.arange(self.output_size(size)[axis], device=device)
        return tiling.places[(outputs + tiling.front) // tiling.outputs]


@spec
class Block(Common):
    """A block that all its pixels see, and as much around it as its halo says.

    The grid is cut into blocks of `size` pixels in each direction, the first of which begins at pixel `shift`; what
    stands before and behind are blocks as well, cut off at the edge. That is Swin's cyclic shift with its mask.

    Source: Liu et al., Swin Transformer, ICCV 2021; halos: Vaswani et al., HaloNets, CVPR 2021.
    """

    size: int | Size = field(kw_only=False)
    """Pixels of a block in each direction, or in each of the grid's dimensions."""
    halo: int | Size = 0
    """Pixels around the block that its pixels see as well."""
    shift: int | Size = 0
    """Pixels by which the blocks are moved, less than a block."""
    stride: int | Size = 1
    """Pixels from one output to the next; blocks and shift must be multiples."""
    border: str = "mask"
    """What a tap outside the input sees: `zeros`; `mask`, zero, and a normalised kernel puts no weight there; the
    pixels inside, by `reflect`, `replicate` or `circular`, which makes the cyclic shift one without a mask."""
    dims: int = 2
    """Dimensions of the grid: 1 for sequences, 2 for images, 3 for video and volumes."""

    def __post_init__(self) -> None:
        one_of("dims", self.dims, (1, 2, 3))
        for name, least in (("size", 1), ("halo", 0), ("shift", 0), ("stride", 1)):
            check_sizes(name, getattr(self, name), self.dims, least)
        one_of("border", self.border, ("zeros", "mask", "reflect", "replicate", "circular"))
        for size, shift, stride in zip(self.sizes, each(self.shift, self.dims), self.strides, strict=True):
            if shift >= size:
                raise SpecError(f"shift has {self.shift}, size has {self.size}: blocks move by less than a block.")
            if size % stride or shift % stride:
                raise SpecError(
                    f"stride has {self.stride}, size has {self.size}, shift has {self.shift}: both must be multiples "
                    "of the stride, so that each block has as many outputs."
                )

    @property
    def sizes(self) -> Size:
        """Pixels of a block in each dimension."""
        return each(self.size, self.dims)

    @property
    def strides(self) -> Size:
        return each(self.stride, self.dims)

    @property
    def bounded(self) -> bool:
        return self.border in ("zeros", "mask")

    @property
    def masked(self) -> bool:
        return self.border == "mask"

    def strided(self, stride: int) -> Self:
        return replace(self, stride=stride)

    def tap_grid(self, size: Size | None) -> Size:
        return tuple(size + 2 * halo for size, halo in zip(self.sizes, each(self.halo, self.dims), strict=True))

    def check(self, size: Size) -> None:
        for axis, length in enumerate(size):
            if self.border == "reflect":
                check_reflects(axis, length, self._reach(length, axis))

    def tiling(self, size: Size, axis: int, device: torch.device | None) -> Tiling:
        block, shift, stride = self.sizes[axis], each(self.shift, self.dims)[axis], self.strides[axis]
        first = shift - block if shift else 0
        starts = torch.arange(first, size[axis], block, device=device)
        taps = torch.arange(self.tap_grid(size)[axis], device=device) - each(self.halo, self.dims)[axis]
        places = continued(starts[:, None] + taps, size[axis], self.border)
        return Tiling(outputs=block // stride, front=-first // stride, places=places)

    def reaches(self, size: Size | None) -> Size:
        return tuple(2 * taps - 1 for taps in self.tap_grid(size))

    def own(self, size: Size) -> Size:
        halos = each(self.halo, self.dims)
        return tuple(taps + halo - 1 for taps, halo in zip(self.tap_grid(size), halos, strict=True))

    def relative(self, size: Size, axis: int, device: torch.device | None) -> Tensor:
        block, shift, stride = self.sizes[axis], each(self.shift, self.dims)[axis], self.strides[axis]
        outputs = torch.arange(self.output_size(size)[axis], device=device) * stride
        taps = torch.arange(self.tap_grid(size)[axis], device=device)
        return taps - ((outputs - shift) % block)[:, None] + len(taps) - 1

    def _reach(self, length: int, axis: int) -> int:
        block, shift, halo = self.sizes[axis], each(self.shift, self.dims)[axis], each(self.halo, self.dims)[axis]
        before = (block - shift if shift else 0) + halo
        return max(before, -(length - shift) % block + halo)


@spec
class Global(Common):
    """The whole grid, which every output sees: one tap for each pixel of the input."""

    stride: int | Size = 1
    """Pixels from one output to the next."""
    grid: int | Size | None = None
    """The output's grid, where it is not the input's: tokens that are no pixels, whose kernel is a table."""
    dims: int = 2
    """Dimensions of the grid: 1 for sequences, 2 for images, 3 for video and volumes."""

    def __post_init__(self) -> None:
        one_of("dims", self.dims, (1, 2, 3))
        check_sizes("stride", self.stride, self.dims, 1)
        if self.grid is not None:
            check_sizes("grid", self.grid, self.dims, 1)
            if set(self.strides) != {1}:
                raise SpecError(f"grid has {self.grid}, stride has {self.stride}: give one of them.")

    @property
    def strides(self) -> Size:
        return each(self.stride, self.dims)

    @property
    def bounded(self) -> bool:
        return False

    @property
    def masked(self) -> bool:
        return False

    def strided(self, stride: int) -> Self:
        return replace(self, stride=stride)

    def tap_grid(self, size: Size | None) -> Size:
        if size is None:
            raise SpecError(
                "size has None: a global window has a tap for each pixel of the input. Build it with "
                "size=(rows, columns)."
            )
        return tuple(size)

    def check(self, size: Size) -> None:
        """Any input serves."""

    def output_size(self, size: Size) -> Size:
        return Geometry.output_size(self, size) if self.grid is None else each(self.grid, self.dims)

    def tiling(self, size: Size, axis: int, device: torch.device | None) -> Tiling:
        places = torch.arange(size[axis], device=device)[None]
        return Tiling(outputs=self.output_size(size)[axis], front=0, places=places)

    def reaches(self, size: Size | None) -> Size:
        return tuple(2 * taps - 1 for taps in self.tap_grid(size))

    def relative(self, size: Size, axis: int, device: torch.device | None) -> Tensor:
        if self.grid is not None:
            raise ShapeError(f"window has {self!r}: its outputs are no pixels, so taps have no place relative to them.")
        outputs = torch.arange(self.output_size(size)[axis], device=device) * self.strides[axis]
        return torch.arange(size[axis], device=device) - outputs[:, None] + size[axis] - 1
