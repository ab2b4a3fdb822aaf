"""Kernel images: what each layer's generated kernels do over an input, as numbers that a record can hold."""

from typing import Any

import torch
from torch import Tensor, nn

from dynops.data import Dataset
from dynops.parts import LocalOperator

DIGITS = 4  # significant, enough for a picture


def kernel_images(network: nn.Module, dataset: Dataset, count: int) -> dict[str, Any]:
    """Sum each pixel's kernel over groups and taps, layer by layer, for the first evaluated inputs.

    Args:
        network: its layers whose kernels vary over h, w are shown.
        dataset: gives the inputs.
        count: number of inputs; 0 gives nothing.
    Returns:
        `{"inputs": n c h w from 0 to 1, "kernels": {layer: n h w}}` as nested lists.
    Source: the heat maps of the Keras example on involution.
    """
    layers = {
        name: layer
        for name, layer in network.named_modules()
        if isinstance(layer, LocalOperator) and {"h", "w"} <= layer.spec.kernel.signature
    }
    if not count or not layers:
        return {}
    device = next(network.parameters()).device
    inputs = dataset.test.inputs[:count].to(device)
    kernels: dict[str, list[Any]] = {}

    def keep(name: str, layer: LocalOperator, arguments: tuple[Tensor, ...]) -> None:
        kernel = layer.kernel(arguments[-1])  # b g o i k h w
        kernels[name] = _plain(kernel.float().sum((1, 2, 3, 4)).expand(len(inputs), -1, -1))

    hooks = [
        layer.register_forward_pre_hook(lambda module, arguments, name=name: keep(name, module, arguments))
        for name, layer in layers.items()
    ]
    training = network.training
    with torch.no_grad():
        network.eval()(dataset.normalise(inputs))
    network.train(training)
    for hook in hooks:
        hook.remove()
    return {"inputs": _plain((inputs / dataset.scale).clamp(0, 1)), "kernels": kernels}


def _plain(values: Tensor) -> list[Any]:
    def rounded(value: Any) -> Any:
        return [rounded(each) for each in value] if isinstance(value, list) else float(f"{value:.{DIGITS}g}")

    return rounded(values.tolist())
