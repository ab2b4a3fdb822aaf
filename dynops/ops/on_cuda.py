"""Sums in Triton on an NVIDIA GPU, where no window is ever gathered, forward or backward."""

import os
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from math import prod
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from dynops.ops import sums
from dynops.ops.call import Call
from dynops.ops.geometry import Geometry
from dynops.ops.sums import Numbers, empty_as

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
INSTALLED = find_spec("triton") is not None
INTERPRETED = INSTALLED and os.environ.get("TRITON_INTERPRET") == "1"
"""Whether Triton's own interpreter runs the kernels, on the CPU and slowly; Triton reads this once, as we do."""
WARP = 32
MOST_CHANNELS = 32
"""Channels of a program, which a thread holds in registers."""


def refusal(call: Call) -> str:
    """Say why a sum is not taken in Triton; nothing where it is."""
    if reason := unavailable(call.value) or sums.refusal(call):
        return reason
    return "" if _dtype(call) in DTYPES else f"the sum has dtype {_dtype(call)}"


def unavailable(value: Tensor) -> str:
    """Say why Triton takes no features that lie where these do; nothing where it does."""
    device = value.device.type
    if device != "cuda" and not (INTERPRETED and device == "cpu"):
        return f"the value is on {device}"
    return "" if INSTALLED else "triton is not installed"


def run(call: Call) -> Tensor:
    """Take a sum that is not refused."""
    return sums.run(call, _dtype(call), "triton")


def refuses_scores(query: Tensor, key: Tensor, window: Geometry) -> str:
    """Say why products of queries and keys are not taken in Triton; nothing where they are."""
    if reason := unavailable(key) or sums.refuses_window(window):
        return reason
    dtype = torch.promote_types(query.dtype, key.dtype)
    return "" if dtype in DTYPES else f"the sum has dtype {dtype}"


def scores(query: Tensor, key: Tensor, window: Geometry) -> Tensor:
    """Take products that are not refused, as `sums.scores`."""
    return sums.scores(query, key, window, torch.promote_types(query.dtype, key.dtype), "triton")


def _dtype(call: Call) -> torch.dtype:
    return torch.promote_types(call.kernel.dtype, call.value.dtype)


@cache
def kernels(name: str = "sums") -> ModuleType:
    """Return a module of kernels; Triton is imported with the first sum, and not with dynops."""
    return import_module(f"dynops.ops.triton_{name}")


class Triton:
    """The engine in Triton."""

    def local_sum(self, kernel: Tensor, value: Tensor, numbers: Numbers) -> Tensor:
        made = empty_as(value, kernel.shape[2], numbers[8:], "triton")
        _sum_taps(kernel, value, made, numbers, seen=False)
        return made

    def value_gradient(self, kernel: Tensor, slope: Tensor, size: list[int], numbers: Numbers) -> Tensor:
        made = empty_as(slope, kernel.shape[3], size, "triton")
        # what was summed over is kept, and what was kept is summed over
        _sum_taps(kernel.transpose(2, 3), slope, made, numbers, seen=True)
        return made

    def kernel_gradient(self, slope: Tensor, value: Tensor, shared: list[bool], numbers: Numbers) -> Tensor:
        b, g = (1 if one else size for one, size in zip(shared, slope.shape, strict=False))
        sizes = (b, g, slope.shape[2], value.shape[2], numbers[0] * numbers[1], *numbers[8:])
        made = slope.new_empty(sizes)
        _sum_channels(slope, value, made, numbers)
        return made


sums.ENGINES["triton"] = Triton()


def _sum_taps(kernel: Tensor, value: Tensor, made: Tensor, numbers: Numbers, *, seen: bool) -> None:
    """Launch `sum_taps`, for a kernel `b g kept summed k h w`."""
    if made.numel() == 0:
        return
    b, g, kept, s, rows, columns = made.shape
    tile = tile_of(value, rows * columns)
    blocks = -(-s // tile["channels"]), -(-rows * columns // tile["pixels"])
    sizes = (g, kept, value.shape[2], s, *value.shape[4:], rows, columns, *numbers[6:8], *blocks)
    own = [stride if size > 1 else 0 for size, stride in zip(kernel.shape[:2], kernel.stride(), strict=False)]
    steps = (*own, *kernel.stride()[2:], *value.stride(), *made.stride())
    wide = is_wide(kernel[0, 0, 0, 0, 0], value[0, 0, 0], made[0, 0, 0])
    with torch.cuda.device_of(value):
        launch = kernels().sum_taps[(b * g * kept * prod(blocks),)]
        launch(kernel, value, made, *sizes, *steps, *numbers[:6], seen=seen, wide=wide, **tile)


def _sum_channels(slope: Tensor, value: Tensor, made: Tensor, numbers: Numbers) -> None:
    """Launch `sum_channels`, for a gradient `b g o i k h w`, b and g of size 1 where they are shared."""
    if made.numel() == 0:
        return
    b, g, o, i = made.shape[:4]
    s, rows, columns = slope.shape[3:]
    summed_over = slope.shape[0] // b, slope.shape[1] // g
    tile = tile_of(value, rows * columns)
    blocks = -(-s // tile["channels"]), -(-rows * columns // tile["pixels"])
    once = summed_over == (1, 1) and blocks[0] == 1
    tap_rows = numbers[0] if once else 1  # what has more to sum over has fewer numbers to make: more programs
    sizes = (*summed_over, g, o, i, s, *value.shape[4:], rows, columns, *numbers[6:8], *blocks)
    steps = (*slope.stride(), *value.stride(), *made.stride()[:5])
    wide = is_wide(slope[:1, :1, 0], value[:1, :1, 0], made[0, 0, 0, 0, 0])
    tap_blocks = -(-numbers[0] // tap_rows)
    with torch.cuda.device_of(value):
        launch = kernels().sum_channels[(b * g * o * i * tap_blocks * blocks[1],)]
        launch(slope, value, made, *sizes, *steps, *numbers[:6], once=once, tap_rows=tap_rows, wide=wide, **tile)


def tile_of(value: Tensor, pixels: int) -> dict[str, Any]:
    """How many channels and pixels a program holds, how they lie, and what it sums in."""
    s = value.shape[3]
    last = value.stride(3) == 1 and s > 1
    channels = min(1 << (s - 1).bit_length(), MOST_CHANNELS)
    fit = max(1 << (pixels - 1).bit_length(), WARP)
    language = kernels().tl
    dtype = language.float64 if value.dtype == torch.float64 else language.float32
    tile = {"channels": channels, "whole": s % channels == 0, "last": last, "dtype": dtype}
    if last:  # weights of fewer pixels than threads are read by all that need them, not handed around
        return tile | {"pixels": min(1024 // channels, fit), "num_warps": 4}
    pixels = min(fit, 4 * WARP)  # one for each thread, so that sums over channels stay inside it
    return tile | {"pixels": pixels, "num_warps": pixels // WARP}


def is_wide(*tensors: Tensor) -> bool:
    """Whether an offset in one of these tensors needs more than 31 bits."""
    return any(
        sum((size - 1) * stride for size, stride in zip(each.shape, each.stride(), strict=True)) >= 2**31
        for each in tensors
    )
