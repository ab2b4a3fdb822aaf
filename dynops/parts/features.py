"""Contexts of published operators: statistics, pooled taps, pairs of pixels and whole patches."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynops.ops.geometry import Geometry, Size
from dynops.ops.taps import gather
from dynops.parts.context import Context, Coordinates, Pixel, subsample
from dynops.parts.dynamic import Hidden, hidden_channels
from dynops.parts.grid import CONVOLUTIONS
from dynops.parts.norm import BatchNorm
from dynops.parts.site import Site
from dynops.specs import at_least, one_of, spec

AVERAGE_ONTO: dict[int, Callable[..., Tensor]] = {
    1: F.adaptive_avg_pool1d,
    2: F.adaptive_avg_pool2d,
    3: F.adaptive_avg_pool3d,
}


@spec
class ChannelStatistics(Context):
    """Mean and maximum of each pixel's channels.

    Source: Woo et al., CBAM, ECCV 2018, eq. 3.
    """

    downsample: str = "average"
    """How they reach the grid of a strided output: `average` pooling, or `subsample`."""

    def __post_init__(self) -> None:
        one_of("downsample", self.downsample, ("average", "subsample"))

    @property
    def signature(self) -> frozenset[str]:
        return frozenset("bhw")

    def width(self, site: Site) -> int:
        return 2

    def build(self, site: Site) -> nn.Module:
        return ChannelStatisticsFeatures(self.downsample, site.window)


@spec
class GlobalStatistics(Context):
    """Hidden channels of an image's mean and of its maximum, added: `relu(W0 mean) + relu(W0 maximum)`.

    Source: Woo et al., CBAM, ECCV 2018, eq. 2.
    """

    reduction: int = 16
    """Channels of the input for each hidden channel."""

    def __post_init__(self) -> None:
        at_least("reduction", self.reduction, 1)

    @property
    def signature(self) -> frozenset[str]:
        return frozenset("b")

    def width(self, site: Site) -> int:
        return hidden_channels(Hidden(context="global", reduction=self.reduction), site.channels)

    def build(self, site: Site) -> nn.Module:
        return GlobalStatisticsFeatures(site.channels, self.width(site), site.window.dims)


@spec
class PooledTaps(Context):
    """The image averaged onto the grid of the taps, so that each tap is made from its part of the image.

    Source: Chen et al., Dynamic Region-Aware Convolution, CVPR 2021, section 3.3.
    """

    per_tap = True

    @property
    def signature(self) -> frozenset[str]:
        return frozenset("b")

    def width(self, site: Site) -> int:
        return site.channels

    def build(self, site: Site) -> nn.Module:
        return PooledTapsFeatures(site.window.tap_grid(site.size))


@spec
class Pair(Context):
    """A pixel less each pixel of its window, and their distance: `relu(norm([W1 x[p] - W2 x[p'], W3 (l[p] - l[p'])]))`.

    p' is the pixel that a tap sees, l a pixel's coordinates from -1 to 1. W3 has the published bias, which the
    difference cancels. Source: Zhao et al., Exploring Self-Attention for Image Recognition, CVPR 2020, eq. 2 and 3.
    """

    dim: int
    """Channels of the maps W1 and W2."""

    per_tap = True

    def __post_init__(self) -> None:
        at_least("dim", self.dim, 1)

    @property
    def signature(self) -> frozenset[str]:
        return frozenset("bhw")

    def width(self, site: Site) -> int:
        return self.dim + site.window.dims

    def build(self, site: Site) -> nn.Module:
        return PairFeatures(self.dim, site)


@spec
class Patch(Context):
    """A pixel and all pixels of its window: `relu(norm([W1 x[p], W2 x[window(p)]]))`.

    Source: Zhao et al., Exploring Self-Attention for Image Recognition, CVPR 2020, eq. 4 and 5 (concatenation).
    """

    dim: int
    """Channels of the maps W1 and W2."""

    def __post_init__(self) -> None:
        at_least("dim", self.dim, 1)

    @property
    def signature(self) -> frozenset[str]:
        return frozenset("bhw")

    def width(self, site: Site) -> int:
        return self.dim * (site.taps + 1)

    def build(self, site: Site) -> nn.Module:
        return PatchFeatures(self.dim, site)


class ChannelStatisticsFeatures(Pixel):
    """Mean and maximum of each pixel's channels, brought to the output's grid."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1))


class GlobalStatisticsFeatures(nn.Module):
    """Hidden channels of mean and maximum, with the same weights."""

    def __init__(self, channels: int, hidden: int, dims: int) -> None:
        super().__init__()
        self.reduce = CONVOLUTIONS[dims](channels, hidden, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        grid = tuple(range(2, x.dim()))
        return F.relu(self.reduce(x.mean(grid, keepdim=True))) + F.relu(self.reduce(x.amax(grid, keepdim=True)))


class PooledTapsFeatures(nn.Module):
    """Averages of the image's parts, `b c k 1 1`."""

    def __init__(self, taps: Size) -> None:
        super().__init__()
        self.taps = taps

    def forward(self, x: Tensor) -> Tensor:
        pooled = AVERAGE_ONTO[len(self.taps)](x, self.taps)
        return pooled.flatten(2)[(..., *(None,) * len(self.taps))]


class Projections(nn.Module):
    """Two maps of the input, a normalisation of what is made from them, and a ReLU."""

    def __init__(self, dim: int, width: int, site: Site) -> None:
        super().__init__()
        self.window: Geometry = site.window
        convolution = CONVOLUTIONS[site.window.dims]
        self.own, self.seen = convolution(site.channels, dim, 1), convolution(site.channels, dim, 1)
        self.norm = BatchNorm().build(width, site.window.dims)


class PairFeatures(Projections):
    """Differences of a pixel and those in its window, `b c k h w`."""

    def __init__(self, dim: int, site: Site) -> None:
        dims = site.window.dims
        super().__init__(dim, dim + dims, site)
        self.coordinates = Coordinates(site.window.strided(1))
        self.place = CONVOLUTIONS[dims](dims, dims, 1)

    def forward(self, x: Tensor) -> Tensor:
        places = self.place(self.coordinates(x))
        near = subsample(self.own(x), self.window)[:, :, None] - gather(self.seen(x), self.window)
        far = subsample(places, self.window)[:, :, None] - gather(places, self.window)
        pairs = torch.cat([near, far.expand(x.shape[0], *far.shape[1:])], dim=1)
        return F.relu(self.norm(pairs.flatten(2, 3))).unflatten(2, pairs.shape[2:4])


class PatchFeatures(Projections):
    """A pixel and its window side by side, `b c h w`."""

    def __init__(self, dim: int, site: Site) -> None:
        super().__init__(dim, dim * (site.taps + 1), site)

    def forward(self, x: Tensor) -> Tensor:
        patch = gather(self.seen(x), self.window).flatten(1, 2)
        return F.relu(self.norm(torch.cat([subsample(self.own(x), self.window), patch], dim=1)))
