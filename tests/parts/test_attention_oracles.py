"""Attention operators against torch's attention, and against loops from their papers, given the same weights."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from math import inf, sqrt

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from dynops.errors import ShapeError
from dynops.ops import Block, Global, Window
from dynops.parts import Channels, LocalOperator, Operator, Project, Query, QueryKey, Relative, softmax, zoo

EXACT = {"rtol": 1e-10, "atol": 1e-10}
WIDTH, HEADS = 8, 2
Weights = dict[str, Tensor]
Pixels = list[tuple[int, int]]
QUERY, KEY = "kernel.kernel.kernels.0.query.project", "kernel.kernel.kernels.0.key"
TABLE = "kernel.kernel.kernels.1.table"
KEY_BIAS = f"{KEY}.bias"
"""It adds the same to all logits of a query, so the softmax does not see it and its gradient is zero."""


def drawn(layer: LocalOperator) -> LocalOperator:
    """Draw all weights and statistics anew, as a table that starts near zero would hide where it is read."""
    layer.double()
    with torch.no_grad():
        for each in layer.parameters():
            each.normal_(std=0.5)
        for name, each in layer.named_buffers():
            if name.endswith("running_mean"):
                each.normal_()
            if name.endswith("running_var"):
                each.uniform_(0.5, 2)
    return layer


def assert_is(oracle: Callable[..., Tensor], layer: LocalOperator, x: Tensor, unseen: tuple[str, ...] = ()) -> None:
    """Compare output, the input's gradient, each weight's gradient by its name, and the running statistics.

    `unseen` names the weights whose gradient is zero; all others must have one.
    """
    weights = {name: each.detach().clone().requires_grad_() for name, each in layer.named_parameters()}
    weights |= {name: each.clone() for name, each in layer.named_buffers()}
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    y, expected = layer(inputs[0]), oracle(weights, inputs[1])
    torch.testing.assert_close(y, expected, **EXACT)
    weighing = torch.randn_like(y)
    for each in (y, expected):
        each.backward(weighing)
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, **EXACT)
    for name, each in layer.named_parameters():
        torch.testing.assert_close(each.grad, weights[name].grad, **EXACT, msg=lambda text, name=name: name + text)
        assert (each.grad.abs().max() < 1e-9) == (name in unseen), name
    for name, each in layer.named_buffers():
        if each.is_floating_point():
            torch.testing.assert_close(each, weights[name], **EXACT)


def image(*size: int) -> Tensor:
    return torch.randn(2, WIDTH, *size, dtype=torch.float64)


def projected(x: Tensor, weights: Weights, name: str) -> Tensor:
    return F.conv2d(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def heads_of(x: Tensor, weights: Weights, name: str) -> Tensor:
    """Project and split into heads, `b g d h w`."""
    return projected(x, weights, name).unflatten(1, (HEADS, -1))


def regions(size: tuple[int, int], block: int, shift: int, masked: float) -> Tensor:
    """Swin's mask of each rolled block, `t query key`: pixels that met only by rolling do not see each other."""
    numbers = torch.zeros(size)
    slices = (slice(0, -block), slice(-block, -shift), slice(-shift, None))
    for number, (rows, columns) in enumerate(product(slices, slices)):
        numbers[rows, columns] = number
    cut = numbers.view(size[0] // block, block, size[1] // block, block).transpose(1, 2).reshape(-1, block**2)
    return torch.zeros(len(cut), block**2, block**2, dtype=torch.float64).masked_fill(
        cut[:, None, :] != cut[:, :, None], masked
    )


def swin(weights: Weights, x: Tensor, block: int, shift: int, masked: float) -> Tensor:
    """Attention in blocks as Swin's code does it: roll, cut, attend under bias and mask, put together, roll back."""
    b, c, h, w = x.shape
    rolled = torch.roll(x, (-shift, -shift), (2, 3))
    cut = rolled.view(b, c, h // block, block, w // block, block).permute(0, 2, 4, 3, 5, 1).reshape(-1, block**2, c)
    query, key, value = (
        F.linear(cut, weights[f"{name}.weight"].flatten(1), weights[f"{name}.bias"])
        .unflatten(2, (HEADS, -1))
        .transpose(1, 2)
        for name in (QUERY, KEY, "value")
    )
    places = torch.stack(torch.meshgrid(torch.arange(block), torch.arange(block), indexing="ij")).flatten(1)
    rows, columns = places[:, None, :] - places[:, :, None] + block - 1  # key less query
    mask = weights[TABLE][:, 0, 0][:, rows, columns]
    if shift:
        mask = mask + regions((h, w), block, shift, masked)[:, None].repeat(b, 1, 1, 1)
    y = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    y = y.transpose(1, 2).reshape(b, h // block, w // block, block, block, c)
    y = y.permute(0, 5, 1, 3, 2, 4).reshape(b, c, h, w)
    return projected(torch.roll(y, (shift, shift), (2, 3)), weights, "out")


@pytest.mark.oracle("window_attention")
@pytest.mark.parametrize(("block", "size"), [(1, (3, 2)), (2, (6, 4)), (3, (3, 9)), (4, (8, 4)), (5, (5, 5))])
def test_window_attention_is_that_of_torch_in_each_block(block: int, size: tuple[int, int]) -> None:
    layer = drawn(zoo.window_attention(block, HEADS).build(WIDTH))
    # a block of one pixel attends to that pixel whatever the scores are
    alone = (f"{QUERY}.weight", f"{QUERY}.bias", f"{KEY}.weight", TABLE) if block == 1 else ()
    assert_is(lambda weights, x: swin(weights, x, block, 0, -inf), layer, image(*size), (KEY_BIAS, *alone))


@pytest.mark.oracle("window_attention")
@pytest.mark.parametrize("masked", [-inf, -100.0])
@pytest.mark.parametrize(
    ("block", "shift", "size"),
    [(2, 1, (4, 6)), (3, 1, (6, 9)), (3, 2, (3, 6)), (4, 1, (8, 4)), (4, 2, (8, 8)), (4, 3, (4, 12)), (5, 2, (10, 5))],
)
def test_shifted_window_attention_is_the_masked_cyclic_shift_of_swin(
    block: int, shift: int, size: tuple[int, int], masked: float
) -> None:
    layer = drawn(zoo.window_attention(block, HEADS, shift=shift).build(WIDTH))
    assert_is(lambda weights, x: swin(weights, x, block, shift, masked), layer, image(*size), (KEY_BIAS,))


@pytest.mark.oracle("window_attention")
@pytest.mark.parametrize(
    ("block", "shift", "stride", "size"), [(2, 0, 2, (4, 6)), (4, 2, 2, (8, 4)), (3, 0, 3, (9, 6)), (4, 2, 1, (4, 8))]
)
def test_window_attention_at_a_stride_has_the_queries_of_its_outputs_alone(
    block: int, shift: int, stride: int, size: tuple[int, int]
) -> None:
    layer = drawn(zoo.window_attention(block, HEADS, shift=shift).strided(stride).build(WIDTH))

    def oracle(weights: Weights, x: Tensor) -> Tensor:
        return swin(weights, x, block, shift, -inf)[:, :, ::stride, ::stride]

    assert_is(oracle, layer, image(*size), (KEY_BIAS,))


@pytest.mark.oracle("window_attention")
@pytest.mark.parametrize(("block", "shift"), [(2, 1), (4, 2), (3, 2)])
def test_shifted_window_attention_without_a_mask_is_the_cyclic_shift_alone(block: int, shift: int) -> None:
    operator = zoo.window_attention(block, HEADS)
    layer = drawn(replace(operator, window=Block(block, shift=shift, border="circular")).build(WIDTH))
    assert_is(lambda weights, x: swin(weights, x, block, shift, 0.0), layer, image(2 * block, 3 * block), (KEY_BIAS,))


def in_loops(
    query: Tensor, key: Tensor, value: Tensor, seen: Callable[[int, int], Pixels], bias: Callable[[int, int], Tensor]
) -> Tensor:
    """Attend pixel by pixel: softmax of q.k / sqrt(d) + bias[g, down, right] over what a pixel sees."""
    h, w = query.shape[3:]
    sums = []
    for row, column in product(range(h), range(w)):
        places = seen(row, column)
        keys, values = (torch.stack([each[..., r, c] for r, c in places], dim=3) for each in (key, value))
        logits = torch.einsum("bgd,bgdk->bgk", query[..., row, column], keys) / sqrt(query.shape[2])
        shares = (logits + torch.stack([bias(r - row, c - column) for r, c in places], dim=1)).exp()
        sums.append(torch.einsum("bgk,bgdk->bgd", shares / shares.sum(2, keepdim=True), values))
    return torch.stack(sums, dim=3).unflatten(3, (h, w)).flatten(1, 2)


def same_block(pixel: int, block: int, shift: int, length: int) -> list[int]:
    return [each for each in range(length) if (each - shift) // block == (pixel - shift) // block]


@pytest.mark.oracle("window_attention")
@pytest.mark.parametrize(
    ("block", "shift", "size"),
    [
        ((4, 4), (0, 0), (5, 7)),
        ((4, 4), (2, 2), (5, 7)),
        ((3, 3), (1, 1), (7, 4)),
        ((4, 4), (3, 3), (2, 3)),
        ((2, 3), (1, 0), (5, 5)),
        ((3, 2), (2, 1), (4, 6)),
        ((7, 7), (0, 0), (5, 4)),
    ],
)
def test_window_attention_of_a_block_that_is_cut_off_is_over_its_pixels_that_exist(
    block: tuple[int, int], shift: tuple[int, int], size: tuple[int, int]
) -> None:
    operator = zoo.window_attention(heads=HEADS)
    layer = drawn(replace(operator, window=Block(block, shift=shift)).build(WIDTH))

    def oracle(weights: Weights, x: Tensor) -> Tensor:
        sides = list(zip(block, shift, size, strict=True))

        def seen(row: int, column: int) -> Pixels:
            return list(product(same_block(row, *sides[0]), same_block(column, *sides[1])))

        def bias(down: int, right: int) -> Tensor:
            return weights[TABLE][:, 0, 0, down + block[0] - 1, right + block[1] - 1]

        heads = (heads_of(x, weights, name) for name in (QUERY, KEY, "value"))
        return projected(in_loops(*heads, seen, bias), weights, "out")

    assert_is(oracle, layer, image(*size), (KEY_BIAS,))


def nearest(pixel: int, size: int, dilation: int, length: int) -> list[int]:
    """The `size` pixels at multiples of the dilation, all inside, whose middle is nearest: found by trying all."""
    same = [each for each in range(length) if each % dilation == pixel % dilation]
    runs = [same[first : first + size] for first in range(len(same) - size + 1)]
    return min(runs, key=lambda run: abs(run[size // 2] - pixel))


@pytest.mark.oracle("neighbourhood_attention")
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize(
    ("size", "dilation", "grid"),
    [(3, 1, (5, 4)), (3, 1, (3, 6)), (5, 1, (6, 5)), (3, 2, (7, 6)), (3, 2, (6, 9)), (1, 2, (3, 4))],
)
def test_neighbourhood_attention_is_over_the_nearest_pixels_inside(
    size: int, dilation: int, grid: tuple[int, int], relative: bool, stride: int
) -> None:
    operator = zoo.neighbourhood_attention(size, HEADS, dilation=dilation, relative=relative)
    layer = drawn(operator.strided(stride).build(WIDTH))
    scores = "kernel.kernel.kernels.0" if relative else "kernel.kernel"

    def oracle(weights: Weights, x: Tensor) -> Tensor:
        def seen(row: int, column: int) -> Pixels:
            return list(product(nearest(row, size, dilation, grid[0]), nearest(column, size, dilation, grid[1])))

        def bias(down: int, right: int) -> Tensor:
            if not relative:
                return torch.zeros(HEADS, dtype=torch.float64)
            assert down % dilation == right % dilation == 0
            return weights[TABLE][:, 0, 0, down // dilation + size - 1, right // dilation + size - 1]

        heads = (heads_of(x, weights, name) for name in (f"{scores}.query.project", f"{scores}.key", "value"))
        return projected(in_loops(*heads, seen, bias), weights, "out")[:, :, ::stride, ::stride]

    unseen = {f"{scores}.key.bias"}
    if size == 1:  # one tap has all the weight, whatever the scores are
        unseen = {name for name, _ in layer.named_parameters() if name.startswith("kernel")}
    assert_is(oracle, layer, image(*grid), tuple(unseen))


@pytest.mark.parametrize("window", ["block", "shift"])
def test_table_of_relative_places_has_as_many_rows_as_places(window: str) -> None:
    made = {"block": Block((2, 3), halo=(1, 0)), "shift": Window((5, 3), border="shift")}[window]
    layer = Operator(kernel=Relative(), channels=Channels("g"), window=made).build(WIDTH)
    assert layer.kernel.table.shape == (WIDTH, 1, 1, *{"block": (7, 5), "shift": (9, 5)}[window])


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("grid", [(7,), (8,), (4, 5), (3, 6), (2, 3, 4)])
def test_global_attention_is_the_multi_head_attention_of_torch(grid: tuple[int, ...], stride: int) -> None:
    operator = Operator(
        kernel=QueryKey(query=Query(bias=True)).then(softmax),
        channels=Channels("(g s)", g=HEADS),
        window=Global(stride=stride, dims=len(grid)),
        value=Project(bias=True),
        out=Project(bias=True),
    )
    layer = drawn(operator.build(WIDTH))
    theirs = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).double()

    def oracle(weights: Weights, x: Tensor) -> Tensor:
        names = ("kernel.kernel.query.project", "kernel.kernel.key", "value")
        packed = {
            "in_proj_weight": torch.cat([weights[f"{name}.weight"].flatten(1) for name in names]),
            "in_proj_bias": torch.cat([weights[f"{name}.bias"] for name in names]),
            "out_proj.weight": weights["out.weight"].flatten(1),
            "out_proj.bias": weights["out.bias"],
        }
        asking = x[(..., *(slice(None, None, stride),) * len(grid))]
        tokens = x.flatten(2).mT
        y, _ = functional_call(theirs, packed, (asking.flatten(2).mT, tokens, tokens), {"need_weights": False})
        return y.mT.unflatten(2, asking.shape[2:])

    assert_is(oracle, layer, image(*grid), ("kernel.kernel.key.bias",))


def attention_to_all(weights: Weights, x: Tensor) -> Tensor:
    query, key, value = (
        heads_of(x, weights, name).flatten(3).mT
        for name in ("kernel.kernel.query.project", "kernel.kernel.key", "value")
    )
    return F.scaled_dot_product_attention(query, key, value).mT.flatten(1, 2).unflatten(2, x.shape[2:])


def test_global_attention_that_was_built_without_a_size_serves_every_size() -> None:
    operator = Operator(
        kernel=QueryKey().then(softmax), channels=Channels("(g s)", g=HEADS), window=Global(), value=Project()
    )
    layer = drawn(operator.build(WIDTH))
    for size in ((4, 5), (7, 2), (1, 1)):
        layer.zero_grad()
        scores = ("kernel.kernel.query.project.weight", "kernel.kernel.key.weight") if size == (1, 1) else ()
        assert_is(attention_to_all, layer, image(*size), scores)


def test_kernel_of_global_attention_is_its_map_of_attention() -> None:
    operator = Operator(
        kernel=QueryKey().then(softmax), channels=Channels("(g s)", g=HEADS), window=Global(), value=Project()
    )
    layer = drawn(operator.build(WIDTH))
    x = image(3, 4)
    _, found = layer(x, return_kernel=True)
    weights = dict(layer.named_parameters())
    query, key = (
        heads_of(x, weights, name).flatten(3) for name in ("kernel.kernel.query.project", "kernel.kernel.key")
    )
    expected = (torch.einsum("bgdp,bgdk->bgkp", query, key) / sqrt(WIDTH / HEADS)).softmax(2)
    torch.testing.assert_close(found[:, :, 0, 0].flatten(3), expected, **EXACT)


def test_global_attention_with_relative_places_serves_the_size_that_it_was_built_for() -> None:
    operator = Operator(
        kernel=(QueryKey() + Relative()).then(softmax), channels=Channels("(g s)", g=HEADS), window=Global()
    )
    layer = drawn(operator.build(WIDTH, size=(3, 4)))

    def oracle(weights: Weights, x: Tensor) -> Tensor:
        query, key = (heads_of(x, weights, name) for name in (QUERY, KEY))
        table = weights[TABLE][:, 0, 0]  # of the places (-2..2) x (-3..3)
        return in_loops(
            query,
            key,
            x.unflatten(1, (HEADS, -1)),
            lambda row, column: list(product(range(3), range(4))),
            lambda down, right: table[:, down + 2, right + 3],
        )

    assert_is(oracle, layer, image(3, 4))
    message = (
        r"^x has a grid of \(4, 4\), kernel has \(5, 7\) relative places: a global window's table fits one grid\. "
        r"Build the operator with the size of its input\.$"
    )
    with pytest.raises(ShapeError, match=message):
        layer(image(4, 4))


def halo_in_loops(weights: Weights, x: Tensor, block: int, halo: int, stride: int) -> Tensor:
    """HaloNet pixel by pixel: softmax of q.(k / sqrt(d) + row + column), where key and value are zero outside."""
    across = block + 2 * halo
    query = heads_of(x[:, :, ::stride, ::stride], weights, "kernel.kernel.query.project")
    margins = (halo, halo + block, halo, halo + block)
    key, value = (F.pad(heads_of(x, weights, name), margins) for name in ("kernel.kernel.key", "value"))
    rows, columns = (weights[f"kernel.kernel.positions.tables.{axis}"][0] for axis in range(2))
    sums = []
    for r, c in product(range(query.shape[3]), range(query.shape[4])):
        row, column = r * stride, c * stride
        # counted with the margin, the window's first pixel has the number of its block's
        top, left = row // block * block, column // block * block
        keys, values = (each[..., top : top + across, left : left + across] for each in (key, value))
        down = rows[:, torch.arange(across) - (row - top) + across - 1]
        right = columns[:, torch.arange(across) - (column - left) + across - 1]
        seen = keys / sqrt(query.shape[2]) + down[:, :, None] + right[:, None, :]
        shares = torch.einsum("bgd,bgdmn->bgmn", query[..., r, c], seen).flatten(2).softmax(2)
        sums.append(torch.einsum("bgk,bgdk->bgd", shares, values.flatten(3)))
    return torch.stack(sums, dim=3).unflatten(3, query.shape[3:]).flatten(1, 2)


@pytest.mark.oracle("halo_attention")
@pytest.mark.parametrize(
    ("block", "halo", "stride", "size"),
    [
        (2, 1, 1, (4, 6)),
        (2, 1, 1, (5, 3)),
        (3, 1, 1, (6, 6)),
        (3, 2, 1, (4, 5)),
        (4, 3, 1, (5, 6)),
        (2, 0, 1, (5, 4)),
        (1, 1, 1, (4, 3)),
        (2, 1, 2, (6, 4)),
        (2, 2, 2, (5, 7)),
        (4, 1, 2, (7, 6)),
        (3, 1, 3, (7, 5)),
    ],
)
def test_halo_attention_is_that_of_its_paper(block: int, halo: int, stride: int, size: tuple[int, int]) -> None:
    layer = drawn(zoo.halo_attention(block, halo, HEADS, stride=stride).build(WIDTH))
    assert_is(lambda weights, x: halo_in_loops(weights, x, block, halo, stride), layer, image(*size))


def likeness(relation: str, query: Tensor, key: Tensor) -> Tensor:
    return {"dot": query * key, "subtraction": -(query - key).abs(), "squared_distance": -((query - key) ** 2)}[
        relation
    ]


@pytest.mark.oracle("local_relation")
@pytest.mark.parametrize("relation", ["dot", "subtraction", "squared_distance"])
@pytest.mark.parametrize(
    ("taps", "group_channels", "stride", "size"),
    [(3, 4, 1, (4, 5)), (5, 2, 1, (3, 6)), (3, 8, 2, (5, 6)), (7, 4, 1, (4, 3)), (3, 4, 3, (7, 5)), (5, 4, 2, (6, 4))],
)
def test_local_relation_leaves_out_what_is_not_there(
    relation: str, taps: int, group_channels: int, stride: int, size: tuple[int, int]
) -> None:
    operator = zoo.local_relation(taps, group_channels, relation=relation, stride=stride)
    layer = drawn(operator.build(WIDTH))

    def oracle(weights: Weights, x: Tensor) -> Tensor:
        query, key = projected(x, weights, QUERY), projected(x, weights, KEY)  # one channel for each group
        prior, groups = weights["kernel.kernel.kernels.1.weight"][:, 0, 0], x.unflatten(1, (-1, group_channels))
        pixels = list(product(range(0, size[0], stride), range(0, size[1], stride)))
        sums = []
        for row, column in pixels:
            logits, values = [], []
            for tap, (down, right) in enumerate(product(range(taps), range(taps))):
                r, c = row + down - taps // 2, column + right - taps // 2
                if 0 <= r < size[0] and 0 <= c < size[1]:
                    logits.append(likeness(relation, query[:, :, row, column], key[:, :, r, c]) + prior[:, tap])
                    values.append(groups[..., r, c])
            shares = torch.stack(logits, dim=2).softmax(2)
            sums.append(torch.einsum("bgk,bgsk->bgs", shares, torch.stack(values, dim=3)))
        y = torch.stack(sums, dim=3).flatten(1, 2)
        return y.unflatten(2, (-(-size[0] // stride), -1))

    assert_is(oracle, layer, image(*size))


def lambdas(weights: Weights, x: Tensor, stride: int, training: bool) -> Tensor:
    """A lambda layer as the paper has it: a content lambda, position lambdas by a convolution, then the queries."""

    def normalised(features: Tensor, name: str) -> Tensor:
        parts = (weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(features, *parts, training=training)

    query = F.conv2d(F.avg_pool2d(x, stride, ceil_mode=True), weights["context.reduce.weight"])
    query = normalised(query, "context.norm").unflatten(1, (HEADS, -1))  # b head k h w
    keys = F.conv2d(x, weights["kernel.key.weight"]).flatten(2).softmax(2)
    values = normalised(F.conv2d(x, weights["value.project.weight"]), "value.norm")
    content = torch.einsum("bkm,bvm->bvk", keys, values.flatten(2))
    table = weights["kernel.positions.tables.0"].transpose(0, 1)  # k 1 r r
    position = F.conv2d(values.flatten(0, 1)[:, None], table, stride=stride, padding=table.shape[2] // 2)
    position = position.unflatten(0, values.shape[:2])  # b v k h w
    bias = weights["bias_kernel.positions.tables.0"].view(-1, 1, 1)
    return torch.einsum("bnkhw,bvkhw->bnvhw", query, content[..., None, None] + position + bias).flatten(1, 2)


@pytest.mark.oracle("lambda_layer")
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("dim", "reach", "stride", "size"),
    [
        (3, 3, 1, (5, 6)),
        (5, 5, 1, (4, 7)),
        (2, 1, 1, (3, 4)),
        (4, 7, 1, (3, 5)),
        (3, 23, 1, (6, 4)),
        (1, 9, 1, (5, 5)),
        (3, 3, 2, (6, 4)),
        (4, 5, 2, (5, 7)),
    ],
)
def test_lambda_layer_is_that_of_its_paper(
    dim: int, reach: int, stride: int, size: tuple[int, int], training: bool
) -> None:
    operator = zoo.lambda_layer(dim, HEADS, reach).strided(stride)
    layer = drawn(operator.build(WIDTH)).train(training)
    assert_is(lambda weights, x: lambdas(weights, x, stride, training), layer, image(*size))


@pytest.mark.oracle("lambda_layer")
@pytest.mark.parametrize("built_for", [None, (5, 4)])
def test_lambda_layer_serves_every_size(built_for: tuple[int, int] | None) -> None:
    layer = drawn(zoo.lambda_layer(3, HEADS, 5).build(WIDTH, size=built_for)).eval()
    for size in ((5, 4), (3, 8), (1, 7)):
        layer.zero_grad()
        assert_is(lambda weights, x: lambdas(weights, x, 1, False), layer, image(*size))
