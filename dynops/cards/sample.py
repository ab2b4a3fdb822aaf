"""A layer built small and run once, for its picture: the kernels that its operators make for two images."""

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from dynops.cards.family import inner_operators
from dynops.errors import DynopsError
from dynops.ops.blocks import Block
from dynops.ops.geometry import Geometry, Size, each
from dynops.ops.window import Window
from dynops.parts.channels import Split
from dynops.parts.layer import Layer
from dynops.parts.operator import LocalOperator, Operator

WIDTHS = (16, 24, 32, 48, 64, 96, 128)
"""Widths that a picture is tried at, the smallest first."""
SEED = 0
IMAGES = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """One operator of a layer, and the kernels that it made."""

    place: str
    """Where it stands in the layer: `layers.0`; nothing for an operator by itself."""
    operator: Operator
    channels: int
    """Channels of its input."""
    split: Split
    size: Size
    """Grid of its input."""
    kernel: Tensor
    """Its kernels for two images, `b g o i k h w`, 1 along axes where they are constant."""


def samples(layer: Layer, channels: int, size: Size) -> list[Sample]:
    """Run a layer on two random images and keep the kernels of its operators, each kind of operator once.

    The width is the smallest at which no letter of a channels' pattern is 1, or else the smallest that can be built;
    the grid is large enough for the windows. Nothing that is drawn at random elsewhere changes.

    Args:
        layer: any layer.
        channels: a width at which it can be built.
        size: a grid that it can be run on.
    """
    operators = (
        [layer] if isinstance(layer, Operator) else [each.spec for _, each, _ in inner_operators(layer, channels, size)]
    )
    side = max([9, *(_side(operator.window) for operator in operators)])
    grids = [*((side * scale,) * layer.dims for scale in (1, 2, 4)), size]
    widths = sorted({*(width for width in WIDTHS if width < channels), channels})
    widths.sort(key=lambda width: not all(_spread_out(operator, width) for operator in operators))
    for width, grid in product(widths, grids):
        try:
            return _run(layer, width, grid)
        except DynopsError:
            continue
    return _run(layer, channels, size)


def _run(layer: Layer, channels: int, size: Size) -> list[Sample]:
    inputs: dict[LocalOperator, Tensor] = {}

    def note(module: LocalOperator, given: tuple[Tensor, ...]) -> None:
        inputs.setdefault(module, given[0])

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(SEED)
        # in training, so that what is normalised is normalised by these images
        built = layer.build(channels, size=size).train()
        operators = {name: each for name, each in built.named_modules() if isinstance(each, LocalOperator)}
        for module in operators.values():
            module.register_forward_pre_hook(note)
        built(torch.randn(IMAGES, channels, *size))
        kernels = {module: module(x, return_kernel=True)[1].detach() for module, x in dict(inputs).items()}
    found: dict[tuple[Operator, int, Size], Sample] = {}
    for name, module in operators.items():
        if module in inputs:
            made = Sample(
                place=name,
                operator=module.spec,
                channels=module.channels,
                split=module.split,
                size=tuple(inputs[module].shape[2:]),
                kernel=kernels[module],
            )
            found.setdefault((module.spec, module.channels, made.size), made)
    return list(found.values())


def _spread_out(operator: Operator, channels: int) -> bool:
    try:
        split = operator.channels.resolve(operator.value.width(channels) if operator.value else channels)
    except DynopsError:
        return False
    return all(getattr(split, letter) > 1 for letter in operator.channels.pattern if letter in "gois")


def _side(window: Geometry) -> int:
    """Pixels that show a window with some room around it."""
    if isinstance(window, Window):
        reaches = [(size - 1) * dilation + 1 for size, dilation in zip(window.sizes, window.dilations, strict=True)]
        return max(reaches) + (4 if window.dims < 3 else 2)
    if isinstance(window, Block):
        return max(2 * size + size // 2 for size in each(window.size, window.dims))
    return 0
