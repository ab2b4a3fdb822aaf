"""Folding: a static operator is one plain convolution with equal outputs, and any other is refused."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dynops.errors import SpecError
from dynops.nets import ResidualNetwork
from dynops.ops import Block, Global, Window
from dynops.parts import (
    BatchNorm,
    Channels,
    Context,
    Delta,
    Dynamic,
    Hidden,
    Kernel,
    Linear,
    LocalOperator,
    Mixture,
    Offsets,
    Operator,
    Project,
    Read,
    Static,
    filter_norm,
    mean_zero,
    sigmoid,
    softmax,
    zoo,
)
from dynops.parts.combine import Parallel, Pointwise, Series
from dynops.parts.fold import fold_all
from dynops.specs import spec

Settle = Callable[[nn.Module], nn.Module]
CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
WIDTH = 8
STATIC: dict[str, Kernel] = {
    "static": Static(),
    "static along groups and taps": Static(shared="g k"),
    "static along outputs and inputs": Static(shared="o i"),
    "fixed": Static(start=0.5, learned=False),
    "constant": Dynamic(context="constant", reduction=2),
    "constant without norm": Dynamic(context="constant", hidden=3, norm=None, bias=True, shared="g"),
    "linear in a constant": Linear(context="constant"),
    "delta": Delta(offsets=((-1, 2),), weight=0.7),
    "sum": Static() + Dynamic(context="constant", hidden=3, shared="k"),
    "product": Static(shared="g") * Dynamic(context="constant", hidden=3, shared="k"),
    "normalised": (Static() + Dynamic(context="constant", hidden=3)).then(softmax),
    "filter normalised": Static().then(filter_norm) * Static(start=1.0),
    "mean zero": Delta().then(mean_zero),
    "mixture": Mixture(
        experts=(Static(), Static(shared="o"), Dynamic(context="constant", hidden=2)),
        router=Dynamic(context="constant", hidden=2).then(softmax),
    ),
    "mixture with a fixed router": Mixture(experts=(Static(), Delta()), router=Static().then(sigmoid)),
}
WINDOWS = {
    "window": Window((3, 5)),
    "one tap wide": Window((1, 5), stride=3),
    "strided": Window((3, 5), stride=(2, 3)),
    "dilated": Window((3, 5), stride=2, dilation=(2, 1)),
    "masked": Window((3, 5), border="mask"),
    "reflected": Window((3, 5), border="reflect"),
    "replicated": Window((3, 5), stride=2, border="replicate"),
    "circular": Window((3, 5), dilation=(1, 2), stride=(1, 2), border="circular"),
    "same": Window((3, 5), padding="same"),
}
# groups of the convolution that each pattern of tests/parts/conftest.py becomes
GROUPS = {
    "(g s)": 8,
    "(s g)": 8,
    "g": 8,
    "s": 8,
    "i -> o": 1,
    "(g i) -> (g o)": 2,
    "s -> (o s)": 1,
    "(g i s) -> (s g o)": 1,
}
BASE = Operator(kernel=Static(), channels=Channels("(g s)", s=4), window=Window(3))


@spec
class Untrue(Context):
    """A context that says it is constant, and is not."""

    @property
    def signature(self) -> frozenset[str]:
        return frozenset()

    def width(self, site: Any) -> int:
        return site.channels

    def build(self, site: Any) -> nn.Module:
        return nn.Identity()


def features(*grid: int, batch: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(batch, WIDTH, *grid, generator=generator, dtype=torch.float64)


def check(operator: Operator, settled: Settle, *grid: int, out_channels: int | None = None) -> Any:
    """Compare an operator, built and settled, with its convolution, and return that."""
    layer = settled(operator.build(WIDTH, out_channels).double())
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    convolution = layer.fold()
    assert type(convolution) is CONVOLUTIONS[operator.dims]
    assert not convolution.training
    x = features(*(grid or (8, 9)))
    torch.testing.assert_close(convolution(x), layer(x), rtol=1e-10, atol=1e-10)
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())
    return convolution


@pytest.mark.parametrize("name", STATIC)
def test_static_kernel_with_any_channels_is_a_convolution(name: str, channels: Channels, settled: Settle) -> None:
    convolution = check(Operator(kernel=STATIC[name], channels=channels, window=WINDOWS["strided"]), settled)
    assert convolution.groups == GROUPS[channels.pattern]
    assert convolution.bias is None
    kept = Operator(kernel=Static(), channels=channels, window=WINDOWS["strided"]).build(WIDTH)
    out_channels, inputs = kept.split.out_channels, WIDTH // GROUPS[channels.pattern]
    assert tuple(convolution.weight.shape) == (out_channels, inputs, 3, 5)


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("grid", [(8, 9), (7, 6)])
def test_every_window_and_border_that_a_convolution_has_is_kept(
    name: str, channels: Channels, grid: tuple[int, int], settled: Settle
) -> None:
    convolution = check(Operator(kernel=Static(), channels=channels, window=WINDOWS[name], bias=True), settled, *grid)
    window = WINDOWS[name]
    assert (convolution.kernel_size, convolution.stride) == (window.sizes, window.strides)
    assert convolution.padding_mode == ("zeros" if window.border == "mask" else window.border)


def test_convolution_of_torch_is_itself_again() -> None:
    for groups in (1, 2, 8):
        convolution = nn.Conv2d(WIDTH, 16, 3, stride=2, padding=1, groups=groups).double()
        layer = zoo.conv2d(stride=2, groups=groups, bias=True).build(WIDTH, 16).double().eval()
        with torch.no_grad():
            weight = convolution.weight.view(groups, 16 // groups, WIDTH // groups, 9)
            layer.kernel.weight.copy_(weight)
            layer.bias.copy_(convolution.bias)
        folded = layer.fold()
        assert repr(folded) == repr(convolution)
        assert torch.equal(folded.weight, convolution.weight)
        assert torch.equal(folded.bias, convolution.bias)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("border", ["zeros", "reflect", "replicate", "circular"])
def test_grids_of_all_dimensions_fold(dims: int, border: str, settled: Settle) -> None:
    window = Window((3, 5, 3)[:dims], stride=(1, 2, 1)[:dims], dims=dims, border=border)
    operator = Operator(kernel=Static(), channels=Channels("(g i) -> (g o)", g=2), window=window, bias=True)
    assert check(operator, settled, *(6, 7, 5)[:dims], out_channels=6).groups == 2


@pytest.mark.parametrize("bias", [True, Static(), Static(shared="g o"), Dynamic(context="constant", hidden=3)], ids=str)
def test_bias_is_folded(bias: bool | Kernel, channels: Channels, settled: Settle) -> None:
    operator = Operator(kernel=Static(), channels=channels, window=WINDOWS["window"], bias=bias)
    convolution = check(operator, settled)
    assert convolution.groups == GROUPS[channels.pattern]
    assert convolution.bias is not None


PROJECTIONS = {
    "value": {"value": Project()},
    "narrow value": {"value": Project(reduction=2)},
    "out": {"out": Project()},
    "out with bias and norm": {"out": Project(bias=True, norm=BatchNorm(eps=1e-2))},
    "both, and a bias between": {"value": Project(), "out": Project(norm=BatchNorm()), "bias": True},
    "low rank": {"value": Project(reduction=4), "out": Project(bias=True), "bias": Static()},
}
SHIFTED = {
    "value with bias": {"value": Project(bias=True)},
    "value with norm": {"value": Project(norm=BatchNorm())},
    "all": {"value": Project(bias=True, norm=BatchNorm()), "out": Project(norm=BatchNorm()), "bias": True},
}


@pytest.mark.parametrize("name", PROJECTIONS)
@pytest.mark.parametrize("pattern", ["(g s)", "(s g)", "i -> o", "s -> (o s)"])
def test_projections_are_folded_into_a_dense_convolution(name: str, pattern: str, settled: Settle) -> None:
    channels = Channels(pattern, **({"g": 2} if "g" in pattern else {}))
    operator = Operator(kernel=Static(), channels=channels, window=WINDOWS["strided"], **PROJECTIONS[name])
    assert check(operator, settled).groups == 1


@pytest.mark.parametrize("name", SHIFTED)
@pytest.mark.parametrize(
    "window", [*(Window(3, border=border) for border in ("reflect", "replicate", "circular")), Window(1)], ids=str
)
def test_value_with_a_shift_is_folded_where_no_zeros_stand_beside_it(
    name: str, window: Window, settled: Settle
) -> None:
    convolution = check(replace(BASE, window=window, **SHIFTED[name]), settled)
    assert convolution.bias.abs().min() > 0


def test_projection_to_another_width_is_folded(settled: Settle) -> None:
    operator = replace(BASE, value=Project(), out=Project(bias=True))
    assert check(operator, settled, out_channels=5).out_channels == 5


def test_letters_of_size_1_keep_no_group_apart(settled: Settle) -> None:
    one_each = Operator(kernel=Static(), channels=Channels("(g i) -> (g o)", g=WIDTH), window=Window(3))
    assert check(one_each, settled).groups == WIDTH
    assert check(one_each, settled, out_channels=2 * WIDTH).groups == WIDTH
    single = Operator(kernel=Static(), channels=Channels("s -> (o s)", o=1), window=Window(3))
    assert check(single, settled).groups == WIDTH
    fanned = Operator(kernel=Static(), channels=Channels("(s g) -> (s g o)", g=2, o=3), window=Window(3))
    assert check(fanned, settled).groups == WIDTH


def test_operator_with_a_constant_context_folds(settled: Settle) -> None:
    context = Hidden(context="constant", hidden=6)
    mixed = Mixture(experts=(Static(), Static()), router=Linear(context="operator").then(softmax))
    check(replace(BASE, kernel=mixed, bias=Linear(context="operator"), context=context), settled)
    check(replace(BASE, kernel=Read(), context=Hidden(context="constant", hidden=18)), settled)


@pytest.mark.parametrize("reduction", [1, 2, 4])
def test_static_twin_of_involution_is_a_grouped_convolution(reduction: int, settled: Settle) -> None:
    involution = zoo.involution(kernel_size=3, group_channels=4, reduction=reduction, stride=2)
    twin = replace(involution, kernel=replace(involution.kernel, context="constant"))
    convolution = check(twin, settled)
    assert convolution.groups == WIDTH
    assert torch.equal(convolution.weight[0], convolution.weight[3])
    assert not torch.equal(convolution.weight[0], convolution.weight[4])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dtype_is_kept_and_no_random_numbers_are_drawn(dtype: torch.dtype, settled: Settle) -> None:
    layer = settled(replace(BASE, value=Project(), bias=True, out=Project(norm=BatchNorm())).build(WIDTH)).to(dtype)
    state = torch.get_rng_state()
    convolution = layer.fold()
    assert torch.equal(torch.get_rng_state(), state)
    assert {tensor.dtype for tensor in convolution.state_dict().values()} == {dtype}
    assert {tensor.device.type for tensor in convolution.state_dict().values()} == {"cpu"}
    x = features(6, 7).to(dtype)
    tolerance = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 2**-5}[dtype]
    torch.testing.assert_close(convolution(x), layer(x), rtol=tolerance, atol=tolerance)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_device_is_kept(settled: Settle) -> None:
    layer = settled(replace(BASE, kernel=STATIC["mixture"]).build(WIDTH).double()).cuda()
    convolution, x = layer.fold(), features(6, 7).cuda()
    assert convolution.weight.device.type == "cuda"
    torch.testing.assert_close(convolution(x), layer(x), rtol=1e-10, atol=1e-10)


def test_folded_weights_can_be_trained_on() -> None:
    convolution = BASE.build(WIDTH).eval().fold()
    convolution(features(5, 5).float()).square().sum().backward()
    assert all(parameter.requires_grad and parameter.grad is not None for parameter in convolution.parameters())


PIXEL = Dynamic(context="pixel", hidden=3)
REFUSED: dict[str, tuple[Operator, str]] = {
    "pixel": (
        replace(BASE, kernel=PIXEL),
        r"^kernel has Dynamic\(context='pixel', hidden=3\), which varies along \{b, h, w\}: that of a convolution is "
        r"the same for every image and pixel\. Use Static\(\) or context='constant'\.$",
    ),
    "image": (
        replace(BASE, kernel=Static() + Dynamic(context="global", hidden=3)),
        r"^kernel has Static\(\) \+ Dynamic\(.*\), which varies along \{b\}: ",
    ),
    "position": (
        replace(BASE, kernel=Static(positions=True)),
        r"^kernel has Static\(positions=True\), which varies along \{h, w\}: ",
    ),
    "router": (
        replace(BASE, kernel=Mixture(experts=(Static(), Static()), router=Dynamic(context="global", hidden=3))),
        r"^kernel has Mixture\(.*\), which varies along \{b\}: ",
    ),
    "operator's context": (
        replace(BASE, kernel=Linear(context="operator"), context=Hidden(context="global", hidden=3)),
        r"^kernel has Linear\(context='operator'\), which varies along \{b\}: ",
    ),
    "bias": (replace(BASE, bias=PIXEL), r"^bias has Dynamic\(.*\), which varies along \{b, h, w\}: "),
    "untrue context": (
        replace(BASE, kernel=Linear(context=Untrue())),
        r"^kernel has shape \(1, 2, 1, 1, 9, 3, 3\): its signature says that it is the same everywhere\.$",
    ),
    "block": (
        replace(BASE, window=Block(4)),
        r"^window has Block\(4\): a convolution needs a sliding Window, whose border is not 'shift'\.$",
    ),
    "global": (replace(BASE, window=Global()), r"^window has Global\(\): a convolution needs a sliding Window"),
    "shift": (
        replace(BASE, window=Window(3, border="shift")),
        r"^window has Window\(3, border='shift'\): a convolution needs a sliding Window",
    ),
    "mask and softmax": (
        replace(BASE, kernel=Static().then(softmax), window=Window(3, border="mask")),
        r"^kernel has Static\(\)\.then\(softmax\), border has 'mask': where it counts fewer taps, a normalised kernel "
        r"has other weights\. Use border='zeros'\.$",
    ),
    "mask and softmax inside": (
        replace(BASE, kernel=Static() + Static().then(mean_zero), window=Window(3, border="mask")),
        r"^kernel has Static\(\) \+ Static\(\)\.then\(mean_zero\), border has 'mask': ",
    ),
    "causal": (
        replace(BASE, window=Window(3, padding="causal")),
        r"^padding has 'causal', window has Window\(3, padding='causal'\): a convolution pads the same on both sides "
        r"of any input\. Use padding='centre'\.$",
    ),
    "same with a stride": (
        replace(BASE, window=Window(3, stride=2, padding="same")),
        r"^padding has 'same', window has Window\(3, stride=2, padding='same'\): ",
    ),
    "same and even": (replace(BASE, window=Window(4, padding="same")), r"^padding has 'same', window has Window\(4"),
    "value with bias": (
        replace(BASE, value=Project(bias=True)),
        r"^value has Project\(bias=True\), border has 'zeros': outside the input the value is zero, which a shift "
        r"before the padding is not\. Use Project\(\) without bias and norm, or border='replicate'\.$",
    ),
    "value with norm": (
        replace(BASE, value=Project(norm=BatchNorm()), window=Window(3, border="mask")),
        r"^value has Project\(norm=BatchNorm\(\)\), border has 'mask': ",
    ),
    "offsets": (
        replace(BASE, offsets=Offsets(kernel=Static())),
        r"^offsets has Offsets\(kernel=Static\(\)\): the taps of a convolution stay where they are\.$",
    ),
    "scatter": (
        replace(BASE, scatter=Window(3)),
        r"^scatter has Window\(3\): a convolution writes each sum to one pixel\.$",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_operator_that_is_no_convolution_is_refused(name: str, settled: Settle) -> None:
    operator, message = REFUSED[name]
    layer = settled(operator.build(WIDTH, size=(8, 8)))
    with pytest.raises(SpecError, match=message):
        layer.fold()
    assert fold_all(layer).spec == operator


@pytest.mark.parametrize("window", [Window(1, padding="causal"), Window(1, padding="same", stride=2)], ids=str)
def test_one_tap_needs_no_padding_however_it_is_named(window: Window, settled: Settle) -> None:
    check(replace(BASE, window=window), settled)


def test_training_guides_and_other_modules_are_refused() -> None:
    training = r"^operator has training=True: kernels and norms still change\. Call eval\(\) first\.$"
    with pytest.raises(SpecError, match=training):
        BASE.build(WIDTH).fold()
    half = BASE.build(WIDTH).eval()
    half.kernel.train()
    with pytest.raises(SpecError, match=training):
        half.fold()
    with pytest.raises(SpecError, match=r"^module has training=True: kernels and norms still change\. Call eval\(\)"):
        fold_all(nn.Sequential(BASE.build(WIDTH)))
    with pytest.raises(SpecError, match=r"^operator has guide_channels=3: a convolution takes no guide\.$"):
        BASE.build(WIDTH, guide_channels=3).eval().fold()


def operators_in(module: nn.Module) -> list[LocalOperator]:
    return [each for each in module.modules() if isinstance(each, LocalOperator)]


def test_network_of_static_operators_folds_to_torch_alone(settled: Settle) -> None:
    twin = replace(BASE, kernel=Dynamic(context="constant", reduction=2))
    network = settled(ResidualNetwork(operators=(zoo.conv2d(), twin, BASE), width=8).build((3, 9, 9), 5).double())
    folded = fold_all(network)
    assert len(operators_in(network)) == 3
    assert not operators_in(folded)
    slots = [folded.stage1_block1.operator, folded.stage2_block1.operator, folded.stage3_block1.operator]
    assert all(not type(each).__module__.startswith("dynops") for slot in slots for each in slot.modules())
    assert [type(slot) for slot in slots] == [nn.Conv2d] * 3
    assert [slot.groups for slot in slots] == [1, 16, 32]
    x = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    torch.testing.assert_close(folded(x), network(x), rtol=1e-10, atol=1e-10)


def test_operators_that_do_not_fold_stay_in_the_network(settled: Settle) -> None:
    involution = zoo.involution(kernel_size=3, group_channels=4)
    mixed = Series(layers=(BASE, Pointwise(), Parallel(layers=(involution, zoo.conv2d()), merge="gate")))
    network = settled(ResidualNetwork(operators=(mixed,), width=8).build((3, 9, 9), 5).double())
    folded = fold_all(network)
    assert [each.spec.kernel for each in operators_in(folded)] == [involution.kernel] * 3
    assert len(operators_in(network)) == 9
    x = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    torch.testing.assert_close(folded(x), network(x), rtol=1e-10, atol=1e-10)
    parameters = {id(parameter) for parameter in network.parameters()}
    assert not any(id(parameter) in parameters for parameter in folded.parameters())


def test_operator_that_stands_in_two_places_stays_one_module() -> None:
    layer = BASE.build(WIDTH)
    folded = fold_all(nn.Sequential(layer, nn.ReLU(), layer).eval())
    assert type(folded[0]) is nn.Conv2d
    assert folded[0] is folded[2]
    assert type(fold_all(layer.eval())) is nn.Conv2d
