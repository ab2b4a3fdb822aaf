"""Attention to the pixels of a window in C: scores and weights are in the cache, a band of rows at a time."""

from struct import pack

import torch
from torch import Tensor

from dynops.ops import attended, native
from dynops.ops.attended import Gradients, Inputs, empty_gradients, empty_results
from dynops.ops.sums import Numbers

NAME = "native"
CACHED = 96 << 10
"""Bytes of scores in a band; with what else it needs, they stay in a core's cache."""


class AttendedNative:
    """The engine in C."""

    def attended_sum(self, inputs: Inputs, masked: bool, numbers: Numbers) -> tuple[Tensor, Tensor]:
        made, logsumexp = empty_results(inputs, numbers, NAME)
        total = torch.empty_like(logsumexp)
        features = [*inputs[:3], inputs.value, made]
        _run("attended_sum", inputs, masked, numbers, features, [_laid_out(inputs.positions), logsumexp, total])
        return made, logsumexp.add_(total.log_())

    def attended_gradients(
        self, inputs: Inputs, logsumexp: Tensor, slope: Tensor, masked: bool, numbers: Numbers
    ) -> Gradients:
        query, key, asked, positions, value = made = empty_gradients(inputs)
        key.zero_(), value.zero_()  # to which each band adds
        b, g = value.shape[:2]
        bands = -(-numbers[8] // _rows(inputs, numbers))
        parts = positions.new_zeros(b * bands, g, *positions.shape[:0:-1])
        features = [*inputs[:3], inputs.value, slope, query, key, asked, value]
        _run("attended_gradients", inputs, masked, numbers, features, [_laid_out(inputs.positions), logsumexp, parts])
        positions.copy_(parts.sum(0).transpose(1, 2).sum_to_size(positions.shape))
        return made


attended.ENGINES[NAME] = AttendedNative()


def _rows(inputs: Inputs, numbers: Numbers) -> int:
    """Rows of a band: as the cache has place for, and so many that no row is seen from a band and the next but one."""
    (kh, kw), stride, dilation, (rows, columns) = numbers[:2], numbers[2], numbers[4], numbers[8:]
    row = inputs.query.shape[2] * kh * kw * columns * inputs.value.element_size()
    return min(rows, max(1, CACHED // max(1, row), -(-(kh - 1) * dilation // stride)))


def _laid_out(positions: Tensor) -> Tensor:
    """Positions of each group, `g k e`; one for all where groups share them."""
    return positions.transpose(1, 2).contiguous()


def _run(
    name: str, inputs: Inputs, masked: bool, numbers: Numbers, features: list[Tensor], others: list[Tensor]
) -> None:
    """Call C; the structs of its source are rows of 64-bit integers."""
    b, g, _, s, h, w = inputs.value.shape
    o, d, e = *inputs.query.shape[2:4], inputs.asked.shape[3]
    shared = inputs.positions.shape[0] == 1
    sizes = (b, g, o, d, e, s, h, w, *numbers[8:], *numbers[:8], masked, shared, _rows(inputs, numbers))
    tensors = [number for each in features for number in (each.data_ptr(), *each.stride())]
    tensors += [each.data_ptr() for each in others]
    packed = [pack(f"{len(each)}q", *each) for each in (tensors, (*sizes, torch.get_num_threads()))]
    if getattr(native.library(inputs.value.dtype), name)(*packed):
        raise MemoryError(f"dynops::{name} has no memory for the scores of its bands.")
