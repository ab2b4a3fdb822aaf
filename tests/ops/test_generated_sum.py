"""Sums of generated kernels: against torch's own operations, and fused against the kernel in memory."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, vmap
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from dynops.errors import ShapeError, SpecError
from dynops.ops import Block, Window, fused_native, generated_by, generated_sum, on_cuda

Near = Callable[[Tensor, Tensor], None]
Inputs = tuple[Tensor, Tensor, Tensor, Tensor]
fused = pytest.mark.skipif(not on_cuda.INSTALLED, reason="needs Triton")
ENGINES = ["native", pytest.param("triton", marks=fused)]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
CASES = {
    "strided": (Window(3, stride=(1, 2)), {}),
    "dilated": (Window((3, 1), dilation=(2, 1)), {"s": 1, "g": 1}),
    "even": (Window((1, 4), padding="same", border="circular"), {"r": 1}),
    "sequence": (Window(3, dims=1, padding="causal"), {}),
    "many channels": (Window((1, 2), padding="same"), {"s": 40, "r": 37}),
    "several programs": (Window((1, 2), padding="same"), {"size": (9, 17), "b": 1, "g": 1}),
}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def device(engine: str) -> str:
    return "cuda" if engine == "triton" and not on_cuda.INTERPRETED else "cpu"


def drawn(
    window: Window,
    size: tuple[int, ...] = (5, 6),
    *,
    b: int = 2,
    g: int = 2,
    r: int = 3,
    s: int = 3,
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
) -> Inputs:
    """Hidden context, weight, bias and value, each around 1."""
    size = size[-window.dims :]
    shapes = ((b, r, *window.output_size(size)), (g, window.taps, r), (g, window.taps), (b, g, s, *size))
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    made[1] /= r**0.5
    hidden, weight, bias, value = (each.to(device, dtype) for each in made)
    return hidden, weight, bias, value


def results(inputs: Inputs, window: Window, backend: str) -> list[Tensor]:
    """The sum and all gradients of a weighing of it."""
    given = [each.detach().requires_grad_() for each in inputs]
    y = generated_sum(*given, window, backend=backend)
    slope = torch.randint(-16, 17, y.shape, generator=torch.Generator().manual_seed(1)).to(y) / 8
    return [y.detach(), *torch.autograd.grad(y, given, slope)]


def test_it_is_a_convolution_that_weighs_unfolded_windows() -> None:
    hidden, weight, bias, value = drawn(Window(3, stride=2), (6, 7), g=2, s=3)
    kernel = F.conv2d(hidden, weight.flatten(0, 1)[..., None, None], bias.flatten())
    windows = F.unfold(value.flatten(1, 2), 3, padding=1, stride=2).view(2, 2, 3, 9, 3, 4)
    expected = (kernel.view(2, 2, 1, 9, 3, 4) * windows).sum(3)
    torch.testing.assert_close(generated_sum(hidden, weight, bias, value, Window(3, stride=2)), expected)


def test_other_windows_have_the_kernel_in_memory() -> None:
    value = torch.randn(1, 1, 2, 4, 4)
    hidden, weight = torch.randn(1, 3, 4, 4), torch.randn(1, 4, 3)
    assert generated_sum(hidden, weight, None, value, Block(2)).shape == value.shape


@pytest.mark.parametrize("case", CASES)
def test_fused_equals_the_kernel_in_memory(case: str, engine: str, device: str, assert_near: Near) -> None:
    window, sizes = CASES[case]
    inputs = drawn(window, device=device, **sizes)
    for found, exact in zip(results(inputs, window, engine), results(inputs, window, "shift"), strict=True):
        assert found.shape == exact.shape
        assert_near(found, exact)


@pytest.mark.parametrize(
    ("engine", "dtype"),
    [("native", torch.float32), *(pytest.param("triton", dtype, marks=fused) for dtype in DTYPES[1:])],
)
def test_results_are_rounded_once(dtype: torch.dtype, engine: str, device: str, assert_near: Near) -> None:
    window = Window(3)
    inputs = drawn(window, (3, 4), dtype=dtype, device=device)
    hidden, weight, bias, value = (each.double() for each in inputs)
    exact = results((hidden, weight, bias, value), window, "shift")
    for found, each in zip(results(inputs, window, engine), exact, strict=True):
        assert found.dtype == dtype
        assert_near(found, each)


def test_channels_may_lie_beside_each_other_and_stay_there_on_a_gpu(
    engine: str, device: str, assert_near: Near
) -> None:
    window = Window((1, 3), stride=(2, 1))
    hidden, weight, bias, value = drawn(window, device=device)
    turned = value.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2)
    found = results((hidden.contiguous(memory_format=torch.channels_last), weight, bias, turned), window, engine)
    for each, exact in zip(found, results((hidden, weight, bias, value), window, "shift"), strict=True):
        assert_near(each, exact)
    assert engine == "native" or found[0][0, 0, :, 0, 0].is_contiguous()


class Largest(TorchDispatchMode):
    """Notes the most elements of a result."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = [each.numel() for each in tree_iter(result) if isinstance(each, Tensor)]
        self.elements = max(self.elements, *sizes, 0)
        return result


def test_fused_never_holds_the_kernel(engine: str, device: str) -> None:
    window = Window(3)
    inputs = drawn(window, (5, 6), g=3, s=2, device=device)
    kernel = 2 * 3 * 9 * 30
    for backend, most in ((engine, inputs[3].numel()), ("shift", kernel)):
        with Largest() as largest:
            results(inputs, window, backend)
        assert largest.elements == most


def test_fused_has_right_derivatives_of_both_orders(engine: str, device: str) -> None:
    window = Window((1, 2), dilation=(1, 2), padding="same")
    inputs = [each.requires_grad_() for each in drawn(window, (2, 3), g=1, s=2, r=2, device=device)]
    apply = partial(generated_sum, window=window, backend=engine)
    assert gradcheck(apply, inputs, fast_mode=True)
    assert gradgradcheck(apply, inputs, fast_mode=True)


def test_fused_is_mapped_over_an_outer_axis(engine: str, device: str, assert_near: Near) -> None:
    window = Window((1, 3))
    hidden, weight, bias, value = drawn(window, (1, 4), device=device)
    values = torch.stack([value, 2 * value, -value])

    def loss(weight: Tensor, value: Tensor) -> Tensor:
        return generated_sum(hidden, weight, bias, value, window, backend=engine).square().sum()

    found = vmap(grad(loss, argnums=(0, 1)), in_dims=(None, 0))(weight, values)
    loops = [grad(loss, argnums=(0, 1))(weight, each) for each in values]
    for each, exact in zip(found, zip(*loops, strict=True), strict=True):
        assert_near(each, torch.stack(exact))
    sums = vmap(lambda x: generated_sum(hidden, weight, bias, x, window, backend=engine))(values)
    assert_near(sums[1], 2 * generated_sum(hidden, weight, bias, value, window, backend="shift"))


def test_fused_compiles_in_one_graph(engine: str, device: str, assert_near: Near) -> None:
    window = Window((1, 3), stride=2)
    inputs = [each.requires_grad_() for each in drawn(window, (3, 5), device=device)]
    y = torch.compile(generated_sum, fullgraph=True, backend="aot_eager")(*inputs, window, backend=engine)
    expected = generated_sum(*inputs, window, backend="shift")
    assert_near(y, expected)
    found, exact = (torch.autograd.grad(each.square().sum(), inputs) for each in (y, expected))
    for each, one in zip(found, exact, strict=True):
        assert_near(each, one)
    torch.compiler.reset()


def test_operators_pass_the_checks_of_torch(engine: str, device: str) -> None:
    hidden, weight, bias, value = drawn(Window((1, 3)), (2, 3), device=device, dtype=torch.float32)
    inputs, numbers = (hidden, weight, bias, value[:, :, None]), [1, 3, 1, 1, 1, 1, 0, 1, 2, 3]
    torch.library.opcheck(torch.ops.dynops.generated_sum, (*inputs, numbers, engine))
    slope = torch.randn_like(inputs[3])
    torch.library.opcheck(torch.ops.dynops.generated_gradients, (*inputs, slope, numbers, engine))


def test_no_images_have_no_sum_and_gradients_of_zero(engine: str, device: str) -> None:
    inputs = drawn(Window(3), b=0, device=device)
    y, _, weight, bias, _ = results(inputs, Window(3), engine)
    assert y.shape == (0, 2, 3, 5, 6)
    assert not weight.any()
    assert not bias.any()


def test_axes_that_do_not_fit_are_named() -> None:
    hidden, weight, bias, value = drawn(Window(3))
    with pytest.raises(ShapeError, match=r"^weight has k=8"):
        generated_sum(hidden, weight[:, 1:], bias, value, Window(3))
    with pytest.raises(ShapeError, match=r"^hidden has h=4"):
        generated_sum(hidden[:, :, 1:], weight, bias, value, Window(3))


def test_a_backend_that_takes_no_such_sum_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = drawn(Window(3))
    with pytest.raises(SpecError, match=r"^backend has 'cuda': must be one of 'native', 'triton',"):
        generated_sum(*inputs, Window(3), backend="cuda")
    monkeypatch.setattr(on_cuda, "INTERPRETED", False)
    message = r"^backend has 'triton': it takes no such sum, as the value is on cpu\. Leave the choice to dynops\.$"
    with pytest.raises(SpecError, match=message):
        generated_sum(*inputs, Window(3), backend="triton")


@pytest.mark.parametrize(
    "window",
    [Window((5, 3)), Window((3, 1), stride=(3, 1)), Window((4, 2), padding="same", stride=(2, 1), dilation=(3, 1))],
    ids=["overlapping", "apart", "strided and dilated"],
)
def test_bands_of_rows_and_threads_give_the_same(
    window: Window, monkeypatch: pytest.MonkeyPatch, assert_near: Near
) -> None:
    inputs, threads = drawn(window, (23, 5), r=17, dtype=torch.float32), torch.get_num_threads()
    whole = results(inputs, window, "native")
    monkeypatch.setattr(fused_native, "CACHED", 1)
    try:
        made = []
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            made.append(results(inputs, window, "native"))
    finally:
        torch.set_num_threads(threads)
    for found, exact in zip(made[0], whole, strict=True):
        assert_near(found, exact.double())
    for each in made[1:]:
        assert all(torch.equal(*pair) for pair in zip(each, made[0], strict=True))


def test_a_nan_spoils_only_the_windows_that_see_it() -> None:
    hidden, weight, bias, value = drawn(Window(3), (6, 20), b=1, dtype=torch.float32)
    hidden[0, 1, 2, 3] = value[0, 1, 0, 5, 15] = float("nan")
    y = generated_sum(hidden, weight, bias, value, Window(3), backend="native")
    spoilt = torch.zeros(2, 3, 6, 20, dtype=torch.bool)
    spoilt[:, :, 2, 3] = True
    spoilt[1, 0, 4:, 14:17] = True
    assert torch.equal(y[0].isnan(), spoilt)


def test_on_a_cpu_large_kernels_of_few_channels_are_generated_where_they_are_needed() -> None:
    def engine(size: int, r: int, dtype: torch.dtype = torch.float32, backend: str | None = None) -> str | None:
        value = torch.zeros(1, 1, 1, 1, 1, dtype=dtype).expand(8, 4, 16, size, size)
        return generated_by(torch.zeros(1).expand(8, r, size, size), value, Window(7), backend)

    assert engine(56, 16) == "native"
    assert engine(28, 16) is None
    assert engine(28, 16, backend="native") == "native"
    assert engine(56, 64) is None
    assert engine(56, 16, torch.bfloat16) is None
    assert engine(56, 16, backend="shift") is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_gpu_equals_the_kernel_in_memory(case: str, dtype: torch.dtype, assert_near: Near) -> None:
    window, sizes = CASES[case]
    inputs = drawn(window, dtype=dtype, device="cuda", **sizes | {"size": (29, 37)})
    hidden, weight, bias, value = (each.double() for each in inputs)
    exact = results((hidden, weight, bias, value), window, "shift")
    for found, each in zip(results(inputs, window, "triton"), exact, strict=True):
        scale = each.abs().max().log2().ceil().exp2().item()  # a power of two, which rounds nothing
        assert_near(found / scale, each / scale)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_gpu_gives_the_same_bits_every_time_and_holds_no_kernel() -> None:
    window = Window(7)
    inputs = drawn(window, (56, 56), b=4, g=4, s=4, r=16, dtype=torch.bfloat16, device="cuda")
    first = results(inputs, window, "triton")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    again = results(inputs, window, "triton")
    assert torch.cuda.max_memory_allocated() - before < 4 * 4 * 49 * 56 * 56 * 2
    assert all(torch.equal(*each) for each in zip(first, again, strict=True))
