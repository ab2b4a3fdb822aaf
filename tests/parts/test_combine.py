"""Layers in series and in parallel: outputs, widths, strides, costs, text, guides and mistakes."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dynops
from dynops.errors import ShapeError, SpecError
from dynops.ops import Global, Window
from dynops.parts import (
    BatchNorm,
    Channels,
    Dynamic,
    Layer,
    Operator,
    Project,
    QueryKey,
    Static,
    macs,
    parameters,
    softmax,
    zoo,
)
from dynops.parts import combine as combine_module
from dynops.parts.combine import Parallel, Pointwise, Series
from dynops.specs import Spec

DENSE = zoo.conv2d(bias=True)
DEPTHWISE = zoo.depthwise(kernel_size=5)
POSITION = Operator(kernel=Dynamic(context="position", reduction=2), channels=Channels("g"), window=Window(3))
PIXEL = replace(POSITION, kernel=Dynamic(context="pixel", hidden=3))
FANNED = Operator(kernel=Static(), channels=Channels("s -> (o s)", o=2), window=Window(3))
ATTENTION = Operator(kernel=QueryKey().then(softmax), channels=Channels("(g s)", g=2), window=Global(), value=Project())
LAYERS: dict[str, Layer] = {
    "two": Series(layers=(DENSE, DEPTHWISE)),
    "block": Series(layers=(DEPTHWISE, Pointwise(activation="gelu", norm=BatchNorm()), DENSE)),
    "activation last": Series(layers=(FANNED, Pointwise(norm=BatchNorm(eps=1e-3)))),
    "positions": Series(layers=(zoo.conv2d(stride=2), POSITION, Pointwise(activation="identity"))),
    "sum": Parallel(layers=(DENSE, PIXEL)),
    "concat": Parallel(layers=(DENSE, FANNED), merge="concat"),
    "gate": Parallel(layers=(DENSE, DEPTHWISE, PIXEL), merge="gate", reduction=2),
    "nested": Series(layers=(Parallel(layers=(DENSE, FANNED), merge="concat"), Pointwise(), zoo.conv2d(kernel_size=1))),
    "convolution beside attention": Parallel(layers=(DENSE, ATTENTION)),
}
SIZE = (6, 7)


def features(channels: int = 4, batch: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, *SIZE, generator=generator, dtype=torch.float64)


def built(layer: Layer, *widths: int, **arguments: Any) -> Any:
    return layer.build(*(widths or (4,)), **{"size": SIZE} | arguments).double()


def convolved(operator: nn.Module, x: Tensor, groups: int, stride: int = 1) -> Tensor:
    """A static operator's sum, by torch alone."""
    taps = operator.spec.window.size
    weight = operator.kernel.weight  # g o i k
    weight = weight.reshape(-1, weight.shape[2], taps, taps)
    bias = None if operator.bias is None else operator.bias
    return F.conv2d(x, weight, bias, stride=stride, padding=taps // 2, groups=groups)


def check(layer: nn.Module, y: Tensor, expected: Tensor) -> None:
    """Compare outputs and the gradient of every parameter."""
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
    names, tensors = zip(*layer.named_parameters(), strict=True)
    weight = torch.randn_like(y)
    for name, found, right in zip(
        names, torch.autograd.grad(y, tensors, weight), torch.autograd.grad(expected, tensors, weight), strict=True
    ):
        torch.testing.assert_close(found, right, rtol=1e-10, atol=1e-10, msg=name)


def test_series_is_one_layer_after_another() -> None:
    spec = Series(layers=(DENSE, Pointwise(norm=BatchNorm()), DEPTHWISE, Pointwise(activation="tanh"), DENSE))
    layer, x = built(spec, 4, 6), features()
    first, norm, second, last = layer.layers[0], layer.layers[1].norm, layer.layers[2], layer.layers[4]
    hidden = convolved(first, x, 1)
    mean, variance = hidden.mean((0, 2, 3), keepdim=True), hidden.var((0, 2, 3), unbiased=False, keepdim=True)
    hidden = (hidden - mean) / (variance + 1e-5).sqrt() * norm.weight.view(1, 4, 1, 1) + norm.bias.view(1, 4, 1, 1)
    expected = convolved(last, torch.tanh(convolved(second, hidden.clamp(min=0), 4)), 1)
    assert expected.shape == (2, 6, *SIZE)
    check(layer, layer(x), expected)


def test_sum_adds_the_branches() -> None:
    layer, x = built(Parallel(layers=(DENSE, DEPTHWISE))), features()
    check(layer, layer(x), convolved(layer.layers[0], x, 1) + convolved(layer.layers[1], x, 4))


def test_concat_puts_one_branch_behind_the_other() -> None:
    layer, x = built(Parallel(layers=(DENSE, DEPTHWISE), merge="concat"), 4, 8), features()
    expected = torch.cat([convolved(layer.layers[0], x, 1), convolved(layer.layers[1], x, 4)], dim=1)
    check(layer, layer(x), expected)


@pytest.mark.parametrize("training", [True, False])
def test_gate_weighs_branches_as_selective_kernel_networks_do(training: bool) -> None:
    layer, x = built(Parallel(layers=(DENSE, DEPTHWISE), merge="gate", reduction=2)).train(training), features()
    gate = layer.merge
    with torch.no_grad():
        gate.norm.running_mean.uniform_(-0.1, 0.1)
        gate.norm.running_var.uniform_(0.5, 2)
    one, other = convolved(layer.layers[0], x, 1), convolved(layer.layers[1], x, 4)
    s = (one + other).mean((2, 3))  # eq. 1 and 2
    z = s @ gate.reduce.weight[:, :, 0, 0].T
    mean, variance = (z.mean(0), z.var(0, unbiased=False)) if training else (gate.norm.running_mean, None)
    variance = gate.norm.running_var if variance is None else variance
    mean, variance = mean.clone(), variance.clone()
    z = ((z - mean) / (variance + 1e-5).sqrt() * gate.norm.weight + gate.norm.bias).clamp(min=0)  # eq. 3
    a, b = (z @ gate.span.weight[:, :, 0, 0].T).split(4, dim=1)
    share = torch.exp(a) / (torch.exp(a) + torch.exp(b))  # eq. 5
    expected = share[:, :, None, None] * one + (1 - share)[:, :, None, None] * other  # eq. 6
    assert gate.reduce.weight.shape[0] == 2
    check(layer, layer(x), expected)


def test_gate_of_equal_branches_gives_the_branch() -> None:
    layer, x = built(Parallel(layers=(DENSE, DENSE, DENSE), merge="gate")), features()
    for branch in layer.layers[1:]:
        branch.load_state_dict(layer.layers[0].state_dict())
    torch.testing.assert_close(layer(x), layer.layers[0](x), rtol=1e-10, atol=1e-10)


def test_gate_trains_on_one_image() -> None:
    layer = built(Parallel(layers=(DENSE, DEPTHWISE), merge="gate")).train()
    layer(features(batch=1)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())


@pytest.mark.parametrize("name", LAYERS)
def test_gradient_reaches_every_parameter(name: str) -> None:
    layer = built(LAYERS[name])
    layer(features(batch=3)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in layer.parameters())


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        ("relu", nn.ReLU()),
        ("gelu", nn.GELU()),
        ("silu", nn.SiLU()),
        ("sigmoid", nn.Sigmoid()),
        ("tanh", nn.Tanh()),
        ("identity", nn.Identity()),
    ],
)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_pointwise_is_a_norm_and_an_activation(activation: str, expected: nn.Module, dims: int) -> None:
    norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dims - 1](3, eps=0.1, momentum=0.5).double()
    layer = Pointwise(activation=activation, norm=BatchNorm(eps=0.1, momentum=0.5), dims=dims).build(3).double()
    x = torch.randn(2, 3, *(4, 5, 2)[:dims], dtype=torch.float64)
    for training in (True, False):
        y = layer.train(training)(x)
        torch.testing.assert_close(y, expected(norm.train(training)(x)), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(layer.norm.running_var, norm.running_var)
    bare = Pointwise(activation=activation, dims=dims).build(3)
    assert torch.equal(bare(x), expected(x))


WIDTHS = {
    # layer, channels, out_channels, the width of each inner output, that of the last
    "kept": (Series(layers=(DENSE, DEPTHWISE)), 4, None, [4, 4]),
    "last": (Series(layers=(DEPTHWISE, DENSE)), 4, 6, [4, 6]),
    "fanned": (Series(layers=(FANNED, FANNED, DENSE)), 4, 3, [8, 16, 3]),
    "activation keeps the last width": (Series(layers=(FANNED, DENSE, Pointwise())), 4, 3, [8, 3, 3]),
    "projected": (Series(layers=(replace(FANNED, out=Project()), DENSE)), 4, None, [4, 4]),
    "nested": (Series(layers=(Series(layers=(FANNED, Pointwise())), DEPTHWISE)), 4, None, [8, 8]),
    "concat inside": (Series(layers=(Parallel(layers=(DENSE, FANNED), merge="concat"), DENSE)), 4, 5, [12, 5]),
    "concat": (Parallel(layers=(DENSE, FANNED), merge="concat"), 4, None, [4, 8]),
    "concat in equal parts": (Parallel(layers=(DENSE, FANNED), merge="concat"), 4, 16, [8, 8]),
    "sum": (Parallel(layers=(DENSE, FANNED)), 4, 8, [8, 8]),
    "gate": (Parallel(layers=(FANNED, FANNED), merge="gate"), 4, None, [8, 8]),
    "pixels alone": (Series(layers=(Pointwise(), Pointwise())), 4, 4, [4, 4]),
}


@pytest.mark.parametrize("name", WIDTHS)
@pytest.mark.parametrize("size", [SIZE, None])
def test_width_follows_from_the_parts(name: str, size: tuple[int, int] | None) -> None:
    spec, channels, out_channels, widths = WIDTHS[name]
    layer = built(spec, channels, out_channels, size=size)
    found: list[int] = []
    for each in layer.layers:
        each.register_forward_hook(lambda module, inputs, output: found.append(output.shape[1]))
    y = layer(features(channels))
    assert found == widths
    assert y.shape[1] == (sum(widths) if name.startswith("concat") and name != "concat inside" else widths[-1])


def test_finding_the_width_computes_and_draws_nothing() -> None:
    series = Series(layers=(FANNED, PIXEL, DENSE))
    torch.manual_seed(7)
    layer = series.build(4)
    torch.manual_seed(7)
    alone = [FANNED.build(4), PIXEL.build(8), DENSE.build(8)]
    for found, right in zip(layer.layers, alone, strict=True):
        for name, tensor in right.state_dict().items():
            assert torch.equal(found.state_dict()[name], tensor)


def test_grid_of_each_layer_is_the_output_of_the_one_before() -> None:
    spec = Series(layers=(zoo.conv2d(stride=2), POSITION, Pointwise(), Parallel(layers=(POSITION, DEPTHWISE))))
    layer = built(spec)
    assert layer.layers[1].kernel.context.table.shape == (1, 4, 3, 4)
    assert layer.layers[3].layers[0].kernel.context.table.shape == (1, 4, 3, 4)
    assert spec.output_size(SIZE) == (3, 4)
    assert layer(features()).shape == (2, 4, 3, 4)


def test_stride_goes_to_the_first_of_a_series_and_to_every_branch() -> None:
    x = features()
    series = Series(layers=(Pointwise(activation="silu"), DEPTHWISE, DENSE)).strided(2)
    assert series == Series(
        layers=(Pointwise(activation="silu"), replace(DEPTHWISE, window=Window(5, stride=2)), DENSE)
    )
    layer = built(series)
    check(layer, layer(x), convolved(layer.layers[2], convolved(layer.layers[1], F.silu(x), 4, stride=2), 1))
    parallel = Parallel(layers=(DENSE, DEPTHWISE), merge="gate", reduction=2).strided(2)
    assert [each.window.stride for each in parallel.layers] == [2, 2]
    assert (parallel.merge, parallel.reduction) == ("gate", 2)
    assert parallel.output_size(SIZE) == (3, 4)
    assert built(parallel)(x).shape == (2, 4, 3, 4)
    assert Pointwise().strided(1) == Pointwise()


@pytest.mark.parametrize("name", LAYERS)
def test_output_size_is_that_of_the_output(name: str) -> None:
    layer = LAYERS[name]
    assert tuple(built(layer)(features()).shape[2:]) == layer.output_size(SIZE)
    assert layer.dims == 2


@pytest.mark.parametrize("name", LAYERS)
def test_text_and_json_carry_the_layer_over(name: str) -> None:
    layer = LAYERS[name]
    assert eval(repr(layer), vars(dynops.parts) | vars(dynops.ops) | vars(combine_module)) == layer
    again = Spec.from_json(layer.to_json())
    assert again == layer
    assert hash(again) == hash(layer)
    torch.manual_seed(1)
    one = built(layer).eval()
    torch.manual_seed(1)
    other = built(again).eval()
    assert torch.equal(one(features()), other(features()))
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(features()), other(features()))


def test_signature_is_that_of_all_layers_and_a_gate_reads_the_image() -> None:
    assert Series(layers=(DENSE, Pointwise(), DEPTHWISE)).signature == frozenset()
    assert Series(layers=(DENSE, POSITION)).signature == frozenset("hw")
    assert Parallel(layers=(DENSE, PIXEL)).signature == frozenset("bhw")
    assert Parallel(layers=(DENSE, DEPTHWISE), merge="gate").signature == frozenset("b")
    assert Parallel(layers=(DENSE, POSITION), merge="gate").signature == frozenset("bhw")


H, W = SIZE
COSTS = {
    # parameters, and products of one image: dense 4 -> 4 with 3x3, depthwise 5x5, phi of a pixel
    "two": ((4 * 4 * 9 + 4) + 4 * 25, H * W * (4 * 4 * 9 + 4 * 25)),
    "block": (4 * 25 + 2 * 4 + (4 * 4 * 9 + 4), H * W * (4 * 25 + 4 * 4 * 9)),
    "activation last": (2 * 9 + 2 * 8, H * W * 8 * 9),
    "sum": (
        (4 * 4 * 9 + 4) + (4 * 3 + 2 * 3 + 3 * 36 + 36),
        H * W * (4 * 4 * 9 + 4 * 3 + 3 * 36 + 4 * 9),
    ),
    "concat": ((4 * 4 * 9 + 4) + 2 * 9, H * W * (4 * 4 * 9 + 8 * 9)),
    "gate": (
        (4 * 4 * 9 + 4) + 4 * 25 + (4 * 3 + 2 * 3 + 3 * 36 + 36) + (4 * 2 + 2 * 2 + 2 * 12),
        H * W * (4 * 4 * 9 + 4 * 25 + 4 * 3 + 3 * 36 + 4 * 9) + (4 * 2 + 2 * 12) + H * W * 3 * 4,
    ),
    "nested": ((4 * 4 * 9 + 4) + 2 * 9 + 12 * 12, H * W * (4 * 4 * 9 + 8 * 9 + 12 * 12)),
}


@pytest.mark.parametrize("name", COSTS)
def test_costs_are_those_of_the_parts(name: str) -> None:
    layer, description = LAYERS[name].build(4, size=SIZE), LAYERS[name].describe(4, SIZE)
    assert (parameters(layer), macs(layer, (1, 4, *SIZE))) == COSTS[name]
    assert (description.parameters, description.macs) == COSTS[name]
    assert macs(layer, (5, 4, *SIZE)) == 5 * COSTS[name][1]


def test_description_names_the_kernels_one_after_the_other() -> None:
    description = LAYERS["gate"].describe(4, SIZE)
    assert description.signature == "{b, h, w}"
    assert description.kernel == (
        "b=1 g=1 o=4 i=4 k=9 h=1 w=1; b=1 g=4 o=1 i=1 k=25 h=1 w=1; b=1 g=4 o=1 i=1 k=9 h=6 w=7"
    )
    assert description.output == (4, 6, 7)
    assert LAYERS["positions"].describe(4, SIZE).output == (4, 3, 4)
    assert Pointwise().describe(4, SIZE).kernel == ""


@pytest.mark.parametrize("merge", ["series", "sum", "concat", "gate"])
def test_guide_goes_to_every_layer(merge: str) -> None:
    guided = (PIXEL, replace(PIXEL, kernel=Dynamic(context="global", hidden=3)))
    spec = Series(layers=(guided[0], Pointwise(), guided[1])) if merge == "series" else Parallel(
        layers=guided, merge=merge
    )  # fmt: skip
    layer = built(spec, guide_channels=3).eval()
    x, guide = features(), features(3, seed=1)
    first, last = layer.layers[0], layer.layers[-1]
    assert first.guide_channels == last.guide_channels == 3
    expected = {
        "series": lambda: last(F.relu(first(x, guide)), guide),
        "sum": lambda: first(x, guide) + last(x, guide),
        "concat": lambda: torch.cat([first(x, guide), last(x, guide)], 1),
        "gate": lambda: layer.merge(first(x, guide), last(x, guide)),
    }[merge]()
    torch.testing.assert_close(layer(x, guide), expected, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(layer(x, -guide), expected)
    with pytest.raises(ShapeError, match=r"^call has no guide, operator has guide_channels=3: it needs one\.$"):
        layer(x)
    with pytest.raises(ShapeError, match=r"^call has a guide, operator has guide_channels=None: it takes none\.$"):
        built(spec)(x, guide)


def test_guide_of_a_series_may_have_another_grid_than_the_output_of_the_last() -> None:
    layer = built(Series(layers=(PIXEL, PIXEL.strided(2), Pointwise())), guide_channels=3)
    assert layer(features(), features(3)).shape == (2, 4, 3, 4)


@pytest.mark.parametrize("dims", [1, 3])
def test_layers_combine_on_every_grid(dims: int) -> None:
    operator = Operator(kernel=Static(), channels=Channels("i -> o"), window=Window(3, dims=dims))
    block = Series(layers=(operator, Pointwise(norm=BatchNorm(), dims=dims), operator))
    layer = Parallel(layers=(block, operator), merge="gate").build(4, 8).double()
    x = torch.randn(2, 4, *(5, 4, 3)[:dims], dtype=torch.float64)
    assert layer(x).shape == (2, 8, *x.shape[2:])


def test_layers_compile_in_one_graph() -> None:
    torch.compiler.reset()
    layer = LAYERS["gate"].build(4)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    x = torch.randn(2, 4, *SIZE)
    torch.testing.assert_close(compiled(x), layer(x))
    torch.compiler.reset()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Series(layers=[DENSE, DENSE]), r"^layers has \[.*\]: must be of type tuple\.$"),
        (lambda: Series(layers=(DENSE, Window(3))), r"^layers has Window\(3\): must be of type Layer\.$"),
        (lambda: Series(layers=(DENSE,)), r"^layers has 1 layers: must be two or more\.$"),
        (lambda: Parallel(layers=()), r"^layers has 0 layers: must be two or more\.$"),
        (lambda: Parallel(layers=(DENSE, nn.ReLU())), r"^layers has ReLU\(\): must be of type Layer\.$"),
        (lambda: Series(layers=(DENSE, Pointwise(dims=1))), r"^layers has dims=2, 1: must be equal\.$"),
        (
            lambda: Parallel(layers=(DENSE, DENSE), merge="mean"),
            r"^merge has 'mean': must be one of 'sum', 'concat', 'gate'\.$",
        ),
        (
            lambda: Parallel(layers=(DENSE, DENSE), reduction=0),
            r"^reduction has 0: must be an integer of at least 1\.$",
        ),
        (
            lambda: Pointwise(activation="swish"),
            r"^activation has 'swish': must be one of 'relu', 'gelu', 'silu', 'sigmoid', 'tanh', 'identity'\.$",
        ),
        (lambda: Pointwise(norm=True), r"^norm has True: must be of type BatchNorm\.$"),
        (lambda: Pointwise(dims=4), r"^dims has 4: must be one of 1, 2, 3\.$"),
        (lambda: Pointwise().strided(2), r"^stride has 2: Pointwise keeps each pixel, it must be 1\.$"),
        (lambda: Pointwise().build(0), r"^channels has 0: must be an integer of at least 1\.$"),
        (
            lambda: Parallel(layers=(DENSE, DENSE), merge="concat").build(4, 0),
            r"^out_channels has 0: must be an integer of at least 1\.$",
        ),
        (
            lambda: Series(layers=(DENSE, POSITION)).build(4),
            r"^size has None: a kernel that learns positions has a table for the grid of its input\. Build it with ",
        ),
    ],
)
def test_layers_say_which_field_is_wrong(make: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Pointwise().build(4, 6),
            r"^out_channels has 6, x has c=4 channels: Pointwise keeps them\.$",
        ),
        (
            lambda: Parallel(layers=(DENSE, DENSE, DENSE), merge="concat").build(4, 8),
            r"^out_channels has 8, layers has 3 branches: with merge='concat' it must be a multiple\. "
            r"Divisors of 8: 1, 2, 4, 8\.$",
        ),
        (
            lambda: Parallel(layers=(DENSE, FANNED)).build(4),
            r"^layers has branches of 4, 8 channels, merge has 'sum': widths must be equal\. "
            r"Give out_channels, or merge='concat'\.$",
        ),
        (
            lambda: Parallel(layers=(DENSE, DENSE), merge="gate", reduction=4).build(6),
            r"^sum has c=6 channels, gate has reduction=4: c must be a multiple\. Divisors of 6: 1, 2, 3, 6\.$",
        ),
        (
            lambda: Parallel(layers=(DENSE, DENSE.strided(2))).build(4, size=SIZE),
            r"^layers has output grids of \(6, 7\) and \(3, 4\): must be equal\. Give every branch the same stride\.$",
        ),
        (
            lambda: Parallel(layers=(DENSE, DENSE.strided(2))).build(4).double()(features()),
            r"^layers has output grids of \(6, 7\) and \(3, 4\): must be equal\. Give every branch the same stride\.$",
        ),
        (
            lambda: Series(layers=(PIXEL.strided(2), Pointwise(), PIXEL)).build(4, guide_channels=3, size=SIZE),
            r"^guide_channels has 3, layers has Operator\(.*\) behind a stride: guide and input of a layer must have "
            r"one grid\. Give the stride to the last layer\.$",
        ),
        (
            lambda: Series(layers=(FANNED, DEPTHWISE)).build(4, 4),
            r"^out_channels has 4, channels 'g' has 8 outputs: must be 8\.",
        ),
    ],
)
def test_widths_and_grids_that_do_not_fit_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        make()
