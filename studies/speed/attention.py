"""Attention over the same windows, with a head for each group: what a network has that wants content in its weights.

It computes another thing, softmax of query and key: its time says what the alternative costs.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from dynops import Window
from dynops.ops import attended_sum
from studies.speed.place import Place

MOST = 28 * 28
"""Pixels with which a mask of all pairs is tried."""


class Attention(NamedTuple):
    """One way to take attention."""

    apply: Callable[[Tensor, Tensor, Tensor], Tensor]
    """From query, key and value."""
    sizes: tuple[int, ...]
    """The shape of each of them."""
    no_backward: str = ""
    """Why it has no gradients; nothing where it has."""


Made = Attention | str
"""Attention, or the reason why there is none."""


def own(place: Place) -> Made:
    """Make dynops' attention, whose weights are never in memory."""
    b, c, h, w, k, g = place.shape
    window = Window(k, border="mask")

    def apply(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return attended_sum(query[:, :, None] * (c // g) ** -0.5, key, None, None, value, window)

    return Attention(apply, (b, g, c // g, h, w))


def flexible(place: Place) -> Made:
    """Make torch's compiled flex_attention with a mask of windows; it visits blocks of pixels that see each other."""
    b, c, h, w, _, g = place.shape

    def sees(image: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return in_window(place, query, key)

    mask = create_block_mask(sees, None, None, h * w, h * w, device=place.device.type)
    apply = partial(torch.compile(flex_attention, dynamic=False), block_mask=mask)
    reason = "no backward on a CPU" if place.device.type == "cpu" else ""
    return Attention(apply, (b, g, h * w, c // g), reason)


def masked(place: Place) -> Made:
    """Make torch's attention over all pairs of pixels, with a mask of windows."""
    b, c, h, w, _, g = place.shape
    if h * w > MOST:
        return f"a mask of {h * w}x{h * w} is too large"
    places = torch.arange(h * w, device=place.device)
    mask = in_window(place, places[:, None], places)
    return Attention(partial(F.scaled_dot_product_attention, attn_mask=mask), (b, g, h * w, c // g))


def natten(place: Place) -> Made:
    """Make NATTEN's neighbourhood attention, whose windows shift at the border."""
    b, c, h, w, k, g = place.shape
    if find_spec("natten") is None:
        return "not installed"
    installed = import_module("natten")
    apply = getattr(installed, "na2d", None) or installed.functional.na2d
    return Attention(partial(apply, kernel_size=k), (b, h, w, g, c // g))


def in_window(place: Place, query: Tensor, key: Tensor) -> Tensor:
    """Say whether pixels, numbered row by row, lie in each other's windows."""
    width, reach = place.shape.w, place.shape.k // 2
    near_row = (query // width - key // width).abs() <= reach
    return near_row & ((query % width - key % width).abs() <= reach)
