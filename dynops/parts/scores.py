"""Kernels as products with keys and with positions: what attention is made from where no kernel is in memory."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dynops.ops import Geometry, attended_sum
from dynops.ops.taps import grid_of


class Scores(NamedTuple):
    """The kernel K[b,g,o,1,k,p] = query[b,g,o,:,p] . key[b,g,:,window(p,k)] + asked[b,g,o,:,p] . positions[g,:,k].

    Of each pair both are None where the product is 0; an axis of size 1 is shared along that axis.
    """

    query: Tensor | None
    """`b g o d h w` on the output's grid."""
    key: Tensor | None
    """`b g d h w`"""
    asked: Tensor | None
    """`b g o e h w` on the output's grid."""
    positions: Tensor | None
    """`g e k`"""

    def sum(self, value: Tensor, window: Geometry, temperature: float) -> Tensor:
        """Sum the windows of a value, `b g 1 s h w`, weighted by a softmax of the kernel: `b g o s h w`."""
        asking = [each for each in (self.query, self.asked) if each is not None]
        axes = (*value.shape[:2], max(each.shape[2] for each in asking), -1)
        grid = window.output_size(grid_of(value, window))

        def expanded(query: Tensor | None) -> Tensor | None:
            if query is None:
                return None
            return (query / temperature if temperature != 1 else query).expand(*axes, *grid)

        return attended_sum(
            expanded(self.query), self.key, expanded(self.asked), self.positions, value.squeeze(2), window
        )


def added(scores: Sequence[Scores]) -> Scores:
    """Add kernels: a sum of products is one over the channels of all."""
    query, key, asked, positions = zip(*scores, strict=True)
    return Scores(_beside(query, 3), _beside(key, 2), _beside(asked, 3), _beside(positions, 1))


def _beside(tensors: Sequence[Tensor | None], axis: int) -> Tensor | None:
    """Put tensors behind each other along an axis, equally large along all others."""
    there = [each for each in tensors if each is not None]
    if len(there) < 2:
        return there[0] if there else None
    sizes = [-1 if each == axis else max(one.shape[each] for one in there) for each in range(there[0].dim())]
    return torch.cat([each.expand(sizes) for each in there], dim=axis)
