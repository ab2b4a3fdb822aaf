"""Normalisation and activation of hidden channels."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynops.parts.grid import BATCH_NORMS
from dynops.specs import Spec, spec

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "identity": lambda x: x,
}


@spec
class BatchNorm(Spec):
    """Batch normalisation of hidden channels, queries or values."""

    eps: float = 1e-5
    """Added to the variance."""
    momentum: float = 0.1
    """Weight of the newest batch in the running statistics."""

    def build(self, channels: int, dims: int) -> nn.Module:
        """Make the normalisation for a grid."""
        return HIDDEN_NORMS[dims](channels, self.eps, self.momentum)


class HiddenNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation that uses its running statistics where a batch holds one value a channel.

    One value has no statistics. A constant context always is one value, so its norm stays the affine map alone.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # the name that torch gives it
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


HIDDEN_NORMS = {
    dims: type(f"HiddenNorm{dims}d", (HiddenNorm, norm), {"__doc__": HiddenNorm.__doc__})
    for dims, norm in BATCH_NORMS.items()
}
