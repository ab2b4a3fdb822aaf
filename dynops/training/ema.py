"""A network whose weights are the moving average of another's."""

import copy
from itertools import chain

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Ema(nn.Module):
    """A copy of a network that follows it: after a step, average = decay * average + (1 - decay) * network.

    Running statistics are averaged as well, so that they belong to the averaged weights; buffers of whole numbers,
    such as counts and places, are copied.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Start as the network."""
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)
        self._average = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def follow(self, network: nn.Module) -> None:
        """Take a step towards the network."""
        pairs = list(zip(_tensors(self.network), _tensors(network), strict=True))
        real = [pair for pair in pairs if pair[0].is_floating_point()]
        self._average([own for own, _ in real], [theirs for _, theirs in real], 0)
        for own, theirs in pairs:
            if not own.is_floating_point():
                own.copy_(theirs)


def _tensors(network: nn.Module) -> "chain[Tensor]":
    return chain((parameter.detach() for parameter in network.parameters()), network.buffers())
