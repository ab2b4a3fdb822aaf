"""A page that is drawn on in inches, and panels of cells on it: one pair of axes, as making many is slow."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

DPI = 110
Segment = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A grid of cells on a page; places on it are rows and columns, whose cells begin at whole numbers."""

    axes: Axes
    left: float
    top: float
    cell: tuple[float, float]
    """Height and width of a cell, in inches."""
    shape: tuple[int, int]
    """Rows and columns."""

    def image(self, values: np.ndarray, scale: Normalize | None = None, colours: str | None = None) -> None:
        """Fill the cells, `rows columns` by a scale of colours or `rows columns 3` with colours."""
        (top, left), (bottom, right) = self._inches(0, 0), self._inches(*self.shape)
        extent = (left, right, bottom, top)
        self.axes.imshow(
            values, cmap=colours, norm=scale, interpolation="nearest", extent=extent, aspect="auto", zorder=1
        )

    def lines(self, segments: Iterable[Segment], colour: str, width: float) -> None:
        """Draw lines, each from a row and column to another."""
        drawn = [[self._inches(*end)[::-1] for end in segment] for segment in segments]
        self.axes.add_collection(LineCollection(drawn, colors=colour, linewidths=width, zorder=2), autolim=False)

    def mesh(self, colour: str, width: float) -> None:
        """Draw the borders of all cells."""
        rows, columns = self.shape
        self.lines([((row, 0), (row, columns)) for row in range(rows + 1)], colour, width)
        self.lines([((0, column), (rows, column)) for column in range(columns + 1)], colour, width)

    def box(self, start: tuple[float, float], end: tuple[float, float], colour: str, width: float) -> None:
        """Frame the cells from a row and column up to another."""
        (top, left), (bottom, right) = self._inches(*start), self._inches(*end)
        self.axes.add_patch(
            Rectangle(
                (left, top),
                right - left,
                bottom - top,
                fill=False,
                edgecolor=colour,
                linewidth=width,
                joinstyle="miter",
                zorder=3,
            )
        )

    def frame(self, colour: str, width: float) -> None:
        """Frame all cells."""
        self.box((0, 0), self.shape, colour, width)

    def dot(self, row: int, column: int) -> None:
        """Mark a cell's centre."""
        y, x = self._inches(row + 0.5, column + 0.5)
        self.axes.plot(x, y, marker="o", markersize=3, color="black", markeredgecolor="white", markeredgewidth=0.5)

    def text(self, row: float, column: float, text: str, size: float, colour: str) -> None:
        """Write in the middle of a cell."""
        y, x = self._inches(row + 0.5, column + 0.5)
        self.axes.text(x, y, text, fontsize=size, ha="center", va="center", color=colour, zorder=4)

    def _inches(self, row: float, column: float) -> tuple[float, float]:
        return self.top + row * self.cell[0], self.left + column * self.cell[1]


class Page:
    """A picture of some inches, measured from its upper left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.figure = Figure(figsize=(width, height), dpi=DPI)
        FigureCanvasAgg(self.figure)
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set_axis_off()
        self.axes.set_autoscale_on(False)
        self.axes.set_xlim(0, width)
        self.axes.set_ylim(height, 0)

    def panel(self, left: float, top: float, width: float, height: float, shape: tuple[int, int]) -> Panel:
        """Make a panel of square cells in the middle of a place; the cells of a single row fill it."""
        rows, columns = shape
        cell = (height / rows, width / columns)
        if rows > 1:
            cell = (min(cell), min(cell))
        left, top = left + (width - columns * cell[1]) / 2, top + (height - rows * cell[0]) / 2
        return Panel(axes=self.axes, left=left, top=top, cell=cell, shape=shape)

    def rectangle(
        self, left: float, top: float, width: float, height: float, fill: str, edge: str = "none", line: float = 0.6
    ) -> None:
        """Draw a filled rectangle over what was drawn before."""
        self.axes.add_patch(
            Rectangle((left, top), width, height, facecolor=fill, edgecolor=edge, linewidth=line, zorder=1)
        )

    def text(
        self,
        left: float,
        top: float,
        text: str,
        size: float = 9,
        weight: str = "normal",
        colour: str = "black",
        centred: bool = False,
        rotation: float = 0,
    ) -> None:
        """Write lines, the first of which begins at a place, or lies below its middle."""
        self.axes.text(
            left,
            top,
            text,
            fontsize=size,
            fontweight=weight,
            color=colour,
            va="center" if rotation else "top",
            ha="center" if centred else "left",
            rotation=rotation,
            linespacing=1.35,
        )

    def write(self, path: Path) -> None:
        """Write the page as PNG, whose bytes do not depend on when it is written."""
        self.figure.savefig(path, format="png", metadata={"Software": None})
