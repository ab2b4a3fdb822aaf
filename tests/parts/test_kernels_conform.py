"""Every kernel with every channel pattern: axes, costs, gradients, and the ways into and out of text and files."""

from collections.abc import Callable
from math import prod
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import dynops
from dynops.ops import Window, local_sum
from dynops.parts import (
    BatchNorm,
    Channels,
    ChannelStatistics,
    Delta,
    Dynamic,
    Gaussian,
    GlobalStatistics,
    Hidden,
    Kernel,
    Linear,
    LocalOperator,
    Mixture,
    Operator,
    Pair,
    Patch,
    PooledTaps,
    QueryKey,
    QueryPosition,
    Static,
    parameters,
    softmax,
)
from dynops.parts.kernel import Normalised, Product, Sum
from dynops.specs import Spec

WIDTH, SIZE, GRID = 8, (5, 6), (5, 3)
WINDOW = Window((3, 5), stride=(1, 2))
LETTERS = {
    "(g s)": {"g": 2, "o": 1, "i": 1, "s": 4},
    "(s g)": {"g": 4, "o": 1, "i": 1, "s": 2},
    "g": {"g": 8, "o": 1, "i": 1, "s": 1},
    "s": {"g": 1, "o": 1, "i": 1, "s": 8},
    "i -> o": {"g": 1, "o": 8, "i": 8, "s": 1},
    "(g i) -> (g o)": {"g": 2, "o": 4, "i": 4, "s": 1},
    "s -> (o s)": {"g": 1, "o": 2, "i": 1, "s": 8},
    "(g i s) -> (s g o)": {"g": 2, "o": 3, "i": 2, "s": 2},
}
Settle = Callable[[nn.Module], nn.Module]


def spec_of(kernel: Kernel, channels: Channels) -> Operator:
    return Operator(kernel=kernel, channels=channels, window=WINDOW)


def made(kernel: Kernel, channels: Channels, settled: Settle) -> LocalOperator:
    return settled(spec_of(kernel, channels).build(WIDTH, size=SIZE).double())


def features(batch: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, WIDTH, *SIZE, generator=generator, dtype=torch.float64)


def parts_of(kernel: Kernel) -> tuple[Kernel, ...]:
    """The kernels that a kernel is combined from."""
    if isinstance(kernel, Normalised):
        return parts_of(kernel.kernel)
    if isinstance(kernel, Mixture):
        return sum((parts_of(each) for each in kernel.experts), ())
    inner = kernel.terms if isinstance(kernel, Sum) else kernel.factors if isinstance(kernel, Product) else None
    return (kernel,) if inner is None else sum((parts_of(each) for each in inner), ())


def routers_of(kernel: Kernel) -> tuple[tuple[Dynamic | QueryPosition, int], ...]:
    """The routers inside a kernel, each with its number of experts."""
    return ((kernel.router.kernel, len(kernel.experts)),) if isinstance(kernel, Mixture) else ()


def per_tap(part: Kernel) -> bool:
    return isinstance(part, Dynamic | Linear) and isinstance(part.context, PooledTaps | Pair)


def table_axes(kernel: Kernel, channels: Channels) -> dict[str, int]:
    sizes = {letter: LETTERS[channels.pattern][letter] for letter in "goi"} | {"k": 15}
    shared = kernel.shared if isinstance(kernel, Static | Dynamic | Linear) else "i"
    if isinstance(kernel, Gaussian | Delta):
        shared = "goi"
    if isinstance(kernel, QueryPosition):
        shared += "o" if "o" in kernel.query.shared else ""
        shared += "g" if "g" in kernel.query.shared and kernel.positions.shared else ""
    return {letter: 1 if letter in shared else size for letter, size in sizes.items()}


def context_formula(context: Any, channels: Channels) -> tuple[int, int, int]:
    """Channels of a context, its parameters, and its multiply-accumulates."""
    if isinstance(context, tuple):
        return tuple(map(sum, zip(*(context_formula(each, channels) for each in context), strict=True)))
    if isinstance(context, Hidden):
        width, own, products = context_formula(context.context, channels)
        hidden = context.hidden * (
            LETTERS[channels.pattern]["g"] * LETTERS[channels.pattern]["o"] if context.apart else 1
        )
        pixels = 5 * 3 if context.context == "pixel" else 1
        parameters = (width + context.bias) * hidden + (2 * hidden if context.norm else 0)
        return hidden, own + parameters, products + pixels * width * hidden
    if isinstance(context, GlobalStatistics):
        return WIDTH // 2, WIDTH * WIDTH // 2, 2 * WIDTH * WIDTH // 2
    if isinstance(context, Pair):
        maps = 2 * (WIDTH + 1) * context.dim + 2 * 3
        return context.dim + 2, maps + 2 * (context.dim + 2), 5 * 6 * (2 * WIDTH * context.dim + 2 * 2)
    if isinstance(context, Patch):
        width = context.dim * (15 + 1)
        return width, 2 * (WIDTH + 1) * context.dim + 2 * width, 5 * 6 * 2 * WIDTH * context.dim
    tables = {"constant": WIDTH, "position": WIDTH * 5 * 3, "window": WIDTH * WIDTH * 15 + WIDTH}
    width = 2 if context == "coordinates" or isinstance(context, ChannelStatistics) else WIDTH
    return width, tables.get(context, 0), 5 * 3 * 15 * WIDTH * WIDTH if context == "window" else 0


def pixels_of(part: Dynamic | Linear | QueryPosition) -> int:
    """How often phi is applied."""
    return (5 * 3 if "h" in part.signature else 1) * (15 if per_tap(part) else 1)


def phi_formula(part: Dynamic | Linear, outputs: int, channels: Channels) -> tuple[int, int]:
    """Parameters and multiply-accumulates of phi, its context's with them."""
    width, own, products = context_formula(part.context, channels)
    if isinstance(part, Dynamic):
        hidden = part.hidden or max(width // part.reduction, part.least or 1)
        reduce = (width + part.bias) * hidden + (2 * hidden if part.norm else 0)
        weights = width * hidden + hidden * outputs
        return own + reduce + (hidden + 1) * outputs, products + pixels_of(part) * weights
    letters = LETTERS[channels.pattern]
    groups = part.groups * (letters["g"] * letters["o"] if part.apart else 1)
    weights = width // groups * (15 if part.reach == "window" else part.reach**2) * outputs
    return own + weights + (outputs if part.bias else 0), products + pixels_of(part) * weights


def query_formula(kernel: QueryKey | QueryPosition, channels: Channels) -> tuple[int, int, int]:
    """Outputs of the query's map, outputs of the key's, and parameters of the positions."""
    query, letters = kernel.query, LETTERS[channels.pattern]
    queries = prod(1 if letter in query.shared else letters[letter] for letter in "go") * query.dim
    keys = letters["g"] * query.dim if isinstance(kernel, QueryKey) else 0
    positions = 0
    if kernel.positions:
        one = {"table": 15, "halves": (3 + 5) / 2, "sum": 3 + 5}[kernel.positions.layout]
        positions = int(query.dim * one) * (1 if kernel.positions.shared else letters["g"])
    return queries, keys, positions


def axes(kernel: Kernel, channels: Channels) -> list[int]:
    """The kernel's shape for three images, written from the meaning of its parts."""
    grid = {"b": 3, "h": GRID[0], "w": GRID[1]}
    shapes = []
    for part in parts_of(kernel):
        sizes = table_axes(part, channels) | {a: size if a in part.signature else 1 for a, size in grid.items()}
        shapes.append([sizes[letter] for letter in "bgoikhw"])
    for router, _ in routers_of(kernel):
        sizes = dict.fromkeys("bgoikhw", 1) | {a: size for a, size in grid.items() if a in router.signature}
        shapes.append([sizes[letter] for letter in "bgoikhw"])
    return [max(sizes) for sizes in zip(*shapes, strict=True)]


def costs(part: Kernel, channels: Channels) -> tuple[int, int]:
    """Parameters and multiply-accumulates of one part."""
    sizes = table_axes(part, channels)
    outputs = prod(sizes.values())
    if isinstance(part, Static):
        return outputs * (5 * 3 if part.positions else 1) * part.learned, 0
    if isinstance(part, Gaussian | Delta):
        return 0, 0
    if isinstance(part, QueryKey | QueryPosition):
        queries, keys, positions = query_formula(part, channels)
        norm = 2 * queries if part.query.norm else 0
        products = 5 * 3 * (WIDTH * queries + outputs * part.query.dim) + 5 * 6 * WIDTH * keys
        return (WIDTH + part.query.bias) * (queries + keys) + positions + norm, products
    return phi_formula(part, outputs // sizes["k"] if per_tap(part) else outputs, channels)


def router_costs(router: Dynamic | QueryPosition, experts: int, channels: Channels) -> tuple[int, int]:
    if isinstance(router, QueryPosition):
        return WIDTH * router.query.dim + router.query.dim * experts, 5 * 3 * router.query.dim * (WIDTH + experts)
    return phi_formula(router, experts, channels)


def formula(kernel: Kernel, channels: Channels) -> tuple[int, int]:
    """Parameters and multiply-accumulates of a kernel."""
    each = [costs(part, channels) for part in parts_of(kernel)]
    each += [router_costs(router, experts, channels) for router, experts in routers_of(kernel)]
    parameters_of, macs_of = zip(*each, strict=True)
    return sum(parameters_of), sum(macs_of)


def test_kernel_has_size_1_exactly_where_it_is_constant(kernel: Kernel, channels: Channels, settled: Settle) -> None:
    operator = made(kernel, channels, settled)
    x = features()
    weights = operator(x, return_kernel=True)[1]
    assert list(weights.shape) == axes(kernel, channels)
    for axis, letter in ((0, "b"), (5, "h"), (6, "w")):
        assert (weights.shape[axis] > 1) == (letter in kernel.signature)
        if weights.shape[axis] > 1:
            first, *others = weights.unbind(axis)
            assert all(not torch.allclose(first, other) for other in others)


def test_kernel_reads_what_its_signature_says(kernel: Kernel, settled: Settle) -> None:
    operator = made(kernel, Channels("(g s)", g=2), settled)
    x = features()
    before = operator(x, return_kernel=True)[1]

    another = x.clone()
    another[1] = features(seed=1)[1]
    after = operator(another, return_kernel=True)[1]
    reads_images = "b" in kernel.signature
    assert torch.equal(before, after) != reads_images
    if reads_images:
        assert torch.equal(before[[0, 2]], after[[0, 2]])
        assert not torch.allclose(before[1], after[1])


@pytest.mark.parametrize(
    ("context", "reached"),
    # rows and columns of the 5 by 3 grid whose kernel sees pixel (2, 2), for 3 by 5 taps at stride (1, 2)
    [
        ("pixel", {(2, 1)}),
        ("window", {(row, column) for row in (1, 2, 3) for column in (0, 1, 2)}),
        ("global", {(row, column) for row in range(5) for column in range(3)}),
        ("constant", set()),
        ("position", set()),
    ],
)
def test_changed_pixel_changes_the_kernels_that_see_it(
    context: str, reached: set[tuple[int, int]], settled: Settle
) -> None:
    operator = made(Dynamic(context=context, hidden=16), Channels("(g s)", g=2), settled)
    x = features(1)
    changed = x.clone()
    changed[..., 2, 2] += 1
    both = [operator(each, return_kernel=True)[1].expand(-1, -1, -1, -1, -1, *GRID) for each in (x, changed)]
    differs = (both[0] != both[1]).any(4).reshape(-1, *GRID).any(0)
    assert {tuple(place) for place in differs.nonzero().tolist()} == reached


def test_costs_are_those_of_the_formula(kernel: Kernel, channels: Channels) -> None:
    spec = spec_of(kernel, channels)
    description = spec.describe(WIDTH, SIZE)
    built = spec.build(WIDTH, size=SIZE)
    sizes = LETTERS[channels.pattern]
    own, products = formula(kernel, channels)
    assert description.parameters == own == parameters(built)
    assert description.macs == products + 5 * 3 * 15 * prod(sizes.values()) == dynops.macs(built, (1, WIDTH, *SIZE))
    assert description.output == (sizes["g"] * sizes["o"] * sizes["s"], *GRID)
    y, weights = built.eval()(torch.randn(1, WIDTH, *SIZE), return_kernel=True)
    assert description.output == tuple(y.shape[1:])
    assert description.kernel == " ".join(
        f"{letter}={size}" for letter, size in zip("bgoikhw", weights.shape, strict=True)
    )
    assert description.signature == "{" + ", ".join(a for a in "bhw" if a in kernel.signature) + "}"


def test_returned_kernel_is_the_one_that_was_summed(kernel: Kernel, channels: Channels, settled: Settle) -> None:
    operator = made(kernel, channels, settled)
    x = features()
    y, weights = operator(x, return_kernel=True)
    split = operator.split
    fan_out = weights.expand(-1, -1, split.o, -1, -1, -1, -1)
    again = split.merge(local_sum(fan_out, split.split(x), WINDOW, backend="reference"))
    torch.testing.assert_close(y, again, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(operator(x), y, rtol=1e-12, atol=1e-12)


def test_gradient_reaches_every_parameter(kernel: Kernel, channels: Channels, settled: Settle) -> None:
    operator = made(kernel, channels, settled)
    x = features().requires_grad_()
    operator(x).square().sum().backward()
    assert x.grad.abs().sum() > 0
    for name, parameter in operator.named_parameters():
        if not name.endswith("place.bias"):  # a difference of places has none
            assert parameter.grad.abs().sum() > 0, name


def test_state_dict_carries_the_operator_over(kernel: Kernel, channels: Channels, settled: Settle) -> None:
    first = made(kernel, channels, settled)
    second = spec_of(kernel, channels).build(WIDTH, size=SIZE).double().eval()
    x = features()
    assert torch.equal(first(x), second(x)) == (not list(first.parameters()))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(x), second(x))


def test_evaluation_is_the_same_each_time_and_alone(kernel: Kernel, channels: Channels, settled: Settle) -> None:
    operator = made(kernel, channels, settled)
    x = features()
    y = operator(x)
    assert torch.equal(operator(x), y)
    alone = torch.cat([operator(image[None]) for image in x])
    torch.testing.assert_close(alone, y, rtol=1e-10, atol=1e-10)


def test_spec_goes_through_json_and_repr(kernel: Kernel, channels: Channels) -> None:
    spec = spec_of(kernel, channels)
    for again in (Operator.from_json(spec.to_json()), eval(repr(spec), vars(dynops))):
        assert again == spec
        assert hash(again) == hash(spec)
        assert again.fingerprint() == spec.fingerprint()


def test_specs_of_different_kernels_differ(kernel: Kernel) -> None:
    changed = spec_of(kernel + Static(shared="k"), Channels("g"))
    spec = spec_of(kernel, Channels("g"))
    assert changed != spec
    assert changed.to_json() != spec.to_json()
    assert changed.fingerprint() != spec.fingerprint()


shared = st.sets(st.sampled_from("goik")).map(lambda letters: " ".join(sorted(letters)))
norms = st.none() | st.builds(BatchNorm, eps=st.floats(1e-8, 2), momentum=st.floats(0, 1))
names = st.sampled_from(("constant", "position", "coordinates", "global", "pixel"))
contexts = (
    names | st.just("window") | st.tuples(names, names) | st.builds(Hidden, context=names, hidden=st.integers(1, 9))
)
linear = st.builds(
    Linear, context=contexts, bias=st.booleans(), reach=st.sampled_from((1, 3)), start=st.none() | st.just(0.0)
)
dynamic = st.builds(
    Dynamic,
    context=contexts,
    activation=st.sampled_from(("relu", "gelu", "identity")),
    hidden=st.integers(1, 64),
    norm=norms,
    bias=st.booleans(),
    downsample=st.sampled_from(("average", "subsample")),
    shared=shared,
    span=st.permutations("goik").map(" ".join),
)
kernels = st.recursive(
    st.builds(Static, shared=shared, positions=st.booleans()) | dynamic | linear,
    lambda inner: (
        st.tuples(inner, inner).map(lambda two: two[0] + two[1])
        | st.tuples(inner, inner).map(lambda two: two[0] * two[1])
        | inner.map(lambda kernel: kernel.then(softmax))
    ),
    max_leaves=6,
)


@settings(deadline=None, max_examples=60)
@given(kernels, kernels)
def test_any_composition_goes_through_json_and_repr(one: Kernel, other: Kernel) -> None:
    assert Spec.from_json(one.to_json()) == one == eval(repr(one), vars(dynops))
    assert (one == other) == (one.to_json() == other.to_json())
    assert (one + other).signature == (one * other).signature == one.signature | other.signature


def test_sums_and_products_are_flat_and_ordered() -> None:
    a, b, c = Static(), Static(shared="g"), Static(shared="k")
    assert (a + b) + c == a + (b + c) == Sum(terms=(a, b, c))
    assert (a * b) * c == a * (b * c) == Product(factors=(a, b, c))
    assert a + b != b + a
    assert repr((a + b) * c) == "(Static() + Static(shared='g')) * Static(shared='k')"
    assert repr(a + b * c) == "Static() + Static(shared='g') * Static(shared='k')"


def test_sum_and_product_are_those_of_their_kernels(settled: Settle) -> None:
    left, right = Static(shared="g"), Dynamic(context="pixel", hidden=5, shared="k")
    x = features()
    for kernel, combine in ((left + right, torch.add), (left * right, torch.mul)):
        operator = made(kernel, Channels("(g s)", g=2), settled)
        both = operator(x, return_kernel=True)[1]
        one, other = (each(x) for each in operator.kernel.kernels)
        assert torch.equal(both, combine(one, other))


def test_softmax_gives_positive_weights_that_add_up_to_1_over_the_taps(settled: Settle) -> None:
    x = features()
    plain = made(Dynamic(context="pixel"), Channels("(g s)", g=2), settled)
    operator = made(Dynamic(context="pixel").then(softmax), Channels("(g s)", g=2), settled)
    operator.kernel.kernel.load_state_dict(plain.kernel.state_dict())
    logits, weights = plain(x, return_kernel=True)[1], operator(x, return_kernel=True)[1]
    torch.testing.assert_close(weights, logits.exp() / logits.exp().sum(4, keepdim=True))


def test_softmax_of_a_kernel_without_taps_is_the_mean_of_the_window(settled: Settle) -> None:
    operator = made(Static(shared="k").then(softmax), Channels("g"), settled)
    weights = operator(features(), return_kernel=True)[1]
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / 15))
    assert weights.shape[4] == 15
