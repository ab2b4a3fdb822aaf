"""One training as Lightning sees it: loss, evaluation, optimiser, schedule, and the history of its epochs."""

import math
import time
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torchmetrics import MeanMetric

from dynops.data import Batches, Dataset
from dynops.training.recipe import Recipe

Epoch = dict[str, float]


class DivergedError(Exception):
    """The training left the finite numbers; a result, not a failure."""


class Task(L.LightningModule):
    """A network that learns a data set by a recipe, and keeps what each epoch measured."""

    def __init__(
        self, network: nn.Module, dataset: Dataset, recipe: Recipe, on_epoch: Callable[[Epoch], None] | None
    ) -> None:
        super().__init__()
        self.network = network
        self.recipe = recipe
        self.classification = dataset.task == "classification"
        self.on_epoch = on_epoch
        self.history: list[Epoch] = []
        self.step_seconds: list[float] = []
        # without a check for nan, which is ours to make; but then torchmetrics passes weights over, so none are given
        self.train_loss = MeanMetric(nan_strategy="disable")
        self.loss = MeanMetric(nan_strategy="disable")
        self.accuracy = MeanMetric()
        self.mask: Tensor | None
        self.register_buffer("mask", dataset.mask, persistent=False)

    def errors(self, output: Tensor, target: Tensor, smoothing: float = 0.0) -> Tensor:
        """Return each example's cross-entropy, or mean squared error over the pixels that are judged, `b`."""
        if self.classification:
            return F.cross_entropy(output, target, label_smoothing=smoothing, reduction="none")
        squared = (output - target).square()
        return (squared if self.mask is None else squared[..., self.mask]).flatten(1).mean(1)

    def training_step(self, batch: tuple[Tensor, Tensor], number: int) -> Tensor:
        x, target = batch
        loss = self.errors(self.network(x), target, self.recipe.label_smoothing).mean()
        self.train_loss.update(loss.detach())
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], number: int) -> None:
        x, target = batch
        output = self.network(x).float()
        self.loss.update(self.errors(output, target))
        if self.classification:
            self.accuracy.update((output.argmax(1) == target).float())

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        weights = [parameter for parameter in self.network.parameters() if parameter.dim() > 1]
        others = [parameter for parameter in self.network.parameters() if parameter.dim() <= 1]
        groups: list[dict[str, Any]] = [{"params": weights}, {"params": others, "weight_decay": 0.0}]
        recipe = self.recipe
        optimiser: torch.optim.Optimizer
        if recipe.optimiser == "sgd":
            optimiser = torch.optim.SGD(
                groups,
                recipe.learning_rate,
                momentum=recipe.momentum,
                weight_decay=recipe.weight_decay,
                nesterov=recipe.momentum > 0,
            )
        else:
            optimiser = torch.optim.AdamW(groups, recipe.learning_rate, weight_decay=recipe.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: share_of_peak(step, steps, recipe.warmup))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_epoch_start(self) -> None:
        batches = self.trainer.train_dataloader
        assert isinstance(batches, Batches)
        batches.epoch = self.current_epoch
        self._started = time.perf_counter()

    def on_validation_epoch_start(self) -> None:
        float(self.train_loss.compute())  # waits for a GPU, so that the time is that of the work
        self.step_seconds.append((time.perf_counter() - self._started) / self.trainer.num_training_batches)

    def on_validation_epoch_end(self) -> None:
        epoch = {
            "epoch": self.current_epoch + 1.0,
            "train_loss": float(self.train_loss.compute()),
            "loss": float(self.loss.compute()),
            "learning_rate": self._learning_rate(),
        }
        if self.classification:
            epoch["accuracy"] = float(self.accuracy.compute())
        for metric in (self.train_loss, self.loss, self.accuracy):
            metric.reset()
        for name in ("train_loss", "loss"):
            if not math.isfinite(epoch[name]):
                raise DivergedError(f"{name} was {epoch[name]} after epoch {self.current_epoch + 1}")
        self.history.append(epoch)
        if self.on_epoch is not None:
            self.on_epoch(epoch)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = self.history
        checkpoint["step_seconds"] = self.step_seconds

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = checkpoint["history"]
        self.step_seconds = checkpoint["step_seconds"]

    def _learning_rate(self) -> float:
        optimiser = self.optimizers()
        assert not isinstance(optimiser, list)
        return float(optimiser.param_groups[0]["lr"])


def share_of_peak(step: int, steps: int, warmup: float) -> float:
    """Return the learning rate of a step as a share of its peak: a linear warm-up, then half a cosine to zero.

    >>> [round(share_of_peak(step, 10, 0.2), 2) for step in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rising) / max(1, steps - rising))))
