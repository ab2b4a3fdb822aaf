"""Involution as the published code has it without kernels of its own for GPUs: a peer in the study of memory."""

from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor, nn

from dynops.ops.geometry import Size
from dynops.parts import Layer
from dynops.specs import spec

GROUP, REDUCTION = 16, 4


@spec
class Unfold(Layer):
    """Involution by the unfold formula, with the parameters of `zoo.involution` in the same order.

    Source: Li et al., Involution, CVPR 2021, algorithm 1.
    """

    kernel_size: int
    """Taps a side."""
    stride: int = 1
    """Pixels from one window to the next."""

    @property
    def dims(self) -> int:
        return 2

    @property
    def signature(self) -> frozenset[str]:
        return frozenset("bhw")

    def strided(self, stride: int) -> "Unfold":
        return replace(self, stride=stride)

    def width(self, channels: int, out_channels: int | None = None) -> int:
        return channels

    def output_size(self, size: Size) -> Size:
        return tuple(-(-length // self.stride) for length in size)

    def build(
        self,
        channels: int,
        out_channels: int | None = None,
        *,
        guide_channels: int | None = None,
        size: Size | None = None,
    ) -> nn.Module:
        return UnfoldInvolution(channels, self.kernel_size, self.stride)


class UnfoldInvolution(nn.Module):
    """All windows of the input, times the kernels, summed."""

    def __init__(self, channels: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.groups = kernel_size, stride, channels // GROUP
        hidden = channels // REDUCTION
        self.average = nn.AvgPool2d(stride, stride) if stride > 1 else nn.Identity()
        self.reduce = nn.Sequential(nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU())
        self.span = nn.Conv2d(hidden, kernel_size**2 * self.groups, 1)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.span(self.reduce(self.average(x)))
        b, _, h, w = kernel.shape
        kernel = kernel.view(b, self.groups, 1, self.kernel_size**2, h, w)
        patches = F.unfold(x, self.kernel_size, padding=self.kernel_size // 2, stride=self.stride)
        return (kernel * patches.view(b, self.groups, GROUP, -1, h, w)).sum(3).view(b, -1, h, w)
