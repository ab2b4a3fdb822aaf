"""Kernels that need windows which pixels have in common, or an operator's context: what the conformance suite asks."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import dynops
from dynops import (
    Block,
    Channels,
    Dynamic,
    Global,
    Hidden,
    Linear,
    Mixture,
    Operator,
    Positions,
    Query,
    QueryKey,
    QueryPosition,
    Read,
    Relative,
    Static,
    Window,
    softmax,
)
from dynops.errors import ShapeError, SpecError

Settle = Callable[[nn.Module], nn.Module]
SIZE = (5, 6)
HEADS = Channels("(g s)", g=2)
ATTENTION = QueryKey(query=Query(dim=4)) + Relative()
ROUTED = Mixture(experts=(Static(), Static()), router=Read().then(softmax))
OPERATORS = {
    "relative places in a block": Operator(kernel=Relative(shared="o"), channels=HEADS, window=Block(3, shift=1)),
    "relative places of a moved window": Operator(kernel=Relative(), channels=HEADS, window=Window(3, border="shift")),
    "relative places of all pixels": Operator(kernel=ATTENTION.then(softmax), channels=HEADS, window=Global()),
    "table of a block": Operator(kernel=Static(), channels=HEADS, window=Block(2, halo=1, border="circular")),
    "positions in a block": Operator(
        kernel=QueryKey(query=Query(dim=4), positions=Positions(layout="halves")).then(softmax),
        channels=HEADS,
        window=Block(4, halo=1),
    ),
    "distances in a block": Operator(
        kernel=QueryKey(relation="squared_distance", query=Query(dim=3), positions=Positions()),
        channels=HEADS,
        window=Block(3, border="zeros"),
    ),
    "positions near a pixel": Operator(
        kernel=QueryPosition(query=Query(dim=3), positions=Positions(reach=3)), channels=HEADS, window=Global()
    ),
    "distances near a pixel": Operator(
        kernel=QueryKey(relation="subtraction", query=Query(dim=3), positions=Positions(reach=3)),
        channels=HEADS,
        window=Block(4, shift=2),
    ),
    "generated for a block": Operator(kernel=Dynamic(context="pixel"), channels=HEADS, window=Block(3, stride=3)),
    "tokens that are no pixels": Operator(
        kernel=Static(positions=True), channels=Channels("s"), window=Global(grid=(2, 2)), bias=Static(positions=True)
    ),
    "one router for kernel and bias": Operator(
        context=Hidden(context="global", hidden=2, norm=None, activation="identity"),
        kernel=ROUTED,
        bias=ROUTED,
        channels=Channels("i -> o"),
        window=Window(3),
    ),
    "one hidden context for two": Operator(
        context=Hidden(context="pixel", hidden=6),
        kernel=Linear(context="operator") * Dynamic(context="operator", hidden=5),
        channels=HEADS,
        window=Window(3, stride=2),
    ),
    "context as query": Operator(
        context=Hidden(context="pixel", hidden=3, apart=True),
        kernel=QueryKey(query=Query(context="operator"), distribution=True, scaled=False),
        bias=QueryPosition(query=Query(context="operator")),
        channels=Channels("s -> (o s)", o=2),
        window=Global(),
    ),
}


def features(size: tuple[int, int] = SIZE) -> Tensor:
    return torch.randn(3, 8, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("name", OPERATORS)
def test_operator_conforms(name: str, settled: Settle) -> None:
    spec = OPERATORS[name]
    assert Operator.from_json(spec.to_json()) == spec == eval(repr(spec), vars(dynops))
    operator = settled(spec.build(8, size=SIZE).double())
    x = features().requires_grad_()
    y, weights = operator(x, return_kernel=True)
    assert tuple(y.shape[1:]) == spec.describe(8, SIZE).output
    assert tuple(y.shape[2:]) == spec.output_size(SIZE)
    for letter, axis in (("b", 0), ("h", 5)):
        assert (weights.shape[axis] > 1) == (letter in spec.signature), letter
    y.square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    for parameter_name, parameter in operator.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name
    another = spec.build(8, size=SIZE).double().eval()
    assert not torch.equal(another(x), y)
    another.load_state_dict(operator.state_dict())
    assert torch.equal(another(x), y)
    torch.testing.assert_close(torch.cat([operator(image[None]) for image in x]), y, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["positions near a pixel", "positions in a block", "context as query"])
def test_operator_without_a_table_of_places_has_no_size(name: str) -> None:
    layer = OPERATORS[name].build(8).double().eval()
    for size in ((5, 6), (9, 4)):
        assert layer(features(size)).shape[2:] == size


def test_table_of_all_places_fits_one_grid() -> None:
    layer = OPERATORS["relative places of all pixels"].build(8, size=SIZE).double()
    with pytest.raises(
        ShapeError,
        match=r"^x has a grid of \(6, 6\), kernel has \(9, 11\) relative places: a global window's table fits one "
        r"grid\. Build the operator with the size of its input\.$",
    ):
        layer(features((6, 6)))
    layer = Operator(kernel=QueryPosition(query=Query(dim=3)), channels=HEADS, window=Global()).build(8, size=SIZE)
    with pytest.raises(ShapeError, match=r"with the size of its input, or give the positions a reach\.$"):
        layer(torch.zeros(1, 8, 6, 6))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            Operator(kernel=Relative(), channels=HEADS, window=Window(3)),
            r"^kernel has Relative\(\), window has Window\(3\): there a tap lies at the same place for every pixel\. "
            r"Use Static\(\)\.$",
        ),
        (
            Operator(kernel=QueryPosition(positions=Positions(reach=3)), channels=HEADS, window=Window(3)),
            r"^reach has 3, window has Window\(3\): only a window that pixels have in common has a part near each of "
            r"them\. Leave the reach out\.$",
        ),
        (
            Operator(kernel=Static(), channels=HEADS, window=Global()),
            r"^size has None: a global window has a tap for each pixel of the input\. Build it with size=\(rows, "
            r"columns\)\.$",
        ),
        (
            Operator(kernel=Linear(context="operator"), channels=HEADS, window=Window(3)),
            r"^context has 'operator': the operator has no context\. Give the operator one\.$",
        ),
        (
            Operator(kernel=Dynamic(context="window"), channels=HEADS, window=Block(3)),
            r"^context has 'window', window has Block\(3\): a convolution needs a sliding Window\.$",
        ),
    ],
)
def test_part_that_does_not_fit_its_window_is_refused(spec: Operator, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        spec.build(8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Query(context="operator", dim=3),
            r"^context has 'operator': the context is the query as it is\. Give Query\(dim=3, context='operator'\) no "
            r"dim, bias, norm, relu or downsample\.$",
        ),
        (lambda: Positions(reach=2), r"^reach has 2: must be an odd number, the side of a window\.$"),
        (
            lambda: QueryKey(relation="subtraction", scaled=False),
            r"^scaled has False, relation has 'subtraction': only a dot product is scaled\.$",
        ),
        (lambda: Relative(shared="k"), r"^shared has 'k': a kernel of places varies along k\. Letters are g, o, i\.$"),
        (
            lambda: Static(learned=False),
            r"^learned has False, start has None: a table that is fixed needs its start\.$",
        ),
        (lambda: Linear(context="pixel", reach=2), r"^reach has 2: must be 'window' or an odd number\.$"),
        (
            lambda: Linear(context="global", reach="window"),
            r"^reach has 'window', context has 'global': must be 'pixel'\.$",
        ),
        (
            lambda: Dynamic(context=("pixel", "window")),
            r"^context has \('pixel', 'window'\): 'window' stands alone\.$",
        ),
        (lambda: Dynamic(context=()), r"^context has \(\): must name at least one\.$"),
        (
            lambda: Hidden(context="pixel", apart=True),
            r"^apart has True, hidden has None: give the number of channels for each kernel\.$",
        ),
        (
            lambda: Dynamic(context="pixel", hidden=3, least=2),
            r"^least has 2, hidden has 3: only a reduction has a least width\.$",
        ),
        (
            lambda: Block(3, shift=3),
            r"^shift has 3, size has 3: blocks move by less than a block\.$",
        ),
    ],
)
def test_field_that_is_wrong_is_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make()
