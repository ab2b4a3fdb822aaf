"""Sums in C: what is refused and why, the compiler and its cache, and torch's own checks of the operators."""

import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dynops.errors import SpecError
from dynops.ops import BACKENDS, Block, Window, compiler, explain, local_sum, native, on_cuda, use_backend

Draw = Callable[..., tuple[Tensor, Tensor]]
Near = Callable[[Tensor, Tensor], None]
SMALL = """
import torch
from dynops.ops import Window, local_sum
kernel, value = torch.ones(1, 1, 1, 1, 9, 4, 5), torch.ones(1, 1, 1, 2, 4, 5)
print(local_sum(kernel, value, Window(3), backend="native").sum().item())
"""


@pytest.fixture
def no_library_yet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(on_cuda, "INTERPRETED", False)
    native._failure.cache_clear()
    native.library.cache_clear()
    yield
    native._failure.cache_clear()
    native.library.cache_clear()


def test_each_backend_says_whether_it_takes_a_sum(draw: Draw) -> None:
    assert list(BACKENDS) == ["native", "triton", "convolution", "products", "shift", "reference"]
    assert explain(*draw(Window(3)), Window(3)).splitlines() == [
        "native       takes it",
        f"triton       {'slower' if on_cuda.INTERPRETED else 'the value is on cpu'}",
        "convolution  the kernel differs from pixel to pixel",
        "products     each pixel has a window of its own",
        "shift        slower",
        "reference    slower",
    ]
    assert explain(*draw(Window(3)), Window(3), backend="shift").splitlines()[0] == "native       not asked for"


@pytest.mark.parametrize(
    ("window", "ones", "change", "chosen", "reason"),
    [
        (Window(3), "hw", lambda x: x, "convolution", "the kernel is constant along taps, rows or columns"),
        (Window(3), "w", lambda x: x, "shift", "the kernel is constant along taps, rows or columns"),
        (Window(3), "k", lambda x: x, "shift", "the kernel is constant along taps, rows or columns"),
        (Window(3), "", lambda x: x.to("meta"), "shift", "the value is on meta"),
        (Window(3), "", lambda x: x.to(torch.complex64), "shift", "the sum has dtype torch.complex64"),
        (
            Window(3, border="shift"),
            "",
            lambda x: x,
            "shift",
            "the window is no sliding one in one or two dimensions",
        ),
    ],
)
def test_what_is_refused_has_its_reason(
    window: Window, ones: str, change: Callable[[Tensor], Tensor], chosen: str, reason: str, draw: Draw
) -> None:
    kernel, value = map(change, draw(window, ones=ones))
    lines = explain(kernel, value, window).splitlines()
    assert lines[0] == f"native       {reason}"
    assert f"{chosen:12} takes it" in lines
    with pytest.raises(SpecError, match=f"^backend has 'native': it takes no such sum, as {reason}\\."):
        local_sum(kernel, value, window, backend="native")


def test_windows_in_common_are_products() -> None:
    kernel, value = torch.zeros(1, 1, 1, 1, 4, 4, 4), torch.zeros(1, 1, 1, 1, 4, 4)
    assert "products     takes it" in explain(kernel, value, Block(2))


# torch's forward mode loads what torch itself has deprecated
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_taps_with_offsets_and_forward_derivatives_are_left_to_torch(draw: Draw) -> None:
    kernel, value = draw(Window(3))
    offsets = torch.zeros(2, 1, 2, 9, 6, 7, dtype=torch.float64)
    assert "native       the taps have offsets" in explain(kernel, value, Window(3), offsets=offsets)
    _, slope = torch.func.jvp(lambda k: local_sum(k, value, Window(3)), (kernel,), (kernel,))
    torch.testing.assert_close(slope, local_sum(kernel, value, Window(3)))


def test_a_backend_is_forced_for_a_while(draw: Draw) -> None:
    kernel, value = draw(Window(3))
    with use_backend("reference"):
        assert "reference    takes it" in explain(kernel, value, Window(3))
        with use_backend("shift"):
            assert "shift        takes it" in explain(kernel, value, Window(3))
        with (
            pytest.raises(SpecError, match=r"^backend has 'convolution': it takes no such sum, as"),
            use_backend("convolution"),
        ):
            local_sum(kernel, value, Window(3))
        assert "reference    takes it" in explain(kernel, value, Window(3))
    assert "native       takes it" in explain(kernel, value, Window(3))
    with pytest.raises(SpecError, match=r"^name has 'cuda': must be one of 'native'"), use_backend("cuda"):
        pass


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ones", ["", "b", "g"])
def test_operators_pass_the_checks_of_torch(ones: str, dtype: torch.dtype, draw: Draw) -> None:
    window = Window(3, stride=2)
    kernel, value = draw(window, o=2, i=2, ones=ones, dtype=dtype)
    numbers = [3, 3, 2, 2, 1, 1, 1, 1, 3, 4]
    slope = torch.randn(2, 2, 2, 2, 3, 4).to(dtype)
    operators = torch.ops.dynops
    torch.library.opcheck(operators.local_sum, (kernel, value, numbers, "native"))
    torch.library.opcheck(operators.value_gradient, (kernel, slope, [6, 7], numbers, "native"))
    torch.library.opcheck(operators.kernel_gradient, (slope, value, ["b" in ones, "g" in ones], numbers, "native"))


def test_any_number_of_threads_gives_the_same_bits(draw: Draw) -> None:
    window = Window(5, stride=(1, 2))
    kernel, value = draw(window, (40, 37), g=3, s=5, dtype=torch.float32)

    def bits(threads: int) -> list[Tensor]:
        torch.set_num_threads(threads)
        inputs = kernel.clone().requires_grad_(), value.clone().requires_grad_()
        y = local_sum(*inputs, window, backend="native")
        return [y, *torch.autograd.grad(y.square().sum(), inputs)]

    try:
        for found, one in zip(bits(3), bits(1), strict=True):
            assert torch.equal(found, one)
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_memory_around_the_tensors_is_neither_read_nor_written(
    dtype: torch.dtype, draw: Draw, assert_near: Near
) -> None:
    window = Window(5)
    kernel, value = draw(window, (3, 5), b=1, g=1, dtype=dtype)
    surrounded = []
    for each in (kernel, value):
        memory = torch.full((each.numel() + 200,), torch.nan, dtype=dtype)
        memory[100:-100] = each.flatten()
        surrounded.append(memory[100:-100].view(each.shape).requires_grad_())
    y = local_sum(*surrounded, window, backend="native")
    gradients = torch.autograd.grad(y.sum(), surrounded)
    exact = [each.double().requires_grad_() for each in (kernel, value)]
    expected = local_sum(*exact, window, backend="reference")
    assert_near(y, expected)
    for found, each in zip(gradients, torch.autograd.grad(expected.sum(), exact), strict=True):
        assert_near(found, each)


def test_a_library_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNOPS_CACHE", str(tmp_path / "cache"))
    compiler.load(native.SOURCES)
    (path,) = (tmp_path / "cache").iterdir()
    made = path.stat().st_mtime_ns
    compiler.load(native.SOURCES)
    assert [each.stat().st_mtime_ns for each in (tmp_path / "cache").iterdir()] == [made]
    compiler.load(native.SOURCES, "FLOAT64")
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_processes_that_begin_at_once_share_a_library(tmp_path: Path) -> None:
    environment = os.environ | {"DYNOPS_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", SMALL]
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert {process.communicate(timeout=120)[0] for process in running} == {"260.0\n"}
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.usefixtures("no_library_yet")
@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("no-such-compiler", "CC has no-such-compiler: there is no C compiler. Install cc, gcc or clang."),
        ("false", "false has failed on local_sum.c"),
    ],
)
def test_without_a_compiler_torch_sums_and_says_so_once(
    command: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draw: Draw
) -> None:
    monkeypatch.setenv("CC", command)
    monkeypatch.setenv("DYNOPS_CACHE", str(tmp_path))
    kernel, value = draw(Window(3))
    with pytest.warns(UserWarning, match="run in torch, several times slower") as said:
        y = local_sum(kernel, value, Window(3))
    assert reason in str(said[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        local_sum(kernel, value, Window(3))
        assert "shift        takes it" in explain(kernel, value, Window(3))
    torch.testing.assert_close(y, local_sum(kernel, value, Window(3), backend="reference"))


def test_no_channels_have_a_sum_of_none_and_gradients_of_zero() -> None:
    kernel = torch.randn(1, 1, 1, 1, 9, 4, 5, requires_grad=True)
    value = torch.randn(1, 1, 1, 0, 4, 5, requires_grad=True)
    y = local_sum(kernel, value, Window(3), backend="native")
    assert y.shape == (1, 1, 1, 0, 4, 5)
    to_kernel, to_value = torch.autograd.grad(y.sum(), (kernel, value))
    assert to_kernel.eq(0).all()
    assert to_value.shape == value.shape


@pytest.mark.parametrize(
    ("images", "sharing", "backend"), [(1, 4, "convolution"), (2, 1, "convolution"), (2, 4, "native")]
)
def test_an_output_of_one_pixel_is_a_convolution_unless_channels_share_kernels_of_images(
    images: int, sharing: int, backend: str
) -> None:
    kernel, value = torch.randn(images, 1, 3, 3, 9, 1, 1), torch.randn(2, 1, 3, sharing, 1, 1)
    said = explain(kernel, value, Window(3))
    assert f"{backend:12} takes it" in said
    assert ("an output of one pixel is a convolution's" in said) == (backend == "convolution")
