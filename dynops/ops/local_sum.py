"""The formula of dynops: sum over the window of each pixel, weighted by that pixel's kernel."""

from collections.abc import Iterator
from itertools import product

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from dynops.axes import GRIDS, bind, kernel_axes, value_axes
from dynops.ops.window import Size, Window, continued
from dynops.specs import one_of

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def local_sum(kernel: Tensor, value: Tensor, window: Window, *, backend: str = "eager") -> Tensor:
    """Sum each pixel's window, weighted by that pixel's own kernel.

    y[b,g,o,s,p] = sum over i, k of kernel[b,g,o,i,k,p] * value[b,g,i,s,window(p,k)], continued as the border says.

    Args:
        kernel: weights, `b g o i k h w` on the output's grid; it is constant along an axis of size 1.
        value: features, `b g i s h w`.
        window: which pixels are summed; its `dims` says whether the grid is `w`, `h w` or `t h w`.
        backend: `eager`, or `reference`, which is slower and easier to read.
    Returns:
        Features, `b g o s h w` on the output's grid, of the dtype of `value`; half precision is summed in float32.
    Raises:
        ShapeError: the axes do not fit together, or the input is too small for the border.
        SpecError: there is no such backend.
    Source: Li et al., Involution, CVPR 2021, eq. 4, with the summed axis i and the fan-out o of a convolution.

    >>> kernel, value = torch.ones(1, 1, 1, 1, 9, 1, 1), torch.ones(1, 1, 1, 1, 3, 3)
    >>> local_sum(kernel, value, Window(3))[0, 0, 0, 0]
    tensor([[4., 6., 4.],
            [6., 9., 6.],
            [4., 6., 4.]])
    """
    one_of("backend", backend, tuple(BACKENDS))
    sizes = bind("value", value, value_axes(window.dims))
    size = _grid(value, window)
    window.check(size)
    sizes |= dict(zip(GRIDS[window.dims].split(), window.output_size(size), strict=True))
    sizes["k"] = window.taps
    bind("kernel", kernel, kernel_axes(window.dims), sizes, ones=True)
    exact = torch.promote_types(value.dtype, torch.float32)
    # an axis that is summed over must be there to be summed over; cast first, a cast would fill in what expand shares
    kernel = kernel.to(exact).expand(-1, sizes["g"], -1, sizes["i"], sizes["k"], *(-1,) * window.dims)
    return BACKENDS[backend](kernel, value.to(exact), window).to(value.dtype)


def gather(value: Tensor, window: Window) -> Tensor:
    """Gather the window of every pixel.

    Args:
        value: features, `... h w`.
        window: which pixels are gathered.
    Returns:
        Features, `... k h w` on the output's grid, k times the memory of `value`; zero where a tap sees no pixel.
    """
    dims = window.dims
    size = _grid(value, window)
    index = []
    for axis, table in enumerate(window.positions(size, value.device)):
        view = [1] * 2 * dims
        view[axis], view[dims + axis] = table.shape[1], table.shape[0]
        index.append(table.clamp(min=0).T.reshape(view))
    patches = value[(slice(None),) * (value.dim() - dims) + tuple(index)].flatten(-2 * dims, -dims - 1)
    if window.border in ("zeros", "mask"):
        patches = patches.masked_fill(~window.inside(size, value.device), 0)
    return patches


def reference(kernel: Tensor, value: Tensor, window: Window) -> Tensor:
    """Compute `local_sum` as it is written: gather the window of every pixel, then multiply and sum."""
    kernel = kernel.expand(value.shape[0], *(-1,) * 4, *window.output_size(_grid(value, window)))
    return torch.einsum("bgoik...,bgisk...->bgos...", kernel, gather(value, window))


def eager(kernel: Tensor, value: Tensor, window: Window) -> Tensor:
    """Compute `local_sum` without the k-fold tensor of all windows.

    A kernel that is constant over h, w is a convolution; any other is summed tap by tap over shifted views.
    """
    constant = all(size == 1 for size in kernel.shape[5:])
    if constant and kernel.shape[0] and window.border != "shift":
        return _convolve(kernel, value, window)
    return _shift_and_accumulate(kernel, value, window)


BACKENDS = {"reference": reference, "eager": eager}


def _shift_and_accumulate(kernel: Tensor, value: Tensor, window: Window) -> Tensor:
    total = None
    for weight, shifted in zip(kernel.unbind(4), shifts(value, window), strict=True):
        if kernel.shape[3] == 1:
            # the axes i of the weight and s of the value stand in one place, as do o and i: plain broadcasting
            total = weight * shifted if total is None else torch.addcmul(total, weight, shifted)
        else:
            # autocast multiplies in half precision; the taps are added in full
            summed = torch.einsum("bgoi...,bgis...->bgos...", weight, shifted).to(value.dtype)
            total = summed if total is None else total + summed
    assert total is not None, "a window has at least one tap"
    return total


def shifts(value: Tensor, window: Window) -> Iterator[Tensor]:
    """What each tap sees, `b g i s h w` on the output's grid."""
    size = _grid(value, window)
    if window.border == "shift":
        tables = window.positions(size, value.device)
        for taps in product(*(range(taps) for taps in window.sizes)):
            shifted = value
            for axis, (table, tap) in enumerate(zip(tables, taps, strict=True), start=4):
                shifted = shifted.index_select(axis, table[:, tap])
            yield shifted
        return
    padded, outputs = pad(value, window), window.output_size(size)
    for taps in product(*(range(taps) for taps in window.sizes)):
        places = [slice(None)] * 4
        for axis, tap in enumerate(taps):
            first, stride = tap * window.dilations[axis], window.strides[axis]
            places.append(slice(first, first + (outputs[axis] - 1) * stride + 1, stride))
        yield padded[tuple(places)]


def _convolve(kernel: Tensor, value: Tensor, window: Window) -> Tensor:
    """Convolve: a sample that has a kernel of its own joins the groups; a share joins the groups or the batch."""
    b, g, o, i = kernel.shape[:4]
    s = value.shape[3]
    weight = kernel.reshape(b, g, 1, o, i, *window.sizes)
    if o == i == 1:  # depthwise: a share is one more channel with its group's weights
        weight = weight.expand(-1, -1, s, *(-1,) * (2 + window.dims))
        before, after = "n (b g s i) ...", "n (b g s o) ..."
    else:
        before, after = "(n s) (b g i) ...", "(n s) (b g o) ..."
    groups = weight.shape[:3].numel()
    weight = rearrange(weight, "b g s o i ... -> (b g s o) i ...")
    x = rearrange(value, f"(n b) g i s ... -> {before}", b=b)
    padding = tuple(before for before, _ in window.margins(_grid(value, window)))
    if window.padding == "same" or window.border not in ("zeros", "mask"):
        x, padding = pad(x, window), (0,) * window.dims
    convolve = CONVOLUTIONS[window.dims]
    y = convolve(x, weight, stride=window.strides, padding=padding, dilation=window.dilations, groups=groups)
    return rearrange(y, f"{after} -> (n b) g o s ...", b=b, g=g, o=o, s=s)


def pad(x: Tensor, window: Window) -> Tensor:
    """Continue features `... h w` as far as the windows reach."""
    margins = window.margins(_grid(x, window))
    if window.border in ("zeros", "mask"):
        return F.pad(x, [pixels for margin in reversed(margins) for pixels in margin])
    for axis, (before, behind) in enumerate(margins, start=-window.dims):
        reached = torch.arange(-before, x.shape[axis] + behind, device=x.device)
        x = x.index_select(axis, continued(reached, x.shape[axis], window.border))
    return x


def _grid(x: Tensor, window: Window) -> Size:
    return tuple(x.shape[-window.dims :])
