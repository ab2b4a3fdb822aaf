"""Fold an operator whose kernel is the same for every image and pixel into the convolution that it is."""

import copy
from itertools import chain, takewhile
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dynops.errors import SpecError
from dynops.ops.geometry import Geometry
from dynops.ops.window import Window
from dynops.parts.channels import Split
from dynops.parts.cost import Counted
from dynops.parts.grid import CONVOLUTIONS
from dynops.parts.kernel import Kernel, KernelModule, NormalisedKernel
from dynops.parts.norm import HiddenNorm

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


class Map(NamedTuple):
    """A linear map of channels and a shift."""

    matrix: Tensor
    shift: Tensor


class Foldable(Counted):
    """Base of the operator: where its kernel does not vary, it is a plain convolution."""

    spec: Any
    """The `Operator` that built it."""
    channels: int
    guide_channels: int | None
    split: Split
    window: Geometry
    kernel: KernelModule
    context: nn.Module | None
    value: nn.Module
    out: nn.Module
    bias: Tensor | None
    bias_kernel: KernelModule | None

    @torch.no_grad()
    def fold(self) -> Convolution:
        """Fold the operator into one plain convolution with the same outputs; the operator stays as it is.

        Groups are kept where the channels' pattern has them in front on both sides and there are no projections; any
        other operator becomes a dense convolution. With border `circular` torch's takes no input that a window goes
        round twice.

        Returns:
            The convolution, on the device and of the dtype of the operator's parameters.
        Raises:
            SpecError: the operator is in training, its kernel or bias varies with the image or the pixel, or its
                window, border or value is not that of a convolution; the message says which.
        """
        _check(self)
        kernel, bias = _constants(self)
        split, value, out = self.split, _map(self.value), _map(self.out)
        groups = 1 if value or out else _groups(split)
        weight = _weight(kernel, split, groups)
        if value:
            bias = bias + torch.einsum("oik,i->o", weight, value.shift)
            weight = torch.einsum("oik,ic->ock", weight, value.matrix)
        if out:
            weight = torch.einsum("po,oik->pik", out.matrix, weight)
            bias = out.matrix @ bias + out.shift
        return _convolution(self, weight, bias, groups)


def fold_all(module: nn.Module) -> nn.Module:
    """Return a copy of a network with every operator that can be folded replaced by its convolution.

    Args:
        module: a network in evaluation mode, or an operator; it stays as it is.
    Raises:
        SpecError: the network is in training.
    """
    if module.training:
        raise SpecError("module has training=True: kernels and norms still change. Call eval() first.")
    root = nn.ModuleDict({"module": copy.deepcopy(module)})
    folded: dict[nn.Module, nn.Module] = {}
    for path, each in list(root.named_modules(remove_duplicate=False)):
        if isinstance(each, Foldable):
            if each not in folded:
                folded[each] = _folded_or_left(each)
            root.set_submodule(path, folded[each])
    return root["module"]


def _folded_or_left(operator: Foldable) -> nn.Module:
    try:
        return operator.fold()
    except SpecError:
        return operator


def _check(operator: Foldable) -> None:
    if any(module.training for module in operator.modules()):
        raise SpecError("operator has training=True: kernels and norms still change. Call eval() first.")
    parts = operator.spec
    if operator.guide_channels is not None:
        raise SpecError(f"operator has guide_channels={operator.guide_channels}: a convolution takes no guide.")
    if parts.offsets is not None:
        raise SpecError(f"offsets has {parts.offsets!r}: the taps of a convolution stay where they are.")
    if parts.scatter is not None:
        raise SpecError(f"scatter has {parts.scatter!r}: a convolution writes each sum to one pixel.")
    _check_varies("kernel", parts.kernel, parts.signature)
    if isinstance(parts.bias, Kernel):
        context = parts.context.signature if parts.context else frozenset()
        _check_varies("bias", parts.bias, parts.bias.signature | context)
    _check_window(operator)


def _check_varies(name: str, kernel: Kernel, signature: frozenset[str]) -> None:
    if signature:
        axes = ", ".join(letter for letter in "bhw" if letter in signature)
        raise SpecError(
            f"{name} has {kernel!r}, which varies along {{{axes}}}: that of a convolution is the same for every image "
            "and pixel. Use Static() or context='constant'."
        )


def _check_window(operator: Foldable) -> None:
    window, value = operator.window, operator.spec.value
    if not isinstance(window, Window) or not window.fixed:
        raise SpecError(f"window has {window!r}: a convolution needs a sliding Window, whose border is not 'shift'.")
    if any(isinstance(module, NormalisedKernel) and module.masked for module in operator.modules()):
        raise SpecError(
            f"kernel has {operator.spec.kernel!r}, border has 'mask': where it counts fewer taps, a normalised kernel "
            "has other weights. Use border='zeros'."
        )
    if not all(_symmetric(window, axis) for axis in range(window.dims)):
        raise SpecError(
            f"padding has {window.padding!r}, window has {window!r}: a convolution pads the same on both sides of any "
            "input. Use padding='centre'."
        )
    if window.bounded and any(_reaches(window)) and value is not None and _shifts(value):
        raise SpecError(
            f"value has {value!r}, border has {window.border!r}: outside the input the value is zero, which a shift "
            "before the padding is not. Use Project() without bias and norm, or border='replicate'."
        )


def _sliding(operator: Foldable) -> Window:
    assert isinstance(operator.window, Window), "checked before"
    return operator.window


def _reaches(window: Window) -> list[int]:
    """Pixels from the first to the last tap."""
    return [dilation * (size - 1) for size, dilation in zip(window.sizes, window.dilations, strict=True)]


def _symmetric(window: Window, axis: int) -> bool:
    reach = _reaches(window)[axis]
    # `same` pads less the further the last window would reach beyond the end, which a stride makes depend on the input
    same = window.padding == "same" and window.strides[axis] == 1 and reach % 2 == 0
    return reach == 0 or window.padding == "centre" or same


def _shifts(project: Any) -> bool:
    return project is not None and (project.bias or project.norm is not None)


def _constants(operator: Foldable) -> tuple[Tensor, Tensor]:
    """The kernel, `g o i k`, and what is added to the channels of the sum."""
    split = operator.split
    like = next(chain(operator.parameters(), operator.buffers()))
    x = like.new_zeros(1, operator.channels, *(reach + 1 for reach in _reaches(_sliding(operator))))
    given = None if operator.context is None else operator.context(x)
    kernel = _constant("kernel", operator.kernel(x, given))
    bias = kernel.new_zeros(split.out_channels)
    if operator.bias_kernel is not None:
        weights = _constant("bias", operator.bias_kernel(x, given)).expand(split.g, split.o, 1, 1)
        bias = bias + split.merge(weights.expand(-1, -1, split.s, -1)[None])[0, :, 0]
    if operator.bias is not None:
        bias = bias + operator.bias
    return kernel, bias


def _constant(name: str, kernel: Tensor) -> Tensor:
    if kernel.shape[0] != 1 or kernel.shape[5:].numel() != 1:
        raise SpecError(f"{name} has shape {tuple(kernel.shape)}: its signature says that it is the same everywhere.")
    return kernel.flatten(4)[0].to(torch.promote_types(kernel.dtype, torch.float32))


def _map(project: nn.Module) -> Map | None:
    """A projection's map, its normalisation included; None where there is no projection."""
    if isinstance(project, nn.Identity):
        return None
    exact = torch.promote_types(next(project.parameters()).dtype, torch.float32)
    convolution, *norms = (copy.deepcopy(each).to(exact) for each in _layers(project))
    assert isinstance(convolution, Convolution)
    for norm in norms:
        assert isinstance(norm, HiddenNorm)
        convolution = fuse_conv_bn_eval(convolution, norm)
    matrix, shift = convolution.weight.flatten(1), convolution.bias
    return Map(matrix, matrix.new_zeros(len(matrix)) if shift is None else shift)


def _layers(project: nn.Module) -> list[nn.Module]:
    return list(project) if isinstance(project, nn.Sequential) else [project]


def _groups(split: Split) -> int:
    """Number of contiguous blocks of channels that do not mix: the letters in front, where both sides have the same."""
    sizes = {letter: getattr(split, letter) for letter in "gois"}
    sides = ([letter for letter in side if sizes.get(letter, 1) > 1] for side in (split.left, split.right))
    return prod(sizes[left] for left, _ in takewhile(lambda pair: pair[0] == pair[1], zip(*sides, strict=False)))


def _weight(kernel: Tensor, split: Split, groups: int) -> Tensor:
    """The weight of a convolution, `(g o s) (i / groups) k`: what it makes of each channel of a block alone."""
    kernel = kernel.expand(split.g, split.o, split.i, -1)
    one_by_one = torch.eye(split.channels // groups, dtype=kernel.dtype, device=kernel.device).repeat(1, groups)
    summed = torch.einsum("goik,bgis->bgosk", kernel, split.split(one_by_one))
    return split.merge(summed).transpose(0, 1)


def _convolution(operator: Foldable, weight: Tensor, bias: Tensor, groups: int) -> Convolution:
    window, like = _sliding(operator), next(chain(operator.parameters(), operator.buffers()))
    biased = operator.spec.bias is not False or _shifts(operator.spec.value) or _shifts(operator.spec.out)
    convolution = CONVOLUTIONS[window.dims](
        operator.channels,
        len(weight),
        window.sizes,
        window.strides,
        padding=tuple(reach // 2 for reach in _reaches(window)),
        dilation=window.dilations,
        groups=groups,
        bias=biased,
        padding_mode="zeros" if window.bounded else window.border,
        device="meta",  # so that no random numbers are drawn
    )
    assert isinstance(convolution, Convolution)
    # a kernel that is constant along its taps has one weight for all
    taps = weight.expand(-1, -1, window.taps).unflatten(2, window.sizes)
    convolution.weight = nn.Parameter(taps.to(like.dtype).contiguous())
    convolution.bias = nn.Parameter(bias.to(like.dtype)) if biased else None
    return convolution.eval()
