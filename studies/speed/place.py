"""What is summed, and where: shapes, devices and dtypes."""

from typing import NamedTuple

import torch

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}


class Shape(NamedTuple):
    """What is summed: images, channels, rows and columns, taps a side, groups."""

    b: int
    c: int
    h: int
    w: int
    k: int
    g: int

    def __str__(self) -> str:
        return ",".join(map(str, self))


SHAPES = (
    Shape(8, 64, 56, 56, 7, 4),
    Shape(8, 128, 28, 28, 7, 8),
    Shape(8, 256, 14, 14, 7, 16),
    Shape(32, 64, 32, 32, 3, 4),
)


class Place(NamedTuple):
    """A shape on a device, in a dtype."""

    shape: Shape
    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32

    def draw(self, *sizes: int) -> torch.Tensor:
        """Draw a tensor whose gradient is wanted."""
        return torch.randn(sizes, device=self.device, dtype=self.dtype).requires_grad_()

    def features(self) -> torch.Tensor:
        """Draw features, `b c h w`."""
        return self.draw(*self.shape[:4])

    def kernel(self) -> torch.Tensor:
        """Draw the kernels of all pixels, `b g 1 1 k h w`."""
        b, _, h, w, k, g = self.shape
        return self.draw(b, g, 1, 1, k * k, h, w)
