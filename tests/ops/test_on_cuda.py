"""Sums in Triton: what is refused and why, torch's own checks, and what only a compiler or a GPU can show."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck, gradgradcheck

from dynops.ops import Window, explain, local_sum, on_cuda

Draw = Callable[..., tuple[Tensor, Tensor]]
Near = Callable[[Tensor, Tensor], None]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
COMPILE = """
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from dynops.ops import triton_attended, triton_generated, triton_sums

POINTERS = "hidden weight bias kernel slope value made query key asked positions logsumexp delta".split()
POINTERS += "made_query made_asked made_key made_value".split()


def compiled(kernel, stored, number, **constants):
    names = kernel.arg_names
    constants = {name: value for name, value in constants.items() if name in names}
    pointers = {name for name in names if name in POINTERS}
    if number == "1":  # sizes and strides of 1 are constants
        constants |= dict.fromkeys(set(names) - pointers - set(constants), 1)
    kinds = {name: "constexpr" if name in constants else number for name in names}
    kinds |= {name: f"*{stored}" for name in pointers}
    source = ASTSource(kernel, kinds, {(names.index(name),): value for name, value in constants.items()}, {})
    return triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ttgir"]


kernels = (triton_sums.sum_taps, triton_sums.sum_channels)
kernels += (triton_generated.generate_and_sum, triton_generated.hidden_gradient, triton_generated.weight_gradient)
kernels += (triton_attended.attend, triton_attended.query_gradient, triton_attended.key_gradient)
kernels += (triton_attended.positions_gradient,)
kinds = [("fp32", "i32", False, True), ("bf16", "1", True, False), ("fp64", "i64", False, False)]
kinds += [("fp16", "i32", True, True)]
for kind in kinds:
    stored, number, last, one = kind
    shape = dict(kh=3, kw=2, stride_h=1 if one else 2, stride_w=1, dilation_h=1, dilation_w=2, seen=not one, once=one)
    shape |= dict(tap_rows=3, whole=one, last=last, wide=number == "i64", channels=16, width=32)
    shape |= dict(d_tile=8, e_tile=1, keyed=stored != "fp64", placed=stored != "bf16", masked=one)
    shape |= dict(pixels=64 if last else 128, dtype=tl.float64 if stored == "fp64" else tl.float32)
    for kernel in kernels:
        code = compiled(kernel, stored, number, **shape)
        # a thread that holds all channels of a pixel hands nothing to others, but for a sum over pixels
        sums_pixels = (triton_generated.weight_gradient, triton_attended.positions_gradient)
        assert last or kernel in sums_pixels or "convert_layout" not in code, kernel
print("compiled")
"""
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


@pytest.fixture
def device() -> str:
    return "cpu" if on_cuda.INTERPRETED else "cuda"


def line(kernel: Tensor, value: Tensor, window: Window) -> str:
    return explain(kernel, value, window).splitlines()[1].removeprefix("triton       ")


def test_what_is_refused_has_its_reason(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, value = draw(Window(3))
    with FakeTensorMode(allow_non_fake_inputs=True):
        there = [torch.empty(each.shape, device="cuda", dtype=each.dtype) for each in (kernel, value)]
        assert line(*there, Window(3)) == "takes it"
        number = torch.empty(2, 2, 1, 1, 9, 6, 7, device="cuda", dtype=torch.complex64)
        assert line(number, there[1], Window(3)) == "the sum has dtype torch.complex128"
        column = torch.empty(2, 2, 1, 1, 9, 6, 1, device="cuda")
        assert line(column, there[1], Window(3)) == "the kernel is constant along taps, rows or columns"
        monkeypatch.setattr(on_cuda, "INSTALLED", False)
        assert line(*there, Window(3)) == "triton is not installed"
    monkeypatch.setattr(on_cuda, "INTERPRETED", False)
    assert line(kernel, value, Window(3)) == "the value is on cpu"
    assert line(kernel.to("meta"), value.to("meta"), Window(3)) == "the value is on meta"


@pytest.mark.parametrize(("dtype", "ones"), [(torch.float64, ""), (torch.bfloat16, "b"), (torch.float16, "g")])
def test_operators_pass_the_checks_of_torch(ones: str, dtype: torch.dtype, draw: Draw, device: str) -> None:
    window = Window(2, stride=2, padding="same")
    kernel, value = (each.to(device) for each in draw(window, (3, 4), o=2, i=2, ones=ones, dtype=dtype))
    value = channels_last(value)
    numbers = [2, 2, 2, 2, 1, 1, 0, 0, 2, 2]
    slope = torch.randn(2, 2, 2, 2, 2, 2, device=device).to(dtype)
    operators = torch.ops.dynops
    torch.library.opcheck(operators.local_sum, (kernel, value, numbers, "triton"))
    torch.library.opcheck(operators.value_gradient, (kernel, slope, [3, 4], numbers, "triton"))
    torch.library.opcheck(operators.kernel_gradient, (slope, value, ["b" in ones, "g" in ones], numbers, "triton"))


def results(kernel: Tensor, value: Tensor, window: Window, backend: str = "triton") -> list[Tensor]:
    """The sum and both gradients of its squares."""
    inputs = [each.detach().requires_grad_() for each in (kernel, value)]
    y = local_sum(*inputs, window, backend=backend)
    return [y.detach(), *torch.autograd.grad(y.square().sum() / 2, inputs)]


def channels_last(value: Tensor) -> Tensor:
    return value.permute(0, 4, 5, 1, 2, 3).contiguous().permute(0, 3, 4, 5, 1, 2)


@pytest.mark.parametrize("ones", ["", "bg"])
@pytest.mark.parametrize("s", [3, 40])
def test_channels_beside_each_other_stay_there(s: int, ones: str, draw: Draw, assert_near: Near, device: str) -> None:
    window = Window((1, 3), stride=(1, 2))
    kernel, value = (each.to(device) for each in draw(window, (5, 11), s=s, ones=ones))
    found = results(kernel, channels_last(value), window)
    for each, exact in zip(found, results(kernel, value, window, "reference"), strict=True):
        assert_near(each, exact)
    for each in (found[0], found[2]):
        assert each[0, 0, 0, :, 0, 0].is_contiguous()


def test_offsets_of_64_bits_give_the_same(draw: Draw, monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    window = Window((2, 3), stride=(2, 1), padding="same")
    kernel, value = (each.to(device) for each in draw(window, (4, 5)))
    narrow = results(kernel, value, window)
    assert on_cuda.is_wide(torch.empty(2**16, 2**16, device="meta"))
    assert not on_cuda.is_wide(torch.empty(2**15, 2**16, device="meta"))
    monkeypatch.setattr(on_cuda, "is_wide", lambda *tensors: True)
    for wide, each in zip(results(kernel, value, window), narrow, strict=True):
        assert torch.equal(wide, each)


def test_pixels_fill_several_programs(draw: Draw, assert_near: Near, device: str) -> None:
    window = Window((1, 2), padding="same")
    kernel, value = (each.to(device) for each in draw(window, (13, 21), b=1, g=1, s=1))
    for found, exact in zip(results(kernel, value, window), results(kernel, value, window, "reference"), strict=True):
        assert_near(found, exact)


def test_a_kernel_that_all_images_share_has_the_gradient_zero_of_none(draw: Draw, device: str) -> None:
    kernel, value = (each.to(device) for each in draw(Window(1), b=0, ones="b"))
    assert results(kernel, value, Window(1))[1].eq(0).all()


@pytest.mark.skipif(not on_cuda.INSTALLED, reason="needs Triton")
def test_kernels_compile_for_a_gpu_that_is_not_there() -> None:
    environment = os.environ | {"TRITON_INTERPRET": "0"}
    run = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, env=environment, check=False)
    assert run.stdout == "compiled\n", run.stderr


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("turn", [lambda x: x, channels_last], ids=["rows", "channels"])
@pytest.mark.parametrize("ones", ["", "b", "g", "bg"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_gpu_equals_reference(
    dtype: torch.dtype, ones: str, turn: Callable[[Tensor], Tensor], draw: Draw, assert_near: Near
) -> None:
    for window, sizes in (
        (Window(7), {"s": 16}),
        (Window(3, stride=2), {"s": 40}),
        (Window(5, dilation=(2, 3), stride=(1, 3)), {"s": 3}),
        (Window(4, padding="same"), {"o": 2, "i": 3, "s": 4}),
        (Window((15, 1)), {"s": 1}),
    ):
        kernel, value = (each.cuda() for each in draw(window, (29, 37), ones=ones, dtype=dtype, **sizes))
        value = turn(value)
        inputs = [each.requires_grad_() for each in (kernel, value)]
        exact = [each.detach().double().requires_grad_() for each in (kernel, value)]
        y = local_sum(*inputs, window, backend="triton")
        expected = local_sum(*exact, window, backend="reference")
        assert_near(y, expected)
        slope = torch.randint(-16, 17, y.shape, device="cuda").to(dtype) / 8
        gradients = torch.autograd.grad(y, inputs, slope), torch.autograd.grad(expected, exact, slope.double())
        for found, each in zip(*gradients, strict=True):
            scale = each.abs().max().log2().ceil().exp2().item()  # a power of two, which rounds nothing
            assert_near(found / scale, each / scale)


@pytest.mark.gpu
@needs_gpu
def test_gpu_has_right_derivatives_of_both_orders(draw: Draw) -> None:
    window = Window(2, dilation=(1, 2), padding="same")
    inputs = [each.cuda().requires_grad_() for each in draw(window, (2, 3), o=2, i=2, s=1)]
    apply = partial(local_sum, window=window, backend="triton")
    assert gradcheck(apply, inputs)
    assert gradgradcheck(apply, inputs)


@pytest.mark.gpu
@needs_gpu
def test_gpu_gives_the_same_bits_every_time_and_in_a_captured_graph(draw: Draw) -> None:
    window = Window(7)
    for ones in ("", "b"):
        kernel, value = (each.cuda() for each in draw(window, (56, 56), s=16, ones=ones, dtype=torch.bfloat16))
        first = results(kernel, value, window)
        for _ in range(5):
            assert all(torch.equal(*each) for each in zip(first, results(kernel, value, window), strict=True))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = local_sum(kernel, value, window)
        captured.zero_()
        graph.replay()
        assert torch.equal(captured, first[0])


@pytest.mark.gpu
@needs_gpu
def test_gpu_compiles_in_one_graph(draw: Draw, assert_near: Near) -> None:
    window = Window(3, stride=2)
    kernel, value = (each.cuda() for each in draw(window, (15, 17), s=8, dtype=torch.float32))
    for turned in (value, channels_last(value)):
        inputs = [each.detach().requires_grad_() for each in (kernel, turned)]
        y = torch.compile(local_sum, fullgraph=True)(*inputs, window)
        found = [y, *torch.autograd.grad(y.square().sum() / 2, inputs)]
        for each, exact in zip(found, results(kernel.double(), turned.double(), window, "reference"), strict=True):
            assert_near(each, exact)


@pytest.mark.gpu
@needs_gpu
def test_gpu_never_holds_the_windows(draw: Draw) -> None:
    window = Window(7)
    kernel, value = (each.cuda() for each in draw(window, (56, 56), g=1, s=32, dtype=torch.float32))
    inputs = [each.requires_grad_() for each in (kernel, value)]
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    y = local_sum(*inputs, window)
    torch.autograd.grad(y, inputs, torch.ones_like(y))
    grown = torch.cuda.max_memory_allocated() - before
    assert grown < 1.2 * sum(each.nbytes for each in (kernel, value, value, value))
