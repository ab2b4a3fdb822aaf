"""Kernels of attention against torch's attention and against loops from the papers."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dynops.errors import ShapeError, SpecError
from dynops.ops import Window
from dynops.ops.local_scores import local_scores
from dynops.parts import (
    BatchNorm,
    Channels,
    Kernel,
    LocalOperator,
    Operator,
    Positions,
    Project,
    Query,
    QueryKey,
    QueryPosition,
    macs,
    parameters,
    softmax,
    zoo,
)

EXACT = {"rtol": 1e-10, "atol": 1e-10}
HEADS, WIDTH = 2, 8


def attention(kernel: QueryKey | QueryPosition, window: Window, value: Project | None = None) -> LocalOperator:
    operator = Operator(
        kernel=kernel.then(softmax), channels=Channels("(g s)", g=HEADS), window=window, value=value or Project()
    )
    return operator.build(WIDTH).double()


def assert_same_with_gradients(layer: LocalOperator, x: Tensor, mine: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(mine, theirs, **EXACT)
    inputs = (x, *layer.parameters())
    weight = torch.randn_like(mine)
    for found, exact in zip(*(torch.autograd.grad(y, inputs, weight) for y in (mine, theirs)), strict=True):
        torch.testing.assert_close(found, exact, **EXACT)


def heads_of(x: Tensor, weight: Tensor, heads: int = HEADS) -> Tensor:
    """Project and split into heads, `b h w head d`."""
    return torch.einsum("bchw,oc->bhwo", x, weight.flatten(1)).unflatten(3, (heads, -1))


@pytest.mark.parametrize(("stride", "dilation", "size"), [(1, 1, 3), (2, 1, 3), (1, 2, 3), (2, 2, 5)])
@pytest.mark.parametrize("border", ["mask", "shift"])
def test_dot_product_attention_is_that_of_torch_pixel_by_pixel(
    stride: int, dilation: int, size: int, border: str
) -> None:
    window = Window(size, stride=stride, dilation=dilation, border=border)
    layer = attention(QueryKey(), window)
    x = torch.randn(2, WIDTH, 11, 10, dtype=torch.float64, requires_grad=True)
    query, key = (heads_of(x, each.weight) for each in (layer.kernel.kernel.query.project, layer.kernel.kernel.key))
    value = heads_of(x, layer.value.weight)
    y = layer(x)
    expected = torch.zeros_like(y)
    for row, column in product(range(y.shape[2]), range(y.shape[3])):
        r, c = row * stride, column * stride
        seen = [
            (m, n)
            for m, n in product(near(r, size, dilation, 11, border), near(c, size, dilation, 10, border))
            if 0 <= m < 11 and 0 <= n < 10
        ]
        keys, values = (torch.stack([each[:, m, n] for m, n in seen], dim=2) for each in (key, value))
        found = F.scaled_dot_product_attention(query[:, r, c, :, None], keys, values)
        expected[:, :, row, column] = found[:, :, 0].flatten(1)
    assert_same_with_gradients(layer, x, y, expected)


@pytest.mark.oracle("neighbourhood_attention")
@pytest.mark.parametrize("dilation", [1, 2])
def test_neighbourhood_attention_is_that_of_torch_at_the_nearest_pixels(dilation: int) -> None:
    layer = zoo.neighbourhood_attention(kernel_size=5, heads=HEADS, dilation=dilation).build(WIDTH).double()
    assert parameters(layer) == 4 * WIDTH**2 + 4 * WIDTH  # 4 C^2 + 4 C
    x = torch.randn(2, WIDTH, 11, 12, dtype=torch.float64, requires_grad=True)
    maps = (layer.kernel.kernel.query.project, layer.kernel.kernel.key, layer.value)
    query, key, value = (heads_of(x, each.weight) + each.bias.view(HEADS, -1) for each in maps)
    rows = []
    for r in range(11):
        row = []
        for c in range(12):
            seen = list(product(near(r, 5, dilation, 11, "shift"), near(c, 5, dilation, 12, "shift")))
            keys, values = (torch.stack([each[:, m, n] for m, n in seen], dim=2) for each in (key, value))
            found = F.scaled_dot_product_attention(query[:, r, c, :, None], keys, values)
            row.append(layer.out.weight[..., 0, 0] @ found.flatten(1)[..., None] + layer.out.bias[:, None])
        rows.append(torch.cat(row, dim=2))
    assert_same_with_gradients(layer, x, layer(x), torch.stack(rows, dim=2))


def near(centre: int, size: int, dilation: int, length: int, border: str) -> list[int]:
    """The taps around a pixel; those of `shift` stay inside, as near to it as they can."""
    if border == "mask":
        return [centre + dilation * (tap - size // 2) for tap in range(size)]
    same = [each for each in range(length) if each % dilation == centre % dilation]
    runs = [same[first : first + size] for first in range(len(same) - size + 1)]
    return min(runs, key=lambda run: abs(run[size // 2] - centre))


def relation_of_paper(name: str, query: Tensor, key: Tensor) -> Tensor:
    if name == "dot":
        return sum(a * b for a, b in zip(query, key, strict=True))
    if name == "subtraction":
        return -sum((a - b).abs() for a, b in zip(query, key, strict=True))
    return -sum((a - b) ** 2 for a, b in zip(query, key, strict=True))


@pytest.mark.parametrize("relation", ["dot", "subtraction", "squared_distance"])
@pytest.mark.parametrize("with_positions", [False, True])
@pytest.mark.parametrize("border", ["zeros", "circular"])
def test_scores_are_those_of_the_formula(relation: str, with_positions: bool, border: str) -> None:
    window = Window(3, stride=(1, 2), border=border)
    query = torch.randn(2, 2, 3, 4, 3, 3, dtype=torch.float64, requires_grad=True)  # b g o d h w
    key = torch.randn(2, 2, 4, 3, 5, dtype=torch.float64, requires_grad=True)  # b g d h w
    positions = torch.randn(2, 4, 9, dtype=torch.float64, requires_grad=True)
    found = local_scores(query, key, window, relation=relation, positions=positions if with_positions else None)
    expected = torch.zeros(2, 2, 3, 9, 3, 3, dtype=torch.float64)
    for b, g, o, tap, row, column in product(*map(range, expected.shape)):
        r, c = row + tap // 3 - 1, 2 * column + tap % 3 - 1
        if border == "circular":
            r, c = r % 3, c % 5
        seen = key[b, g, :, r, c] if 0 <= r < 3 and 0 <= c < 5 else torch.zeros(4, dtype=torch.float64)
        if with_positions:
            seen = seen + positions[g, :, tap]
        expected[b, g, o, tap, row, column] = relation_of_paper(relation, query[b, g, o, :, row, column], seen)
    torch.testing.assert_close(found, expected, **EXACT)
    inputs = (query, key, positions) if with_positions else (query, key)
    weight = torch.randn_like(found)
    for mine, theirs in zip(*(torch.autograd.grad(y, inputs, weight) for y in (found, expected)), strict=True):
        torch.testing.assert_close(mine, theirs, **EXACT)


@pytest.mark.oracle("stand_alone_attention")
@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize(
    ("taps", "stride", "size"),
    [(3, 1, (4, 5)), (1, 1, (3, 2)), (5, 1, (3, 6)), (7, 1, (4, 3)), (3, 2, (6, 4)), (5, 2, (5, 7)), (3, 3, (7, 5))],
)
def test_stand_alone_self_attention_is_that_of_its_paper(
    taps: int, stride: int, size: tuple[int, int], heads: int
) -> None:
    """Equation 3: softmax over the window of q.k + q.r, r from row and column offsets, zero padding inside."""
    layer = zoo.stand_alone_attention(kernel_size=taps, heads=heads, stride=stride).build(WIDTH).double()
    x = torch.randn(2, WIDTH, *size, dtype=torch.float64, requires_grad=True)
    maps = (layer.kernel.kernel.query.project, layer.kernel.kernel.key, layer.value)
    query, key, value = (heads_of(x, each.weight, heads) for each in maps)
    down, right = layer.kernel.kernel.positions.tables  # head d taps
    zero, pixels = torch.zeros_like(key[:, 0, 0]), []
    for r, c in product(range(0, size[0], stride), range(0, size[1], stride)):
        keys, values = [], []
        for row, column in product(range(taps), range(taps)):
            m, n = r + row - taps // 2, c + column - taps // 2
            inside = 0 <= m < size[0] and 0 <= n < size[1]
            offset = torch.cat([down[:, :, row], right[:, :, column]], dim=1)
            keys.append((key[:, m, n] if inside else zero) + offset)
            values.append(value[:, m, n] if inside else zero)
        weights = torch.einsum("bgd,bgdk->bgk", query[:, r, c], torch.stack(keys, 3)).exp()
        weights = weights / weights.sum(2, keepdim=True)
        pixels.append(torch.einsum("bgk,bgdk->bgd", weights, torch.stack(values, 3)).flatten(1))
    expected = torch.stack(pixels, 2).unflatten(2, (-(-size[0] // stride), -1))
    assert_same_with_gradients(layer, x, layer(x), expected)
    assert parameters(layer) == 3 * WIDTH**2 + taps * WIDTH  # 3 C^2 + K C


def test_position_lambda_is_several_queries_on_one_table() -> None:
    """y[h,v,p] = sum_k q[h,k,p] sum_d E[k,d] v[p+d]: the position lambdas of Bello, with k = 3 and h = 2 heads."""
    kernel = QueryPosition(query=Query(dim=3, norm=BatchNorm()))
    channels = Channels("s -> (o s)", o=2)
    layer = Operator(kernel=kernel, channels=channels, window=Window(3)).build(4, 8).double().eval()
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64, requires_grad=True)
    query = layer.kernel.query.norm(layer.kernel.query.project(x)).unflatten(1, (2, 3))
    table = layer.kernel.positions.tables[0].flatten(2)[0]
    patches = F.unfold(x, 3, padding=1).view(2, 4, 9, 5, 6)
    lambdas = torch.einsum("ed,bvdhw->bevhw", table, patches)
    expected = torch.einsum("bnehw,bevhw->bnvhw", query, lambdas).flatten(1, 2)
    assert_same_with_gradients(layer, x, layer(x), expected)


@pytest.mark.parametrize(
    ("logits", "number"),
    [
        (QueryPosition(query=Query(dim=16, bias=True)), 416),
        (QueryKey(query=Query(dim=16, bias=True)) + QueryPosition(query=Query(dim=16, bias=True)), 960),
        (QueryKey(query=Query(dim=16, bias=True), positions=Positions()), 688),
    ],
)
def test_kernel_has_the_parameters_of_the_probes(logits: Kernel, number: int) -> None:
    operator = Operator(kernel=logits.then(softmax), channels=Channels("s"), window=Window(3))
    assert parameters(operator.build(8, guide_channels=16)) == number


@pytest.mark.parametrize("layout", ["table", "halves", "sum"])
@pytest.mark.parametrize("shared", [False, True])
def test_positions_have_the_parameters_of_their_layout(layout: str, shared: bool) -> None:
    kernel = QueryPosition(query=Query(dim=6), positions=Positions(layout=layout, shared=shared))
    layer = Operator(kernel=kernel, channels=Channels("(g s)", g=4), window=Window((3, 5))).build(8)
    one = {"table": 6 * 15, "halves": 3 * 3 + 3 * 5, "sum": 6 * 3 + 6 * 5}[layout]
    assert parameters(layer.kernel.positions) == (one if shared else 4 * one)
    y, weights = layer(torch.randn(2, 8, 5, 5), return_kernel=True)
    assert weights.shape == (2, 4, 1, 1, 15, 5, 5)
    y.sum().backward()
    assert all(each.grad.abs().sum() > 0 for each in layer.parameters())


def test_macs_count_projections_scores_and_sum() -> None:
    layer = attention(QueryKey(), Window(3, stride=2))
    projections = 4 * 4 * 64 + 2 * 8 * 8 * 64  # the query on 4 x 4 outputs, key and value on 8 x 8 inputs
    assert macs(layer, (1, 8, 8, 8)) == projections + 16 * 9 * 8 + 16 * 9 * 8


def test_mistakes_are_named() -> None:
    with pytest.raises(SpecError, match=r"^relation has 'cosine': must be one of 'dot', 'subtraction', 'squared_dista"):
        QueryKey(relation="cosine")
    with pytest.raises(SpecError, match=r"^shared has 'k': must hold letters among g o, each once\.$"):
        Query(shared="k")
    with pytest.raises(SpecError, match=r"^layout has 'rows': must be one of 'table', 'halves', 'sum'\.$"):
        Positions(layout="rows")
    odd = Operator(kernel=QueryPosition(), channels=Channels("(g s)", g=2), window=Window(3))
    with pytest.raises(ShapeError, match=r"^context has c=9 channels, channels have g=2, o=1: c must be a multiple"):
        odd.build(8, guide_channels=9)
    halves = QueryPosition(query=Query(dim=5), positions=Positions(layout="halves"))
    with pytest.raises(ShapeError, match=r"^query has 5 channels, window has 2 dimensions: layout 'halves'"):
        Operator(kernel=halves, channels=Channels("s"), window=Window(3)).build(8)
    with pytest.raises(ShapeError, match=r"^query has d=3 in `b g o d h w`: must be 4\.$"):
        local_scores(torch.zeros(1, 1, 1, 3, 5, 5), torch.zeros(1, 1, 4, 5, 5), Window(3))
