"""Kernels and channel patterns that every part must serve, and how to settle a built operator."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

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
    Mixture,
    Pair,
    Patch,
    Permuted,
    PooledTaps,
    Positions,
    Query,
    QueryKey,
    QueryPosition,
    Sigmoid,
    Softmax,
    Static,
    filter_norm,
    mean_zero,
    sigmoid,
    softmax,
)

KERNELS: dict[str, Kernel] = {
    "static": Static(),
    "static shared": Static(shared="g i"),
    "constant": Dynamic(context="constant", reduction=1),
    "position": Dynamic(context="position", reduction=1),
    "global": Dynamic(context="global", reduction=1),
    "pixel": Dynamic(context="pixel", reduction=1),
    "window": Dynamic(context="window", reduction=1),
    "without norm": Dynamic(context="pixel", hidden=5, norm=None),
    "with biases": Dynamic(context="window", hidden=5, norm=None, bias=True),
    "with norm and bias": Dynamic(context="global", reduction=2, norm=BatchNorm(eps=1e-3, momentum=0.01), bias=True),
    "taps first": Dynamic(context="pixel", span="k i o g"),
    "subsampled": Dynamic(context="pixel", downsample="subsample"),
    "shared by taps": Dynamic(context="pixel", hidden=5, shared="k"),
    "shared by groups": Dynamic(context="pixel", hidden=5, shared="g o"),
    "sum": Static() + Dynamic(context="pixel", hidden=5, shared="g"),
    "product": Static(shared="g") * Dynamic(context="global", hidden=5, shared="k"),
    "product of sum": (Static() + Dynamic(context="global", reduction=1))
    * Dynamic(context="position", hidden=5, norm=None),
    "sum of three": Static() + Dynamic(context="position", reduction=1) + Dynamic(context="global", reduction=1),
    "normalised": Dynamic(context="pixel", reduction=1).then(softmax),
    "normalised sum": (Static() + Dynamic(context="constant", reduction=1)).then(softmax),
    "softened": Static().then(Softmax(temperature=2.5)),
    "gated": Dynamic(context="pixel", reduction=1).then(sigmoid),
    "gated softly": Dynamic(context="global", reduction=1).then(Sigmoid(temperature=3.0)),
    "filter normalised with gain": Dynamic(context="pixel", reduction=1).then(filter_norm) * Static(start=1.0),
    "mean zero": Dynamic(context="position", reduction=1).then(mean_zero),
    "query and key": QueryKey(query=Query(dim=4)),
    "query, key and positions": QueryKey(query=Query(dim=4, bias=True), positions=Positions(layout="halves")),
    "query minus key": QueryKey(relation="subtraction", query=Query(dim=3, shared="g")),
    "query far from key": QueryKey(relation="squared_distance", query=Query(dim=3, shared="o")).then(softmax),
    "query and position": QueryPosition(query=Query(dim=4), positions=Positions(layout="sum", shared=True)),
    "query and position of involution": QueryPosition(
        query=Query(dim=4, shared="g o", norm=BatchNorm(), relu=True, downsample="average")
    )
    + Static(),
    "attention": (QueryKey(query=Query(dim=4)) + QueryPosition(query=Query(dim=2))).then(softmax),
    "gaussian": Gaussian(),
    "guided static": Gaussian() * Static(),
    "mixture by pixel": Mixture(
        experts=(Static(), Static(shared="g"), Static(shared="o")),
        router=Dynamic(context="pixel", hidden=5).then(softmax),
    ),
    "mixture by image": Mixture(
        experts=(Static(), Dynamic(context="global", hidden=4)),
        router=Dynamic(context="global", hidden=5).then(sigmoid),
    ),
    "sum of normalised": Static() + Dynamic(context="window", hidden=6).then(softmax),
    "static positions": Static(positions=True, shared="i"),
    "fixed": Static(start=0.5, learned=False),
    "delta": Delta(offsets=((-1, 2),), weight=-2.0),
    "by coordinates": Dynamic(context="coordinates", hidden=6, norm=None, bias=True),
    "by pixel and coordinates": Dynamic(context=("pixel", "coordinates", "global"), reduction=5, least=7),
    "with another activation": Dynamic(context="pixel", hidden=5, activation="silu"),
    "linear": Linear(context="pixel"),
    "linear without bias": Linear(context="global", bias=False, shared="k"),
    "linear of neighbours": Linear(context="pixel", reach=3),
    "linear of the window": Linear(context="pixel", reach="window", shared="g"),
    "linear of hidden": Linear(context=Hidden(context="pixel", hidden=6, activation="sigmoid", bias=True)),
    "linear apart": Linear(context=Hidden(context="global", hidden=6, apart=True, norm=None), apart=True, groups=3),
    "linear of channel statistics": Linear(context=ChannelStatistics(), reach=5, bias=False).then(sigmoid),
    "linear of global statistics": Linear(context=GlobalStatistics(reduction=2), bias=False).then(sigmoid),
    "by pooled taps": Dynamic(context=PooledTaps(), hidden=5, norm=None, activation="tanh"),
    "by pairs": Dynamic(context=Pair(dim=4), hidden=5).then(sigmoid),
    "linear of pairs": Linear(context=Pair(dim=4), shared="i"),
    "by patches": Dynamic(context=Patch(dim=2), hidden=5),
    "by permuted pixels": Dynamic(context=Permuted(seed=3), hidden=5),
    "linear of permuted pixels": Linear(context=Permuted(downsample="subsample")).then(sigmoid),
    "mixture by query": Mixture(experts=(Static(), Static()), router=QueryPosition(query=Query(dim=3)).then(softmax)),
}
CHANNELS: dict[str, Channels] = {
    "contiguous": Channels("(g s)", g=2),
    "interleaved": Channels("(s g)", s=2),
    "each its own": Channels("g"),
    "all one": Channels("s"),
    "dense": Channels("i -> o"),
    "dense groups": Channels("(g i) -> (g o)", g=2),
    "queries": Channels("s -> (o s)", o=2),
    "all letters": Channels("(g i s) -> (s g o)", g=2, s=2, o=3),
}


@pytest.fixture(scope="session")
def settled() -> Callable[[nn.Module], nn.Module]:
    """Give every normalisation statistics of its own and set the module to evaluate."""

    def settle(module: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for each in module.modules():
                if isinstance(each, nn.BatchNorm2d):
                    for tensor, low, high in (
                        (each.weight, 0.5, 2.0),
                        (each.bias, 0.0, 1.0),
                        (each.running_mean, -0.3, 0.3),
                        (each.running_var, 0.5, 2.0),
                    ):
                        tensor.uniform_(low, high, generator=generator)
        return module.eval()

    return settle


@pytest.fixture(scope="session")
def assert_equal_with_gradients() -> Callable[..., None]:
    """Compare a layer with an oracle of its input and state, which shares no code with it."""

    def compare(
        layer: nn.Module, oracle: Callable[[Tensor, dict[str, Tensor]], Tensor], x: Tensor, unseen: tuple[str, ...] = ()
    ) -> None:
        """Compare outputs, gradients of the input and, name by name, of all parameters, and running statistics.

        `unseen` names the parameters whose gradient is zero; all others must have one.
        """
        state = {name: each.detach().clone() for name, each in layer.state_dict().items()}
        parameters = dict(layer.named_parameters())
        for name in parameters:
            state[name].requires_grad_()
        ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        found, expected = layer(ours), oracle(theirs, state)
        assert_near(found, expected, "output")
        upstream = torch.randn_like(expected)
        found.backward(upstream)
        expected.backward(upstream)
        assert_near(ours.grad, theirs.grad, "gradient of x")
        for name, parameter in parameters.items():
            wanted = state[name].grad
            assert wanted is not None, f"the oracle does not use {name}"
            assert (wanted.abs().max() < 1e-9) == (name in unseen), f"{name} has a gradient of {wanted.abs().max()}"
            assert_near(parameter.grad, wanted, f"gradient of {name}")
        for name, buffer in layer.named_buffers():
            if buffer.is_floating_point() and name in state:
                assert_near(buffer, state[name], name)

    def assert_near(found: Tensor | None, expected: Tensor | None, name: str) -> None:
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10, msg=lambda text: f"{name}: {text}")

    return compare


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for `kernel` or `channels` on all of them."""
    for name, values in (("kernel", KERNELS), ("channels", CHANNELS)):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, list(values.values()), ids=list(values))
