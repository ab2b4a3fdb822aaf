"""What a module costs: trainable parameters, and multiply-accumulates by one stated rule."""

import copy
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Counted(nn.Module, ABC):
    """A module that multiplies features itself, beside those of the layers inside it."""

    @abstractmethod
    def own_macs(self, x: Tensor) -> int:
        """Count the products of one call on features `b c h w`."""


def parameters(module: nn.Module) -> int:
    """Count the trainable parameters."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def macs(module: nn.Module, *shapes: tuple[int, ...]) -> int:
    """Count the multiply-accumulates of one call, without computing anything.

    Rule: one for each product of a weight and a feature in a convolution, a linear layer and a local sum, and of a
    query and a key or position. Biases, normalisations, activations, poolings and the algebra of kernels count nothing.

    Args:
        module: networks and operators alike.
        shapes: the shape of each input.
    """
    counted = 0
    dry = copy.deepcopy(module).to("meta").float().eval()

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal counted
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            counted += output.numel() * layer.weight[0].numel()
        elif isinstance(layer, nn.Linear):
            counted += output.numel() * layer.in_features
        elif isinstance(layer, Counted):
            counted += layer.own_macs(inputs[0])

    for layer in dry.modules():
        layer.register_forward_hook(count)
    with torch.no_grad():
        dry(*(torch.empty(shape, device="meta") for shape in shapes))
    return counted
