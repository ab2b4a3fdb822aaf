"""A control: kernels made from the wrong pixels, which have the right distribution."""

from math import prod

import torch
from torch import Tensor, nn

from dynops.ops.geometry import Geometry
from dynops.parts.context import Context, Pixel
from dynops.parts.site import Site
from dynops.specs import at_least, one_of, spec
from dynops.streams import stream_seed

WORD = 2**32 - 1
FACTOR = 0x45D9F3B
"""Multiplier of Mueller's hash of 32 bits."""


@spec
class Permuted(Context):
    """Another pixel of the same image: the pixels on the output's grid, in an order that has nothing to do with it.

    Every image and step has the same order, one for each number of pixels. It is a single circle through all pixels,
    so that none is made from itself. What phi sees has the mean, the variance and the cost of the context `pixel`;
    only which kernel goes to which pixel differs.
    """

    seed: int = 0
    """Of the order, which no other random number depends on."""
    downsample: str = "average"
    """How pixels reach the grid of a strided output: `average` pooling, or `subsample`."""

    def __post_init__(self) -> None:
        at_least("seed", self.seed, 0)
        one_of("downsample", self.downsample, ("average", "subsample"))

    @property
    def signature(self) -> frozenset[str]:
        return frozenset("bhw")

    def width(self, site: Site) -> int:
        return site.channels

    def build(self, site: Site) -> nn.Module:
        return PermutedPixels(self, site.window)


class PermutedPixels(Pixel):
    """Pixels, each from another place."""

    def __init__(self, permuted: Permuted, window: Geometry) -> None:
        super().__init__(permuted.downsample, window)
        self.salt = stream_seed(permuted.seed, "permuted") & WORD

    def forward(self, x: Tensor) -> Tensor:
        pixels = super().forward(x)
        grid = tuple(pixels.shape[2:])
        source = circle(self.salt, prod(grid), x.device).view(grid)
        places: tuple[slice | Tensor, ...] = (slice(None), slice(None), *torch.unravel_index(source, grid))
        return pixels[places]


def circle(salt: int, length: int, device: torch.device) -> Tensor:
    """Draw one circle through all places, `p`: where each place takes its pixel from, by a table that is its own.

    The order of the places along it is that of their hashes, so that it needs no generator, which a compiler could
    not follow, and is the same on every device.
    """
    hashed = torch.arange(length, device=device) ^ salt
    for _ in range(2):
        hashed = ((hashed >> 16) ^ hashed) * FACTOR & WORD  # invertible: no two places have one hash
    order = ((hashed >> 16) ^ hashed).argsort()
    return order.roll(-1)[order.argsort()]
