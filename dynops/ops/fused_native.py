"""Sums in C whose weights, attention's or generated ones, are in the cache, a band of rows at a time."""

from collections.abc import Sequence
from struct import pack

import torch
from torch import Tensor

from dynops.ops import attended, generated, native
from dynops.ops.attended import Inputs, empty_gradients, empty_results
from dynops.ops.sums import Numbers, empty_as

NAME = "native"
CACHED = 96 << 10
"""Bytes of weights in a band; with what else it needs, they stay in a core's cache."""


class AttendedNative:
    """The engine of attention."""

    def attended_sum(self, inputs: Inputs, masked: bool, numbers: Numbers) -> tuple[Tensor, Tensor]:
        made, logsumexp = empty_results(inputs, numbers, NAME)
        total = torch.empty_like(logsumexp)
        query, key, asked, positions, value = inputs
        others = [_table(positions), logsumexp, total]
        _run("attended_sum", _shape(inputs, masked, numbers), [query, key, asked, value, made], others)
        return made, logsumexp.add_(total.log_())

    def attended_gradients(
        self, inputs: Inputs, logsumexp: Tensor, slope: Tensor, masked: bool, numbers: Numbers
    ) -> attended.Gradients:
        query, key, asked, positions, value = made = empty_gradients(inputs)
        key.zero_(), value.zero_()  # to which each band adds
        shape = _shape(inputs, masked, numbers)
        b, g, e, taps = *value.shape[:2], *positions.shape[1:]
        parts = positions.new_zeros(b * _bands(shape), g, taps, e)
        features = [*inputs[:3], inputs.value, slope, query, key, asked, value]
        _run("attended_gradients", shape, features, [_table(inputs.positions), logsumexp, parts])
        positions.copy_(parts.sum(0).transpose(1, 2).sum_to_size(positions.shape))
        return made


class GeneratedNative:
    """The engine of generated kernels."""

    def generated_sum(self, hidden: Tensor, weight: Tensor, bias: Tensor, value: Tensor, numbers: Numbers) -> Tensor:
        made = empty_as(value, 1, numbers[8:], NAME)
        shape = _shape(_asked(hidden, weight, value), False, numbers)
        others = [weight.contiguous(), bias.contiguous()]
        _run("generated_sum", shape, [_of_groups(hidden), value, made], others)
        return made

    def generated_gradients(
        self, hidden: Tensor, weight: Tensor, bias: Tensor, value: Tensor, slope: Tensor, numbers: Numbers
    ) -> generated.Gradients:
        above, seen = torch.empty_like(hidden), empty_as(slope, 1, list(value.shape[4:]), NAME).zero_()
        shape = _shape(_asked(hidden, weight, value), False, numbers)
        parts = value.shape[0] * _bands(shape)
        to_weight, to_bias = (each.new_zeros(parts, *each.shape) for each in (weight, bias))
        features = [_of_groups(hidden), value, slope, _of_groups(above), seen]
        _run("generated_gradients", shape, features, [weight.contiguous(), bias.contiguous(), to_weight, to_bias])
        return above, to_weight.sum(0), to_bias.sum(0), seen


def _asked(hidden: Tensor, weight: Tensor, value: Tensor) -> Inputs:
    """The hidden context as what a table without keys is asked."""
    asked = _of_groups(hidden).expand(-1, weight.shape[0], -1, -1, -1, -1)
    return Inputs(asked[:, :, :, :0], value[:, :, :, :0], asked, weight.transpose(1, 2), value)


def _of_groups(hidden: Tensor) -> Tensor:
    """Features that all groups share, `b 1 1 r h w`."""
    return hidden[:, None, None]


def _table(positions: Tensor) -> Tensor:
    """Positions of each group, `g k e`; one for all where groups share them."""
    return positions.transpose(1, 2).contiguous()


def _shape(inputs: Inputs, masked: bool, numbers: Numbers) -> list[int]:
    """The numbers of the source's struct of this name, in its order."""
    b, g, _, s, h, w = inputs.value.shape
    o, d, e = *inputs.query.shape[2:4], inputs.asked.shape[3]
    (kh, kw), stride, dilation, (rows, columns) = numbers[:2], numbers[2], numbers[4], numbers[8:]
    shared = inputs.positions.shape[0] == 1
    row = o * kh * kw * columns * inputs.value.element_size()
    # as many as the cache has place for, and so many that no row is seen from a band and the next but one
    band = min(rows, max(1, CACHED // max(1, row), -(-(kh - 1) * dilation // stride)))
    return [b, g, o, d, e, s, h, w, rows, columns, *numbers[:8], masked, shared, band, torch.get_num_threads()]


def _bands(shape: list[int]) -> int:
    rows, band = shape[8], shape[-2]
    return -(-rows // band)


def _run(name: str, shape: list[int], features: Sequence[Tensor], others: Sequence[Tensor]) -> None:
    """Call C with features `b g c s h w` and with tensors that lie as it wants them."""
    tensors = [number for each in features for number in (each.data_ptr(), *each.stride())]
    tensors += [each.data_ptr() for each in others]
    packed = [pack(f"{len(each)}q", *each) for each in (tensors, shape)]
    if getattr(native.library(features[0].dtype), name)(*packed):
        raise MemoryError(f"dynops::{name} has no memory for the weights of its bands.")
