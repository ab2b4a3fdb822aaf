"""The published operators against their papers' and authors' formulas, written anew and given the same weights."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from dynops.ops import Window
from dynops.parts import LocalOperator, Operator, zoo
from dynops.parts.context import average_to_grid

Settle = Callable[[nn.Module], nn.Module]
Compare = Callable[..., None]
State = dict[str, Tensor]
EXACT = {"rtol": 1e-10, "atol": 1e-10}


def normalised(x: Tensor, state: State, training: bool, eps: float = 1e-5, momentum: float = 0.1) -> Tensor:
    parts = (state[f"kernel.norm.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *parts, training=training, momentum=momentum, eps=eps)


class PaperInvolution(nn.Module):
    """Involution as equations 4 and 6 have it: reduce, normalise, ReLU, span; then unfold, multiply and sum."""

    def __init__(self, channels: int, kernel_size: int, stride: int, group_channels: int, reduction: int) -> None:
        super().__init__()
        self.size, self.stride = kernel_size, stride
        self.groups = channels // group_channels
        self.reduce = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels // reduction)
        self.span = nn.Conv2d(channels // reduction, kernel_size**2 * self.groups, 1)

    def context(self, x: Tensor) -> Tensor:
        """Average each tile of stride by stride pixels, as far as it lies inside the image."""
        t = self.stride
        rows = [x[:, :, r : r + t].mean(2) for r in range(0, x.shape[2], t)]
        tall = torch.stack(rows, 2)
        return torch.stack([tall[..., c : c + t].mean(3) for c in range(0, x.shape[3], t)], 3)

    def forward(self, x: Tensor) -> Tensor:
        b, c = x.shape[:2]
        weight = self.span(F.relu(self.norm(self.reduce(self.context(x)))))
        h, w = weight.shape[2:]
        weight = weight.view(b, self.groups, 1, self.size**2, h, w)
        columns = F.unfold(x, self.size, padding=(self.size - 1) // 2, stride=self.stride)
        patches = columns.view(b, self.groups, c // self.groups, self.size**2, h, w)
        return (weight * patches).sum(3).view(b, c, h, w)


def paper_and_ours(settled: Settle, stride: int, kernel_size: int = 7) -> tuple[PaperInvolution, LocalOperator]:
    paper = settled(PaperInvolution(16, kernel_size, stride, 4, 2).double())
    operator = zoo.involution(kernel_size=kernel_size, group_channels=4, reduction=2, stride=stride)
    ours = operator.build(16).double().eval()
    ours.kernel.load_state_dict(paper.state_dict())
    return paper, ours


@pytest.mark.oracle("involution")
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kernel_size", [3, 7])
@pytest.mark.parametrize(
    ("stride", "size"), [(1, (8, 6)), (1, (5, 9)), (2, (8, 6)), (2, (7, 9)), (2, (8, 5)), (3, (7, 8))]
)
def test_involution_is_that_of_the_paper(
    stride: int, size: tuple[int, int], kernel_size: int, training: bool, settled: Settle
) -> None:
    pair = paper_and_ours(settled, stride, kernel_size)
    x = torch.randn(3, 16, *size, dtype=torch.float64)
    outputs, gradients = [], []
    for module in pair:
        image = x.clone().requires_grad_()
        outputs.append(module.train(training)(image))
        outputs[-1].square().sum().backward()
        gradients.append(image.grad)
    torch.testing.assert_close(outputs[1], outputs[0], **EXACT)
    torch.testing.assert_close(gradients[1], gradients[0], **EXACT)
    paper, ours = pair
    for name, parameter in paper.named_parameters():
        torch.testing.assert_close(ours.kernel.get_parameter(name).grad, parameter.grad, **EXACT)
    for name, buffer in paper.named_buffers():
        torch.testing.assert_close(ours.kernel.get_buffer(name), buffer, **EXACT)


def test_context_at_an_odd_end_is_averaged_over_the_pixels_that_exist() -> None:
    x = torch.arange(15.0).view(1, 1, 3, 5)
    expected = torch.tensor([[3.0, 5.0, 6.5], [10.5, 12.5, 14.0]])
    torch.testing.assert_close(average_to_grid(x, Window(3, stride=2))[0, 0], expected)


def test_context_with_same_padding_is_averaged_over_tiles_that_start_outside() -> None:
    # 4 columns in tiles of 3: one zero column before and one behind, so tiles hold columns 0, 1 and 2, 3
    x = torch.arange(4.0).view(1, 1, 1, 4)
    found = average_to_grid(x, Window(3, stride=(1, 3), padding="same"))
    torch.testing.assert_close(found[0, 0], torch.tensor([[0.5, 2.5]]))


def same_margin(length: int, size: int, stride: int) -> tuple[int, int]:
    """TensorFlow's padding SAME of one axis: pixels before and behind."""
    total = max(size - stride if length % stride == 0 else size - length % stride, 0)
    return total // 2, total - total // 2


def keras_patches(x: Tensor, size: int, stride: int) -> Tensor:
    """`tf.image.extract_patches` with padding SAME: `b h w c` to `b h' w' (k c)`, taps before channels."""
    rows, columns = (same_margin(length, size, stride) for length in x.shape[1:3])
    padded = F.pad(x, (0, 0, *columns, *rows))
    lines = [
        torch.stack([padded[:, r : r + size, c : c + size].flatten(1) for c in range(0, x.shape[2], stride)], 1)
        for r in range(0, x.shape[1], stride)
    ]
    return torch.stack(lines, 1)


def keras_pooled(x: Tensor, stride: int) -> Tensor:
    """`AveragePooling2D` with padding SAME: `b h w c`, means of the pixels of a tile that exist."""
    tiles = []
    for length in x.shape[1:3]:
        before, _ = same_margin(length, stride, stride)
        starts = range(-before, length, stride)[: -(-length // stride)]
        tiles.append([slice(max(start, 0), start + stride) for start in starts])
    return torch.stack([torch.stack([x[:, r, c].mean((1, 2)) for c in tiles[1]], 1) for r in tiles[0]], 1)


@pytest.mark.oracle("involution_keras")
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("image", [(12, 6), (7, 5), (4, 9)])
@pytest.mark.parametrize("size", [2, 3, 4, 5])
@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (1, 3), (2, 1), (2, 3), (3, 2)])
def test_keras_involution_is_that_of_the_example(
    size: int,
    stride: int,
    groups: int,
    image: tuple[int, int],
    training: bool,
    settled: Settle,
    assert_equal_with_gradients: Compare,
) -> None:
    def oracle(x: Tensor, state: State) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        hidden = keras_pooled(x, stride) @ state["kernel.reduce.weight"][..., 0, 0].T + state["kernel.reduce.bias"]
        hidden = normalised(hidden.flatten(0, 2), state, training, eps=1e-3, momentum=0.01).relu()
        flat = hidden @ state["kernel.span.weight"][..., 0, 0].T + state["kernel.span.bias"]
        patches = keras_patches(x, size, stride)
        kernel = flat.reshape(*patches.shape[:3], size * size, 1, groups)
        patches = patches.reshape(*patches.shape[:3], size * size, 6 // groups, groups)
        return (kernel * patches).sum(3).flatten(3).permute(0, 3, 1, 2)

    operator = zoo.involution_keras(channel=6, group_number=groups, kernel_size=size, stride=stride, reduction_ratio=2)
    layer = settled(operator.build(6).double()).train(training)
    # batch statistics take the mean away, and with it a bias
    unseen = ("kernel.reduce.bias",) if training else ()
    assert_equal_with_gradients(layer, oracle, torch.randn(2, 6, *image, dtype=torch.float64), unseen)


def test_keras_involution_keeps_the_moving_average_of_keras() -> None:
    layer = zoo.involution_keras(channel=3).build(3).train()
    layer(torch.randn(4, 3, 6, 6))
    norm = layer.kernel.norm
    assert norm.eps == 1e-3
    # Keras: moving = 0.99 * moving + 0.01 * batch
    assert norm.momentum == pytest.approx(1 - 0.99)
    assert norm.running_var.sub(0.99).abs().max() < 0.1


CONVOLUTIONS = {
    "plain": (zoo.conv2d(), {"kernel_size": 3, "padding": 1, "bias": False}),
    "biased": (zoo.conv2d(bias=True), {"kernel_size": 3, "padding": 1}),
    "strided": (zoo.conv2d(kernel_size=5, stride=2), {"kernel_size": 5, "padding": 2, "stride": 2, "bias": False}),
    "dilated": (zoo.conv2d(dilation=2), {"kernel_size": 3, "padding": 2, "dilation": 2, "bias": False}),
    "grouped": (zoo.conv2d(groups=2, bias=True), {"kernel_size": 3, "padding": 1, "groups": 2}),
    "pointwise": (zoo.conv2d(kernel_size=1, stride=2), {"kernel_size": 1, "stride": 2, "bias": False}),
    "depthwise": (zoo.depthwise(bias=True), {"kernel_size": 3, "padding": 1, "groups": 8}),
    "wide depthwise": (
        zoo.depthwise(kernel_size=7, stride=2, dilation=2),
        {"kernel_size": 7, "padding": 6, "stride": 2, "dilation": 2, "groups": 8, "bias": False},
    ),
}


@pytest.mark.oracle("conv2d", "depthwise")
@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("out_channels", [8, 12])
@pytest.mark.parametrize("size", [(9, 10), (5, 4), (1, 2)])
def test_convolution_is_that_of_torch(
    name: str, out_channels: int, size: tuple[int, int], assert_equal_with_gradients: Compare
) -> None:
    operator, options = CONVOLUTIONS[name]
    if options.get("groups") == 8:
        out_channels = 8
    theirs = nn.Conv2d(8, out_channels, **options).double()
    ours = operator.build(8, out_channels).double()
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())

    def oracle(x: Tensor, state: State) -> Tensor:
        weights = {"weight": state["kernel.weight"].view_as(theirs.weight)}
        weights |= {"bias": state["bias"]} if "bias" in state else {}
        return functional_call(theirs, weights, x)

    assert_equal_with_gradients(ours, oracle, torch.randn(2, 8, *size, dtype=torch.float64))


@pytest.mark.parametrize("operator", [zoo.conv2d(groups=2, bias=True), zoo.depthwise(kernel_size=5, bias=True)])
def test_convolution_starts_as_that_of_torch(operator: Operator) -> None:
    ours = operator.build(64, 64)
    groups, taps = (2, 9) if operator == zoo.conv2d(groups=2, bias=True) else (64, 25)
    theirs = nn.Conv2d(64, 64, int(taps**0.5), groups=groups)
    bound = (64 / groups * taps) ** -0.5
    for mine, other in ((ours.kernel.weight, theirs.weight), (ours.bias, theirs.bias)):
        for each in (mine, other):
            assert 0.9 * bound < each.abs().max() <= bound
        assert abs(mine.mean()) < bound / 4


@pytest.mark.oracle("shared_depthwise", "depthwise")
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("size", [(9,), (7, 8), (3, 4, 5)])
@pytest.mark.parametrize("group_channels", [1, 4, 12])
def test_shared_depthwise_is_that_of_torch_with_repeated_weights(
    group_channels: int, size: tuple[int, ...], kernel_size: int, stride: int, assert_equal_with_gradients: Compare
) -> None:
    def oracle(x: Tensor, state: State) -> Tensor:
        weight = state["kernel.weight"].view(-1, 1, *(kernel_size,) * len(size)).repeat_interleave(group_channels, 0)
        convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(size)]
        return convolve(x, weight, stride=stride, padding=kernel_size // 2, groups=12)

    shared = zoo.shared_depthwise(kernel_size, group_channels, stride, dims=len(size))
    own = zoo.depthwise(kernel_size, stride, dims=len(size))
    x = torch.randn(2, 12, *size, dtype=torch.float64)
    for operator in (shared, own) if group_channels == 1 else (shared,):
        assert_equal_with_gradients(operator.build(12).double(), oracle, x)


def test_dynamic_depthwise_is_involution_with_a_group_for_each_channel() -> None:
    dynamic, involution = zoo.dynamic_depthwise().build(8).eval(), zoo.involution(group_channels=1).build(8).eval()
    involution.load_state_dict(dynamic.state_dict())
    x = torch.randn(2, 8, 6, 6)
    assert torch.equal(dynamic(x), involution(x))


@pytest.mark.oracle("dynamic_depthwise")
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("stride", "size"), [(1, (6, 5)), (2, (6, 4)), (2, (7, 5)), (3, (7, 8))])
def test_global_dynamic_depthwise_is_a_depthwise_convolution_of_each_image(
    stride: int, size: tuple[int, int], training: bool, settled: Settle, assert_equal_with_gradients: Compare
) -> None:
    def oracle(x: Tensor, state: State) -> Tensor:
        hidden = F.linear(x.mean((2, 3)), state["kernel.reduce.weight"].flatten(1))
        hidden = normalised(hidden, state, training).relu()
        weights = F.linear(hidden, state["kernel.span.weight"].flatten(1), state["kernel.span.bias"])
        weights = weights.view(-1, 1, 3, 3)
        y = F.conv2d(x.view(1, -1, *size), weights, stride=stride, padding=1, groups=len(weights))
        return y.view(len(x), 8, *y.shape[2:])

    layer = settled(zoo.dynamic_depthwise(3, stride=stride, context="global").build(8).double()).train(training)
    assert_equal_with_gradients(layer, oracle, torch.randn(3, 8, *size, dtype=torch.float64))


@pytest.mark.oracle("involution", "dynamic_depthwise")
@pytest.mark.parametrize("border", ["zeros", "mask", "reflect", "replicate", "circular"])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("groups", [2, 8])
def test_involution_continues_the_image_as_torch_pads_it(
    groups: int, stride: int, dilation: int, border: str, settled: Settle, assert_equal_with_gradients: Compare
) -> None:
    def oracle(x: Tensor, state: State) -> Tensor:
        hidden = F.conv2d(F.avg_pool2d(x, stride, ceil_mode=True), state["kernel.reduce.weight"])
        hidden = normalised(hidden, state, False).relu()
        kernel = F.conv2d(hidden, state["kernel.span.weight"], state["kernel.span.bias"]).unflatten(1, (groups, 1, 9))
        mode = {"zeros": "constant", "mask": "constant"}.get(border, border)
        columns = F.unfold(F.pad(x, (dilation,) * 4, mode=mode), 3, stride=stride, dilation=dilation)
        patches = columns.view(len(x), groups, 8 // groups, 9, *kernel.shape[4:])
        return (kernel * patches).sum(3).flatten(1, 2)

    own = zoo.dynamic_depthwise() if groups == 8 else zoo.involution(group_channels=4)
    operator = replace(own, window=Window(3, stride=stride, dilation=dilation, border=border))
    layer = settled(operator.build(8).double())
    assert_equal_with_gradients(layer, oracle, torch.randn(2, 8, 7, 6, dtype=torch.float64))
