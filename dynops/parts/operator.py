"""The operator: a kernel, its channels and its window, composed as a value and built as a module."""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from dynops.axes import GRIDS, bind, feature_axes
from dynops.errors import ShapeError
from dynops.ops import Window, local_sum
from dynops.ops.geometry import Size
from dynops.parts.channels import Channels
from dynops.parts.cost import Counted, macs, parameters
from dynops.parts.grid import CONVOLUTIONS
from dynops.parts.kernel import Kernel, Site
from dynops.specs import Spec, at_least, of_kind, spec


@spec
class Project(Spec):
    """A learned 1x1 convolution before the sum (of the value) or after it (of the output)."""

    bias: bool = False
    """Whether it adds a bias."""

    def build(self, channels: int, out_channels: int, dims: int) -> nn.Module:
        """Make the convolution for a grid."""
        return CONVOLUTIONS[dims](channels, out_channels, 1, bias=self.bias)


@dataclass(frozen=True, kw_only=True)
class Description:
    """What an operator is and costs, at one width and size."""

    signature: str
    """The axes on which the kernel varies: `{}` static, `{b}` sample-wise, `{b, h, w}` content and location."""
    kernel: str
    """The kernel's axes with their sizes, 1 where it is constant."""
    parameters: int
    """Trainable parameters."""
    macs: int
    """Multiply-accumulates of one image, by the rule of `dynops.parts.cost.macs`."""
    output: tuple[int, ...]
    """Channels of the output, and its grid."""


@spec
class Operator(Spec):
    """A local operator: `y[b,(g o s),p] = sum over i, k of K[b,g,o,i,k,p] * V[b,(g i s),window(p,k)]`."""

    kernel: Kernel
    """Where the weights come from."""
    channels: Channels
    """How a kernel is spread over channels."""
    window: Window
    """Where it looks."""
    value: Project | None = None
    """Projection of the input to the value V; None sums the input itself."""
    out: Project | None = None
    """Projection of the sum; it gives the operator any number of output channels."""
    bias: bool = False
    """Whether a learned bias is added to every channel of the sum."""

    def __post_init__(self) -> None:
        for name, kind in (("kernel", Kernel), ("channels", Channels), ("window", Window)):
            of_kind(name, getattr(self, name), kind)
        for name in ("value", "out"):
            if getattr(self, name) is not None:
                of_kind(name, getattr(self, name), Project)

    def build(
        self,
        channels: int,
        out_channels: int | None = None,
        *,
        guide_channels: int | None = None,
        size: Size | None = None,
    ) -> "LocalOperator":
        """Make the module for a width.

        Args:
            channels: channels of the input.
            out_channels: channels of the output; as many as the input's where the channels' pattern leaves it open.
            guide_channels: channels of a second input that the kernel is made from, in the place of the first.
            size: the input's grid, rows and columns; only a kernel that learns positions needs it.
        Raises:
            ShapeError: the width does not divide as the parts need it.
            SpecError: a size is missing or is not a positive number.
        """
        given = {"out_channels": (out_channels,), "guide_channels": (guide_channels,), "size": size or ()}
        for name, values in given.items():
            for each in values:
                if each is not None:
                    at_least(name, each, 1)
        split = self.channels.resolve(channels, None if self.out else out_channels)
        return LocalOperator(self, channels, out_channels or split.out_channels, guide_channels, size)

    def describe(self, channels: int, size: Size, out_channels: int | None = None) -> Description:
        """Say what the operator is and costs, without computing anything.

        Args:
            channels: channels of the input.
            size: the input's grid, rows and columns.
            out_channels: channels of the output, as in `build`.
        """
        with torch.device("meta"):
            operator = self.build(channels, out_channels, size=size)
            x = torch.empty(1, channels, *size)
            y, kernel = operator(x, return_kernel=True)
        grid = GRIDS[self.window.dims].split()
        varies = [letter for letter in ("b", *grid) if ("h" if letter in grid else "b") in self.kernel.signature]
        letters = zip(("b", "g", "o", "i", "k", *grid), kernel.shape, strict=True)
        return Description(
            signature="{" + ", ".join(varies) + "}",
            kernel=" ".join(f"{letter}={count}" for letter, count in letters),
            parameters=parameters(operator),
            macs=macs(operator, (1, channels, *size)),
            output=tuple(y.shape[1:]),
        )


class LocalOperator(Counted):
    """What an `Operator` builds: maps `b c h w` to `b c' h' w'`; the window's dims say which grid."""

    def __init__(
        self, operator: Operator, channels: int, out_channels: int, guide_channels: int | None, size: Size | None
    ) -> None:
        super().__init__()
        self.spec = operator
        self.channels = channels
        self.guide_channels = guide_channels
        self.window = operator.window
        self.split = operator.channels.resolve(channels, None if operator.out else out_channels)
        site = Site(
            channels=guide_channels or channels,
            g=self.split.g,
            o=self.split.o,
            i=self.split.i,
            window=operator.window,
            size=size,
        )
        self.kernel = operator.kernel.build(site)
        self.value = operator.value.build(channels, channels, self.window.dims) if operator.value else nn.Identity()
        summed = self.split.out_channels
        self.bias = nn.Parameter(torch.empty(summed)) if operator.bias else None
        self.out = operator.out.build(summed, out_channels, self.window.dims) if operator.out else nn.Identity()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the bias as PyTorch draws a convolution's."""
        if self.bias is not None:
            bound = (self.split.i * self.window.taps) ** -0.5
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(
        self, x: Tensor, guide: Tensor | None = None, *, return_kernel: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Apply the operator.

        Args:
            x: features, `b c h w`.
            guide: what the kernel is made from, `b c h w` of the same b, h, w; x itself where it was built without.
            return_kernel: whether to return the kernel as well, `b g o i k h w`, 1 along axes where it is constant.
        Raises:
            ShapeError: the inputs are not what the operator was built for.
        """
        self._check(x, guide)
        kernel = self.kernel(x if guide is None else guide)
        y = local_sum(kernel, self.split.split(self.value(x)), self.window)
        # a kernel that is constant along o gives every output of its group the same sum
        y = self.split.merge(y.expand(-1, -1, self.split.o, *(-1,) * (1 + self.window.dims)))
        if self.bias is not None:
            y = y + self.bias[(slice(None), *(None,) * self.window.dims)]
        y = self.out(y)
        return (y, kernel) if return_kernel else y

    def own_macs(self, x: Tensor) -> int:
        """Count the products of the local sum."""
        outputs = prod(self.window.output_size(tuple(x.shape[2:])))
        return x.shape[0] * outputs * self.window.taps * self.split.out_channels * self.split.i

    def extra_repr(self) -> str:
        return f"{self.spec!r}, channels={self.channels}"

    def _check(self, x: Tensor, guide: Tensor | None) -> None:
        axes = feature_axes(self.window.dims)
        sizes = bind("x", x, axes)
        if sizes["c"] != self.channels:
            raise ShapeError(f"x has c={sizes['c']} channels: the operator was built for {self.channels}.")
        if (guide is None) != (self.guide_channels is None):
            came, rule = ("no guide", "needs one") if guide is None else ("a guide", "takes none")
            raise ShapeError(f"call has {came}, operator has guide_channels={self.guide_channels}: it {rule}.")
        if guide is not None and self.guide_channels is not None:
            bind("guide", guide, axes, sizes | {"c": self.guide_channels})
