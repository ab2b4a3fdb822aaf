"""Attention whose weights are made where they are needed gives what those in memory give."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from dynops import (
    BatchNorm,
    Channels,
    Hidden,
    Kernel,
    Linear,
    Offsets,
    Operator,
    Positions,
    Query,
    QueryKey,
    QueryPosition,
    Softmax,
    Static,
    Window,
    sigmoid,
    softmax,
    zoo,
)
from dynops.ops import attended_sum, on_cuda, use_backend
from dynops.parts import LocalOperator, kernel, scores

pytestmark = pytest.mark.skipif(not on_cuda.INTERPRETED, reason="needs Triton's interpreter")
QUERY = Query(dim=2, bias=True, norm=BatchNorm(), relu=True)


def attention(scores: Kernel, channels: Channels | None = None, window: Window | None = None) -> Operator:
    window = window or Window((1, 3), border="mask")
    return Operator(kernel=scores.then(softmax), channels=channels or Channels("(g s)", g=2), window=window)


OPERATORS = {
    "stand-alone": zoo.stand_alone_attention(3, heads=2, stride=2),
    "local relation": zoo.local_relation(3, 4, relation="dot"),
    "positions": attention(QueryPosition(query=QUERY)),
    "distribution": attention(QueryKey(distribution=True), window=Window((1, 3))),
    "shared": attention(
        QueryKey(query=replace(QUERY, shared="g o"), positions=Positions(layout="sum", shared=True))
        + QueryPosition(query=Query(dim=2, shared="g"), positions=Positions(shared=True))
        + Static(shared="g")
    ),
    "fan-out": attention(QueryKey(query=Query(dim=2)) + Static(), Channels("(g s) -> (g o s)", g=2, o=2)),
    "flatter": replace(attention(QueryKey()), kernel=QueryKey().then(Softmax(temperature=4.0))),
    "sequence": replace(
        attention(QueryKey() + QueryPosition(query=Query(context="operator"))),
        window=Window(3, dims=1, padding="causal", border="replicate"),
        context=Hidden(context="pixel", hidden=4),
    ),
}


def image(operator: Operator) -> Tensor:
    return torch.randn(2, 8, *(4, 5)[-operator.dims :], dtype=torch.float64)


def results(layer: LocalOperator, x: Tensor, backend: str) -> list[Tensor]:
    """The output, all gradients of its squares, and the running statistics."""
    layer, x = deepcopy(layer), x.clone().requires_grad_()
    with use_backend(backend):
        y = layer(x)
    return [y, *torch.autograd.grad(y.square().sum(), [x, *layer.parameters()]), *layer.buffers()]


@pytest.mark.parametrize("name", OPERATORS)
def test_outputs_and_gradients_do_not_depend_on_where_weights_are_made(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr(scores, "attended_sum", lambda *inputs: made.append(1) or attended_sum(*inputs))
    layer, x = OPERATORS[name].build(8).double(), image(OPERATORS[name])
    for fused, plain in zip(results(layer, x, "triton"), results(layer, x, "shift"), strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-10, atol=1e-10)
    assert made == [1]


@pytest.mark.parametrize(
    "operator",
    [
        attention(Static()),
        attention(QueryKey(relation="subtraction")),
        attention(QueryKey() * Static()),
        attention(QueryKey() + Linear(context="pixel")),
        replace(attention(QueryKey()), kernel=QueryKey().then(sigmoid)),
        replace(attention(QueryKey()), channels=Channels("i -> o")),
        replace(attention(QueryKey()), window=Window((1, 3)), offsets=Offsets(kernel=Static(start=0.5))),
        replace(attention(QueryKey()), kernel=QueryKey()),
    ],
    ids=["a table", "distances", "a product", "generated", "no softmax", "dense", "offsets", "not normalised"],
)
def test_other_kernels_are_made_in_memory(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "attended_by", lambda *_: True)
    monkeypatch.setattr(scores, "attended_sum", None)
    x = torch.randn(2, 8, 4, 5)
    assert operator.build(8)(x).shape == x.shape


class Largest(TorchDispatchMode):
    """Notes the most elements of a result."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = [each.numel() for each in tree_iter(result) if isinstance(each, Tensor)]
        self.elements = max(self.elements, *sizes, 0)
        return result


def test_no_weights_are_ever_in_memory() -> None:
    layer = zoo.stand_alone_attention(3, heads=2).build(4)
    x = torch.randn(1, 4, 4, 4, requires_grad=True)
    for backend, most in (("triton", 4 * 16), ("shift", 2 * 9 * 16)):
        with use_backend(backend), Largest() as largest:
            layer(x).sum().backward()
        assert largest.elements == most
