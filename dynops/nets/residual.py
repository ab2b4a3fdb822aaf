"""A small residual network with an operator slot in each stage, for images of 8 to 224 pixels and more."""

from collections import OrderedDict
from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor, nn

from dynops.errors import ShapeError, SpecError
from dynops.nets.network import Network, Shape, Widths
from dynops.ops.geometry import Size
from dynops.parts.layer import Layer
from dynops.specs import at_least, of_kind, spec


@spec
class ResidualNetwork(Network):
    """A stem, stages of bottleneck blocks (1x1, operator, 1x1, each with batch norm), the mean, and a linear layer.

    The first block of every stage but the first has its operator at stride 2.
    Source: He et al., Deep Residual Learning, CVPR 2016; the slot is where Li et al., CVPR 2021 put involution.
    """

    operators: tuple[Layer, ...]
    """What stands in the slot of each block, its stride set by the network: one for all blocks, one for each stage, or
    one for each block, the first stage's blocks first. A layer combines several operators in one slot."""
    depths: tuple[int, ...] = (1, 1, 1)
    """Blocks in each stage."""
    width: int = 32
    """Channels of the first stage."""
    inner: int | None = None
    """Channels that the 1x1 of a block of the first stage gives its operator, from where they grow as the width; None:
    as many as the stage has."""
    growth: int = 2
    """Factor from one stage's width to the next's."""
    stem_stride: int = 1
    """Pixels of the image for each pixel of the first stage: a power of two, in 3x3 convolutions of stride 2."""

    def __post_init__(self) -> None:
        of_kind("operators", self.operators, tuple)
        for operator in self.operators:
            of_kind("operators", operator, Layer)
        if not self.depths:
            raise SpecError("depths has (): must give the blocks of one stage or more.")
        for name, value in (("width", self.width), ("growth", self.growth), ("stem_stride", self.stem_stride)):
            at_least(name, value, 1)
        if self.inner is not None:
            at_least("inner", self.inner, 1)
        for depth in self.depths:
            at_least("depths", depth, 1)
        if self.stem_stride & (self.stem_stride - 1):
            raise SpecError(f"stem_stride has {self.stem_stride}: must be a power of two.")
        if len(self.operators) not in (1, len(self.depths), sum(self.depths)):
            raise SpecError(
                f"operators has {len(self.operators)} operators, depths has {len(self.depths)} stages with "
                f"{sum(self.depths)} blocks in all: give one operator for all, one for each stage, or one for each "
                "block."
            )

    def build(self, shape: Shape, outputs: int) -> nn.Module:
        operators = iter(self._of_blocks())
        channels = self.width
        size: Size = shape[1:]
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["stem"], size = _stem(shape[0], channels, size, self.stem_stride)
        for stage, depth in enumerate(self.depths):
            inner, width = (each * self.growth**stage for each in self.widths)
            for block in range(depth):
                stride = 2 if stage and not block else 1
                bottleneck = Bottleneck(next(operators), channels, inner, width, stride, size)
                layers[f"stage{stage + 1}_block{block + 1}"] = bottleneck
                channels, size = width, (-(-size[0] // stride), -(-size[1] // stride))
        layers["head"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, outputs))
        return nn.Sequential(layers)

    @property
    def widths(self) -> Widths:
        return Widths(self.inner or self.width, self.width)

    def widened(self, widths: Widths) -> "ResidualNetwork":
        if widths == self.widths:
            return self
        inner, width = widths
        return replace(self, width=width, inner=None if inner == width else inner)

    def _of_blocks(self) -> tuple[Layer, ...]:
        """The operator of every block."""
        if len(self.operators) == sum(self.depths):
            return self.operators
        operators = self.operators if len(self.operators) > 1 else self.operators * len(self.depths)
        return tuple(each for each, depth in zip(operators, self.depths, strict=True) for _ in range(depth))


class Bottleneck(nn.Module):
    """A residual block: 1x1, the operator, 1x1; where the shape changes, the shortcut is a strided 1x1."""

    def __init__(self, operator: Layer, channels: int, inner: int, width: int, stride: int, size: Size) -> None:
        super().__init__()
        self.enter = convolution(channels, inner)
        operator = operator.strided(stride)
        check_grid(operator, size, stride)
        self.operator = operator.build(inner, inner, size=size)
        self.norm = nn.BatchNorm2d(inner)
        self.leave = nn.Conv2d(inner, width, 1, bias=False)
        self.leave_norm = ZeroNorm(width)
        same = stride == 1 and channels == width
        self.shortcut = nn.Identity() if same else convolution(channels, width, stride=stride, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm(self.operator(self.enter(x))))
        return F.relu(self.leave_norm(self.leave(y)) + self.shortcut(x))


class ZeroNorm(nn.BatchNorm2d):
    """Batch norm with a scale that starts at zero, so that a block starts as its shortcut.

    Source: Goyal et al., Accurate, Large Minibatch SGD, 2017, section 5.1.
    """

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.zeros_(self.weight)


def check_grid(operator: Layer, size: Size, stride: int) -> None:
    """Raise a ShapeError unless an operator's output has the grid of its slot."""
    if operator.dims != len(size):
        raise ShapeError(f"operators has {operator!r} with dims={operator.dims}: images have {len(size)}.")
    grid, needed = operator.output_size(size), tuple(-(-length // stride) for length in size)
    if grid != needed:
        raise ShapeError(
            f"operators has {operator!r} with an output grid of {grid}, its block has one of {needed}: must be equal. "
            "Let the network set the stride."
        )


def convolution(channels: int, width: int, size: int = 1, stride: int = 1, relu: bool = True) -> nn.Module:
    """Make a convolution with batch norm and, if asked, a ReLU."""
    layers = [nn.Conv2d(channels, width, size, stride, padding=size // 2, bias=False), nn.BatchNorm2d(width)]
    return nn.Sequential(*layers, *([nn.ReLU()] if relu else []))


def _stem(channels: int, width: int, size: Size, stride: int) -> tuple[nn.Module, Size]:
    layers = []
    while stride > 1:
        layers.append(convolution(channels, width, size=3, stride=2))
        channels, size, stride = width, (-(-size[0] // 2), -(-size[1] // 2)), stride // 2
    return nn.Sequential(*(layers or [convolution(channels, width, size=3)])), size
