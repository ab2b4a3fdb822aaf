"""Contexts of every kind, projections of low rank, and the mistakes that can be made with them."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynops import (
    BatchNorm,
    Block,
    Channels,
    Context,
    Delta,
    Dynamic,
    Global,
    Hidden,
    Linear,
    Offsets,
    Operator,
    Permuted,
    Project,
    Query,
    QueryPosition,
    Read,
    Static,
    Window,
    zoo,
)
from dynops.errors import ShapeError, SpecError
from dynops.parts.site import Site
from dynops.specs import spec
from dynops.streams import stream_seed

EXACT = {"rtol": 1e-10, "atol": 1e-10}
QUERY = QueryPosition(query=Query(context="operator"))
BASE = Operator(kernel=Static(), channels=Channels("g"), window=Window(3))


@spec
class Edges(Context):
    """A context of the user's: differences to the right-hand neighbour, multiplied by a number."""

    gain: float = 2.0
    signature = frozenset("bhw")

    def width(self, site: Site) -> int:
        return site.channels

    def build(self, site: Site) -> nn.Module:
        return EdgeFeatures(self.gain)


class EdgeFeatures(nn.Module):
    """Differences to the right-hand neighbour."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * (x.roll(-1, 3) - x)


def features(width: int = 8, size: tuple[int, int] = (5, 6)) -> Tensor:
    return torch.randn(2, width, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_context_of_the_users_own_makes_kernels() -> None:
    operator = replace(BASE, kernel=Dynamic(context=Edges(gain=3.0), hidden=5, norm=None))
    assert Operator.from_json(operator.to_json()) == operator
    layer, x = operator.build(8).double(), features()
    kernel = layer(x, return_kernel=True)[1]
    hidden = F.relu(layer.kernel.reduce(3 * (x.roll(-1, 3) - x)))
    torch.testing.assert_close(kernel[:, :, 0, 0].flatten(1, 2), layer.kernel.span(hidden), **EXACT)
    assert operator.signature == frozenset("bhw")


def test_context_of_the_users_own_stands_beside_named_ones_and_inside_hidden_channels() -> None:
    both = replace(BASE, kernel=Linear(context=(Edges(), "global", "coordinates")))
    layer, x = both.build(8).double(), features()
    rows, columns = torch.linspace(-1, 1, 5, dtype=torch.float64), torch.linspace(-1, 1, 6, dtype=torch.float64)
    seen = torch.cat(
        [
            2 * (x.roll(-1, 3) - x),
            x.mean((2, 3), keepdim=True).expand(-1, -1, 5, 6),
            rows.view(1, 1, 5, 1).expand(2, 1, 5, 6),
            columns.view(1, 1, 1, 6).expand(2, 1, 5, 6),
        ],
        dim=1,
    )
    kernel = layer(x, return_kernel=True)[1]
    torch.testing.assert_close(kernel[:, :, 0, 0].flatten(1, 2), layer.kernel.span(seen), **EXACT)
    deep = replace(BASE, kernel=Linear(context=Hidden(context=Edges(), hidden=3)))
    assert deep.build(8).kernel.span.in_channels == 3


def test_coordinates_are_those_of_the_strided_pixels() -> None:
    kernel = Linear(context="coordinates", bias=False, shared="g o i k")
    layer = Operator(kernel=kernel, channels=Channels("s"), window=Window(3, stride=2)).build(4).double()
    with torch.no_grad():
        layer.kernel.span.weight.copy_(torch.tensor([10.0, 1.0]).view(1, 2, 1, 1))
    found = layer(features(4, (5, 6)), return_kernel=True)[1][0, 0, 0, 0, 0]
    rows, columns = torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([-1.0, -0.2, 0.6])
    torch.testing.assert_close(found, (10 * rows[:, None] + columns).double())


def test_coordinates_need_no_size_and_one_pixel_is_at_the_first() -> None:
    layer = replace(BASE, kernel=Linear(context="coordinates")).build(8).double()
    for size in ((4, 9), (1, 3)):
        assert layer(features(8, size)).isfinite().all()


def test_operator_of_low_rank_is_a_depthwise_convolution_between_two_projections() -> None:
    layer = replace(BASE, value=Project(reduction=4, norm=BatchNorm()), out=Project()).build(8).double().eval()
    assert sum(each.numel() for each in layer.parameters()) == 8 * 2 + 2 * 2 + 2 * 9 + 2 * 8
    x = features()
    with torch.no_grad():
        layer.value.norm.running_mean.fill_(0.3)
    value = (F.conv2d(x, layer.value.project.weight) - 0.3) / (1 + 1e-5) ** 0.5
    expected = F.conv2d(F.conv2d(value, layer.kernel.weight.view(2, 1, 3, 3), padding=1, groups=2), layer.out.weight)
    torch.testing.assert_close(layer(x), expected, **EXACT)


def test_hidden_channels_are_rounded_where_a_least_number_is_given() -> None:
    for width, expected in ((8, 3), (14, 3), (16, 4)):
        assert Dynamic(context="pixel", reduction=4, least=3).build(site(width)).reduce.out_channels == expected


def site(width: int, window: Window | Block | Global | None = None) -> Site:
    return Site(channels=width, g=2, o=1, i=1, window=window or Window(3), size=None)


def cycle_by_hand(seed: int, length: int) -> list[int]:
    """Where each pixel comes from, pixel by pixel: along the order of 32-bit hashes, the last before the first."""

    def hashed(place: int) -> int:
        value = place ^ (stream_seed(seed, "permuted") % 2**32)
        for _ in range(2):
            value = ((value // 2**16) ^ value) * 0x45D9F3B % 2**32
        return (value // 2**16) ^ value

    order = sorted(range(length), key=hashed)
    source = [0] * length
    for place, following in zip(order, [*order[1:], order[0]], strict=True):
        source[place] = following
    return source


@pytest.mark.parametrize("downsample", ["average", "subsample"])
def test_permuted_pixels_make_the_kernels_of_other_pixels(downsample: str) -> None:
    context = Permuted(seed=5, downsample=downsample)
    pixel = replace(BASE, kernel=Dynamic(context="pixel", downsample=downsample), window=Window(3, stride=2))
    permuted = replace(pixel, kernel=replace(pixel.kernel, context=context))
    right, wrong = pixel.build(8).double(), permuted.build(8).double()
    wrong.load_state_dict(right.state_dict())  # so they have the same parameters, under the same names
    x = features(8, (6, 7))  # a grid of 3 by 4
    kernels, found = right(x, return_kernel=True)[1], wrong(x, return_kernel=True)[1]
    source = cycle_by_hand(5, 12)
    for place in range(12):
        row, column = divmod(place, 4)
        other = divmod(source[place], 4)
        torch.testing.assert_close(found[..., row, column], kernels[(..., *other)], **EXACT)
        assert source[place] != place
    # and phi saw the same numbers: batch norm has the same statistics
    torch.testing.assert_close(wrong.kernel.norm.running_var, right.kernel.norm.running_var, **EXACT)
    assert permuted.describe(8, (6, 7)) == pixel.describe(8, (6, 7))


@pytest.mark.parametrize("size", [(1, 2), (2, 2), (5, 6), (31, 17)])
def test_every_pixel_is_taken_once_and_never_by_itself(size: tuple[int, int]) -> None:
    x = torch.arange(float(size[0] * size[1])).view(1, 1, *size)
    first = Permuted().build(site(1))
    y = first(x)
    assert sorted(y.flatten().tolist()) == x.flatten().tolist()
    assert not (x == y).any()
    torch.manual_seed(1)
    assert torch.equal(Permuted().build(site(1))(x), y)
    if size[0] > 2:
        assert not torch.equal(Permuted(seed=1).build(site(1))(x), y)


def test_one_pixel_alone_stays() -> None:
    x = features(3, (1, 1))
    assert torch.equal(Permuted().build(site(3))(x), x)


def test_permuting_leaves_the_global_generator_alone_and_has_no_state() -> None:
    before, module = torch.get_rng_state(), Permuted().build(site(3))
    module(features(3))
    assert torch.equal(torch.get_rng_state(), before)
    assert module.state_dict() == {}


@pytest.mark.parametrize("dims", [1, 3])
def test_permuted_pixels_are_those_of_any_grid(dims: int) -> None:
    x = torch.randn(2, 3, *(4, 3, 2)[:dims])
    y = Permuted().build(site(3, Window(3, dims=dims)))(x)
    assert y.shape == x.shape
    torch.testing.assert_close(y.flatten(2).sort().values, x.flatten(2).sort().values)


def test_permuted_kernels_are_compiled_whole_and_follow_derivatives_and_vmap() -> None:
    layer = replace(BASE, kernel=Dynamic(context=Permuted(), norm=None)).build(8).double()
    state, x = dict(layer.named_parameters()), features()
    for dynamic in (False, True):
        compiled = torch.compile(layer, fullgraph=True, dynamic=dynamic, backend="aot_eager")
        torch.testing.assert_close(compiled(x), layer(x), **EXACT)
        torch.compiler.reset()

    def loss(state: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(layer, state, (x,)).square().sum()

    slopes = torch.func.grad(loss)(state, x)
    loss(state, x).backward()
    stacked = {name: torch.stack([each, 2 * each]).detach() for name, each in state.items()}
    both = torch.vmap(lambda state, x: torch.func.functional_call(layer, state, (x,)))(stacked, torch.stack([x, x]))
    torch.testing.assert_close(both[0], layer(x), **EXACT)
    for name, parameter in state.items():
        torch.testing.assert_close(slopes[name], parameter.grad, **EXACT)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: replace(BASE, context=Hidden(context="global", hidden=5), kernel=Read()).build(8),
            ShapeError,
            r"^context has c=5 channels, kernel has 72 weights: they must be equal\.$",
        ),
        (
            lambda: replace(BASE, kernel=Linear(context="pixel", apart=True)).build(6, guide_channels=8),
            ShapeError,
            r"^context has c=8 channels, each kernel has 9 weights: c must be a multiple of 6 groups, "
            r"the weights of 1\.$",
        ),
        (
            lambda: replace(BASE, context=Hidden(context="pixel", hidden=5), kernel=QUERY).build(8),
            ShapeError,
            r"^context has c=5 channels, kernel has 8 queries: c must be a multiple\.$",
        ),
        (
            lambda: replace(BASE, value=Project(reduction=3)).build(8),
            ShapeError,
            r"^x has c=8 channels, value has reduction=3: c must be a multiple\. Divisors of 8: 1, 2, 4, 8\.$",
        ),
        (
            lambda: replace(BASE, out=Project(reduction=2)),
            SpecError,
            r"^out has reduction=2: the width of an output is out_channels\.$",
        ),
        (
            lambda: replace(BASE, scatter=Window(3, border="mask")),
            SpecError,
            r"^scatter has border='mask': what is written outside is lost, use 'zeros'\.$",
        ),
        (
            lambda: replace(BASE, scatter=Window(3, dims=1)),
            SpecError,
            r"^scatter has dims=1, window has dims=2: must be equal\.$",
        ),
        (
            lambda: replace(BASE, scatter=Window(3), bias=Static()),
            SpecError,
            r"^bias has a kernel, scatter has a window: with scatter a bias is a number a channel\.$",
        ),
        (
            lambda: replace(BASE, window=Block(3), offsets=Offsets(kernel=Linear(context="pixel"))).build(8),
            SpecError,
            r"^window has Block\(3\): offsets need a sliding window, whose border is not 'shift'\.$",
        ),
        (
            lambda: Delta(offsets=((0, 2),)).build(site(8)),
            SpecError,
            r"^offsets has \(0, 2\), window has \(3, 3\) taps: must lie inside, counted from the centre\.$",
        ),
        (
            lambda: Delta(offsets=((0, 0),) * 3).build(site(8)),
            ShapeError,
            r"^offsets has 3 places, channels have g=2: give one for all, or one for each g\.$",
        ),
        (
            lambda: Delta().build(site(8, Global())),
            SpecError,
            r"^kernel has Delta\(\), window has Global\(\): taps have a centre in a Window alone\.$",
        ),
        (
            lambda: replace(BASE, context=Static()),
            SpecError,
            r"^context has Static\(\): must be of type Context\.$",
        ),
        (
            lambda: zoo.locally_connected().build(4, size=(5, 5))(torch.zeros(1, 4, 6, 6)),
            ShapeError,
            r"^x has an output grid of \(6, 6\), kernel has positions for \(5, 5\): they must be equal\. Build the "
            r"operator with the size of its input\.$",
        ),
        (
            lambda: Permuted(downsample="maximum"),
            SpecError,
            r"^downsample has 'maximum': must be one of 'average', 'subsample'\.$",
        ),
        (lambda: Permuted(seed=-1), SpecError, r"^seed has -1: must be an integer of at least 0\.$"),
    ],
)
def test_mistake_is_named(make: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
