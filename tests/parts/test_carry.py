"""The family goes where torch's own tools go: files, compilers, exports, half precision, derivatives and vmap."""

import copy
import importlib.util
import inspect
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, grad, stack_module_state, vmap

from dynops.ops import Block, Global, Window
from dynops.parts import (
    Channels,
    Delta,
    Dynamic,
    Gaussian,
    Kernel,
    Layer,
    LocalOperator,
    Mixture,
    Offsets,
    Operator,
    Positions,
    Project,
    Query,
    QueryKey,
    QueryPosition,
    Relative,
    Static,
    filter_norm,
    mean_zero,
    one_hot,
    sigmoid,
    softmax,
    zoo,
)
from dynops.parts.kernel import NormalisedKernel

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LETTERS: dict[str, tuple[dict[str, Any], int, tuple[int, ...], dict[str, float]]] = _load("test_zoo_formulas").LETTERS
NAMES = [operator.__name__ for operator in zoo.FAMILY]


def spec_of(name: str) -> Layer:
    """A member of the family, of 3 taps a side where its table has more than 4."""
    arguments, operator = dict(LETTERS[name][0]), getattr(zoo, name)
    size = inspect.signature(operator).parameters.get("kernel_size")
    if size is not None and arguments.get("kernel_size", size.default) > 4:
        arguments["kernel_size"] = 3
    return operator(**arguments)


def place_of(name: str) -> tuple[int, tuple[int, ...]]:
    """Width and size at which a member is built."""
    _, width, size, _ = LETTERS[name]
    return min(width, 32), size


def stirred(module: nn.Module, seed: int = 0) -> nn.Module:
    """Draw what starts as a constant, so that nothing cancels: offsets of 0, gains of 1, statistics."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for each in module.modules():
            if isinstance(each, nn.modules.batchnorm._BatchNorm):
                each.running_mean.uniform_(-0.3, 0.3, generator=generator)
                each.running_var.uniform_(0.5, 2.0, generator=generator)
        for parameter in module.parameters():
            if (parameter == parameter.flatten()[0]).all():
                noise = torch.empty_like(parameter).uniform_(-0.3, 0.3, generator=generator)
                parameter.add_(noise)
    return module


def built(name: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    width, size = place_of(name)
    return stirred(spec_of(name).build(width, size=size), seed).to(dtype).eval()


def features(name: str, dtype: torch.dtype = torch.float32, batch: int = 2, seed: int = 0) -> Tensor:
    width, size = place_of(name)
    return torch.randn(batch, width, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(
        dtype
    )


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("name", NAMES)
def test_text_and_file_carry_an_operator_over(name: str) -> None:
    layer, x = built(name), features(name)
    width, size = place_of(name)
    again = Layer.from_json(spec_of(name).to_json()).build(width, size=size).eval()
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    assert torch.equal(again(x), layer(x)) == (not list(layer.parameters()))
    again.load_state_dict(torch.load(file, weights_only=True), strict=True)
    assert torch.equal(again(x), layer(x))


@pytest.mark.parametrize("name", NAMES)
def test_copy_is_the_same_and_stands_alone(name: str) -> None:
    layer, x = built(name), features(name)
    y, again = layer(x), copy.deepcopy(layer)
    assert torch.equal(again(x), y)
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
    assert torch.equal(layer(x), y)


def outcome(apply: Callable[[Tensor], Tensor], layer: nn.Module, x: Tensor) -> list[Tensor]:
    """Output, gradients of input and parameters, and what the normalisations noted."""
    image = x.clone().requires_grad_()
    y = apply(image)
    gradients = torch.autograd.grad(y.square().sum(), (image, *layer.parameters()))
    return [y.detach(), *gradients, *layer.buffers()]


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, **EXACT)


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("name", NAMES)
def test_operator_compiles_in_one_graph_with_the_same_gradients(name: str) -> None:
    layer = built(name, torch.float64).train()
    again = copy.deepcopy(layer)
    compiled, x = torch.compile(again, fullgraph=True, backend="eager"), features(name, torch.float64)
    assert_same(outcome(compiled, again, x), outcome(layer, layer, x))


# Inductor imports torch.utils.mkldnn, whose classes are written in the deprecated script of torch itself
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("name", ["involution", "neighbourhood_attention", "carafe"])
def test_generated_code_gives_the_same_with_the_same_gradients(name: str) -> None:
    layer = built(name, torch.float64)
    again = copy.deepcopy(layer)
    compiled, x = torch.compile(again, fullgraph=True), features(name, torch.float64)
    assert_same(outcome(compiled, again, x), outcome(layer, layer, x))


@pytest.mark.parametrize("name", NAMES)
def test_exported_operator_takes_any_number_of_images(name: str) -> None:
    layer = built(name)
    batch = torch.export.Dim("b", min=1, max=64)
    program = torch.export.export(layer, (features(name),), dynamic_shapes={"x": {0: batch}}).module()
    for images in (1, 2, 5):
        x = features(name, batch=images, seed=images)
        torch.testing.assert_close(program(x), layer(x))


@pytest.mark.parametrize(("dtype", "share"), [(torch.bfloat16, 2**-6), (torch.float16, 2**-9)])
@pytest.mark.parametrize("name", NAMES)
def test_autocast_is_close_and_its_gradients_are_finite(name: str, dtype: torch.dtype, share: float) -> None:
    layer, x = built(name), features(name).requires_grad_()
    exact = layer(x)
    with torch.autocast("cpu", dtype=dtype):
        y = layer(x)
    operators = [each.spec for each in layer.modules() if isinstance(each, LocalOperator)]
    projected = any(each.value is not None or each.out is not None for each in operators)
    # a local sum has the dtype of what it sums, which a projection casts
    assert y.dtype == (dtype if projected else torch.float32)
    # each product may lose one unit in the last place, in each of the layers in a row
    assert (y - exact).abs().mean() < share * exact.abs().mean()
    inputs = (x, *layer.parameters())
    for gradient in torch.autograd.grad(y.float().square().mean(), inputs):
        assert gradient.dtype == torch.float32
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_memory_format_changes_nothing(name: str) -> None:
    layer, x = built(name, torch.float64), features(name, torch.float64)
    turned = x.movedim(1, -1).contiguous().movedim(-1, 1)
    assert turned.stride() != x.stride()
    assert x.dim() != 4 or turned.is_contiguous(memory_format=torch.channels_last)
    assert_same(outcome(layer, layer, turned), outcome(layer, layer, x))


@pytest.mark.parametrize("name", NAMES)
def test_mapped_over_a_batch_of_batches_it_gives_the_same_as_a_loop(name: str) -> None:
    layer = built(name, torch.float64)
    x = torch.stack([features(name, torch.float64, seed=seed) for seed in range(3)])
    torch.testing.assert_close(vmap(layer)(x), torch.stack([layer(each) for each in x]), **EXACT)


@pytest.mark.parametrize("name", NAMES)
def test_mapped_over_an_ensemble_it_gives_the_same_as_a_loop(name: str) -> None:
    layers, x = [built(name, torch.float64, seed) for seed in range(3)], features(name, torch.float64)
    parameters, buffers = stack_module_state(layers) if layers[0].state_dict() else ({}, {})
    if not parameters:
        assert all(torch.equal(layer(x), layers[0](x)) for layer in layers)
        return

    def apply(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        return functional_call(layers[0], (parameters, buffers), (x,))

    expected = torch.stack([layer(x) for layer in layers])
    torch.testing.assert_close(vmap(apply)(parameters, buffers), expected, **EXACT)
    assert not torch.allclose(expected[0], expected[1])


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_each_image_are_those_of_a_loop(name: str) -> None:
    layer, x = built(name, torch.float64), features(name, torch.float64, batch=3)
    parameters = {key: each.detach() for key, each in layer.named_parameters()}

    def loss(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
        return functional_call(layer, parameters, (image[None],)).square().sum()

    found = vmap(grad(loss), in_dims=(None, 0))(parameters, x)
    for number, image in enumerate(x):
        for key, expected in grad(loss)(parameters, image).items():
            torch.testing.assert_close(found[key][number], expected, **EXACT)


GRID = (4, 3)
KERNELS: dict[str, Kernel] = {
    "static": Static(),
    "static at positions": Static(positions=True),
    "delta": Delta() * Static(),
    "pixel": Dynamic(context="pixel", hidden=3),
    "window": Dynamic(context="window", hidden=3),
    "pixel and coordinates": Dynamic(context=("pixel", "coordinates"), hidden=3, activation="tanh"),
    "position": Dynamic(context="position", hidden=3, activation="gelu"),
    "image": Dynamic(context="global", hidden=3, norm=None, activation="silu"),
    "constant": Dynamic(context="constant", hidden=3),
    "gaussian": Gaussian() * Static(),
    "dot product": QueryKey(positions=Positions(layout="halves")).then(softmax),
    "subtraction": QueryKey(relation="subtraction", positions=Positions()).then(softmax),
    "squared distance": QueryKey(relation="squared_distance", positions=Positions(layout="sum")).then(softmax),
    "distribution": QueryKey(query=Query(bias=True), distribution=True),
    "query and position": QueryPosition(query=Query(dim=2)),
    "mixture": Mixture(experts=(Static(), Static(shared="g")), router=Dynamic(context="pixel", hidden=3).then(softmax)),
    "sigmoid": Dynamic(context="global", hidden=3).then(sigmoid),
    "filter norm": Dynamic(context="pixel", hidden=3).then(filter_norm),
    "mean zero": Dynamic(context="pixel", hidden=3).then(mean_zero),
}
PLACES = Operator(
    kernel=(QueryKey() + Relative()).then(softmax), channels=Channels("(g s)", g=2), window=Window(3, border="shift")
)
DERIVED: dict[str, Operator] = {
    name: Operator(kernel=each, channels=Channels("(g s)", g=2), window=Window(3, stride=(1, 2), border="mask"))
    for name, each in KERNELS.items()
} | {
    "dense pixel": Operator(
        kernel=Dynamic(context="pixel", hidden=2), channels=Channels("(g i) -> (g o)", g=2), window=Window((1, 3))
    ),
    "shifted window": PLACES,
    "block": Operator(
        kernel=PLACES.kernel, channels=PLACES.channels, window=Block(2, halo=1, shift=1), value=Project(bias=True)
    ),
    "whole grid": Operator(kernel=PLACES.kernel, channels=PLACES.channels, window=Global()),
    "offsets": Operator(
        kernel=Static(),
        channels=Channels("i -> o"),
        window=Window(3),
        offsets=Offsets(kernel=Dynamic(context="pixel", hidden=2), groups=2),
    ),
    "scatter": Operator(
        kernel=Dynamic(context="pixel", hidden=2).then(softmax),
        channels=Channels("(g s)", g=2),
        window=Window(3),
        scatter=Window(2, stride=2, padding="same"),
    ),
}


def function_of(layer: nn.Module) -> tuple[Callable[..., Tensor], list[Tensor]]:
    """A layer as a function of its input and its parameters."""
    names = [name for name, _ in layer.named_parameters()]

    def apply(x: Tensor, *parameters: Tensor) -> Tensor:
        return functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    return apply, list(layer.parameters())


@pytest.mark.parametrize("name", DERIVED)
def test_derivatives_of_both_orders_are_numerically_right(name: str) -> None:
    torch.manual_seed(0)
    layer = stirred(DERIVED[name].build(4, size=GRID).double()).eval()
    apply, parameters = function_of(layer)
    x = torch.randn(1, 4, *GRID, dtype=torch.float64, requires_grad=True)
    assert gradcheck(apply, (x, *parameters))
    assert gradgradcheck(apply, (x, *parameters), fast_mode=True)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "drconv"])
def test_derivatives_of_both_orders_of_the_family_are_numerically_right(name: str) -> None:
    layer, x = built(name, torch.float64), features(name, torch.float64).requires_grad_()
    apply, parameters = function_of(layer)
    assert gradcheck(apply, (x, *parameters), fast_mode=True)
    assert gradgradcheck(apply, (x, *parameters), fast_mode=True)


def test_choice_of_the_greatest_has_derivatives_of_both_orders() -> None:
    # what they should be is a convention: the choice has none of its own, so a number cannot check them
    layer, x = built("drconv", torch.float64), features("drconv", torch.float64).requires_grad_()
    assert one_hot in {each.normaliser for each in layer.modules() if isinstance(each, NormalisedKernel)}
    first = torch.autograd.grad(layer(x).square().sum(), (x, *layer.parameters()), create_graph=True)
    second = torch.autograd.grad(sum(each.square().sum() for each in first), (x, *layer.parameters()))
    for each in (*first, *second):
        assert each.isfinite().all()
        assert each.abs().sum() > 0
