"""ResNet and RedNet: one definition with an operator in the slot of each bottleneck and of the stem."""

from collections import OrderedDict

from torch import nn

from dynops.errors import SpecError
from dynops.nets.network import Network, Shape
from dynops.nets.residual import Bottleneck, check_grid, convolution
from dynops.ops.geometry import Size
from dynops.parts import zoo
from dynops.parts.layer import Layer
from dynops.specs import at_least, of_kind, one_of, spec

DEPTHS = {26: (1, 2, 4, 1), 38: (2, 3, 5, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Blocks of the four stages, by the number in the name."""
EXPANSION = 4


@spec
class ResNet(Network):
    """A stem, four stages of bottleneck blocks, the mean, and a linear layer.

    Each block is 1x1 to the inner width, the operator, 1x1 to four times that width, each with batch norm; the first
    block of each later stage has its operator at stride 2, and a strided 1x1 as its shortcut. The stem is a 3x3
    convolution of stride 2 to half the width, an operator, a 3x3 convolution, and a 3x3 max pooling of stride 2.

    Source: He et al., Deep Residual Learning, CVPR 2016; He et al., Bag of Tricks, CVPR 2019, section 4.2 (the stem);
        Li et al., Involution, CVPR 2021, section 4.1 (RedNet).
    """

    depth: int
    """Number in the name, a key of `DEPTHS`: layers of the network with 3x3 convolutions."""
    operators: tuple[Layer, ...]
    """What stands in the slot of each block, its stride set by the network: one for all stages, or one for each."""
    stem: Layer | None = None
    """What stands in the slot of the stem; None: the stem is one 3x3 convolution without stride and pooling, for images
    of 32 pixels."""
    width: int = 64
    """Channels of the operators in the first stage; each stage has twice those of the one before."""

    def __post_init__(self) -> None:
        one_of("depth", self.depth, tuple(DEPTHS))
        of_kind("operators", self.operators, tuple)
        for operator in self.operators:
            of_kind("operators", operator, Layer)
        if len(self.operators) not in (1, len(DEPTHS[self.depth])):
            raise SpecError(f"operators has {len(self.operators)} operators: give one for all stages, or one for each.")
        if self.stem is not None:
            of_kind("stem", self.stem, Layer)
        at_least("width", self.width, 2)

    def build(self, shape: Shape, outputs: int) -> nn.Module:
        stages = DEPTHS[self.depth]
        operators = self.operators if len(self.operators) > 1 else self.operators * len(stages)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        size: Size = shape[1:]
        layers["stem"], size = self._stem(shape[0], size)
        channels = self.width
        for stage, (blocks, operator) in enumerate(zip(stages, operators, strict=True)):
            inner = self.width << stage
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                made = Bottleneck(operator, channels, inner, EXPANSION * inner, stride, size)
                layers[f"stage{stage + 1}_block{block + 1}"] = made
                channels, size = EXPANSION * inner, _halved(size, stride)
        layers["head"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, outputs))
        return nn.Sequential(layers)

    def _stem(self, channels: int, size: Size) -> tuple[nn.Module, Size]:
        """Make the stem; return it with the grid that it gives."""
        if self.stem is None:
            return convolution(channels, self.width, size=3), size
        half, size = self.width // 2, _halved(size, 2)
        check_grid(self.stem, size, 1)
        operator = nn.Sequential(self.stem.build(half, half, size=size), nn.BatchNorm2d(half), nn.ReLU())
        layers = (
            convolution(channels, half, size=3, stride=2),
            operator,
            convolution(half, self.width, size=3),
            nn.MaxPool2d(3, 2, padding=1),
        )
        return nn.Sequential(*layers), _halved(size, 2)


def resnet(depth: int, operator: Layer | None = None, *, small: bool = False) -> ResNet:
    """Return a ResNet with an operator in the slots of blocks and stem, by default the 3x3 convolution.

    Args:
        depth: 26, 38, 50, 101 or 152.
        operator: what stands in all slots.
        small: whether images have 32 pixels, so that the stem keeps them.
    """
    operator = zoo.conv2d(3) if operator is None else operator
    return ResNet(depth=depth, operators=(operator,), stem=None if small else operator)


def rednet(depth: int, *, stem_size: int = 3) -> ResNet:
    """Return the published RedNet, which has 7x7 involutions in its blocks.

    Args:
        depth: 26, 38, 50, 101 or 152.
        stem_size: side of the window of the involution in the stem: 3 for classification, 7 for detection and
            segmentation.
    """
    stem = zoo.involution(kernel_size=stem_size)
    return ResNet(depth=depth, operators=(zoo.involution(kernel_size=7),), stem=stem)


def _halved(size: Size, stride: int) -> Size:
    return tuple(-(-length // stride) for length in size)
