"""What the taps of a window see: gathered, shifted, sampled between pixels, or tile by tile."""

from collections.abc import Iterator
from itertools import product
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from dynops.ops.blocks import Common, Tiling
from dynops.ops.geometry import Geometry, Size, continued
from dynops.ops.window import Window


def gather(value: Tensor, window: Geometry) -> Tensor:
    """Gather the window of every pixel.

    Args:
        value: features, `... h w`.
        window: which pixels are gathered.
    Returns:
        Features, `... k h w` on the output's grid, k times the memory of `value`; zero where a tap sees no pixel.
    """
    dims = window.dims
    size = grid_of(value, window)
    index = window.index(window.positions(size, value.device))
    patches = value[(slice(None),) * (value.dim() - dims) + index].flatten(-2 * dims, -dims - 1)
    return patches.masked_fill(~window.inside(size, value.device), 0) if window.bounded else patches


def shifts(value: Tensor, window: Geometry) -> Iterator[Tensor]:
    """What each tap sees of features `... h w`, on the output's grid."""
    size, first = grid_of(value, window), value.dim() - window.dims
    if isinstance(window, Window) and window.fixed:
        padded, outputs = pad(value, window), window.output_size(size)
        for taps in product(*(range(taps) for taps in window.sizes)):
            places = [slice(None)] * first
            for axis, tap in enumerate(taps):
                start, stride = tap * window.dilations[axis], window.strides[axis]
                places.append(slice(start, start + (outputs[axis] - 1) * stride + 1, stride))
            yield padded[tuple(places)]
        return
    tables = window.positions(size, value.device)
    for taps in product(*(range(taps) for taps in window.tap_grid(size))):
        shifted = value
        for axis, (table, tap) in enumerate(zip(tables, taps, strict=True)):
            shifted = _select(shifted, first + axis, table[:, tap], window.bounded)
        yield shifted


def samples(value: Tensor, offsets: Tensor, window: Window) -> Iterator[Tensor]:
    """What each tap sees of features `b c h w` at its place plus an offset, between pixels by linear interpolation.

    Args:
        value: features, `b c h w`.
        offsets: pixels from a tap's place, down, right, `b n d k h w`, d one for each dimension of the grid; n groups
            of channels, one after the other, share them.
        window: where the taps are.
    """
    size = grid_of(value, window)
    groups = offsets.shape[1]
    flat = value.flatten(2).unflatten(1, (groups, -1))  # b n c p
    aims = [window.aims(size, axis, value.device) for axis in range(window.dims)]
    for tap, taps in enumerate(product(*(range(taps) for taps in window.sizes))):
        places, shares = [], []
        for axis, number in enumerate(taps):
            view = [1] * window.dims
            view[axis] = -1
            place = aims[axis][:, number].view(view) + offsets[:, :, axis, tap]
            places.append(place.floor().detach())
            shares.append(place - places[-1])
        total = torch.zeros((), dtype=value.dtype, device=value.device)
        for corner in product((0, 1), repeat=window.dims):
            total = total + _corner(flat, places, shares, corner, size, window.border)
        yield total.flatten(1, 2)


def tiles(value: Tensor, window: Common) -> Tensor:
    """Gather what each tile of outputs sees of features `... h w`: `... k t`, zero where a tap sees no pixel."""
    size, first = grid_of(value, window), value.dim() - window.dims
    tables = [tiling.places for tiling in tilings(window, size, value.device)]
    for axis in reversed(range(window.dims)):
        # `... x` becomes `... k t`, one axis after the other
        value = _select(value, first + axis, tables[axis].T.flatten(), window.bounded)
        value = value.unflatten(first + axis, tables[axis].T.shape)
    order = [first + 2 * axis for axis in range(window.dims)] + [first + 2 * axis + 1 for axis in range(window.dims)]
    value = value.permute(*range(first), *order)
    return value.flatten(first, first + window.dims - 1).flatten(first + 1)


def to_tiles(x: Tensor, window: Common, size: Size) -> Tensor:
    """Cut what stands on the output's grid, `... h w`, into tiles, `... t q`; what the edge cuts off is zero."""
    first = x.dim() - window.dims
    margins, counts = [], []
    for axis, tiling in enumerate(tilings(window, size, x.device)):
        number = tiling.places.shape[0]
        margins.append((tiling.front, number * tiling.outputs - tiling.front - x.shape[first + axis]))
        counts.append((number, tiling.outputs))
    if any(pixels for margin in margins for pixels in margin):
        x = F.pad(x, [pixels for margin in reversed(margins) for pixels in margin])
    for axis in reversed(range(window.dims)):
        x = x.unflatten(first + axis, counts[axis])
    order = [first + 2 * axis for axis in range(window.dims)] + [first + 2 * axis + 1 for axis in range(window.dims)]
    return x.permute(*range(first), *order).flatten(first, first + window.dims - 1).flatten(first + 1)


def from_tiles(x: Tensor, window: Common, size: Size) -> Tensor:
    """Put tiles, `... t q`, back onto the output's grid, `... h w`."""
    first, cut = x.dim() - 2, tilings(window, size, x.device)
    x = x.unflatten(first + 1, [tiling.outputs for tiling in cut])
    x = x.unflatten(first, [tiling.places.shape[0] for tiling in cut])
    order = [first + axis + half * window.dims for axis in range(window.dims) for half in (0, 1)]
    x = x.permute(*range(first), *order)
    for axis, (tiling, length) in enumerate(zip(cut, window.output_size(size), strict=True)):
        x = x.flatten(first + axis, first + axis + 1).narrow(first + axis, tiling.front, length)
    return x


def tilings(window: Common, size: Size, device: torch.device | None) -> list[Tiling]:
    """How each axis of the grid falls into tiles."""
    return [window.tiling(size, axis, device) for axis in range(window.dims)]


def pad(x: Tensor, window: Window) -> Tensor:
    """Continue features `... h w` as far as the windows reach."""
    margins = window.margins(grid_of(x, window))
    if window.bounded:
        return F.pad(x, [pixels for margin in reversed(margins) for pixels in margin])
    for axis, (before, behind) in enumerate(margins, start=-window.dims):
        reached = torch.arange(-before, x.shape[axis] + behind, device=x.device)
        x = x.index_select(axis, continued(reached, x.shape[axis], window.border))
    return x


def grid_of(x: Tensor, window: Geometry) -> Size:
    """The grid of features `... h w`."""
    return tuple(x.shape[-window.dims :])


def _select(x: Tensor, axis: int, places: Tensor, bounded: bool) -> Tensor:
    """Take the pixels at some places of an axis, zero where the place is -1."""
    if not bounded:
        return x.index_select(axis, places)
    view = (places >= 0).view([-1 if each == axis else 1 for each in range(x.dim())])
    return x.index_select(axis, places.clamp(min=0)).masked_fill(~view, 0)


def _corner(
    flat: Tensor, places: list[Tensor], shares: list[Tensor], corner: tuple[int, ...], size: Size, border: str
) -> Tensor:
    """The pixel at one corner of the cell that a sample lies in, weighted by how near it is."""
    index, weight = torch.zeros((), dtype=torch.long, device=flat.device), torch.ones((), device=flat.device)
    for place, share, step, length in zip(places, shares, corner, size, strict=True):
        pixel = continued((place + step).long(), length, border)
        weight = weight * (share if step else 1 - share) * (pixel >= 0)
        index = index * length + pixel.clamp(0, length - 1)
    b, n, c = flat.shape[:3]
    places_of = index.flatten(2)[:, :, None].expand(b, n, c, -1)
    seen = flat.gather(3, places_of).unflatten(3, index.shape[2:])
    return seen * weight[:, :, None].to(flat.dtype)


def count(window: Geometry, size: Size) -> int:
    """Number of taps for an input's grid."""
    return prod(window.tap_grid(size))
