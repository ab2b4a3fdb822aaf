"""The window of a local operator: which input pixels an output pixel sums over."""

from dataclasses import field

from dynops.errors import SpecError
from dynops.specs import Spec, at_least, one_of, spec

Pair = tuple[int, int]


@spec
class Window(Spec):
    """Where an operator looks: `size` taps in each direction around every `stride`-th pixel.

    Pixels outside the input count as zero. An input of h rows gives ceil(h / stride) rows, whatever the size.
    """

    size: int | Pair = field(kw_only=False)
    """Taps in each direction, or (rows, columns)."""
    stride: int | Pair = 1
    """Pixels from one output's window to the next."""
    dilation: int | Pair = 1
    """Pixels from one tap to the next."""
    padding: str = "centre"
    """`centre`: the window of output p is centred on pixel stride * p, as PyTorch's `(size - 1) / 2` does, for odd
    sizes only; `same`: the least padding that gives the output its size, the odd one behind, as TensorFlow does."""

    def __post_init__(self) -> None:
        for name in ("size", "stride", "dilation"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != 2:
                raise SpecError(f"{name} has {value!r}: must be an integer or a pair (rows, columns).")
            for each in value if isinstance(value, tuple) else (value,):
                at_least(name, each, 1)
        one_of("padding", self.padding, ("centre", "same"))
        if self.padding == "centre" and any(size % 2 == 0 for size in self.sizes):
            even = next(size for size in self.sizes if size % 2 == 0)
            near = f"{even - 1} or {even + 1}"
            raise SpecError(f"size has {self.size}: an even window has no centre. Use size {near}, or padding='same'.")

    @property
    def sizes(self) -> Pair:
        """Taps in rows and columns."""
        return _pair(self.size)

    @property
    def strides(self) -> Pair:
        """Strides in rows and columns."""
        return _pair(self.stride)

    @property
    def dilations(self) -> Pair:
        """Dilations in rows and columns."""
        return _pair(self.dilation)

    @property
    def taps(self) -> int:
        """Number of taps, k; tap k is (k // columns, k % columns)."""
        rows, columns = self.sizes
        return rows * columns

    def output_size(self, size: Pair) -> Pair:
        """Return (rows, columns) of the output for those of the input."""
        return (-(-size[0] // self.strides[0]), -(-size[1] // self.strides[1]))

    def margins(self, size: Pair) -> tuple[Pair, Pair]:
        """Return how many zero rows stand before and behind an input of this size, and how many columns."""
        return (self._margin(size, 0), self._margin(size, 1))

    def _margin(self, size: Pair, axis: int) -> Pair:
        reach = self.dilations[axis] * (self.sizes[axis] - 1)
        needed = (self.output_size(size)[axis] - 1) * self.strides[axis] + reach + 1 - size[axis]
        before = reach // 2 if self.padding == "centre" else max(needed, 0) // 2
        return (before, max(needed - before, 0))


def _pair(value: int | Pair) -> Pair:
    return value if isinstance(value, tuple) else (value, value)
