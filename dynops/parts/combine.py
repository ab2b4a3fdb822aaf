"""Layers combined in one slot: one after another, side by side, and what stands on each pixel between them."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from dynops.axes import divisors
from dynops.errors import ShapeError, SpecError
from dynops.ops.geometry import Size
from dynops.parts.cost import Counted
from dynops.parts.grid import CONVOLUTIONS
from dynops.parts.layer import Layer
from dynops.parts.norm import ACTIVATIONS, BatchNorm
from dynops.specs import at_least, of_kind, one_of, spec

MERGES = ("sum", "concat", "gate")


@spec
class Series(Layer):
    """One layer after another: `y = layers[-1](... layers[1](layers[0](x)))`.

    Of the layers that are no `Pointwise`, the first has the stride and the last the output's channels; every other one
    keeps the width that its parts give.
    """

    layers: tuple[Layer, ...]
    """The layers, in the order in which the input meets them; a guide goes to each of them."""

    def __post_init__(self) -> None:
        _check_layers(self.layers)

    @property
    def dims(self) -> int:
        return self.layers[0].dims

    @property
    def signature(self) -> frozenset[str]:
        return frozenset().union(*(layer.signature for layer in self.layers))

    def strided(self, stride: int) -> "Series":
        first = self._moving()[0]
        strided = (layer.strided(stride) if place == first else layer for place, layer in enumerate(self.layers))
        return replace(self, layers=tuple(strided))

    def width(self, channels: int, out_channels: int | None = None) -> int:
        last = self._moving()[-1]
        for place, layer in enumerate(self.layers):
            channels = layer.width(channels, out_channels if place == last else None)
        return channels

    def output_size(self, size: Size) -> Size:
        for layer in self.layers:
            size = layer.output_size(size)
        return size

    def build(
        self,
        channels: int,
        out_channels: int | None = None,
        *,
        guide_channels: int | None = None,
        size: Size | None = None,
    ) -> nn.Module:
        """Make the module for a width, as every `Layer` does.

        Raises:
            ShapeError: a width does not divide as a layer needs it, or a layer with a guide stands behind a stride.
            SpecError: a size is missing or is not a positive number.
        """
        if guide_channels is not None and size is not None:
            self._check_guided(guide_channels, size)
        last, modules = self._moving()[-1], []
        for place, layer in enumerate(self.layers):
            outputs = out_channels if place == last else None
            modules.append(layer.build(channels, outputs, guide_channels=guide_channels, size=size))
            if place + 1 < len(self.layers):
                channels = layer.width(channels, outputs)
                size = None if size is None else layer.output_size(size)
        return SeriesModule(modules)

    def _check_guided(self, guide_channels: int, size: Size) -> None:
        grid = whole = tuple(size)
        for layer in self.layers:
            if grid != whole and not isinstance(layer, Pointwise):
                raise ShapeError(
                    f"guide_channels has {guide_channels}, layers has {layer!r} behind a stride: guide and input of a "
                    "layer must have one grid. Give the stride to the last layer."
                )
            grid = layer.output_size(grid)

    def _moving(self) -> list[int]:
        """Places of the layers that can have a stride and a width of their own, or of all where none can."""
        places = [place for place, layer in enumerate(self.layers) if not isinstance(layer, Pointwise)]
        return places or list(range(len(self.layers)))


@spec
class Parallel(Layer):
    """Layers side by side on the same input, whose outputs are merged.

    `gate` weighs the branches for each image and channel: with u the sum of the branches,
    `y[b,c,p] = sum over n of a[b,n,c] * branch_n[b,c,p]`, `a = softmax over n of W1 relu(norm(W0 mean over p of u))`.

    Source (gate): Li et al., Selective Kernel Networks, CVPR 2019, eq. 1 to 6.
    Deviates: the hidden width of eq. 4 has no least value.
    """

    layers: tuple[Layer, ...]
    """The branches; a guide goes to each of them."""
    merge: str = "sum"
    """`sum`, or `concat`, one branch's channels after the other's, or `gate`, a sum whose weights add up to 1."""
    reduction: int = 4
    """Channels of the sum for each hidden channel of a gate."""

    def __post_init__(self) -> None:
        _check_layers(self.layers)
        one_of("merge", self.merge, MERGES)
        at_least("reduction", self.reduction, 1)

    @property
    def dims(self) -> int:
        return self.layers[0].dims

    @property
    def signature(self) -> frozenset[str]:
        gate = frozenset("b" if self.merge == "gate" else "")
        return gate.union(*(layer.signature for layer in self.layers))

    def strided(self, stride: int) -> "Parallel":
        return replace(self, layers=tuple(layer.strided(stride) for layer in self.layers))

    def width(self, channels: int, out_channels: int | None = None) -> int:
        widths = [layer.width(channels, self._outputs(out_channels)) for layer in self.layers]
        return sum(widths) if self.merge == "concat" else widths[0]

    def output_size(self, size: Size) -> Size:
        """Return the output's grid for that of the input.

        Raises:
            ShapeError: the branches have different ones.
        """
        return _common_grid(layer.output_size(size) for layer in self.layers)

    def build(
        self,
        channels: int,
        out_channels: int | None = None,
        *,
        guide_channels: int | None = None,
        size: Size | None = None,
    ) -> nn.Module:
        """Make the module for a width, as every `Layer` does; `concat` gives each branch as many output channels.

        Raises:
            ShapeError: a width does not divide as a branch or the merge needs it, or the branches' outputs differ.
            SpecError: a size is missing or is not a positive number.
        """
        if size is not None:
            self.output_size(size)
        outputs = self._outputs(out_channels)
        modules = [layer.build(channels, outputs, guide_channels=guide_channels, size=size) for layer in self.layers]
        if self.merge == "concat":
            return ParallelModule(modules, Concatenate())
        widths = [layer.width(channels, outputs) for layer in self.layers]
        if len(set(widths)) > 1:
            came = ", ".join(map(str, widths))
            raise ShapeError(
                f"layers has branches of {came} channels, merge has {self.merge!r}: widths must be equal. "
                "Give out_channels, or merge='concat'."
            )
        if self.merge == "sum":
            return ParallelModule(modules, Add())
        return ParallelModule(modules, Gate(widths[0], self._hidden(widths[0]), len(modules), self.dims))

    def _outputs(self, out_channels: int | None) -> int | None:
        if out_channels is None or self.merge != "concat":
            return out_channels
        at_least("out_channels", out_channels, 1)
        if out_channels % len(self.layers):
            raise ShapeError(
                f"out_channels has {out_channels}, layers has {len(self.layers)} branches: with merge='concat' it must "
                f"be a multiple. Divisors of {out_channels}: {divisors(out_channels)}."
            )
        return out_channels // len(self.layers)

    def _hidden(self, width: int) -> int:
        if width % self.reduction:
            raise ShapeError(
                f"sum has c={width} channels, gate has reduction={self.reduction}: c must be a multiple. "
                f"Divisors of {width}: {divisors(width)}."
            )
        return width // self.reduction


@spec
class Pointwise(Layer):
    """What happens to each pixel between two operators: `activation(norm(x))`."""

    activation: str = "relu"
    """One of the keys of `ACTIVATIONS`."""
    norm: BatchNorm | None = None
    """Normalisation before it."""
    dims: int = 2
    """Dimensions of the grid: 1 for sequences, 2 for images, 3 for video and volumes."""

    def __post_init__(self) -> None:
        one_of("activation", self.activation, tuple(ACTIVATIONS))
        if self.norm is not None:
            of_kind("norm", self.norm, BatchNorm)
        one_of("dims", self.dims, (1, 2, 3))

    @property
    def signature(self) -> frozenset[str]:
        return frozenset()

    def strided(self, stride: int) -> "Pointwise":
        if stride != 1:
            raise SpecError(f"stride has {stride}: Pointwise keeps each pixel, it must be 1.")
        return self

    def width(self, channels: int, out_channels: int | None = None) -> int:
        return channels

    def output_size(self, size: Size) -> Size:
        return size

    def build(
        self,
        channels: int,
        out_channels: int | None = None,
        *,
        guide_channels: int | None = None,
        size: Size | None = None,
    ) -> nn.Module:
        """Make the module for a width; a guide is not read.

        Raises:
            ShapeError: the output has other channels than the input.
            SpecError: the width is not a positive number.
        """
        at_least("channels", channels, 1)
        if out_channels not in (None, channels):
            raise ShapeError(f"out_channels has {out_channels}, x has c={channels} channels: Pointwise keeps them.")
        return PointwiseModule(self, channels)


class SeriesModule(nn.Module):
    """Modules, one after another."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, guide: Tensor | None = None) -> Tensor:
        for layer in self.layers:
            x = _call(layer, x, guide)
        return x


class ParallelModule(nn.Module):
    """Modules side by side, and what merges their outputs."""

    def __init__(self, layers: list[nn.Module], merge: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.merge = merge

    def forward(self, x: Tensor, guide: Tensor | None = None) -> Tensor:
        branches = [_call(layer, x, guide) for layer in self.layers]
        _common_grid(tuple(branch.shape[2:]) for branch in branches)
        return self.merge(*branches)


class Add(nn.Module):
    """The sum of branches."""

    def forward(self, first: Tensor, *others: Tensor) -> Tensor:
        return sum(others, first)


class Concatenate(nn.Module):
    """Branches, one after the other along the channels."""

    def forward(self, *branches: Tensor) -> Tensor:
        return torch.cat(branches, dim=1)


class Gate(Counted):
    """A sum of branches, weighed for each image and channel; the weights add up to 1."""

    def __init__(self, channels: int, hidden: int, branches: int, dims: int) -> None:
        super().__init__()
        self.branches = branches
        self.reduce = CONVOLUTIONS[dims](channels, hidden, 1, bias=False)
        self.norm = BatchNorm().build(hidden, dims)
        self.span = CONVOLUTIONS[dims](hidden, branches * channels, 1, bias=False)

    def forward(self, first: Tensor, *others: Tensor) -> Tensor:
        mean = sum(others, first).mean(tuple(range(2, first.dim())), keepdim=True)
        scores = self.span(torch.relu(self.norm(self.reduce(mean)))).unflatten(1, (self.branches, -1))
        weights = scores.softmax(1).unbind(1)  # of each branch, b c 1 1
        weighed = [weight * branch for weight, branch in zip(weights, (first, *others), strict=True)]
        return sum(weighed[1:], weighed[0])

    def own_macs(self, x: Tensor) -> int:
        """Count the products of weights and branches."""
        return self.branches * x.numel()


class PointwiseModule(nn.Module):
    """A normalisation and an activation."""

    def __init__(self, pointwise: Pointwise, channels: int) -> None:
        super().__init__()
        self.activation = pointwise.activation
        self.norm = nn.Identity() if pointwise.norm is None else pointwise.norm.build(channels, pointwise.dims)

    def forward(self, x: Tensor, guide: Tensor | None = None) -> Tensor:
        return ACTIVATIONS[self.activation](self.norm(x))

    def extra_repr(self) -> str:
        return repr(self.activation)


def _call(layer: nn.Module, x: Tensor, guide: Tensor | None) -> Tensor:
    return layer(x) if guide is None else layer(x, guide)


def _check_layers(layers: tuple[Layer, ...]) -> None:
    of_kind("layers", layers, tuple)
    for layer in layers:
        of_kind("layers", layer, Layer)
    if len(layers) < 2:
        raise SpecError(f"layers has {len(layers)} layers: must be two or more.")
    if len({layer.dims for layer in layers}) > 1:
        raise SpecError(f"layers has dims={', '.join(str(layer.dims) for layer in layers)}: must be equal.")


def _common_grid(grids: Iterable[Size]) -> Size:
    first, *others = grids
    for other in others:
        if other != first:
            raise ShapeError(
                f"layers has output grids of {first} and {other}: must be equal. Give every branch the same stride."
            )
    return first
