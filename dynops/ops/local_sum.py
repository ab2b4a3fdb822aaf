"""The formula of dynops: sum over the window of each pixel, weighted by that pixel's kernel."""

from torch import Tensor

from dynops.axes import GRIDS, bind, divisors, kernel_axes, value_axes
from dynops.errors import ShapeError
from dynops.ops.backends import BACKENDS, choose, explain_choice
from dynops.ops.call import Call
from dynops.ops.geometry import Geometry
from dynops.ops.taps import count, grid_of
from dynops.ops.window import Window


def local_sum(
    kernel: Tensor, value: Tensor, window: Geometry, *, offsets: Tensor | None = None, backend: str | None = None
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
        backend: one of `BACKENDS`; None takes the fastest that there is for these inputs, as `explain` says.
    Returns:
        Features, `b g o s h w` on the output's grid, of the dtype of `value`; half precision is summed in float32.
    Raises:
        ShapeError: the axes do not fit together, or the input is too small for the border.
        SpecError: there is no such backend, or it takes no such sum.
    Source: Li et al., Involution, CVPR 2021, eq. 4, with the summed axis i and the fan-out o of a convolution;
        offsets: Dai et al., Deformable Convolutional Networks, ICCV 2017, eq. 2.

    >>> import torch
    >>> kernel, value = torch.ones(1, 1, 1, 1, 9, 1, 1), torch.ones(1, 1, 1, 1, 3, 3)
    >>> local_sum(kernel, value, Window(3))[0, 0, 0, 0]
    tensor([[4., 6., 4.],
            [6., 9., 6.],
            [4., 6., 4.]])
    """
    call = _checked(kernel, value, window, offsets)
    return BACKENDS[choose(call, backend)].run(call).to(value.dtype)


def explain(
    kernel: Tensor, value: Tensor, window: Geometry, *, offsets: Tensor | None = None, backend: str | None = None
) -> str:
    """Say which backend takes a sum, and why each other does not; arguments and errors as in `local_sum`."""
    return explain_choice(_checked(kernel, value, window, offsets), backend)


def _checked(kernel: Tensor, value: Tensor, window: Geometry, offsets: Tensor | None) -> Call:
    sizes = bind("value", value, value_axes(window.dims))
    size = grid_of(value, window)
    window.check(size)
    outputs = window.output_size(size)
    sizes |= zip(GRIDS[window.dims].split(), outputs, strict=True)
    sizes["k"] = count(window, size)
    bind("kernel", kernel, kernel_axes(window.dims), sizes, ones=True)
    if offsets is not None:
        _check_offsets(offsets, window, sizes)
    return Call(kernel, value, window, offsets, size, outputs)


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
