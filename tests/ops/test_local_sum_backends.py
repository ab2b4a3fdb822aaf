"""Every backend against the reference: outputs and both gradients, in every dtype, on every kind of kernel."""

import random
from collections.abc import Callable, Iterator
from itertools import chain, combinations
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from dynops.ops import Window, local_sum

Draw = Callable[..., tuple[Tensor, Tensor]]
Near = Callable[[Tensor, Tensor], None]
Takers = Callable[..., list[str]]
SUBSETS = ["".join(each) for each in chain.from_iterable(combinations("bgikhw", n) for n in range(7))]


def results(kernel: Tensor, value: Tensor, window: Window, backend: str) -> dict[str, Tensor]:
    """The sum and the gradients of a random weighing of it."""
    kernel, value = kernel.detach().requires_grad_(), value.detach().requires_grad_()
    y = local_sum(kernel, value, window, backend=backend)
    # eighths, which every dtype holds exactly
    weight = torch.randint(-16, 17, y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype) / 8
    gradients = torch.autograd.grad(y, (kernel, value), weight)
    return {"y": y.detach(), "kernel": gradients[0], "value": gradients[1]}


def assert_same(kernel: Tensor, value: Tensor, window: Window, takers: Takers, near: Near) -> None:
    exact = results(kernel.double(), value.double(), window, "reference")
    for backend in takers(kernel, value, window):
        for name, found in results(kernel, value, window, backend).items():
            assert found.shape == exact[name].shape
            assert found.dtype == value.dtype
            near(found, exact[name])


def test_memory_that_nobody_wrote_is_poisoned() -> None:
    assert torch.empty(1000).isnan().all()


@pytest.mark.parametrize("ones", SUBSETS)
@pytest.mark.parametrize("sizes", [{"s": 3}, {"o": 3, "i": 2, "s": 2}], ids=["shared", "dense"])
def test_backend_equals_reference_for_every_set_of_constant_axes(
    sizes: dict[str, int], ones: str, takers: Takers, draw: Draw, assert_near: Near
) -> None:
    window = Window(3, stride=(1, 2))
    kernel, value = draw(window, (5, 6), ones=ones, **sizes)
    assert_same(kernel, value, window, takers, assert_near)


def random_case(seed: int) -> tuple[Window, dict[str, Any]]:
    """A window and sizes, odd ones among them."""
    rng = random.Random(seed)
    padding = rng.choice(("centre", "same"))
    legal = (1, 3, 5) if padding == "centre" else (1, 2, 3, 4, 5)
    window = Window(
        (rng.choice(legal), rng.choice(legal)),
        stride=(rng.randint(1, 3), rng.randint(1, 3)),
        dilation=(rng.randint(1, 3), rng.randint(1, 3)),
        padding=padding,
    )
    sizes = {letter: rng.randint(1, 3) for letter in "bgois"}
    return window, sizes | {"size": (rng.randint(1, 9), rng.randint(1, 9)), "ones": rng.choice(SUBSETS), "seed": seed}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("seed", range(60))
def test_backend_equals_reference_at_random_sizes(
    seed: int, dtype: torch.dtype, takers: Takers, draw: Draw, assert_near: Near
) -> None:
    window, sizes = random_case(seed)
    kernel, value = draw(window, dtype=dtype, **sizes)
    assert_same(kernel, value, window, takers, assert_near)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "sizes",
    [{"s": 4}, {"s": 4, "ones": "bhw"}, {"s": 4, "ones": "gk"}, {"o": 2, "i": 3}, {"o": 2, "i": 3, "ones": "bhw"}],
)
def test_half_precision_is_rounded_once_from_a_float32_sum(
    sizes: dict, dtype: torch.dtype, takers: Takers, draw: Draw, assert_near: Near
) -> None:
    window = Window(7)
    kernel, value = draw(window, (9, 8), dtype=dtype, **sizes)
    assert_same(kernel, value, window, takers, assert_near)


def test_result_has_the_dtype_of_the_value_whatever_the_kernel_has(takers: Takers, draw: Draw) -> None:
    kernel, value = draw(Window(3))
    for dtypes in ((torch.bfloat16, torch.float32), (torch.float32, torch.float16), (torch.float32, torch.float64)):
        inputs = kernel.to(dtypes[0]), value.to(dtypes[1])
        for backend in takers(*inputs, Window(3)):
            assert local_sum(*inputs, Window(3), backend=backend).dtype == dtypes[1]


@pytest.mark.parametrize("ones", ["", "hw", "h"])
def test_autocast_adds_the_taps_in_float32(takers: Takers, ones: str) -> None:
    # a running sum in bfloat16 stops counting single ones at 256
    window, sizes = Window(15), {"h": 15, "w": 15}
    kernel = torch.ones(1, 1, 1, 3, 225, *(1 if letter in ones else n for letter, n in sizes.items()))
    value = torch.ones(1, 1, 3, 1, 15, 15)
    for backend in takers(kernel, value, window):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = local_sum(kernel, value, window, backend=backend)
        assert y.dtype == torch.float32
        rounded = backend in ("convolution", "reference")
        assert y[0, 0, 0, 0, 7, 7].item() == pytest.approx(675, rel=2**-8 if rounded else 0)


@pytest.mark.parametrize("ones", ["", "b", "hw", "bhw"])
@pytest.mark.parametrize("sizes", [{}, {"o": 2, "i": 2}])
def test_empty_batch_gives_an_empty_sum(sizes: dict[str, int], ones: str, takers: Takers, draw: Draw) -> None:
    kernel, value = draw(Window(3), b=0, ones=ones, **sizes)
    for backend in takers(kernel, value, Window(3)):
        assert local_sum(kernel, value, Window(3), backend=backend).shape == (0, 2, sizes.get("o", 1), 2, 6, 7)


def test_strides_in_memory_do_not_matter(takers: Takers, draw: Draw, assert_near: Near) -> None:
    kernel, value = draw(Window(3), s=4)
    turned_kernel = kernel.transpose(1, 6).contiguous().transpose(1, 6)
    turned_value = value.permute(0, 4, 5, 1, 2, 3).contiguous().permute(0, 3, 4, 5, 1, 2)
    assert not turned_kernel.is_contiguous()
    assert not turned_value.is_contiguous()
    expected = results(kernel, value, Window(3), "reference")
    for backend in takers(kernel, value, Window(3)):
        for name, found in results(turned_kernel, turned_value, Window(3), backend).items():
            assert_near(found, expected[name])


class LargestTensor(TorchDispatchMode):
    """Notes the most elements that any operation, forward or backward, holds in its result."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for each in self._tensors(result):
            self.elements = max(self.elements, each.untyped_storage().nbytes() // each.element_size())
        return result

    @staticmethod
    def _tensors(result: Any) -> Iterator[Tensor]:
        return (each for each in tree_iter(result) if isinstance(each, Tensor))


@pytest.mark.parametrize(
    "sizes",
    [{"g": 2, "s": 24}, {"g": 2, "s": 24, "ones": "k"}, {"g": 1, "o": 2, "i": 2, "s": 24}, {"s": 24, "ones": "hw"}],
)
def test_no_backend_but_the_reference_holds_the_tensor_of_all_windows(sizes: dict, takers: Takers, draw: Draw) -> None:
    window = Window(7)
    kernel, value = draw(window, (9, 10), **sizes)
    all_windows = value.numel() * window.taps
    full_kernel = kernel.expand(-1, -1, -1, -1, window.taps, -1, -1).numel()
    padded = value.numel() // 90 * 15 * 16
    limit = max(padded, full_kernel, value.numel() * kernel.shape[2])
    assert limit < all_windows / 4

    for backend in takers(kernel, value, window):
        with LargestTensor() as largest:
            results(kernel, value, window, backend)
        if backend == "reference":
            assert largest.elements >= all_windows
        else:
            assert largest.elements <= limit
