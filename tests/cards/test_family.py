"""The table of the family says what `describe` says, at any width, for the terminal and in Markdown."""

import io
import re

import pytest
from rich.console import Console

from dynops import Dynamic, Operator, Static, cards, zoo
from dynops.cards.family import make
from dynops.errors import SpecError
from dynops.parts import Pointwise, Series

NAMES = [member.__name__ for member in zoo.FAMILY]


def printed(rows: list[cards.Row]) -> str:
    out = io.StringIO()
    Console(file=out, width=200).print(cards.table(rows))
    return out.getvalue()


@pytest.fixture(scope="module")
def rows() -> list[cards.Row]:
    return cards.family(96, (14, 12))


def test_every_operator_has_a_row_under_its_module(rows: list[cards.Row]) -> None:
    whole = [row for row in rows if ": " not in row.name]
    assert [row.name for row in whole] == NAMES
    assert [row.group for row in whole] == [member.__module__.split(".")[-1] for member in zoo.FAMILY]


@pytest.mark.parametrize("member", zoo.FAMILY, ids=NAMES)
def test_row_is_what_describe_says(member: type, rows: list[cards.Row]) -> None:
    layer = make(member, 96, (14, 12))
    described = layer.describe(96, (14, 12)[: layer.dims])
    row = next(row for row in rows if row.name == member.__name__)
    assert (row.signature, row.parameters, row.macs) == (described.signature, described.parameters, described.macs)
    assert not row.reason


def test_parts_are_told_in_a_few_words(rows: list[cards.Row]) -> None:
    parts = {row.name: (row.channels, row.window, row.normalisation) for row in rows}
    assert parts["involution"] == ("(g s), g=6 s=16", "7x7", "-")
    assert parts["lightweight_conv"] == ("(g s), g=16 s=6", "7 causal", "softmax")
    assert parts["neighbourhood_attention"] == ("(g s), g=4 s=24", "7x7 shift", "softmax")
    assert parts["halo_attention"][1] == "block 8 + 3"
    assert parts["lambda_layer"] == ("s -> (o s), s=24 o=4", "global", "softmax (keys)")
    assert parts["carafe"][1] == "5x5, writes 2x2 x2"
    assert parts["deformable_conv"][1] == "3x3, offsets"
    assert parts["drconv"][2] == "one_hot (router)"
    assert parts["decoupled_dynamic_filter"][2] == "filter_norm"


def test_a_width_that_does_not_divide_has_its_reason() -> None:
    (row,) = cards.family(50, (9, 9), [zoo.involution])
    assert (row.parameters, row.macs, row.channels) == (None, None, "(g s), s=16")
    assert row.reason == (
        "x has c=50 channels, channels '(g s)' has s=16: channels must be a multiple. "
        "Divisors of 50: 1, 2, 5, 10, 25, 50."
    )


def test_a_grid_that_is_too_small_has_its_reason() -> None:
    (row,) = cards.family(64, (5, 9), [zoo.neighbourhood_attention])
    assert row.reason.startswith("value has 5 pixels in dimension 0, window needs 7")


@pytest.mark.parametrize(("channels", "size"), [(1, 1), (7, 3), (16, 2), (17, 30)])
def test_the_table_is_made_at_any_width_and_size(channels: int, size: int) -> None:
    rows = cards.family(channels, (size, size))
    assert {row.name for row in rows} >= set(NAMES)
    assert all((row.parameters is None) == bool(row.reason) for row in rows)


def test_equal_reasons_are_told_once() -> None:
    text = cards.markdown(cards.family(50, (9, 9), [zoo.involution, zoo.conv2d, zoo.shared_depthwise]))
    assert re.findall(r"^\[\d\].*: x has", text, re.MULTILINE) == ["[1] involution, shared_depthwise: x has"]
    assert text.count("| [1] | [1] |") == 2


def test_markdown_has_a_line_for_each_row_and_module(rows: list[cards.Row]) -> None:
    head, rule, *lines = cards.markdown(rows).splitlines()
    assert head == "| name | signature | channels | window | normalisation | parameters | MACs |"
    assert rule == "|---|---|---|---|---|--:|--:|"
    assert len(lines) == len(rows) + len({row.group for row in rows})
    assert all(line.count("|") == 8 for line in lines)
    assert "| `conv2d` | `{}` | `i -> o, i=96 o=96` | `3x3` | - | 82.9 k | 13.9 M |" in lines


def test_terminal_has_the_same_cells_as_markdown(rows: list[cards.Row]) -> None:
    shown = [re.sub(r" +", " ", line).strip() for line in printed(rows).splitlines()]
    for line in cards.markdown(rows).splitlines()[2:]:
        cells = " ".join(cell for cell in re.split(r"\||`|\*\*", line) if cell.strip())
        assert re.sub(r" +", " ", cells).strip() in shown


def test_layers_combined_have_a_row_for_each_operator() -> None:
    def block() -> Series:
        return Series(layers=(zoo.depthwise(stride=2), Pointwise(), zoo.involution(3)))

    whole, first, second = cards.family(32, (8, 8), [block])
    assert [row.name for row in (whole, first, second)] == ["block", "block: layers.0", "block: layers.2"]
    assert (whole.window, first.window, second.window) == ("-", "3x3 /2", "3x3")
    for row, layer, size in ((first, zoo.depthwise(stride=2), 8), (second, zoo.involution(3), 4)):
        described = layer.describe(32, (size, size))
        assert (row.parameters, row.macs) == (described.parameters, described.macs)
    assert whole.parameters == (first.parameters or 0) + (second.parameters or 0)


def test_a_window_with_sizes_of_its_own_is_told_whole() -> None:
    from_parts = Operator(
        kernel=Static() * Dynamic(context="pixel"),
        channels=zoo.depthwise().channels,
        window=zoo.depthwise().window.__class__((3, 5), stride=(1, 2), dilation=(2, 1), border="replicate"),
    )

    def mine() -> Operator:
        return from_parts

    assert cards.family(8, (9, 9), [mine])[0].window == "3x5 /1x2 d2x1 replicate"


def test_a_width_below_one_is_refused() -> None:
    with pytest.raises(SpecError, match=r"^channels has 0: must be an integer of at least 1\.$"):
        cards.family(0)
    with pytest.raises(SpecError, match=r"^size has 0: must be an integer of at least 1\.$"):
        cards.family(16, (0, 3))
