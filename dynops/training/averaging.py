"""What a trained network is worth with kernels that are the same everywhere."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import torch
from torch import nn

from dynops.data import Batches, Dataset
from dynops.parts import averaged
from dynops.training.outcome import averaged_name, trivial
from dynops.training.recipe import Recipe
from dynops.training.task import Task


def averaged_metrics(
    network: nn.Module,
    dataset: Dataset,
    recipe: Recipe,
    axes: Sequence[str],
    *,
    device: torch.device,
    batch_size: int,
    precision: Callable[[], AbstractContextManager[object]],
    workers: int | None,
) -> dict[str, float]:
    """Evaluate a network once for each choice of axes along which its kernels are averaged.

    Args:
        network: trained; it is left as it is, where it is.
        dataset: its test examples are evaluated, in their order.
        recipe: how the network was trained.
        axes: what `averaged` takes.
        device: where to evaluate.
        batch_size: examples that are evaluated at once, over which `b h w` averages.
        precision: makes the context of an evaluation, as in training.
        workers: as in `Batches`.
    Returns:
        `accuracy_averaged_hw`, `loss_averaged_bhw` and so on; that of a trivial guess in the place of a loss that is
        not finite.
    """
    place = next(network.parameters()).device
    batches = Batches(dataset=dataset, split="test", batch_size=batch_size, device=device, workers=workers)
    task = Task(network, (dataset,), replace(recipe, ema=None), None).to(device).eval()  # it has what was averaged
    found: dict[str, float] = {}
    for each in axes:
        with torch.no_grad(), averaged(network, each), precision():
            measured = {name: values[0] for name, values in task.evaluated(batches).items()}
        if not math.isfinite(measured["loss"]):
            measured = {name: trivial(dataset)[name] for name in measured}
        found |= {averaged_name(name, each): value for name, value in measured.items()}
    network.to(place)
    return found
