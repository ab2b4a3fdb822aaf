"""What a training is fed with: batches of an epoch, and how they reach Lightning."""

import math
from collections.abc import Iterator
from itertools import islice
from typing import Protocol

from torch import Tensor

STEPS = 8
"""Steps that Lightning takes for one."""


class Feed(Protocol):
    """Batches of one epoch after another: `(inputs, targets)`; several seeds' have an axis n before all others."""

    epoch: int
    """Which order and which random changes the next iteration has."""

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Make the batches."""

    def close(self) -> None:
        """End the processes that read for it."""


class Handfuls:
    """Batches by the handful, each batch made when it is asked for: several steps share Lightning's own work."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed

    def __len__(self) -> int:
        return math.ceil(len(self.feed) / STEPS)

    def __iter__(self) -> Iterator[Iterator[tuple[Tensor, Tensor]]]:
        rest = iter(self.feed)
        for _ in range(len(self)):
            yield islice(rest, STEPS)
