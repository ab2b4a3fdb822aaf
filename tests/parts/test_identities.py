"""Operators that are special cases of each other: the same function, gradient by gradient, from the same weights."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from dynops.ops import Block, Global, Window
from dynops.parts import (
    BatchNorm,
    Channels,
    Dynamic,
    Hidden,
    Linear,
    LocalOperator,
    Mixture,
    Normaliser,
    Operator,
    Project,
    Query,
    QueryKey,
    QueryPosition,
    Relative,
    Static,
    filter_norm,
    macs,
    parameters,
    sigmoid,
    softmax,
    zoo,
)

Settle = Callable[[nn.Module], nn.Module]
EXACT = {"rtol": 1e-10, "atol": 1e-10}
WIDTH = 8


def features(*size: int, images: int = 2) -> Tensor:
    return torch.randn(images, WIDTH, *(size or (6, 7)), dtype=torch.float64)


def assert_same_function(one: nn.Module, other: nn.Module, x: Tensor, to_other: Callable[[Tensor], Tensor]) -> None:
    """Compare outputs and gradients of the input, which `to_other` brings to the grid of the second."""
    inputs = [x.clone().requires_grad_(), to_other(x).clone().requires_grad_()]
    outputs = [one(inputs[0]), other(inputs[1])]
    torch.testing.assert_close(outputs[1], to_other(outputs[0]), **EXACT)
    upstream = torch.randn_like(outputs[0])
    outputs[0].backward(upstream)
    outputs[1].backward(to_other(upstream))
    assert inputs[0].grad.abs().max() > 0
    torch.testing.assert_close(inputs[1].grad, to_other(inputs[0].grad), **EXACT)


def assert_same(
    one: nn.Module, other: nn.Module, x: Tensor, pairs: Iterable[tuple[Tensor, Callable[[], Tensor]]] = ()
) -> None:
    """Compare outputs and gradients of the input; then of each first weight with what the second's give for it."""
    assert_same_function(one, other, x, lambda tensor: tensor)
    for weight, expected in pairs:
        assert weight.grad.abs().max() > 0
        torch.testing.assert_close(weight.grad, expected().view_as(weight), **EXACT)


def assert_same_by_name(one: nn.Module, other: nn.Module, x: Tensor, names: dict[str, str]) -> None:
    """Give the second the weights of the first, by their names there, and compare all gradients."""
    state = one.state_dict()
    other.load_state_dict({names.get(name, name): each for name, each in state.items()})
    weights = {name: other.get_parameter(names.get(name, name)) for name, _ in one.named_parameters()}
    assert len(weights) == len(list(other.parameters()))
    pairs = [(each, lambda name=name: weights[name].grad) for name, each in one.named_parameters()]
    assert_same(one, other, x, pairs)


def built(operator: Operator, size: tuple[int, ...] | None = None) -> LocalOperator:
    """Build with weights far from their start, as a table that starts near zero would hide where it is read."""
    layer = operator.build(WIDTH, size=size).double()
    with torch.no_grad():
        for each in layer.parameters():
            each.normal_(std=0.5)
    return layer


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_involution_is_a_query_against_positions_plus_a_static_kernel(
    stride: int, training: bool, settled: Settle
) -> None:
    involution = zoo.involution(kernel_size=5, group_channels=2, reduction=2, stride=stride).build(WIDTH).double()
    query = Query(dim=4, shared="g o", norm=BatchNorm(), relu=True, downsample="average")
    attention = replace(involution.spec, kernel=QueryPosition(query=query) + Static()).build(WIDTH).double()
    settled(involution).train(training)
    phi, (position, static) = involution.kernel, attention.train(training).kernel.kernels
    (table,) = position.positions.tables
    with torch.no_grad():
        position.query.project.load_state_dict(phi.reduce.state_dict())
        position.query.norm.load_state_dict(phi.norm.state_dict())
        table.copy_(phi.span.weight.view(4, 25, 4).mT.view_as(table))
        static.weight.copy_(phi.span.bias.view_as(static.weight))
    pairs = [
        (position.query.project.weight, lambda: phi.reduce.weight.grad),
        (position.query.norm.weight, lambda: phi.norm.weight.grad),
        (position.query.norm.bias, lambda: phi.norm.bias.grad),
        (table, lambda: phi.span.weight.grad.view(4, 25, 4).mT.contiguous()),
        (static.weight, lambda: phi.span.bias.grad),
    ]
    assert_same(attention, involution, features(), pairs)
    assert parameters(attention) == parameters(involution)
    assert macs(attention, (1, WIDTH, 6, 7)) == macs(involution, (1, WIDTH, 6, 7))


@pytest.mark.parametrize(
    "window", [Window(3), Window(3, stride=2, dilation=2), Window((1, 5), border="reflect")], ids=str
)
def test_generated_kernel_of_a_constant_is_a_static_kernel(window: Window, channels: Channels, settled: Settle) -> None:
    dynamic = Operator(kernel=Dynamic(context="constant", hidden=5), channels=channels, window=window)
    one, other = settled(built(dynamic)), built(replace(dynamic, kernel=Static()))
    x = features()
    with torch.no_grad():
        other.kernel.weight.copy_(one(x, return_kernel=True)[1][0, ..., 0, 0])
    assert_same(one, other, x, [(one.kernel.span.bias, lambda: other.kernel.weight.grad)])


def test_every_static_kernel_is_one_that_phi_generates_from_a_constant(channels: Channels, settled: Settle) -> None:
    static = Operator(kernel=Static(), channels=channels, window=Window(3))
    one = built(static)
    other = settled(built(replace(static, kernel=Dynamic(context="constant", hidden=5))))
    with torch.no_grad():
        other.kernel.span.weight.zero_()
        other.kernel.span.bias.copy_(one.kernel.weight.flatten())
    assert_same(one, other, features(), [(one.kernel.weight, lambda: other.kernel.span.bias.grad)])


@pytest.mark.parametrize("normaliser", [softmax, sigmoid], ids=repr)
def test_mixture_with_a_constant_router_is_the_static_sum_of_its_experts(
    normaliser: Normaliser, channels: Channels, settled: Settle
) -> None:
    router = Dynamic(context="constant", hidden=5).then(normaliser)
    mixture = Operator(
        kernel=Mixture(experts=(Static(),) * 3, router=router), channels=channels, window=Window(3, stride=2)
    )
    one, other = settled(built(mixture)), built(replace(mixture, kernel=Static()))
    x = features()
    shares = one.kernel.router(x).detach().flatten()
    assert shares.unique().numel() == 3
    experts = [expert.weight for expert in one.kernel.experts]
    with torch.no_grad():
        other.kernel.weight.copy_(sum(share * each for share, each in zip(shares, experts, strict=True)))
    pairs = [(each, lambda s=s: s * other.kernel.weight.grad) for s, each in zip(shares, experts, strict=True)]

    def slopes() -> Tensor:
        each = torch.stack([(expert * other.kernel.weight.grad).sum() for expert in experts])
        return shares * (each - (shares * each).sum()) if normaliser == softmax else shares * (1 - shares) * each

    pairs.append((one.kernel.router.kernel.span.bias, slopes))
    assert_same(one, other, x, pairs)


def layouts(**fields: Project) -> tuple[LocalOperator, LocalOperator, Tensor]:
    """Involution with contiguous and with interleaved groups, and the first's place of each channel of the second."""
    contiguous = replace(zoo.involution(3, group_channels=2, reduction=2), channels=Channels("(g s)", g=4), **fields)
    one, other = built(contiguous), built(replace(contiguous, channels=Channels("(s g)", g=4)))
    other.load_state_dict(one.state_dict())
    return one.eval(), other.eval(), torch.arange(WIDTH).view(4, 2).T.flatten()


def test_layout_of_groups_is_free_between_learned_layers() -> None:
    one, other, order = layouts(value=Project(bias=True), out=Project(bias=True))
    with torch.no_grad():
        other.value.weight.copy_(one.value.weight[order])
        other.value.bias.copy_(one.value.bias[order])
        other.out.weight.copy_(one.out.weight[:, order])
    pairs = [
        (other.value.weight, lambda: one.value.weight.grad[order]),
        (other.value.bias, lambda: one.value.bias.grad[order]),
        (other.out.weight, lambda: one.out.weight.grad[:, order]),
        (other.kernel.span.weight, lambda: one.kernel.span.weight.grad),
    ]
    assert_same(other, one, features(), pairs)


def test_layout_of_groups_is_no_choice_of_weights_where_the_input_itself_is_summed() -> None:
    # where all channels hold one image, outputs are equal exactly where channels share a kernel, whatever the weights
    x = features()[:, :1].expand(-1, WIDTH, -1, -1)
    equal = []
    for layer in layouts()[:2]:
        y = layer(x)
        equal.append([[torch.equal(a, b) for a in y.unbind(1)] for b in y.unbind(1)])
    assert equal[0] == [[a // 2 == b // 2 for a in range(WIDTH)] for b in range(WIDTH)]
    assert equal[1] == [[a % 4 == b % 4 for a in range(WIDTH)] for b in range(WIDTH)]


GENERATED = {
    "involution": zoo.involution(3, group_channels=2, reduction=2),
    "dynamic_depthwise": zoo.dynamic_depthwise(3, reduction=2),
    "pixel_mixture": zoo.pixel_mixture(3, 3, reduction=2),
    "static_plus_dynamic": zoo.static_plus_dynamic(3, reduction=2),
}
TWINS = ((0, 1, 2), (0, 4, 6), (1, 3, 0))
"""Image, row and column of pixels that are made equal."""


def kernels_of_twins(layer: LocalOperator, x: Tensor) -> list[Tensor]:
    weights = layer(x, return_kernel=True)[1]
    return [weights[image, ..., row, column] for image, row, column in TWINS]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", GENERATED)
def test_equal_pixels_have_equal_kernels_wherever_they_are(name: str, training: bool, settled: Settle) -> None:
    layer = settled(built(GENERATED[name])).train(training)
    x = features()
    for image, row, column in TWINS:
        x[image, :, row, column] = x[0, :, 1, 2]
    first, *others = kernels_of_twins(layer, x)
    for other in others:
        torch.testing.assert_close(other, first, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(layer(x, return_kernel=True)[1][0, ..., 0, 0], first)


@pytest.mark.parametrize("name", GENERATED)
def test_kernel_of_a_pixel_depends_on_its_batch_only_through_the_statistics_of_training(
    name: str, settled: Settle
) -> None:
    layer = settled(built(GENERATED[name]))
    image, batches = features(images=1), [features(), 3 * features()]
    alone = layer(image, return_kernel=True)[1]
    for batch in batches:
        together = layer(torch.cat([image, batch]), return_kernel=True)[1]
        torch.testing.assert_close(together[:1], alone, rtol=1e-12, atol=1e-12)
    trained = [layer.train()(torch.cat([image, batch]), return_kernel=True)[1][:1] for batch in batches]
    assert (trained[0] - trained[1]).abs().max() > 0.1


ATTENTION = Operator(
    kernel=(QueryKey(query=Query(bias=True)) + Relative()).then(softmax),
    channels=Channels("(g s)", g=2),
    window=Global(),
    value=Project(),
)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(4, 6), (6, 2)])
def test_global_window_is_a_block_as_large_as_the_image(size: tuple[int, int], stride: int) -> None:
    one = built(replace(ATTENTION, window=Global(stride=stride)), size)
    other = built(replace(ATTENTION, window=Block(size, stride=stride)), size)
    with torch.no_grad():
        one.kernel.kernel.kernels[0].key.bias.zero_()  # the softmax does not see it
    one.kernel.kernel.kernels[0].key.bias.requires_grad_(False)
    other.load_state_dict(one.state_dict())
    pairs = [
        (each, lambda name=name: other.get_parameter(name).grad)
        for name, each in one.named_parameters()
        if each.requires_grad
    ]
    assert_same(one, other, features(*size), pairs)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(4, 5), (3, 2), (5, 1)])
def test_global_window_is_a_masked_window_that_reaches_over_the_image(size: tuple[int, int], stride: int) -> None:
    logits = QueryKey()
    one = built(replace(ATTENTION, kernel=(logits + Relative()).then(softmax), window=Global(stride=stride)), size)
    window = Window(tuple(2 * length - 1 for length in size), stride=stride, border="mask")
    other = built(replace(ATTENTION, kernel=(logits + Static()).then(softmax), window=window))
    table, weight = one.kernel.kernel.kernels[1].table, other.kernel.kernel.kernels[1].weight
    state = one.state_dict()
    places = state.pop("kernel.kernel.kernels.1.table")
    other.load_state_dict(state | {"kernel.kernel.kernels.1.weight": places.flatten(3)})
    pairs = [(table, lambda: weight.grad)]
    pairs += [
        (each, lambda name=name: other.get_parameter(name).grad)
        for name, each in one.named_parameters()
        if each is not table
    ]
    assert_same(one, other, features(*size), pairs)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("context", ["constant", "position", "global", "pixel", "window"])
def test_linear_map_of_hidden_channels_is_phi(context: str, stride: int, channels: Channels, settled: Settle) -> None:
    dynamic = Operator(kernel=Dynamic(context=context, hidden=5), channels=channels, window=Window(3, stride=stride))
    one = settled(built(dynamic, (6, 7)))
    other = built(replace(dynamic, kernel=Linear(context=Hidden(context=context, hidden=5))), (6, 7)).eval()
    first_half = [name for name in one.state_dict() if not name.startswith("kernel.span")]
    names = {name: name.replace("kernel.", "kernel.context.", 1) for name in first_half}
    assert_same_by_name(one, other, features(), names)


@pytest.mark.parametrize("context", ["constant", "position", "global", "pixel", "window"])
def test_phi_without_norm_and_activation_is_one_linear_map(context: str) -> None:
    phi = Dynamic(context=context, hidden=5, norm=None, bias=True, activation="identity")
    one = built(Operator(kernel=phi, channels=Channels("g"), window=Window(3)), (6, 7))
    other = built(replace(one.spec, kernel=Linear(context=context)), (6, 7))
    reduce, span, whole = one.kernel.reduce, one.kernel.span, other.kernel.span
    first, second = reduce.weight.detach()[..., 0, 0], span.weight.detach()[..., 0, 0]
    with torch.no_grad():
        other.kernel.context.load_state_dict(one.kernel.context.state_dict())
        whole.weight.copy_((second @ first)[..., None, None])
        whole.bias.copy_(second @ reduce.bias + span.bias)
    bias = reduce.bias.detach()
    pairs = [
        (span.bias, lambda: whole.bias.grad),
        (span.weight, lambda: whole.weight.grad[..., 0, 0] @ first.T + torch.outer(whole.bias.grad, bias)),
        (reduce.weight, lambda: second.T @ whole.weight.grad[..., 0, 0]),
        (reduce.bias, lambda: second.T @ whole.bias.grad),
    ]
    assert_same(one, other, features(), pairs)


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_carafe_of_one_pixel_without_softmax_is_involution_with_a_linear_bottleneck(groups: int) -> None:
    carafe = zoo.carafe(scale=1, kernel_size=5, encoder_size=1, compressed=4, groups=groups)
    bottleneck = Dynamic(context="pixel", hidden=4, norm=None, bias=True, activation="identity")
    involution = replace(zoo.involution(5, group_channels=WIDTH // groups), kernel=bottleneck)
    one, other = built(replace(carafe, kernel=carafe.kernel.kernel)), built(involution)
    names = {f"kernel.context.reduce.{part}": f"kernel.reduce.{part}" for part in ("weight", "bias")}
    assert_same_by_name(one, other, features(), names)


def added_filters(**fields: int) -> tuple[LocalOperator, nn.Module, nn.Module]:
    """DDF with added filters, and the modules of its pixel's and its image's filter."""
    layer = built(zoo.decoupled_dynamic_filter(3, combine="add", **fields))
    return layer, layer.kernel.kernels[0].kernels, layer.kernel.kernels[1].kernels


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_decoupled_filter_without_its_images_filter_is_involution_with_one_linear_kernel(
    stride: int, dilation: int
) -> None:
    one, pixel, image = added_filters(stride=stride, dilation=dilation)
    gain = Static(start=2**0.5 / 3, learned=False, shared="g o i k")
    kernel = Linear(context="pixel", downsample="subsample").then(filter_norm) * gain
    other = built(replace(one.spec, kernel=kernel, channels=Channels("s")))
    with torch.no_grad():
        image[1].weight.zero_()
    other.kernel.kernels[0].load_state_dict(pixel[0].state_dict())
    spans = [each.kernel.span for each in (pixel[0], other.kernel.kernels[0])]
    pairs = [(getattr(spans[0], part), lambda part=part: getattr(spans[1], part).grad) for part in ("weight", "bias")]
    assert_same(one, other, features(), pairs)


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_decoupled_filter_without_its_pixels_filter_is_dynamic_depthwise(stride: int, dilation: int) -> None:
    one, pixel, image = added_filters(stride=stride, dilation=dilation)
    homogeneous = zoo.dynamic_depthwise(3, context="global")
    phi = replace(homogeneous.kernel, reduction=5, least=1, norm=None, bias=True).then(filter_norm)
    window = Window(3, stride=stride, dilation=dilation)
    other = built(replace(homogeneous, kernel=phi * Static(), window=window))
    with torch.no_grad():
        for each in pixel[0].parameters():
            each.zero_()
        image[0].kernel.reduce.bias.abs_()  # or the one hidden unit may sleep
    other.kernel.kernels.load_state_dict(image.state_dict())
    weights = dict(other.kernel.kernels.named_parameters())
    pairs = [(each, lambda name=name: weights[name].grad) for name, each in image.named_parameters()]
    assert_same(one, other, features() + 1, pairs)


@pytest.mark.parametrize("make", [zoo.lightweight_conv, zoo.dynamic_conv1d], ids=lambda make: make.__name__)
@pytest.mark.parametrize("padding", ["causal", "centre"])
@pytest.mark.parametrize("stride", [1, 2])
def test_sequence_is_an_image_of_one_row(make: Callable[..., Operator], padding: str, stride: int) -> None:
    sequence = make(5, heads=2, padding=padding).strided(stride)
    one = built(sequence)
    other = built(replace(sequence, window=Window((1, 5), stride=(1, stride), padding=padding)))
    state = other.state_dict()
    other.load_state_dict({name: each.reshape(state[name].shape) for name, each in one.state_dict().items()})
    assert_same_function(one, other, features(9), lambda tensor: tensor[:, :, None])
    (weight,), (others,) = one.parameters(), other.parameters()
    torch.testing.assert_close(others.grad.view_as(weight), weight.grad, **EXACT)


@pytest.mark.parametrize("stride", [1, 2])
def test_dynamic_convolution_of_sequences_is_involution_with_a_linear_phi_and_a_softmax(stride: int) -> None:
    one = built(zoo.dynamic_conv1d(5, heads=2, padding="centre").strided(stride))
    involution = zoo.involution(5, group_channels=4, stride=stride, dims=1)
    other = built(replace(involution, kernel=Linear(context="pixel", bias=False).then(softmax)))
    assert_same_by_name(one, other, features(9), {})
