"""local_sum under torch's own tools: numerical derivatives of both orders, compilation, and vmap."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from dynops.ops import BACKENDS, Window, local_sum

Draw = Callable[..., tuple[Tensor, Tensor]]
Near = Callable[[Tensor, Tensor], None]
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


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("window", [Window((1, 3), stride=(1, 2)), Window(2, dilation=(1, 2), padding="same")])
def test_derivatives_of_both_orders_are_numerically_right(window: Window, kind: str, backend: str, draw: Draw) -> None:
    inputs = [each.requires_grad_() for each in draw(window, (2, 3), b=2, g=2, **KINDS[kind])]

    def apply(kernel: Tensor, value: Tensor) -> Tensor:
        return local_sum(kernel, value, window, backend=backend)

    assert gradcheck(apply, inputs)
    assert gradgradcheck(apply, inputs)


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["pixel", "static", "dense pixel"])
def test_compiled_in_one_graph_it_gives_the_same(kind: str, backend: str, draw: Draw, assert_near: Near) -> None:
    window = Window(3, stride=2)
    inputs = [each.requires_grad_() for each in draw(window, (5, 6), **KINDS[kind])]
    compiled = torch.compile(local_sum, fullgraph=True, backend="aot_eager")
    found, expected = (apply(*inputs, window, backend=backend) for apply in (compiled, local_sum))
    assert_near(found, expected)
    gradients = [torch.autograd.grad(y.square().sum(), inputs) for y in (found, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        assert_near(ours, theirs)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_mapped_over_an_outer_axis_it_gives_the_same_as_a_loop(
    kind: str, backend: str, draw: Draw, assert_near: Near
) -> None:
    window = Window(3, stride=2)
    cases = [draw(window, seed=seed, **KINDS[kind]) for seed in range(3)]
    kernels, values = (torch.stack(each) for each in zip(*cases, strict=True))

    def apply(kernel: Tensor, value: Tensor) -> Tensor:
        return local_sum(kernel, value, window, backend=backend)

    both = torch.func.vmap(apply)(kernels, values)
    assert_near(both, torch.stack([apply(*case) for case in cases]))
    one_value = torch.func.vmap(apply, in_dims=(0, None))(kernels, values[0])
    assert_near(one_value, torch.stack([apply(kernel, values[0]) for kernel in kernels]))
