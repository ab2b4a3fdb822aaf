"""What the machine allows: how fast it moves and multiplies numbers, and how long a sum must take at least."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from studies.speed.place import Place
from studies.speed.timing import seconds

TIMES = 20
COPIED = {"cpu": 1 << 28, "cuda": 1 << 30}
"""Bytes that are copied: many times what caches hold."""
MULTIPLIED = {"cpu": 2048, "cuda": 8192}
"""Rows and columns of the matrices that are multiplied."""


class Roofline(NamedTuple):
    """What a machine can do at most."""

    bandwidth: float
    """Bytes a second, read and written."""
    rate: float
    """Floating-point operations a second; a multiplication with an addition is two."""


class Work(NamedTuple):
    """What has to be done."""

    bytes: int
    flops: int

    def seconds(self, roofline: Roofline) -> float:
        """Return the least time that it takes: the longer of moving and computing, which overlap."""
        return max(self.bytes / roofline.bandwidth, self.flops / roofline.rate)

    def bound(self, roofline: Roofline) -> str:
        """Say what takes longer."""
        return "memory" if self.bytes / roofline.bandwidth > self.flops / roofline.rate else "arithmetic"


def roofline(device: torch.device, dtype: torch.dtype, scale: int = 1) -> Roofline:
    """Measure a machine: the fastest of some copies of a large tensor, and of some products of large matrices.

    Tensors that a cache holds move faster than this: a sum may then take less than its least time.

    Args:
        device: the machine.
        dtype: of the matrices. On a GPU half precision has units of its own for products of matrices, which local sums
            with a kernel for each pixel cannot use: their fraction of that rate is small.
        scale: how many times smaller the tensors are.
    """
    number = COPIED[device.type] // scale // 4
    source, target = (torch.zeros(number, device=device) for _ in range(2))
    moved = _fastest(lambda: target.copy_(source), device)
    rows = MULTIPLIED[device.type] // scale
    a, b = (torch.randn(rows, rows, device=device, dtype=dtype) for _ in range(2))
    multiplied = _fastest(lambda: torch.matmul(a, b), device)
    return Roofline(8 * number / moved, 2 * rows**3 / multiplied)


def work(place: Place) -> dict[str, tuple[Work, ...]]:
    """Count the work of a local sum, by direction and pass; each number is moved once.

    With p = h w pixels and kernels of k k weights, forward reads b g k k p weights and b c p features, writes b c p
    sums, and computes 2 b c k k p operations. Backward reads the weights, the features and b c p slopes, writes
    b g k k p and b c p gradients, and computes 4 b c k k p operations.
    """
    b, c, h, w, k, g = place.shape
    weights, features = b * g * k * k * h * w, b * c * h * w
    size, operations = place.dtype.itemsize, 2 * features * k * k
    forward = Work(size * (weights + 2 * features), operations)
    backward = Work(size * (2 * weights + 3 * features), 2 * operations)
    return {"forward": (forward,), "both": (forward, backward)}


def _fastest(run: Callable[[], Any], device: torch.device) -> float:
    run()
    return min(seconds(run, device) for _ in range(TIMES))
