"""Panels of a card's picture: where an operator looks, what it shares, and its kernels."""

import numpy as np
from einops import rearrange
from matplotlib import colormaps
from matplotlib.colors import Normalize, to_rgb
from torch import Tensor, arange

from dynops.cards.looks import Look
from dynops.cards.page import Panel
from dynops.parts.channels import Split

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Okabe and Ito's palette, which the colour-blind can tell apart."""
FRAME = "0.25"
LUMINANCE = (0.299, 0.587, 0.114)
FEW = 9
"""Kernels of up to so many taps show their weights as numbers."""
NUMBERED = 18
"""Grids of up to so many pixels say how many taps see one."""


def draw_look(panel: Panel, look: Look, colour: str, blocks: tuple[list[int], list[int]]) -> None:
    """Draw the pixels that an output's taps see; those outside the input, which see zero, are pale.

    Args:
        panel: where to draw.
        look: the taps.
        colour: of the taps.
        blocks: rows and columns at which a new block of the window begins.
    """
    inside = np.argwhere(look.inside)
    (top, left), (bottom, right) = inside.min(0), inside.max(0) + 1
    strength = np.where(look.inside, np.minimum(0.4 + 0.2 * look.taps, 1.0), 0.25) * (look.taps > 0)
    strength = strength[..., None]
    ground = np.where(look.inside[..., None], 0.92, 1.0)
    panel.image(ground * (1 - strength) + np.array(to_rgb(colour)) * strength)
    panel.mesh("white", 0.6)
    panel.lines([((top + row, left), (top + row, right)) for row in blocks[0]], FRAME, 0.8)
    panel.lines([((top, left + column), (bottom, left + column)) for column in blocks[1]], FRAME, 0.8)
    panel.box((top, left), (bottom, right), FRAME, 1.0)
    if look.own is not None:
        row, column = top + look.own[0], left + look.own[1]
        panel.box((row, column), (row + 1, column + 1), "black", 1.8)
    if max(look.taps.shape) <= NUMBERED:
        for row, column in np.argwhere(look.taps > 1):
            panel.text(row, column, str(look.taps[row, column]), 6, "white")


def draw_kernel(
    panel: Panel, weights: np.ndarray, inside: np.ndarray, own: tuple[int, int] | None, scale: Normalize
) -> None:
    """Draw a kernel's taps in their grid; those that see no pixel are crossed out, the output's own has a dot.

    Args:
        panel: where to draw.
        weights: `rows columns`.
        inside: which of them see a pixel.
        own: row and column of the tap that sees the output itself.
        scale: the smallest and largest weight of the colours.
    """
    panel.image(weights, scale, colours(scale))
    if weights.size == 1 or (weights.size <= FEW and len(weights) > 1):
        for (row, column), weight in np.ndenumerate(weights):
            ground = colormaps[colours(scale)](scale(weight))[:3]
            panel.text(row + 0.3, column, f"{weight:z.2f}", 7, "white" if np.dot(ground, LUMINANCE) < 0.5 else "black")
    panel.lines(
        [((row + 0.2, column + 0.2), (row + 0.8, column + 0.8)) for row, column in np.argwhere(~inside)], "0.5", 0.6
    )
    if own is not None:
        panel.dot(*own)


def colours(scale: Normalize) -> str:
    """Name the colours of weights: from one hue to another through white, or from white where none is negative."""
    return "PuOr_r" if scale.vmin else "YlOrBr"


def sharing(split: Split, kernel: Tensor) -> np.ndarray:
    """Number the kernel that carries each channel of the value to each of the sum, `c_out c_in`; -1 where none does.

    Args:
        split: how channels fall into g, o, i and s.
        kernel: weights, `b g o i k h w`; along an axis of size 1 there is one kernel.
    """
    grid = (1,) * (kernel.dim() - 5)
    sources = split.split(arange(split.channels).view(1, -1, *grid)).flatten()
    places = arange(split.out_channels).view(1, split.g, split.o, split.s, *grid)
    targets = split.merge(places).flatten().argsort()
    taken = [kernel.shape[axis] > 1 for axis in (1, 2, 3)]
    matrix = np.full((split.out_channels, split.channels), -1)
    numbers = np.arange(split.g * split.o * split.i).reshape(split.g, split.o, split.i)
    numbers = numbers[tuple(slice(None) if varies else slice(0, 1) for varies in taken)]
    numbers = np.broadcast_to(numbers, (split.g, split.o, split.i))
    rows = rearrange(targets.numpy(), "(g o s) -> g o 1 s", g=split.g, o=split.o)
    columns = rearrange(sources.numpy(), "(g i s) -> g 1 i s", g=split.g, i=split.i)
    matrix[rows, columns] = numbers[..., None]
    return np.unique(matrix, return_inverse=True)[1].reshape(matrix.shape) - int((matrix < 0).any())


def draw_sharing(panel: Panel, matrix: np.ndarray) -> None:
    """Draw which channels share a kernel: cells of one colour do."""
    count = int(matrix.max()) + 1
    palette = np.array([to_rgb(colour) for colour in COLOURS])
    if count > len(COLOURS):
        # steps of the golden ratio, so that neighbours differ
        palette = colormaps["viridis"](np.arange(count) * 0.618034 % 1)[:, :3]
    panel.image(np.where((matrix >= 0)[..., None], palette[np.maximum(matrix, 0)], 0.95))
    panel.mesh("white", 0.4)


def sharing_words(matrix: np.ndarray) -> str:
    """Say how many kernels there are, and how often each is used.

    >>> sharing_words(np.array([[0, -1], [-1, 0]])), sharing_words(np.array([[0, 1], [2, 3]]))
    ('1 kernel, which 2 channels share', '4 kernels, one for each pair of channels')
    """
    count, pairs = int(matrix.max()) + 1, int((matrix >= 0).sum())
    kernels = f"{count} kernel{'s' * (count > 1)}"
    alone = bool(((matrix >= 0).sum(0) == 1).all() and ((matrix >= 0).sum(1) == 1).all())
    things = "channels" if alone else "pairs of channels"
    if pairs == count:
        return f"{kernels}, one for each {'channel' if alone else 'pair of channels'}"
    return f"{kernels}, {'each of ' * (count > 1)}which {pairs // count} {things} share"
