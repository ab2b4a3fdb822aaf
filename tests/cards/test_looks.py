"""What a picture shows is what the operator computes: taps, writes and channels against gradients and one-hots."""

import numpy as np
import pytest
import torch

from dynops import Block, Channels, Global, Window, local_sum, zoo
from dynops.cards.looks import borders, looks, outputs_shown, own_tap
from dynops.cards.panels import sharing
from dynops.cards.sample import samples
from dynops.ops import Geometry, scatter
from dynops.parts import Layer

WINDOWS: dict[str, Geometry] = {
    "centre": Window(3),
    "strided": Window((3, 5), stride=2, dilation=(2, 1)),
    "same": Window(4, stride=3, padding="same"),
    "causal": Window(3, dilation=2, padding="causal"),
    "mask": Window(5, border="mask"),
    "reflect": Window(5, border="reflect"),
    "replicate": Window(5, dilation=2, border="replicate"),
    "circular": Window(5, stride=2, border="circular"),
    "shift": Window(3, dilation=2, stride=2, border="shift"),
    "block": Block(4, shift=(1, 3)),
    "halo": Block(4, halo=2, stride=2, border="zeros"),
    "halo with mask": Block((4, 2), halo=(1, 2), shift=1),
    "cyclic": Block(4, shift=2, border="circular"),
    "global": Global(),
    "global strided": Global(stride=2),
    "tokens": Global(grid=(2, 3)),
    "sequence": Window(4, padding="causal", dims=1),
    "sequence of blocks": Block(4, halo=1, shift=1, border="zeros", dims=1),
    "volume": Window(3, stride=(1, 2, 1), dims=3),
}


@pytest.mark.parametrize("window", WINDOWS.values(), ids=list(WINDOWS))
def test_taps_are_those_that_the_sum_reads(window: Geometry) -> None:
    size = (7, 9, 10)[3 - window.dims :]
    outputs = list(outputs_shown(window.output_size(size)).values())
    shown = torch.ones(window.tap_grid(size)[max(window.dims - 2, 0) :]).numel()  # of a volume, those of one frame
    for output, look in zip(outputs, looks(window, size, outputs), strict=True):
        value = torch.ones(1, 1, 1, 1, *size, requires_grad=True)
        kernel = torch.ones(1, 1, 1, 1, torch.ones(window.tap_grid(size)).numel(), *[1] * window.dims)
        local_sum(kernel, value, window)[(0, 0, 0, 0, *output)].backward()
        assert value.grad is not None
        read = value.grad[0, 0, 0, 0]
        if window.dims == 1:
            read = read[None]
        if window.dims == 3:  # all its frames read alike
            read = read[output[0]]
        assert look.taps[look.inside].reshape(read.shape).tolist() == read.tolist()
        assert look.taps.sum() == (look.taps[look.inside].sum() if window.masked else shown)


@pytest.mark.parametrize("window", WINDOWS.values(), ids=list(WINDOWS))
def test_own_tap_reads_the_outputs_own_pixel(window: Geometry) -> None:
    size = (7, 9, 10)[3 - window.dims :]
    for output in outputs_shown(window.output_size(size)).values():
        own = own_tap(window, size, output)
        if isinstance(window, Global) and window.grid is not None:
            assert own is None
        elif own is not None:
            value = torch.arange(float(torch.ones(size).numel())).reshape(1, 1, 1, 1, *size)
            kernel = torch.zeros(window.tap_grid(size))
            kernel[own] = 1
            y = local_sum(kernel.reshape(1, 1, 1, 1, -1, *[1] * window.dims), value, window)
            place = tuple(each * stride for each, stride in zip(output, window.strides, strict=True))
            assert y[(0, 0, 0, 0, *output)] == value[(0, 0, 0, 0, *place)]


def test_blocks_begin_where_outputs_see_other_pixels() -> None:
    assert borders(Block(7, shift=3), (17, 17), 0) == [3, 10]
    assert borders(Block(4, stride=2), (8, 8), 1) == [4]
    assert borders(Global(), (8, 8), 0) == borders(Window(3), (8, 8), 0) == []


def test_writes_are_those_of_scatter() -> None:
    window, grid = Window(3, stride=2), (9, 7)
    outputs = list(outputs_shown(window.output_size(grid)).values())
    for output, look in zip(outputs, looks(window, grid, outputs), strict=True):
        y = torch.zeros(9, *window.output_size(grid))
        y[(slice(None), *output)] = 1
        assert look.taps[look.inside].reshape(grid).tolist() == scatter(y, window, grid).tolist()
        assert look.taps.sum() == 9


@pytest.mark.parametrize(
    ("channels", "width", "outputs"),
    [
        (Channels("(g i s) -> (s g o)", g=2, s=2, o=3), 8, None),
        (Channels("s -> (o s)", o=2), 6, None),
        (Channels("(s g)", s=2), 6, None),
        (Channels("(g i) -> (g o)", g=2), 6, 4),
        (Channels("i -> o"), 3, 5),
        (Channels("g"), 4, None),
    ],
    ids=lambda value: value.pattern if isinstance(value, Channels) else None,
)
def test_channels_share_the_kernel_that_carries_them(channels: Channels, width: int, outputs: int | None) -> None:
    split = channels.resolve(width, outputs)
    kernel = torch.zeros(split.g * split.o * split.i, 1, split.g, split.o, split.i, 1, 1, 1)
    matrix = sharing(split, kernel[0])
    x = torch.eye(width)[..., None, None]
    for number, one_hot in enumerate(kernel):
        one_hot.flatten()[number] = 1
        carried = split.merge(local_sum(one_hot, split.split(x), Window(1)))[..., 0, 0].T
        assert np.array_equal(carried.numpy() > 0, matrix == number)
    assert matrix.min() == (-1 if width * split.out_channels > (matrix >= 0).sum() else 0)


def test_channels_share_along_an_axis_on_which_the_kernel_is_constant() -> None:
    split = Channels("(g s)", g=3).resolve(6)
    assert sharing(split, torch.zeros(1, 1, 1, 1, 9, 1, 1)).max() == 0


@pytest.mark.parametrize(
    ("layer", "varies"),
    [
        (zoo.conv2d(), ""),
        (zoo.condconv(), "b"),
        (zoo.locally_connected(), "hw"),
        (zoo.involution(), "bhw"),
    ],
    ids=["static", "sample", "position", "pixel"],
)
def test_a_sample_varies_as_its_signature_says(layer: Layer, varies: str) -> None:
    (sample,) = samples(layer, 64, (20, 20))
    kernel = sample.kernel.expand(2, *sample.kernel.shape[1:5], 9, 9) if not varies else sample.kernel
    for axis, letter in ((0, "b"), (-2, "h"), (-1, "w")):
        first = kernel.select(axis, 0)
        assert torch.equal(first, kernel.select(axis, -1)) == (letter not in varies)


def test_a_sample_is_the_same_each_time_and_draws_from_no_other_stream() -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    (first,), (second,) = (samples(zoo.involution(), 64, (20, 20)) for _ in range(2))
    assert torch.equal(first.kernel, second.kernel)
    assert torch.equal(torch.rand(3), expected)


def test_a_sample_shows_sharing_where_a_small_width_can() -> None:
    assert [samples(layer, 64, (20, 20))[0].channels for layer in (zoo.conv2d(), zoo.involution())] == [16, 32]
    assert samples(zoo.involution(group_channels=40), 40, (20, 20))[0].channels == 40
