"""What a backend of `local_sum` is given."""

from typing import NamedTuple

import torch
from torch import Tensor

from dynops.ops.geometry import Geometry, Size
from dynops.ops.taps import count, grid_of


class Call(NamedTuple):
    """Inputs of `local_sum` whose axes fit together."""

    kernel: Tensor
    """`b g o i k h w`, of size 1 along axes on which it is constant."""
    value: Tensor
    """`b g i s h w`"""
    window: Geometry
    offsets: Tensor | None
    """`b n d k h w`"""
    size: Size
    """The input's grid."""
    outputs: Size
    """The output's grid."""

    @property
    def constant(self) -> bool:
        """Whether all pixels of an image have one kernel."""
        return all(size == 1 for size in self.kernel.shape[5:])

    def exact(self) -> "Call":
        """Return the call in the dtype that torch sums in, at least float32, with all axes that are summed over."""
        dtype = torch.promote_types(self.value.dtype, torch.float32)
        g, i = self.value.shape[1:3]
        k = count(self.window, self.size)
        # cast first: a cast would fill in what expand shares
        kernel = self.kernel.to(dtype).expand(-1, g, -1, i, k, *(-1,) * self.window.dims)
        offsets = None if self.offsets is None else self.offsets.to(dtype)
        return self._replace(kernel=kernel, value=self.value.to(dtype), offsets=offsets)


def call_of(kernel: Tensor, value: Tensor, window: Geometry, offsets: Tensor | None = None) -> Call:
    """Return the call of inputs that are known to fit together."""
    size = grid_of(value, window)
    return Call(kernel, value, window, offsets, size, window.output_size(size))
