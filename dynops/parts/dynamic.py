"""Dynamic kernels, phi(context): the context alone decides on which axes the kernel varies, phi stays the same."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from dynops.errors import ShapeError, SpecError
from dynops.ops.geometry import Size
from dynops.ops.taps import pad
from dynops.ops.window import Window
from dynops.parts.grid import AVERAGES, BATCH_NORMS, CONVOLUTIONS
from dynops.parts.kernel import Kernel, KernelModule, Site, check_shared
from dynops.specs import Spec, at_least, of_kind, one_of, spec

SIGNATURES = {
    "constant": frozenset(""),
    "position": frozenset("hw"),
    "global": frozenset("b"),
    "pixel": frozenset("bhw"),
    "window": frozenset("bhw"),
}


@spec
class BatchNorm(Spec):
    """Batch normalisation inside phi."""

    eps: float = 1e-5
    """Added to the variance."""
    momentum: float = 0.1
    """Weight of the newest batch in the running statistics."""

    def build(self, channels: int, dims: int) -> nn.Module:
        """Make the normalisation for a grid."""
        return HIDDEN_NORMS[dims](channels, self.eps, self.momentum)


@spec
class Dynamic(Kernel):
    """A kernel that is generated: `K[b,:,p] = W1 relu(norm(W0 context[b,:,p])) + b1`.

    The context is a learned vector (`constant`), a learned map of positions (`position`), the image's mean (`global`),
    the pixel (`pixel`), or a dense convolution of the pixel's window (`window`). So `replace(kernel, context=...)`
    gives the twin with the same phi and another signature. From a constant, phi can give every static kernel (b1 alone
    can), though hidden units that start below zero stay there, as nothing varies that could wake them.

    Source: Li et al., Involution, CVPR 2021, eq. 6 (context `pixel`); the other contexts are this project's.
    """

    context: str
    """What the kernel is made from: one of the keys of `SIGNATURES`."""
    reduction: int | None = None
    """Channels of the context for each hidden channel; 4 where neither this nor `hidden` is given."""
    hidden: int | None = None
    """Number of hidden channels, in the place of a reduction."""
    norm: BatchNorm | None = BatchNorm()
    """Normalisation of the hidden channels."""
    bias: bool = False
    """Whether W0 has a bias; W1 always has one."""
    downsample: str = "average"
    """How the context reaches the grid of a strided output: `average` pooling, or `subsample`."""
    shared: str = ""
    """Axes among g o i k along which the kernel is constant."""
    span: str = "g o i k"
    """Order of the axes in the outputs of W1; a published checkpoint fixes it, learning does not mind it."""

    def __post_init__(self) -> None:
        one_of("context", self.context, tuple(SIGNATURES))
        one_of("downsample", self.downsample, ("average", "subsample"))
        check_shared(self.shared)
        if self.norm is not None:
            of_kind("norm", self.norm, BatchNorm)
        if sorted(self.span.split()) != ["g", "i", "k", "o"]:
            raise SpecError(f"span has {self.span!r}: must hold the letters g o i k, each once.")
        if self.reduction is not None and self.hidden is not None:
            raise SpecError(f"reduction has {self.reduction}, hidden has {self.hidden}: give one of them.")
        if self.hidden is None:
            object.__setattr__(self, "reduction", 4 if self.reduction is None else self.reduction)
            at_least("reduction", self.reduction, 1)
        else:
            at_least("hidden", self.hidden, 1)

    @property
    def signature(self) -> frozenset[str]:
        return SIGNATURES[self.context]

    def build(self, site: Site) -> KernelModule:
        return DynamicKernel(self, site)

    def hidden_channels(self, channels: int) -> int:
        """Number of hidden channels for a context of a width.

        Raises:
            ShapeError: the width is no multiple of the reduction.
        """
        if self.hidden is not None:
            return self.hidden
        assert self.reduction is not None, "__post_init__ sets it"
        if channels % self.reduction:
            raise ShapeError(
                f"context has c={channels} channels, kernel has reduction={self.reduction}: c must be a multiple of "
                "the reduction. Give hidden=, the number of hidden channels, instead."
            )
        return channels // self.reduction


class DynamicKernel(KernelModule):
    """A context and phi: two 1x1 convolutions with a normalisation and a ReLU between them."""

    def __init__(self, kernel: Dynamic, site: Site) -> None:
        super().__init__()
        self.axes = site.axes(kernel.shared)
        self.span_axes = kernel.span
        hidden = kernel.hidden_channels(site.channels)
        outputs = self.axes["g"] * self.axes["o"] * self.axes["i"] * self.axes["k"]
        self.context = _context(kernel, site)
        convolution = CONVOLUTIONS[site.window.dims]
        self.reduce = convolution(site.channels, hidden, 1, bias=kernel.bias)
        self.norm = nn.Identity() if kernel.norm is None else kernel.norm.build(hidden, site.window.dims)
        self.span = convolution(hidden, outputs, 1)

    def forward(self, context: Tensor) -> Tensor:
        kernel = self.span(F.relu(self.norm(self.reduce(self.context(context)))))
        return rearrange(kernel, f"b ({self.span_axes}) ... -> b g o i k ...", **self.axes)


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


class Learned(nn.Module):
    """A learned vector, the same for all images and pixels."""

    def __init__(self, channels: int, grid: Size) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(1, channels, *grid))  # 1 c h w
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw from N(0, 1), as a normalised feature would be distributed."""
        nn.init.normal_(self.table)

    def forward(self, x: Tensor) -> Tensor:
        return self.table


class LearnedPositions(Learned):
    """A learned vector for each position of the output's grid."""

    def __init__(self, channels: int, window: Window, size: Size) -> None:
        super().__init__(channels, window.output_size(size))
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        grid = self.window.output_size(tuple(x.shape[2:]))
        if self.table.shape[2:] != grid:
            raise ShapeError(
                f"x has an output grid of {grid}, kernel has positions for {tuple(self.table.shape[2:])}: they must "
                "be equal. Build the operator with the size of its input."
            )
        return self.table


class GlobalMean(nn.Module):
    """The mean of each image's pixels."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(tuple(range(2, x.dim())), keepdim=True)


class Pixel(nn.Module):
    """Each pixel, brought to the output's grid."""

    def __init__(self, downsample: str, window: Window) -> None:
        super().__init__()
        self.downsample = downsample
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        if set(self.window.strides) == {1}:
            return x
        if self.downsample == "subsample":
            return subsample(x, self.window)
        return average_to_grid(x, self.window)


class WindowSummary(nn.Module):
    """A dense convolution over each window."""

    def __init__(self, channels: int, window: Window) -> None:
        super().__init__()
        self.window = window
        convolution = CONVOLUTIONS[window.dims]
        self.gather = convolution(channels, channels, window.sizes, window.strides, dilation=window.dilations)

    def forward(self, x: Tensor) -> Tensor:
        return self.gather(pad(x, self.window))


def subsample(x: Tensor, window: Window) -> Tensor:
    """Keep the first pixel of each stride by stride tile: the one that a window is centred on."""
    for axis, stride in enumerate(window.strides, start=2):
        x = x[(slice(None),) * axis + (slice(None, None, stride),)]
    return x


def average_to_grid(x: Tensor, window: Window) -> Tensor:
    """Average the pixels of each stride by stride tile, those inside the input only, onto the output's grid.

    The tiles lie as the window's padding lays windows of the stride's size: from the first pixel for `centre`.
    """
    size = tuple(x.shape[2:])
    before = (0,) * window.dims
    if window.padding == "same":
        tiles = replace(window, size=window.strides, dilation=1)
        before = tuple(margin for margin, _ in tiles.margins(size))
    grid = window.output_size(size)
    covered = zip(grid, window.strides, size, before, strict=True)
    behind = tuple(outputs * stride - length - first for outputs, stride, length, first in covered)
    average = AVERAGES[window.dims]
    if not any(before + behind):
        return average(x, window.strides)
    padding = [pixels for margin in reversed(tuple(zip(before, behind, strict=True))) for pixels in margin]
    inside = average(F.pad(torch.ones_like(x[:1, :1]), padding), window.strides)
    return average(F.pad(x, padding), window.strides) / inside


def _context(kernel: Dynamic, site: Site) -> nn.Module:
    if kernel.context == "constant":
        return Learned(site.channels, (1,) * site.window.dims)
    if kernel.context == "position":
        if site.size is None:
            raise SpecError(
                "size has None: a kernel with context 'position' learns a table for the grid of its input. "
                "Build it with size=(rows, columns)."
            )
        return LearnedPositions(site.channels, site.window, site.size)
    if kernel.context == "global":
        return GlobalMean()
    if kernel.context == "window":
        if site.window.border == "shift":
            raise SpecError(
                "context has 'window', border has 'shift': a convolution cannot move its window inside. "
                "Use border='mask'."
            )
        return WindowSummary(site.channels, site.window)
    return Pixel(kernel.downsample, site.window)
