"""The formula of dynops for kernels of attention: a softmax of products with keys and with positions."""

import torch
from torch import Tensor

from dynops.axes import GRIDS, bind
from dynops.errors import SpecError
from dynops.ops import attended, fused_native, sums
from dynops.ops.fused import attended_by
from dynops.ops.geometry import Geometry
from dynops.ops.local_scores import local_scores
from dynops.ops.local_sum import local_sum
from dynops.ops.taps import count, grid_of


def attended_sum(
    query: Tensor | None,
    key: Tensor | None,
    asked: Tensor | None,
    positions: Tensor | None,
    value: Tensor,
    window: Geometry,
    *,
    backend: str | None = None,
) -> Tensor:
    """Sum each pixel's window, weighted by a softmax of its products with the keys there and with positions.

    score[b,g,o,k,p] = sum over d of query[b,g,o,d,p] * key[b,g,d,window(p,k)]
    + sum over e of asked[b,g,o,e,p] * positions[g,e,k],
    y[b,g,o,s,p] = sum over k of softmax_k(score)[b,g,o,k,p] * value[b,g,s,window(p,k)]

    Args:
        query: `b g o d h w` on the output's grid; None, with the key: the first sum is 0.
        key: `b g d h w`, continued as the border says.
        asked: what positions are asked, `b g o e h w` on the output's grid; None, with the positions: the second sum
            is 0. Ones, with e = 1, make positions a bias.
        positions: what is learned of each tap, `g e k`; g of size 1 where it is shared.
        value: features, `b g s h w`.
        window: which pixels are seen; with border `mask` those outside have no weight. Its `dims` says whether the grid
            is `w`, `h w` or `t h w`.
        backend: one of `BACKENDS`; `triton` makes weights where they are needed, forward and backward, and so does
            `native` but for half precision; all others have them in memory. None takes the first of the two that can.
    Returns:
        Features, `b g o s h w` on the output's grid, of the dtype of `value`; `triton` sums half precision in float32.
    Raises:
        ShapeError: the axes do not fit together, or the input is too small for the border.
        SpecError: half of a pair or both pairs are missing; there is no such backend, or it takes no such sum.
    Source: Ramachandran et al., Stand-Alone Self-Attention, NeurIPS 2019, eq. 3; the running softmax is that of Dao et
        al., FlashAttention, NeurIPS 2022, algorithm 1.

    >>> import torch
    >>> from dynops.ops import Window
    >>> asked, positions, value = torch.ones(1, 1, 1, 1, 3), torch.zeros(1, 1, 3), torch.tensor([[[[3.0, 6.0, 9.0]]]])
    >>> attended_sum(None, None, asked, positions, value, Window(3, dims=1))[0, 0, 0]
    tensor([[3., 6., 5.]])
    """
    _check(query, key, asked, positions, value, window)
    if engine := attended_by(value, window, backend):
        return _fused(query, key, asked, positions, value, window, engine)
    scores = []
    if query is not None and key is not None:
        scores.append(local_scores(query, key, window))
    if asked is not None and positions is not None:
        positions = positions.expand(asked.shape[1], -1, -1)
        scores.append(torch.einsum("bgoe...,gek->bgok...", asked, positions))
    score = sum(scores[1:], scores[0])
    if window.masked:
        score = score.masked_fill(~window.inside(grid_of(value, window), value.device), float("-inf"))
    return local_sum(score.softmax(3)[:, :, :, None], value[:, :, None], window, backend=backend)


def _check(
    query: Tensor | None,
    key: Tensor | None,
    asked: Tensor | None,
    positions: Tensor | None,
    value: Tensor,
    window: Geometry,
) -> None:
    pairs = {"query": query, "key": key}, {"asked": asked, "positions": positions}
    for pair in pairs:
        missing = [name for name, each in pair.items() if each is None]
        if len(missing) == 1:
            raise SpecError(f"{missing[0]} has None: {' and '.join(pair)} come together. Give both, or none of them.")
    if query is None and asked is None:
        raise SpecError(
            "query has None, asked has None: there are no scores. Give query and key, or asked and positions."
        )
    grid = GRIDS[window.dims]
    sizes = bind("value", value, f"b g s {grid}")
    size = grid_of(value, window)
    window.check(size)
    if key is not None:
        bind("key", key, f"b g d {grid}", sizes)
    sizes |= dict(zip(grid.split(), window.output_size(size), strict=True))
    if query is not None and key is not None:
        sizes = bind("query", query, f"b g o d {grid}", sizes | {"d": key.shape[2]})
    if asked is not None and positions is not None:
        sizes = bind("asked", asked, f"b g o e {grid}", sizes)
        if positions.shape[:1] == (1,):
            del sizes["g"]
        bind("positions", positions, "g e k", sizes | {"k": count(window, size)})


def _fused(
    query: Tensor | None,
    key: Tensor | None,
    asked: Tensor | None,
    positions: Tensor | None,
    value: Tensor,
    window: Geometry,
    engine: str,
) -> Tensor:
    """Take the sum with scores that are nowhere in memory; a pair that is missing has no channels."""
    if query is None or key is None:
        assert asked is not None, "checked"
        query, key = asked.detach()[:, :, :, :0], value.detach()[:, :, :0]
    if asked is None or positions is None:
        asked, positions = query.detach()[:, :, :, :0], query.new_empty(1, 0, count(window, grid_of(value, window)))
    value, numbers = sums.laid_out(value[:, :, None], window)
    key, _ = sums.laid_out(key[:, :, None], window)
    flat = window.dims == 1  # a sequence is an image of one row
    if flat:
        query, asked = query.unsqueeze(-2), asked.unsqueeze(-2)
    inputs = attended.Inputs(query, key, asked, positions, value)
    if engine == fused_native.NAME:  # which has one dtype
        inputs = attended.Inputs(*sums.in_one_dtype(*inputs))
    y = attended.attended_sum(inputs, window.masked, numbers, engine).to(value.dtype)
    return y.squeeze(-2) if flat else y
