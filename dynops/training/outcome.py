"""What a training comes to: its metrics, from its history or, where it diverged, from a trivial guess."""

import math
from collections.abc import Sequence

from dynops.data import Dataset

Epoch = dict[str, float]


def metrics(history: list[Epoch]) -> dict[str, float]:
    """Return the last epoch's metrics, and beside them the best epoch's."""
    last = history[-1]
    found: dict[str, float] = {name: last[name] for name in ("accuracy", "loss", "train_loss") if name in last}
    found["best_loss"] = min(epoch["loss"] for epoch in history)
    if "accuracy" in last:
        found["best_accuracy"] = max(epoch["accuracy"] for epoch in history)
    return found


def trivial(dataset: Dataset, averaged: Sequence[str] = ()) -> dict[str, float]:
    """Score what a guess without a look at the input would earn, whatever its kernels are averaged along."""
    if dataset.task == "classification":
        guess = {"accuracy": 1 / dataset.outputs, "loss": math.log(dataset.outputs)}
    else:
        targets = dataset.test.targets if dataset.mask is None else dataset.test.targets[..., dataset.mask]
        guess = {"loss": float(targets.float().var(correction=0))}
    best = {f"best_{name}": value for name, value in guess.items()}
    means = {averaged_name(name, axes): value for name, value in guess.items() for axes in averaged}
    return guess | best | {"train_loss": guess["loss"]} | means


def averaged_name(metric: str, axes: str) -> str:
    """Name a metric of a network whose kernels are averaged.

    >>> averaged_name("accuracy", "b h w")
    'accuracy_averaged_bhw'
    """
    return f"{metric}_averaged_{axes.replace(' ', '')}"
