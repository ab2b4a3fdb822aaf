"""Mixtures and kernels of pixels against oracles of their own: outputs, and the gradient of every input and weight."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynops.ops import Window
from dynops.parts import Operator, zoo

Compare = Callable[..., None]
EXACT = {"rtol": 1e-10, "atol": 1e-10}
Settle = Callable[[nn.Module], nn.Module]
State = dict[str, Tensor]

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
SHIFTED = {"shifted": Window(5, border="shift"), "shifted and strided": Window(3, stride=2, border="shift")}
SIZES = [(6, 7), (5, 8)]


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


def convolution(x: Tensor, weight: Tensor, window: Window) -> Tensor:
    """`F.conv2d` of an image that is continued as the window's border says."""
    if window.border == "shift":  # a window at the edge is the nearest one that lies inside
        around, stride = window.size // 2, window.stride
        return F.pad(F.conv2d(x, weight), (around,) * 4, mode="replicate")[..., ::stride, ::stride]
    mode = {"zeros": "constant", "mask": "constant"}.get(window.border, window.border)
    rows, columns = (margins(window, x.shape[2 + axis], axis) for axis in (0, 1))
    image = F.pad(x, (*columns, *rows), mode=mode)
    return F.conv2d(image, weight, stride=window.stride, dilation=window.dilation)


def each_image(x: Tensor, weights: Tensor, window: Window) -> Tensor:
    """One `F.conv2d` for each image, with weights `b o i (k k)` of its own."""
    weights = weights.unflatten(3, pair(window.size))
    return torch.cat([convolution(image[None], weight, window) for image, weight in zip(x, weights, strict=True)])


def bank(state: State, name: str, experts: int) -> Tensor:
    """The static experts of a mixture, `e g o i k`."""
    return torch.stack([state[f"{name}.experts.{e}.weight"] for e in range(experts)])


def dense(features: Tensor, state: State, name: str) -> Tensor:
    """A fully connected layer, whose weights a 1x1 convolution holds."""
    return F.linear(features, state[f"{name}.weight"][:, :, 0, 0], state.get(f"{name}.bias"))


def normalised(features: Tensor, state: State, name: str, training: bool) -> Tensor:
    """Batch normalisation from its formula, on any grid; in training it moves the running statistics."""
    others = [axis for axis in range(features.dim()) if axis != 1]
    mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    if training:
        count = features.numel() // features.shape[1]
        batch, spread = features.mean(others), features.var(others, correction=0)
        state[f"{name}.running_mean"] = 0.9 * mean + 0.1 * batch.detach()
        state[f"{name}.running_var"] = 0.9 * variance + 0.1 * spread.detach() * count / (count - 1)
        mean, variance = batch, spread
    view = (1, -1, *(1,) * (features.dim() - 2))
    unit = (features - mean.view(view)) / (variance.view(view) + 1e-5).sqrt()
    return unit * state[f"{name}.weight"].view(view) + state[f"{name}.bias"].view(view)


def gate(logits: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-logits))


def shares(logits: Tensor, axis: int) -> Tensor:
    exponentials = logits.exp()
    return exponentials / exponentials.sum(axis, keepdim=True)


@pytest.mark.oracle("condconv")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", WINDOWS | SHIFTED)
def test_condconv_convolves_each_image_with_its_sum_of_kernels(
    name: str, size: tuple[int, int], assert_equal_with_gradients: Compare
) -> None:
    window = (WINDOWS | SHIFTED)[name]

    def oracle(x: Tensor, state: State) -> Tensor:
        gates = gate(dense(x.mean((2, 3)), state, "kernel.router.kernel.span"))
        return each_image(x, torch.einsum("be,eoik->boik", gates, bank(state, "kernel", 3)[:, 0]), window)

    layer = replace(zoo.condconv(experts=3), window=window).build(4, 5).double()
    assert_equal_with_gradients(layer, oracle, torch.randn(3, 4, *size, dtype=torch.float64))


@pytest.mark.oracle("dynamic_conv")
@pytest.mark.parametrize("temperature", [1.0, 30.0])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", WINDOWS | SHIFTED)
def test_dynamic_convolution_mixes_kernels_and_biases(
    name: str, size: tuple[int, int], temperature: float, assert_equal_with_gradients: Compare
) -> None:
    window = (WINDOWS | SHIFTED)[name]

    def oracle(x: Tensor, state: State) -> Tensor:
        hidden = dense(x.mean((2, 3)), state, "context.context.reduce").relu()
        attention = shares(dense(hidden, state, "context.reduce") / temperature, 1)
        weights = torch.einsum("be,eoik->boik", attention, bank(state, "kernel", 4)[:, 0])
        biases = attention @ bank(state, "bias_kernel", 4)[:, 0, :, 0, 0]
        return each_image(x, weights, window) + biases[:, :, None, None]

    operator = zoo.dynamic_conv(experts=4, reduction=2, temperature=temperature)
    layer = replace(operator, window=window).build(8, 5).double()
    assert_equal_with_gradients(layer, oracle, torch.randn(3, 8, *size, dtype=torch.float64))


@pytest.mark.oracle("odconv")
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", WINDOWS | SHIFTED)
def test_odconv_gates_the_input_the_taps_the_kernels_and_the_output(
    name: str, size: tuple[int, int], training: bool, settled: Settle, assert_equal_with_gradients: Compare
) -> None:
    # as the authors' code: gates of inputs before, of outputs behind the convolution
    window = (WINDOWS | SHIFTED)[name]

    def oracle(x: Tensor, state: State) -> Tensor:
        hidden = dense(x.mean((2, 3)), state, "context.reduce")
        hidden = normalised(hidden, state, "context.norm", training).relu()
        kernels = shares(dense(hidden, state, "kernel.kernels.0.router.kernel.span"), 1)
        inputs, outputs, taps = (gate(dense(hidden, state, f"kernel.kernels.{n}.kernel.span")) for n in (1, 2, 3))
        weights = torch.einsum("be,bk,eoik->boik", kernels, taps, bank(state, "kernel.kernels.0", 4)[:, 0])
        return each_image(x * inputs[:, :, None, None], weights, window) * outputs[:, :, None, None]

    layer = replace(zoo.odconv(reduction=2, least=3), window=window).build(6, 5).double()
    layer = settled(layer).train(training)
    assert_equal_with_gradients(layer, oracle, torch.randn(4, 6, *size, dtype=torch.float64))


@pytest.mark.oracle("weightnet")
@pytest.mark.parametrize(("multiplier", "groups"), [(2, 2), (4, 2), (3, 1), (4, 4)])
@pytest.mark.parametrize("name", WINDOWS | SHIFTED)
def test_weightnet_is_made_of_fully_connected_layers_in_groups(
    name: str, multiplier: int, groups: int, assert_equal_with_gradients: Compare
) -> None:
    window = (WINDOWS | SHIFTED)[name]

    def oracle(x: Tensor, state: State) -> Tensor:
        squeezed = dense(x.mean((2, 3)), state, "kernel.context.context.reduce")
        hidden = gate(dense(squeezed, state, "kernel.context.reduce"))  # b (o m)
        assert hidden.shape[1] == 6 * multiplier
        share = hidden.shape[1] // (6 * groups)
        rows = state["kernel.span.weight"][:, :, 0, 0].unflatten(0, (6 * groups, -1))  # (o n) w m
        weights = [each @ row.T for each, row in zip(hidden.split(share, dim=1), rows, strict=True)]
        return each_image(x, torch.cat(weights, dim=1).view(len(x), 6, 8, -1), window)

    operator = zoo.weightnet(multiplier=multiplier, groups=groups, reduction=2)
    layer = replace(operator, window=window).build(8, 6).double()
    assert_equal_with_gradients(layer, oracle, torch.randn(3, 8, 5, 8, dtype=torch.float64))


@pytest.mark.oracle("weightnet")
def test_weightnet_is_the_grouped_convolution_of_its_code(assert_equal_with_gradients: Compare) -> None:
    # wn_fc1 of M * oup outputs, wn_fc2 of oup * inp * k * k outputs in G * oup groups, one group for each image
    layer = zoo.weightnet(stride=2).build(32, 4).double()

    def oracle(x: Tensor, state: State) -> Tensor:
        squeezed = F.conv2d(
            x.mean((2, 3), keepdim=True),
            state["kernel.context.context.reduce.weight"],
            state["kernel.context.context.reduce.bias"],
        )
        assert squeezed.shape[1] == max(16, 32 // 16)
        hidden = F.conv2d(squeezed, state["kernel.context.reduce.weight"], state["kernel.context.reduce.bias"])
        weights = F.conv2d(hidden.sigmoid(), state["kernel.span.weight"], groups=2 * 4)
        weights = weights.reshape(-1, 32, 3, 3)
        return F.conv2d(x.reshape(1, -1, 7, 6), weights, stride=2, padding=1, groups=2).reshape(2, 4, 4, 3)

    assert_equal_with_gradients(layer, oracle, torch.randn(2, 32, 7, 6, dtype=torch.float64))


class Choice(torch.autograd.Function):
    """The greatest of `b e h w` forward, the softmax backward: equations 4 and 5 of DRConv."""

    @staticmethod
    def forward(context: torch.autograd.function.FunctionCtx, guide: Tensor) -> Tensor:
        context.save_for_backward(guide)
        return F.one_hot(guide.argmax(1), guide.shape[1]).movedim(-1, 1).to(guide.dtype)

    @staticmethod
    def backward(context: torch.autograd.function.FunctionCtx, upstream: Tensor) -> Tensor:
        (guide,) = context.saved_tensors
        soft = shares(guide, 1)
        return soft * (upstream - (soft * upstream).sum(1, keepdim=True))


def pooled(x: Tensor, taps: tuple[int, ...]) -> Tensor:
    """Means of the image's parts, `b c k k`: part n of k holds pixels from n N / k, rounded down, to rounded up."""
    parts = []
    for rows, columns in product(range(taps[0]), range(taps[1])):
        (top, bottom), (left, right) = (
            (n * length // k, -(-(n + 1) * length // k))
            for n, k, length in zip((rows, columns), taps, x.shape[2:], strict=True)
        )
        parts.append(x[:, :, top:bottom, left:right].mean((2, 3)))
    return torch.stack(parts, 2).unflatten(2, taps)


def regional(x: Tensor, state: State, window: Window, choice: Callable[[Tensor], Tensor]) -> Tensor:
    """DRConv as its code has it: all regions' filters by grouped 1x1 convolutions, of which each pixel takes one."""
    parts = pooled(x, pair(window.size))
    first = "kernel.experts.{}.reduce"
    hidden = F.conv2d(
        parts,
        torch.cat([state[f"{first.format(e)}.weight"] for e in range(3)]),
        torch.cat([state[f"{first.format(e)}.bias"] for e in range(3)]),
    )
    second = "kernel.experts.{}.span"
    filters = F.conv2d(
        hidden.sigmoid(),
        torch.cat([state[f"{second.format(e)}.weight"] for e in range(3)]),
        torch.cat([state[f"{second.format(e)}.bias"] for e in range(3)]),
        groups=3,
    )
    filters = filters.flatten(2).unflatten(1, (3, 5, 4))  # b e o i k
    sums = torch.stack([each_image(x, filters[:, e], window) for e in range(3)], 1)
    guide = convolution(x, state["kernel.router.kernel.span.weight"], window)
    guide = guide + state["kernel.router.kernel.span.bias"][:, None, None]
    return (choice(guide)[:, :, None] * sums).sum(1)


def regions_of_like_size(layer: nn.Module) -> nn.Module:
    """Let no bias favour a region, so that each of them is somewhere."""
    with torch.no_grad():
        layer.kernel.router.kernel.span.bias.zero_()
    return layer


@pytest.mark.oracle("drconv")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", WINDOWS)
def test_drconv_chooses_forward_and_learns_through_the_softmax(
    name: str, size: tuple[int, int], assert_equal_with_gradients: Compare
) -> None:
    window = WINDOWS[name]
    layer = regions_of_like_size(replace(zoo.drconv(regions=3), window=window).build(4, 5).double())
    x = torch.randn(4, 4, *size, dtype=torch.float64)
    assert_equal_with_gradients(layer, lambda x, state: regional(x, state, window, Choice.apply), x)


@pytest.mark.oracle("drconv")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", WINDOWS)
def test_drconv_with_its_regions_fixed_is_a_convolution_of_each_region(name: str, size: tuple[int, int]) -> None:
    # a guide so decided that its softmax has no slope: nothing passes through the choice
    window = WINDOWS[name]
    layer = regions_of_like_size(replace(zoo.drconv(regions=3), window=window).build(4, 5).double())
    with torch.no_grad():
        for each in layer.kernel.router.parameters():
            each.mul_(1e8)
    x = torch.randn(4, 4, *size, dtype=torch.float64)
    state = {name: each.detach().clone().requires_grad_() for name, each in layer.named_parameters()}
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    regions = []

    def fixed(guide: Tensor) -> Tensor:
        first, second = guide.detach().topk(2, dim=1).values.unbind(1)
        assert (first - second).min() > 60, "a choice is not decided: e^-60 * 1e8 must be nothing"
        regions.append(guide.argmax(1))
        return torch.stack([regions[-1] == e for e in range(3)], 1).to(x.dtype)

    expected, found = regional(theirs, state, window, fixed), layer(ours)
    assert set(regions[0].flatten().tolist()) == {0, 1, 2}, "a region is nowhere"
    torch.testing.assert_close(found, expected, **EXACT)
    upstream = torch.randn_like(expected)
    found.backward(upstream)
    expected.backward(upstream)
    torch.testing.assert_close(ours.grad, theirs.grad, **EXACT)
    for name, parameter in layer.named_parameters():
        if ".router." not in name:
            torch.testing.assert_close(parameter.grad, state[name].grad, **EXACT)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_arguments_of_mixtures_are_those_of_their_window(kernel_size: int, stride: int) -> None:
    for make in (zoo.dynamic_conv, zoo.odconv, zoo.weightnet, zoo.static_plus_dynamic, zoo.pixel_mixture):
        assert make(kernel_size=kernel_size, stride=stride).window == Window(kernel_size, stride=stride)
    assert zoo.involution_with_coordinates(kernel_size, stride=stride).window == Window(kernel_size, stride=stride)
    assert zoo.condconv(2, kernel_size, stride, 2).window == Window(kernel_size, stride=stride, dilation=2)
    assert zoo.drconv(2, kernel_size).window == Window(kernel_size)


def seen(window: Window, length: int, axis: int) -> list[list[int | None]]:
    """Which pixel of an axis each output's taps see; None outside."""
    size, stride, dilation = (pair(each)[axis] for each in (window.size, window.stride, window.dilation))
    before, _ = margins(window, length, axis)
    table = []
    for output in range(0, length, stride):
        if window.border == "shift":
            first = min(max(output - size // 2, 0), length - size)
            table.append([first + tap for tap in range(size)])
            continue
        places = [output + tap * dilation - before for tap in range(size)]
        if window.border == "circular":
            places = [place % length for place in places]
        if window.border == "replicate":
            places = [min(max(place, 0), length - 1) for place in places]
        if window.border == "reflect":
            places = [-place if place < 0 else min(place, 2 * (length - 1) - place) for place in places]
        table.append([place if 0 <= place < length else None for place in places])
    return table


def summed(weights: Tensor, x: Tensor, window: Window) -> Tensor:
    """Each pixel's window, weighted by its kernel `b c k h w`, pixel by pixel and tap by tap."""
    rows, columns = (seen(window, x.shape[2 + axis], axis) for axis in (0, 1))
    lines = []
    for h, down in enumerate(rows):
        line = []
        for w, right in enumerate(columns):
            total = torch.zeros_like(x[:, :, 0, 0])
            for k, (r, c) in enumerate(product(down, right)):
                if r is not None and c is not None:
                    total = total + weights[:, :, k, h, w] * x[:, :, r, c]
            line.append(total)
        lines.append(torch.stack(line, 2))
    return torch.stack(lines, 2)


def averaged(x: Tensor, window: Window) -> Tensor:
    """The mean of each tile of stride by stride pixels, of those inside the image; tiles lie as the windows do."""
    tiles = []
    for axis in (0, 1):
        length, stride = x.shape[2 + axis], pair(window.stride)[axis]
        tile = replace(window, size=window.stride, dilation=1, border="zeros") if window.padding != "centre" else None
        before = margins(tile, length, axis)[0] if tile else 0
        tiles.append(
            [(max(start - before, 0), min(start - before + stride, length)) for start in range(0, length, stride)]
        )
    rows = torch.stack([x[:, :, first:last].mean(2) for first, last in tiles[0]], 2)
    return torch.stack([rows[..., first:last].mean(3) for first, last in tiles[1]], 3)


def phi(features: Tensor, state: State, name: str, training: bool) -> Tensor:
    """W1 relu(BN(W0 features)) + b1 of each pixel."""
    hidden = torch.einsum("mc,bchw->bmhw", state[f"{name}.reduce.weight"][:, :, 0, 0], features)
    hidden = normalised(hidden, state, f"{name}.norm", training).relu()
    outputs = torch.einsum("nm,bmhw->bnhw", state[f"{name}.span.weight"][:, :, 0, 0], hidden)
    return outputs + state[f"{name}.span.bias"][:, None, None]


def built(operator: Operator, window: Window, width: int, settled: Settle, training: bool) -> nn.Module:
    return settled(replace(operator, window=window).build(width).double()).train(training)


@pytest.mark.oracle("static_plus_dynamic")
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", WINDOWS | SHIFTED)
def test_static_plus_dynamic_adds_a_kernel_of_the_pixel_to_each_channels_own(
    name: str, size: tuple[int, int], training: bool, settled: Settle, assert_equal_with_gradients: Compare
) -> None:
    window = (WINDOWS | SHIFTED)[name]

    def oracle(x: Tensor, state: State) -> Tensor:
        dynamic = phi(averaged(x, window), state, "kernel.kernels.1", training)  # b k h w
        static = state["kernel.kernels.0.weight"][:, 0, 0]  # c k
        return summed(static[None, :, :, None, None] + dynamic[:, None], x, window)

    layer = built(zoo.static_plus_dynamic(reduction=2), window, 6, settled, training)
    assert_equal_with_gradients(layer, oracle, torch.randn(2, 6, *size, dtype=torch.float64))


@pytest.mark.oracle("pixel_mixture")
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", WINDOWS | SHIFTED)
def test_pixel_mixture_weighs_depthwise_kernels_for_each_pixel(
    name: str, size: tuple[int, int], training: bool, settled: Settle, assert_equal_with_gradients: Compare
) -> None:
    window = (WINDOWS | SHIFTED)[name]

    def oracle(x: Tensor, state: State) -> Tensor:
        weights = shares(phi(averaged(x, window), state, "kernel.router.kernel", training), 1)  # b e h w
        return summed(torch.einsum("behw,eck->bckhw", weights, bank(state, "kernel", 3)[:, :, 0, 0]), x, window)

    layer = built(zoo.pixel_mixture(experts=3, reduction=2), window, 6, settled, training)
    assert_equal_with_gradients(layer, oracle, torch.randn(2, 6, *size, dtype=torch.float64))


@pytest.mark.oracle("involution_with_coordinates")
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", WINDOWS | SHIFTED)
def test_involution_with_coordinates_reads_the_pixel_and_its_place(
    name: str, size: tuple[int, int], training: bool, settled: Settle, assert_equal_with_gradients: Compare
) -> None:
    window = (WINDOWS | SHIFTED)[name]

    def oracle(x: Tensor, state: State) -> Tensor:
        features = averaged(x, window)
        down, right = (
            torch.tensor([2 * place / (length - 1) - 1 for place in range(0, length, step)], dtype=x.dtype)
            for length, step in zip(size, pair(window.stride), strict=True)
        )
        b, _, h, w = features.shape
        where = [down[:, None].expand(b, 1, h, w), right.expand(b, 1, h, w)]
        generated = phi(torch.cat([features, *where], 1), state, "kernel", training).unflatten(1, (3, -1))
        return summed(generated.repeat_interleave(2, dim=1), x, window)

    layer = built(zoo.involution_with_coordinates(group_channels=2), window, 6, settled, training)
    assert layer.kernel.reduce.weight.shape[0] == (6 + 2) // 4
    assert_equal_with_gradients(layer, oracle, torch.randn(2, 6, *size, dtype=torch.float64))


@pytest.mark.oracle("static_plus_dynamic", "pixel_mixture", "involution_with_coordinates")
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(6, 5), (3, 2)])
@pytest.mark.parametrize(
    "make",
    [zoo.static_plus_dynamic, zoo.pixel_mixture, zoo.involution_with_coordinates],
    ids=lambda make: make.__name__,
)
def test_kernels_of_pixels_serve_images_smaller_than_their_window(
    make: Callable[..., Operator],
    size: tuple[int, int],
    stride: int,
    settled: Settle,
    assert_equal_with_gradients: Compare,
) -> None:
    def oracle(x: Tensor, state: State) -> Tensor:
        features = averaged(x, operator.window)
        if make is zoo.static_plus_dynamic:
            dynamic = phi(features, state, "kernel.kernels.1", False)[:, None]
            return summed(state["kernel.kernels.0.weight"][:, 0, 0, :, None, None] + dynamic, x, operator.window)
        if make is zoo.pixel_mixture:
            weights = shares(phi(features, state, "kernel.router.kernel", False), 1)
            mixed = torch.einsum("behw,eck->bckhw", weights, bank(state, "kernel", 4)[:, :, 0, 0])
            return summed(mixed, x, operator.window)
        lines = [torch.linspace(-1, 1, length, dtype=x.dtype)[::stride] for length in size]
        where = torch.stack(torch.meshgrid(*lines, indexing="ij")).expand(len(x), -1, -1, -1)
        generated = phi(torch.cat([features, where], 1), state, "kernel", False)
        return summed(generated[:, None].expand(-1, 16, -1, -1, -1), x, operator.window)

    operator = make(stride=stride)
    layer = settled(operator.build(16).double())
    assert_equal_with_gradients(layer, oracle, torch.randn(2, 16, *size, dtype=torch.float64))
