"""Windows: where the taps of an output lie, and what a window may not be."""

from itertools import product

import pytest

from dynops.errors import SpecError
from dynops.ops import Window
from dynops.specs import Spec


@pytest.mark.parametrize(("stride", "rows"), [(1, 7), (2, 4), (3, 3), (4, 2), (7, 1), (9, 1)])
def test_output_has_one_row_for_every_started_stride(stride: int, rows: int) -> None:
    assert Window(3, stride=stride).output_size((7, 7)) == (rows, rows)
    assert Window(2, stride=stride, padding="same").output_size((7, 7)) == (rows, rows)


def test_rows_and_columns_have_sizes_strides_and_dilations_of_their_own() -> None:
    window = Window((3, 5), stride=(1, 2), dilation=(4, 1))
    assert (window.sizes, window.strides, window.dilations) == ((3, 5), (1, 2), (4, 1))
    assert window.taps == 15
    assert window.output_size((9, 10)) == (9, 5)
    assert window.margins((9, 10)) == ((4, 4), (2, 1))


@pytest.mark.parametrize(("size", "stride", "dilation"), list(product((1, 3, 5), (1, 2, 3), (1, 2))))
def test_centred_window_starts_half_its_reach_before_its_pixel(size: int, stride: int, dilation: int) -> None:
    window = Window(size, stride=stride, dilation=dilation)
    for length in range(1, 12):
        (before, behind), _ = window.margins((length, length))
        last_centre = range(0, length, stride)[-1]
        half = dilation * (size - 1) // 2
        assert before == half
        assert behind == max(last_centre + half - (length - 1), 0)


@pytest.mark.parametrize(
    ("length", "size", "stride", "dilation", "margin"),
    # the last margins are those that TensorFlow's rule for 'SAME' gives, counted by hand
    [
        (8, 3, 1, 1, (1, 1)),
        (8, 3, 2, 1, (0, 1)),
        (7, 3, 2, 1, (1, 1)),
        (8, 2, 1, 1, (0, 1)),
        (8, 4, 1, 1, (1, 2)),
        (8, 5, 2, 1, (1, 2)),
        (9, 3, 3, 1, (0, 0)),
        (8, 3, 1, 2, (2, 2)),
        (8, 1, 2, 1, (0, 0)),
        (5, 2, 4, 1, (0, 1)),
    ],
)
def test_same_padding_is_the_least_and_puts_the_odd_pixel_behind(
    length: int, size: int, stride: int, dilation: int, margin: tuple[int, int]
) -> None:
    window = Window(size, stride=stride, dilation=dilation, padding="same")
    assert window.margins((length, length)) == (margin, margin)


@pytest.mark.parametrize("window", [Window(3), Window((1, 5), stride=2), Window(2, padding="same", dilation=(1, 3))])
def test_window_goes_through_json_and_prints_as_its_python(window: Window) -> None:
    assert Spec.from_json(window.to_json()) == window
    assert eval(repr(window), {"Window": Window}) == window


@pytest.mark.parametrize(
    ("size", "fields", "message"),
    [
        (4, {}, r"^size has 4: an even window has no centre\. Use size 3 or 5, or padding='same'\.$"),
        ((2, 5), {}, r"^size has \(2, 5\): an even window has no centre\. Use size 1 or 3, or padding='same'\.$"),
        (0, {}, r"^size has 0: must be an integer of at least 1\.$"),
        (-3, {}, r"^size has -3: must be an integer of at least 1\.$"),
        (3.0, {}, r"^size has 3\.0: must be an integer of at least 1\.$"),
        (True, {}, r"^size has True: must be an integer of at least 1\.$"),
        ((3, 0), {}, r"^size has 0: must be an integer of at least 1\.$"),
        ((3, 3, 3), {}, r"^size has \(3, 3, 3\), dims has 2: must be an integer or hold one for each dimension\.$"),
        (3, {"stride": 0}, r"^stride has 0: must be an integer of at least 1\.$"),
        (3, {"stride": (2,)}, r"^stride has \(2,\), dims has 2: must be an integer or hold one for each dimension\.$"),
        (3, {"dilation": 0}, r"^dilation has 0: must be an integer of at least 1\.$"),
        (3, {"padding": "valid"}, r"^padding has 'valid': must be one of 'centre', 'same', 'causal'\.$"),
    ],
)
def test_window_says_which_field_is_wrong(size: object, fields: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Window(size, **fields)
