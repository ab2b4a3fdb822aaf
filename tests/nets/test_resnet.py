"""ResNet and RedNet: published counts, shapes, slots, and mistakes."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dynops import macs, parameters, zoo
from dynops.errors import ShapeError, SpecError
from dynops.nets import ResNet, rednet, resnet
from dynops.nets.residual import ZeroNorm
from dynops.parts import Layer

# counted by instantiating the official definition; MACs of convolutions and linear layers, and of involution's sums
REDNETS = {
    26: (9_233_166, 1.6508e9, 0.0343e9),
    38: (12_386_986, 2.1141e9, 0.0528e9),
    50: (15_540_806, 2.5773e9, 0.0712e9),
    101: (25_652_950, 4.5460e9, 0.1130e9),
    152: (33_984_582, 6.5147e9, 0.1647e9),
}


def built(network: ResNet, size: int = 224, outputs: int = 1000) -> nn.Module:
    with torch.device("meta"):
        return network.build((3, size, size), outputs)


@pytest.mark.parametrize("depth", REDNETS)
def test_rednet_has_the_published_parameters_and_products(depth: int) -> None:
    module = built(rednet(depth))
    count, dense, sums = REDNETS[depth]
    assert parameters(module) == count
    assert macs(module, (1, 3, 224, 224)) == pytest.approx(dense + sums, rel=1e-4)


@pytest.mark.parametrize("depth", REDNETS)
def test_the_variant_for_dense_prediction_has_the_published_parameters(depth: int) -> None:
    network = rednet(depth, stem_size=7)
    assert network == resnet(depth, zoo.involution())
    assert parameters(built(network)) == REDNETS[depth][0] + 720


def test_resnet_50_has_the_parameters_of_its_definition() -> None:
    # 25,557,032 with a 7x7 stem of 9,408 weights and 128 of batch norm; this stem has 27,648 + 864 and 256
    assert parameters(built(resnet(50))) == 25_557_032 - 9_408 - 128 + 864 + 9_216 + 18_432 + 256


def test_a_network_gives_classes_at_every_size() -> None:
    module = ResNet(depth=26, operators=(zoo.involution(kernel_size=3),), stem=zoo.depthwise(), width=16).build(
        (3, 65, 71), 10
    )
    assert module(torch.randn(2, 3, 65, 71)).shape == (2, 10)


@pytest.mark.parametrize("network", [rednet(26), resnet(26)], ids=["rednet", "resnet"])
def test_a_step_on_an_image_of_224_pixels_reaches_every_parameter(network: ResNet) -> None:
    module = network.build((3, 224, 224), 10).eval()
    for block in module.modules():
        if isinstance(block, ZeroNorm):
            nn.init.ones_(block.weight)
    F.cross_entropy(module(torch.randn(1, 3, 224, 224)), torch.tensor([3])).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in module.parameters())


def test_small_images_keep_their_grid_in_the_stem() -> None:
    module = resnet(26, zoo.depthwise(), small=True).build((3, 32, 32), 10)
    assert module.get_submodule("stem")(torch.randn(1, 3, 32, 32)).shape == (1, 64, 32, 32)


def test_each_stage_can_have_its_own_operator() -> None:
    stages: tuple[Layer, ...] = (zoo.conv2d(3), zoo.depthwise(5), zoo.involution(), zoo.neighbourhood_attention())
    network = ResNet(depth=26, operators=stages, width=32)
    first, last = (
        built(network, size=32, outputs=10).get_submodule(name) for name in ("stage1_block1", "stage4_block1")
    )
    assert parameters(first.get_submodule("operator")) == 9 * 32**2
    assert first.get_submodule("operator") != last.get_submodule("operator")
    assert ResNet.from_json(network.to_json()) == network


def test_mistakes_say_what_fits() -> None:
    with pytest.raises(SpecError, match=r"depth has 34: must be one of 26, 38, 50, 101, 152"):
        resnet(34)
    with pytest.raises(SpecError, match=r"operators has 2 operators: give one for all stages, or one for each"):
        ResNet(depth=26, operators=(zoo.depthwise(), zoo.depthwise()))
    with pytest.raises(ShapeError, match=r"must be equal. Let the network set the stride"):
        built(ResNet(depth=26, operators=(zoo.depthwise(),), stem=zoo.depthwise(stride=2)))
    with pytest.raises(ShapeError, match=r"^operators has Operator\(.*\) with dims=1: images have 2\.$"):
        built(resnet(26, zoo.dynamic_conv1d()))
