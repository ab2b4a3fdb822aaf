"""Convolutions against torch's own operators and against loops: outputs, and the gradient of every input and weight."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from math import floor

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynops.ops import Window
from dynops.parts import zoo

Compare = Callable[..., None]
EXACT = {"rtol": 1e-10, "atol": 1e-10}
Weights = dict[str, Tensor]
Sample = Callable[[Tensor, Tensor, Window], Tensor]

WINDOWS = {
    "plain": Window(3),
    "one tap": Window(1, stride=2),
    "strided": Window(3, stride=2),
    "wide": Window(5, stride=3),
    "dilated": Window(3, stride=2, dilation=2),
    "unlike in rows and columns": Window((1, 5), stride=(2, 1), dilation=(3, 1)),
    "even": Window(4, padding="same"),
    "even and strided": Window((2, 4), stride=3, padding="same"),
    "causal": Window(3, stride=2, padding="causal"),
    "masked": Window(3, stride=2, border="mask"),
    "reflected": Window(5, border="reflect"),
    "replicated": Window(5, stride=2, border="replicate"),
    "circular": Window(3, dilation=2, border="circular"),
}
SHIFTED = {
    "shifted": Window(5, border="shift"),
    "shifted and strided": Window(3, stride=2, border="shift"),
}
SIZES = [(6, 7), (7, 8), (5, 5)]


def pair(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value, value)


def margins(window: Window, length: int, axis: int) -> tuple[int, int]:
    """Pixels before and behind, as PyTorch, TensorFlow (SAME) and causal convolutions pad one axis."""
    size, stride, dilation = (pair(each)[axis] for each in (window.size, window.stride, window.dilation))
    reach = dilation * (size - 1)
    if window.padding == "centre":
        return reach // 2, reach // 2
    if window.padding == "causal":
        return reach, 0
    outputs = (length + stride - 1) // stride
    total = max((outputs - 1) * stride + reach + 1 - length, 0)
    return total // 2, total - total // 2


def padded(x: Tensor, window: Window) -> Tensor:
    mode = {"zeros": "constant", "mask": "constant"}.get(window.border, window.border)
    rows, columns = (margins(window, x.shape[2 + axis], axis) for axis in (0, 1))
    return F.pad(x, (*columns, *rows), mode=mode)


def patches(x: Tensor, window: Window) -> Tensor:
    """Each window's pixels by `F.unfold`, `b c k h w`."""
    size, stride, dilation = pair(window.size), pair(window.stride), pair(window.dilation)
    shifts = window.border == "shift"
    image = x if shifts else padded(x, window)
    step = (1, 1) if shifts else stride
    span = [d * (s - 1) + 1 for d, s in zip(dilation, size, strict=True)]
    grid = [(n - reach) // s + 1 for n, reach, s in zip(image.shape[2:], span, step, strict=True)]
    columns = F.unfold(image, size, stride=step, dilation=dilation).unflatten(2, grid)
    if shifts:  # a window at the edge is the nearest one that lies inside
        around = [each // 2 for each in size]
        columns = F.pad(columns, (around[1], around[1], around[0], around[0]), mode="replicate")
        columns = columns[..., :: stride[0], :: stride[1]]
    return columns.unflatten(1, (x.shape[1], -1))


@pytest.mark.oracle("conv_transpose2d")
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("size", [(4, 5), (5, 3), (1, 2)])
def test_transposed_convolution_with_a_centre_is_that_of_torch(
    kernel_size: int, stride: int, size: tuple[int, int], assert_equal_with_gradients: Compare
) -> None:
    def oracle(x: Tensor, weights: Weights) -> Tensor:
        weight = weights["kernel.weight"].view(4, kernel_size, kernel_size, 3).permute(3, 0, 1, 2)  # i o k k
        return F.conv_transpose2d(x, weight, stride=stride, padding=kernel_size // 2, output_padding=stride - 1)

    layer = zoo.conv_transpose2d(kernel_size, stride).build(3, 4).double()
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    assert layer(x).shape == (2, 4, size[0] * stride, size[1] * stride)
    assert_equal_with_gradients(layer, oracle, x)


@pytest.mark.oracle("conv_transpose2d")
@pytest.mark.parametrize(("kernel_size", "stride", "padding", "more"), [(2, 2, 0, 0), (4, 2, 1, 0), (2, 3, 0, 1)])
@pytest.mark.parametrize("size", [(4, 5), (5, 3), (1, 2)])
def test_even_transposed_convolution_is_that_of_torch(
    kernel_size: int, stride: int, padding: int, more: int, size: tuple[int, int], assert_equal_with_gradients: Compare
) -> None:
    def oracle(x: Tensor, weights: Weights) -> Tensor:
        weight = weights["kernel.weight"].view(4, kernel_size, kernel_size, 3).permute(3, 0, 1, 2)
        return F.conv_transpose2d(x, weight, stride=stride, padding=padding, output_padding=more)

    layer = zoo.conv_transpose2d(kernel_size, stride).build(3, 4).double()
    assert_equal_with_gradients(layer, oracle, torch.randn(2, 3, *size, dtype=torch.float64))


@pytest.mark.oracle("conv_transpose2d")
@pytest.mark.parametrize(("kernel_size", "stride", "before"), [(2, 1, 0), (4, 1, 1), (6, 3, 1), (6, 1, 2)])
@pytest.mark.parametrize("size", [(4, 5), (5, 3)])
def test_even_transposed_convolution_loses_the_odd_pixel_behind(
    kernel_size: int, stride: int, before: int, size: tuple[int, int], assert_equal_with_gradients: Compare
) -> None:
    def oracle(x: Tensor, weights: Weights) -> Tensor:
        weight = weights["kernel.weight"].view(2, kernel_size, kernel_size, 3).permute(3, 0, 1, 2)
        whole = F.conv_transpose2d(x, weight, stride=stride)
        return whole[..., before : before + size[0] * stride, before : before + size[1] * stride]

    layer = zoo.conv_transpose2d(kernel_size, stride).build(3, 2).double()
    assert_equal_with_gradients(layer, oracle, torch.randn(2, 3, *size, dtype=torch.float64))


@pytest.mark.oracle("conv_transpose2d")
@pytest.mark.parametrize(("finer", "coarser"), [(2, 2), (2, 3), (3, 2), (1, 2)])
@pytest.mark.parametrize("size", [(4, 5), (7, 6)])
def test_transposed_convolution_at_a_stride_writes_from_every_other_pixel(
    finer: int, coarser: int, size: tuple[int, int], assert_equal_with_gradients: Compare
) -> None:
    grid = [-(-length * finer // coarser) for length in size]

    def oracle(x: Tensor, weights: Weights) -> Tensor:
        weight = weights["kernel.weight"].view(4, 5, 5, 3).permute(3, 0, 1, 2)
        kept = x[:, :, ::coarser, ::coarser]
        whole = F.conv_transpose2d(kept, weight, stride=finer, padding=2, output_padding=finer - 1)
        return whole[:, :, : grid[0], : grid[1]]

    layer = zoo.conv_transpose2d(5, finer).strided(coarser).build(3, 4).double()
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    assert list(layer(x).shape[2:]) == grid
    assert_equal_with_gradients(layer, oracle, x)


def test_transposed_convolution_undoes_the_grid_of_a_convolution() -> None:
    # <conv(x), y> = <x, transpose(y)>, with the convolution of torch
    weight = torch.randn(3, 4, 3, 3, dtype=torch.float64)
    layer = zoo.conv_transpose2d(3, 2).build(3, 4).double()
    with torch.no_grad():
        layer.kernel.weight.copy_(weight.permute(1, 2, 3, 0).reshape(layer.kernel.weight.shape))
    x, y = torch.randn(2, 4, 8, 10, dtype=torch.float64), torch.randn(2, 3, 4, 5, dtype=torch.float64)
    there = (F.conv2d(x, weight, stride=2, padding=1) * y).sum()
    torch.testing.assert_close((x * layer(y)).sum(), there, **EXACT)


@pytest.mark.oracle("locally_connected")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", WINDOWS | SHIFTED)
def test_locally_connected_layer_is_a_table_of_positions(
    name: str, size: tuple[int, int], assert_equal_with_gradients: Compare
) -> None:
    window = (WINDOWS | SHIFTED)[name]

    def oracle(x: Tensor, weights: Weights) -> Tensor:
        return torch.einsum("oikhw,bikhw->bohw", weights["kernel.weight"][0], patches(x, window))

    layer = replace(zoo.locally_connected(), window=window).build(3, 4, size=size).double()
    assert_equal_with_gradients(layer, oracle, torch.randn(2, 3, *size, dtype=torch.float64))


@pytest.mark.oracle("locally_connected")
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [(5, 4), (4, 7), (1, 3)])
def test_locally_connected_layer_is_the_sum_of_its_formula(
    stride: int, size: tuple[int, int], assert_equal_with_gradients: Compare
) -> None:
    def oracle(x: Tensor, weights: Weights) -> Tensor:
        rows, columns = range(0, size[0], stride), range(0, size[1], stride)
        y = x.new_zeros(2, 3, len(rows), len(columns))
        for (h, r), (w, c), (k, (down, right)) in product(
            enumerate(rows), enumerate(columns), enumerate(product((-1, 0, 1), repeat=2))
        ):
            if 0 <= r + down < size[0] and 0 <= c + right < size[1]:
                seen = x[:, :, r + down, c + right]
                spot = torch.zeros_like(y[0, 0])
                spot[h, w] = 1
                y = y + spot * (seen @ weights["kernel.weight"][0, :, :, k, h, w].T)[:, :, None, None]
        return y

    layer = zoo.locally_connected(3, stride).build(2, 3, size=size).double()
    assert_equal_with_gradients(layer, oracle, torch.randn(2, 2, *size, dtype=torch.float64))


@pytest.mark.oracle("low_rank_locally_connected")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", WINDOWS | SHIFTED)
def test_locally_connected_layer_of_low_rank_mixes_convolutions_by_position(
    name: str, size: tuple[int, int], assert_equal_with_gradients: Compare
) -> None:
    window = (WINDOWS | SHIFTED)[name]

    def oracle(x: Tensor, weights: Weights) -> Tensor:
        logits = weights["kernel.router.kernel.weight"][0, 0, 0]  # e h w
        shares = logits.exp() / logits.exp().sum(0)
        sums = [
            torch.einsum("oik,bikhw->bohw", weights[f"kernel.experts.{e}.weight"][0], patches(x, window))
            for e in range(3)
        ]
        return sum(share * each for share, each in zip(shares, sums, strict=True))

    layer = replace(zoo.low_rank_locally_connected(experts=3), window=window).build(3, 4, size=size).double()
    assert_equal_with_gradients(layer, oracle, torch.randn(2, 3, *size, dtype=torch.float64))


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_arguments_of_convolutions_are_those_of_their_window(kernel_size: int, stride: int) -> None:
    for operator in (
        zoo.locally_connected(kernel_size, stride),
        zoo.low_rank_locally_connected(kernel_size=kernel_size, stride=stride),
    ):
        assert operator.window == Window(kernel_size, stride=stride)
    for deformable in (zoo.deformable_conv, zoo.modulated_deformable_conv):
        assert deformable(kernel_size, stride, 2).window == Window(kernel_size, stride=stride, dilation=2)


def places(offsets: Tensor, window: Window, size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Row and column of each tap's sample, `b n k h w`, of offsets `b n 2 k h w`."""
    taps, grid = pair(window.size), offsets.shape[4:]
    found = []
    for axis in (0, 1):
        before, _ = margins(window, size[axis], axis)
        outputs = torch.arange(grid[axis], dtype=torch.float64) * pair(window.stride)[axis]
        steps = torch.arange(taps[axis], dtype=torch.float64) * pair(window.dilation)[axis] - before
        table = steps[:, None] + outputs  # k p of this axis
        table = table[:, None, :, None] if axis == 0 else table[None, :, None, :]
        found.append(table.expand(*taps, *grid).flatten(0, 1) + offsets[:, :, axis])
    return found[0], found[1]


def sample_by_grid(x: Tensor, offsets: Tensor, window: Window) -> Tensor:
    """What all taps see, by `F.grid_sample`, `b c k h w`."""
    b, n, size = len(x), offsets.shape[1], tuple(x.shape[2:])
    rows, columns = places(offsets, window, size)
    mode = {"reflect": "reflection", "replicate": "border"}.get(window.border, "zeros")
    if window.border == "reflect":
        for found, length in zip((rows, columns), size, strict=True):
            assert found.abs().max() < 2 * (length - 1), "samples are reflected more than once"
    if window.border == "circular":  # amid eight copies of the image
        x, rows, columns = x.repeat(1, 1, 3, 3), rows + size[0], columns + size[1]
        assert min(rows.min(), columns.min()) >= 0, "samples leave the copies of the image"
        assert max(rows.max() / size[0], columns.max() / size[1]) < 2.8, "samples leave the copies of the image"
    lengths = x.shape[2:]
    grid = torch.stack([2 * columns / (lengths[1] - 1) - 1, 2 * rows / (lengths[0] - 1) - 1], dim=-1)
    grid = grid.flatten(0, 1).flatten(1, 2)  # (b n) (k h) w 2
    seen = F.grid_sample(x.unflatten(1, (n, -1)).flatten(0, 1), grid, padding_mode=mode, align_corners=True)
    return seen.view(b, x.shape[1], *rows.shape[2:])


def sample_by_loops(x: Tensor, offsets: Tensor, window: Window) -> Tensor:
    """What all taps see, pixel by pixel and corner by corner, zeros outside, `b c k h w`."""
    n, size = offsets.shape[1], tuple(x.shape[2:])
    rows, columns = places(offsets, window, size)
    groups = x.unflatten(1, (n, -1))
    seen = []
    for image, group, *tap in product(*(range(each) for each in rows.shape)):
        row, column = rows[image, group, *tap], columns[image, group, *tap]
        top, left = floor(row.item()), floor(column.item())
        value = torch.zeros_like(groups[image, group, :, 0, 0])
        for r, down in ((top, 1 - (row - top)), (top + 1, row - top)):
            for s, right in ((left, 1 - (column - left)), (left + 1, column - left)):
                if 0 <= r < size[0] and 0 <= s < size[1]:
                    value = value + down * right * groups[image, group, :, r, s]
        seen.append(value)
    return torch.stack(seen).unflatten(0, rows.shape).movedim(-1, 2).flatten(1, 2)


def deformed(x: Tensor, weights: Weights, window: Window, groups: int, sample: Sample) -> Tensor:
    """The deformable convolution; modulated where there are weights of masks."""

    def made(name: str) -> Tensor:
        return F.conv2d(
            padded(x, window),
            weights[f"{name}.weight"],
            weights[f"{name}.bias"],
            stride=window.stride,
            dilation=window.dilation,
        )

    seen = sample(x, made("offsets.kernel.span").unflatten(1, (groups, 2, -1)), window)
    if "kernel.weight" in weights:
        return torch.einsum("oik,bikhw->bohw", weights["kernel.weight"][0], seen)
    mask = 1 / (1 + torch.exp(-made("kernel.kernels.1.kernel.span")))  # b k h w
    return torch.einsum("oik,bkhw,bikhw->bohw", weights["kernel.kernels.0.weight"][0], mask, seen)


def scattered(layer: nn.Module, std: float) -> nn.Module:
    """Give the maps of offsets and masks random weights: offsets of about `std` pixels for normal features."""
    with torch.no_grad():
        for name, each in layer.named_parameters():
            if ".span." in name:
                each.normal_(std=std / each[0].numel() ** 0.5 if each.dim() > 1 else 0.5)
    return layer


@pytest.mark.oracle("deformable_conv")
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("name", [name for name, window in WINDOWS.items() if window.border == "zeros"])
@pytest.mark.parametrize("size", SIZES)
def test_deformable_convolution_is_torchs_grid_sample(
    name: str, groups: int, size: tuple[int, int], assert_equal_with_gradients: Compare
) -> None:
    window = WINDOWS[name]
    operator = replace(zoo.deformable_conv(groups=groups), window=window)
    layer = scattered(operator.build(4, 3).double(), 4.0)
    x = torch.randn(4, 4, *size, dtype=torch.float64)
    offsets = layer.offsets(x, None)
    rows, columns = places(offsets, window, size)
    assert ((rows < -1) | (columns < -1)).any(), "no tap leaves the image before its first pixel"
    assert ((rows > size[0]) | (columns > size[1])).any(), "no tap leaves the image behind its last pixel"
    assert_equal_with_gradients(layer, lambda x, weights: deformed(x, weights, window, groups, sample_by_grid), x)


@pytest.mark.oracle("modulated_deformable_conv")
@pytest.mark.parametrize("name", [name for name, window in WINDOWS.items() if window.border == "zeros"])
@pytest.mark.parametrize("size", SIZES)
def test_modulated_deformable_convolution_is_torchs_grid_sample_and_a_mask(
    name: str, size: tuple[int, int], assert_equal_with_gradients: Compare
) -> None:
    window = WINDOWS[name]
    layer = scattered(replace(zoo.modulated_deformable_conv(), window=window).build(4, 3).double(), 3.0)
    x = torch.randn(2, 4, *size, dtype=torch.float64)
    assert_equal_with_gradients(layer, lambda x, weights: deformed(x, weights, window, 1, sample_by_grid), x)


@pytest.mark.oracle("deformable_conv")
@pytest.mark.parametrize("border", ["mask", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
def test_deformable_convolution_continues_the_image_as_torchs_grid_sample(
    border: str, groups: int, stride: int, assert_equal_with_gradients: Compare
) -> None:
    window = Window(3, stride=stride, border=border)
    operator = replace(zoo.deformable_conv(groups=groups), window=window)
    layer = scattered(operator.build(4, 3).double(), 0.6)
    x = torch.randn(2, 4, 7, 8, dtype=torch.float64)
    rows, columns = places(layer.offsets(x, None), window, (7, 8))
    assert (rows < -1).any()
    assert (columns < -1).any()
    assert_equal_with_gradients(layer, lambda x, weights: deformed(x, weights, window, groups, sample_by_grid), x)


@pytest.mark.oracle("modulated_deformable_conv")
@pytest.mark.parametrize("border", ["reflect", "replicate", "circular"])
def test_modulated_deformable_convolution_continues_the_image_as_torchs_grid_sample(
    border: str, assert_equal_with_gradients: Compare
) -> None:
    window = Window(3, dilation=2, border=border)
    layer = scattered(replace(zoo.modulated_deformable_conv(), window=window).build(4, 3).double(), 0.6)
    x = torch.randn(2, 4, 7, 8, dtype=torch.float64)
    assert_equal_with_gradients(layer, lambda x, weights: deformed(x, weights, window, 1, sample_by_grid), x)


@pytest.mark.oracle("deformable_conv", "modulated_deformable_conv")
@pytest.mark.parametrize("std", [0.0, 2.0])
@pytest.mark.parametrize("groups", [0, 1, 2])
@pytest.mark.parametrize("size", [(3, 4), (4, 1)])
def test_deformable_convolution_is_the_sum_of_its_formula(
    groups: int, std: float, size: tuple[int, int], assert_equal_with_gradients: Compare
) -> None:
    # without a group of its own the convolution is modulated; std 0 is how it starts, on the pixels themselves
    operator = zoo.deformable_conv(groups=groups) if groups else zoo.modulated_deformable_conv()
    layer = operator.build(2, 3).double()
    layer = scattered(layer, std) if std else layer
    x = torch.randn(2, 2, *size, dtype=torch.float64)
    window = Window(3)
    assert_equal_with_gradients(
        layer, lambda x, weights: deformed(x, weights, window, max(groups, 1), sample_by_loops), x
    )


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (3, 1), (1, 2), (2, 3)])
@pytest.mark.parametrize("size", [(6, 7), (5, 4)])
def test_deformable_convolution_starts_as_a_convolution(stride: int, dilation: int, size: tuple[int, int]) -> None:
    x = torch.randn(2, 4, *size, dtype=torch.float64)
    options = {"stride": stride, "dilation": dilation, "padding": dilation}
    plain = zoo.deformable_conv(3, stride, dilation, groups=2).build(4, 3).double()
    torch.testing.assert_close(plain(x), F.conv2d(x, plain.kernel.weight.view(3, 4, 3, 3), **options), **EXACT)
    modulated = zoo.modulated_deformable_conv(3, stride, dilation).build(4, 3).double()
    weight = modulated.kernel.kernels[0].weight.view(3, 4, 3, 3)
    torch.testing.assert_close(modulated(x), F.conv2d(x, weight, **options) / 2, **EXACT)
