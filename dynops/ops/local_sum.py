"""The formula of dynops: sum over the window of each pixel, weighted by that pixel's kernel."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from torch import Tensor

from dynops.axes import KERNEL_AXES, SUM_AXES, VALUE_AXES, bind
from dynops.ops.window import Window
from dynops.specs import one_of


def local_sum(kernel: Tensor, value: Tensor, window: Window, *, backend: str = "eager") -> Tensor:
    """Sum each pixel's window, weighted by that pixel's own kernel.

    y[b,g,o,s,p] = sum over i, k of kernel[b,g,o,i,k,p] * value[b,g,i,s,window(p,k)], zero outside the input.

    Args:
        kernel: weights, `b g o i k h w` on the output's grid; it is constant along an axis of size 1.
        value: features, `b g i s h w`.
        window: which pixels are summed.
        backend: `eager`, or `reference`, which is slower and easier to read.
    Returns:
        Features, `b g o s h w` on the output's grid, of the dtype of `value`; half precision is summed in float32.
    Raises:
        ShapeError: the axes do not fit together.
        SpecError: there is no such backend.
    Source: Li et al., Involution, CVPR 2021, eq. 4, with the summed axis i and the fan-out o of a convolution.

    >>> kernel, value = torch.ones(1, 1, 1, 1, 9, 1, 1), torch.ones(1, 1, 1, 1, 3, 3)
    >>> local_sum(kernel, value, Window(3))[0, 0, 0, 0]
    tensor([[4., 6., 4.],
            [6., 9., 6.],
            [4., 6., 4.]])
    """
    one_of("backend", backend, tuple(BACKENDS))
    sizes = bind("value", value, VALUE_AXES)
    sizes["h"], sizes["w"] = window.output_size((sizes["h"], sizes["w"]))
    sizes["k"] = window.taps
    bind("kernel", kernel, KERNEL_AXES, sizes, ones=True)
    exact = torch.promote_types(value.dtype, torch.float32)
    # an axis that is summed over must be there to be summed over; cast first, a cast would fill in what expand shares
    kernel = kernel.to(exact).expand(-1, sizes["g"], -1, sizes["i"], sizes["k"], -1, -1)
    return BACKENDS[backend](kernel, value.to(exact), window).to(value.dtype)


def reference(kernel: Tensor, value: Tensor, window: Window) -> Tensor:
    """Compute `local_sum` as it is written: gather the window of every pixel, then multiply and sum."""
    sizes = bind("value", value, VALUE_AXES)
    height, width = window.output_size((sizes["h"], sizes["w"]))
    rows = _positions(height, window.strides[0], window.sizes[0], window.dilations[0], value)  # h k
    columns = _positions(width, window.strides[1], window.sizes[1], window.dilations[1], value)  # w k
    patches = _pad(value, window)[..., rows[:, None, :, None], columns[None, :, None, :]]
    patches = rearrange(patches, "b g i s h w kh kw -> b g i s (kh kw) h w")
    kernel = kernel.expand(sizes["b"], -1, -1, -1, -1, height, width)
    return einsum(kernel, patches, "b g o i k h w, b g i s k h w -> b g o s h w")


def eager(kernel: Tensor, value: Tensor, window: Window) -> Tensor:
    """Compute `local_sum` without the k-fold tensor of all windows.

    A kernel that is constant over h, w is a convolution; any other is summed tap by tap over shifted views.
    """
    if kernel.shape[-2:] == (1, 1) and kernel.shape[0]:
        return _convolve(kernel, value, window)
    return _shift_and_accumulate(kernel, value, window)


BACKENDS = {"reference": reference, "eager": eager}


def _shift_and_accumulate(kernel: Tensor, value: Tensor, window: Window) -> Tensor:
    total = None
    for weight, shifted in zip(kernel.unbind(4), _shifts(value, window), strict=True):
        if kernel.shape[3] == 1:
            # the axes i of the weight and s of the value stand in one place, as do o and i: plain broadcasting
            total = weight * shifted if total is None else torch.addcmul(total, weight, shifted)
        else:
            # autocast multiplies in half precision; the taps are added in full
            product = einsum(weight, shifted, f"b g o i h w, {VALUE_AXES} -> {SUM_AXES}").to(value.dtype)
            total = product if total is None else total + product
    assert total is not None, "a window has at least one tap"
    return total


def _shifts(value: Tensor, window: Window) -> Iterator[Tensor]:
    height, width = window.output_size((value.shape[-2], value.shape[-1]))
    padded = _pad(value, window)
    for row in range(window.sizes[0]):
        top = row * window.dilations[0]
        rows = padded[..., top : top + (height - 1) * window.strides[0] + 1 : window.strides[0], :]
        for column in range(window.sizes[1]):
            left = column * window.dilations[1]
            yield rows[..., left : left + (width - 1) * window.strides[1] + 1 : window.strides[1]]


def _convolve(kernel: Tensor, value: Tensor, window: Window) -> Tensor:
    """Convolve: a sample that has a kernel of its own joins the groups; a share joins the groups or the batch."""
    b, g, o, i = kernel.shape[:4]
    s = value.shape[3]
    weight = rearrange(kernel, "b g o i (kh kw) 1 1 -> b g 1 o i kh kw", kh=window.sizes[0])
    if o == i == 1:  # depthwise: a share is one more channel with its group's weights
        weight = weight.expand(-1, -1, s, -1, -1, -1, -1)
        before, after = "n (b g s i) h w", "n (b g s o) h w"
    else:
        before, after = "(n s) (b g i) h w", "(n s) (b g o) h w"
    groups = weight.shape[:3].numel()
    weight = rearrange(weight, "b g s o i kh kw -> (b g s o) i kh kw")
    x = rearrange(value, f"(n b) g i s h w -> {before}", b=b)
    (top, bottom), (left, right) = window.margins((value.shape[-2], value.shape[-1]))
    padding = (top, left)
    if window.padding == "same":
        x, padding = F.pad(x, (left, right, top, bottom)), (0, 0)
    y = F.conv2d(x, weight, stride=window.strides, padding=padding, dilation=window.dilations, groups=groups)
    return rearrange(y, f"{after} -> (n b) g o s h w", b=b, g=g, o=o, s=s)


def _pad(value: Tensor, window: Window) -> Tensor:
    (top, bottom), (left, right) = window.margins((value.shape[-2], value.shape[-1]))
    return F.pad(value, (left, right, top, bottom))


def _positions(outputs: int, stride: int, taps: int, dilation: int, like: Tensor) -> Tensor:
    first = torch.arange(outputs, device=like.device) * stride
    return first[:, None] + torch.arange(taps, device=like.device) * dilation
