"""Parameters and multiply-accumulates: the numbers of the published formulas and of the studies."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from dynops.ops import Window
from dynops.parts import Channels, Dynamic, Kernel, Operator, Static, macs, parameters, zoo

C, K, R, G = 64, 7, 4, 4
CORE = {
    "shared depthwise": (zoo.shared_depthwise(), 196, K**2 * G),
    "depthwise": (zoo.depthwise(kernel_size=7), 3136, K**2 * C),
    "involution": (zoo.involution(), 4388, C**2 // R + 2 * C // R + K**2 * G * (C // R + 1)),
    "dynamic depthwise": (zoo.dynamic_depthwise(), 54368, C**2 // R + 2 * C // R + K**2 * C * (C // R + 1)),
}


@pytest.mark.parametrize("name", CORE)
def test_core_has_the_parameters_of_its_formula(name: str) -> None:
    operator, number, formula = CORE[name]
    assert parameters(operator.build(C)) == operator.describe(C, (8, 8)).parameters == number == formula


def test_core_varies_in_kernel_and_channels_only() -> None:
    operators = [operator for operator, _, _ in CORE.values()]
    assert len({operator.window for operator in operators}) == 1
    assert len({operator.kernel for operator in operators}) == 2
    assert len({operator.channels for operator in operators}) == 2


def test_dense_convolution_has_the_parameters_that_involution_is_compared_with() -> None:
    assert parameters(zoo.conv2d().build(C)) == 36864
    assert parameters(zoo.involution().build(256)) == 67472
    assert parameters(zoo.conv2d(bias=True).build(256)) == 590080


@pytest.mark.parametrize("layout", [Channels("(g s)", s=16), Channels("g"), Channels("i -> o")])
def test_constant_twin_has_the_same_phi_and_a_learned_vector(layout: Channels) -> None:
    pixel = Operator(kernel=Dynamic(context="pixel"), channels=layout, window=Window(3))
    twin = replace(pixel, kernel=replace(pixel.kernel, context="constant"))
    built, twin_built = pixel.build(32), twin.build(32)
    shapes = {name: parameter.shape for name, parameter in built.named_parameters()}
    twin_shapes = {name: parameter.shape for name, parameter in twin_built.named_parameters()}
    assert twin_shapes == shapes | {"kernel.context.table": (1, 32, 1, 1)}
    assert parameters(twin_built) == parameters(built) + 32


def phi(context: str, shared: str = "") -> Kernel:
    return Dynamic(context=context, hidden=24, norm=None, bias=True, shared=shared)


PROBE = {
    "static shared": (Static(), "s", 9),
    "static specific": (Static(), "g", 72),
    "constant specific": (phi("constant"), "g", 2224),
    "position shared": (phi("position"), "s", 5817),
    "global shared": (phi("global"), "s", 633),
    "pixel shared": (phi("pixel"), "s", 633),
    "pixel specific": (phi("pixel"), "g", 2208),
    "window shared": (phi("window"), "s", 2953),
    "static specific and pixel shared": (Static() + phi("pixel", shared="g"), "g", 705),
}


@pytest.mark.parametrize("name", PROBE)
def test_operator_of_the_probes_has_the_parameters_of_the_pilot(name: str) -> None:
    kernel_spec, pattern, number = PROBE[name]
    operator = Operator(kernel=kernel_spec, channels=Channels(pattern), window=Window(3))
    assert parameters(operator.build(8, guide_channels=16, size=(18, 18))) == number


def test_parameters_count_trainable_ones_only() -> None:
    layer = zoo.involution().build(16)
    layer.kernel.reduce.requires_grad_(False)
    assert parameters(layer) == 2 * 4 + 4 * 49 + 49


def test_macs_count_products_of_weights_and_features_and_nothing_else() -> None:
    network = nn.Sequential(
        nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2),  # 8 x 4 x 5 outputs of 2 channels, 9 taps
        nn.BatchNorm2d(8),
        nn.ReLU(),
        zoo.involution(kernel_size=3, group_channels=4, reduction=2).build(8),
        nn.MaxPool2d(2),  # 8 x 2 x 2
        zoo.conv2d(bias=True).build(8, 6),
        nn.Flatten(),
        nn.Linear(24, 10),
    )
    convolution = 8 * 4 * 5 * 2 * 9
    involution = 4 * 5 * (8 * 4 + 4 * 2 * 9 + 8 * 9)
    dense = 6 * 2 * 2 * 8 * 9
    linear = 24 * 10
    total = convolution + involution + dense + linear
    assert macs(network, (1, 4, 8, 10)) == total
    assert macs(network, (5, 4, 8, 10)) == 5 * total


def test_layer_that_is_called_twice_counts_twice() -> None:
    layer = nn.Linear(3, 3)
    assert macs(nn.Sequential(layer, layer), (1, 3)) == 2 * 9


def test_macs_of_a_guided_operator_take_both_shapes() -> None:
    operator = Operator(kernel=phi("pixel"), channels=Channels("g"), window=Window(3)).build(8, guide_channels=16)
    found = macs(operator, (1, 8, 5, 6), (1, 16, 5, 6))
    assert found == 5 * 6 * (16 * 24 + 24 * 8 * 9 + 8 * 9)


def test_counting_leaves_the_module_as_it_was() -> None:
    layer = zoo.involution().build(16).train()
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    macs(layer, (2, 16, 8, 8))
    assert layer.training
    assert all(not each._forward_hooks for each in layer.modules())
    for name, tensor in layer.state_dict().items():
        assert tensor.device.type == "cpu"
        assert torch.equal(tensor, before[name])


def test_describing_draws_no_random_numbers() -> None:
    state = torch.get_rng_state()
    description = zoo.involution().describe(64, (14, 14))
    assert torch.equal(torch.get_rng_state(), state)
    assert description.signature == "{b, h, w}"
    assert description.kernel == "b=1 g=4 o=1 i=1 k=49 h=14 w=14"
    assert description.macs == 14 * 14 * (64 * 16 + 16 * 4 * 49 + 64 * 49)
    assert description.output == (64, 14, 14)


def test_network_that_is_training_is_counted_at_a_batch_of_1() -> None:
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3)).train()
    assert macs(network, (1, 4, 6, 6)) == 12
