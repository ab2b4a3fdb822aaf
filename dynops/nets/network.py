"""What every network spec is: a value that builds a module for the shape of a data set."""

from abc import ABC, abstractmethod
from typing import NamedTuple, Self

from torch import nn

from dynops.errors import SpecError
from dynops.specs import Spec

Shape = tuple[int, int, int]


class Widths(NamedTuple):
    """The two numbers that say how wide a network is."""

    inner: int
    """Channels of its first operator, which must divide as the operator needs it."""
    width: int
    """Channels around its first operator, any number."""


class Network(Spec, ABC):
    """Base of all networks."""

    __slots__ = ()

    @abstractmethod
    def build(self, shape: Shape, outputs: int) -> nn.Module:
        """Make the module.

        A network of stages is an `nn.Sequential` of children named `stem`, `stage1_block1`, `stage1_block2` and so on,
        and `head`, in this order; what changes the grid between two stages is in the first block of the later one. So
        `dynops.nets.features` finds what each stage gives.

        Args:
            shape: channels, rows and columns of an input.
            outputs: number of classes, or of output channels in a regression.
        """

    @property
    def widths(self) -> Widths:
        """How wide the network is.

        Raises:
            SpecError: it has one width only.
        """
        raise _fixed(self)

    def widened(self, widths: Widths) -> Self:
        """Return the network with other widths, and itself with its own; a larger number costs more.

        Raises:
            SpecError: it has one width only.
        """
        raise _fixed(self)


def _fixed(network: Network) -> SpecError:
    return SpecError(f"network has {network!r}: its width is fixed. Use a ResidualNetwork, or budget='as_is'.")
