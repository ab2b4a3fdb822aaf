"""Borders and grids of 1, 2 and 3 dimensions, against torch's convolutions and against loops."""

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from dynops.errors import ShapeError, SpecError
from dynops.ops import Window, gather, local_sum

Near = Callable[[Tensor, Tensor], None]
Takers = Callable[..., list[str]]
CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
SIZE = (7, 8, 9)


def case(window: Window, size: tuple[int, ...], constant: bool = False) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    grid = (1,) * window.dims if constant else window.output_size(size)
    kernel = torch.randn(1 if constant else 2, 2, 2, 3, window.taps, *grid, generator=generator, dtype=torch.float64)
    value = torch.randn(2, 2, 3, 2, *size, generator=generator, dtype=torch.float64)
    return kernel.requires_grad_(), value.requires_grad_()


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), (3, 2)])
def test_static_kernel_is_the_convolution_of_torch(
    stride: int, dilation: int, mode: str, dims: int, takers: Takers, assert_near: Near
) -> None:
    window = Window(3, stride=stride, dilation=dilation, border=mode, dims=dims)
    kernel, value = case(window, SIZE[:dims], constant=True)
    theirs = CONVOLUTIONS[dims](
        6, 4, 3, stride, padding=dilation, dilation=dilation, groups=2, bias=False, padding_mode=mode
    ).double()
    theirs.weight.data = kernel.detach().reshape(theirs.weight.shape)
    by_share = [theirs(value[:, :, :, s].flatten(1, 2)).unflatten(1, (2, 2)) for s in range(2)]
    expected = torch.stack(by_share, dim=3)
    weight = torch.randn_like(expected)
    others = torch.autograd.grad(expected, (theirs.weight, value), weight)
    for backend in takers(kernel, value, window):
        found = local_sum(kernel, value, window, backend=backend)
        assert_near(found, expected.detach())
        mine = torch.autograd.grad(found, (kernel, value), weight)
        assert_near(mine[0].reshape(others[0].shape), others[0])
        assert_near(mine[1], others[1])


@pytest.mark.parametrize("border", ["zeros", "mask", "reflect", "replicate", "circular", "shift"])
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_backends_are_equal_on_every_grid(
    stride: int, dilation: int, dims: int, border: str, takers: Takers, assert_near: Near
) -> None:
    window = Window(3, stride=stride, dilation=dilation, border=border, dims=dims)
    for constant in (False, True):
        kernel, value = case(window, SIZE[:dims], constant)
        expected = local_sum(kernel, value, window, backend="reference")
        weight = torch.randn_like(expected)
        exact = torch.autograd.grad(expected, (kernel, value), weight)
        for backend in takers(kernel, value, window):
            y = local_sum(kernel, value, window, backend=backend)
            assert_near(y, expected)
            for found, each in zip(torch.autograd.grad(y, (kernel, value), weight), exact, strict=True):
                assert_near(found, each)


def neighbours(pixel: int, size: int, dilation: int, length: int) -> list[int]:
    """The `size` nearest pixels at multiples of the dilation from a pixel, moved inside: found by trying all."""
    same = [each for each in range(length) if each % dilation == pixel % dilation]
    runs = [same[first : first + size] for first in range(len(same) - size + 1)]
    return min(runs, key=lambda run: abs(run[size // 2] - pixel))


@pytest.mark.parametrize(("size", "dilation", "stride"), [(3, 1, 1), (5, 1, 1), (3, 2, 1), (3, 3, 1), (5, 1, 2)])
def test_shifted_window_holds_the_nearest_pixels_inside(size: int, dilation: int, stride: int) -> None:
    window = Window(size, stride=stride, dilation=dilation, border="shift", dims=1)
    for length in range(size * dilation, size * dilation + 6):
        (table,) = window.positions((length,))
        assert table.tolist() == [neighbours(pixel, size, dilation, length) for pixel in range(0, length, stride)]


def test_shifted_window_of_a_corner_is_the_corner() -> None:
    value = torch.arange(25.0).view(5, 5)
    found = gather(value, Window(3, border="shift"))
    assert found[:, 0, 0].tolist() == found[:, 1, 1].tolist() == [0, 1, 2, 5, 6, 7, 10, 11, 12]
    assert found[:, 4, 4].tolist() == [12, 13, 14, 17, 18, 19, 22, 23, 24]


@pytest.mark.parametrize("border", ["zeros", "mask"])
def test_gather_gives_zero_where_a_tap_sees_no_pixel(border: str) -> None:
    window = Window((3, 5), stride=(1, 2), dilation=(2, 1), border=border)
    value = torch.randn(2, 6, 7)
    found, inside = gather(value, window), window.inside((6, 7))
    assert found.shape == (2, 15, 6, 4)
    for tap, row, column in product(range(15), range(6), range(4)):
        r, c = row + 2 * (tap // 5 - 1), 2 * column + tap % 5 - 2
        seen = 0 <= r < 6 and 0 <= c < 7
        assert inside[tap, row, column] == seen
        assert found[:, tap, row, column].tolist() == (value[:, r, c].tolist() if seen else [0, 0])


@pytest.mark.parametrize("border", ["reflect", "replicate", "circular", "shift"])
def test_other_borders_see_a_pixel_at_every_tap(border: str) -> None:
    assert Window(5, border=border, dims=3).inside((5, 6, 7)).all()


def test_input_that_is_too_small_for_its_border_is_refused() -> None:
    value, kernel = torch.zeros(1, 1, 1, 1, 3, 9), torch.zeros(1, 1, 1, 1, 49, 1, 1)
    with pytest.raises(ShapeError, match=r"^value has 3 pixels in dimension 0, window reaches 3 beyond them: border"):
        local_sum(kernel, value, Window(7, border="reflect"))
    with pytest.raises(ShapeError, match=r"^value has 3 pixels in dimension 0, window needs 7: border 'shift' keeps"):
        local_sum(kernel, value, Window(7, border="shift"))
    kernel = torch.zeros(1, 1, 1, 1, 49, 1, 1)
    assert local_sum(kernel, value, Window(7, border="mask")).shape == value.shape


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dims": 4}, r"^dims has 4: must be one of 1, 2, 3\.$"),
        ({"border": "wrap"}, r"^border has 'wrap': must be one of 'zeros', 'mask', 'reflect', 'replicate', 'circular'"),
        ({"padding": "same", "border": "shift"}, r"^padding has 'same', border has 'shift': a window that moves"),
        ({"stride": (1, 2), "dims": 3}, r"^stride has \(1, 2\), dims has 3: must be an integer or hold one for each"),
    ],
)
def test_window_says_which_field_does_not_fit(fields: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Window(3, **fields)
