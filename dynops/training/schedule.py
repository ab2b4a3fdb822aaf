"""Optimiser and learning rate of a recipe."""

import math
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from dynops.errors import SpecError
from dynops.training.recipe import Recipe


def optimiser_of(weights: list[nn.Parameter], others: list[nn.Parameter], recipe: Recipe) -> Optimizer:
    """Make a recipe's optimiser, which lets weights decay and others not; each number follows its own gradient."""
    groups: list[dict[str, Any]] = [{"params": weights}, {"params": others, "weight_decay": 0.0}]
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(
            groups,
            recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.momentum > 0,
        )
    return torch.optim.AdamW(groups, recipe.learning_rate, weight_decay=recipe.weight_decay)


def schedule_of(optimiser: Optimizer, recipe: Recipe, steps: int) -> LambdaLR:
    """Make the schedule of a training of so many steps.

    Raises:
        SpecError: the warm-up takes all of them.
    """
    if recipe.warmup >= max(1, steps):
        raise SpecError(
            f"warmup has {recipe.warmup} steps, the training has {steps}: must have more. "
            "Give the warm-up as a share, such as 0.1."
        )
    return LambdaLR(optimiser, lambda step: share_of_peak(step, steps, recipe.warmup, recipe.warmup_from))


def share_of_peak(step: int, steps: int, warmup: float, start: float = 0.0) -> float:
    """Return the learning rate of a step as a share of its peak: a linear warm-up, then half a cosine to zero.

    >>> [round(share_of_peak(step, 10, 0.2), 2) for step in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    >>> [share_of_peak(step, 100, 4, 0.25) for step in range(5)]
    [0.4375, 0.625, 0.8125, 1.0, 1.0]
    """
    rising = round(warmup * steps) if warmup < 1 else round(warmup)
    if step < rising:
        return start + (1 - start) * ((step + 1) / rising)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rising) / max(1, steps - rising))))
