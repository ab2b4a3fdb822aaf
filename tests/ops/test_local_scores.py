"""Products of queries and keys: each engine against shifted keys, in outputs and every gradient."""

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.overrides import TorchFunctionMode

from dynops.ops import Window, native, on_cuda, use_backend
from dynops.ops.local_scores import local_scores
from dynops.ops.window import BORDERS

Near = Callable[[Tensor, Tensor], None]
INTERPRETED = pytest.mark.skipif(not on_cuda.INTERPRETED, reason="needs Triton's interpreter")
WINDOWS = [
    *(Window(3, border=border) for border in BORDERS),
    Window((3, 1), stride=(1, 2), dilation=(2, 1)),
    Window(4, padding="same", stride=2, border="mask"),
    Window(3, padding="causal", dims=1),
]


def drawn(window: Window, dtype: torch.dtype = torch.float64, o: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    size = (5, 6)[: window.dims]
    places = prod(window.reaches(size))
    shapes = ((2, 2, o, 3, *window.output_size(size)), (2, 2, 3, *size), (2, 3, places))
    query, key, positions = (torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes)
    return query.to(dtype), key.to(dtype), positions.to(dtype)


def results(inputs: tuple[Tensor, ...], window: Window, backend: str) -> list[Tensor]:
    query, key, positions = (each.clone().requires_grad_() for each in inputs)
    with use_backend(backend):
        found = local_scores(query, key, window, positions=positions)
    slope = torch.linspace(-1, 1, found.numel(), dtype=found.dtype).view(found.shape)
    return [found, *torch.autograd.grad(found, (query, key, positions), slope)]


@pytest.mark.parametrize("engine", ["native", pytest.param("triton", marks=INTERPRETED)])
@pytest.mark.parametrize("window", WINDOWS, ids=repr)
def test_engines_score_as_shifted_keys_do(window: Window, engine: str) -> None:
    inputs = drawn(window)
    for found, exact in zip(results(inputs, window, engine), results(inputs, window, "shift"), strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_full(dtype: torch.dtype, assert_near: Near) -> None:
    query, key, _ = drawn(Window(3), dtype)
    assert_near(local_scores(query, key, Window(3)).to(dtype), local_scores(query.double(), key.double(), Window(3)))


def test_derivatives_of_both_orders_are_numerically_right() -> None:
    window = Window(3, stride=2)
    query, key, _ = (each.requires_grad_() for each in drawn(window, o=1))
    assert gradcheck(lambda q, k: local_scores(q, k, window), (query, key), fast_mode=True)
    assert gradgradcheck(lambda q, k: local_scores(q, k, window), (query, key), fast_mode=True)


@pytest.fixture
def stacked() -> Iterator[list[int]]:
    """Sizes of what is stacked."""
    sizes: list[int] = []

    class Notes(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.stack:
                sizes.append(len(args[0]))
            return func(*args, **(kwargs or {}))

    with Notes():
        yield sizes


def test_keys_are_shifted_only_where_no_engine_takes_them(stacked: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, _ = drawn(Window(3))
    local_scores(query, key, Window(3))
    assert stacked == []
    with use_backend("shift"):
        local_scores(query, key, Window(3))
    assert stacked == [9]
    monkeypatch.setattr(native, "unavailable", lambda dtype: "there is no compiler")
    with use_backend("native"):
        local_scores(query, key, Window(3))
    assert stacked == [9, 9]
