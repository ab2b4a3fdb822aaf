"""Scores of queries against the keys in their windows."""

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor

from dynops.axes import GRIDS, bind
from dynops.ops import native, on_cuda
from dynops.ops.backends import asked_for
from dynops.ops.blocks import Common
from dynops.ops.geometry import Geometry, Size
from dynops.ops.taps import count, from_tiles, grid_of, shifts, tiles, to_tiles
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
    query: Tensor,
    key: Tensor,
    window: Geometry,
    *,
    relation: str = "dot",
    positions: Tensor | None = None,
    reach: int | None = None,
) -> Tensor:
    """Score each pixel's query against the keys in its window.

    score[b,g,o,k,p] = relation(query[b,g,o,:,p], key[b,g,:,window(p,k)] + positions[g,:,place(p,k)])

    Args:
        query: `b g o d h w` on the output's grid.
        key: `b g d h w` on the input's grid, continued as the border says.
        window: which keys are seen.
        relation: `dot`, sum over d of q k; `subtraction`, minus the sum of |q - k|; `squared_distance`, minus the sum
            of (q - k)^2.
        positions: what is added to the key at each relative place, `g d r`, as many as the window reaches (the taps of
            a sliding one); g of size 1 where it is shared.
        reach: side of the middle of the window that has positions; None: all of it.
    Returns:
        Scores, `b g o k h w`.
    Raises:
        ShapeError: the axes do not fit together, or the input is too small for the border.
        SpecError: there is no such relation.
    """
    one_of("relation", relation, tuple(RELATIONS))
    grid = GRIDS[window.dims]
    sizes = bind("key", key, f"b g d {grid}")
    size = grid_of(key, window)
    window.check(size)
    sizes |= dict(zip(grid.split(), window.output_size(size), strict=True))
    bind("query", query, f"b g o d {grid}", sizes)
    if positions is not None:
        places = prod(window.reaches(size)) if reach is None else reach**window.dims
        bind("positions", positions, "g d r", sizes | {"r": places}, ones=True)
    if relation == "dot" and isinstance(window, Common):
        cut = torch.einsum("bgodtq,bgdkt->bgoktq", to_tiles(query, window, size), tiles(key, window))
        dots = from_tiles(cut, window, size)
        return dots if positions is None else dots + local_products(query, positions, window, size, reach)
    if relation == "dot" and (take := _engine(query, key, window)):
        dots = take(query, key, window)
        return dots if positions is None else dots + local_products(query, positions, window, size, reach)
    added = [None] * count(window, size) if positions is None else _by_tap(positions, window, size, reach)
    seen = (key if near is None else key + near for key, near in zip(shifts(key, window), added, strict=True))
    return torch.stack([RELATIONS[relation](query, each) for each in seen], dim=3)


def _engine(query: Tensor, key: Tensor, window: Geometry) -> Callable[[Tensor, Tensor, Geometry], Tensor] | None:
    """Return what multiplies queries and keys with no shifted keys in memory; None where nothing does."""
    name = asked_for(None)
    for each, engine in {"native": native, "triton": on_cuda}.items():
        if name in (None, each) and not engine.refuses_scores(query, key, window):
            return engine.scores
    return None


def _by_tap(positions: Tensor, window: Geometry, size: Size, reach: int | None) -> Sequence[Tensor]:
    """The positions of each tap, `g d h w`, of size 1 on a grid where they are the same for all pixels."""
    if window.fixed:
        return positions[(..., *(None,) * window.dims)].unbind(2)
    places = window.offsets(size, positions.device, reach)
    return [positions[..., place.clamp(min=0)].masked_fill(place < 0, 0) for place in places]


def local_products(query: Tensor, positions: Tensor, window: Geometry, size: Size, reach: int | None = None) -> Tensor:
    """Multiply each pixel's query with the positions of its taps.

    product[b,g,o,k,p] = query[b,g,o,:,p] . positions[g,:,place(p,k)]

    Args:
        query: `b g o d h w` on the output's grid, g of size 1 where it is shared.
        positions: `g d r`, as many as the window reaches, g of size 1 where they are shared.
        window: whose taps they are.
        size: the input's grid.
        reach: side of the middle of the window that has positions; products with the taps beyond are 0.
    Returns:
        Products, `b g o k h w`.
    """
    groups = max(query.shape[1], positions.shape[0])
    query = query.expand(-1, groups, *(-1,) * (query.dim() - 2))
    products = torch.einsum("bgod...,gdr->bgor...", query, positions.expand(groups, -1, -1))
    if window.fixed:
        return products
    places = window.offsets(size, query.device, reach)
    seen = products.gather(3, places.clamp(min=0).expand(*products.shape[:3], *places.shape))
    return seen if reach is None else seen.masked_fill(places < 0, 0)
