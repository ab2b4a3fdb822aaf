"""Channel patterns: which channel each letter means, and what a pattern or a width may not be."""

from collections.abc import Callable
from itertools import product

import pytest
import torch

from dynops.errors import ShapeError, SpecError
from dynops.ops import Window
from dynops.parts import Channels, Operator, Static

Index = Callable[[int, int, int], int]

# pattern, sizes of g o i s at 12 channels, input channel of (g, i, s), output channel of (g, o, s)
LAYOUTS: dict[str, tuple[Channels, tuple[int, int, int, int], Index, Index]] = {
    "contiguous": (Channels("(g s)", s=4), (3, 1, 1, 4), lambda g, i, s: g * 4 + s, lambda g, o, s: g * 4 + s),
    "contiguous by groups": (
        Channels("(g s)", g=2),
        (2, 1, 1, 6),
        lambda g, i, s: g * 6 + s,
        lambda g, o, s: g * 6 + s,
    ),
    "interleaved": (Channels("(s g)", g=3), (3, 1, 1, 4), lambda g, i, s: s * 3 + g, lambda g, o, s: s * 3 + g),
    "own": (Channels("g"), (12, 1, 1, 1), lambda g, i, s: g, lambda g, o, s: g),
    "shared": (Channels("s"), (1, 1, 1, 12), lambda g, i, s: s, lambda g, o, s: s),
    "dense": (Channels("i -> o"), (1, 12, 12, 1), lambda g, i, s: i, lambda g, o, s: o),
    "dense, narrower": (Channels("i -> o", o=5), (1, 5, 12, 1), lambda g, i, s: i, lambda g, o, s: o),
    "dense groups": (
        Channels("(g i) -> (g o)", g=3),
        (3, 4, 4, 1),
        lambda g, i, s: g * 4 + i,
        lambda g, o, s: g * 4 + o,
    ),
    "queries": (Channels("s -> (o s)", o=2), (1, 2, 1, 12), lambda g, i, s: s, lambda g, o, s: o * 12 + s),
    "grouped queries": (
        Channels("(g s) -> (g o s)", g=3, o=2),
        (3, 2, 1, 4),
        lambda g, i, s: g * 4 + s,
        lambda g, o, s: (g * 2 + o) * 4 + s,
    ),
    "another order": (
        Channels("(i s g) -> (g s o)", g=2, s=3, o=4),
        (2, 4, 2, 3),
        lambda g, i, s: (i * 3 + s) * 2 + g,
        lambda g, o, s: (g * 3 + s) * 4 + o,
    ),
    "summed groups": (Channels("(g i) -> g", g=3), (3, 1, 4, 1), lambda g, i, s: g * 4 + i, lambda g, o, s: g),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_letters_mean_the_channels_that_the_pattern_says(name: str) -> None:
    pattern, (g, o, i, s), of_input, of_output = LAYOUTS[name]
    split = pattern.resolve(12)
    assert (split.g, split.o, split.i, split.s) == (g, o, i, s)
    assert (split.channels, split.out_channels) == (12, g * o * s)

    layer = Operator(kernel=Static(), channels=pattern, window=Window(1)).build(12).double()
    x = torch.randn(2, 12, 3, 2, dtype=torch.float64)
    expected = torch.zeros(2, g * o * s, 3, 2, dtype=torch.float64)
    weight = layer.kernel.weight.detach()
    for gg, oo, ii, ss in product(range(g), range(o), range(i), range(s)):
        expected[:, of_output(gg, oo, ss)] += weight[gg, oo, ii, 0] * x[:, of_input(gg, ii, ss)]
    torch.testing.assert_close(layer(x), expected)


def test_splitting_and_merging_give_the_input_back() -> None:
    x = torch.randn(2, 12, 3, 4)
    for pattern in (Channels("(g s)", s=4), Channels("(s g)", g=3), Channels("g"), Channels("s")):
        split = pattern.resolve(12)
        assert torch.equal(split.merge(split.split(x)), x)


@pytest.mark.parametrize(
    ("pattern", "out_channels", "fan_out"),
    [
        (Channels("i -> o"), None, 12),
        (Channels("i -> o"), 7, 7),
        (Channels("(g i) -> (g o)", g=3), 6, 2),
        (Channels("s -> (o s)"), 36, 3),
        (Channels("g -> (g o)"), 24, 2),
        (Channels("g"), 12, 1),
        (Channels("s -> (o s)", o=4), 48, 4),
    ],
)
def test_fan_out_follows_from_the_output_width(pattern: Channels, out_channels: int | None, fan_out: int) -> None:
    split = pattern.resolve(12, out_channels)
    assert split.o == fan_out
    assert split.out_channels == (12 if out_channels is None else out_channels)


SIDES = r"g and s stand on both sides, i \(summed\) on the left, o on the right\.$"
SHAPE = r"must be like '\(g s\)', '\(s g\)', 'g', 's' or 'i -> o'\.$"


@pytest.mark.parametrize(
    ("pattern", "sizes", "message"),
    [
        ("(g c)", {}, r"^pattern has '\(g c\)': " + SHAPE),
        ("g s", {}, r"^pattern has 'g s': " + SHAPE),
        ("", {}, r"^pattern has '': " + SHAPE),
        ("(g s", {}, r"^pattern has '\(g s': " + SHAPE),
        ("i -> o -> s", {}, r"^pattern has 'i -> o -> s': " + SHAPE),
        ("(g g)", {}, r"^pattern has '\(g g\)': a letter stands once on each side\.$"),
        ("o -> o", {}, r"^pattern has 'o -> o': " + SIDES),
        ("i", {}, r"^pattern has 'i': " + SIDES),
        ("i -> i", {}, r"^pattern has 'i -> i': " + SIDES),
        ("(g s) -> g", {"g": 2}, r"^pattern has '\(g s\) -> g': " + SIDES),
        ("g", {"s": 2}, r"^s has 2: pattern 'g' has no such letter\.$"),
        ("(g s)", {"o": 2}, r"^o has 2: pattern '\(g s\)' has no such letter\.$"),
        ("(g s)", {"g": 0}, r"^g has 0: must be an integer of at least 1\.$"),
        ("(g s)", {"s": 2.0}, r"^s has 2\.0: must be an integer of at least 1\.$"),
    ],
)
def test_pattern_that_means_nothing_is_refused(pattern: str, sizes: dict[str, int], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Channels(pattern, **sizes)


@pytest.mark.parametrize(
    ("pattern", "widths", "message"),
    [
        (
            Channels("(g s)", s=16),
            (24, None),
            r"^x has c=24 channels, channels '\(g s\)' has s=16: channels must be a multiple\. "
            r"Divisors of 24: 1, 2, 3, 4, 6, 8, 12, 24\.$",
        ),
        (
            Channels("(g s)", g=2, s=4),
            (16, None),
            r"^x has c=16 channels, channels '\(g s\)' has g=2, s=4: channels must be their product\. Divisors of 16",
        ),
        (
            Channels("(g s)"),
            (16, None),
            r"^channels '\(g s\)' has no sizes: all letters on the left but one need a size\. Give one of g, s\.$",
        ),
        (
            Channels("(g i s) -> (g o s)", g=2),
            (16, None),
            r"^channels '\(g i s\) -> \(g o s\)' has g=2: all letters on the left but one .* Give one of i, s\.$",
        ),
        (
            Channels("(g s)", s=4),
            (16, 32),
            r"^out_channels has 32, channels '\(g s\)' has 16 outputs: must be 16\. "
            r"Give the operator out=Project\(\) for any other width\.$",
        ),
        (
            Channels("(g i) -> (g o)", g=4),
            (16, 30),
            r"^out_channels has 30, channels .* has 16 outputs: must be a multiple of 4\. .*out=Project\(\)",
        ),
        (Channels("i -> o", o=5), (16, 6), r"^out_channels has 6, channels 'i -> o' has 5 outputs: must be 5\. "),
    ],
)
def test_width_that_does_not_divide_is_refused_with_a_way_out(
    pattern: Channels, widths: tuple[int, int | None], message: str
) -> None:
    with pytest.raises(ShapeError, match=message):
        pattern.resolve(*widths)


def test_width_must_be_a_positive_number() -> None:
    with pytest.raises(SpecError, match=r"^channels has 0: must be an integer of at least 1\.$"):
        Channels("g").resolve(0)
