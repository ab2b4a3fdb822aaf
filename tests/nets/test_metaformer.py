"""MetaFormer: PoolFormer's definition written anew, every mixer and size, its costs, and its mistakes."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynops import macs, parameters, zoo
from dynops.errors import ShapeError, SpecError
from dynops.nets import MetaFormer, Widths, matched, metaformer
from dynops.nets.metaformer import SIZES, Block, LayerScale
from dynops.ops import Window
from dynops.parts import Layer, LocalOperator
from dynops.specs import Spec

# parameters of the definition below; 12, 21, 31, 56 and 73 M are published, and products of 1.8 to 11.6 G
PUBLISHED = {
    "s12": (11_915_176, 1.8),
    "s24": (21_388_968, 3.4),
    "s36": (30_862_760, 5.0),
    "m36": (56_172_520, 8.8),
    "m48": (73_473_448, 11.6),
}
MIXERS: dict[str, Layer] = {
    "convolution": zoo.conv2d(3),
    "depthwise": zoo.depthwise(5),
    "involution": zoo.involution(kernel_size=5, group_channels=4),
    "window attention": zoo.window_attention(block=4, heads=2),
    "neighbourhood attention": zoo.neighbourhood_attention(kernel_size=3, heads=2),
    "pooling": zoo.pooling(),
}
SMALL = MetaFormer(
    operators=(zoo.pooling(),), depths=(1, 2, 1), width=8, multiples=(1, 2, 3), patch=3, stem_stride=1, layer_scale=1.0
)


class PoolFormerBlock(nn.Module):
    """The published block, in the words of torch's own layers."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.first_norm = nn.GroupNorm(1, width)
        self.first_scale = nn.ParameterList([torch.empty(width)])
        self.second_norm = nn.GroupNorm(1, width)
        self.mlp = nn.Sequential(nn.Conv2d(width, hidden, 1), nn.GELU(), nn.Conv2d(hidden, width, 1))
        self.second_scale = nn.ParameterList([torch.empty(width)])

    def forward(self, x: Tensor) -> Tensor:
        y = self.first_norm(x)
        pooled = F.avg_pool2d(y, 3, 1, 1, count_include_pad=False) - y
        x = x + torch.einsum("c, b c h w -> b c h w", self.first_scale[0], pooled)
        return x + torch.einsum("c, b c h w -> b c h w", self.second_scale[0], self.mlp(self.second_norm(x)))


def poolformer(depths: tuple[int, ...], widths: tuple[int, ...], outputs: int) -> nn.Sequential:
    """The published network: 7x7 patches at stride 4, 3x3 patches at stride 2 between stages."""
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 7, 4, 2)]
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        layers += [nn.Conv2d(widths[stage - 1], width, 3, 2, 1)] if stage else []
        layers += [PoolFormerBlock(width, 4 * width) for _ in range(depth)]
    return nn.Sequential(
        *layers, nn.GroupNorm(1, width), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, outputs)
    )


@pytest.mark.parametrize("size", PUBLISHED)
def test_each_size_has_the_parameters_and_products_of_the_published_definition(size: str) -> None:
    network = SIZES[size]
    with torch.device("meta"):
        theirs = poolformer(network.depths, tuple(network.width * each for each in network.multiples), 1000)
        ours = metaformer(size=size).build((3, 224, 224), 1000)
    count, billions = PUBLISHED[size]
    assert parameters(ours) == parameters(theirs) == count
    assert round(macs(ours, (1, 3, 224, 224)) / 1e9, 1) == billions


def test_the_defaults_are_the_smallest_poolformer() -> None:
    assert metaformer() == MetaFormer(operators=(zoo.pooling(),))
    assert metaformer().layer_scale == 1e-5
    assert metaformer(size="s36").layer_scale == 1e-6


@pytest.mark.parametrize("image", [(64, 64), (37, 50), (31, 33)])
def test_with_pooling_the_network_is_poolformer(image: tuple[int, int]) -> None:
    network = MetaFormer(operators=(zoo.pooling(),), depths=(2, 1, 2), width=8, multiples=(1, 2, 3))
    ours = network.build((3, *image), 5).double()
    theirs = poolformer((2, 1, 2), (8, 16, 24), 5).double()
    with torch.no_grad():
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            other.copy_(mine.normal_())
    x = torch.randn(2, 3, *image, dtype=torch.float64)
    found, expected = ours(x), theirs(x)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    upstream = torch.randn_like(found)
    found.backward(upstream)
    expected.backward(upstream)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-8, atol=1e-8)


def test_weights_start_as_published() -> None:
    network = metaformer().build((3, 32, 32), 1000)
    block = network.get_submodule("stage4_block1")
    for layer in (block.mlp[0], block.mlp[2], network.head[-1]):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.02)
        assert not layer.bias.any()
    for scale in (block.scale, block.mlp_scale):
        assert torch.equal(scale.weight, torch.full((512,), 1e-5))


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize(("image", "patch", "stride"), [((12, 12), 3, 1), ((13, 17), 1, 1), ((25, 31), 2, 2)])
def test_every_mixer_trains_a_step(name: str, image: tuple[int, int], patch: int, stride: int) -> None:
    network = replace(SMALL, operators=(MIXERS[name],), patch=patch, stem_stride=stride).build((3, *image), 5)
    x, labels = torch.randn(4, 3, *image), torch.arange(4)
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    before = F.cross_entropy(network(x), labels)
    before.backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    for slot in slots(network):
        assert not list(slot.parameters()) or any(each.grad.abs().max() > 0 for each in slot.parameters())
    optimizer.step()
    assert F.cross_entropy(network(x), labels) < before


def slots(network: nn.Module) -> list[LocalOperator]:
    return [block.operator for block in network.modules() if isinstance(block, Block)]


@pytest.mark.parametrize(("image", "grids"), [((8, 8), [(8, 8), (4, 4), (2, 2)]), ((9, 15), [(9, 15), (5, 8), (3, 4)])])
def test_every_stage_but_the_first_halves_the_image_in_its_first_block(
    image: tuple[int, int], grids: list[tuple[int, int]]
) -> None:
    network = replace(SMALL, depths=(1, 2, 1)).build((3, *image), 5)
    assert isinstance(network, nn.Sequential)
    x, shapes = torch.randn(2, 3, *image), {}
    for name, layer in network.named_children():
        x = layer(x)
        shapes[name] = tuple(x.shape[1:])
    assert shapes == {
        "stem": (8, *grids[0]),
        "stage1_block1": (8, *grids[0]),
        "stage2_block1": (16, *grids[1]),
        "stage2_block2": (16, *grids[1]),
        "stage3_block1": (24, *grids[2]),
        "head": (5,),
    }


@pytest.mark.parametrize(("patch", "stride"), [(1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (4, 4), (7, 4), (5, 3)])
@pytest.mark.parametrize("image", [(8, 8), (9, 14), (15, 11), (4, 7)])
def test_the_grid_that_operators_are_built_for_is_the_one_they_meet(
    patch: int, stride: int, image: tuple[int, int]
) -> None:
    # a kernel over all pixels runs on the grid that it was built for, and on no other
    network = replace(SMALL, operators=(zoo.token_mixing(),), patch=patch, stem_stride=stride).build((3, *image), 5)
    assert network(torch.randn(2, 3, *image)).shape == (2, 5)


def test_small_images_keep_their_grid_in_the_stem() -> None:
    network = metaformer(zoo.involution(), small=True)
    assert network == replace(metaformer(zoo.involution()), patch=3, stem_stride=1)
    with torch.device("meta"):
        stem = network.build((3, 32, 32), 10).get_submodule("stem")
        assert stem(torch.empty(1, 3, 32, 32)).shape == (1, 64, 32, 32)


def test_convolution_early_and_attention_late_is_a_tuple() -> None:
    stages = (zoo.depthwise(7), zoo.involution(3, 4), zoo.window_attention(block=4, heads=2))
    network = replace(SMALL, operators=stages)
    assert Spec.from_json(network.to_json()) == network
    built = network.build((3, 12, 12), 5)
    assert [slot.spec for slot in slots(built)] == [stages[0], stages[1], stages[1], stages[2]]
    assert [slot.channels for slot in slots(built)] == [8, 16, 16, 24]


def test_costs_are_those_of_the_layers() -> None:
    network = MetaFormer(
        operators=(zoo.depthwise(),), depths=(1, 1), width=8, multiples=(1, 2), mlp_ratio=3, patch=2, stem_stride=2
    ).build((3, 12, 12), 5)
    stem, down = 3 * 8 * 4, 8 * 16 * 9
    first, second = 8 * 9 + 2 * 8 * 24, 16 * 9 + 2 * 16 * 48
    head = 16 * 5
    biases = 8 + 16 + (24 + 8) + (48 + 16) + 5
    norms_and_scales = 2 * 3 * 8 + 2 * 3 * 16 + 2 * 16
    assert parameters(network) == stem + down + first + second + head + biases + norms_and_scales
    assert macs(network, (1, 3, 12, 12)) == 36 * (stem + first) + 9 * (down + second) + head


def test_scales_start_where_the_spec_says_or_are_left_out() -> None:
    def scales(start: float | None) -> list[LayerScale]:
        network = replace(SMALL, layer_scale=start).build((3, 8, 8), 5)
        return [each for each in network.modules() if isinstance(each, LayerScale)]

    assert not scales(None)
    assert [each.weight.unique().tolist() for each in scales(0.5)] == [[0.5]] * 8
    bare, ones = (replace(SMALL, layer_scale=start).build((3, 8, 8), 5).eval() for start in (None, 1.0))
    with torch.no_grad():
        for mine, other in zip(bare.parameters(), filter_scales(ones), strict=True):
            mine.copy_(other)
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(bare(x), ones(x))


def filter_scales(network: nn.Module) -> list[Tensor]:
    return [each for name, each in network.named_parameters() if "scale" not in name]


@pytest.mark.parametrize("name", MIXERS)
def test_mixers_compete_at_equal_parameters(name: str) -> None:
    reference = replace(SMALL, operators=(zoo.depthwise(7),), width=32)
    network = replace(reference, operators=(MIXERS[name],))
    found = matched(network, to=reference, budget="parameters", shape=(3, 16, 16), outputs=10)
    assert found.ratio == pytest.approx(1, abs=0.01)
    built = found.network.build((3, 16, 16), 10)
    assert parameters(built) == found.cost
    assert built(torch.randn(2, 3, 16, 16)).shape == (2, 10)


def test_mixers_compete_at_equal_products() -> None:
    reference = replace(SMALL, operators=(zoo.conv2d(),), width=16)
    network = replace(reference, operators=(zoo.involution(3, 4),))
    found = matched(network, to=reference, budget="macs", shape=(3, 8, 8), outputs=10)
    assert found.ratio == pytest.approx(1, abs=0.01)
    assert macs(found.network.build((3, 8, 8), 10), (1, 3, 8, 8)) == found.cost


def test_network_is_widened_by_its_channels_and_by_those_of_its_mlps() -> None:
    assert SMALL.widths == Widths(inner=8, width=32)
    assert SMALL.widened(SMALL.widths) is SMALL
    assert SMALL.widened(Widths(inner=12, width=30)) == replace(SMALL, width=12, mlp_ratio=2.5)
    for inner in range(2, 40):
        for width in range(1, 160, 3):
            assert SMALL.widened(Widths(inner, width)).widths == Widths(inner, width)


def test_more_hidden_channels_cost_more() -> None:
    def cost(hidden: int) -> int:
        with torch.device("meta"):
            return parameters(SMALL.widened(Widths(8, hidden)).build((3, 8, 8), 5))

    costs = [cost(hidden) for hidden in range(8, 65)]
    assert costs == sorted(set(costs))


def test_state_dict_and_json_carry_the_network_over() -> None:
    spec = replace(SMALL, operators=(zoo.involution(3, 4),), layer_scale=None, mlp_ratio=2.5)
    first = spec.build((3, 9, 9), 5)
    first(torch.randn(4, 3, 9, 9))
    again = Spec.from_json(spec.to_json())
    assert again == spec
    second = again.build((3, 9, 9), 5)
    second.load_state_dict(first.state_dict())
    x = torch.randn(2, 3, 9, 9)
    assert torch.equal(first.eval()(x), second.eval()(x))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"operators": (zoo.conv2d(),) * 2},
            r"^operators has 2 operators, depths has 3 stages: give one operator for all stages, or one for each\.$",
        ),
        ({"operators": zoo.conv2d()}, r"^operators has Operator\(.*\): must be of type tuple\.$"),
        ({"operators": (Window(3),)}, r"^operators has Window\(3\): must be of type Layer\.$"),
        (
            {"depths": (), "multiples": ()},
            r"^depths has \(\), multiples has \(\): each must give a number for each stage\.$",
        ),
        (
            {"multiples": (1, 2)},
            r"^depths has \(1, 2, 1\), multiples has \(1, 2\): each must give a number for each stage\.$",
        ),
        ({"depths": (1, 0, 1)}, r"^depths has 0: must be an integer of at least 1\.$"),
        ({"multiples": (1, 2.5, 4)}, r"^multiples has 2\.5: must be an integer of at least 1\.$"),
        ({"multiples": (2, 4, 8)}, r"^multiples has \(2, 4, 8\): must begin with 1, the first stage has `width`"),
        ({"width": 0}, r"^width has 0: must be an integer of at least 1\.$"),
        ({"patch": 0}, r"^patch has 0: must be an integer of at least 1\.$"),
        ({"stem_stride": 0}, r"^stem_stride has 0: must be an integer of at least 1\.$"),
        (
            {"patch": 1, "stem_stride": 2},
            r"^patch has 1, stem_stride has 2: pixels between patches would be lost\. Use a patch of 2 or more\.$",
        ),
        ({"mlp_ratio": 0}, r"^mlp_ratio has 0: must be a number above 0\.$"),
        ({"mlp_ratio": float("nan")}, r"^mlp_ratio has nan: must be a number above 0\.$"),
        ({"mlp_ratio": 0.01}, r"^mlp_ratio has 0\.01, width has 8: an MLP needs one hidden channel or more\.$"),
        ({"layer_scale": 0.0}, r"^layer_scale has 0\.0: must be a number above 0\.$"),
        ({"layer_scale": "1"}, r"^layer_scale has '1': must be a number above 0\.$"),
    ],
)
def test_mistakes_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        replace(SMALL, **fields)


def test_mistakes_of_a_shape_are_named() -> None:
    with pytest.raises(SpecError, match=r"^size has 's13': must be one of 's12', 's24', 's36', 'm36', 'm48'\.$"):
        metaformer(size="s13")
    with pytest.raises(
        ShapeError,
        match=r"^image has 2 x 9 pixels, stem_stride has 4: no patch fits\. Use a stem_stride of 2 or less\.$",
    ):
        metaformer().build((3, 2, 9), 5)
    with pytest.raises(
        ShapeError, match=r"its block has one of \(8, 8\): must be equal\. Let the network set the stride"
    ):
        replace(SMALL, operators=(zoo.depthwise(stride=2),)).build((3, 8, 8), 5)
    with pytest.raises(
        ShapeError, match=r"^x has c=8 channels, channels '\(g s\)' has s=16: channels must be a multiple"
    ):
        replace(SMALL, operators=(zoo.involution(),)).build((3, 8, 8), 5)
