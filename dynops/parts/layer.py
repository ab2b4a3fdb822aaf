"""What can stand in a network's slot: an operator, or operators in series or in parallel."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from dynops.axes import GRIDS
from dynops.ops.geometry import Size
from dynops.parts.cost import Counted, macs, parameters
from dynops.parts.kernel import KernelModule
from dynops.specs import Spec


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a layer is and costs, at one width and size."""

    signature: str
    """The axes on which its kernels vary: `{}` static, `{b}` sample-wise, `{b, h, w}` content and location.

    At a masked border a normalised kernel of any signature differs from the one inside, as it counts fewer taps."""
    kernel: str
    """The kernel's axes with their sizes, 1 where it is constant; of several kernels, one after the other."""
    parameters: int
    """Trainable parameters."""
    macs: int
    """Multiply-accumulates of one image, by the rule of `dynops.parts.cost.macs`."""
    output: tuple[int, ...]
    """Channels of the output, and its grid."""


class Layer(Spec, ABC):
    """Base of all layers: values that build a module `b c h w -> b c' h' w'` for a width."""

    __slots__ = ()

    @property
    @abstractmethod
    def dims(self) -> int:
        """Dimensions of the grid."""

    @property
    @abstractmethod
    def signature(self) -> frozenset[str]:
        """The axes among b, h, w on which a kernel of the layer varies."""

    @abstractmethod
    def strided(self, stride: int) -> Self:
        """Return the layer with another stride."""

    @abstractmethod
    def width(self, channels: int, out_channels: int | None = None) -> int:
        """Return the output's channels; arguments and errors as in `build`."""

    @abstractmethod
    def output_size(self, size: Size) -> Size:
        """Return the output's grid for that of the input."""

    @abstractmethod
    def build(
        self,
        channels: int,
        out_channels: int | None = None,
        *,
        guide_channels: int | None = None,
        size: Size | None = None,
    ) -> nn.Module:
        """Make the module for a width.

        Args:
            channels: channels of the input.
            out_channels: channels of the output; by default as many as the parts give.
            guide_channels: channels of a second input that kernels are made from, in the place of the first.
            size: the input's grid, rows and columns; only what learns positions needs it.
        Raises:
            ShapeError: the width does not divide as the parts need it.
            SpecError: a size is missing or is not a positive number.
        """

    def describe(self, channels: int, size: Size, out_channels: int | None = None) -> Description:
        """Say what the layer is and costs, without computing anything.

        Args:
            channels: channels of the input.
            size: the input's grid, rows and columns.
            out_channels: channels of the output, as in `build`.
        """
        grid = GRIDS[self.dims].split()
        inputs: dict[nn.Module, tuple[Tensor, ...]] = {}
        with torch.device("meta"), torch.no_grad():
            layer = self.build(channels, out_channels, size=size)
            for module in layer.modules():
                # an operator, which has a kernel of its own, and not what the kernel is combined from
                if isinstance(module, Counted) and isinstance(getattr(module, "kernel", None), KernelModule):
                    module.register_forward_pre_hook(inputs.__setitem__)
            y = layer(torch.empty(1, channels, *size))
            made = [module(*features, return_kernel=True)[1] for module, features in tuple(inputs.items())]
        letters = ("b", "g", "o", "i", "k", *grid)
        kernels = [
            " ".join(f"{letter}={count}" for letter, count in zip(letters, kernel.shape, strict=True))
            for kernel in made
        ]
        varies = [letter for letter in ("b", *grid) if ("h" if letter in grid else "b") in self.signature]
        return Description(
            signature="{" + ", ".join(varies) + "}",
            kernel="; ".join(kernels),
            parameters=parameters(layer),
            macs=macs(layer, (1, channels, *size)),
            output=tuple(y.shape[1:]),
        )
