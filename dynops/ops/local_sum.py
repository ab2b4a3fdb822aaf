"""The formula of dynops: sum over the window of each pixel, weighted by that pixel's kernel."""

from collections.abc import Iterator
from math import prod

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from dynops.axes import GRIDS, bind, divisors, kernel_axes, value_axes
from dynops.errors import ShapeError
from dynops.ops.blocks import Common
from dynops.ops.geometry import Geometry
from dynops.ops.taps import count, from_tiles, gather, grid_of, pad, samples, shifts, tiles, to_tiles
from dynops.ops.window import Window
from dynops.specs import one_of

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def local_sum(
    kernel: Tensor, value: Tensor, window: Geometry, *, offsets: Tensor | None = None, backend: str = "eager"
) -> Tensor:
    """Sum each pixel's window, weighted by that pixel's own kernel.

    y[b,g,o,s,p] = sum over i, k of kernel[b,g,o,i,k,p] * value[b,g,i,s,window(p,k)], continued as the border says.

    Args:
        kernel: weights, `b g o i k h w` on the output's grid; it is constant along an axis of size 1.
        value: features, `b g i s h w`.
        window: which pixels are summed; its `dims` says whether the grid is `w`, `h w` or `t h w`.
        offsets: where each tap samples the value instead, in pixels from its place, `b n d k h w` on the output's grid,
            d one for each dimension; n groups of the channels (g i s), one after the other, share them. Between pixels
            the value is interpolated linearly.
        backend: `eager`, or `reference`, which is slower and easier to read.
    Returns:
        Features, `b g o s h w` on the output's grid, of the dtype of `value`; half precision is summed in float32.
    Raises:
        ShapeError: the axes do not fit together, or the input is too small for the border.
        SpecError: there is no such backend.
    Source: Li et al., Involution, CVPR 2021, eq. 4, with the summed axis i and the fan-out o of a convolution;
        offsets: Dai et al., Deformable Convolutional Networks, ICCV 2017, eq. 2.

    >>> kernel, value = torch.ones(1, 1, 1, 1, 9, 1, 1), torch.ones(1, 1, 1, 1, 3, 3)
    >>> local_sum(kernel, value, Window(3))[0, 0, 0, 0]
    tensor([[4., 6., 4.],
            [6., 9., 6.],
            [4., 6., 4.]])
    """
    one_of("backend", backend, tuple(BACKENDS))
    sizes = bind("value", value, value_axes(window.dims))
    size = grid_of(value, window)
    window.check(size)
    sizes |= dict(zip(GRIDS[window.dims].split(), window.output_size(size), strict=True))
    sizes["k"] = count(window, size)
    bind("kernel", kernel, kernel_axes(window.dims), sizes, ones=True)
    if offsets is not None:
        _check_offsets(offsets, window, sizes)
    exact = torch.promote_types(value.dtype, torch.float32)
    # an axis that is summed over must be there to be summed over; cast first, a cast would fill in what expand shares
    kernel = kernel.to(exact).expand(-1, sizes["g"], -1, sizes["i"], sizes["k"], *(-1,) * window.dims)
    places = None if offsets is None else offsets.to(exact)
    return BACKENDS[backend](kernel, value.to(exact), window, places).to(value.dtype)


def reference(kernel: Tensor, value: Tensor, window: Geometry, offsets: Tensor | None = None) -> Tensor:
    """Compute `local_sum` as it is written: gather the window of every pixel, then multiply and sum."""
    kernel = kernel.expand(value.shape[0], *(-1,) * 4, *window.output_size(grid_of(value, window)))
    if offsets is None:
        return torch.einsum("bgoik...,bgisk...->bgos...", kernel, gather(value, window))
    patches = torch.stack(list(_seen(value, window, offsets)), dim=4)
    return torch.einsum("bgoik...,bgisk...->bgos...", kernel, patches)


def eager(kernel: Tensor, value: Tensor, window: Geometry, offsets: Tensor | None = None) -> Tensor:
    """Compute `local_sum` without the k-fold tensor of all windows.

    A kernel that is constant over h, w is a convolution, in which images with kernels of their own are groups; windows
    that pixels have in common are products of matrices; any other sum is taken tap by tap over shifted views.
    """
    if isinstance(window, Common):
        return _multiply_tiles(kernel, value, window)
    assert isinstance(window, Window), "a geometry is a Window or a Common one"
    constant = all(size == 1 for size in kernel.shape[5:])
    # a program that is exported may meet any number of images, but its convolutions have as many groups as now
    bound = torch.compiler.is_exporting() and kernel.shape[0] != 1
    if constant and kernel.shape[0] and window.fixed and offsets is None and not bound:
        return _convolve(kernel, value, window)
    return _shift_and_accumulate(kernel, value, window, offsets)


BACKENDS = {"reference": reference, "eager": eager}


def _shift_and_accumulate(kernel: Tensor, value: Tensor, window: Window, offsets: Tensor | None) -> Tensor:
    total = None
    for weight, shifted in zip(kernel.unbind(4), _seen(value, window, offsets), strict=True):
        if kernel.shape[3] == 1:
            # the axes i of the weight and s of the value stand in one place, as do o and i: plain broadcasting
            total = weight * shifted if total is None else torch.addcmul(total, weight, shifted)
        else:
            # autocast multiplies in half precision; the taps are added in full
            summed = torch.einsum("bgis...,bgoi...->bgos...", shifted, weight).to(value.dtype)
            total = summed if total is None else total + summed
    assert total is not None, "a window has at least one tap"
    return total


def _seen(value: Tensor, window: Geometry, offsets: Tensor | None) -> Iterator[Tensor]:
    if offsets is None:
        return shifts(value, window)
    assert isinstance(window, Window), "checked at the boundary"
    return (each.unflatten(1, value.shape[1:4]) for each in samples(value.flatten(1, 3), offsets, window))


def _multiply_tiles(kernel: Tensor, value: Tensor, window: Common) -> Tensor:
    size = grid_of(value, window)
    cut = to_tiles(kernel.expand(*(-1,) * 5, *window.output_size(size)), window, size)
    # b g o i k t q, b g i s k t
    summed = torch.einsum("bgoiktq,bgiskt->bgostq", cut.expand(value.shape[0], *(-1,) * 6), tiles(value, window))
    return from_tiles(summed.to(value.dtype), window, size)


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
    groups = prod(weight.shape[:3])
    weight = rearrange(weight, "b g s o i ... -> (b g s o) i ...")
    x = rearrange(value, f"(n b) g i s ... -> {before}", b=b)
    padding = tuple(before for before, _ in window.margins(grid_of(value, window)))
    if window.padding != "centre" or not window.bounded:
        x, padding = pad(x, window), (0,) * window.dims
    convolve = CONVOLUTIONS[window.dims]
    y = convolve(x, weight, stride=window.strides, padding=padding, dilation=window.dilations, groups=groups)
    return rearrange(y, f"{after} -> (n b) g o s ...", b=b, g=g, o=o, s=s)


def _check_offsets(offsets: Tensor, window: Geometry, sizes: dict[str, int]) -> None:
    if not isinstance(window, Window) or not window.fixed:
        raise ShapeError(f"window has {window!r}: offsets need a sliding window, whose border is not 'shift'.")
    bound = bind("offsets", offsets, f"b n d k {GRIDS[window.dims]}", sizes | {"d": window.dims})
    channels = sizes["g"] * sizes["i"] * sizes["s"]
    if channels % bound["n"]:
        raise ShapeError(
            f"offsets has n={bound['n']} groups, value has {channels} channels: n must divide them. "
            f"Divisors of {channels}: {divisors(channels)}."
        )
