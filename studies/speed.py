"""How fast is a local sum on this machine? Against its peers, in one process, in turns.

Prints nothing unless the tests of the operators pass and every peer that computes the same sum agrees with it here.

    python -m studies.speed
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import quantiles
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from dynops import Window
from dynops.cli import command
from dynops.errors import DynopsError, SpecError
from dynops.ops import local_sum
from dynops.records import write_atomically
from dynops.specs import at_least
from dynops.training.environment import commit, device_name, versions

TESTS = Path(__file__).resolve().parent.parent / "tests" / "ops"
BASE = "depthwise"
"""What ratios are taken to."""
WARM_UP = 3
HEAD = ("shape b,c,h,w,k,g", "peer", "forward, ms", "/ depthwise", "forward + backward, ms", "/ depthwise")


class SpeedError(DynopsError):
    """A speed that must not be printed, as what is timed is wrong."""


class Shape(NamedTuple):
    """What is summed: images, channels, rows and columns, taps a side, groups."""

    b: int
    c: int
    h: int
    w: int
    k: int
    g: int


SHAPES = (
    Shape(8, 64, 56, 56, 7, 4),
    Shape(8, 128, 28, 28, 7, 8),
    Shape(8, 256, 14, 14, 7, 16),
    Shape(32, 64, 32, 32, 3, 4),
)


class Peer(NamedTuple):
    """What is timed."""

    apply: Callable[[Tensor, Tensor], Tensor]
    """From weights and features `b c h w` to the sum `b c h w`."""
    weights: Tensor
    same: bool
    """Whether it computes the local sum."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What one peer took at one shape, in seconds, round by round."""

    shape: Shape
    peer: str
    forward: list[float]
    both: list[float]
    """Forward and backward."""


def peers(shape: Shape, compiled: bool = True) -> dict[str, Peer]:
    """Return what is timed at a shape.

    Args:
        shape: what is summed.
        compiled: whether torch compiles the shifted views as well, which takes some seconds.
    """
    b, c, h, w, k, g = shape
    kernel = torch.randn(b, g, 1, 1, k * k, h, w)
    window = Window(k)

    def summed(backend: str | None, kernel: Tensor, x: Tensor) -> Tensor:
        value = x.view(b, g, 1, c // g, h, w)
        return local_sum(kernel, value, window, backend=backend).view(b, c, h, w)

    def unfolded(kernel: Tensor, x: Tensor) -> Tensor:
        patches = F.unfold(x, k, padding=k // 2).view(b, g, c // g, k * k, h, w)
        return (kernel[:, :, 0] * patches).sum(3).view(b, c, h, w)

    def convolved(groups: int, weight: Tensor, x: Tensor) -> Tensor:
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=groups)

    shifted = partial(summed, "shift")
    found = {
        "dynops": Peer(partial(summed, None), kernel, True),
        "unfold": Peer(unfolded, kernel, True),
        "shifted views": Peer(shifted, kernel, True),
        BASE: Peer(partial(convolved, c), torch.randn(c, 1, k, k), False),
        "dense 3x3": Peer(partial(convolved, 1), torch.randn(c, c, 3, 3), False),
    }
    if compiled:
        found["shifted views, compiled"] = Peer(torch.compile(shifted, dynamic=False), kernel, True)
    return found


def check(found: dict[str, Peer], x: Tensor) -> None:
    """Raise a SpeedError unless all peers that compute the local sum agree, in outputs and gradients."""
    expected = None
    for name, peer in found.items():
        if not peer.same:
            continue
        weights, features = peer.weights.clone().requires_grad_(), x.clone().requires_grad_()
        y = peer.apply(weights, features)
        results = (y, *torch.autograd.grad(y.square().sum(), (weights, features)))
        expected = expected or results
        for ours, theirs in zip(expected, results, strict=True):
            error = ((ours - theirs).norm() / theirs.norm()).item()
            if not error < 1e-5:
                raise SpeedError(f"{name} has an error of {error:.1e} against dynops: must be below 1e-5.")


def measure(shapes: tuple[Shape, ...], rounds: int, *, compiled: bool = True) -> Iterator[Timing]:
    """Time all peers of each shape in turns, round by round, after rounds that do not count.

    Raises:
        SpeedError: a peer that should compute the same does not.
    """
    for shape in shapes:
        x = torch.randn(shape[:4])
        slope = torch.randn(shape[:4])
        found = peers(shape, compiled)
        check(found, x)
        forward: dict[str, list[float]] = {name: [] for name in found}
        both: dict[str, list[float]] = {name: [] for name in found}
        for _ in track(range(WARM_UP + rounds), description=",".join(map(str, shape)), transient=True):
            for name, peer in found.items():
                weights, features = peer.weights.clone().requires_grad_(), x.clone().requires_grad_()
                with torch.no_grad():
                    forward[name].append(_seconds(partial(peer.apply, weights, features)))
                both[name].append(_seconds(partial(_step, peer, weights, features, slope)))
        for name in found:
            yield Timing(shape=shape, peer=name, forward=forward[name][WARM_UP:], both=both[name][WARM_UP:])


def rows(timings: list[Timing]) -> list[list[str]]:
    """Return the table's rows: medians, and ratios to depthwise convolution with their quartiles over the rounds."""
    base = {timing.shape: timing for timing in timings if timing.peer == BASE}
    found = []
    for timing in timings:
        other = base[timing.shape]
        cells = [",".join(map(str, timing.shape)), timing.peer]
        for own, theirs in ((timing.forward, other.forward), (timing.both, other.both)):
            low, middle, high = quantiles([a / b for a, b in zip(own, theirs, strict=True)], n=4)
            cells += [f"{1e3 * quantiles(own, n=2)[0]:.2f}", f"{middle:.2f} [{low:.2f}, {high:.2f}]"]
        found.append(cells)
    return found


def markdown(saved: dict[str, Any]) -> str:
    """Write what `speed.json` holds as a table of Markdown."""
    timings = [Timing(**timing | {"shape": Shape(*timing["shape"])}) for timing in saved["timings"]]
    lines = [HEAD, ("---", "---", *["--:"] * 4), *rows(timings)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main(rounds: int = 30, threads: int = 2, folder: Path = Path("runs/speed")) -> None:
    """Test the operators, time them and their peers, and print and keep the table.

    Args:
        rounds: times that each peer runs at each shape.
        threads: threads of torch.
        folder: where `speed.json` and `speed.md` go.
    """
    at_least("threads", threads, 1)
    if rounds < 4:
        raise SpecError(f"rounds has {rounds}: must be at least 4, for quartiles.")
    console = Console(highlight=False)
    console.print("Testing the operators ...")
    tested = subprocess.run([sys.executable, "-m", "pytest", "-q", "-x", str(TESTS)], capture_output=True, text=True)
    if tested.returncode:
        raise SpeedError(f"tests has failures, so no speed is measured:\n{tested.stdout[-2000:]}")
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    timings = list(measure(SHAPES, rounds))
    device = device_name(torch.device("cpu"))
    saved = {
        "device": device,
        "versions": versions(),
        "commit": commit(),
        "rounds": rounds,
        "timings": [asdict(timing) for timing in timings],
    }
    write_atomically(folder / "speed.json", json.dumps(saved, indent=1) + "\n")
    write_atomically(folder / "speed.md", markdown(saved))
    title = f"Medians of {rounds} rounds in turns; ratios with quartiles; {device}"
    shown = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1))
    for number, column in enumerate(HEAD):
        shown.add_column(column, justify="right" if number > 1 else "left")
    for row in rows(timings):
        shown.add_row(*row)
    console.print(shown)
    console.print(f"Kept: {folder / 'speed.json'} and speed.md", soft_wrap=True)


def _step(peer: Peer, weights: Tensor, x: Tensor, slope: Tensor) -> None:
    torch.autograd.grad(peer.apply(weights, x), (weights, x), slope)


def _seconds(run: Callable[[], object]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


if __name__ == "__main__":
    command(main, "How fast local sums are on this machine, beside their peers.")
