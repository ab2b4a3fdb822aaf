"""The window of a local operator: which input pixels an output pixel sums over."""

from dataclasses import field

import torch
from torch import Tensor

from dynops.errors import ShapeError, SpecError
from dynops.specs import Spec, at_least, one_of, spec

Size = tuple[int, ...]
Margin = tuple[int, int]

BORDERS = ("zeros", "mask", "reflect", "replicate", "circular", "shift")


@spec
class Window(Spec):
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
    sizes only; `same`: the least padding that gives the output its size, the odd one behind, as TensorFlow does."""
    border: str = "zeros"
    """What a tap outside the input sees: `zeros`; `mask`, zero, and a normalised kernel puts no weight there; the
    pixels inside, by `reflect` (the edge once), `replicate` or `circular`; `shift` moves the window inside, as
    neighbourhood attention does (Hassani et al., CVPR 2023), among the pixels that its dilation reaches."""
    dims: int = 2
    """Dimensions of the grid: 1 for sequences, 2 for images, 3 for video and volumes."""

    def __post_init__(self) -> None:
        one_of("dims", self.dims, (1, 2, 3))
        for name in ("size", "stride", "dilation"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != self.dims:
                raise SpecError(
                    f"{name} has {value!r}, dims has {self.dims}: must be an integer or hold one for each dimension."
                )
            for each in value if isinstance(value, tuple) else (value,):
                at_least(name, each, 1)
        one_of("padding", self.padding, ("centre", "same"))
        one_of("border", self.border, BORDERS)
        if self.padding == "centre" and any(size % 2 == 0 for size in self.sizes):
            even = next(size for size in self.sizes if size % 2 == 0)
            near = f"{even - 1} or {even + 1}"
            raise SpecError(f"size has {self.size}: an even window has no centre. Use size {near}, or padding='same'.")
        if self.padding == "same" and self.border == "shift":
            raise SpecError("padding has 'same', border has 'shift': a window that moves inside needs no padding.")

    @property
    def sizes(self) -> Size:
        """Taps in each dimension."""
        return self._each(self.size)

    @property
    def strides(self) -> Size:
        """Strides in each dimension."""
        return self._each(self.stride)

    @property
    def dilations(self) -> Size:
        """Dilations in each dimension."""
        return self._each(self.dilation)

    @property
    def taps(self) -> int:
        """Number of taps, k; tap k is (k // columns, k % columns)."""
        product = 1
        for size in self.sizes:
            product *= size
        return product

    def output_size(self, size: Size) -> Size:
        """Return the output's grid for that of the input."""
        return tuple(-(-length // stride) for length, stride in zip(size, self.strides, strict=True))

    def margins(self, size: Size) -> tuple[Margin, ...]:
        """Return, for each dimension, how many pixels the windows reach out before and behind an input of this size."""
        return tuple(self._margin(size, axis) for axis in range(self.dims))

    def check(self, size: Size) -> None:
        """Raise a ShapeError unless an input of this size has the pixels that its border needs."""
        for axis, (length, margin) in enumerate(zip(size, self.margins(size), strict=True)):
            if self.border == "reflect" and max(margin) >= length:
                raise ShapeError(
                    f"value has {length} pixels in dimension {axis}, window reaches {max(margin)} beyond them: "
                    "border 'reflect' reaches less than there are pixels. Use border='replicate'."
                )
            needed = self.sizes[axis] * self.dilations[axis]
            if self.border == "shift" and length < needed:
                raise ShapeError(
                    f"value has {length} pixels in dimension {axis}, window needs {needed}: border 'shift' keeps all "
                    "taps inside. Use border='mask'."
                )

    def positions(self, size: Size, device: torch.device | None = None) -> list[Tensor]:
        """Return, for each dimension, the pixel that tap k of output p sees, `p k`; -1 where it sees none."""
        tables = []
        for axis, length in enumerate(size):
            outputs = torch.arange(self.output_size(size)[axis], device=device) * self.strides[axis]
            taps = torch.arange(self.sizes[axis], device=device)
            if self.border == "shift":
                tables.append(_inside_alone(outputs, taps, self.dilations[axis], length))
            else:
                before, _ = self._margin(size, axis)
                reached = outputs[:, None] + taps * self.dilations[axis] - before
                tables.append(continued(reached, length, self.border))
        return tables

    def inside(self, size: Size, device: torch.device | None = None) -> Tensor:
        """Return whether tap k of output p sees a pixel, `k p` with one axis for each dimension of the grid."""
        whole = torch.ones((), dtype=torch.bool, device=device)
        for axis, table in enumerate(self.positions(size, device)):
            view = [1] * 2 * self.dims
            view[axis], view[self.dims + axis] = table.shape[1], table.shape[0]
            whole = whole & (table >= 0).T.reshape(view)
        return whole.flatten(0, self.dims - 1)

    def _each(self, value: int | Size) -> Size:
        return value if isinstance(value, tuple) else (value,) * self.dims

    def _margin(self, size: Size, axis: int) -> Margin:
        reach = self.dilations[axis] * (self.sizes[axis] - 1)
        needed = (self.output_size(size)[axis] - 1) * self.strides[axis] + reach + 1 - size[axis]
        before = reach // 2 if self.padding == "centre" else max(needed, 0) // 2
        return (before, max(needed - before, 0))


def continued(positions: Tensor, length: int, border: str) -> Tensor:
    """Return the pixel that stands at each position of an axis which a border continues; -1 where none does."""
    if border == "reflect":
        return (length - 1) - ((length - 1) - positions.abs()).abs()
    if border == "replicate":
        return positions.clamp(0, length - 1)
    if border == "circular":
        return positions % length
    return torch.where((positions >= 0) & (positions < length), positions, -1)


def _inside_alone(outputs: Tensor, taps: Tensor, dilation: int, length: int) -> Tensor:
    """Centre a window on each output, as far as all its taps stay inside, `p k`."""
    phase, place = outputs % dilation, outputs // dilation
    count = (length - phase + dilation - 1) // dilation  # pixels of that phase
    first = (place - len(taps) // 2).clamp(min=0).minimum(count - len(taps))
    return (first[:, None] + taps) * dilation + phase[:, None]
