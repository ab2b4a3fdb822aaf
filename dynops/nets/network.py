"""What every network spec is: a value that builds a module for the shape of a data set."""

from abc import ABC, abstractmethod

from torch import nn

from dynops.specs import Spec

Shape = tuple[int, int, int]


class Network(Spec, ABC):
    """Base of all networks."""

    __slots__ = ()

    @abstractmethod
    def build(self, shape: Shape, outputs: int) -> nn.Module:
        """Make the module.

        Args:
            shape: channels, rows and columns of an input.
            outputs: number of classes, or of output channels in a regression.
        """
