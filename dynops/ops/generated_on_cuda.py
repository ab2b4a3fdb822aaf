"""Local sums of generated kernels in Triton: memory holds the hidden context and the weights, never the kernel."""

from typing import Any

import torch
from torch import Tensor

from dynops.ops.generated import Gradients
from dynops.ops.on_cuda import is_wide, kernels, tile_of
from dynops.ops.sums import Numbers, empty_as

NAME = "triton"
WIDTH = 32
"""Channels of the hidden context that a program holds."""
PROGRAMS = 1024
"""Programs that keep a GPU busy: a sum over all pixels is cut into as many."""


class GeneratedTriton:
    """The engine in Triton."""

    def generated_sum(self, hidden: Tensor, weight: Tensor, bias: Tensor, value: Tensor, numbers: Numbers) -> Tensor:
        made = empty_as(value, 1, numbers[8:], NAME)
        _generate_and_sum(hidden, weight, bias, value, made, numbers, seen=False)
        return made

    def generated_gradients(
        self, hidden: Tensor, weight: Tensor, bias: Tensor, value: Tensor, slope: Tensor, numbers: Numbers
    ) -> Gradients:
        seen = empty_as(slope, 1, list(value.shape[4:]), NAME).to(value.dtype)
        _generate_and_sum(hidden, weight, bias, slope, seen, numbers, seen=True)
        above = torch.empty_like(hidden)
        _hidden_gradient(weight, slope, value, above, numbers)
        own = _weight_gradient(hidden, slope, value, numbers)
        r = weight.shape[2]
        return above, own[..., :r].to(weight.dtype).contiguous(), own[..., r].to(bias.dtype).contiguous(), seen


def _generate_and_sum(
    hidden: Tensor, weight: Tensor, bias: Tensor, value: Tensor, made: Tensor, numbers: Numbers, *, seen: bool
) -> None:
    if made.numel() == 0:
        return
    b, g, _, s, rows, columns = made.shape
    tile, blocks = _tiles(hidden, value, rows * columns)
    sizes = (g, weight.shape[2], s, *value.shape[4:], rows, columns, *numbers[6:8], *blocks)
    steps = (*hidden.stride(), *weight.stride(), *bias.stride(), *_steps(value), *_steps(made))
    wide, once = is_wide(hidden[0], value[0, 0], made[0, 0]), blocks[2] == 1 and not seen
    with torch.cuda.device_of(value):
        launch = kernels("generated").generate_and_sum[(b * g * blocks[0] * blocks[1],)]
        launch(hidden, weight, bias, value, made, *sizes, *steps, *numbers[:6], seen=seen, once=once, wide=wide, **tile)


def _hidden_gradient(weight: Tensor, slope: Tensor, value: Tensor, made: Tensor, numbers: Numbers) -> None:
    if made.numel() == 0:
        return
    g, _, r = weight.shape
    s, rows, columns = slope.shape[3:]
    tile, blocks = _tiles(made, value, rows * columns)
    sizes = (g, r, s, *value.shape[4:], rows, columns, *numbers[6:8], *blocks)
    steps = (*weight.stride(), *_steps(slope), *_steps(value), *made.stride())
    wide = is_wide(made[0], value[0, 0], slope[0, 0])
    with torch.cuda.device_of(value):
        launch = kernels("generated").hidden_gradient[(made.shape[0] * blocks[1] * blocks[2],)]
        launch(weight, slope, value, made, *sizes, *steps, *numbers[:6], once=blocks[0] == 1, wide=wide, **tile)


def _weight_gradient(hidden: Tensor, slope: Tensor, value: Tensor, numbers: Numbers) -> Tensor:
    """The gradient of the weights and, behind it, that of the bias: `g k r+1`, in the dtype that is summed in."""
    b, g, _, s, rows, columns = slope.shape
    r, taps = hidden.shape[1], numbers[0] * numbers[1]
    dtype = torch.promote_types(value.dtype, torch.float32)
    if slope.numel() == 0:
        return value.new_zeros(g, taps, r + 1, dtype=dtype)
    tile, blocks = _tiles(hidden, value, rows * columns)
    places = b * blocks[1]
    each = -(-places // max(1, PROGRAMS // (g * taps * blocks[2])))
    parts = -(-places // each)
    made = value.new_empty(parts, g, taps, r + 1, dtype=dtype)
    sizes = (b, g, r, s, *value.shape[4:], rows, columns, *numbers[6:8], *blocks, each)
    steps = (*hidden.stride(), *_steps(slope), *_steps(value), *made.stride()[:3])
    wide = is_wide(hidden[0], value[0, 0], slope[0, 0])
    with torch.cuda.device_of(value):
        launch = kernels("generated").weight_gradient[(parts * g * taps * blocks[2],)]
        launch(hidden, slope, value, made, *sizes, *steps, *numbers[:6], wide=wide, **tile)
    return made.sum(0)


def _steps(value: Tensor) -> list[int]:
    """Strides of features `b g 1 s h w`."""
    return [stride for axis, stride in enumerate(value.stride()) if axis != 2]


def _tiles(hidden: Tensor, value: Tensor, pixels: int) -> tuple[dict[str, Any], tuple[int, int, int]]:
    """The tiles of a program, and into how many blocks channels, pixels and the hidden context are cut."""
    tile = tile_of(value, pixels)
    del tile["whole"]
    r = hidden.shape[1]
    tile["width"] = min(1 << (r - 1).bit_length(), WIDTH)
    blocks = -(-value.shape[3] // tile["channels"]), -(-pixels // tile["pixels"]), -(-r // tile["width"])
    return tile, blocks
