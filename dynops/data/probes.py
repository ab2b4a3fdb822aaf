"""Probes: made data with one target, where only the place that says which answer is right changes."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from dynops.data.dataset import Data, Dataset, Examples
from dynops.specs import at_least, one_of, spec
from dynops.streams import stream

CHANNELS = 8  # of the values, and of the code
SIZE = 18
STRIDE = 3  # of the lattice; no two of its pixels share a neighbour
SHIFTS = ((-1, 0), (1, 0), (0, 1), (0, -1))  # north, south, east, west
CODED_SHARE = 0.1
TASKS = ("channel", "pixel", "pixel_channel", "sample", "position", "marker", "match")
LATTICE_TASKS = ("marker", "match")


class Selection(NamedTuple):
    """Which neighbour is the answer, and what an input shows of it."""

    selector: Tensor
    """Index into north, south, east, west; axes `n c h w`, of size 1 where it is shared."""
    code: Tensor
    """Channels beside the values, `n c h w`."""


@spec
class SelectorShift(Data):
    """Move each value by one pixel, to a side that a selector s says: y_c(p) = v_c(p + delta_s).

    Inputs are 8 channels of values v ~ N(0, 1) and 8 of code, targets 8 channels; s is one of north, south, east, west.
    The mean square error of any kernel that cannot know s is at least 1 - 1/4 = 0.75.
    """

    task: str
    """Where s lives.

    `channel`: s = c mod 4, the code is empty. `pixel`: s(p), one-hot in the code at p. `pixel_channel`: (s(p) + c) mod
    4, s(p) in the code. `sample`: one s an image, in the code at a tenth of the pixels. `position`: a map s(p) that the
    seed fixes, the code is empty. On a lattice of stride 3, `marker`: the code flags the neighbour that answers;
    `match`: p and the neighbour that answers show one of 8 symbols, the other three neighbours show others."""
    train: int = 6400
    """Number of training inputs."""
    test: int = 512
    """Number of test inputs."""

    def __post_init__(self) -> None:
        one_of("task", self.task, TASKS)
        at_least("train", self.train, 1)
        at_least("test", self.test, 1)

    def load(self, seed: int, *, root: Path | None = None, download: bool = False) -> Dataset:
        """Make the data from the seed; all tasks have the same values, no file is read."""
        return Dataset(
            name=f"{type(self).__name__}({self.task})",
            train=self._examples(seed, "train", self.train),
            test=self._examples(seed, "test", self.test),
            task="regression",
            outputs=CHANNELS,
            scale=1.0,
            mean=(0.0,) * 2 * CHANNELS,
            std=(1.0,) * 2 * CHANNELS,
            mask=judged_pixels(self.task),
        )

    def _examples(self, seed: int, part: str, number: int) -> Examples:
        values = torch.randn(number, CHANNELS, SIZE, SIZE, generator=stream(seed, "values", part))
        generator = stream(seed, "selector", part)
        if self.task == "channel":
            selection = Selection(_by_channel(), _empty(number))
        elif self.task in ("pixel", "pixel_channel"):
            selection = _select_by_pixel(number, generator, with_channel=self.task == "pixel_channel")
        elif self.task == "sample":
            selection = _select_by_sample(number, generator)
        elif self.task == "position":
            fixed = torch.randint(len(SHIFTS), (1, 1, SIZE, SIZE), generator=stream(seed, "selector", "position"))
            selection = Selection(fixed, _empty(number))
        else:
            selection = _select_on_lattice(number, generator, symbols=self.task == "match")
        return Examples(inputs=torch.cat([values, selection.code], dim=1), targets=shift(values, selection.selector))


def judged_pixels(task: str) -> Tensor:
    """Return the pixels that a task judges, `h w`, bool: those inside, or the lattice of `marker` and `match`."""
    mask = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    step = STRIDE if task in LATTICE_TASKS else 1
    mask[1:-1:step, 1:-1:step] = True
    return mask


def shift(values: Tensor, selector: Tensor) -> Tensor:
    """Take each value from the neighbour that the selector says.

    Args:
        values: `n c h w`; the border continues on the other side.
        selector: index into north, south, east, west, `n c h w`; an axis of size 1 is shared.
    Returns:
        Values, `n c h w`.
    """
    shifted = torch.zeros_like(values)
    for side, (down, right) in enumerate(SHIFTS):
        shifted = torch.where(selector == side, torch.roll(values, (-down, -right), (2, 3)), shifted)
    return shifted


def _by_channel() -> Tensor:
    return (torch.arange(CHANNELS) % len(SHIFTS)).view(1, -1, 1, 1)


def _empty(number: int) -> Tensor:
    return torch.zeros(number, CHANNELS, SIZE, SIZE)


def _one_hot(index: Tensor) -> Tensor:
    """Code an index, `n 1 h w`, in as many channels as a code has."""
    return (index == torch.arange(CHANNELS).view(1, -1, 1, 1)).float()


def _select_by_pixel(number: int, generator: Generator, *, with_channel: bool) -> Selection:
    selector = torch.randint(len(SHIFTS), (number, 1, SIZE, SIZE), generator=generator)
    moved = (selector + _by_channel()) % len(SHIFTS) if with_channel else selector
    return Selection(moved, _one_hot(selector))


def _select_by_sample(number: int, generator: Generator) -> Selection:
    selector = torch.randint(len(SHIFTS), (number, 1, 1, 1), generator=generator)
    coded = torch.rand(number, 1, SIZE, SIZE, generator=generator) < CODED_SHARE
    return Selection(selector, _one_hot(selector) * coded)


def _select_on_lattice(number: int, generator: Generator, *, symbols: bool) -> Selection:
    selector = torch.randint(len(SHIFTS), (number, 1, SIZE, SIZE), generator=generator)
    chosen = selector[..., 1::STRIDE, 1::STRIDE]
    flags = torch.zeros(number, 1, SIZE, SIZE)
    shown = torch.randint(CHANNELS, (number, 1, SIZE, SIZE), generator=generator)
    own = shown[..., 1::STRIDE, 1::STRIDE]
    for side, (down, right) in enumerate(SHIFTS):
        neighbour = (..., slice(1 + down, None, STRIDE), slice(1 + right, None, STRIDE))
        flags[neighbour] = (chosen == side).float()
        other = (own + torch.randint(1, CHANNELS, own.shape, generator=generator)) % CHANNELS
        shown[neighbour] = torch.where(chosen == side, own, other)
    if symbols:
        return Selection(selector, _one_hot(shown))
    return Selection(selector, torch.cat([flags, _empty(number)[:, 1:]], dim=1))
