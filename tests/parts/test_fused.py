"""A generated kernel that is made where it is needed gives what one in memory gives."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from dynops import Channels, Dynamic, Operator, Window, zoo
from dynops.ops import generated_sum, on_cuda, use_backend
from dynops.parts import dynamic

pytestmark = pytest.mark.skipif(not on_cuda.INTERPRETED, reason="needs Triton's interpreter")
INVOLUTION = zoo.involution(kernel_size=3)


def results(layer: nn.Module, x: Tensor, backend: str) -> list[Tensor]:
    x = x.clone().requires_grad_()
    with use_backend(backend):
        y = layer(x)
    return [y, *torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])]


@pytest.mark.parametrize(
    "operator",
    [
        INVOLUTION,
        replace(INVOLUTION, window=Window(3, stride=2)),
        replace(INVOLUTION, kernel=Dynamic(context="pixel", span="k g o i"), channels=Channels("(s g)", s=4)),
        replace(INVOLUTION, kernel=Dynamic(context="window", hidden=3), channels=Channels("s")),
    ],
    ids=["published", "strided", "interleaved", "window"],
)
def test_outputs_and_gradients_do_not_depend_on_where_a_kernel_is_made(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr(dynamic, "generated_sum", lambda *inputs: made.append(1) or generated_sum(*inputs))
    torch.manual_seed(0)
    layer, x = operator.build(16).double(), torch.randn(2, 16, 4, 5, dtype=torch.float64)
    for fused, plain in zip(results(layer, x, "triton"), results(layer, x, "shift"), strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-10, atol=1e-10)
    assert made == [1]


@pytest.mark.parametrize(
    "operator",
    [
        replace(INVOLUTION, kernel=Dynamic(context="pixel", shared="k")),
        replace(INVOLUTION, channels=Channels("i -> o")),
        replace(INVOLUTION, kernel=Dynamic(context="global")),
    ],
    ids=["one weight for all taps", "dense", "one kernel an image"],
)
def test_other_kernels_are_made_in_memory(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamic, "generated_by", lambda *_: True)
    monkeypatch.setattr(dynamic, "generated_sum", None)
    x = torch.randn(2, 16, 4, 5)
    assert operator.build(16)(x).shape == x.shape


def test_weights_that_are_no_parameters_generate_kernels_where_they_are_needed() -> None:
    layer = INVOLUTION.build(16)
    x = torch.randn(2, 16, 4, 5)
    weights = {name: each.detach().clone() for name, each in layer.named_parameters()}
    with use_backend("native"):
        torch.testing.assert_close(torch.func.functional_call(layer, weights, (x,)), layer(x))
