"""What the stages of a network give: their features, their grids and channels, and what they cost."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from dynops import macs, parameters, zoo
from dynops.errors import SpecError
from dynops.nets import (
    Bare,
    KerasCNN,
    Network,
    ResidualNetwork,
    features,
    metaformer,
    named,
    rednet,
    resnet,
    sections,
)
from dynops.nets.named import NAMED
from dynops.parts import Layer, Operator, Parallel, Series

NETWORKS: dict[str, Callable[[], Network]] = {
    "resnet": lambda: resnet(26, zoo.depthwise(), small=True),
    "residual": lambda: ResidualNetwork(operators=(zoo.involution(3, 4),), depths=(2, 1, 2), width=8, stem_stride=2),
    "metaformer": lambda: metaformer(small=True),
}


def stages(network: Network, size: tuple[int, int] = (32, 32)) -> list[tuple[int, ...]]:
    return [(each.channels, *each.grid) for each in sections(network, (3, *size), 10) if each.name.startswith("stage")]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(32, 32), (33, 47)])
def test_features_have_the_channels_and_grids_of_the_stages(name: str, size: tuple[int, int]) -> None:
    network = NETWORKS[name]()
    module = network.build((3, *size), 10).eval()
    with torch.no_grad():
        found = features(module, torch.randn(2, 3, *size))
    assert [tuple(each.shape[1:]) for each in found] == stages(network, size)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_head_on_the_last_features_is_the_network(name: str) -> None:
    module = NETWORKS[name]().build((3, 16, 16), 10).eval()
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(module.get_submodule("head")(features(module, x)[-1]), module(x))


def test_features_are_the_outputs_of_the_last_blocks() -> None:
    module = NETWORKS["residual"]().build((3, 16, 16), 10).eval()
    x = torch.randn(2, 3, 16, 16)
    seen = {}
    for name in ("stage1_block2", "stage2_block1", "stage3_block2"):
        module.get_submodule(name).register_forward_hook(lambda _, __, y, name=name: seen.setdefault(name, y))
    found = features(module, x)
    assert [each is seen[name] for each, name in zip(found, seen, strict=True)] == [True] * 3


def test_features_need_no_head() -> None:
    module = NETWORKS["residual"]().build((3, 16, 16), 10).eval()
    x = torch.randn(1, 3, 16, 16)
    expected = features(module, x)
    del module.head
    assert all(torch.equal(own, other) for own, other in zip(features(module, x), expected, strict=True))
    assert torch.equal(module(x), expected[-1])


def test_a_loss_on_features_reaches_every_parameter_but_the_head() -> None:
    module = NETWORKS["residual"]().build((3, 16, 16), 10)
    sum(each.square().sum() for each in features(module, torch.randn(2, 3, 16, 16))).backward()
    lacking = {name for name, parameter in module.named_parameters() if parameter.grad is None}
    assert lacking == {"head.2.weight", "head.2.bias"}


def test_rednet_has_the_strides_and_channels_of_resnet() -> None:
    for network in (rednet(26), resnet(26)):
        found = sections(network, (3, 225, 231))
        assert [each.name for each in found] == ["stem", "stage1", "stage2", "stage3", "stage4", "head"]
        assert [each.stride for each in found] == [4, 4, 8, 16, 32, None]
        assert [each.channels for each in found] == [64, 256, 512, 1024, 2048, 1000]
        assert [each.grid for each in found] == [(57, 58), (57, 58), (29, 29), (15, 15), (8, 8), ()]
        assert [each.blocks for each in found] == [1, 1, 2, 4, 1, 1]


def test_sections_say_which_operators_stand_where() -> None:
    found = sections(rednet(26), (3, 64, 64))
    involution, small = zoo.involution(), zoo.involution(kernel_size=3)
    assert [each.slots for each in found] == [
        ((small, 32, (32, 32), 1),),
        ((involution, 64, (16, 16), 1),),
        ((involution, 128, (8, 8), 2),),
        ((involution, 256, (4, 4), 4),),
        ((involution, 512, (2, 2), 1),),
        (),
    ]


def test_layers_combined_have_a_slot_for_each_operator() -> None:
    layer = Parallel(layers=(zoo.conv2d(), Series(layers=(zoo.depthwise(), zoo.conv2d(kernel_size=1)))))
    network = ResidualNetwork(operators=(layer,), depths=(2,), width=8)
    (_, stage, _) = sections(network, (3, 8, 8), 10)
    assert [(slot.operator, slot.times) for slot in stage.slots] == [
        (zoo.conv2d(), 2),
        (zoo.depthwise(), 2),
        (zoo.conv2d(kernel_size=1), 2),
    ]


@pytest.mark.parametrize("operator", [zoo.involution(3), zoo.stand_alone_attention(), zoo.condconv()])
def test_sections_cost_what_the_network_costs(operator: Layer) -> None:
    network = resnet(26, operator)
    with torch.device("meta"):
        module = network.build((3, 64, 96), 10)
    found = sections(network, (3, 64, 96), 10)
    assert sum(each.parameters for each in found) == parameters(module)
    assert sum(each.macs for each in found) == macs(module, (1, 3, 64, 96))


def test_costs_of_a_stage_are_those_of_its_layers() -> None:
    # a stage of one block from 8 to 16 channels: 1x1, 3x3 dense at stride 2, 1x1, and a strided 1x1 as shortcut
    network = ResidualNetwork(operators=(zoo.conv2d(),), depths=(1, 1), width=8)
    stage = sections(network, (3, 8, 8), 10)[2]
    norms = 2 * 4 * 16
    assert stage.parameters == 8 * 16 + 9 * 16**2 + 16**2 + 8 * 16 + norms
    assert stage.macs == 64 * 8 * 16 + 16 * (9 * 16**2 + 16**2 + 8 * 16)
    assert (stage.operator_parameters, stage.operator_macs) == (9 * 16**2, 16 * 9 * 16**2)


def test_any_network_has_sections() -> None:
    keras = sections(KerasCNN(), (3, 32, 32), 10)
    assert sum(each.parameters for each in keras) == 319_178
    assert [each.name for each in keras] == [str(number) for number in range(len(keras))]
    assert [each.grid for each in keras][-1] == ()
    (bare,) = sections(Bare(operator=zoo.conv2d()), (4, 9, 9), 4)
    assert (bare.name, bare.parameters, bare.operator_macs) == ("network", 144, 144 * 81)


def test_a_module_without_stages_is_refused() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU())
    with pytest.raises(SpecError, match=r"^module has children 0, 1: must have stages, named stage1_block1 and so"):
        features(module, torch.randn(1, 3, 8, 8))


@pytest.mark.parametrize("name", NAMED)
def test_networks_have_names(name: str) -> None:
    network = named(name)
    assert isinstance(network, Network)
    if not name.startswith("rednet"):
        operator: Operator = zoo.depthwise(5)
        assert named(name, operator) != network
        assert operator in named(name, operator).operators


def test_a_name_that_there_is_not_is_refused() -> None:
    with pytest.raises(SpecError, match=r"^network has 'resnet34': must be one of 'resnet26', .*'metaformer-m48'\.$"):
        named("resnet34")
    with pytest.raises(SpecError, match=r": a RedNet has involution\. Use resnet38 for another operator\.$"):
        named("rednet38", zoo.conv2d())
