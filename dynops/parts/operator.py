"""The operator: a kernel, its channels and its window, composed as a value and built as a module."""

from collections import OrderedDict
from dataclasses import replace
from math import prod

import torch
from torch import Tensor, nn

from dynops.axes import bind, divisors, feature_axes
from dynops.errors import ShapeError, SpecError
from dynops.ops import Geometry, Size, Window, scatter
from dynops.parts.channels import Channels, Split
from dynops.parts.context import Context
from dynops.parts.fold import Foldable
from dynops.parts.grid import CONVOLUTIONS
from dynops.parts.kernel import Kernel, KernelModule, Term, combined, sum_terms
from dynops.parts.layer import Layer
from dynops.parts.norm import BatchNorm
from dynops.parts.site import Site
from dynops.specs import Spec, at_least, of_kind, spec


@spec
class Project(Spec):
    """A learned 1x1 convolution before the sum (of the value) or after it (of the output)."""

    bias: bool = False
    """Whether it adds a bias."""
    reduction: int = 1
    """Channels of the input for each channel of the value; with `out` the operator then has low rank."""
    norm: BatchNorm | None = None
    """Normalisation of the projection."""

    def __post_init__(self) -> None:
        at_least("reduction", self.reduction, 1)
        if self.norm is not None:
            of_kind("norm", self.norm, BatchNorm)

    def width(self, channels: int) -> int:
        """Channels of the value.

        Raises:
            ShapeError: the input's are no multiple of the reduction.
        """
        if channels % self.reduction:
            raise ShapeError(
                f"x has c={channels} channels, value has reduction={self.reduction}: c must be a multiple. "
                f"Divisors of {channels}: {divisors(channels)}."
            )
        return channels // self.reduction

    def build(self, channels: int, out_channels: int, dims: int) -> nn.Module:
        """Make the convolution for a grid."""
        convolution = CONVOLUTIONS[dims](channels, out_channels, 1, bias=self.bias)
        if self.norm is None:
            return convolution
        return nn.Sequential(OrderedDict(project=convolution, norm=self.norm.build(out_channels, dims)))


@spec
class Offsets(Spec):
    """Where each tap looks beside its place: `value(window(p, k) + offset[b,n,:,k,p])`, linear between pixels.

    Source: Dai et al., Deformable Convolutional Networks, ICCV 2017, eq. 2 and 3.
    """

    kernel: Kernel
    """What gives the offsets, in pixels: a kernel whose g are the groups and whose o are down and right."""
    groups: int = 1
    """Number of channel groups with offsets of their own."""

    def __post_init__(self) -> None:
        of_kind("kernel", self.kernel, Kernel)
        at_least("groups", self.groups, 1)

    def build(self, site: Site) -> "OffsetsModule":
        """Make the module that gives the offsets at a place."""
        if not isinstance(site.window, Window) or not site.window.fixed:
            raise SpecError(f"window has {site.window!r}: offsets need a sliding window, whose border is not 'shift'.")
        return OffsetsModule(self.kernel.build(replace(site, g=self.groups, o=site.window.dims, i=1)), site.window)


class OffsetsModule(nn.Module):
    """The offsets of all taps, `b n d k h w`."""

    def __init__(self, kernel: KernelModule, window: Window) -> None:
        super().__init__()
        self.kernel, self.window = kernel, window

    def forward(self, context: Tensor, given: Tensor | None) -> Tensor:
        offsets = self.kernel(context, given).squeeze(3)
        grid = self.window.output_size(tuple(context.shape[2:]))
        return offsets.expand(context.shape[0], -1, -1, prod(self.window.sizes), *grid)


@spec
class Operator(Layer):
    """A local operator: `y[b,(g o s),p] = sum over i, k of K[b,g,o,i,k,p] * V[b,(g i s),window(p,k)]`."""

    kernel: Kernel
    """Where the weights come from."""
    channels: Channels
    """How a kernel is spread over channels."""
    window: Geometry
    """Where it looks."""
    value: Project | None = None
    """Projection of the input to the value V; None sums the input itself."""
    out: Project | None = None
    """Projection of the sum; it gives the operator any number of output channels."""
    bias: bool | Kernel = False
    """Whether a learned bias is added to every channel of the sum; or a kernel that gives the bias, one weight for
    each g and o."""
    context: Context | None = None
    """What the parts with context `operator` are made from, computed once."""
    offsets: Offsets | None = None
    """Where the taps look beside their places; None: nowhere else."""
    scatter: Window | None = None
    """The window that each pixel of the sum writes into, one fan-out of the kernel for each of its taps; with a stride
    the output's grid is as many times finer. None: each pixel writes to itself."""

    def __post_init__(self) -> None:
        needed: dict[str, type] = {"kernel": Kernel, "channels": Channels, "window": Geometry}
        optional: dict[str, type] = {"value": Project, "out": Project, "context": Context, "offsets": Offsets}
        for name, kind in (needed | optional | {"scatter": Window}).items():
            if name in needed or getattr(self, name) is not None:
                of_kind(name, getattr(self, name), kind)
        if not isinstance(self.bias, bool):
            of_kind("bias", self.bias, Kernel)
        if self.out is not None and self.out.reduction != 1:
            raise SpecError(f"out has reduction={self.out.reduction}: the width of an output is out_channels.")
        if self.scatter is not None:
            self._check_scatter(self.scatter)

    def _check_scatter(self, scatter: Window) -> None:
        if scatter.border != "zeros":
            raise SpecError(f"scatter has border={scatter.border!r}: what is written outside is lost, use 'zeros'.")
        if scatter.dims != self.window.dims:
            raise SpecError(f"scatter has dims={scatter.dims}, window has dims={self.window.dims}: must be equal.")
        if isinstance(self.bias, Kernel):
            raise SpecError("bias has a kernel, scatter has a window: with scatter a bias is a number a channel.")

    @property
    def dims(self) -> int:
        return self.window.dims

    @property
    def signature(self) -> frozenset[str]:
        return self.kernel.signature | (self.context.signature if self.context else frozenset())

    def strided(self, stride: int) -> "Operator":
        return replace(self, window=self.window.strided(stride))

    def width(self, channels: int, out_channels: int | None = None) -> int:
        return (out_channels or channels) if self.out else self.split(channels, out_channels).out_channels

    def split(self, channels: int, out_channels: int | None = None) -> Split:
        """Find the sizes of the channel letters at a width; arguments and errors as in `build`."""
        summed = self.value.width(channels) if self.value else channels
        return self.channels.resolve(summed, None if self.out else out_channels)

    def output_size(self, size: Size) -> Size:
        grid = self.window.output_size(size)
        if self.scatter is None:
            return grid
        steps = zip(size, self.window.strides, self.scatter.strides, strict=True)
        return tuple(-(-length * finer // coarser) for length, coarser, finer in steps)

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
        return LocalOperator(self, channels, out_channels, guide_channels, size)


class LocalOperator(Foldable):
    """What an `Operator` builds: maps `b c h w` to `b c' h' w'`; the window's dims say which grid."""

    def __init__(
        self,
        operator: Operator,
        channels: int,
        out_channels: int | None,
        guide_channels: int | None,
        size: Size | None,
    ) -> None:
        super().__init__()
        self.spec = operator
        self.channels = channels
        self.guide_channels = guide_channels
        self.window, dims = operator.window, operator.window.dims
        self.split = operator.split(channels, out_channels)
        self.writes = prod(operator.scatter.sizes) if operator.scatter else 1
        site = Site(
            channels=guide_channels or channels,
            g=self.split.g,
            o=self.split.o * self.writes,
            i=self.split.i,
            window=operator.window,
            size=size,
        )
        self.context = operator.context.build(site) if operator.context else None
        if operator.context:
            site = replace(site, given=operator.context.width(site))
        self.kernel = operator.kernel.build(site)
        self.value = operator.value.build(channels, self.split.channels, dims) if operator.value else nn.Identity()
        self.offsets = operator.offsets.build(site) if operator.offsets else None
        self.bias = nn.Parameter(torch.empty(self.split.out_channels)) if operator.bias is True else None
        self.bias_kernel = None
        if isinstance(operator.bias, Kernel):
            self.bias_kernel = operator.bias.build(replace(site, i=1, slots=1, biased=site.i))
        outputs = operator.width(channels, out_channels)
        self.out = operator.out.build(self.split.out_channels, outputs, dims) if operator.out else nn.Identity()
        self.fan_in = site.fan_in if self.bias is not None else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the bias as PyTorch draws a convolution's."""
        if self.bias is not None and self.fan_in is not None:
            bound = self.fan_in**-0.5
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
        source = x if guide is None else guide
        given = None if self.context is None else self.context(source)
        offsets = None if self.offsets is None else self.offsets(source, given)
        value = self.split.split(self.value(x))
        terms: list[Term] = []
        if return_kernel:
            terms = self.kernel.terms(source, given)
            y = sum_terms(terms, value, self.window, offsets)
        else:
            y = self.kernel.sum(source, given, value, self.window, offsets)
        # a kernel that is constant along o gives every output of its group the same sum
        y = y.expand(-1, -1, self.split.o * self.writes, *(-1,) * (1 + self.window.dims))
        if self.bias_kernel is not None:
            y = y + self.bias_kernel(source, given).squeeze(3)
        if self.spec.scatter is not None:
            written = y.unflatten(2, (self.split.o, self.writes)).movedim(3, 4)  # b g o s k h w
            y = scatter(written, self.spec.scatter, self.spec.output_size(tuple(x.shape[2:])))
        y = self.split.merge(y)
        if self.bias is not None:
            y = y + self.bias[(slice(None), *(None,) * self.window.dims)]
        y = self.out(y)
        return (y, combined(terms)) if return_kernel else y

    def own_macs(self, x: Tensor) -> int:
        """Count the products of the local sum."""
        size = tuple(x.shape[2:])
        sums = prod(self.window.output_size(size)) * self.split.out_channels * self.writes
        return x.shape[0] * sums * prod(self.window.tap_grid(size)) * self.split.i

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
