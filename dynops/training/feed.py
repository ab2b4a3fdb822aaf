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


class Share:
    """What one of several devices takes of the batches that they have in common."""

    def __init__(self, feed: Feed, rank: int, devices: int, *, equal: bool) -> None:
        """Prepare to share.

        Args:
            feed: all devices' batches, `b ...`, the same for all.
            rank: number of the device, from 0.
            devices: number of devices.
            equal: whether what does not divide among them is left out, so that all take as many examples; otherwise
                every example is taken by one of them.
        """
        self._feed = feed
        self._rank = rank
        self._devices = devices
        self._equal = equal

    @property
    def epoch(self) -> int:
        """Which order and which random changes the next iteration has."""
        return self._feed.epoch

    @epoch.setter
    def epoch(self, number: int) -> None:
        self._feed.epoch = number

    def __len__(self) -> int:
        return len(self._feed)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for inputs, targets in self._feed:
            end = len(targets) - len(targets) % self._devices if self._equal else len(targets)
            taken = slice(self._rank, end, self._devices)
            yield inputs[taken], targets[taken]

    def close(self) -> None:
        """End the processes that read for it."""
        self._feed.close()


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
