"""MetaFormer: one frame for every token mixer, with PoolFormer's parameters where pooling is the mixer."""

from collections import OrderedDict
from dataclasses import replace
from math import isfinite

import torch
from torch import Tensor, nn

from dynops.errors import ShapeError, SpecError
from dynops.nets.network import Network, Shape, Widths
from dynops.nets.residual import check_grid
from dynops.ops.geometry import Size
from dynops.parts import zoo
from dynops.parts.layer import Layer
from dynops.specs import at_least, of_kind, one_of, spec


@spec
class MetaFormer(Network):
    """A patch embedding, stages of blocks, a norm, the mean, and a linear layer; the defaults are PoolFormer-S12's.

    A block adds to its input a token mixer's output, and to that an MLP's, each behind a norm and times a scale:

        x = x + a * mixer(norm(x)),  x = x + b * mlp(norm(x));  a, b one number for each channel

    A norm takes an image's mean and variance over channels and pixels (group norm of one group). The first block of
    every stage but the first begins with a 3x3 convolution of stride 2. At a stride, what is left of the image when it
    is cut into patches is dropped, as published.

    Source: Yu et al., MetaFormer Is Actually What You Need for Vision, CVPR 2022, section 3 and table 1; an operator
        for each stage: Yu et al., MetaFormer Baselines for Vision, TPAMI 2024.
    Deviates: no block is dropped at random while training.
    """

    operators: tuple[Layer, ...]
    """What stands in the slot of each block: one for all stages, or one for each. It must keep the grid."""
    depths: tuple[int, ...] = (2, 2, 6, 2)
    """Blocks in each stage."""
    width: int = 64
    """Channels of the first stage."""
    multiples: tuple[int, ...] = (1, 2, 5, 8)
    """Channels of each stage as a multiple of `width`."""
    mlp_ratio: float = 4.0
    """Hidden channels of an MLP for each channel of its stage, rounded to a whole number in each stage."""
    patch: int = 7
    """Side of the image's patches, in pixels; they overlap where it is larger than `stem_stride`."""
    stem_stride: int = 4
    """Pixels of the image, in each direction, for each pixel of the first stage."""
    layer_scale: float | None = 1e-5
    """What the scales a and b start from; None: there are none."""

    def __post_init__(self) -> None:
        of_kind("operators", self.operators, tuple)
        for operator in self.operators:
            of_kind("operators", operator, Layer)
        if len(self.operators) not in (1, len(self.depths)):
            raise SpecError(
                f"operators has {len(self.operators)} operators, depths has {len(self.depths)} stages: give one "
                "operator for all stages, or one for each."
            )
        if not self.depths or len(self.multiples) != len(self.depths):
            raise SpecError(
                f"depths has {self.depths}, multiples has {self.multiples}: each must give a number for each stage."
            )
        for name, values in (("depths", self.depths), ("multiples", self.multiples)):
            for value in values:
                at_least(name, value, 1)
        if self.multiples[0] != 1:
            raise SpecError(f"multiples has {self.multiples}: must begin with 1, the first stage has `width` channels.")
        for name in ("width", "patch", "stem_stride"):
            at_least(name, getattr(self, name), 1)
        if self.patch < self.stem_stride:
            raise SpecError(
                f"patch has {self.patch}, stem_stride has {self.stem_stride}: pixels between patches would be lost. "
                f"Use a patch of {self.stem_stride} or more."
            )
        _positive("mlp_ratio", self.mlp_ratio)
        if not self._hidden(1):
            raise SpecError(
                f"mlp_ratio has {self.mlp_ratio}, width has {self.width}: an MLP needs one hidden channel or more."
            )
        if self.layer_scale is not None:
            _positive("layer_scale", self.layer_scale)

    def build(self, shape: Shape, outputs: int) -> nn.Module:
        operators = self.operators if len(self.operators) > 1 else self.operators * len(self.depths)
        channels, size = self.width, _patched(shape[1:], self.patch, self.stem_stride)
        if min(size) < 1:
            raise ShapeError(
                f"image has {shape[1]} x {shape[2]} pixels, stem_stride has {self.stem_stride}: no patch fits. "
                f"Use a stem_stride of {min(shape[1:])} or less."
            )
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["stem"] = _embedding(shape[0], channels, self.patch, self.stem_stride)
        for stage, (operator, depth, multiple) in enumerate(zip(operators, self.depths, self.multiples, strict=True)):
            for block in range(depth):
                enter: nn.Module = nn.Identity()
                if stage and not block:
                    enter, size = _embedding(channels, self.width * multiple, 3, 2), _patched(size, 3, 2)
                    channels = self.width * multiple
                made = Block(enter, operator, channels, self._hidden(multiple), self.layer_scale, size)
                layers[f"stage{stage + 1}_block{block + 1}"] = made
        head = _drawn(nn.Linear(channels, outputs))
        layers["head"] = nn.Sequential(nn.GroupNorm(1, channels), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
        return nn.Sequential(layers)

    @property
    def widths(self) -> Widths:
        """Channels of the first stage, which are its operator's, and hidden channels of its MLPs, any number."""
        return Widths(inner=self.width, width=self._hidden(1))

    def widened(self, widths: Widths) -> "MetaFormer":
        if widths == self.widths:
            return self
        return replace(self, width=widths.inner, mlp_ratio=widths.width / widths.inner)

    def _hidden(self, multiple: int) -> int:
        return round(self.mlp_ratio * self.width * multiple)


class Block(nn.Module):
    """A token mixer and an MLP, each behind a norm, times a scale, and beside a shortcut."""

    def __init__(
        self, enter: nn.Module, operator: Layer, channels: int, hidden: int, layer_scale: float | None, size: Size
    ) -> None:
        super().__init__()
        self.enter = enter
        self.norm = nn.GroupNorm(1, channels)
        check_grid(operator, size, 1)
        self.operator = operator.build(channels, channels, size=size)
        self.scale = _scale(channels, layer_scale)
        self.mlp_norm = nn.GroupNorm(1, channels)
        self.mlp = nn.Sequential(
            _drawn(nn.Conv2d(channels, hidden, 1)), nn.GELU(), _drawn(nn.Conv2d(hidden, channels, 1))
        )
        self.mlp_scale = _scale(channels, layer_scale)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        x = x + self.scale(self.operator(self.norm(x)))
        return x + self.mlp_scale(self.mlp(self.mlp_norm(x)))


class LayerScale(nn.Module):
    """A learned number for each channel.

    Source: Touvron et al., Going Deeper with Image Transformers, ICCV 2021, section 2.
    """

    def __init__(self, channels: int, start: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), start))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight[:, None, None] * x


def _embedding(channels: int, width: int, patch: int, stride: int) -> nn.Module:
    return nn.Conv2d(channels, width, patch, stride, padding=_margin(patch, stride))


def _patched(size: Size, patch: int, stride: int) -> Size:
    """Return the grid of the patches."""
    return tuple((length + 2 * _margin(patch, stride) - patch) // stride + 1 for length in size)


def _margin(patch: int, stride: int) -> int:
    return (patch - stride + 1) // 2


def _scale(channels: int, start: float | None) -> nn.Module:
    return nn.Identity() if start is None else LayerScale(channels, start)


def _drawn(layer: nn.Conv2d | nn.Linear) -> nn.Module:
    """Draw the weights of a layer as the published code does."""
    nn.init.trunc_normal_(layer.weight, std=0.02)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _positive(name: str, value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not isfinite(value) or value <= 0:
        raise SpecError(f"{name} has {value!r}: must be a number above 0.")


POOLFORMER = MetaFormer(operators=(zoo.pooling(),))
SIZES = {
    "s12": POOLFORMER,
    "s24": replace(POOLFORMER, depths=(4, 4, 12, 4)),
    "s36": replace(POOLFORMER, depths=(6, 6, 18, 6), layer_scale=1e-6),
    "m36": replace(POOLFORMER, depths=(6, 6, 18, 6), width=96, multiples=(1, 2, 4, 8), layer_scale=1e-6),
    "m48": replace(POOLFORMER, depths=(8, 8, 24, 8), width=96, multiples=(1, 2, 4, 8), layer_scale=1e-6),
}
"""The published PoolFormers, by the size in the name."""


def metaformer(operator: Layer | None = None, size: str = "s12", *, small: bool = False) -> MetaFormer:
    """Return a MetaFormer of one of PoolFormer's sizes with a token mixer, by default PoolFormer's.

    Args:
        operator: what stands in all slots.
        size: `s12`, `s24`, `s36`, `m36` or `m48`.
        small: whether images have 32 pixels, so that the stem, a 3x3 convolution, keeps them.
    """
    one_of("size", size, tuple(SIZES))
    network = SIZES[size] if operator is None else replace(SIZES[size], operators=(operator,))
    return replace(network, patch=3, stem_stride=1) if small else network
