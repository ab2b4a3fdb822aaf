"""The formula of dynops for a kernel that a linear map makes of each pixel's hidden context."""

import torch
from torch import Tensor

from dynops.axes import GRIDS, bind
from dynops.ops import fused_native, generated, sums
from dynops.ops.fused import generated_by
from dynops.ops.geometry import Geometry
from dynops.ops.local_sum import local_sum
from dynops.ops.taps import count, grid_of


def generated_sum(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    value: Tensor,
    window: Geometry,
    *,
    backend: str | None = None,
) -> Tensor:
    """Sum each pixel's window, weighted by a kernel that is a linear map of that pixel's hidden context.

    y[b,g,s,p] = sum over k of K[b,g,k,p] * value[b,g,s,window(p,k)],
    K[b,g,k,p] = bias[g,k] + sum over r of weight[g,k,r] * hidden[b,r,p]

    Args:
        hidden: hidden context, `b r h w` on the output's grid.
        weight: `g k r`.
        bias: `g k`; None: zero.
        value: features, `b g s h w`.
        window: which pixels are summed; its `dims` says whether the grid is `w`, `h w` or `t h w`.
        backend: one of `BACKENDS`; `triton` and, but for half precision, `native` generate the kernel where it is
            needed, forward and backward, all others have it in memory; None takes the first of the two that can.
    Returns:
        Features, `b g s h w` on the output's grid, of the dtype of `value`; half precision is summed in float32.
    Raises:
        ShapeError: the axes do not fit together, or the input is too small for the border.
        SpecError: there is no such backend, or it takes no such sum.
    Source: Li et al., Involution, CVPR 2021, eq. 6.

    >>> import torch
    >>> from dynops.ops import Window
    >>> hidden, weight, value = torch.ones(1, 2, 3, 3), torch.ones(1, 9, 2), torch.ones(1, 1, 1, 3, 3)
    >>> generated_sum(hidden, weight, None, value, Window(3))[0, 0, 0]
    tensor([[ 8., 12.,  8.],
            [12., 18., 12.],
            [ 8., 12.,  8.]])
    """
    grid = GRIDS[window.dims]
    sizes = bind("value", value, f"b g s {grid}")
    size = grid_of(value, window)
    window.check(size)
    sizes |= dict(zip(grid.split(), window.output_size(size), strict=True))
    sizes = bind("hidden", hidden, f"b r {grid}", sizes)
    sizes = bind("weight", weight, "g k r", sizes | {"k": count(window, size)})
    if bias is None:
        bias = weight.new_zeros(weight.shape[:2])
    bind("bias", bias, "g k", sizes)
    if engine := generated_by(hidden, value, window, backend):
        return _fused(hidden, weight, bias, value, window, engine)
    kernel = torch.einsum("gkr,br...->bgk...", weight, hidden) + bias[(..., *(None,) * window.dims)]
    return local_sum(kernel[:, :, None, None], value[:, :, None], window, backend=backend)[:, :, 0]


def _fused(hidden: Tensor, weight: Tensor, bias: Tensor, value: Tensor, window: Geometry, engine: str) -> Tensor:
    """Take the sum with a kernel that is nowhere in memory."""
    dtype = value.dtype
    value, numbers = sums.laid_out(value[:, :, None], window)
    flat = window.dims == 1  # a sequence is an image of one row
    if flat:
        hidden = hidden.unsqueeze(-2)
    if engine == fused_native.NAME:  # which has one dtype
        hidden, weight, bias, value = sums.in_one_dtype(hidden, weight, bias, value)
    y = generated.generated_sum(hidden, weight, bias, value, numbers, engine)[:, :, 0].to(dtype)
    return y.squeeze(-2) if flat else y
