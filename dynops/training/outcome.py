"""What a training comes to: its metrics, from its history or, where it diverged, from a trivial guess."""

import math

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


def trivial(dataset: Dataset) -> dict[str, float]:
    """Score what a guess without a look at the input would earn."""
    if dataset.task == "classification":
        chance, loss = 1 / dataset.outputs, math.log(dataset.outputs)
        return {"accuracy": chance, "best_accuracy": chance, "loss": loss, "best_loss": loss, "train_loss": loss}
    targets = dataset.test.targets if dataset.mask is None else dataset.test.targets[..., dataset.mask]
    loss = float(targets.float().var(correction=0))
    return {"loss": loss, "best_loss": loss, "train_loss": loss}
