"""Scores of queries against the keys in their windows."""

from collections.abc import Callable

import torch
from torch import Tensor

from dynops.axes import GRIDS, bind
from dynops.ops.local_sum import shifts
from dynops.ops.window import Window
from dynops.specs import one_of


def _dot(query: Tensor, key: Tensor) -> Tensor:
    return torch.einsum("bgod...,bgd...->bgo...", query, key)


def _subtraction(query: Tensor, key: Tensor) -> Tensor:
    return -(query - key[:, :, None]).abs().sum(3)


def _squared_distance(query: Tensor, key: Tensor) -> Tensor:
    return -(query - key[:, :, None]).square().sum(3)


RELATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "dot": _dot,
    "subtraction": _subtraction,
    "squared_distance": _squared_distance,
}


def local_scores(
    query: Tensor, key: Tensor, window: Window, *, relation: str = "dot", positions: Tensor | None = None
) -> Tensor:
    """Score each pixel's query against the keys in its window.

    score[b,g,o,k,p] = relation(query[b,g,o,:,p], key[b,g,:,window(p,k)] + positions[g,:,k])

    Args:
        query: `b g o d h w` on the output's grid.
        key: `b g d h w` on the input's grid, continued as the border says.
        window: which keys are seen.
        relation: `dot`, sum over d of q k; `subtraction`, minus the sum of |q - k|; `squared_distance`, minus the sum
            of (q - k)^2.
        positions: what is added to the key of each tap, `g d k`, g of size 1 where it is shared.
    Returns:
        Scores, `b g o k h w`.
    Raises:
        ShapeError: the axes do not fit together, or the input is too small for the border.
        SpecError: there is no such relation.
    """
    one_of("relation", relation, tuple(RELATIONS))
    grid = GRIDS[window.dims]
    sizes = bind("key", key, f"b g d {grid}")
    size = tuple(key.shape[3:])
    window.check(size)
    sizes |= dict(zip(grid.split(), window.output_size(size), strict=True))
    bind("query", query, f"b g o d {grid}", sizes)
    if positions is not None:
        bind("positions", positions, "g d k", sizes | {"k": window.taps}, ones=True)
    scores = []
    for tap, shifted in enumerate(shifts(key[:, :, None], window)):
        seen = shifted[:, :, 0]
        if positions is not None:
            seen = seen + positions[(None, slice(None), slice(None), tap, *(None,) * window.dims)]
        scores.append(RELATIONS[relation](query, seen))
    return torch.stack(scores, dim=3)
