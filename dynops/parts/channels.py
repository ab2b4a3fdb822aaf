"""How a kernel is spread over channels: an einops pattern in the letters g, o, i and s."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from einops import rearrange
from torch import Tensor

from dynops.axes import divisors
from dynops.errors import ShapeError, SpecError
from dynops.specs import Spec, at_least, spec

_SIDE = re.compile(r"[gois]|\(\s*[gois](\s+[gois])*\s*\)")


@spec
class Channels(Spec):
    """How a kernel is spread over channels, as an einops pattern.

    `(g s)` contiguous groups, `(s g)` interleaved groups, `s` one kernel for all channels, `g` one for each channel,
    `i -> o` dense, `(g i) -> (g o)` dense in groups, `s -> (o s)` several kernels for each channel. One size is given
    for `(g s)`: `s=16` lets 16 channels share a kernel at any width, `g=8` makes 8 groups.
    """

    pattern: str = field(kw_only=False)
    """The channel axis of the value, ` -> ` that of the sum; the second half is left out where they are equal."""
    g: int | None = None
    """Number of kernels, in each of which the other letters live."""
    s: int | None = None
    """Number of channels that share a kernel."""
    o: int | None = None
    """Outputs of each group; by default as many as make the output as wide as the input."""

    def __post_init__(self) -> None:
        sides = [side.strip() for side in self.pattern.split("->")]
        if len(sides) > 2 or not all(_SIDE.fullmatch(side) for side in sides):
            raise SpecError(f"pattern has {self.pattern!r}: must be like '(g s)', '(s g)', 'g', 's' or 'i -> o'.")
        left, right = _letters(sides[0]), _letters(sides[-1])
        if len(set(left)) < len(left) or len(set(right)) < len(right):
            raise SpecError(f"pattern has {self.pattern!r}: a letter stands once on each side.")
        if "o" in left or "i" in right or (set(left) ^ set(right)) & {"g", "s"}:
            raise SpecError(
                f"pattern has {self.pattern!r}: g and s stand on both sides, i (summed) on the left, o on the right."
            )
        for letter in "gso":
            given = getattr(self, letter)
            if given is not None:
                at_least(letter, given, 1)
                if letter not in left + right:
                    raise SpecError(f"{letter} has {given}: pattern {self.pattern!r} has no such letter.")

    def resolve(self, channels: int, out_channels: int | None = None) -> "Split":
        """Find the sizes of the letters at a width.

        Raises:
            ShapeError: the width does not divide; the message names the widths or sizes that do.
        """
        at_least("channels", channels, 1)
        left, right = self._sides()
        sizes = {letter: given for letter in "gs" if (given := getattr(self, letter)) is not None}
        unknown = [letter for letter in _letters(left) if letter not in sizes]
        known = 1
        for size in sizes.values():
            known *= size
        if channels % known or (not unknown and channels != known):
            rule = "channels must be their product" if not unknown else "channels must be a multiple"
            raise ShapeError(
                f"x has c={channels} channels, channels {self.pattern!r} has {_text(sizes)}: {rule}. "
                f"Divisors of {channels}: {divisors(channels)}."
            )
        if len(unknown) > 1:
            raise ShapeError(
                f"channels {self.pattern!r} has {_text(sizes) or 'no sizes'}: all letters on the left but one need a "
                f"size. Give one of {', '.join(unknown)}."
            )
        sizes |= dict.fromkeys(unknown, channels // known)
        letters = {letter: sizes.get(letter, 1) for letter in "gis"}
        return Split(left=left, right=right, o=self._fan_out(letters, out_channels), **letters)

    def _fan_out(self, letters: Mapping[str, int], out_channels: int | None) -> int:
        kept = letters["g"] * letters["s"]
        wanted = letters["i"] if "o" in self._sides()[1] else 1
        if self.o is not None:
            wanted = self.o
        if out_channels is None:
            out_channels = kept * wanted
        if "o" in self._sides()[1] and self.o is None and out_channels % kept == 0:
            wanted = out_channels // kept
        if out_channels != kept * wanted:
            way_out = f"a multiple of {kept}" if "o" in self._sides()[1] and self.o is None else str(kept * wanted)
            raise ShapeError(
                f"out_channels has {out_channels}, channels {self.pattern!r} has {kept * wanted} outputs: must be "
                f"{way_out}. Give the operator out=Project() for any other width."
            )
        return wanted

    def _sides(self) -> tuple[str, str]:
        sides = [side.strip() for side in self.pattern.split("->")]
        return sides[0], sides[-1]


@dataclass(frozen=True, kw_only=True)
class Split:
    """The channel letters with their sizes at one width."""

    left: str
    """The value's channel axis, as einops writes it."""
    right: str
    """The sum's channel axis."""
    g: int
    o: int
    i: int
    s: int

    @property
    def channels(self) -> int:
        """Channels of the value."""
        return self.g * self.i * self.s

    @property
    def out_channels(self) -> int:
        """Channels of the sum."""
        return self.g * self.o * self.s

    def split(self, x: Tensor) -> Tensor:
        """Split channels, `b c h w -> b g i s h w`, on any grid."""
        sizes = {letter: getattr(self, letter) for letter in _letters(self.left)}
        return rearrange(x, f"b {self.left} ... -> b {_present(self.left, 'gis')} ...", **sizes)

    def merge(self, y: Tensor) -> Tensor:
        """Merge channels, `b g o s h w -> b c h w`, on any grid."""
        return rearrange(y, f"b {_present(self.right, 'gos')} ... -> b {self.right} ...")


def _letters(side: str) -> list[str]:
    return [letter for letter in side if letter in "gois"]


def _present(side: str, letters: str) -> str:
    return " ".join(letter if letter in side else "1" for letter in letters)


def _text(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{letter}={size}" for letter, size in sizes.items())
