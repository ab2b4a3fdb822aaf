"""Contexts: what a kernel is made from. The context alone decides on which axes a generated kernel varies."""

from abc import ABC, abstractmethod
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynops.errors import ShapeError, SpecError
from dynops.ops.geometry import Geometry, Size
from dynops.ops.taps import pad
from dynops.ops.window import Window
from dynops.parts.grid import AVERAGES, CONVOLUTIONS
from dynops.parts.site import Site
from dynops.specs import Spec, one_of

SIGNATURES = {
    "constant": frozenset(""),
    "position": frozenset("hw"),
    "coordinates": frozenset("hw"),
    "global": frozenset("b"),
    "pixel": frozenset("bhw"),
    "window": frozenset("bhw"),
    "operator": frozenset(""),
}
"""The contexts that have a name, with the axes on which they vary; `operator` varies as the operator's own context."""


class Context(Spec, ABC):
    """Base of contexts that are modules: derive from it to make kernels from features of your own.

    >>> from dynops.specs import spec
    >>> @spec
    ... class Brightness(Context):
    ...     signature = frozenset("bhw")
    ...
    ...     def width(self, site):
    ...         return 1
    ...
    ...     def build(self, site):
    ...         return Mean()
    >>> class Mean(nn.Module):
    ...     def forward(self, x):
    ...         return x.mean(1, keepdim=True)
    """

    __slots__ = ()
    per_tap = False
    """Whether the features have an axis of taps, `b c k h w`: phi then gives each tap its weights apart."""

    @property
    @abstractmethod
    def signature(self) -> frozenset[str]:
        """The axes among b, h, w on which the features vary."""

    @abstractmethod
    def width(self, site: Site) -> int:
        """Channels of the features."""

    @abstractmethod
    def build(self, site: Site) -> nn.Module:
        """Make the module: input `b c h w` to features on the output's grid, of size 1 where they are constant."""


Source = str | Context | tuple[str | Context, ...]


def check_source(source: object) -> None:
    """Raise a SpecError unless this is a context: the name of one, a `Context`, or a tuple of them."""
    sources = source if isinstance(source, tuple) else (source,)
    if not sources:
        raise SpecError("context has (): must name at least one.")
    for each in sources:
        if not isinstance(each, Context):
            one_of("context", each, tuple(SIGNATURES))
        if len(sources) > 1 and (each in ("operator", "window") or is_per_tap(each)):
            raise SpecError(f"context has {source!r}: {each!r} stands alone.")


def signature(source: Source) -> frozenset[str]:
    """The axes among b, h, w on which a context varies."""
    if isinstance(source, tuple):
        return frozenset().union(*(signature(each) for each in source))
    return source.signature if isinstance(source, Context) else SIGNATURES[source]


def is_per_tap(source: Source) -> bool:
    """Whether a context's features have an axis of taps."""
    return isinstance(source, Context) and source.per_tap


def width(source: Source, site: Site) -> int:
    """Channels of a context's features.

    Raises:
        SpecError: it is the operator's context, and the operator has none.
    """
    if isinstance(source, tuple):
        return sum(width(each, site) for each in source)
    if isinstance(source, Context):
        return source.width(site)
    if source == "operator" and site.given is None:
        raise SpecError("context has 'operator': the operator has no context. Give the operator one.")
    return {"coordinates": site.window.dims, "operator": site.given or 0}.get(source, site.channels)


def build(source: Source, site: Site, downsample: str) -> nn.Module:
    """Make the module of a context: input `b c h w` to features on the output's grid."""
    if isinstance(source, tuple):
        return Concatenation([build(each, site, downsample) for each in source])
    if isinstance(source, Context):
        return source.build(site)
    if source == "constant":
        return Learned(site.channels, (1,) * site.window.dims)
    if source == "position":
        return LearnedPositions(site.channels, site.window, site.positions())
    if source == "coordinates":
        return Coordinates(site.window)
    if source == "global":
        return GlobalMean()
    if source == "window":
        return WindowSummary(site.channels, sliding("context", source, site.window))
    return nn.Identity() if source == "operator" else Pixel(downsample, site.window)


def sliding(name: str, value: object, window: Geometry) -> Window:
    """Return a window that a convolution can have.

    Raises:
        SpecError: the window is another one.
    """
    if isinstance(window, Window) and window.fixed:
        return window
    if isinstance(window, Window):
        raise SpecError(
            f"{name} has {value!r}, border has 'shift': a convolution cannot move its window inside. Use border='mask'."
        )
    raise SpecError(f"{name} has {value!r}, window has {window!r}: a convolution needs a sliding Window.")


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

    def __init__(self, channels: int, window: Geometry, grid: Size) -> None:
        super().__init__(channels, grid)
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        check_positions(tuple(self.table.shape[2:]), self.window.output_size(tuple(x.shape[2:])))
        return self.table


def check_positions(learned: Size, grid: Size) -> None:
    """Raise a ShapeError unless a table of positions is for this output grid."""
    if learned != grid:
        raise ShapeError(
            f"x has an output grid of {grid}, kernel has positions for {learned}: they must be equal. Build the "
            "operator with the size of its input."
        )


class Coordinates(nn.Module):
    """Where each output is in the image, from -1 at the first pixel of an axis to 1 at the last."""

    def __init__(self, window: Geometry) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        lines = []
        for length, stride in zip(x.shape[2:], self.window.strides, strict=True):
            pixels = torch.arange(0, length, stride, device=x.device, dtype=x.dtype)
            lines.append(2 * pixels / max(length - 1, 1) - 1)
        return torch.stack(torch.meshgrid(*lines, indexing="ij"))[None]


class GlobalMean(nn.Module):
    """The mean of each image's pixels."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(tuple(range(2, x.dim())), keepdim=True)


class Pixel(nn.Module):
    """Each pixel, brought to the output's grid."""

    def __init__(self, downsample: str, window: Geometry) -> None:
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
        self.gather = window_convolution(channels, channels, window)

    def forward(self, x: Tensor) -> Tensor:
        return self.gather(pad(x, self.window))


class Concatenation(nn.Module):
    """Contexts side by side, each repeated along the axes on which another varies."""

    def __init__(self, contexts: list[nn.Module]) -> None:
        super().__init__()
        self.contexts = nn.ModuleList(contexts)

    def forward(self, x: Tensor) -> Tensor:
        features = [context(x) for context in self.contexts]
        batch = max(each.shape[0] for each in features)
        grid = [max(sizes) for sizes in zip(*(each.shape[2:] for each in features), strict=True)]
        return torch.cat([each.expand(batch, -1, *grid) for each in features], dim=1)


def window_convolution(channels: int, outputs: int, window: Window, bias: bool = True) -> nn.Module:
    """Make a dense convolution over each window of padded features."""
    convolution = CONVOLUTIONS[window.dims]
    return convolution(channels, outputs, window.sizes, window.strides, dilation=window.dilations, bias=bias)


def subsample(x: Tensor, window: Geometry) -> Tensor:
    """Keep the first pixel of each stride by stride tile: the one that a window is centred on."""
    for axis, stride in enumerate(window.strides, start=2):
        x = x[(slice(None),) * axis + (slice(None, None, stride),)]
    return x


def average_to_grid(x: Tensor, window: Geometry) -> Tensor:
    """Average the pixels of each stride by stride tile, those inside the input only, onto the output's grid.

    The tiles lie as the window's padding lays windows of the stride's size: from the first pixel for `centre`.
    """
    size = tuple(x.shape[2:])
    before = (0,) * window.dims
    if isinstance(window, Window) and window.padding != "centre":
        tiles = replace(window, size=window.strides, dilation=1)
        before = tuple(margin for margin, _ in tiles.margins(size))
    grid = window.output_size(size)
    covered = zip(grid, window.strides, size, before, strict=True)
    behind = tuple(max(outputs * stride - length - first, 0) for outputs, stride, length, first in covered)
    average = AVERAGES[window.dims]
    if not any(before + behind):
        return average(x, window.strides)
    padding = [pixels for margin in reversed(tuple(zip(before, behind, strict=True))) for pixels in margin]
    inside = average(F.pad(torch.ones_like(x[:1, :1]), padding), window.strides)
    return average(F.pad(x, padding), window.strides) / inside
