"""Pixel-adaptive convolution and mixtures of kernels against loops, torch and each other."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dynops.errors import SpecError
from dynops.ops import Window
from dynops.parts import (
    Channels,
    Dynamic,
    Gaussian,
    LocalOperator,
    Mixture,
    Operator,
    QueryKey,
    Sigmoid,
    Static,
    parameters,
    sigmoid,
    softmax,
)

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def assert_same_with_gradients(layer: LocalOperator, inputs: tuple[Tensor, ...], mine: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(mine, theirs, **EXACT)
    wanted, weight = (*inputs, *layer.parameters()), torch.randn_like(mine)
    for found, exact in zip(*(torch.autograd.grad(y, wanted, weight) for y in (mine, theirs)), strict=True):
        torch.testing.assert_close(found, exact, **EXACT)


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_gaussian_times_static_is_pixel_adaptive_convolution(stride: int, dilation: int) -> None:
    """y_o[p] = b_o + sum over i, d of exp(-|f[p] - f[p+d]|^2 / 2) W[o,i,d] x_i[p+d], zeros outside, the guide's too."""
    window = Window(3, stride=stride, dilation=dilation)
    operator = Operator(kernel=Gaussian() * Static(), channels=Channels("i -> o"), window=window, bias=True)
    layer = operator.build(3, 2, guide_channels=4).double()
    assert parameters(layer) == 2 * 3 * 9 + 2  # Co Ci K^2 + Co
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    guide = (0.5 * torch.randn(2, 4, 5, 6, dtype=torch.float64)).requires_grad_()
    y = layer(x, guide)
    table = layer.kernel.kernels[1].weight[0].unflatten(2, (3, 3))
    expected = torch.zeros_like(y) + layer.bias[:, None, None]
    for b, row, column in product(range(2), range(y.shape[2]), range(y.shape[3])):
        r, c = row * stride, column * stride
        for down, right in product(range(3), range(3)):
            m, n = r + dilation * (down - 1), c + dilation * (right - 1)
            if 0 <= m < 5 and 0 <= n < 6:
                alike = torch.exp(-((guide[b, :, r, c] - guide[b, :, m, n]) ** 2).sum() / 2)
                expected[b, :, row, column] += alike * (table[:, :, down, right] @ x[b, :, m, n])
    assert_same_with_gradients(layer, (x, guide), y, expected)


def test_gaussian_has_no_parameters_and_is_1_at_the_centre() -> None:
    layer = Operator(kernel=Gaussian(), channels=Channels("s"), window=Window(5)).build(6)
    weights = layer(torch.randn(2, 6, 7, 7), return_kernel=True)[1]
    assert parameters(layer) == 0
    assert weights.shape == (2, 1, 1, 1, 25, 7, 7)
    assert torch.equal(weights[:, 0, 0, 0, 12], torch.ones(2, 7, 7))
    assert weights.max() == 1


def mixture(context: str, normaliser: Sigmoid, experts: int = 4) -> Mixture:
    router = Dynamic(context=context, hidden=24, norm=None, bias=True).then(normaliser)
    return Mixture(experts=(Static(),) * experts, router=router)


@pytest.mark.parametrize("normaliser", [softmax, sigmoid, Sigmoid(temperature=30.0)], ids=repr)
@pytest.mark.parametrize("stride", [1, 2])
def test_mixture_that_images_choose_is_a_convolution_of_each_image(normaliser: Sigmoid, stride: int) -> None:
    operator = Operator(
        kernel=mixture("global", normaliser), channels=Channels("i -> o"), window=Window(3, stride=stride)
    )
    layer = operator.build(4, 6).double()
    x = torch.randn(3, 4, 7, 6, dtype=torch.float64, requires_grad=True)
    phi = layer.kernel.router.kernel
    hidden = F.relu(F.linear(x.mean((2, 3)), phi.reduce.weight[..., 0, 0], phi.reduce.bias))
    logits = F.linear(hidden, phi.span.weight[..., 0, 0], phi.span.bias)
    weights = logits.softmax(1) if normaliser == softmax else torch.sigmoid(logits / normaliser.temperature)
    images = []
    for image, weight in zip(x, weights, strict=True):
        table = sum(w * expert.weight[0] for w, expert in zip(weight, layer.kernel.experts, strict=True))
        images.append(F.conv2d(image[None], table.unflatten(2, (3, 3)), stride=stride, padding=1))
    assert_same_with_gradients(layer, (x,), layer(x), torch.cat(images))


def test_mixture_that_pixels_choose_is_the_sum_of_weighed_depthwise_convolutions() -> None:
    operator = Operator(kernel=mixture("pixel", softmax), channels=Channels("g"), window=Window(3))
    layer = operator.build(8).double()
    x = torch.randn(2, 8, 5, 6, dtype=torch.float64, requires_grad=True)
    weights = layer.kernel.router(x)[:, 0, 0, 0]
    outputs = [F.conv2d(x, expert.weight.view(8, 1, 3, 3), padding=1, groups=8) for expert in layer.kernel.experts]
    expected = sum(weights[:, e, None] * y for e, y in enumerate(outputs))
    assert_same_with_gradients(layer, (x,), layer(x), expected)


def test_mixture_has_the_parameters_of_the_probes() -> None:
    operator = Operator(kernel=mixture("pixel", softmax), channels=Channels("g"), window=Window(3))
    assert parameters(operator.build(8, guide_channels=16)) == 796


def test_mixture_with_a_constant_router_is_static() -> None:
    kernel = Mixture(experts=(Static(), Static()), router=Dynamic(context="constant", hidden=5).then(softmax))
    layer = Operator(kernel=kernel, channels=Channels("i -> o"), window=Window(3)).build(4, 6).double().eval()
    assert kernel.signature == frozenset()
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    y, weights = layer(x, return_kernel=True)
    assert weights.shape == (1, 1, 6, 4, 9, 1, 1)
    torch.testing.assert_close(y, F.conv2d(x, weights.view(6, 4, 3, 3), padding=1), **EXACT)


def test_router_counts_its_experts_at_a_masked_border_too() -> None:
    window = Window(3, border="mask")
    layer = Operator(kernel=mixture("pixel", softmax), channels=Channels("g"), window=window).build(8)
    weights = layer.kernel.router(torch.randn(2, 8, 5, 6))
    torch.testing.assert_close(weights.sum(4), torch.ones(2, 1, 1, 1, 5, 6))


def test_mistakes_are_named() -> None:
    with pytest.raises(SpecError, match=r"^experts has 1 kernels: must be two or more\.$"):
        Mixture(experts=(Static(),), router=Static())
    for router in (QueryKey(), Gaussian()):
        operator = Operator(
            kernel=Mixture(experts=(Static(), Static()), router=router), channels=Channels("g"), window=Window(3)
        )
        with pytest.raises(SpecError, match=r"^kernel has .*: it weighs the taps of a window, a router weighs"):
            operator.build(4)
