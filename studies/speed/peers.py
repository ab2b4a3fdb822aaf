"""What is timed: the local sum, others who compute it, and what a network would have in its place."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dynops import Window, zoo
from dynops.errors import DynopsError
from dynops.ops import local_sum
from studies.speed import attention
from studies.speed.place import Place, Shape

OWN = "dynops"
BASE = "depthwise"
"""What ratios are taken to."""
COMPILED, LAYER = "shifted views, compiled", "involution layer"
DIRECTIONS = ("forward", "both")
"""Without gradients; and with those of all inputs."""
ERRORS = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}
"""How far peers that compute the same may be apart."""

Call = Callable[[], tuple[Tensor, ...]]
"""Computes once, and returns all results."""


class SpeedError(DynopsError):
    """A speed that must not be printed, as what is timed is wrong."""


class Peer(NamedTuple):
    """What is timed."""

    apply: Callable[..., Tensor]
    """From the inputs to the result."""
    inputs: tuple[Tensor, ...]
    """All that has a gradient, features `b c h w` last."""
    same: bool = False
    """Whether it computes the local sum, from the kernels of all pixels."""
    no_backward: str = ""
    """Why it has no gradients; nothing where it has."""


Built = Peer | str
"""A peer, or the reason why there is none."""


def summed(shape: Shape, backend: str | None, kernel: Tensor, x: Tensor) -> Tensor:
    """Take the local sum by a backend, the fastest that there is for None."""
    b, c, h, w, k, g = shape
    return local_sum(kernel, x.view(b, g, 1, c // g, h, w), Window(k), backend=backend).view(b, c, h, w)


def unfolded(shape: Shape, kernel: Tensor, x: Tensor) -> Tensor:
    """Take the local sum as the published code does: all windows, times the kernels, summed."""
    b, c, h, w, k, g = shape
    patches = F.unfold(x, k, padding=k // 2).view(b, g, c // g, k * k, h, w)
    return (kernel[:, :, 0] * patches).sum(3).view(b, c, h, w)


def _sum(place: Place, backend: str | None) -> Built:
    return Peer(partial(summed, place.shape, backend), (place.kernel(), place.features()), same=True)


def _unfold(place: Place) -> Built:
    return Peer(partial(unfolded, place.shape), (place.kernel(), place.features()), same=True)


def _compiled(place: Place) -> Built:
    shifted = torch.compile(partial(summed, place.shape, "shift"), dynamic=False)
    return Peer(shifted, (place.kernel(), place.features()), same=True)


def _convolution(place: Place, depthwise: bool) -> Built:
    _, c, _, _, k, _ = place.shape
    weight = place.draw(c, 1, k, k) if depthwise else place.draw(c, c, 3, 3)
    return Peer(partial(_convolved, c if depthwise else 1), (weight, place.features()))


def _convolved(groups: int, weight: Tensor, x: Tensor) -> Tensor:
    return F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=groups)


def _layer(place: Place) -> Built:
    _, c, _, _, k, g = place.shape
    built = zoo.involution(kernel_size=k, group_channels=c // g, reduction=4).build(c)
    layer = built.to(place.device, place.dtype).train()
    return Peer(lambda *inputs: layer(inputs[-1]), (*layer.parameters(), place.features()))


def _attention(place: Place, make: Callable[[Place], attention.Made]) -> Built:
    made = make(place)
    if isinstance(made, str):
        return made
    drawn = (place.draw(*made.sizes) for _ in range(3))
    inputs = tuple(each.detach() if made.no_backward else each for each in drawn)
    return Peer(made.apply, inputs, no_backward=made.no_backward)


BUILDERS: dict[str, Callable[[Place], Built]] = {
    OWN: partial(_sum, backend=None),
    "unfold": _unfold,
    "shifted views": partial(_sum, backend="shift"),
    COMPILED: _compiled,
    BASE: partial(_convolution, depthwise=True),
    "dense 3x3": partial(_convolution, depthwise=False),
    LAYER: _layer,
    "dynops attention": partial(_attention, make=attention.own),
    "flex_attention": partial(_attention, make=attention.flexible),
    "SDPA, masked": partial(_attention, make=attention.masked),
    "NATTEN": partial(_attention, make=attention.natten),
}
"""By name; the layer generates its kernels as well, in training mode; attention has g heads and the same windows."""


def peers(place: Place, names: Iterable[str] = tuple(BUILDERS)) -> dict[str, Built]:
    """Build what is timed at a place, by names; errors as in `calls`."""
    torch.compiler.reset()  # what it compiled for other shapes would count against its limit
    return {name: _tried(name, partial(BUILDERS[name], place)) for name in names}


def check(found: dict[str, Built], place: Place) -> None:
    """Raise a SpeedError unless all peers that compute the local sum agree, in outputs and gradients.

    What cannot run has nothing to agree on: `calls` says why.
    """
    kernel, x = place.kernel(), place.features()
    expected = None
    for name, peer in found.items():
        if isinstance(peer, str) or not peer.same:
            continue
        results = _tried(name, partial(_results, peer, kernel, x))
        if isinstance(results, str):
            continue
        expected = expected or results
        for ours, theirs in zip(expected, results, strict=True):
            error = ((ours.double() - theirs.double()).norm() / theirs.double().norm()).item()
            if not error < ERRORS[place.dtype]:
                limit = f"{ERRORS[place.dtype]:.0e}".replace("e-0", "e-")
                raise SpeedError(f"{name} has an error of {error:.1e} against {OWN}: must be below {limit}.")


def calls(name: str, peer: Built) -> dict[str, Call | str]:
    """Return what runs in each direction, or why nothing does; each was run once.

    An error of others' code (out of memory, a device that it does not know) is the reason; one of ours is raised.
    """
    if isinstance(peer, str):
        return dict.fromkeys(DIRECTIONS, peer)
    found: dict[str, Call | str] = {"forward": partial(_forward, peer)}
    if peer.no_backward:
        found["both"] = peer.no_backward
    else:
        with torch.no_grad():
            found["both"] = _tried(name, partial(_with_slope, peer))
    for direction, call in found.items():
        if not isinstance(call, str) and isinstance(reason := _tried(name, call), str):
            found[direction] = reason
    return found


def _results(peer: Peer, kernel: Tensor, x: Tensor) -> tuple[Tensor, ...]:
    y = peer.apply(kernel, x)
    return (y, *torch.autograd.grad(y.square().sum(), (kernel, x)))


def _with_slope(peer: Peer) -> Call:
    return partial(_both, peer, torch.randn_like(peer.apply(*peer.inputs)))


def _tried(name: str, run: Callable[[], Any]) -> Any:
    """Return what a call returns, or in a few words why it fails."""
    try:
        return run()
    except Exception as error:  # whatever others' code raises
        if name == OWN:
            raise
        lines = str(error).strip().splitlines()
        return f"{type(error).__name__}: {lines[0][:80]}" if lines else type(error).__name__


def _forward(peer: Peer) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return (peer.apply(*peer.inputs),)


def _both(peer: Peer, slope: Tensor) -> tuple[Tensor, ...]:
    y = peer.apply(*peer.inputs)
    return (y, *torch.autograd.grad(y, peer.inputs, slope))
