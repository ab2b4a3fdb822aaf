"""The reference of local_sum equals convolutions, unfolds, loops and TensorFlow's rule, none of them ours."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dynops.ops import Window, local_sum

Draw = Callable[..., tuple[Tensor, Tensor]]
Near = Callable[[Tensor, Tensor], None]
ODD = list(product((1, 3, (3, 5)), (1, 2, (3, 1)), (1, 2, (1, 3))))  # size, stride, dilation


def reference(kernel: Tensor, value: Tensor, window: Window) -> Tensor:
    return local_sum(kernel, value, window, backend="reference")


def first_offset(window: Window, axis: int, length: int) -> int:
    """Where the first tap of the first output lies: half the reach before it, or as TensorFlow's documentation says."""
    reach = window.dilations[axis] * (window.sizes[axis] - 1)
    if window.padding == "centre":
        return -(reach // 2)
    outputs = (length + window.strides[axis] - 1) // window.strides[axis]
    return -(max((outputs - 1) * window.strides[axis] + reach + 1 - length, 0) // 2)


def by_loops(kernel: Tensor, value: Tensor, window: Window) -> Tensor:
    """Sum as the formula is written, number by number."""
    b, g, i, s, height, width = value.shape
    outputs = [-(-length // stride) for length, stride in zip((height, width), window.strides, strict=True)]
    y = torch.zeros(b, g, kernel.shape[2], s, *outputs, dtype=value.dtype)
    top, left = first_offset(window, 0, height), first_offset(window, 1, width)
    for index in np.ndindex(*y.shape):
        bb, gg, oo, ss, row, column = index
        for ii, down, right in np.ndindex(i, *window.sizes):
            at = row * window.strides[0] + top + down * window.dilations[0]
            beside = column * window.strides[1] + left + right * window.dilations[1]
            if 0 <= at < height and 0 <= beside < width:
                place = (bb, gg, oo, ii, down * window.sizes[1] + right, row, column)
                clipped = tuple(min(p, n - 1) for p, n in zip(place, kernel.shape, strict=True))
                y[index] += kernel[clipped] * value[bb, gg, ii, ss, at, beside]
    return y


@pytest.mark.parametrize(
    ("window", "sizes"),
    [
        (Window(3), {}),
        (Window((1, 3), stride=(2, 1), dilation=2), {"o": 2, "i": 2}),
        (Window(3, stride=2), {"o": 2, "ones": "g"}),
        (Window(2, stride=2, padding="same"), {"i": 2, "ones": "bhw"}),
        (Window((4, 3), stride=(3, 2), padding="same"), {"ones": "w"}),
        (Window(3, dilation=(2, 1), padding="same"), {"o": 2, "i": 2, "ones": "ki"}),
        (Window(5), {"ones": "bgkhw"}),
    ],
)
def test_reference_is_the_formula_in_loops(window: Window, sizes: dict, draw: Draw, assert_near: Near) -> None:
    kernel, value = draw(window, (4, 5), **sizes)
    assert_near(reference(kernel, value, window), by_loops(kernel, value, window))


@pytest.mark.parametrize(("size", "stride", "dilation"), ODD)
@pytest.mark.parametrize(("g", "o", "i"), [(1, 4, 3), (2, 3, 2), (3, 1, 2)])
def test_static_dense_kernel_is_convolution_in_groups(
    size: int, stride: int, dilation: int, g: int, o: int, i: int, draw: Draw, assert_near: Near
) -> None:
    window = Window(size, stride=stride, dilation=dilation)
    kernel, value = draw(window, (8, 9), g=g, o=o, i=i, s=1, ones="bhw")
    padding = tuple(d * (k - 1) // 2 for k, d in zip(window.sizes, window.dilations, strict=True))
    expected = F.conv2d(
        value.flatten(1, 3),
        kernel.reshape(g * o, i, *window.sizes),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=g,
    )
    assert_near(reference(kernel, value, window).flatten(1, 3), expected)


@pytest.mark.parametrize(("size", "stride", "dilation"), ODD)
def test_static_kernel_of_each_channel_is_depthwise_convolution(
    size: int, stride: int, dilation: int, draw: Draw, assert_near: Near
) -> None:
    window = Window(size, stride=stride, dilation=dilation)
    kernel, value = draw(window, (8, 9), g=5, s=1, ones="bhw")
    padding = tuple(d * (k - 1) // 2 for k, d in zip(window.sizes, window.dilations, strict=True))
    weight = kernel.reshape(5, 1, *window.sizes)
    expected = F.conv2d(value.flatten(1, 3), weight, None, stride, padding, dilation, groups=5)
    assert_near(reference(kernel, value, window).flatten(1, 3), expected)


def test_kernel_of_each_sample_is_one_convolution_a_sample(draw: Draw, assert_near: Near) -> None:
    window = Window(3)
    kernel, value = draw(window, b=3, g=1, o=2, i=2, s=1, ones="hw")
    alone = [F.conv2d(value[n, 0, :, 0], kernel[n, 0].reshape(2, 2, 3, 3), padding=1) for n in range(3)]
    assert_near(reference(kernel, value, window)[:, 0, :, 0], torch.stack(alone))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize(("size", "dilation"), list(product((1, 2, 3, 4, (2, 5)), (1, 2, (1, 3)))))
def test_same_padding_at_stride_1_is_that_of_torch(size: int, dilation: int, draw: Draw, assert_near: Near) -> None:
    window = Window(size, dilation=dilation, padding="same")
    kernel, value = draw(window, (7, 8), g=1, o=2, i=3, s=1, ones="bhw")
    weight = kernel.reshape(2, 3, *window.sizes)
    expected = F.conv2d(value.flatten(1, 3), weight, padding="same", dilation=dilation)
    assert_near(reference(kernel, value, window).flatten(1, 3), expected)


@pytest.mark.parametrize(("size", "stride", "dilation"), ODD)
def test_kernel_of_each_pixel_weighs_the_columns_of_unfold(
    size: int, stride: int, dilation: int, draw: Draw, assert_near: Near
) -> None:
    window = Window(size, stride=stride, dilation=dilation)
    kernel, value = draw(window, (8, 9), g=2, s=3)
    padding = tuple(d * (k - 1) // 2 for k, d in zip(window.sizes, window.dilations, strict=True))
    columns = F.unfold(value.flatten(1, 3), window.sizes, dilation, padding, stride)
    patches = columns.view(2, 2, 3, window.taps, *kernel.shape[-2:])
    expected = (kernel[:, :, 0, 0, None] * patches).sum(3)
    assert_near(reference(kernel, value, window)[:, :, 0], expected)


def tensorflow_patches(image: np.ndarray, size: int, stride: int) -> np.ndarray:
    """Cut patches, `rows columns taps`, out of `h w` by the rule that TensorFlow documents for padding 'SAME'."""
    starts, padded = [], image
    for axis, length in enumerate(image.shape):
        total = max(size - stride, 0) if length % stride == 0 else max(size - length % stride, 0)
        before = total // 2
        margin = [(0, 0), (0, 0)]
        margin[axis] = (before, total - before)
        padded = np.pad(padded, margin)
        starts.append(range(0, length, stride))
    cut = [[padded[r : r + size, c : c + size].ravel() for c in starts[1]] for r in starts[0]]
    return np.array(cut)


@pytest.mark.parametrize(("size", "stride"), [(k, t) for k in range(1, 7) for t in range(1, 6)])
def test_same_padding_at_a_stride_is_the_rule_of_tensorflow(
    size: int, stride: int, draw: Draw, assert_near: Near
) -> None:
    window = Window(size, stride=stride, padding="same")
    for shape in ((8, 9), (10, 7), (11, 6)):
        kernel, value = draw(window, shape, b=1, g=1, s=1)
        patches = tensorflow_patches(value[0, 0, 0, 0].numpy(), size, stride)
        expected = np.einsum("khw,hwk->hw", kernel[0, 0, 0, 0].numpy(), patches)
        assert_near(reference(kernel, value, window)[0, 0, 0, 0], torch.from_numpy(expected))
