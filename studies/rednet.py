"""RedNet, its twin by the published code, and ResNet: one network with three things in the slot of its blocks.

Source: Li et al., Involution, CVPR 2021, section 4.1; the stem of its classification networks has a 3x3 involution.
"""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from dynops import zoo

DEPTHS = {26: (1, 2, 4, 1), 38: (2, 3, 5, 2), 50: (3, 4, 6, 3)}
"""Blocks of the four stages, by the number in the name."""
EXPANSION = 4
GROUP, REDUCTION = 16, 4

Slot = Callable[[int, int, int], nn.Module]
"""Makes what stands in a slot, from channels, taps a side and stride."""


class Bottleneck(nn.Module):
    """A residual block: 1x1, the slot, 1x1 to four times the channels; a strided 1x1 where the shape changes."""

    def __init__(self, slot: Slot, channels: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = EXPANSION * width
        self.enter = convolution(channels, width)
        self.slot = nn.Sequential(slot(width, 7, stride), nn.BatchNorm2d(width), nn.ReLU())
        self.leave = nn.Sequential(nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or channels != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.leave(self.slot(self.enter(x))) + self.shortcut(x))


class UnfoldInvolution(nn.Module):
    """Involution as the published code has it without its own kernels for GPUs: all windows, times the kernels, summed.

    Its parameters are those of `zoo.involution`, in the same order.
    """

    def __init__(self, channels: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.groups = kernel_size, stride, channels // GROUP
        self.average = nn.AvgPool2d(stride, stride) if stride > 1 else nn.Identity()
        self.reduce = convolution(channels, channels // REDUCTION)
        self.span = nn.Conv2d(channels // REDUCTION, kernel_size**2 * self.groups, 1)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.span(self.reduce(self.average(x)))
        b, _, h, w = kernel.shape
        kernel = kernel.view(b, self.groups, 1, self.kernel_size**2, h, w)
        patches = F.unfold(x, self.kernel_size, padding=self.kernel_size // 2, stride=self.stride)
        return (kernel * patches.view(b, self.groups, GROUP, -1, h, w)).sum(3).view(b, -1, h, w)


def involution(channels: int, kernel_size: int, stride: int) -> nn.Module:
    """Make the involution of the zoo."""
    spec = zoo.involution(kernel_size=kernel_size, group_channels=GROUP, reduction=REDUCTION, stride=stride)
    return spec.build(channels)


def dense(channels: int, kernel_size: int, stride: int) -> nn.Module:
    """Make the dense 3x3 convolution of a ResNet, whatever the taps."""
    return nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)


SLOTS: dict[str, Slot] = {"involution": involution, "involution by unfold": UnfoldInvolution, "dense 3x3": dense}


def network(slot: Slot, depths: Sequence[int] = DEPTHS[26], width: int = 64, outputs: int = 1000) -> nn.Sequential:
    """Make the network for images of three channels.

    Args:
        slot: what stands in the slot of each block and of the stem.
        depths: blocks of each stage.
        width: channels of the first stage's slots; each stage has twice those of the one before.
        outputs: number of classes.
    """
    half = width // 2
    layers: list[nn.Module] = [
        convolution(3, half, size=3, stride=2),
        nn.Sequential(slot(half, 3, 1), nn.BatchNorm2d(half), nn.ReLU()),
        convolution(half, width, size=3),
        nn.MaxPool2d(3, 2, padding=1),
    ]
    channels = width
    for stage, depth in enumerate(depths):
        for block in range(depth):
            layers.append(Bottleneck(slot, channels, width << stage, 2 if stage and not block else 1))
            channels = EXPANSION * width << stage
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, outputs))


def convolution(channels: int, outputs: int, size: int = 1, stride: int = 1) -> nn.Sequential:
    """Make a convolution with batch norm and ReLU."""
    layer = nn.Conv2d(channels, outputs, size, stride, padding=size // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())
