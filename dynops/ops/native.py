"""Sums in C on the CPU, where no window is ever gathered, forward or backward."""

import ctypes
import warnings
from functools import cache
from pathlib import Path
from struct import pack

import torch
from torch import Tensor

from dynops.ops import sums
from dynops.ops.call import Call
from dynops.ops.compiler import CompilerError, load
from dynops.ops.geometry import Geometry
from dynops.ops.sums import Numbers, empty_as, empty_kernel

SOURCES = [Path(__file__).with_name(name) for name in ("local_sum.c", "fused_sums.c")]
MACROS: dict[torch.dtype, tuple[str, ...]] = {
    torch.float32: (),
    torch.float64: ("FLOAT64",),
    torch.bfloat16: ("BFLOAT16",),
}

FUSED = (torch.float32, torch.float64)
"""Dtypes of values whose weights can be made where they are needed: in others they would be rounded."""


def refusal(call: Call) -> str:
    """Say why a sum is not taken in C; nothing where it is."""
    return _elsewhere(call.value) or sums.refusal(call) or _unsummed(call.kernel, call.value)


def run(call: Call) -> Tensor:
    """Take a sum that is not refused."""
    return sums.run(call, _dtype(call.kernel, call.value), "native")


def refuses_scores(query: Tensor, key: Tensor, window: Geometry) -> str:
    """Say why products of queries and keys are not taken in C; nothing where they are."""
    return _elsewhere(key) or sums.refuses_window(window) or _unsummed(query, key)


def scores(query: Tensor, key: Tensor, window: Geometry) -> Tensor:
    """Take products that are not refused, as `sums.scores`."""
    return sums.scores(query, key, window, _dtype(query, key), "native")


def refuses_fused(value: Tensor, window: Geometry) -> str:
    """Say why weights are not made in C where they are needed; nothing where they are."""
    if reason := _elsewhere(value) or sums.refuses_window(window):
        return reason
    if value.dtype not in FUSED:
        return f"the value has dtype {value.dtype}"
    return unavailable(value.dtype)


def _elsewhere(value: Tensor) -> str:
    return "" if value.device.type == "cpu" else f"the value is on {value.device.type}"


def _unsummed(first: Tensor, second: Tensor) -> str:
    dtype = _dtype(first, second)
    if dtype is None:
        return f"the sum has dtype {torch.promote_types(first.dtype, second.dtype)}"
    return unavailable(dtype)


def _dtype(first: Tensor, second: Tensor) -> torch.dtype | None:
    """The dtype that both have in C, bfloat16 only where both have it; None where there is none."""
    dtype = torch.promote_types(first.dtype, second.dtype)
    return torch.float32 if dtype == torch.float16 else dtype if dtype in MACROS else None


def unavailable(dtype: torch.dtype) -> str:
    """Say why there is no library for a dtype; nothing where there is one. It is compiled the first time."""
    return _failure(dtype)


# what torch.compiler.assume_constant_result does, which would load torch's compiler with dynops
unavailable._dynamo_marked_constant = True  # type: ignore[attr-defined]  # the mark is torch's, not a field


@cache
def _failure(dtype: torch.dtype) -> str:
    try:
        library(dtype)
    except CompilerError as error:
        warnings.warn(f"{error} Until then local sums on the CPU run in torch, several times slower.", stacklevel=2)
        return str(error)
    return ""


@cache
def library(dtype: torch.dtype) -> ctypes.CDLL:
    """The compiled source for a dtype.

    Raises:
        CompilerError: as in `load`.
    """
    loaded = load(SOURCES, *MACROS[dtype])
    for name in ("local_sum", "value_gradient", "kernel_gradient"):
        getattr(loaded, name).argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_char_p] * 4
    return loaded


class Native:
    """The engine in C."""

    def local_sum(self, kernel: Tensor, value: Tensor, numbers: Numbers) -> Tensor:
        y = empty_as(value, kernel.shape[2], numbers[8:])
        kernel = _laid_out(kernel)
        _run("local_sum", [kernel, value, y], kernel, value, numbers, value, y)
        return y

    def value_gradient(self, kernel: Tensor, slope: Tensor, size: list[int], numbers: Numbers) -> Tensor:
        made = empty_as(slope, kernel.shape[3], size)
        kernel = _laid_out(kernel)
        _run("value_gradient", [kernel, slope, made], kernel, made, numbers, slope, made)
        return made

    def kernel_gradient(self, slope: Tensor, value: Tensor, shared: list[bool], numbers: Numbers) -> Tensor:
        made = empty_kernel(slope, value, shared, numbers)
        _run("kernel_gradient", [slope, value, made], made, value, numbers, slope, value)
        return made.to(value.dtype)


sums.ENGINES["native"] = Native()


def _laid_out(kernel: Tensor) -> Tensor:
    """A kernel whose rows lie one behind the other."""
    rows, columns = kernel.stride()[5:]
    return kernel if columns == 1 and rows == kernel.shape[6] else kernel.contiguous()


def _run(
    name: str, tensors: list[Tensor], kernel: Tensor, value: Tensor, numbers: Numbers, first: Tensor, second: Tensor
) -> None:
    """Call C; the structs of its source are rows of 64-bit integers."""
    b, g, i, s, h, w = value.shape
    sizes = (b, g, kernel.shape[2], i, s, h, w, *numbers[8:], *numbers[:8], torch.get_num_threads())
    strides = kernel.stride()
    apart = [stride if size > 1 else 0 for size, stride in zip(kernel.shape[:2], strides, strict=False)]
    end = 1 + sum((size - 1) * stride for size, stride in zip(kernel.shape, strides, strict=True))
    structs = (sizes, (*apart, *strides[2:5], end), first.stride(), second.stride())
    packed = [pack(f"{len(each)}q", *each) for each in structs]
    if getattr(library(value.dtype), name)(*(each.data_ptr() for each in tensors), *packed):
        raise MemoryError(f"dynops::{name} has no memory for the pixels of its bands.")
