"""local_sum under torch's own tools: numerical derivatives of both orders, compilation, and vmap."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, vmap

from dynops.ops import Window, local_sum

Draw = Callable[..., tuple[Tensor, Tensor]]
Near = Callable[[Tensor, Tensor], None]
Takers = Callable[..., list[str]]
KINDS = {
    "pixel": {"s": 2},
    "sample": {"s": 2, "ones": "hw"},
    "static": {"s": 2, "ones": "bhw"},
    "dense pixel": {"o": 2, "i": 2, "s": 1},
    "dense static": {"o": 2, "i": 2, "s": 2, "ones": "bhw"},
    "one group, one tap": {"s": 2, "ones": "gk"},
}


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("window", [Window((1, 3), stride=(1, 2)), Window(2, dilation=(1, 2), padding="same")])
def test_derivatives_of_both_orders_are_numerically_right(
    window: Window, kind: str, draw: Draw, takers: Takers
) -> None:
    inputs = [each.requires_grad_() for each in draw(window, (2, 3), b=2, g=2, **KINDS[kind])]
    for backend in takers(*inputs, window):
        apply = partial(local_sum, window=window, backend=backend)
        if backend == "triton":  # its interpreter is slow: one image and group, in a few random directions
            few = [each.requires_grad_() for each in draw(window, (2, 3), b=1, g=1, **KINDS[kind])]
            assert gradcheck(apply, few, fast_mode=True)
            assert gradgradcheck(apply, few, fast_mode=True)
        else:
            assert gradcheck(apply, inputs)
            assert gradgradcheck(apply, inputs)


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("kind", ["pixel", "static", "dense pixel"])
def test_compiled_in_one_graph_it_gives_the_same(kind: str, draw: Draw, takers: Takers, assert_near: Near) -> None:
    window = Window(3, stride=2)
    inputs = [each.requires_grad_() for each in draw(window, (5, 6), **KINDS[kind])]
    compiled = torch.compile(local_sum, fullgraph=True, backend="aot_eager")
    for backend in (None, *takers(*inputs, window)):
        found, expected = (apply(*inputs, window, backend=backend) for apply in (compiled, local_sum))
        assert_near(found, expected)
        gradients = [torch.autograd.grad(y.square().sum(), inputs) for y in (found, expected)]
        for ours, theirs in zip(*gradients, strict=True):
            assert_near(ours, theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_mapped_over_an_outer_axis_it_gives_the_same_as_a_loop(
    kind: str, draw: Draw, takers: Takers, assert_near: Near
) -> None:
    window = Window(3, stride=2)
    cases = [draw(window, seed=seed, **KINDS[kind]) for seed in range(3)]
    kernels, values = (torch.stack(each) for each in zip(*cases, strict=True))
    for backend in takers(*cases[0], window):
        apply = partial(local_sum, window=window, backend=backend)
        assert_near(vmap(apply)(kernels, values), torch.stack([apply(*case) for case in cases]))
        for axes, pairs in (
            ((0, None), [(kernel, values[0]) for kernel in kernels]),
            ((None, 0), [(kernels[0], value) for value in values]),
        ):
            mapped = vmap(apply, in_dims=axes)(
                *(each if axis == 0 else each[0] for each, axis in zip((kernels, values), axes, strict=True))
            )
            assert_near(mapped, torch.stack([apply(*pair) for pair in pairs]))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_mapped_over_an_outer_axis(kind: str, draw: Draw, takers: Takers, assert_near: Near) -> None:
    window = Window(3, stride=2)
    kernel, _ = draw(window, **KINDS[kind])
    values = torch.stack([draw(window, seed=seed, **KINDS[kind])[1] for seed in range(3)])
    for backend in takers(kernel, values[0], window):

        def loss(kernel: Tensor, value: Tensor, backend: str = backend) -> Tensor:
            return local_sum(kernel, value, window, backend=backend).square().sum()

        mapped = vmap(grad(loss, argnums=(0, 1)), in_dims=(None, 0))(kernel, values)
        for found, exact in zip(
            mapped, zip(*(grad(loss, argnums=(0, 1))(kernel, value) for value in values), strict=True), strict=True
        ):
            assert_near(found, torch.stack(exact))


def test_maps_of_maps_learn() -> None:
    window = Window(3)
    generator = torch.Generator().manual_seed(0)
    kernels = torch.randn(2, 3, 1, 2, 1, 1, 9, 4, 4, dtype=torch.float64, generator=generator).requires_grad_()
    values = torch.randn(2, 3, 1, 2, 1, 2, 4, 4, dtype=torch.float64, generator=generator)

    def loss(kernel: Tensor, value: Tensor) -> Tensor:
        return local_sum(kernel, value, window).square().sum()

    pairs = [loss(kernels[i, j], values[i, j]) for i in range(2) for j in range(3)]
    (expected,) = torch.autograd.grad(sum(pairs), kernels)
    mapped = vmap(vmap(loss))
    torch.testing.assert_close(mapped(kernels.detach(), values).flatten(), torch.stack(pairs).detach())
    (found,) = torch.autograd.grad(mapped(kernels, values).sum(), kernels)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(vmap(vmap(grad(loss)))(kernels.detach(), values), expected)
    torch.testing.assert_close(grad(lambda each: mapped(each, values).sum())(kernels.detach()), expected)
