"""Backends in torch: as the formula stands, tap by tap, as a convolution, and as products of matrices."""

from collections.abc import Iterator
from math import prod

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from dynops.ops.blocks import Common
from dynops.ops.call import Call
from dynops.ops.taps import from_tiles, gather, pad, samples, shifts, tiles, to_tiles
from dynops.ops.window import Window

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def reference(call: Call) -> Tensor:
    """Compute `local_sum` as it is written: gather the window of every pixel, then multiply and sum."""
    kernel, value, window, offsets, _, outputs = call = call.exact()
    kernel = kernel.expand(value.shape[0], *(-1,) * 4, *outputs)
    patches = gather(value, window) if offsets is None else torch.stack(list(_seen(call)), dim=4)
    return torch.einsum("bgoik...,bgisk...->bgos...", kernel, patches)


def shift(call: Call) -> Tensor:
    """Sum tap by tap over shifted views, without the k-fold tensor of all windows."""
    call = call.exact()
    value, total = call.value, None
    for weight, shifted in zip(call.kernel.unbind(4), _seen(call), strict=True):
        if call.kernel.shape[3] == 1:
            # the axes i of the weight and s of the value stand in one place, as do o and i: plain broadcasting
            total = weight * shifted if total is None else torch.addcmul(total, weight, shifted)
        else:
            # autocast multiplies in half precision; the taps are added in full
            summed = torch.einsum("bgis...,bgoi...->bgos...", shifted, weight).to(value.dtype)
            total = summed if total is None else total + summed
    assert total is not None, "a window has at least one tap"
    return total


def products(call: Call) -> Tensor:
    """Multiply matrices: windows that pixels have in common are read once for all of them."""
    kernel, value, window, _, size, outputs = call.exact()
    assert isinstance(window, Common), "others are refused"
    cut = to_tiles(kernel.expand(*(-1,) * 5, *outputs), window, size)
    # b g o i k t q, b g i s k t
    summed = torch.einsum("bgoiktq,bgiskt->bgostq", cut.expand(value.shape[0], *(-1,) * 6), tiles(value, window))
    return from_tiles(summed.to(value.dtype), window, size)


def convolution(call: Call) -> Tensor:
    """Convolve: a sample that has a kernel of its own joins the groups; a share joins the groups or the batch."""
    kernel, value, window, _, size, _ = call.exact()
    assert isinstance(window, Window), "others are refused"
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
    padding = tuple(before for before, _ in window.margins(size))
    if window.padding != "centre" or not window.bounded:
        x, padding = pad(x, window), (0,) * window.dims
    convolve = CONVOLUTIONS[window.dims]
    y = convolve(x, weight, stride=window.strides, padding=padding, dilation=window.dilations, groups=groups)
    return rearrange(y, f"{after} -> (n b) g o s ...", b=b, g=g, o=o, s=s)


def refuses_products(call: Call) -> str:
    """Say why a sum is no product of matrices; nothing where it is one."""
    return "" if isinstance(call.window, Common) else "each pixel has a window of its own"


def refuses_convolution(call: Call) -> str:
    """Say why a sum is no convolution; nothing where it is one."""
    window, own = call.window, call.kernel.shape[0] != 1
    if not isinstance(window, Window) or not window.fixed:
        return "the window does not slide"
    if call.offsets is not None:
        return "the taps have offsets"
    if not call.constant:
        return "the kernel differs from pixel to pixel"
    if own and torch.compiler.is_exporting():
        # it may meet any number of images, but its convolutions have as many groups as now
        return "a program that is exported has kernels of its own for each image"
    return "there are no images" if call.kernel.shape[0] == 0 else ""


def _seen(call: Call) -> Iterator[Tensor]:
    """What each tap sees, `b g i s h w`."""
    _, value, window, offsets, *_ = call
    if offsets is None:
        return shifts(value, window)
    assert isinstance(window, Window), "checked at the boundary"
    return (each.unflatten(1, value.shape[1:4]) for each in samples(value.flatten(1, 3), offsets, window))
