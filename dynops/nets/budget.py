"""Networks of equal cost: a network's width is changed until it costs what another one does."""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, takewhile
from typing import NamedTuple

import torch

from dynops.errors import ShapeError, SpecError
from dynops.nets.network import Network, Shape, Widths
from dynops.nets.timing import Stopwatch, Timing
from dynops.parts.cost import macs, parameters
from dynops.specs import one_of

UNITS = {"as_is": "parameters", "parameters": "parameters", "macs": "MACs", "latency": "ms a step"}
"""The budgets, each with the unit of its costs."""
REACH = 4  # widths are looked for from this part of the original to as many times it
TIMED = 16  # widths of the operator that are tried at most, where each try is a measurement
APART = 4  # and how far apart at least: latencies have steps, as processors take so many channels at once


class Measured(NamedTuple):
    """What a network costs."""

    cost: float
    target: float
    spread: float | None = None

    @property
    def ratio(self) -> float:
        """Cost as a multiple of the target."""
        return self.cost / self.target

    def fits(self, tolerance: float) -> bool:
        """Whether the cost is the target, up to a share or to the noise."""
        return abs(self.ratio - 1) <= max(tolerance, self.spread or 0.0)


Measure = Callable[[Network], Measured]


@dataclass(frozen=True, kw_only=True)
class Matched:
    """A network that costs what another one does."""

    network: Network
    """The network, at its new width."""
    budget: str
    """What is equal."""
    cost: float
    """Trainable parameters; multiply-accumulates of one input; or median milliseconds of a training step."""
    target: float
    """The same of the other network."""
    tolerance: float
    """The share that was asked for; infinite for `as_is`."""
    spread: float | None
    """Of a measured ratio, as a share: half a 95 % interval; None where costs are counted."""

    @property
    def ratio(self) -> float:
        """Cost as a multiple of the target."""
        return self.cost / self.target

    @property
    def limit(self) -> str:
        """What the ratio kept to: the `tolerance`, or the `noise` of its measurement where that is larger."""
        return "noise" if self.spread is not None and self.spread > self.tolerance else "tolerance"


def matched(
    network: Network,
    *,
    to: Network,
    budget: str,
    shape: Shape,
    outputs: int,
    tolerance: float = 0.01,
    timing: Timing | None = None,
) -> Matched:
    """Change a network's widths, as little as possible, until it costs what another one does.

    Of all widths from a quarter to four times the original that fit, those have changed least whose logarithms, beside
    the originals', have the smallest range `max(0, a, b) - min(0, a, b)`, a and b the changes of `inner` and `width`.
    Counted costs always give the same network. A latency is measured: the first widths near enough that fit, twice, are
    taken, and another time may give others. So keep the network that was found with a study, do not find it again.

    Args:
        network: what is changed.
        to: what it should cost as much as.
        budget: `parameters`; `macs`, multiply-accumulates of one input; `latency`, the time of a training step; or
            `as_is`, which changes nothing and compares parameters.
        shape: channels, rows and columns of an input.
        outputs: as in `Network.build`.
        tolerance: largest share by which the cost may differ; a latency may by the noise of its measurement, if that
            is larger.
        timing: how a latency is measured.
    Raises:
        SpecError: no width is near enough, in which case the message has the nearest, or the network has one only.
        ShapeError: a network cannot be built for the shape.
    """
    one_of("budget", budget, tuple(UNITS))
    if not 0 < tolerance < 1:
        raise SpecError(f"tolerance has {tolerance}: must be a share above 0 and below 1.")
    measure = _measure(to, budget, shape, outputs, timing or Timing())
    if budget == "as_is" or network == to:
        allowed = math.inf if budget == "as_is" else tolerance
        return Matched(network=network, budget=budget, tolerance=allowed, **measure(network)._asdict())
    search = _Search(network, measure, lambda one: _counted(one, "parameters", shape, outputs), tolerance)
    widths = search.found()
    if widths is None:
        raise SpecError(f"network {search.nearest(UNITS[budget])} Use another reference, or budget='as_is'.")
    found = network.widened(widths)
    return Matched(network=found, budget=budget, tolerance=tolerance, **search.tried[widths]._asdict())


def _measure(to: Network, budget: str, shape: Shape, outputs: int, timing: Timing) -> Measure:
    if budget == "latency":
        stopwatch = Stopwatch(to, shape, outputs, timing)
        return lambda network: Measured(*stopwatch.compare(network))
    target = _counted(to, UNITS[budget], shape, outputs)
    return lambda network: Measured(_counted(network, UNITS[budget], shape, outputs), target)


@lru_cache(maxsize=2**14)
def _counted(network: Network, unit: str, shape: Shape, outputs: int) -> int:
    with torch.device("meta"):
        module = network.build(shape, outputs)
    return macs(module, (1, *shape)) if unit == "MACs" else parameters(module)


class _Search:
    """Looks for the widths that fit and have changed least."""

    def __init__(
        self, network: Network, measure: Measure, build: Callable[[Network], object], tolerance: float
    ) -> None:
        self.network, self.measure, self.build, self.tolerance = network, measure, build, tolerance
        self.origin = network.widths
        self.tried: dict[Widths, Measured] = {}

    def found(self) -> Widths | None:
        """Return the best widths, None where none fit."""
        if self._holds(self.origin):
            return self.origin
        if not self.timed and not self._is_within_reach():
            return None
        best: Widths | None = None
        for inner in self._inners(self._guess()):
            if self.timed and any(0 < abs(inner - widths.inner) < APART for widths in self.tried):
                continue
            limit = math.inf if best is None else self._change(best)
            best = min(self._fitting(inner, limit), key=self._change, default=best)
            if self.timed and (best is not None or len({widths.inner for widths in self.tried}) > TIMED):
                break
        return best

    @property
    def timed(self) -> bool:
        """Whether each try is a measurement."""
        return self._at(self.origin).spread is not None

    def nearest(self, unit: str) -> str:
        """Say which widths came nearest."""
        start, (inner, width) = self._at(self.origin), self.origin
        near, best = min(self.tried.items(), key=lambda each: abs(math.log(each[1].ratio)))
        return (
            f"has {start.cost:.6g} {unit}, to has {start.target:.6g}: no width from {_least(width)} to {REACH * width} "
            f"with an inner one from {_least(inner)} to {REACH * inner} comes within {self.tolerance:.3g} of it. The "
            f"nearest, width={near.width} with inner={near.inner}, has {best.cost:.6g}, {best.ratio:.4g} times as much."
        )

    def _at(self, widths: Widths) -> Measured:
        if widths not in self.tried:
            self.tried[widths] = self.measure(self.network.widened(widths))
        return self.tried[widths]

    def _holds(self, widths: Widths) -> bool:
        """Whether widths fit; where that is measured, twice, and the second time counts."""
        if not self._at(widths).fits(self.tolerance):
            return False
        if self.timed:
            self.tried[widths] = self.measure(self.network.widened(widths))
        return self._at(widths).fits(self.tolerance)

    def _change(self, widths: Widths) -> float:
        changes = [0.0, *(math.log(new / old) for new, old in zip(widths, self.origin, strict=True))]
        return max(changes) - min(changes)

    def _fitting(self, inner: int, limit: float) -> Iterator[Widths]:
        """Find the widths that fit and have changed less than a limit."""
        line = [widths for widths in self._between(inner) if self._change(widths) < limit]
        if not line or not self._is_buildable(inner):
            return iter(())
        first = bisect_left(line, 1 - self.tolerance, key=lambda widths: self._at(widths).ratio)
        return islice(takewhile(self._holds, line[first:]), 1 if self.timed else None)

    def _between(self, inner: int) -> list[Widths]:
        """List the widths that may fit: a larger number costs more than what cost too much, a smaller one less."""
        least, most = _least(self.origin.width), REACH * self.origin.width
        for tried, measured in self.tried.items():
            if measured.fits(self.tolerance):
                continue
            if measured.ratio > 1 and tried.inner <= inner:
                most = min(most, tried.width - 1)
            if measured.ratio < 1 and tried.inner >= inner:
                least = max(least, tried.width + 1)
        return [Widths(inner, width) for width in range(least, most + 1)]

    def _inners(self, guess: float) -> list[int]:
        """List the inner widths, those first whose logarithm has changed nearly as is guessed."""
        inner = self.origin.inner
        inners = range(_least(inner), REACH * inner + 1)
        return sorted(inners, key=lambda each: abs(math.log(each / inner) - guess))

    def _is_buildable(self, inner: int) -> bool:
        try:
            self.build(self.network.widened(Widths(inner, self.origin.width)))
        except ShapeError:
            return False
        return True

    def _guess(self) -> float:
        """Guess the change of both logarithms from how the cost grows when both double."""
        start, double = self._at(self.origin), Widths(*(2 * each for each in self.origin))
        power = math.log2(self._at(double).ratio / start.ratio) if self._is_buildable(double.inner) else 2.0
        reach = math.log(REACH)
        return max(-reach, min(reach, -math.log(start.ratio) / max(power, 0.1)))

    def _is_within_reach(self) -> bool:
        reach, width = math.log(REACH), self.origin.width
        least = Widths(next(filter(self._is_buildable, self._inners(-reach))), _least(width))
        most = Widths(next(filter(self._is_buildable, self._inners(reach))), REACH * width)
        return self._at(least).ratio <= 1 + self.tolerance and self._at(most).ratio >= 1 - self.tolerance


def _least(width: int) -> int:
    return -(-width // REACH)
