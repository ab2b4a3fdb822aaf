"""The published operators against their papers' and authors' formulas, written anew and given the same weights."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynops.ops import Window
from dynops.parts import LocalOperator, Operator, zoo
from dynops.parts.context import average_to_grid

Settle = Callable[[nn.Module], nn.Module]
EXACT = {"rtol": 1e-10, "atol": 1e-10}


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


def keras_patches(x: np.ndarray, size: int, stride: int) -> np.ndarray:
    """`tf.image.extract_patches` with padding SAME: `b h w c` to `b h' w' (k c)`, taps before channels."""
    padded, starts = x, []
    for axis in (1, 2):
        length = x.shape[axis]
        total = max(size - stride if length % stride == 0 else size - length % stride, 0)
        margin = [(0, 0)] * 4
        margin[axis] = (total // 2, total - total // 2)
        padded = np.pad(padded, margin)
        starts.append(range(0, length, stride))
    rows = [
        np.stack([padded[:, r : r + size, c : c + size].reshape(len(x), -1) for c in starts[1]], 1) for r in starts[0]
    ]
    return np.stack(rows, 1)


def keras_involution(x: np.ndarray, layer: LocalOperator, size: int, stride: int, groups: int) -> tuple:
    """The example's layer on `b h w c`, with the weights of ours; gives the output and the kernel `b h w k 1 g`."""
    phi = {name: each.detach().numpy() for name, each in layer.kernel.state_dict().items()}
    b, height, width, channels = x.shape
    height, width = height // stride, width // stride
    pooled = x[:, : height * stride, : width * stride].reshape(b, height, stride, width, stride, channels).mean((2, 4))
    hidden = pooled @ phi["reduce.weight"][..., 0, 0].T + phi["reduce.bias"]
    mean, variance = phi["norm.running_mean"], phi["norm.running_var"]
    if layer.training:
        mean, variance = hidden.mean((0, 1, 2)), hidden.var((0, 1, 2))
    hidden = (hidden - mean) / np.sqrt(variance + 1e-3) * phi["norm.weight"] + phi["norm.bias"]
    flat = np.maximum(hidden, 0) @ phi["span.weight"][..., 0, 0].T + phi["span.bias"]
    kernel = flat.reshape(b, height, width, size * size, 1, groups)
    patches = keras_patches(x, size, stride)
    patches = patches.reshape(b, height, width, size * size, channels // groups, groups)
    return (kernel * patches).sum(3).reshape(b, height, width, channels), kernel


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [2, 3, 4, 5])
@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (1, 3), (2, 1), (2, 3), (3, 2)])
def test_keras_involution_is_that_of_the_example(
    size: int, stride: int, groups: int, training: bool, settled: Settle
) -> None:
    operator = zoo.involution_keras(channel=6, group_number=groups, kernel_size=size, stride=stride, reduction_ratio=2)
    layer = settled(operator.build(6).double()).train(training)
    x = torch.randn(2, 6, 12, 6, dtype=torch.float64)
    expected, kernel = keras_involution(x.permute(0, 2, 3, 1).numpy(), layer, size, stride, groups)
    y, ours = layer(x, return_kernel=True)
    torch.testing.assert_close(y.permute(0, 2, 3, 1), torch.from_numpy(expected), **EXACT)
    torch.testing.assert_close(ours[:, :, 0, 0].permute(0, 3, 4, 2, 1), torch.from_numpy(kernel[..., 0, :]), **EXACT)


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


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("out_channels", [8, 12])
def test_convolution_is_that_of_torch(name: str, out_channels: int) -> None:
    operator, options = CONVOLUTIONS[name]
    if options.get("groups") == 8:
        out_channels = 8
    theirs = nn.Conv2d(8, out_channels, **options).double()
    ours = operator.build(8, out_channels).double()
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    with torch.no_grad():
        ours.kernel.weight.copy_(theirs.weight.reshape(ours.kernel.weight.shape))
        if ours.bias is not None:
            ours.bias.copy_(theirs.bias)
    x = torch.randn(2, 8, 9, 10, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x), **EXACT)


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


def test_shared_depthwise_is_depthwise_with_repeated_weights() -> None:
    shared = zoo.shared_depthwise(kernel_size=5, group_channels=4, stride=2).build(12).double()
    depthwise = zoo.depthwise(kernel_size=5, stride=2).build(12).double()
    with torch.no_grad():
        depthwise.kernel.weight.copy_(shared.kernel.weight.repeat_interleave(4, dim=0))
    x = torch.randn(2, 12, 7, 8, dtype=torch.float64)
    torch.testing.assert_close(shared(x), depthwise(x), **EXACT)


def test_dynamic_depthwise_is_involution_with_a_group_for_each_channel() -> None:
    dynamic, involution = zoo.dynamic_depthwise().build(8).eval(), zoo.involution(group_channels=1).build(8).eval()
    involution.load_state_dict(dynamic.state_dict())
    x = torch.randn(2, 8, 6, 6)
    assert torch.equal(dynamic(x), involution(x))


def test_global_dynamic_depthwise_is_a_depthwise_convolution_of_each_image(settled: Settle) -> None:
    layer = settled(zoo.dynamic_depthwise(kernel_size=3, context="global").build(8).double())
    x = torch.randn(3, 8, 6, 5, dtype=torch.float64)
    phi = layer.kernel
    for image, found in zip(x, layer(x), strict=True):
        hidden = F.relu(phi.norm(phi.reduce(image.mean((1, 2)).view(1, 8, 1, 1))))
        weight = phi.span(hidden).view(8, 1, 3, 3)
        torch.testing.assert_close(found, F.conv2d(image[None], weight, padding=1, groups=8)[0], **EXACT)
