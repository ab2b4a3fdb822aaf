"""Axis letters: what binds, what is constant, and what is said where sizes disagree."""

import pytest
import torch

from dynops.axes import bind, divisors
from dynops.errors import DynopsError, ShapeError


def test_letters_are_bound_to_sizes_beside_those_known() -> None:
    known = {"b": 2, "k": 9}
    bound = bind("x", torch.zeros(2, 3, 4), "b c h", known)
    assert bound == {"b": 2, "k": 9, "c": 3, "h": 4}
    assert known == {"b": 2, "k": 9}


def test_axis_of_size_1_fits_any_size_only_where_that_is_said() -> None:
    x = torch.zeros(1, 3)
    assert bind("x", x, "b c", {"b": 5}, ones=True) == {"b": 5, "c": 3}
    assert bind("x", x, "b c", ones=True) == {"c": 3}
    with pytest.raises(ShapeError, match=r"^x has b=1 in `b c`: must be 5\.$"):
        bind("x", x, "b c", {"b": 5})


def test_letter_that_stands_twice_must_have_one_size() -> None:
    assert bind("x", torch.zeros(4, 4), "h h") == {"h": 4}
    with pytest.raises(ShapeError, match=r"^x has h=5 in `h h`: must be 4\.$"):
        bind("x", torch.zeros(4, 5), "h h")


@pytest.mark.parametrize(
    ("shape", "ones", "message"),
    [
        ((2, 3), False, r"^x has shape \(2, 3\) with 2 axes: must have 3, `b c h`\.$"),
        ((), False, r"^x has shape \(\) with 0 axes: must have 3, `b c h`\.$"),
        ((2, 3, 4), False, r"^x has c=3 in `b c h`: must be 8\.$"),
        ((2, 3, 4), True, r"^x has c=3 in `b c h`: must be 8, or 1 to be constant along c\.$"),
    ],
)
def test_shape_that_does_not_fit_is_refused(shape: tuple[int, ...], ones: bool, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        bind("x", torch.zeros(shape), "b c h", {"c": 8}, ones=ones)


def test_shape_error_is_caught_as_ours_and_as_a_value_error() -> None:
    with pytest.raises(DynopsError, match="must have 1"):
        bind("x", torch.zeros(()), "b")
    with pytest.raises(ValueError, match="must have 1"):
        bind("x", torch.zeros(()), "b")


@pytest.mark.parametrize(("number", "text"), [(1, "1"), (7, "1, 7"), (16, "1, 2, 4, 8, 16")])
def test_divisors_are_listed_in_order(number: int, text: str) -> None:
    assert divisors(number) == text
