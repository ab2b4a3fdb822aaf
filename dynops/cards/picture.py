"""The picture of a card: for three outputs where they look and with which weights, and what channels share."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from textwrap import fill

import numpy as np
from matplotlib.colors import Normalize

from dynops.cards import words
from dynops.cards.looks import borders, looks, outputs_shown, own_tap
from dynops.cards.page import Page
from dynops.cards.panels import COLOURS, colours, draw_kernel, draw_look, draw_sharing, sharing, sharing_words
from dynops.cards.sample import IMAGES, Sample
from dynops.ops.blocks import Block
from dynops.ops.geometry import Geometry, Size

LEFT, GAP, SIDE, LINE = 1.75, 0.25, 1.95, 0.4
"""Inches: the margin of row names, between panels, a panel's side, and the height of a sequence's panel."""
SHARING = 2.9
"""Inches that the matrix of channels takes."""
WIDTH = LEFT + 3 * (SIDE + GAP) + 0.6 + SHARING + 0.2
RIGHT = WIDTH - SHARING - 0.2
NOTES = 0.16
"""Inches of a line of notes."""
VARIES = {
    "": "static: the same for every image and pixel",
    "b": "one for each image, the same for all its pixels",
    "hw": "one for each position, the same for every image",
    "bhw": "made anew for each image and pixel",
}


def picture(samples: Sequence[Sample], *, title: str, lines: Sequence[str]) -> Page:
    """Draw a layer: each of its operators below the other.

    Args:
        samples: the layer's operators with their kernels.
        title: the layer's name.
        lines: what stands below it.
    """
    said = "\n".join(fill(line, 140, subsequent_indent="    ") for line in lines)
    head = 0.5 + 0.195 * (said.count("\n") + 1)
    heights = [_height(sample) for sample in samples]
    page = Page(WIDTH, head + (sum(heights) or 0.6))
    page.text(0.2, 0.15, title, size=15, weight="bold")
    page.text(0.2, 0.48, said, size=9.5)
    top = head
    for sample, height in zip(samples, heights, strict=True):
        _draw_operator(page, top, sample)
        top += height
    if not samples:
        page.text(0.2, head, "It has no operator: no window and no kernel to draw.")
    return page


def _height(sample: Sample) -> float:
    rows = 1 + (sample.operator.scatter is not None) + IMAGES
    left = rows * _step(sample) + 0.4
    return 0.45 + max(left, SHARING + 0.85 + NOTES * len(_notes(sample))) + 0.25


def _row(sample: Sample) -> float:
    return LINE if sample.operator.dims == 1 else SIDE


def _step(sample: Sample) -> float:
    """From one row to the next, which leaves room for the words beside it."""
    return max(_row(sample) + GAP, 0.95)


def _draw_operator(page: Page, top: float, sample: Sample) -> None:
    operator, step = sample.operator, _step(sample)
    outputs = outputs_shown(operator.window.output_size(sample.size))
    page.text(0.2, top + 0.15, sample.place, weight="bold", size=10)
    for column, (name, position) in enumerate(outputs.items()):
        place = ", ".join(map(str, position))
        page.text(_column(column), top + 0.15, f"{name} ({place})", colour=COLOURS[column], weight="bold")
    top += 0.45
    _draw_channels(page, top, sample)
    _label(page, top, "where it looks", _look_words(sample))
    _draw_looks(page, top, operator.window, sample.size, list(outputs.values()), _row(sample))
    if operator.scatter is not None:
        top += step
        grid = operator.output_size(sample.size)
        words_of = f"{words.by(operator.scatter.sizes)} of the output's {words.by(grid)} pixels"
        _label(page, top, "where it writes", words_of)
        _draw_looks(page, top, operator.scatter, grid, list(outputs.values()), _row(sample))
    _draw_kernels(page, top + step, sample, list(outputs.values()))


def _draw_looks(page: Page, top: float, window: Geometry, size: Size, outputs: list[Size], row: float) -> None:
    lines = [borders(window, size, axis) for axis in range(max(window.dims - 2, 0), window.dims)]
    for column, look in enumerate(looks(window, size, outputs)):
        blocks = ([], lines[0]) if window.dims == 1 else (lines[0], lines[1])
        panel = page.panel(_column(column), top, SIDE, row, look.taps.shape)
        draw_look(panel, look, COLOURS[column], blocks)


def _draw_channels(page: Page, top: float, sample: Sample) -> None:
    matrix = sharing(sample.split, sample.kernel)
    page.text(RIGHT, top - 0.3, "what it shares: a colour is a kernel", weight="bold")
    draw_sharing(page.panel(RIGHT, top, SHARING, SHARING, matrix.shape), matrix)
    value = "channels of the " + ("projected value" if sample.operator.value else "input")
    page.text(RIGHT + SHARING / 2, top + SHARING + 0.04, value, size=8, centred=True)
    outputs = "channels of the " + ("sum" if sample.operator.out else "output")
    page.text(RIGHT - 0.1, top + SHARING / 2, outputs, size=8, centred=True, rotation=90)
    pattern = words.sized(sample.operator.channels.pattern, sample.split)
    page.text(RIGHT, top + SHARING + 0.25, f"{pattern}\n{sharing_words(matrix)}", size=8.5)
    page.text(RIGHT, top + SHARING + 0.75, "\n".join(_notes(sample)), size=7.5, colour="0.35")


def _notes(sample: Sample) -> list[str]:
    """Say how to read the panels of an operator, as far as it is needed."""
    operator, window = sample.operator, sample.operator.window
    outputs = list(outputs_shown(window.output_size(sample.size)).values())
    seen = looks(window, sample.size, outputs)
    one_tap = prod(window.tap_grid(sample.size)) == 1
    notes = [f"drawn with {sample.channels} channels, freshly built, on random images"]
    if any(kernels := [size for size in sample.kernel.shape[1:4] if size > 1]):
        notes.append(f"its kernel: the first of {prod(kernels)}")
    if operator.scatter is not None:
        notes.append("its kernel: " + ("over the pixels it writes" if one_tap else "for the first pixel it writes"))
    if seen[0].own is not None:
        notes.append("black frame, dot: the output's own pixel")
    if not bool(window.inside(sample.size).all()):
        notes.append("crossed: outside the input, " + ("left out" if window.masked else "where it sees zero (pale)"))
    if operator.scatter is not None:
        written = looks(operator.scatter, operator.output_size(sample.size), outputs)
        if any(look.taps[~look.inside].any() for look in written):
            notes.append("pale: what it writes outside the output is lost")
    if any((look.taps > 1).any() for look in seen):
        notes.append("numbers: taps that see the same pixel")
    if isinstance(window, Block):
        notes.append("dark lines: blocks")
    if operator.offsets is not None:
        notes.append("taps before learned offsets move them")
    if operator.dims > 2:
        notes.append("the middle frame of windows and kernels")
    return notes


def _draw_kernels(page: Page, top: float, sample: Sample, outputs: list[Size]) -> None:
    row = _row(sample)
    shown = [[_weights(sample, image, output) for output in outputs] for image in range(IMAGES)]
    scale = _scale([weights for line in shown for weights in line])
    for image, line in enumerate(shown):
        note = _kernel_words(sample) if image == 0 else ""
        _label(page, top, f"its kernel, image {image + 1}", note)
        for column, (weights, output) in enumerate(zip(line, outputs, strict=True)):
            panel = page.panel(_column(column), top, SIDE, row, weights.shape)
            draw_kernel(panel, weights, *_tap_marks(sample, output, weights.shape), scale)
            panel.frame(COLOURS[column], 1.6)
        top += _step(sample)
    bar = page.panel(LEFT, top, 3 * SIDE + 2 * GAP, 0.1, (1, 256))
    bar.image(np.linspace(scale.vmin or 0.0, scale.vmax or 1.0, 256)[None], scale, colours(scale))
    bar.frame("black", 0.8)
    for end in sorted({scale.vmin or 0.0, 0.0, scale.vmax or 1.0}):
        page.text(LEFT + scale(end) * (3 * SIDE + 2 * GAP), top + 0.14, f"{end:.2g}", size=8, centred=True)
    page.text(0.2, top - 0.03, "weight", size=8.5)


def _scale(weights: Sequence[np.ndarray]) -> Normalize:
    """One scale of colours for all weights, from 0 where none is negative."""
    limit = max(float(np.abs(each).max()) for each in weights) or 1.0
    return Normalize(-limit if any((each < 0).any() for each in weights) else 0.0, limit)


def _weights(sample: Sample, image: int, output: Size) -> np.ndarray:
    """The first kernel's taps at an output, as rows and columns; of one tap, those that it writes."""
    kernel = sample.kernel[min(image, len(sample.kernel) - 1)]
    for position in reversed(output):
        kernel = kernel[..., position if kernel.shape[-1] > 1 else 0]  # g o i k
    scatter, grid = sample.operator.scatter, sample.operator.window.tap_grid(sample.size)
    if scatter is not None and prod(grid) == 1:
        written = kernel[0, : prod(scatter.sizes), 0, 0].expand(prod(scatter.sizes))
        return _flat(written.unflatten(0, scatter.sizes).numpy())
    return _flat(kernel[0, 0, 0].expand(prod(grid)).unflatten(0, grid).numpy())


def _tap_marks(sample: Sample, output: Size, shape: tuple[int, ...]) -> tuple[np.ndarray, tuple[int, int] | None]:
    """Which taps see a pixel, and which sees the output's own; nothing where pixels that it writes are drawn."""
    window = sample.operator.window
    grid = window.tap_grid(sample.size)
    if prod(grid) == 1:
        return np.ones(shape, dtype=bool), None
    seen = window.inside(sample.size)
    for position in reversed(output):
        seen = seen[..., position]
    inside = seen.reshape(grid).numpy()
    own = own_tap(window, sample.size, output)
    if own is None:
        return _flat(inside), None
    row, column = (0, *own)[-2:]
    return _flat(inside), (row, column)


def _flat(taps: np.ndarray) -> np.ndarray:
    """Rows and columns: a sequence has one row, of a volume there is the middle frame."""
    if taps.ndim == 1:
        return taps[None]
    return taps[len(taps) // 2] if taps.ndim == 3 else taps


def _look_words(sample: Sample) -> str:
    text = words.window(replace(sample.operator, scatter=None, bias=False))
    return f"{text} on {words.by(sample.size)} pixels"


def _kernel_words(sample: Sample) -> str:
    letters = "".join(letter for letter in "bhw" if letter in sample.operator.signature)
    varies = VARIES.get(letters, f"varies along {', '.join(letters)}")
    return f"{words.signature(sample.operator)} {varies}"


def _label(page: Page, top: float, name: str, note: str) -> None:
    page.text(0.2, top, name, weight="bold", size=8.5)
    page.text(0.2, top + 0.2, fill(note, 21), size=8)


def _column(number: int) -> float:
    return LEFT + number * (SIDE + GAP)
