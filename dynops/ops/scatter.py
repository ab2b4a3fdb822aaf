"""The window turned round: each pixel writes into the window that it would have read."""

from math import prod

import torch.nn.functional as F
from torch import Tensor

from dynops.axes import GRIDS
from dynops.errors import ShapeError, SpecError
from dynops.ops.geometry import Margin, Size
from dynops.ops.window import Window


def scatter(y: Tensor, window: Window, size: Size) -> Tensor:
    """Add what each pixel writes into the taps of its window: the adjoint of reading them.

    x[..., q] = sum over all p, k with window(p,k) = q of y[..., k, p]; what falls outside is dropped. With stride it
    gives more pixels than it takes: windows of 2 by 2 at stride 2 are the pixel shuffle.

    Args:
        y: features, `... k h w` on the window's output grid.
        window: where a pixel writes.
        size: the grid that is written to, the window's input grid.
    Returns:
        Features, `... h w` on that grid.
    Raises:
        ShapeError: the features are not on the output grid of such a window.
        SpecError: the window's border continues the input, and so is no edge that could drop what is written.
    """
    if not window.bounded:
        raise SpecError(f"window has border={window.border!r}: what is written outside is lost, use 'zeros'.")
    dims, grid = window.dims, window.output_size(size)
    if y.shape[-dims:] != grid or y.shape[-dims - 1] != prod(window.sizes):
        raise ShapeError(
            f"y has shape {tuple(y.shape)}, window has {prod(window.sizes)} taps and an output grid of {grid} for "
            f"{size}: the last axes `k {GRIDS[dims]}` must be these."
        )
    y = y.unflatten(-dims - 1, window.sizes)
    first = y.dim() - 2 * dims
    for axis, margin in enumerate(window.margins(size)):
        # the axis of taps that stands first is added into the pixels of its axis, and is gone
        y = _add_taps(y.movedim((first, axis - dims), (0, -1)), window, axis, margin, size[axis])
        y = y.movedim(-1, axis - dims)
    return y


def _add_taps(y: Tensor, window: Window, axis: int, margin: Margin, length: int) -> Tensor:
    """Add what the taps of one axis write, `k ... p`, into the pixels of that axis, `... q`."""
    before, behind = margin
    stride, dilation = window.strides[axis], window.dilations[axis]
    spread = F.pad(y[..., None], (0, stride - 1)).flatten(-2)[..., : (y.shape[-1] - 1) * stride + 1]
    room = length + before + behind - spread.shape[-1]
    written = [F.pad(each, (tap * dilation, room - tap * dilation)) for tap, each in enumerate(spread)]
    return sum(written[1:], written[0]).narrow(-1, before, length)
