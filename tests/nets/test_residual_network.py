"""The residual network: every size and operator, its start, its costs, and its mistakes."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dynops.errors import ShapeError, SpecError
from dynops.nets import ResidualNetwork, Widths
from dynops.nets.residual import Bottleneck
from dynops.ops import Window
from dynops.parts import (
    BatchNorm,
    Channels,
    Dynamic,
    Layer,
    LocalOperator,
    Operator,
    QueryKey,
    Static,
    macs,
    parameters,
    softmax,
    zoo,
)
from dynops.parts.combine import Parallel, Pointwise, Series
from dynops.specs import Spec

INVOLUTION = zoo.involution(kernel_size=3, group_channels=4)
POSITION = Operator(kernel=Dynamic(context="position"), channels=Channels("(g s)", s=4), window=Window(3))
SUM = replace(POSITION, kernel=Static() + Dynamic(context="pixel", shared="g"))
ATTENTION = Operator(kernel=QueryKey().then(softmax), channels=Channels("(g s)", g=2), window=Window(3, border="mask"))
IN_SERIES = Series(layers=(zoo.depthwise(), Pointwise(norm=BatchNorm()), zoo.conv2d(kernel_size=1)))
IN_PARALLEL = Parallel(layers=(zoo.depthwise(), INVOLUTION), merge="gate")
WIDE = Parallel(layers=(zoo.conv2d(), IN_SERIES), merge="concat")
NESTED = Series(layers=(WIDE, Pointwise(), POSITION, zoo.conv2d(kernel_size=1)))
SMALL = ResidualNetwork(operators=(INVOLUTION,), width=8)


@pytest.mark.parametrize("operator", [INVOLUTION, POSITION, SUM, zoo.conv2d(), zoo.involution_keras(channel=8)])
@pytest.mark.parametrize("size", [8, 9, 15, 32, 64])
def test_network_takes_any_size(size: int, operator: Layer) -> None:
    network = replace(SMALL, operators=(operator,)).build((3, size, size), 5)
    x = torch.randn(2, 3, size, size)
    y = network(x)
    assert y.shape == (2, 5)
    F.cross_entropy(y, torch.tensor([0, 1])).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_large_images_go_through_a_stem_of_stride_4() -> None:
    network = replace(SMALL, operators=(zoo.involution(group_channels=4),), stem_stride=4).build((3, 224, 224), 5)
    with torch.no_grad():
        x = network.stem(torch.randn(1, 3, 224, 224))
        assert x.shape == (1, 8, 56, 56)
        assert network.eval()(torch.randn(1, 3, 224, 224)).shape == (1, 5)


@pytest.mark.parametrize(("size", "grids"), [((8, 8), [(8, 8), (4, 4), (2, 2)]), ((9, 15), [(9, 15), (5, 8), (3, 4)])])
def test_every_stage_but_the_first_halves_the_image_and_grows(
    size: tuple[int, int], grids: list[tuple[int, int]]
) -> None:
    network = replace(SMALL, depths=(2, 1, 2)).build((3, *size), 5)
    names = [name for name, _ in network.named_children()]
    assert names == [
        "stem", "stage1_block1", "stage1_block2", "stage2_block1", "stage3_block1", "stage3_block2", "head"
    ]  # fmt: skip
    x, shapes = torch.randn(2, 3, *size), {}
    for name, layer in network.named_children():
        x = layer(x)
        shapes[name] = tuple(x.shape[1:])
    for stage, (width, grid) in enumerate(zip((8, 16, 32), grids, strict=True), start=1):
        assert shapes[f"stage{stage}_block1"] == (width, *grid)
    strides = [layer.window.stride for layer in network.modules() if isinstance(layer, LocalOperator)]
    assert strides == [1, 1, 2, 2, 1]


def test_one_operator_serves_all_stages_or_each_has_its_own() -> None:
    operators = (zoo.conv2d(), INVOLUTION, zoo.depthwise(kernel_size=5))
    network = replace(SMALL, operators=operators).build((3, 16, 16), 5)
    found = [layer.spec for layer in network.modules() if isinstance(layer, LocalOperator)]
    expected = [
        replace(each, window=replace(each.window, stride=1 if stage == 0 else 2))
        for stage, each in enumerate(operators)
    ]
    assert found == expected
    same = SMALL.build((3, 16, 16), 5)
    kernels = {layer.spec.kernel for layer in same.modules() if isinstance(layer, LocalOperator)}
    assert kernels == {INVOLUTION.kernel}


def slots(network: nn.Module) -> list[nn.Module]:
    return [block.operator for block in network.modules() if isinstance(block, Bottleneck)]


def test_each_block_may_have_an_operator_of_its_own() -> None:
    operators = (zoo.conv2d(), zoo.depthwise(), INVOLUTION, zoo.conv2d(kernel_size=5), POSITION)
    network = replace(SMALL, operators=operators, depths=(2, 1, 2)).build((3, 16, 16), 5)
    assert [layer.spec.kernel for layer in slots(network)] == [each.kernel for each in operators]
    assert [layer.spec.window.size for layer in slots(network)] == [3, 3, 3, 5, 3]
    assert [layer.spec.window.stride for layer in slots(network)] == [1, 1, 2, 2, 1]


def test_one_operator_for_each_stage_and_the_same_for_each_block_are_one_network() -> None:
    early, late = zoo.conv2d(), ATTENTION

    def outputs(operators: tuple[Layer, ...]) -> torch.Tensor:
        torch.manual_seed(3)
        network = ResidualNetwork(operators=operators, depths=(2, 1), width=8).build((3, 8, 8), 5)
        for block in network.modules():
            if isinstance(block, Bottleneck):
                nn.init.ones_(block.leave_norm.weight)
        return network(torch.randn(2, 3, 8, 8))

    assert torch.equal(outputs((early, late)), outputs((early, early, late)))
    assert not torch.equal(outputs((early, late)), outputs((early, late, late)))


def test_convolution_early_and_attention_late_is_a_tuple() -> None:
    network = ResidualNetwork(operators=(zoo.conv2d(), zoo.conv2d(), ATTENTION), depths=(1, 2, 1), width=8)
    layers = slots(network.build((3, 12, 12), 5))
    assert [layer.spec.signature for layer in layers] == [frozenset()] * 3 + [frozenset("bhw")]
    assert [layer.spec.window.stride for layer in layers] == [1, 2, 1, 2]
    assert [layer.channels for layer in layers] == [8, 16, 16, 32]


@pytest.mark.parametrize("layer", [IN_SERIES, IN_PARALLEL, NESTED], ids=["series", "parallel", "nested"])
@pytest.mark.parametrize("size", [8, 9])
def test_slot_holds_layers_in_series_and_in_parallel(layer: Layer, size: int) -> None:
    spec = replace(SMALL, operators=(zoo.conv2d(), layer, layer))
    assert Spec.from_json(spec.to_json()) == spec
    network = spec.build((3, size, size), 5)
    y = network(torch.randn(2, 3, size, size))
    assert y.shape == (2, 5)
    F.cross_entropy(y, torch.tensor([0, 1])).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_series_takes_the_stride_of_its_stage_once() -> None:
    network = replace(SMALL, operators=(IN_SERIES,)).build((3, 12, 12), 5)
    strides = [[layer.layers[0].spec.window.stride, layer.layers[2].spec.window.stride] for layer in slots(network)]
    assert strides == [[1, 1], [2, 1], [2, 1]]


def test_specs_of_earlier_studies_keep_their_fingerprints() -> None:
    assert SMALL.fingerprint() == "cf8c27574c61"
    two = ResidualNetwork(operators=(zoo.conv2d(), zoo.depthwise()), depths=(1, 2))
    assert two.fingerprint() == "6b1560df0318"


@pytest.mark.parametrize("training", [True, False])
def test_block_starts_as_its_shortcut(training: bool) -> None:
    network = replace(SMALL, depths=(2, 2)).build((3, 9, 9), 5).train(training)
    x = network.stem(torch.randn(4, 3, 9, 9))
    for name, block in network.named_children():
        if isinstance(block, Bottleneck):
            y = block(x)
            torch.testing.assert_close(y, F.relu(block.shortcut(x)))
            is_identity = name in ("stage1_block1", "stage1_block2", "stage2_block2")
            assert isinstance(block.shortcut, nn.Identity) == is_identity
            x = y


def test_block_learns_to_leave_its_shortcut() -> None:
    network = SMALL.build((3, 8, 8), 5)
    network(torch.randn(4, 3, 8, 8)).square().sum().backward()
    for block in network.modules():
        if isinstance(block, Bottleneck):
            assert block.leave_norm.weight.grad.abs().sum() > 0


def test_costs_are_those_of_the_layers() -> None:
    network = ResidualNetwork(operators=(zoo.depthwise(),), depths=(1, 1), width=8).build((3, 6, 6), 5)
    stem = 3 * 8 * 9
    first = 8 * 8 + 8 * 9 + 8 * 8
    second = 8 * 16 + 16 * 9 + 16 * 16 + 8 * 16  # the shortcut at the end
    norms = 2 * (8 + 8 * 3 + 16 * 4)
    assert parameters(network) == stem + first + second + norms + 16 * 5 + 5
    # the second block enters at 6 x 6 and leaves at 3 x 3
    products = 36 * (stem + first + 8 * 16) + 9 * (16 * 9 + 16 * 16 + 8 * 16) + 16 * 5
    assert macs(network, (1, 3, 6, 6)) == products


def test_inner_channels_are_those_of_the_operator_and_grow_as_the_width() -> None:
    spec = ResidualNetwork(operators=(zoo.depthwise(),), depths=(1, 1), width=6, inner=8)
    assert Spec.from_json(spec.to_json()) == spec
    network = spec.build((3, 6, 6), 5)
    assert [layer.channels for layer in slots(network)] == [8, 16]
    stem = 3 * 6 * 9
    first = 6 * 8 + 8 * 9 + 8 * 6
    second = 6 * 16 + 16 * 9 + 16 * 12 + 6 * 12  # the shortcut at the end
    norms = 2 * (6 + 8 * 2 + 6 + 16 * 2 + 12 * 2)
    assert parameters(network) == stem + first + second + norms + 12 * 5 + 5
    assert network(torch.randn(2, 3, 6, 6)).shape == (2, 5)


def test_inner_channels_as_many_as_the_width_are_the_default_to_the_bit() -> None:
    def built(inner: int | None) -> dict[str, torch.Tensor]:
        torch.manual_seed(3)
        return replace(SMALL, inner=inner).build((3, 8, 8), 5).state_dict()

    default, given = built(None), built(8)
    assert list(default) == list(given)
    assert all(torch.equal(default[name], given[name]) for name in default)
    assert "inner" not in SMALL.to_plain()


def test_network_is_widened_by_both_its_numbers() -> None:
    assert SMALL.widths == Widths(inner=8, width=8)
    assert SMALL.widened(SMALL.widths) is SMALL
    assert SMALL.widened(Widths(inner=12, width=9)) == replace(SMALL, width=9, inner=12)
    assert SMALL.widened(Widths(inner=12, width=12)) == replace(SMALL, width=12)


def test_state_dict_and_json_carry_the_network_over() -> None:
    first = replace(SMALL, operators=(POSITION,)).build((3, 9, 9), 5)
    first(torch.randn(4, 3, 9, 9))
    again = Spec.from_json(replace(SMALL, operators=(POSITION,)).to_json())
    assert again == replace(SMALL, operators=(POSITION,))
    second = again.build((3, 9, 9), 5)
    second.load_state_dict(first.state_dict())
    x = torch.randn(2, 3, 9, 9)
    assert torch.equal(first.eval()(x), second.eval()(x))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"operators": (INVOLUTION, INVOLUTION)},
            r"^operators has 2 operators, depths has 3 stages with 3 blocks in all: give one operator for all, one for "
            r"each stage, or one for each block\.$",
        ),
        (
            {"operators": (INVOLUTION,) * 4, "depths": (2, 3)},
            r"^operators has 4 operators, depths has 2 stages with 5 blocks in all: give one operator",
        ),
        ({"operators": ()}, r"^operators has 0 operators, depths has 3 stages with 3 blocks in all: give one operator"),
        ({"operators": INVOLUTION}, r"^operators has Operator\(.*\): must be of type tuple\.$"),
        ({"operators": (Window(3),)}, r"^operators has Window\(3\): must be of type Layer\.$"),
        ({"depths": ()}, r"^depths has \(\): must give the blocks of one stage or more\.$"),
        ({"depths": (1, 0)}, r"^depths has 0: must be an integer of at least 1\.$"),
        ({"width": 0}, r"^width has 0: must be an integer of at least 1\.$"),
        ({"inner": 0}, r"^inner has 0: must be an integer of at least 1\.$"),
        ({"growth": 1.5}, r"^growth has 1\.5: must be an integer of at least 1\.$"),
        ({"stem_stride": 3}, r"^stem_stride has 3: must be a power of two\.$"),
        ({"stem_stride": 0}, r"^stem_stride has 0: must be an integer of at least 1\.$"),
    ],
)
def test_network_says_which_field_is_wrong(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        replace(SMALL, **fields)


def test_width_that_the_operator_does_not_divide_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"^x has c=6 channels, channels '\(g s\)' has s=4: "):
        replace(SMALL, width=6).build((3, 8, 8), 5)


def test_layer_that_changes_the_grid_by_itself_is_refused() -> None:
    layer = Series(layers=(zoo.conv2d(), zoo.conv2d(stride=2)))
    message = (
        r"^operators has Series\(.*\) with an output grid of \(4, 4\), its block has one of \(8, 8\): must be equal\. "
        r"Let the network set the stride\.$"
    )
    with pytest.raises(ShapeError, match=message):
        replace(SMALL, operators=(layer,)).build((3, 8, 8), 5)
