"""How long a training step of a network takes, beside that of another one in the same process."""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from dynops.errors import SpecError
from dynops.nets.network import Network, Shape
from dynops.specs import at_least

WARM_UP = 3  # steps of each network that are not timed


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How steps are timed: a step is forward and backward on random inputs, on a GPU in bfloat16 where it has it."""

    batch_size: int = 32
    """Inputs in a step."""
    device: str = "cpu"
    """Where the steps run."""
    rounds: int = 15
    """Steps of each network that are timed, in turn."""
    clock: Callable[[], float] = time.perf_counter
    """What tells the time, in seconds."""

    def __post_init__(self) -> None:
        at_least("batch_size", self.batch_size, 1)
        at_least("rounds", self.rounds, 2)


class Compared(NamedTuple):
    """The times of two networks."""

    milliseconds: float
    """Median of the network's steps."""
    reference: float
    """Median of the other's."""
    spread: float
    """How far the ratio of the two may be from the true one, as a share: half a 95 % interval."""


class Stopwatch:
    """Times networks against one that stays."""

    def __init__(self, reference: Network, shape: Shape, outputs: int, timing: Timing) -> None:
        """Build the network that stays.

        Args:
            reference: what others are compared with.
            shape: channels, rows and columns of an input.
            outputs: as in `Network.build`.
            timing: how.
        Raises:
            SpecError: there is no such device.
        """
        try:
            self._device = torch.device(timing.device)
            self._x = torch.randn(timing.batch_size, *shape, generator=torch.Generator().manual_seed(0))
            self._x = self._x.to(self._device)
        except (AssertionError, RuntimeError) as error:
            raise SpecError(f"device has {timing.device!r}: must be one of this machine ({error}).") from error
        self._shape, self._outputs, self._timing = shape, outputs, timing
        self._reference = self._built(reference)

    def compare(self, network: Network) -> Compared:
        """Time the steps of a network and of the one that stays, in turn, each as often as the first of the two."""
        pair = (self._built(network), self._reference)
        for _ in range(WARM_UP):
            for each in pair:
                self._step(each)
        times: tuple[list[float], list[float]] = ([], [])
        for number in range(self._timing.rounds):
            for which in (0, 1) if number % 2 else (1, 0):
                times[which].append(1000 * self._step(pair[which]))
        own, other = (statistics.median(each) for each in times)
        return Compared(own, other, math.hypot(*(_notch(each) for each in times)))

    def _built(self, network: Network) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            return network.build(self._shape, self._outputs).to(self._device).train()

    def _step(self, network: nn.Module) -> float:
        """Take a step and return its seconds."""
        kind = self._device.type
        half = kind == "cuda" and torch.cuda.is_bf16_supported()
        started = self._timing.clock()
        with torch.autocast(kind, torch.bfloat16, enabled=half):
            y = network(self._x)
        y.float().square().mean().backward()
        if kind != "cpu":
            torch.accelerator.synchronize()
        seconds = self._timing.clock() - started
        network.zero_grad()
        return seconds


def _notch(times: list[float]) -> float:
    """Return half a 95 % interval of a median, as a share of it: 1.57 interquartile ranges / sqrt(n).

    Source: McGill et al., Variations of Box Plots, The American Statistician 1978, section 7.
    """
    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    return 1.57 * (high - low) / median / len(times) ** 0.5
