"""Operators that make a kernel from a pixel or a patch, against loops from their papers, given the same weights."""

from collections.abc import Callable
from itertools import product
from math import prod

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dynops.parts import LocalOperator, zoo

EXACT = {"rtol": 1e-10, "atol": 1e-10}
WIDTH = 8
Weights = dict[str, Tensor]
Size = tuple[int, ...]


def drawn(layer: LocalOperator) -> LocalOperator:
    """Draw all weights and statistics anew, as a table that starts at a constant would hide where it is read."""
    layer.double()
    with torch.no_grad():
        for name, each in layer.named_parameters():
            each.normal_(std=0.5)
            if name.endswith("norm.bias"):
                each.abs_()  # or a ReLU may never wake
        for name, each in layer.named_buffers():
            if name.endswith("running_mean"):
                each.normal_(std=0.3)
            if name.endswith("running_var"):
                each.uniform_(0.5, 2)
    return layer


def assert_is(
    oracle: Callable[..., Tensor], layer: LocalOperator, *inputs: Tensor, unseen: tuple[str, ...] = ()
) -> None:
    """Compare output, each input's gradient, each weight's gradient by its name, and the running statistics.

    `unseen` names the weights whose gradient is zero; all others must have one.
    """
    weights = {name: each.detach().clone().requires_grad_() for name, each in layer.named_parameters()}
    weights |= {name: each.clone() for name, each in layer.named_buffers()}
    mine, theirs = ([each.clone().requires_grad_() for each in inputs] for _ in range(2))
    y, expected = layer(*mine), oracle(weights, *theirs)
    torch.testing.assert_close(y, expected, **EXACT)
    weighing = torch.randn_like(y)
    for each in (y, expected):
        each.backward(weighing)
    for found, exact in zip(mine, theirs, strict=True):
        torch.testing.assert_close(found.grad, exact.grad, **EXACT)
    for name, each in layer.named_parameters():
        torch.testing.assert_close(each.grad, weights[name].grad, **EXACT, msg=lambda text, name=name: name + text)
        assert (each.grad.abs().max() < 1e-9) == (name in unseen), name
    for name, each in layer.named_buffers():
        if each.is_floating_point():
            torch.testing.assert_close(each, weights[name], **EXACT)


def image(*size: int, channels: int = WIDTH) -> Tensor:
    return torch.randn(2, channels, *size, dtype=torch.float64)


def projected(x: Tensor, weights: Weights, name: str) -> Tensor:
    """A 1x1 convolution on any grid."""
    y = torch.einsum("bc...,oc->bo...", x, weights[f"{name}.weight"].flatten(1))
    bias = weights.get(f"{name}.bias")
    return y if bias is None else y + bias.view(-1, *(1,) * (x.dim() - 2))


def normalised(x: Tensor, weights: Weights, name: str, training: bool) -> Tensor:
    parts = (weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *parts, training=training)


def outputs(size: Size, stride: int) -> Size:
    return tuple(-(-length // stride) for length in size)


def reflected_patches(x: Tensor, taps: int, stride: int, dilation: int) -> Tensor:
    """The window of every `stride`-th pixel, `b c k h w`, of an image that is reflected at its edge."""
    margin = dilation * (taps // 2)
    padded = F.pad(x, (margin,) * 4, mode="reflect")
    columns = F.unfold(padded, taps, dilation=dilation, stride=stride)
    return columns.view(*x.shape[:2], taps**2, *outputs(x.shape[2:], stride))


def interleaved_sum(shares: Tensor, patches: Tensor) -> Tensor:
    """Sum windows by the kernels `b g k h w`: channel c has kernel c % G, as the authors' code has it."""
    by_channel = [(shares[:, c % shares.shape[1]] * patches[:, c]).sum(1) for c in range(patches.shape[1])]
    return torch.stack(by_channel, dim=1)


@pytest.mark.oracle("pairwise_attention")
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("taps", "dim", "share", "stride", "dilation", "size"),
    [
        (3, 5, 4, 1, 1, (5, 6)),
        (3, 3, 2, 1, 1, (4, 7)),
        (5, 4, 8, 1, 1, (3, 4)),
        (3, 4, 4, 2, 1, (6, 4)),
        (3, 4, 4, 2, 1, (5, 7)),
        (3, 3, 2, 1, 2, (5, 4)),
        (3, 3, 2, 2, 2, (7, 6)),
        (3, 3, 4, 3, 1, (7, 8)),
    ],
)
def test_pairwise_attention_is_that_of_its_paper(
    taps: int, dim: int, share: int, stride: int, dilation: int, size: Size, training: bool
) -> None:
    """Subtraction: the weights of a tap from x_p - x_p' beside the difference of the two pixels' coordinates."""
    operator = zoo.pairwise_attention(taps, dim, share, stride=stride, dilation=dilation)
    layer = drawn(operator.build(WIDTH)).train(training)
    pair, kernel = "kernel.kernel.context", "kernel.kernel"

    def oracle(weights: Weights, x: Tensor) -> Tensor:
        lines = [torch.linspace(-1, 1, length, dtype=torch.float64) for length in size]
        places = torch.stack([lines[0][:, None].expand(size), lines[1][None, :].expand(size)])[None]
        places = projected(places, weights, f"{pair}.place")
        own, seen = projected(x, weights, f"{pair}.own"), projected(x, weights, f"{pair}.seen")
        differences = [
            here[:, :, None, ::stride, ::stride] - reflected_patches(there, taps, stride, dilation)
            for here, there in ((own, seen), (places, places))
        ]
        pairs = torch.cat([differences[0], differences[1].expand(len(x), -1, -1, -1, -1)], dim=1).flatten(3)
        hidden = normalised(pairs, weights, f"{pair}.norm", training).relu()
        hidden = normalised(projected(hidden, weights, f"{kernel}.reduce"), weights, f"{kernel}.norm", training)
        shares = projected(hidden.relu(), weights, f"{kernel}.span").softmax(2)
        value = reflected_patches(projected(x, weights, "value"), taps, stride, dilation)
        return interleaved_sum(shares.unflatten(3, value.shape[3:]), value)

    # a difference has no bias, a softmax does not see one, and batch statistics take the mean away
    unseen = (f"{pair}.place.bias", f"{kernel}.span.bias")
    if training:
        unseen += (f"{pair}.own.bias", f"{pair}.seen.bias")
    assert_is(oracle, layer, image(*size), unseen=unseen)


@pytest.mark.oracle("patchwise_attention")
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("taps", "dim", "share", "stride", "size"),
    [(3, 5, 4, 1, (5, 6)), (3, 3, 2, 1, (4, 7)), (5, 2, 4, 1, (3, 5)), (3, 4, 8, 2, (6, 4)), (3, 4, 2, 2, (5, 7))],
)
def test_patchwise_attention_is_that_of_its_paper(
    taps: int, dim: int, share: int, stride: int, size: Size, training: bool
) -> None:
    """Concatenation: all weights of a window from x_p beside its whole patch."""
    layer = drawn(zoo.patchwise_attention(taps, dim, share, stride=stride).build(WIDTH)).train(training)
    hidden, patch = "kernel.context", "kernel.context.context"

    def oracle(weights: Weights, x: Tensor) -> Tensor:
        own = projected(x, weights, f"{patch}.own")[:, :, ::stride, ::stride]
        seen = reflected_patches(projected(x, weights, f"{patch}.seen"), taps, stride, 1).flatten(1, 2)
        beside = normalised(torch.cat([own, seen], dim=1), weights, f"{patch}.norm", training).relu()
        reduced = normalised(projected(beside, weights, f"{hidden}.reduce"), weights, f"{hidden}.norm", training)
        weighing = projected(reduced.relu(), weights, "kernel.span").unflatten(1, (-1, taps**2))
        return interleaved_sum(weighing, reflected_patches(projected(x, weights, "value"), taps, stride, 1))

    unseen = (f"{patch}.own.bias", f"{patch}.seen.bias") if training else ()
    assert_is(oracle, layer, image(*size), unseen=unseen)


@pytest.mark.oracle("outlook_attention")
@pytest.mark.parametrize(
    ("taps", "heads", "stride", "size"),
    [
        (3, 2, 1, (5, 6)),
        (3, 4, 1, (4, 3)),
        (3, 2, 2, (6, 4)),
        (3, 2, 2, (5, 7)),
        (3, 4, 2, (6, 5)),
        (5, 2, 2, (5, 6)),
        (1, 2, 1, (3, 4)),
        (3, 2, 3, (7, 8)),
    ],
)
def test_outlook_attention_is_that_of_its_paper(taps: int, heads: int, stride: int, size: Size) -> None:
    """Unfold, attend inside each window by a kernel from its middle, fold."""
    layer = drawn(zoo.outlook_attention(taps, heads, stride=stride).build(WIDTH))
    windows = {"kernel_size": taps, "padding": taps // 2, "stride": stride}

    def oracle(weights: Weights, x: Tensor) -> Tensor:
        middles = F.avg_pool2d(x, stride, stride, ceil_mode=True)
        logits = projected(middles, weights, "kernel.kernel.span").flatten(2)
        shares = logits.unflatten(1, (heads, taps**2, taps**2)).softmax(3)
        value = F.unfold(projected(x, weights, "value"), **windows).unflatten(1, (heads, -1, taps**2))
        rewritten = torch.einsum("bgjkp,bgskp->bgsjp", shares, value)
        return projected(F.fold(rewritten.flatten(1, 3), size, **windows), weights, "out")

    # one tap has all the weight, whatever the scores are
    unseen = ("kernel.kernel.span.weight", "kernel.kernel.span.bias") if taps == 1 else ()
    assert_is(oracle, layer, image(*size), unseen=unseen)


@pytest.mark.oracle("carafe")
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    ("scale", "taps", "encoder", "compressed", "stride", "size"),
    [
        (2, 5, 3, 4, 1, (3, 4)),
        (2, 3, 1, 3, 1, (2, 5)),
        (3, 3, 3, 2, 1, (3, 2)),
        (3, 5, 5, 3, 1, (2, 3)),
        (1, 3, 3, 4, 1, (4, 3)),
        (2, 3, 3, 3, 2, (4, 5)),
        (3, 5, 3, 2, 2, (5, 3)),
        (1, 3, 1, 3, 3, (7, 4)),
    ],
)
def test_carafe_is_that_of_its_paper(
    scale: int, taps: int, encoder: int, compressed: int, stride: int, size: Size, groups: int
) -> None:
    """At a stride, every `stride`-th pixel becomes a tile, made from the mean of the pixels that it stands for."""
    operator = zoo.carafe(scale, taps, encoder, compressed, groups=groups).strided(stride)
    layer = drawn(operator.build(WIDTH))
    context, span = "kernel.kernel.context.reduce", "kernel.kernel.span"
    grid = [-(-scale * length // stride) for length in size]

    def oracle(weights: Weights, x: Tensor) -> Tensor:
        # ours has the outputs in the order g j k, a pixel shuffle has j, the place in a new tile, last
        shuffled = [
            weights[f"{span}.{part}"].unflatten(0, (groups, scale**2, taps**2)).transpose(1, 2).flatten(0, 2)
            for part in ("weight", "bias")
        ]
        means = F.avg_pool2d(x, stride, ceil_mode=True)
        encoded = F.conv2d(projected(means, weights, context), *shuffled, padding=encoder // 2)
        shares = F.pixel_shuffle(encoded, scale).unflatten(1, (groups, taps**2)).softmax(2)
        padded = F.pad(x, (taps // 2,) * 4).unflatten(1, (groups, -1))
        pixels = []
        for row, column in product(range(grid[0]), range(grid[1])):
            top, left = row // scale * stride, column // scale * stride
            patch = padded[..., top : top + taps, left : left + taps].flatten(3)
            pixels.append(torch.einsum("bgk,bgsk->bgs", shares[..., row, column], patch))
        return torch.stack(pixels, dim=3).flatten(1, 2).unflatten(2, grid)

    assert_is(oracle, layer, image(*size))


def filter_normalised(logits: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 over the last axis, as the authors' code has it."""
    centred = logits - logits.mean(-1, keepdim=True)
    return centred / ((centred.square().sum(-1, keepdim=True) / (logits.shape[-1] - 1)).sqrt() + 1e-10)


@pytest.mark.oracle("decoupled_dynamic_filter")
@pytest.mark.parametrize("combine", ["mul", "add"])
@pytest.mark.parametrize(
    ("taps", "stride", "dilation", "size"),
    [(3, 1, 1, (4, 5)), (5, 1, 1, (3, 4)), (3, 2, 1, (6, 4)), (3, 1, 2, (5, 6)), (5, 2, 2, (4, 8)), (3, 2, 1, (5, 7))],
)
def test_decoupled_dynamic_filter_is_that_of_its_paper(
    combine: str, taps: int, stride: int, dilation: int, size: Size
) -> None:
    operator = zoo.decoupled_dynamic_filter(taps, combine=combine, stride=stride, dilation=dilation)
    layer = drawn(operator.build(11))
    names = {"mul": (0, 1, 2, 3), "add": ("0.kernels.0", "0.kernels.1", "1.kernels.0", "1.kernels.1")}[combine]
    pixel, gain, global_, gains = (f"kernel.kernels.{name}" for name in names)
    # a fifth of the channels, rounded down, is hidden
    assert layer.get_parameter(f"{global_}.kernel.reduce.weight").shape[0] == 2
    assert layer.get_buffer(f"{gain}.weight").item() == pytest.approx(2**0.5 / taps, rel=1e-7)

    def oracle(weights: Weights, x: Tensor) -> Tensor:
        spatial = projected(x[:, :, ::stride, ::stride], weights, f"{pixel}.kernel.span")
        spatial = filter_normalised(spatial.movedim(1, -1)) * weights[f"{gain}.weight"].item()  # b h w k
        hidden = projected(x.mean((2, 3)), weights, f"{global_}.kernel.reduce").relu()
        filters = projected(hidden, weights, f"{global_}.kernel.span").unflatten(1, (11, taps**2))
        filters = filter_normalised(filters) * weights[f"{gains}.weight"][:, 0, 0]
        pair = (spatial[:, None], filters[:, :, None, None])
        combined = pair[0] * pair[1] if combine == "mul" else pair[0] + pair[1]  # b c h w k
        margin = dilation * (taps // 2)
        columns = F.unfold(x, taps, dilation=dilation, stride=stride, padding=margin)
        patches = columns.view(len(x), 11, taps**2, *outputs(size, stride))
        return torch.einsum("bchwk,bckhw->bchw", combined, patches)

    assert_is(oracle, layer, image(*size, channels=11))


def guided_convolution(
    weights: Weights, x: Tensor, guide: Tensor, taps: int, stride: int, dilation: int
) -> tuple[Tensor, Tensor]:
    """PAC pixel by pixel: its sums, and its kernel `b o i k h w` with a guide that is zero outside."""
    (h, w), table = x.shape[2:], weights["kernel.kernels.1.weight"][0]
    sums, kernels = [], []
    for row, column in product(range(0, h, stride), range(0, w, stride)):
        total, near = weights["bias"].expand(len(x), -1), []
        for tap, (down, right) in enumerate(product(range(taps), range(taps))):
            r, c = row + dilation * (down - taps // 2), column + dilation * (right - taps // 2)
            inside = 0 <= r < h and 0 <= c < w
            there = guide[:, :, r, c] if inside else torch.zeros_like(guide[:, :, 0, 0])
            likeness = (-((guide[:, :, row, column] - there) ** 2).sum(1) / 2).exp()
            near.append(likeness[:, None, None] * table[:, :, tap])
            if inside:
                total = total + torch.einsum("boi,bi->bo", near[-1], x[:, :, r, c])
        sums.append(total)
        kernels.append(torch.stack(near, dim=3))
    grid = outputs((h, w), stride)
    return torch.stack(sums, dim=2).unflatten(2, grid), torch.stack(kernels, dim=4).unflatten(4, grid)


GUIDED = [(3, 1, 1, (4, 5)), (5, 1, 1, (3, 4)), (3, 2, 1, (5, 6)), (3, 1, 2, (5, 4)), (3, 2, 2, (7, 4))]


@pytest.mark.oracle("pixel_adaptive_conv")
@pytest.mark.parametrize(("taps", "stride", "dilation", "size"), GUIDED)
def test_pixel_adaptive_convolution_is_that_of_its_paper(taps: int, stride: int, dilation: int, size: Size) -> None:
    layer = drawn(zoo.pixel_adaptive_conv(taps, stride=stride, dilation=dilation).build(WIDTH, 5))
    assert_is(
        lambda weights, x: guided_convolution(weights, x, x, taps, stride, dilation)[0], layer, 0.4 * image(*size)
    )


@pytest.mark.oracle("pixel_adaptive_conv")
@pytest.mark.parametrize(("taps", "stride", "dilation", "size"), GUIDED)
def test_pixel_adaptive_convolution_is_guided_by_a_second_input(
    taps: int, stride: int, dilation: int, size: Size
) -> None:
    operator = zoo.pixel_adaptive_conv(taps, stride=stride, dilation=dilation)
    layer = drawn(operator.build(WIDTH, 6, guide_channels=3))
    x, guide = image(*size), 0.5 * image(*size, channels=3)
    assert_is(
        lambda weights, x, guide: guided_convolution(weights, x, guide, taps, stride, dilation)[0], layer, x, guide
    )
    _, found = layer(x, guide, return_kernel=True)
    _, expected = guided_convolution(dict(layer.named_parameters()), x, guide, taps, stride, dilation)
    torch.testing.assert_close(found[:, 0], expected, **EXACT)


SEQUENCES = [(3, "causal"), (4, "causal"), (7, "causal"), (3, "centre"), (5, "centre")]


@pytest.mark.oracle("lightweight_conv")
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("heads", [1, 2, 8])
@pytest.mark.parametrize(("taps", "padding"), SEQUENCES)
@pytest.mark.parametrize("length", [6, 9])
def test_lightweight_convolution_is_a_convolution_with_shares(
    heads: int, taps: int, padding: str, length: int, stride: int
) -> None:
    layer = drawn(zoo.lightweight_conv(taps, heads, padding=padding).strided(stride).build(WIDTH))

    def oracle(weights: Weights, x: Tensor) -> Tensor:
        shares = weights["kernel.kernel.weight"][:, 0, 0].softmax(1).repeat_interleave(WIDTH // heads, dim=0)
        margins = (taps - 1, 0) if padding == "causal" else (taps // 2, taps // 2)
        return F.conv1d(F.pad(x, margins), shares[:, None], groups=WIDTH, stride=stride)

    assert_is(oracle, layer, image(length))


@pytest.mark.oracle("dynamic_conv1d")
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("heads", [1, 2, 8])
@pytest.mark.parametrize(("taps", "padding"), SEQUENCES)
@pytest.mark.parametrize("length", [6, 9])
def test_dynamic_convolution_of_sequences_is_that_of_its_paper(
    heads: int, taps: int, padding: str, length: int, stride: int
) -> None:
    """Each element makes its own shares; what they give to elements before the first is lost."""
    layer = drawn(zoo.dynamic_conv1d(taps, heads, padding=padding).strided(stride).build(WIDTH))
    last = 0 if padding == "causal" else taps // 2

    def oracle(weights: Weights, x: Tensor) -> Tensor:
        places = range(0, length, stride)
        # the elements that an output stands for: up to its own where nothing to come may be seen, else from its own
        first = 1 - stride if padding == "causal" else 0
        tiles = [x[..., max(t + first, 0) : t + first + stride].mean(2) for t in places]
        logits = projected(torch.stack(tiles, dim=2), weights, "kernel.kernel.span")
        shares = logits.unflatten(1, (heads, taps)).softmax(2)
        values, elements = x.unflatten(1, (heads, -1)), []
        for number, t in enumerate(places):
            total = torch.zeros_like(values[..., 0])
            for tap in range(taps):
                seen = t + last - taps + 1 + tap
                if 0 <= seen < length:
                    total = total + shares[:, :, tap, number, None] * values[..., seen]
            elements.append(total)
        return torch.stack(elements, dim=3).flatten(1, 2)

    assert_is(oracle, layer, image(length))


def generated_in_loops(weights: Weights, x: Tensor, groups: int, taps: int, stride: int, training: bool) -> Tensor:
    """Involution on any grid, pixel by pixel: K = W1 relu(BN(W0 context)) + b1, then the sum over the window."""
    size, dims = x.shape[2:], x.dim() - 2
    pixels = list(product(*(range(0, length, stride) for length in size)))
    tiles = [x[(..., *(slice(place, place + stride) for place in pixel))].flatten(2).mean(2) for pixel in pixels]
    hidden = projected(torch.stack(tiles, dim=2), weights, "kernel.reduce")
    hidden = normalised(hidden, weights, "kernel.norm", training).relu()
    kernels = projected(hidden, weights, "kernel.span").unflatten(1, (groups, taps**dims))  # b g k p
    sums = []
    for number, pixel in enumerate(pixels):
        total = torch.zeros_like(x[(..., *pixel)]).unflatten(1, (groups, -1))
        for tap, steps in enumerate(product(range(taps), repeat=dims)):
            place = [here + step - taps // 2 for here, step in zip(pixel, steps, strict=True)]
            if all(0 <= each < length for each, length in zip(place, size, strict=True)):
                seen = x[(..., *place)].unflatten(1, (groups, -1))
                total = total + kernels[:, :, tap, number, None] * seen
        sums.append(total.flatten(1))
    assert len(sums) == prod(outputs(size, stride))
    return torch.stack(sums, dim=2).unflatten(2, outputs(size, stride))


GRIDS = [
    (3, 1, (6,)),
    (5, 1, (7,)),
    (3, 2, (8,)),
    (7, 2, (9,)),
    (3, 1, (4, 5)),
    (5, 2, (5, 6)),
    (3, 1, (2, 3, 4)),
    (3, 2, (3, 4, 2)),
    (3, 3, (4, 2, 5)),
]


@pytest.mark.oracle("involution")
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("taps", "stride", "size"), GRIDS)
def test_involution_is_that_of_its_formula_on_every_grid(taps: int, stride: int, size: Size, training: bool) -> None:
    operator = zoo.involution(taps, group_channels=4, reduction=2, stride=stride, dims=len(size))
    layer = drawn(operator.build(WIDTH)).train(training)
    assert_is(lambda weights, x: generated_in_loops(weights, x, 2, taps, stride, training), layer, image(*size))


@pytest.mark.oracle("dynamic_depthwise")
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("taps", "stride", "size"), GRIDS)
def test_dynamic_depthwise_convolution_is_that_of_its_formula_on_every_grid(
    taps: int, stride: int, size: Size, training: bool
) -> None:
    operator = zoo.dynamic_depthwise(taps, reduction=2, stride=stride, context="pixel", dims=len(size))
    layer = drawn(operator.build(WIDTH)).train(training)
    assert_is(lambda weights, x: generated_in_loops(weights, x, WIDTH, taps, stride, training), layer, image(*size))
