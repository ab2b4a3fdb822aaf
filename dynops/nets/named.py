"""Networks by name, for the command line: one place to add one."""

from collections.abc import Callable
from functools import partial

from dynops.errors import SpecError
from dynops.nets.metaformer import SIZES, metaformer
from dynops.nets.network import Network
from dynops.nets.resnet import DEPTHS, rednet, resnet
from dynops.parts.layer import Layer
from dynops.specs import one_of


def _published(depth: int, operator: Layer | None) -> Network:
    if operator is not None:
        raise SpecError(f"operator has {operator!r}: a RedNet has involution. Use resnet{depth} for another operator.")
    return rednet(depth)


NAMED: dict[str, Callable[[Layer | None], Network]] = {
    **{f"resnet{depth}": partial(resnet, depth) for depth in DEPTHS},
    **{f"rednet{depth}": partial(_published, depth) for depth in DEPTHS},
    **{f"metaformer-{size}": partial(metaformer, size=size) for size in SIZES},
}
"""Functions from what stands in all slots, None for what stands there as published, to a network."""


def named(name: str, operator: Layer | None = None) -> Network:
    """Return a network for large images by its name, a key of `NAMED`.

    Args:
        name: `resnet50` or `rednet50` of each depth, `metaformer-s12` of each size.
        operator: what stands in all slots; by default what the published network has.
    Raises:
        SpecError: there is no such network, or it takes no other operator.
    """
    one_of("network", name, tuple(NAMED))
    return NAMED[name](operator)
