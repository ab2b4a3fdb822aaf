"""The place that a kernel is built for."""

from dataclasses import dataclass
from math import prod

from dynops.errors import SpecError
from dynops.ops.geometry import Geometry, Size


@dataclass(frozen=True, kw_only=True)
class Site:
    """The place that a kernel is built for."""

    channels: int
    """Channels of the tensor that a context reads."""
    g: int
    o: int
    i: int
    window: Geometry
    size: Size | None
    """The input's grid, where known."""
    slots: int | None = None
    """Number of weights that stand in the place of taps: those of a router for its experts, or 1 of a bias."""
    biased: int | None = None
    """Size of the axis i of the kernel to which this is the bias."""
    given: int | None = None
    """Channels of the operator's own context, where it has one."""

    @property
    def taps(self) -> int:
        """Size of the axis k."""
        return self.slots or prod(self.window.tap_grid(self.size))

    @property
    def fan_in(self) -> int:
        """Number of products in each sum that the weights stand in; a bias is drawn as the kernel beside it."""
        if self.biased:
            return self.biased * prod(self.window.tap_grid(self.size))
        return self.i * self.taps

    def positions(self) -> Size:
        """The output's grid, for a table that has an entry for each position.

        Raises:
            SpecError: the input's grid is not known.
        """
        if self.size is None:
            raise SpecError(
                "size has None: a kernel that learns positions has a table for the grid of its input. "
                "Build it with size=(rows, columns)."
            )
        return self.window.output_size(self.size)

    def check_taps(self, kernel: object) -> None:
        """Raise a SpecError where a kernel that needs the window's taps would be a router or a bias."""
        if self.slots:
            raise SpecError(
                f"kernel has {kernel!r}: it weighs the taps of a window, a router weighs experts and a bias one "
                "constant. Use a Static, Linear or Dynamic kernel."
            )

    def axes(self, shared: str) -> dict[str, int]:
        """Sizes of the axes `g o i k`, 1 along the shared ones."""
        sizes = {"g": self.g, "o": self.o, "i": self.i, "k": 1 if "k" in shared else self.taps}
        return {letter: 1 if letter in shared else size for letter, size in sizes.items()}
