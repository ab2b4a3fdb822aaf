"""Networks of equal cost: within a hundredth, changed least, the same each time, and refused where none is near."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from dynops.errors import ShapeError, SpecError
from dynops.nets import Bare, KerasCNN, Network, ResidualNetwork, Timing, Widths, matched
from dynops.nets.timing import Stopwatch
from dynops.ops import Window
from dynops.parts import Channels, Dynamic, Kernel, Layer, Operator, Permuted, Static, macs, parameters, zoo
from dynops.specs import spec

SHAPE, OUTPUTS = (1, 8, 8), 10
REFERENCE = ResidualNetwork(operators=(zoo.depthwise(3),), depths=(3,), width=32)
GROUPED = Channels("(g s)", s=16)
COSTS = {"parameters": parameters, "macs": lambda network: macs(network, (1, *SHAPE))}


def grouped(kernel: Kernel) -> Operator:
    return Operator(kernel=kernel, channels=GROUPED, window=Window(3))


OPERATORS: dict[str, Layer] = {
    "involution": zoo.involution(3),
    "involution of 7": zoo.involution(7),
    "permuted": grouped(Dynamic(context=Permuted())),
    "constant": grouped(Dynamic(context="constant")),
    "static, shared": grouped(Static()),
    "sum": grouped(Static() + Dynamic(context="pixel")),
    "per channel": replace(zoo.involution(3), channels=Channels("g")),
    "convolution": zoo.conv2d(3),
    "squeeze and excitation": zoo.squeeze_excitation(),
}


def on(operator: Layer, network: ResidualNetwork = REFERENCE) -> ResidualNetwork:
    return replace(network, operators=(operator,))


@pytest.mark.parametrize("budget", ["parameters", "macs"])
@pytest.mark.parametrize("operator", list(OPERATORS.values()), ids=list(OPERATORS))
def test_network_costs_what_its_reference_does_within_a_hundredth(operator: Layer, budget: str) -> None:
    found = matched(on(operator), to=REFERENCE, budget=budget, shape=SHAPE, outputs=OUTPUTS)
    cost, target = (COSTS[budget](each.build(SHAPE, OUTPUTS)) for each in (found.network, REFERENCE))
    assert (found.cost, found.target, found.ratio) == (cost, target, cost / target)
    assert abs(found.ratio - 1) <= 0.01
    assert (found.budget, found.tolerance, found.spread, found.limit) == (budget, 0.01, None, "tolerance")
    assert replace(found.network, width=32, inner=None) == on(operator)


def change(widths: Widths, origin: Widths) -> float:
    logs = [math.log(new / old) for new, old in zip(widths, origin, strict=True)]
    return max(*logs, 0.0) - min(*logs, 0.0)


@spec
class Plain(Network):
    """A network of the user's own: two matrices."""

    inner: int
    width: int
    divisor: int = 1

    def build(self, shape: tuple[int, int, int], outputs: int) -> nn.Module:
        if self.inner % self.divisor:
            raise ShapeError(f"inner has {self.inner}: must be a multiple of {self.divisor}.")
        return nn.Sequential(nn.Linear(self.width, self.inner, bias=False), nn.Linear(self.inner, 7))

    @property
    def widths(self) -> Widths:
        return Widths(self.inner, self.width)

    def widened(self, widths: Widths) -> "Plain":
        return replace(self, inner=widths.inner, width=widths.width)


@pytest.mark.parametrize("divisor", [1, 4, 12])
@pytest.mark.parametrize("to", [Plain(inner=7, width=9), Plain(inner=30, width=20), Plain(inner=41, width=60)])
@pytest.mark.parametrize("start", [Plain(inner=24, width=24), Plain(inner=12, width=40)])
def test_of_all_widths_that_fit_those_have_changed_least(start: Plain, to: Plain, divisor: int) -> None:
    def cost(inner: int, width: int) -> int:
        return inner * width + inner * 7 + 7

    start, target = replace(start, divisor=divisor), cost(*to.widths)
    ranges = [range(-(-old // 4), 4 * old + 1) for old in start.widths]
    fitting = [
        change(Widths(*each), start.widths)
        for each in itertools.product(*ranges)
        if each[0] % divisor == 0 and abs(cost(*each) / target - 1) <= 0.01
    ]
    if not fitting:
        with pytest.raises(
            SpecError, match=rf"^network has {cost(*start.widths)} parameters, to has {target}: no width"
        ):
            matched(start, to=to, budget="parameters", shape=SHAPE, outputs=OUTPUTS)
        return
    found = matched(start, to=to, budget="parameters", shape=SHAPE, outputs=OUTPUTS)
    assert found.cost == cost(*found.network.widths)
    assert change(found.network.widths, start.widths) == pytest.approx(min(fitting))


def test_network_that_fits_is_left_as_it_is() -> None:
    narrow = replace(REFERENCE, inner=16)
    for network, to in ((REFERENCE, REFERENCE), (on(grouped(Static())), on(grouped(Static(start=0.0)))), (narrow,) * 2):
        for budget in ("parameters", "macs"):
            assert matched(network, to=to, budget=budget, shape=SHAPE, outputs=OUTPUTS).network is network


def test_as_is_changes_nothing_and_says_how_unequal_the_parameters_are() -> None:
    found = matched(on(zoo.involution(7)), to=REFERENCE, budget="as_is", shape=SHAPE, outputs=OUTPUTS)
    assert found.network == on(zoo.involution(7))
    assert (found.cost, found.target) == tuple(
        parameters(each.build(SHAPE, OUTPUTS)) for each in (found.network, REFERENCE)
    )
    assert found.ratio > 1.1
    assert found.tolerance == math.inf
    fixed = matched(KerasCNN(), to=REFERENCE, budget="as_is", shape=(1, 32, 32), outputs=OUTPUTS)
    assert fixed.network == KerasCNN()


def test_networks_found_are_the_same_each_time_and_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    networks = [
        matched(on(zoo.conv2d(3)), to=REFERENCE, budget="macs", shape=SHAPE, outputs=OUTPUTS).network for _ in range(2)
    ]
    assert networks[0] == networks[1]
    assert torch.equal(torch.get_rng_state(), before)


def test_strides_stages_and_growth_are_followed() -> None:
    reference = replace(REFERENCE, depths=(1, 2, 1), stem_stride=2)
    found = matched(on(zoo.involution(3), reference), to=reference, budget="macs", shape=(3, 32, 32), outputs=OUTPUTS)
    cost = macs(found.network.build((3, 32, 32), OUTPUTS), (1, 3, 32, 32))
    assert abs(cost / found.target - 1) <= 0.01


CLOCK = [0.0]


class Slow(nn.Module):
    """A layer whose step takes as long as it is told, by the clock above."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.weight = seconds, nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        CLOCK[0] += self.seconds
        return self.weight * x


@spec
class Told(Network):
    """A network of the user's own, which takes as long as its widths multiply to, and a jitter."""

    inner: int = 20
    width: int = 20
    slowness: float = 1.0
    jitter: float = 0.0

    def build(self, shape: tuple[int, int, int], outputs: int) -> nn.Module:
        if self.inner % 4:
            raise ShapeError(f"inner has {self.inner}: must be a multiple of 4.")
        noise = itertools.cycle((1.0, 1 + self.jitter, 1 - self.jitter))
        module = Slow(0.0)
        seconds = self.slowness * (100 + self.inner * self.width)
        module.register_forward_pre_hook(lambda layer, x: setattr(layer, "seconds", seconds * next(noise)))
        return module

    @property
    def widths(self) -> Widths:
        return Widths(self.inner, self.width)

    def widened(self, widths: Widths) -> "Told":
        return replace(self, inner=widths.inner, width=widths.width)


@pytest.fixture
def told() -> Timing:
    return Timing(batch_size=2, rounds=5, clock=lambda: CLOCK[0])


def test_latency_is_that_of_a_step_beside_the_references(told: Timing) -> None:
    found = matched(Told(slowness=2.0), to=Told(), budget="latency", shape=SHAPE, outputs=OUTPUTS, timing=told)
    inner, width = found.network.widths
    assert found.cost == pytest.approx(2000 * (100 + inner * width))
    assert found.target == pytest.approx(1000 * (100 + 400))
    assert inner % 4 == 0
    assert abs(found.ratio - 1) <= 0.01
    assert (found.spread, found.limit) == (pytest.approx(0.0, abs=1e-9), "tolerance")


def test_latency_may_differ_by_its_noise_and_says_so(told: Timing) -> None:
    reference = Told(jitter=0.2)
    found = matched(Told(slowness=1.02), to=reference, budget="latency", shape=SHAPE, outputs=OUTPUTS, timing=told)
    assert found.limit == "noise"
    assert found.spread > 0.01
    assert 0.01 < abs(found.ratio - 1) <= found.spread


def test_spread_is_the_notch_of_both_medians(told: Timing) -> None:
    compared = Stopwatch(Told(), SHAPE, OUTPUTS, told).compare(Told(jitter=0.3))
    # of the five steps behind three for warming up: 1, 1.3, 0.7, 1, 1.3
    assert compared.milliseconds == pytest.approx(compared.reference)
    assert compared.spread == pytest.approx(1.57 * 0.3 / 5**0.5)


def test_latency_that_no_width_has_is_refused(told: Timing) -> None:
    message = (
        r"^network has 1\.5e\+07 ms a step, to has 500000: no width from 5 to 80 with an inner one from 5 to 80 comes "
        r"within 0\.01 of it\. The nearest, width=5 with inner=8, has 4\.2e\+06, 8\.4 times as much\. Use another "
        r"reference, or budget='as_is'\.$"
    )
    with pytest.raises(SpecError, match=message):
        matched(Told(slowness=30.0), to=Told(), budget="latency", shape=SHAPE, outputs=OUTPUTS, timing=told)


def test_latency_on_this_machine_is_measured() -> None:
    timing = Timing(batch_size=4, rounds=8)
    compared = Stopwatch(REFERENCE, SHAPE, OUTPUTS, timing).compare(replace(REFERENCE, depths=(1,)))
    assert 0 < compared.milliseconds < compared.reference
    same = matched(REFERENCE, to=REFERENCE, budget="latency", shape=SHAPE, outputs=OUTPUTS, timing=timing)
    assert same.network == REFERENCE
    assert same.spread is not None


@pytest.mark.parametrize(
    ("network", "to", "options", "message"),
    [
        (
            REFERENCE,
            replace(REFERENCE, width=400),
            {},
            r"^network has 8266 parameters, to has 986410: no width from 8 to 128 with an inner one from 8 to 128 "
            r"comes within 0\.01 of it\. The nearest, width=128 with inner=128, has 106762, 0\.1082 times "
            r"as much\. Use another reference, or "
            r"budget='as_is'\.$",
        ),
        (
            on(zoo.involution(3)),
            replace(REFERENCE, width=2),
            {},
            r"^network has 8704 parameters, to has 166: .* The nearest, width=8 with inner=16, has 1537, 9\.",
        ),
        (
            Plain(inner=8, width=8, divisor=8),
            Plain(inner=9, width=10),
            {"tolerance": 1e-6},
            r"^network has 127 parameters, to has 160: .* The nearest, width=12 with inner=8, has 159, 0\.9938",
        ),
        (
            KerasCNN(),
            REFERENCE,
            {},
            r"^network has KerasCNN\(\): its width is fixed\. Use a ResidualNetwork, or budget",
        ),
        (
            Bare(operator=zoo.depthwise(3)),
            REFERENCE,
            {},
            r"^network has Bare\(.*\): its width is fixed\. Use a ResidualNetwork, or budget='as_is'\.$",
        ),
        (
            REFERENCE,
            REFERENCE,
            {"budget": "flops"},
            r"^budget has 'flops': must be one of 'as_is', 'parameters', 'macs', 'latency'\.$",
        ),
        (REFERENCE, REFERENCE, {"tolerance": 0.0}, r"^tolerance has 0\.0: must be a share above 0 and below 1\.$"),
        (
            REFERENCE,
            REFERENCE,
            {"budget": "latency", "timing": Timing(device="nowhere")},
            r"^device has 'nowhere': must be one of this machine \(",
        ),
    ],
)
def test_mistake_is_named(network: Network, to: Network, options: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        matched(network, **{"to": to, "budget": "parameters", "shape": SHAPE, "outputs": OUTPUTS} | options)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 0}, r"^batch_size has 0: must be an integer of at least 1\.$"),
        ({"rounds": 1}, r"^rounds has 1: must be an integer of at least 2\.$"),
    ],
)
def test_timing_says_which_field_is_wrong(fields: dict[str, int], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Timing(**fields)


def test_network_that_cannot_be_built_says_why() -> None:
    with pytest.raises(ShapeError, match=r"^x has c=24 channels, channels '\(g s\)' has s=16: "):
        matched(
            on(zoo.involution(3), replace(REFERENCE, width=24)),
            to=REFERENCE,
            budget="parameters",
            shape=SHAPE,
            outputs=OUTPUTS,
        )
