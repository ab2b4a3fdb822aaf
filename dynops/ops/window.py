"""The sliding window of a local operator: taps around every pixel."""

from dataclasses import field, replace
from math import prod
from typing import Self

import torch
from torch import Tensor

from dynops.errors import ShapeError, SpecError
from dynops.ops.geometry import Geometry, Margin, Size, check_reflects, check_sizes, continued, each
from dynops.specs import one_of, spec

BORDERS = ("zeros", "mask", "reflect", "replicate", "circular", "shift")
PADDINGS = ("centre", "same", "causal")


@spec
class Window(Geometry):
    """Where an operator looks: `size` taps in each direction around every `stride`-th pixel.

    An input of h rows gives ceil(h / stride) rows, whatever the size.
    """

    size: int | Size = field(kw_only=False)
    """Taps in each direction, or in each of the grid's dimensions: (rows, columns)."""
    stride: int | Size = 1
    """Pixels from one output's window to the next."""
    dilation: int | Size = 1
    """Pixels from one tap to the next."""
    padding: str = "centre"
    """`centre`: the window of output p is centred on pixel stride * p, as PyTorch's `(size - 1) / 2` does, for odd
    sizes only; `same`: the least padding that gives the output its size, the odd one behind, as TensorFlow does;
    `causal`: the last tap is pixel stride * p, so that a sequence never sees what is to come."""
    border: str = "zeros"
    """What a tap outside the input sees: `zeros`; `mask`, zero, and a normalised kernel puts no weight there; the
    pixels inside, by `reflect` (the edge once), `replicate` or `circular`; `shift` moves the window inside, as
    neighbourhood attention does (Hassani et al., CVPR 2023), among the pixels that its dilation reaches."""
    dims: int = 2
    """Dimensions of the grid: 1 for sequences, 2 for images, 3 for video and volumes."""

    def __post_init__(self) -> None:
        one_of("dims", self.dims, (1, 2, 3))
        for name in ("size", "stride", "dilation"):
            check_sizes(name, getattr(self, name), self.dims, 1)
        one_of("padding", self.padding, PADDINGS)
        one_of("border", self.border, BORDERS)
        if self.padding == "centre" and any(size % 2 == 0 for size in self.sizes):
            even = next(size for size in self.sizes if size % 2 == 0)
            near = f"{even - 1} or {even + 1}"
            raise SpecError(f"size has {self.size}: an even window has no centre. Use size {near}, or padding='same'.")
        if self.padding != "centre" and self.border == "shift":
            raise SpecError(
                f"padding has {self.padding!r}, border has 'shift': a window that moves inside needs no padding."
            )

    @property
    def sizes(self) -> Size:
        """Taps in each dimension."""
        return each(self.size, self.dims)

    @property
    def strides(self) -> Size:
        return each(self.stride, self.dims)

    @property
    def dilations(self) -> Size:
        """Dilations in each dimension."""
        return each(self.dilation, self.dims)

    @property
    def taps(self) -> int:
        """Number of taps, k; tap k is (k // columns, k % columns)."""
        return prod(self.sizes)

    @property
    def bounded(self) -> bool:
        return self.border in ("zeros", "mask")

    @property
    def masked(self) -> bool:
        return self.border == "mask"

    @property
    def fixed(self) -> bool:
        return self.border != "shift"

    def strided(self, stride: int) -> Self:
        return replace(self, stride=stride)

    def tap_grid(self, size: Size | None) -> Size:
        return self.sizes

    def margins(self, size: Size) -> tuple[Margin, ...]:
        """Return, for each dimension, how many pixels the windows reach out before and behind an input of this size."""
        return tuple(self._margin(size, axis) for axis in range(self.dims))

    def check(self, size: Size) -> None:
        if self.border not in ("reflect", "shift"):
            return
        for axis, (length, margin) in enumerate(zip(size, self.margins(size), strict=True)):
            if self.border == "reflect":
                check_reflects(axis, length, max(margin))
            needed = self.sizes[axis] * self.dilations[axis]
            if self.border == "shift" and length < needed:
                raise ShapeError(
                    f"value has {length} pixels in dimension {axis}, window needs {needed}: border 'shift' keeps all "
                    "taps inside. Use border='mask'."
                )

    def places(self, size: Size, axis: int, device: torch.device | None) -> Tensor:
        if self.border == "shift":
            outputs = torch.arange(self.output_size(size)[axis], device=device) * self.strides[axis]
            taps = torch.arange(self.sizes[axis], device=device)
            return _inside_alone(outputs, taps, self.dilations[axis], size[axis])
        return continued(self.aims(size, axis, device), size[axis], self.border)

    def aims(self, size: Size, axis: int, device: torch.device | None) -> Tensor:
        """Return where tap k of output p lies on an axis, `p k`, whether or not there is a pixel."""
        outputs = torch.arange(self.output_size(size)[axis], device=device) * self.strides[axis]
        taps = torch.arange(self.sizes[axis], device=device)
        return outputs[:, None] + taps * self.dilations[axis] - self._margin(size, axis)[0]

    def reaches(self, size: Size | None) -> Size:
        return tuple(2 * taps - 1 for taps in self.sizes) if self.border == "shift" else self.sizes

    def relative(self, size: Size, axis: int, device: torch.device | None) -> Tensor:
        outputs = torch.arange(self.output_size(size)[axis], device=device) * self.strides[axis]
        if self.border == "shift":
            distance = self.places(size, axis, device) - outputs[:, None]
            return distance // self.dilations[axis] + self.sizes[axis] - 1
        return torch.arange(self.sizes[axis], device=device).expand(len(outputs), -1)

    def _margin(self, size: Size, axis: int) -> Margin:
        reach = self.dilations[axis] * (self.sizes[axis] - 1)
        needed = (self.output_size(size)[axis] - 1) * self.strides[axis] + reach + 1 - size[axis]
        before = {"centre": reach // 2, "same": max(needed, 0) // 2, "causal": reach}[self.padding]
        return (before, max(needed - before, 0))


def _inside_alone(outputs: Tensor, taps: Tensor, dilation: int, length: int) -> Tensor:
    """Centre a window on each output, as far as all its taps stay inside, `p k`."""
    phase, place = outputs % dilation, outputs // dilation
    count = (length - phase + dilation - 1) // dilation  # pixels of that phase
    first = (place - len(taps) // 2).clamp(min=0).minimum(count - len(taps))
    return (first[:, None] + taps) * dilation + phase[:, None]
