"""What local_sum says about tensors that do not fit."""

import pytest
import torch

from dynops.errors import ShapeError, SpecError
from dynops.ops import Window, local_sum

VALUE = (2, 3, 1, 4, 6, 8)  # b g i s h w


@pytest.mark.parametrize(
    ("kernel", "value", "message"),
    [
        (
            (2, 3, 1, 1, 9, 6, 8),
            (2, 12, 6, 8),
            r"^value has shape \(2, 12, 6, 8\) with 4 axes: must have 6, `b g i s h w`\.$",
        ),
        ((2, 3, 9, 6, 8), VALUE, r"^kernel has shape \(2, 3, 9, 6, 8\) with 5 axes: must have 7, `b g o i k h w`\.$"),
        ((3, 3, 1, 1, 9, 6, 8), VALUE, r"^kernel has b=3 in `b g o i k h w`: must be 2, or 1 to be constant along b"),
        ((2, 4, 1, 1, 9, 6, 8), VALUE, r"^kernel has g=4 in `b g o i k h w`: must be 3, or 1 to be constant along g"),
        ((2, 3, 1, 2, 9, 6, 8), VALUE, r"^kernel has i=2 in `b g o i k h w`: must be 1, or 1 to be constant along i"),
        ((2, 3, 1, 1, 25, 6, 8), VALUE, r"^kernel has k=25 in `b g o i k h w`: must be 9, or 1"),
        ((2, 3, 1, 1, 9, 5, 8), VALUE, r"^kernel has h=5 in `b g o i k h w`: must be 6, or 1"),
        ((2, 3, 1, 1, 9, 6, 4), VALUE, r"^kernel has w=4 in `b g o i k h w`: must be 8, or 1"),
    ],
)
def test_axis_that_does_not_fit_is_named(kernel: tuple[int, ...], value: tuple[int, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        local_sum(torch.zeros(kernel), torch.zeros(value), Window(3))


def test_kernel_stands_on_the_grid_of_the_output() -> None:
    with pytest.raises(ShapeError, match=r"^kernel has h=6 in `b g o i k h w`: must be 3, or 1"):
        local_sum(torch.zeros(2, 3, 1, 1, 9, 6, 8), torch.zeros(VALUE), Window(3, stride=2))


def test_unknown_backend_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        SpecError,
        match=r"^backend has 'cuda': must be one of 'native', 'triton', 'convolution', 'products', 'shift', "
        r"'reference'\.$",
    ):
        local_sum(torch.zeros(2, 3, 1, 1, 9, 6, 8), torch.zeros(VALUE), Window(3), backend="cuda")
