"""Heat maps of the kernels that a network made for a few images."""

import numpy as np
from matplotlib.figure import Figure

from dynops.ablation.reporting.drawing import bare_panels
from dynops.errors import RecordError
from dynops.records import RunRecord

SIDE = 1.5
"""Inches that one map takes."""


def kernel_maps(record: RunRecord) -> Figure:
    """Draw each input image beside each layer's kernels, summed over taps and groups at every pixel.

    A row is an image; a column is a layer, with one colour scale for all its images.

    Raises:
        RecordError: the record holds no inputs or kernels, or a layer has another number of images than the inputs.
    """
    inputs = np.asarray(record.images.get("inputs", ()), dtype=float)  # n c h w
    kernels = {layer: np.asarray(maps, dtype=float) for layer, maps in record.images.get("kernels", {}).items()}
    _check(inputs, kernels)
    rows, columns = len(inputs), 1 + len(kernels)
    figure, grid = bare_panels(rows, columns, width=SIDE * columns + 0.6, height=SIDE * rows + 1.2)
    for row, image in enumerate(inputs):
        shown = np.moveaxis(image, 0, -1) if len(image) == 3 else image.mean(0)
        grid[row][0].imshow(np.clip(shown, 0, 1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    grid[0][0].set_title("input", fontsize=10)
    for column, (layer, maps) in enumerate(kernels.items(), start=1):
        low, high = float(maps.min()), float(maps.max())
        for row, each in enumerate(maps):
            drawn = grid[row][column].imshow(each, cmap="viridis", vmin=low, vmax=high, interpolation="nearest")
        grid[0][column].set_title(_broken(layer), fontsize=10)
        bar = figure.colorbar(
            drawn, ax=[grid[row][column] for row in range(rows)], location="bottom", aspect=12, pad=0.01, shrink=0.85
        )
        bar.set_ticks([low, high] if high > low else [low])
        bar.ax.set_xticklabels([f"{end:.2g}" for end in bar.get_ticks()], fontsize=9)
        if high > low:
            first, last = bar.ax.get_xticklabels()
            first.set_horizontalalignment("left")
            last.set_horizontalalignment("right")
    cell = _broken(record.cell or "single run", 16 * columns)
    figure.suptitle(
        f"Each pixel's kernel, summed over\ntaps and groups (n = 1: seed {record.seed})\n{cell}", fontsize=10
    )
    return figure


def _check(inputs: np.ndarray, kernels: dict[str, np.ndarray]) -> None:
    if inputs.ndim != 4 or not len(inputs) or not kernels:
        raise RecordError(
            f"images has inputs of axes {inputs.shape} and {len(kernels)} layers of kernels: "
            "must hold inputs, n c h w, and kernels by layer, n h w."
        )
    for layer, maps in kernels.items():
        if maps.ndim != 3 or len(maps) != len(inputs):
            raise RecordError(
                f"images has kernels of axes {maps.shape} in {layer}, inputs of axes {inputs.shape}: "
                "must be n h w, with the n of the inputs."
            )


def _broken(name: str, width: int = 16) -> str:
    lines = [""]
    for part in name.replace(",", ",\0").replace(".", ".\0").split("\0"):
        if len(lines[-1]) + len(part) > width and lines[-1]:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)
