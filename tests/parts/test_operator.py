"""Operators: projections, bias, guide, memory formats, autocast and compilation."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynops.ops import Window
from dynops.parts import Channels, Dynamic, Operator, Project, Static, softmax, zoo

Settle = Callable[[nn.Module], nn.Module]
BASE = Operator(kernel=Static(), channels=Channels("g"), window=Window(3))
OPERATORS = {
    "convolution": zoo.conv2d(bias=True),
    "involution": zoo.involution(kernel_size=3, group_channels=4),
    "strided involution": zoo.involution(kernel_size=3, group_channels=4, stride=2),
    "keras": zoo.involution_keras(channel=8, group_number=2, stride=2),
    "constant": zoo.dynamic_depthwise(kernel_size=3, context="constant"),
    "window": Operator(kernel=Dynamic(context="window"), channels=Channels("i -> o"), window=Window(3)),
    "sum": replace(BASE, kernel=(Static() + Dynamic(context="global", shared="g")).then(softmax), value=Project()),
}


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def test_value_and_output_are_projected_around_the_sum() -> None:
    layer = replace(BASE, value=Project(), out=Project(bias=True)).build(8, 5).double()
    x = torch.randn(2, 8, 5, 6, dtype=torch.float64)
    value = torch.einsum("oc,bchw->bohw", layer.value.weight[..., 0, 0], x)
    summed = F.conv2d(value, layer.kernel.weight.view(8, 1, 3, 3), padding=1, groups=8)
    expected = torch.einsum("oc,bchw->bohw", layer.out.weight[..., 0, 0], summed) + layer.out.bias.view(5, 1, 1)
    torch.testing.assert_close(layer(x), expected)
    assert layer.value.bias is None


def test_output_projection_gives_any_width_and_that_of_the_input_by_default() -> None:
    spec = Operator(kernel=Static(), channels=Channels("s -> (o s)", o=3), window=Window(3), out=Project())
    assert spec.build(4, 7)(torch.zeros(1, 4, 5, 5)).shape == (1, 7, 5, 5)
    assert spec.build(4)(torch.zeros(1, 4, 5, 5)).shape == (1, 4, 5, 5)
    assert spec.describe(4, (5, 5), 7).output == (7, 5, 5)


def test_kernel_is_made_from_the_input_and_not_from_the_value() -> None:
    plain, projected = zoo.involution(group_channels=4), replace(zoo.involution(group_channels=4), value=Project())
    one, other = plain.build(8).eval(), projected.build(8).eval()
    other.kernel.load_state_dict(one.kernel.state_dict())
    x = torch.randn(2, 8, 5, 5)
    assert torch.equal(one(x, return_kernel=True)[1], other(x, return_kernel=True)[1])


def test_bias_is_added_to_every_channel_of_the_sum() -> None:
    layer = replace(BASE, bias=True).build(8)
    x = torch.randn(2, 8, 5, 5)
    y = layer(x)
    with torch.no_grad():
        bias = layer.bias.clone()
        layer.bias.zero_()
        torch.testing.assert_close(y, layer(x) + bias.view(1, 8, 1, 1))
    assert bias.abs().min() > 0


def test_kernel_that_is_constant_along_o_gives_all_outputs_one_sum() -> None:
    layer = Operator(kernel=Static(shared="o"), channels=Channels("i -> o"), window=Window(3), bias=True).build(8, 6)
    x = torch.randn(2, 8, 5, 5)
    y = layer(x) - layer.bias.view(1, 6, 1, 1)
    one = F.conv2d(x, layer.kernel.weight.view(1, 8, 3, 3), padding=1)
    torch.testing.assert_close(y, one.expand(2, 6, 5, 5))
    assert layer.spec.describe(8, (5, 5), 6).output == (6, 5, 5)


def test_guide_makes_the_kernel_and_the_input_is_summed() -> None:
    guided = Operator(kernel=Dynamic(context="pixel", hidden=4), channels=Channels("g"), window=Window(3))
    layer = guided.build(8, guide_channels=3).eval()
    x, guide = torch.randn(2, 8, 5, 6), torch.randn(2, 3, 5, 6)
    y, kernel = layer(x, guide, return_kernel=True)
    assert torch.equal(layer(2 * x, guide, return_kernel=True)[1], kernel)
    torch.testing.assert_close(layer(2 * x, guide), 2 * y)
    assert not torch.allclose(layer(x, 2 * guide), y)
    assert layer.kernel.reduce.in_channels == 3


def test_input_that_guides_itself_gives_the_unguided_operator() -> None:
    spec = zoo.involution(kernel_size=3, group_channels=4)
    guided, plain = spec.build(8, guide_channels=8).eval(), spec.build(8).eval()
    guided.load_state_dict(plain.state_dict())
    x = torch.randn(2, 8, 5, 6)
    assert torch.equal(guided(x, x), plain(x))


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("training", [False, True])
def test_channels_last_gives_the_same(name: str, training: bool) -> None:
    layer = OPERATORS[name].build(8).double().train(training)
    x = torch.randn(2, 8, 7, 6, dtype=torch.float64)
    turned = x.to(memory_format=torch.channels_last)
    assert turned.stride() != x.stride()
    torch.testing.assert_close(layer(turned), layer(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", OPERATORS)
def test_autocast_is_close_and_its_gradients_are_finite(name: str, settled: Settle) -> None:
    layer = settled(OPERATORS[name].build(8))
    x = torch.randn(2, 8, 7, 6)
    exact = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    # every product may lose 2^-8 of its size, in each of the layers in a row
    assert (y - exact).abs().mean() < 2**-6 * exact.abs().mean()
    y.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize("name", OPERATORS)
def test_module_in_half_precision_gives_half_precision(name: str, settled: Settle) -> None:
    layer = settled(OPERATORS[name].build(8))
    x = torch.randn(2, 8, 7, 6).bfloat16()
    exact = layer(x.float())
    y = layer.bfloat16()(x)
    assert y.dtype == torch.bfloat16
    assert (y - exact).abs().mean() < 2**-5 * exact.abs().mean()


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("name", OPERATORS)
def test_operator_compiles_in_one_graph(name: str) -> None:
    layer = OPERATORS[name].build(8).train()
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    x = torch.randn(2, 8, 7, 6)
    torch.testing.assert_close(compiled(x), layer(x))


@pytest.mark.usefixtures("fresh_compiler")
def test_guided_operator_compiles_in_one_graph_with_its_kernel() -> None:
    spec = Operator(kernel=Dynamic(context="position"), channels=Channels("g"), window=Window(3))
    layer = spec.build(8, guide_channels=4, size=(5, 6)).eval()
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    x, guide = torch.randn(2, 8, 5, 6), torch.randn(2, 4, 5, 6)
    for found, expected in zip(
        compiled(x, guide, return_kernel=True), layer(x, guide, return_kernel=True), strict=True
    ):
        torch.testing.assert_close(found, expected)


def test_module_prints_the_spec_that_made_it() -> None:
    layer = zoo.depthwise().build(8)
    assert repr(layer.spec) in repr(layer)
    assert "channels=8" in repr(layer)
    assert layer.spec == zoo.depthwise()


def test_same_seed_builds_the_same_weights() -> None:
    def built(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        return OPERATORS["sum"].build(8).state_dict()

    assert all(torch.equal(one, built(1)[name]) for name, one in built(1).items())
    assert any(not torch.equal(one, built(2)[name]) for name, one in built(1).items())
