"""Generated kernels, phi(context): the context alone decides on which axes the kernel varies, phi stays the same."""

from math import prod

from einops import rearrange
from torch import Tensor, nn

from dynops.errors import ShapeError, SpecError
from dynops.ops import Geometry, generated_by, generated_sum, local_sum
from dynops.ops.taps import count, grid_of, pad
from dynops.parts import context as contexts
from dynops.parts.context import Context, Source
from dynops.parts.grid import CONVOLUTIONS
from dynops.parts.kernel import Kernel, KernelModule, check_shared
from dynops.parts.norm import ACTIVATIONS, BatchNorm
from dynops.parts.site import Site
from dynops.specs import at_least, of_kind, one_of, spec

DOWNSAMPLES = ("average", "subsample")


@spec
class Hidden(Context):
    """Hidden channels of another context: `activation(norm(W0 context[b,:,p]))`, the first half of phi.

    As the context of an operator it is computed once for all its kernels.
    """

    context: Source
    """What they are made from, as in `Dynamic`."""
    reduction: int | None = None
    """Channels of the context for each hidden channel; 4 where neither this nor `hidden` is given."""
    hidden: int | None = None
    """Number of hidden channels, in the place of a reduction."""
    least: int | None = None
    """Smallest number of hidden channels that a reduction leaves; where given, it need not divide but is rounded."""
    apart: bool = False
    """Whether `hidden` is the number for each kernel g and fan-out o."""
    norm: BatchNorm | None = BatchNorm()
    """Normalisation of the hidden channels."""
    bias: bool = False
    """Whether W0 has a bias."""
    activation: str = "relu"
    """One of the keys of `ACTIVATIONS`."""
    downsample: str = "average"
    """How a pixel reaches the grid of a strided output: `average` pooling, or `subsample`."""

    def __post_init__(self) -> None:
        _check_phi(self)
        if self.apart and self.hidden is None:
            raise SpecError("apart has True, hidden has None: give the number of channels for each kernel.")

    @property
    def signature(self) -> frozenset[str]:
        return contexts.signature(self.context)

    def width(self, site: Site) -> int:
        return hidden_channels(self, contexts.width(self.context, site)) * (site.g * site.o if self.apart else 1)

    def build(self, site: Site) -> nn.Module:
        return HiddenFeatures(self, site, self.width(site))


@spec
class Linear(Kernel):
    """A kernel that is a linear map of its context: `K[b,:,p] = W context[b,:,p] + b`.

    Source: Wu et al., Pay Less Attention, ICLR 2019, eq. 5 (one pixel's kernel); Yang et al., CondConv, NeurIPS 2019
        (as a router).
    """

    context: Source
    """What the kernel is made from, as in `Dynamic`."""
    bias: bool = True
    """Whether the map has a bias."""
    reach: int | str = 1
    """Side of the map's own window on the output's grid, odd, with zeros outside; `window` is the operator's window,
    for the context `pixel` alone."""
    apart: bool = False
    """Whether each kernel g and fan-out o reads a share of the context's channels of its own."""
    groups: int = 1
    """Number of shares into which each of these is cut again, as are its outputs `i k`."""
    start: float | None = None
    """What weights and bias start as; None draws them as PyTorch draws a convolution's."""
    downsample: str = "average"
    """How a pixel reaches the grid of a strided output: `average` pooling, or `subsample`."""
    shared: str = ""
    """Axes among g o i k along which the kernel is constant."""

    def __post_init__(self) -> None:
        contexts.check_source(self.context)
        one_of("downsample", self.downsample, DOWNSAMPLES)
        check_shared(self.shared)
        at_least("groups", self.groups, 1)
        if self.reach == "window":
            if self.context != "pixel":
                raise SpecError(f"reach has 'window', context has {self.context!r}: must be 'pixel'.")
        elif not isinstance(self.reach, int) or self.reach < 1 or self.reach % 2 == 0:
            raise SpecError(f"reach has {self.reach!r}: must be 'window' or an odd number.")
        elif self.reach > 1 and contexts.is_per_tap(self.context):
            raise SpecError(f"reach has {self.reach}, context has {self.context!r}: a tap has no neighbours.")

    @property
    def signature(self) -> frozenset[str]:
        return contexts.signature(self.context)

    def build(self, site: Site) -> KernelModule:
        return LinearKernel(self, site)


@spec
class Read(Kernel):
    """The operator's own context as the kernel: its channels are the weights, in the order `g o i k`.

    With it one router weighs the experts of the kernel and of the bias.
    """

    shared: str = ""
    """Axes among g o i k along which the kernel is constant."""

    def __post_init__(self) -> None:
        check_shared(self.shared)

    @property
    def signature(self) -> frozenset[str]:
        return frozenset()

    def build(self, site: Site) -> KernelModule:
        return ReadKernel(self, site)


@spec
class Dynamic(Kernel):
    """A kernel that is generated: `K[b,:,p] = W1 relu(norm(W0 context[b,:,p])) + b1`.

    The context is a learned vector (`constant`), a learned map of positions (`position`), where the pixel is
    (`coordinates`, from -1 to 1, at any size), the image's mean (`global`), the pixel (`pixel`), a dense convolution of
    the pixel's window (`window`), the operator's own context (`operator`), a `Context`, or several of them side by
    side, as a tuple. So `replace(kernel, context=...)` gives the twin with the same phi and another signature. From a
    constant, phi can give every static kernel (b1 alone can), though hidden units that start below zero stay there, as
    nothing varies that could wake them.

    Source: Li et al., Involution, CVPR 2021, eq. 6 (context `pixel`); the other contexts are this project's.
    """

    context: Source
    """What the kernel is made from."""
    reduction: int | None = None
    """Channels of the context for each hidden channel; 4 where neither this nor `hidden` is given."""
    hidden: int | None = None
    """Number of hidden channels, in the place of a reduction."""
    least: int | None = None
    """Smallest number of hidden channels that a reduction leaves; where given, it need not divide but is rounded."""
    norm: BatchNorm | None = BatchNorm()
    """Normalisation of the hidden channels."""
    bias: bool = False
    """Whether W0 has a bias; W1 always has one."""
    activation: str = "relu"
    """One of the keys of `ACTIVATIONS`."""
    downsample: str = "average"
    """How a pixel reaches the grid of a strided output: `average` pooling, or `subsample`."""
    shared: str = ""
    """Axes among g o i k along which the kernel is constant."""
    span: str = "g o i k"
    """Order of the axes in the outputs of W1; a published checkpoint fixes it, learning does not mind it."""

    def __post_init__(self) -> None:
        _check_phi(self)
        check_shared(self.shared)
        if sorted(self.span.split()) != ["g", "i", "k", "o"]:
            raise SpecError(f"span has {self.span!r}: must hold the letters g o i k, each once.")

    @property
    def signature(self) -> frozenset[str]:
        return contexts.signature(self.context)

    def build(self, site: Site) -> KernelModule:
        return DynamicKernel(self, site)


def hidden_channels(phi: Hidden | Dynamic, channels: int) -> int:
    """Number of hidden channels for a context of a width.

    Raises:
        ShapeError: the width is no multiple of the reduction.
    """
    if phi.hidden is not None:
        return phi.hidden
    assert phi.reduction is not None, "__post_init__ sets it"
    if phi.least is not None:
        return max(channels // phi.reduction, phi.least)
    if channels % phi.reduction:
        raise ShapeError(
            f"context has c={channels} channels, kernel has reduction={phi.reduction}: c must be a multiple of "
            "the reduction. Give hidden=, the number of hidden channels, instead."
        )
    return channels // phi.reduction


class Reduced(nn.Module):
    """The first half of phi: a context, W0, a normalisation and an activation."""

    def __init__(self, phi: Hidden | Dynamic, site: Site, hidden: int) -> None:
        super().__init__()
        self.per_tap = contexts.is_per_tap(phi.context)
        self.reads_given = phi.context == "operator"
        self.activation = phi.activation
        self.context = contexts.build(phi.context, site, phi.downsample)
        convolution, channels = CONVOLUTIONS[site.window.dims], contexts.width(phi.context, site)
        self.reduce = convolution(channels, hidden, 1, bias=phi.bias)
        self.norm = nn.Identity() if phi.norm is None else phi.norm.build(hidden, site.window.dims)

    def reduced(self, context: Tensor, given: Tensor | None) -> Tensor:
        """Return hidden channels; the axis of taps, if there is one, stands before the grid: `b c k h w`."""
        features = self.context(given if self.reads_given else context)
        if self.per_tap:
            taps = features.shape[2]
            return self._activated(features.flatten(2, 3)).unflatten(2, (taps, -1))
        return self._activated(features)

    def _activated(self, features: Tensor) -> Tensor:
        return ACTIVATIONS[self.activation](self.norm(self.reduce(features)))


class HiddenFeatures(Reduced):
    """Hidden channels of a context."""

    def forward(self, x: Tensor) -> Tensor:
        return self.reduced(x, None)


class DynamicKernel(Reduced, KernelModule):
    """A context and phi: two 1x1 convolutions with a normalisation and a ReLU between them."""

    def __init__(self, kernel: Dynamic, site: Site) -> None:
        hidden = hidden_channels(kernel, contexts.width(kernel.context, site))
        super().__init__(kernel, site, hidden)
        self.axes = site.axes(kernel.shared + "k" * self.per_tap)
        self.span_axes = kernel.span
        self.span = CONVOLUTIONS[site.window.dims](hidden, prod(self.axes.values()), 1)

    def forward(self, context: Tensor, given: Tensor | None = None) -> Tensor:
        return self.spanned(self.reduced(context, given))

    def sum(
        self, context: Tensor, given: Tensor | None, value: Tensor, window: Geometry, offsets: Tensor | None
    ) -> Tensor:
        hidden = self.reduced(context, given)
        if offsets is not None or not self._is_whole(hidden, value, window) or not generated_by(hidden, value, window):
            return local_sum(self.spanned(hidden), value, window, offsets=offsets)
        weight, bias = self.span.weight, self.span.bias  # which may be no parameters, under torch.func
        assert isinstance(weight, Tensor)
        assert isinstance(bias, Tensor)
        weight, bias = (
            rearrange(each, f"({self.span_axes}) ... -> g (o i k) ...", **self.axes)
            for each in (weight.flatten(1), bias)
        )
        return generated_sum(hidden, weight, bias, value.squeeze(2), window).unsqueeze(2)

    def spanned(self, hidden: Tensor) -> Tensor:
        """Map hidden channels to the kernel, `b g o i k h w`."""
        return spanned(self.span, hidden, self.span_axes, self.axes, self.per_tap)

    def _is_whole(self, hidden: Tensor, value: Tensor, window: Geometry) -> bool:
        """Whether each pixel has a hidden context, each group one kernel, and that a weight for each tap."""
        size = grid_of(value, window)
        axes = (value.shape[1], 1, value.shape[2], count(window, size))
        whole = hidden.shape[0] == value.shape[0] and hidden.shape[2:] == window.output_size(size)
        return whole and not self.per_tap and axes[2] == 1 and tuple(self.axes.values()) == axes


class LinearKernel(KernelModule):
    """A context and a linear map."""

    def __init__(self, kernel: Linear, site: Site) -> None:
        super().__init__()
        self.per_tap = contexts.is_per_tap(kernel.context)
        self.reads_given = kernel.context == "operator"
        self.axes = site.axes(kernel.shared + "k" * self.per_tap)
        self.start = kernel.start
        channels, outputs = contexts.width(kernel.context, site), prod(self.axes.values())
        self.window = None
        convolution = CONVOLUTIONS[site.window.dims]
        if isinstance(kernel.reach, int):
            self.context = contexts.build(kernel.context, site, kernel.downsample)
            groups = self._groups(kernel, channels)
            around = kernel.reach // 2
            self.span = convolution(channels, outputs, kernel.reach, padding=around, groups=groups, bias=kernel.bias)
        else:
            self.context = nn.Identity()
            self.window = contexts.sliding("reach", kernel.reach, site.window)
            self.span = contexts.window_convolution(channels, outputs, self.window, kernel.bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start the map as the spec says."""
        if self.start is not None:
            for parameter in self.span.parameters():
                nn.init.constant_(parameter, self.start)

    def forward(self, context: Tensor, given: Tensor | None = None) -> Tensor:
        features = self.context(given if self.reads_given else context)
        if self.window is not None:
            features = pad(features, self.window)
        return spanned(self.span, features, "g o i k", self.axes, self.per_tap)

    def _groups(self, kernel: Linear, channels: int) -> int:
        apart = self.axes["g"] * self.axes["o"] if kernel.apart else 1
        groups, outputs = apart * kernel.groups, self.axes["i"] * self.axes["k"]
        if channels % groups or outputs % kernel.groups:
            raise ShapeError(
                f"context has c={channels} channels, each kernel has {outputs} weights: c must be a multiple of "
                f"{groups} groups, the weights of {kernel.groups}."
            )
        return groups


class ReadKernel(KernelModule):
    """The operator's context, with the axes of a kernel."""

    def __init__(self, kernel: Read, site: Site) -> None:
        super().__init__()
        self.axes = site.axes(kernel.shared)
        channels, outputs = contexts.width("operator", site), prod(self.axes.values())
        if channels != outputs:
            raise ShapeError(f"context has c={channels} channels, kernel has {outputs} weights: they must be equal.")

    def forward(self, context: Tensor, given: Tensor | None = None) -> Tensor:
        assert given is not None, "built with a context"
        return rearrange(given, "b (g o i k) ... -> b g o i k ...", **self.axes)


def spanned(span: nn.Module, features: Tensor, order: str, axes: dict[str, int], per_tap: bool) -> Tensor:
    """Map features to the axes of a kernel, `b g o i k h w`."""
    if not per_tap:
        return rearrange(span(features), f"b ({order}) ... -> b g o i k ...", **axes)
    flat = span(features.flatten(2, 3)).unflatten(2, features.shape[2:4])
    return rearrange(flat, f"b ({order}) taps ... -> b g o i (k taps) ...", **axes)


def _check_phi(phi: Hidden | Dynamic) -> None:
    contexts.check_source(phi.context)
    one_of("activation", phi.activation, tuple(ACTIVATIONS))
    one_of("downsample", phi.downsample, DOWNSAMPLES)
    if phi.norm is not None:
        of_kind("norm", phi.norm, BatchNorm)
    if phi.reduction is not None and phi.hidden is not None:
        raise SpecError(f"reduction has {phi.reduction}, hidden has {phi.hidden}: give one of them.")
    if phi.hidden is None:
        object.__setattr__(phi, "reduction", 4 if phi.reduction is None else phi.reduction)
        at_least("reduction", phi.reduction, 1)
    else:
        at_least("hidden", phi.hidden, 1)
    if phi.least is not None:
        at_least("least", phi.least, 1)
        if phi.hidden is not None:
            raise SpecError(f"least has {phi.least}, hidden has {phi.hidden}: only a reduction has a least width.")
