"""Initial weights that depend on the block and on a layer's place in the network, on nothing else."""

from typing import Protocol, runtime_checkable

import torch
from torch import nn

from dynops.streams import stream_seed


@runtime_checkable
class Resettable(Protocol):
    """A layer that can draw its own initial weights again."""

    def reset_parameters(self) -> None:
        """Draw the weights from torch's global generator."""


def initialise(network: nn.Module, seed: int) -> None:
    """Draw the initial weights of every layer from a stream of its own, named by the layer's place.

    So cells of a study that differ in one layer start equal in all others. The global generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        for name, layer in network.named_modules():
            own = next(layer.parameters(recurse=False), None)
            if own is not None and isinstance(layer, Resettable):
                torch.manual_seed(stream_seed(seed, "weights", name))
                layer.reset_parameters()
