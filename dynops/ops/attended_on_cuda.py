"""Attention to the pixels of a window in Triton: memory holds what scores are made from, never scores or weights."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from dynops.ops.attended import Gradients, Inputs, empty_gradients, empty_results, summed_in
from dynops.ops.on_cuda import is_wide, kernels, tile_of
from dynops.ops.sums import Numbers

NAME = "triton"
WIDTH = 32
"""Channels of queries and of what is asked of positions that a program holds."""
TILE = 1024
"""Numbers of a tile in which channels lie side by side."""
PROGRAMS = 1024
"""Programs that keep a GPU busy: a sum over all pixels is cut into as many."""


class AttendedTriton:
    """The engine in Triton."""

    def attended_sum(self, inputs: Inputs, masked: bool, numbers: Numbers) -> tuple[Tensor, Tensor]:
        made, logsumexp = empty_results(inputs, numbers, NAME)
        if made.numel():
            _attend(inputs, made, logsumexp, masked, numbers)
        return made, logsumexp

    def attended_gradients(
        self, inputs: Inputs, logsumexp: Tensor, slope: Tensor, masked: bool, numbers: Numbers
    ) -> Gradients:
        query, key, asked, positions, value = made = empty_gradients(inputs)
        if slope.numel() == 0:
            for each in made:
                each.zero_()
            return made
        delta = torch.empty_like(logsumexp)
        _query_gradient(inputs, slope, logsumexp, delta, query, asked, masked, numbers)
        _key_gradient(inputs, slope, logsumexp, delta, key, value, numbers)
        if positions.numel():
            summed = _positions_gradient(inputs, slope, logsumexp, delta, masked, numbers)
            positions.copy_(summed.sum_to_size(positions.shape))
        return made


class Plan(NamedTuple):
    """What all kernels are launched with."""

    sizes: tuple[int, ...]
    steps: tuple[int, ...]
    """Strides of the inputs."""
    constants: dict[str, Any]
    blocks: dict[str, int]
    """Into how many blocks the channels s, d and e and the pixels p are cut."""


def _attend(inputs: Inputs, made: Tensor, logsumexp: Tensor, masked: bool, numbers: Numbers) -> None:
    plan = _plan(inputs, numbers, numbers[8] * numbers[9], made)
    with torch.cuda.device_of(made):
        launch = kernels("attended").attend[(logsumexp[..., 0, 0].numel() * plan.blocks["p"] * plan.blocks["s"],)]
        launch(
            *inputs, made, logsumexp, *plan.sizes, *plan.steps, *made.stride(), *numbers[:6], masked=masked,
            **plan.constants,
        )  # fmt: skip


def _query_gradient(
    inputs: Inputs,
    slope: Tensor,
    logsumexp: Tensor,
    delta: Tensor,
    query: Tensor,
    asked: Tensor,
    masked: bool,
    numbers: Numbers,
) -> None:
    """Write the gradients of the query and of what is asked, and the mean gradient of each pixel's weights, `delta`."""
    plan = _plan(inputs, numbers, numbers[8] * numbers[9], slope, query, asked)
    made_blocks = max(plan.blocks["d"], plan.blocks["e"])
    steps = (*plan.steps, *slope.stride(), *query.stride(), *asked.stride())
    with torch.cuda.device_of(slope):
        launch = kernels("attended").query_gradient[(delta[..., 0, 0].numel() * plan.blocks["p"] * made_blocks,)]
        launch(
            *inputs, slope, logsumexp, delta, query, asked, *plan.sizes, made_blocks, *steps, *numbers[:6],
            masked=masked, **plan.constants,
        )  # fmt: skip


def _key_gradient(
    inputs: Inputs, slope: Tensor, logsumexp: Tensor, delta: Tensor, key: Tensor, value: Tensor, numbers: Numbers
) -> None:
    b, g, _, _, h, w = value.shape
    plan = _plan(inputs, numbers, h * w, slope, key, value)
    made_blocks = max(plan.blocks["d"], plan.blocks["s"])
    steps = (*plan.steps, *slope.stride(), *_steps(key), *_steps(value))
    with torch.cuda.device_of(slope):
        launch = kernels("attended").key_gradient[(b * g * plan.blocks["p"] * made_blocks,)]
        launch(
            *inputs, slope, logsumexp, delta, key, value, *plan.sizes, made_blocks, *steps, *numbers[:6],
            **plan.constants,
        )  # fmt: skip


def _positions_gradient(
    inputs: Inputs, slope: Tensor, logsumexp: Tensor, delta: Tensor, masked: bool, numbers: Numbers
) -> Tensor:
    """Return the gradient of the positions of each group, `g e k`, in the dtype that is summed in."""
    b, g, o = slope.shape[:3]
    e, taps = inputs.positions.shape[1:]
    plan = _plan(inputs, numbers, numbers[8] * numbers[9], slope)
    places = b * o * plan.blocks["p"]
    each = -(-places // max(1, PROGRAMS // (g * taps * plan.blocks["e"])))
    parts = -(-places // each)
    made = delta.new_empty(parts, g, e, taps)
    steps = (*plan.steps, *slope.stride(), *made.stride())
    constants = {name: value for name, value in plan.constants.items() if name not in ("placed", "once")}
    with torch.cuda.device_of(slope):
        launch = kernels("attended").positions_gradient[(parts * g * taps * plan.blocks["e"],)]
        launch(
            *inputs, slope, logsumexp, delta, made, *plan.sizes, each, places, *steps, *numbers[:6],
            masked=masked, **constants,
        )  # fmt: skip
    return made.sum(0)


def _plan(inputs: Inputs, numbers: Numbers, pixels: int, *others: Tensor) -> Plan:
    """How the inputs lie and how a number of pixels is cut into programs, with other tensors `b g c s h w` beside."""
    query, key, asked, positions, value = inputs
    d, e, s = (each.shape[3] for each in (query, asked, value))
    tile = tile_of(value, pixels)
    del tile["whole"]
    tile["d_tile"], tile["e_tile"] = (min(1 << max(each - 1, 0).bit_length(), WIDTH) for each in (d, e))
    if tile["last"]:
        tile["pixels"] = min(tile["pixels"], TILE // max(tile["d_tile"], tile["e_tile"]))
    if summed_in(*inputs) == torch.float64:
        tile["dtype"] = kernels().tl.float64
    cuts = {
        "s": (s, tile["channels"]),
        "p": (pixels, tile["pixels"]),
        "d": (d, tile["d_tile"]),
        "e": (e, tile["e_tile"]),
    }
    blocks = {name: -(-size // most) for name, (size, most) in cuts.items()}
    sizes = (*query.shape[1:3], d, e, s, *value.shape[4:], *numbers[8:], *numbers[6:8], *blocks.values())
    shared = positions.shape[0] == 1
    own = (0 if shared else positions.stride(0), *positions.stride()[1:])
    steps = (*query.stride(), *_steps(key), *asked.stride(), *own, *_steps(value))
    once = max(blocks["s"], blocks["d"], blocks["e"]) == 1
    wide = is_wide(*(each[0, 0, 0] for each in (query, key, asked, value, *others)))
    return Plan(sizes, steps, tile | {"keyed": d > 0, "placed": e > 0, "once": once, "wide": wide}, blocks)


def _steps(value: Tensor) -> list[int]:
    """Strides of features `b g 1 s h w`."""
    return [stride for axis, stride in enumerate(value.stride()) if axis != 2]
