"""What operators and kernels say about wrong parts, widths, inputs and guides."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from dynops.errors import ShapeError, SpecError
from dynops.ops import Window
from dynops.parts import Channels, Dynamic, Operator, Static, softmax, zoo
from dynops.parts.kernel import Product, Sum

LAYER = zoo.involution(kernel_size=3, group_channels=4).build(8)
GUIDED = zoo.involution(kernel_size=3, group_channels=4).build(8, guide_channels=4)
POSITION = Operator(kernel=Dynamic(context="position"), channels=Channels("g"), window=Window(3, stride=2))
X = torch.zeros(2, 8, 5, 6)


@pytest.mark.parametrize(
    ("layer", "inputs", "message"),
    [
        (LAYER, (torch.zeros(2, 9, 5, 6),), r"^x has c=9 channels: the operator was built for 8\.$"),
        (LAYER, (torch.zeros(8, 5, 6),), r"^x has shape \(8, 5, 6\) with 3 axes: must have 4, `b c h w`\.$"),
        (LAYER, (X, X), r"^call has a guide, operator has guide_channels=None: it takes none\.$"),
        (GUIDED, (X,), r"^call has no guide, operator has guide_channels=4: it needs one\.$"),
        (GUIDED, (X, X), r"^guide has c=8 in `b c h w`: must be 4\.$"),
        (GUIDED, (X, torch.zeros(1, 4, 5, 6)), r"^guide has b=1 in `b c h w`: must be 2\.$"),
        (GUIDED, (X, torch.zeros(2, 4, 5, 5)), r"^guide has w=5 in `b c h w`: must be 6\.$"),
        (GUIDED, (X, torch.zeros(2, 4, 5)), r"^guide has shape \(2, 4, 5\) with 3 axes: must have 4, `b c h w`\.$"),
        (
            POSITION.build(8, size=(5, 6)),
            (torch.zeros(2, 8, 7, 6),),
            r"^x has an output grid of \(4, 3\), kernel has positions for \(3, 3\): they must be equal\. "
            r"Build the operator with the size of its input\.$",
        ),
    ],
)
def test_input_that_does_not_fit_is_refused(layer: Any, inputs: tuple[torch.Tensor, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        layer(*inputs)


def test_kernel_of_positions_needs_the_size_of_its_input() -> None:
    message = (
        r"^size has None: a kernel that learns positions has a table for the grid of its input\. "
        r"Build it with size=\(rows, columns\)\.$"
    )
    with pytest.raises(SpecError, match=message):
        POSITION.build(8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 0}, r"^channels has 0: must be an integer of at least 1\.$"),
        ({"channels": 8, "out_channels": 0}, r"^out_channels has 0: must be an integer of at least 1\.$"),
        ({"channels": 8, "guide_channels": 0}, r"^guide_channels has 0: must be an integer of at least 1\.$"),
        ({"channels": 8, "size": (0, 6)}, r"^size has 0: must be an integer of at least 1\.$"),
        ({"channels": 8, "size": (5, 6.0)}, r"^size has 6\.0: must be an integer of at least 1\.$"),
    ],
)
def test_width_or_size_that_is_no_positive_number_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        POSITION.build(**{"size": (5, 6)} | arguments)


def test_width_that_the_reduction_does_not_divide_is_refused() -> None:
    message = (
        r"^context has c=10 channels, kernel has reduction=4: c must be a multiple of the reduction\. "
        r"Give hidden=, the number of hidden channels, instead\.$"
    )
    with pytest.raises(ShapeError, match=message):
        zoo.involution(group_channels=5).build(10)
    with pytest.raises(ShapeError, match=r"^context has c=6 channels, kernel has reduction=4"):
        zoo.involution(group_channels=4).build(8, guide_channels=6)


def test_width_that_the_groups_do_not_divide_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"^x has c=24 channels, channels '\(g s\)' has s=16: .*Divisors of 24: 1, 2,"):
        zoo.involution().build(24)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel": "static"}, r"^kernel has 'static': must be of type Kernel\.$"),
        ({"kernel": softmax}, r"^kernel has softmax: must be of type Kernel\.$"),
        ({"channels": "(g s)"}, r"^channels has '\(g s\)': must be of type Channels\.$"),
        ({"window": 3}, r"^window has 3: must be of type Geometry\.$"),
        ({"value": True}, r"^value has True: must be of type Project\.$"),
        ({"out": Static()}, r"^out has Static\(\): must be of type Project\.$"),
    ],
)
def test_part_of_another_kind_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        replace(zoo.depthwise(), **change)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"context": "patch"},
            r"^context has 'patch': must be one of 'constant', 'position', 'coordinates', 'global', 'pixel', "
            r"'window', 'operator'\.$",
        ),
        ({"downsample": "max"}, r"^downsample has 'max': must be one of 'average', 'subsample'\.$"),
        ({"reduction": 4, "hidden": 8}, r"^reduction has 4, hidden has 8: give one of them\.$"),
        ({"reduction": 0}, r"^reduction has 0: must be an integer of at least 1\.$"),
        ({"hidden": 0}, r"^hidden has 0: must be an integer of at least 1\.$"),
        ({"shared": "s"}, r"^shared has 's': must hold letters among g o i k, each once\.$"),
        ({"shared": "gg"}, r"^shared has 'gg': must hold letters among g o i k, each once\.$"),
        ({"span": "g o k"}, r"^span has 'g o k': must hold the letters g o i k, each once\.$"),
        ({"norm": True}, r"^norm has True: must be of type BatchNorm\.$"),
    ],
)
def test_dynamic_kernel_says_which_field_is_wrong(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Dynamic(**{"context": "pixel"} | fields)


def test_static_kernel_and_normalised_kernel_say_what_is_wrong() -> None:
    with pytest.raises(SpecError, match=r"^shared has 'h': must hold letters among g o i k, each once\.$"):
        Static(shared="h")
    with pytest.raises(SpecError, match=r"^normaliser has 'softmax': must be of type Normaliser\.$"):
        Static().then("softmax")


def test_kernel_combines_with_kernels_only() -> None:
    with pytest.raises(TypeError, match=r"unsupported operand type\(s\) for \+: 'Static' and 'int'"):
        Static() + 1
    with pytest.raises(TypeError, match=r"unsupported operand type\(s\) for \*: 'Static' and 'float'"):
        Static() * 2.0


def test_a_combination_needs_two_kernels() -> None:
    with pytest.raises(SpecError, match="terms has 1 kernels: must be two or more"):
        Sum(terms=(Static(),))
    with pytest.raises(SpecError, match=r"factors has Window\(3\): must be of type Kernel"):
        Product(factors=(Static(), Window(3)))
