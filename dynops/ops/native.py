"""Sums in C on the CPU, where no window is ever gathered, forward or backward.

Three operators of torch, each linear in both of its inputs, are each other's derivatives, so that derivatives of every
order are sums in C as well.
"""

import ctypes
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dynops.ops.call import Call
from dynops.ops.compiler import CompilerError, load
from dynops.ops.taps import grid_of, pad
from dynops.ops.window import Window

SOURCE = Path(__file__).with_name("local_sum.c")
MACROS: dict[torch.dtype, tuple[str, ...]] = {
    torch.float32: (),
    torch.float64: ("FLOAT64",),
    torch.bfloat16: ("BFLOAT16",),
}
Numbers = list[int]
"""Taps, strides, dilations, how far before the grid the first window begins, and the output's grid; each for rows and
columns."""


def refusal(call: Call) -> str:
    """Say why a sum is not taken in C; nothing where it is."""
    window, dtype = call.window, _dtype(call)
    if call.value.device.type != "cpu":
        return f"the value is on {call.value.device.type}"
    if not isinstance(window, Window) or not window.fixed or window.dims > 2:
        return "the window is no sliding one in one or two dimensions"
    if call.offsets is not None:
        return "the taps have offsets"
    if call.kernel.shape[4:] != (window.taps, *window.output_size(grid_of(call.value, window))):
        return "the kernel is constant along taps, rows or columns"
    if dtype is None:
        return f"the sum has dtype {torch.promote_types(call.kernel.dtype, call.value.dtype)}"
    if torch.compiler.is_exporting():
        return "a program that is exported runs elsewhere"
    if torch.autograd.forward_ad._current_level >= 0:
        return "derivatives are taken in forward mode"
    return unavailable(dtype)


def run(call: Call) -> Tensor:
    """Take a sum that is not refused."""
    window, value = call.window, call.value
    assert isinstance(window, Window), "others are refused"
    if call.kernel.shape[3] < value.shape[2]:
        value = value.sum(2, keepdim=True)  # what has one weight may be added first
    before = [margin for margin, _ in window.margins(grid_of(value, window))]
    if not window.bounded:
        value, before = pad(value, window), [0] * window.dims
    kernel, value = call.kernel.to(_dtype(call)), value.to(_dtype(call))
    numbers = [window.sizes, window.strides, window.dilations, before, kernel.shape[5:]]
    if window.dims == 1:  # a sequence is an image of one row
        numbers = [(one, *each) for one, each in zip((1, 1, 1, 0, 1), numbers, strict=True)]
        kernel, value = kernel.unsqueeze(-2), value.unsqueeze(-2)
    y = LocalSum.apply(kernel, value, [number for each in numbers for number in each])
    return (y.squeeze(-2) if window.dims == 1 else y).to(call.value.dtype)


def _dtype(call: Call) -> torch.dtype | None:
    """The dtype of kernel and value in C, bfloat16 only where both have it; None where there is none."""
    dtype = torch.promote_types(call.kernel.dtype, call.value.dtype)
    return torch.float32 if dtype == torch.float16 else dtype if dtype in MACROS else None


@torch.compiler.assume_constant_result
def unavailable(dtype: torch.dtype) -> str:
    """Say why there is no library for a dtype; nothing where there is one. It is compiled the first time."""
    return _failure(dtype)


@cache
def _failure(dtype: torch.dtype) -> str:
    try:
        _library(dtype)
    except CompilerError as error:
        warnings.warn(f"{error} Until then local sums on the CPU run in torch, several times slower.", stacklevel=2)
        return str(error)
    return ""


@cache
def _library(dtype: torch.dtype) -> ctypes.CDLL:
    return load(SOURCE, *MACROS[dtype])


@torch.library.custom_op("dynops::local_sum", mutates_args=())
def local_sum(kernel: Tensor, value: Tensor, numbers: Numbers) -> Tensor:
    """Sum kernel[b,g,o,i,k,p] * value[b,g,i,s,at(p,k)] over i and k.

    Args:
        kernel: `b g o i k h w` on the output's grid; b and g may be 1, and are shared.
        value: `b g i s h w`, continued by zeros.
        numbers: see `Numbers`.
    """
    y = _empty_as(value, kernel.shape[2], numbers[8:])
    kernel = _laid_out(kernel)
    _run("local_sum", [kernel, value, y], kernel, value, numbers, [_steps(value), _steps(y)])
    return y


@torch.library.custom_op("dynops::value_gradient", mutates_args=())
def value_gradient(kernel: Tensor, slope: Tensor, size: list[int], numbers: Numbers) -> Tensor:
    """Return the gradient of the value, `b g i s h w` of that size, from that of the sum, `b g o s h w`."""
    made = _empty_as(slope, kernel.shape[3], size)
    kernel = _laid_out(kernel)
    _run("value_gradient", [kernel, slope, made], kernel, made, numbers, [_steps(slope), _steps(made)])
    return made


@torch.library.custom_op("dynops::kernel_gradient", mutates_args=())
def kernel_gradient(slope: Tensor, value: Tensor, shared: list[bool], numbers: Numbers) -> Tensor:
    """Return the gradient of the kernel, `b g o i k h w`, summed over b and over g where they share it."""
    made = _empty_kernel(slope, value, shared, numbers)
    _run("kernel_gradient", [slope, value, made], made, value, numbers, [_steps(slope), _steps(value)])
    return made.to(value.dtype)


@local_sum.register_fake
def _(kernel: Tensor, value: Tensor, numbers: Numbers) -> Tensor:
    return _empty_as(value, kernel.shape[2], numbers[8:])


@value_gradient.register_fake
def _(kernel: Tensor, slope: Tensor, size: list[int], numbers: Numbers) -> Tensor:
    return _empty_as(slope, kernel.shape[3], size)


@kernel_gradient.register_fake
def _(slope: Tensor, value: Tensor, shared: list[bool], numbers: Numbers) -> Tensor:
    return _empty_kernel(slope, value, shared, numbers).to(value.dtype)


def _shared(kernel: Tensor, value: Tensor) -> list[bool]:
    """Whether the images share a kernel, and whether the groups do."""
    return [kernel.shape[axis] < value.shape[axis] for axis in (0, 1)]


class LocalSum(torch.autograd.Function):
    """`local_sum` with its derivatives, for autograd and `torch.func` alike."""

    @staticmethod
    def forward(kernel: Tensor, value: Tensor, numbers: Numbers) -> Tensor:
        return local_sum(kernel, value, numbers)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.numbers = inputs[2]

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        kernel, value = ctx.saved_tensors
        own = seen = None
        if ctx.needs_input_grad[0]:
            own = KernelGradient.apply(slope, value, _shared(kernel, value), ctx.numbers)
        if ctx.needs_input_grad[1]:
            seen = ValueGradient.apply(kernel, slope, list(value.shape[4:]), ctx.numbers)
        return own, seen, None

    @staticmethod
    def vmap(info: Any, axes: tuple[Any, ...], kernel: Tensor, value: Tensor, numbers: Numbers) -> tuple[Tensor, int]:
        kernel, value = _mapped(info.batch_size, axes, kernel, value)
        return LocalSum.apply(kernel, value, numbers).unflatten(0, (info.batch_size, -1)), 0


class ValueGradient(torch.autograd.Function):
    """`value_gradient` with its derivatives."""

    @staticmethod
    def forward(kernel: Tensor, slope: Tensor, size: list[int], numbers: Numbers) -> Tensor:
        return value_gradient(kernel, slope, size, numbers)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.numbers = inputs[3]

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        kernel, slope = ctx.saved_tensors
        own = seen = None
        if ctx.needs_input_grad[0]:
            own = KernelGradient.apply(slope, above, _shared(kernel, slope), ctx.numbers)
        if ctx.needs_input_grad[1]:
            seen = LocalSum.apply(kernel, above, ctx.numbers)
        return own, seen, None, None

    @staticmethod
    def vmap(
        info: Any, axes: tuple[Any, ...], kernel: Tensor, slope: Tensor, size: list[int], numbers: Numbers
    ) -> tuple[Tensor, int]:
        kernel, slope = _mapped(info.batch_size, axes, kernel, slope)
        return ValueGradient.apply(kernel, slope, size, numbers).unflatten(0, (info.batch_size, -1)), 0


class KernelGradient(torch.autograd.Function):
    """`kernel_gradient` with its derivatives."""

    @staticmethod
    def forward(slope: Tensor, value: Tensor, shared: list[bool], numbers: Numbers) -> Tensor:
        return kernel_gradient(slope, value, shared, numbers)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.numbers = inputs[3]

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        slope, value = ctx.saved_tensors
        own = seen = None
        if ctx.needs_input_grad[0]:
            own = LocalSum.apply(above, value, ctx.numbers)
        if ctx.needs_input_grad[1]:
            seen = ValueGradient.apply(above, slope, list(value.shape[4:]), ctx.numbers)
        return own, seen, None, None

    @staticmethod
    def vmap(
        info: Any, axes: tuple[Any, ...], slope: Tensor, value: Tensor, shared: list[bool], numbers: Numbers
    ) -> tuple[Tensor, int]:
        slope, value = (_folded(x, axis, info.batch_size) for x, axis in zip((slope, value), axes, strict=False))
        made = KernelGradient.apply(slope, value, [False, shared[1]], numbers).unflatten(0, (info.batch_size, -1))
        return made.sum(1, keepdim=True) if shared[0] else made, 0


def _mapped(number: int, axes: tuple[Any, ...], kernel: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    """Fold an axis that is mapped over into the images; a kernel that all share stays one."""
    features = _folded(features, axes[1], number)
    if axes[0] is None and kernel.shape[0] == 1:
        return kernel, features
    kernel = kernel.expand(number, *kernel.shape) if axes[0] is None else kernel.movedim(axes[0], 0)
    return kernel.expand(-1, features.shape[0] // number, *(-1,) * 6).flatten(0, 1), features


def _folded(x: Tensor, axis: int | None, number: int) -> Tensor:
    """Put an axis that is mapped over in front of the images: as many images for each."""
    x = x.expand(number, *x.shape) if axis is None else x.movedim(axis, 0)
    return x.flatten(0, 1)


def _laid_out(kernel: Tensor) -> Tensor:
    """A kernel whose rows lie one behind the other."""
    rows, columns = kernel.stride()[5:]
    return kernel if columns == 1 and rows == kernel.shape[6] else kernel.contiguous()


def _empty_as(like: Tensor, channels: int, grid: list[int]) -> Tensor:
    """Memory for features `b g c s h w` whose channels lie in the order of those of others."""
    sizes = [*like.shape[:2], channels, like.shape[3], *grid]
    order = [0, *sorted((1, 2, 3), key=like.stride, reverse=True), 4, 5]
    made = like.new_empty([sizes[axis] for axis in order])
    return made.permute([order.index(axis) for axis in range(6)])


def _empty_kernel(slope: Tensor, value: Tensor, shared: list[bool], numbers: Numbers) -> Tensor:
    """Memory for a kernel's gradient, in the dtype that is summed in."""
    b, g = (1 if one else size for one, size in zip(shared, slope.shape, strict=False))
    sizes = [b, g, slope.shape[2], value.shape[2], numbers[0] * numbers[1], *numbers[8:]]
    return slope.new_empty(sizes, dtype=torch.promote_types(slope.dtype, torch.float32))


def _steps(features: Tensor) -> list[int]:
    return list(features.stride())


def _run(
    name: str, tensors: list[Tensor], kernel: Tensor, value: Tensor, numbers: Numbers, steps: list[list[int]]
) -> None:
    """Call C; the structs of its source are arrays of 64-bit integers."""
    b, g, i, s, h, w = value.shape
    sizes = [b, g, kernel.shape[2], i, s, h, w, *numbers[8:], *numbers[:8], torch.get_num_threads()]
    apart = [stride if size > 1 else 0 for size, stride in zip(kernel.shape[:2], kernel.stride(), strict=False)]
    end = 1 + sum((size - 1) * stride for size, stride in zip(kernel.shape, kernel.stride(), strict=True))
    strides = [*apart, *kernel.stride()[2:5], end]
    pointers = [ctypes.c_void_p(each.data_ptr()) for each in tensors]
    arrays = [(ctypes.c_int64 * len(each))(*each) for each in (sizes, strides, *steps)]
    if getattr(_library(value.dtype), name)(*pointers, *arrays):
        raise MemoryError(f"dynops::{name} has no memory for the pixels of its bands.")
