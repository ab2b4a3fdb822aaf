"""A training as Lightning sees it: losses, evaluation, optimiser, schedule, and the history of each seed's epochs."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from dynops.data import Batches, Dataset
from dynops.training.outcome import Epoch
from dynops.training.recipe import Recipe
from dynops.training.together import BatchesTogether, Together, clip_each

STEPS = 8
"""Steps that Lightning takes for one."""


class DivergedError(Exception):
    """The training left the finite numbers; a result, not a failure."""


class Mean:
    """The mean over all examples, `n`, summed up on the device so that no step waits for it."""

    def __init__(self) -> None:
        """Start empty."""
        self._total: Tensor | float = 0.0
        self._count = 0

    def add(self, values: Tensor) -> None:
        """Add examples, `n b`."""
        self._total = self._total + values.sum(1)
        self._count += values.shape[1]

    def take(self) -> list[float]:
        """Return the mean for each n, and start anew; waits for the device."""
        assert isinstance(self._total, Tensor), "examples came"
        mean = (self._total / self._count).tolist()
        self._total, self._count = 0.0, 0
        return mean


class Handfuls:
    """Batches by the handful, each batch made when it is asked for: several steps share Lightning's own work."""

    def __init__(self, batches: Batches | BatchesTogether) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return math.ceil(len(self.batches) / STEPS)

    def __iter__(self) -> Iterator[Iterator[tuple[Tensor, Tensor]]]:
        rest = iter(self.batches)
        for _ in range(len(self)):
            yield islice(rest, STEPS)


class Task(L.LightningModule):
    """A network that learns a data set by a recipe, and keeps what each epoch measured.

    Or several of one kind, each with a data set of its own. What is measured has an axis n of networks, of size 1 for
    one that is not `Together`. It takes its steps itself, which costs less than Lightning's hooks around each.
    """

    def __init__(
        self,
        network: nn.Module,
        datasets: Sequence[Dataset],
        recipe: Recipe,
        on_epoch: Callable[[Epoch], None] | None,
    ) -> None:
        """Prepare to learn.

        Args:
            network: one network, or networks `Together`.
            datasets: one for each network; all of one task, with one mask.
            recipe: how it is trained.
            on_epoch: called after each epoch with its entry of the history, or with the mean of the networks' entries.
        """
        super().__init__()
        self.automatic_optimization = False
        self.network = network
        self.together = isinstance(network, Together)
        self.recipe = recipe
        self.classification = datasets[0].task == "classification"
        self.on_epoch = on_epoch
        self.histories: list[list[Epoch]] = [[] for _ in datasets]
        self.reasons = ["" for _ in datasets]
        self.step_seconds: list[float] = []
        self.train_loss, self.loss, self.accuracy = Mean(), Mean(), Mean()
        self.mask: Tensor | None
        self.register_buffer("mask", datasets[0].mask, persistent=False)

    def errors(self, output: Tensor, target: Tensor, smoothing: float = 0.0) -> Tensor:
        """Return each example's cross-entropy, or mean squared error over the pixels that are judged, `n b`."""
        outputs, targets = output.flatten(0, 1), target.flatten(0, 1)
        if self.classification:
            errors = F.cross_entropy(outputs, targets, label_smoothing=smoothing, reduction="none")
        else:
            squared = (outputs - targets).square()
            errors = (squared if self.mask is None else squared[..., self.mask]).flatten(1).mean(1)
        return errors.unflatten(0, output.shape[:2])

    def training_step(self, batch: Iterator[tuple[Tensor, Tensor]], number: int) -> None:
        for inputs, targets in batch:
            losses = self._learnt(inputs, targets)
            self.train_loss.add(losses.detach().unsqueeze(1))
            self._step(losses.sum())  # a network's gradient is that of its own loss: no other depends on its weights

    def validation_step(self, batch: tuple[Tensor, Tensor], number: int) -> None:
        output, target = self._answered(*batch)
        output = output.float()
        self.loss.add(self.errors(output, target))
        if self.classification:
            self.accuracy.add((output.argmax(2) == target).float())

    def evaluated(self, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, list[float]]:
        """Return what each network is worth on batches, without a trace in the history."""
        for number, batch in enumerate(batches):
            self.validation_step(batch, number)
        return self._measured()

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        axes = 2 if self.together else 1
        weights = [parameter for parameter in self.network.parameters() if parameter.dim() > axes]
        others = [parameter for parameter in self.network.parameters() if parameter.dim() <= axes]
        optimiser = optimiser_of(weights, others, self.recipe)
        steps, warmup = self.recipe.epochs * len(self._batches()), self.recipe.warmup
        schedule = LambdaLR(optimiser, lambda step: share_of_peak(step, steps, warmup))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        optimiser, schedule = self.optimizers(use_pl_optimizer=False), self.lr_schedulers()
        assert isinstance(optimiser, Optimizer)
        assert isinstance(schedule, LambdaLR)
        self._optimiser, self._schedule = optimiser, schedule
        self._learnt: Callable[[Tensor, Tensor], Tensor] = self._losses
        if self.recipe.compile:
            mode = "reduce-overhead" if self.device.type == "cuda" else "default"
            self._learnt = torch.compile(self._losses, fullgraph=True, dynamic=False, mode=mode)
        self._scaler: torch.amp.GradScaler | None = getattr(self.trainer.precision_plugin, "scaler", None)

    def on_train_epoch_start(self) -> None:
        self._batches().epoch = self.current_epoch
        self._started = time.perf_counter()

    def on_validation_epoch_start(self) -> None:
        self._train_losses = self.train_loss.take()  # waits for a GPU, so that the time is that of the work
        steps = len(self._batches()) * len(self.histories)
        self.step_seconds.append((time.perf_counter() - self._started) / steps)

    def on_validation_epoch_end(self) -> None:
        measured = {"train_loss": self._train_losses} | self._measured()
        shared = {"epoch": self.current_epoch + 1.0, "learning_rate": float(self._schedule.get_last_lr()[0])}
        epochs = []
        for number, history in enumerate(self.histories):
            epoch = shared | {name: values[number] for name, values in measured.items()}
            self.reasons[number] = self.reasons[number] or _reason(epoch)
            if not self.reasons[number]:
                history.append(epoch)
                epochs.append(epoch)
        if not epochs:
            raise DivergedError
        if self.on_epoch is not None:
            self.on_epoch({name: sum(epoch[name] for epoch in epochs) / len(epochs) for name in epochs[0]})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["histories"] = self.histories
        checkpoint["reasons"] = self.reasons
        checkpoint["step_seconds"] = self.step_seconds

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.histories = checkpoint["histories"]
        self.reasons = checkpoint["reasons"]
        self.step_seconds = checkpoint["step_seconds"]

    def _measured(self) -> dict[str, list[float]]:
        """Take the means of what was evaluated."""
        return {"loss": self.loss.take()} | ({"accuracy": self.accuracy.take()} if self.classification else {})

    def _batches(self) -> Batches | BatchesTogether:
        """Return what is learnt from; Lightning has it before it asks for an optimiser, but not set up."""
        self.trainer.fit_loop.setup_data()
        handfuls = self.trainer.train_dataloader
        assert isinstance(handfuls, Handfuls)
        return handfuls.batches

    def _losses(self, x: Tensor, target: Tensor) -> Tensor:
        """Return what each network learns from, `n`."""
        return self.errors(*self._answered(x, target), self.recipe.label_smoothing).mean(1)

    def _answered(self, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return outputs and targets, both `n b ...`."""
        output = self.network(x)
        return (output, target) if self.together else (output.unsqueeze(0), target.unsqueeze(0))

    def _step(self, loss: Tensor) -> None:
        """Follow the gradient of a loss; float16 scales it, so that small numbers are not lost."""
        self._optimiser.zero_grad()
        if self._scaler is None:
            loss.backward()
            self._clip()
            self._optimiser.step()
        else:
            self._scaler.scale(loss).backward()
            self._scaler.unscale_(self._optimiser)
            self._clip()
            self._scaler.step(self._optimiser)
            self._scaler.update()
        self._schedule.step()

    def _clip(self) -> None:
        if self.recipe.clip is None:
            return
        if self.together:
            clip_each(self.network.parameters(), self.recipe.clip)
        else:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip)


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


def share_of_peak(step: int, steps: int, warmup: float) -> float:
    """Return the learning rate of a step as a share of its peak: a linear warm-up, then half a cosine to zero.

    >>> [round(share_of_peak(step, 10, 0.2), 2) for step in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rising) / max(1, steps - rising))))


def _reason(epoch: Epoch) -> str:
    """Say what left the finite numbers in an epoch; nothing where all stayed."""
    for name in ("train_loss", "loss"):
        if not math.isfinite(epoch[name]):
            return f"{name} was {epoch[name]} after epoch {int(epoch['epoch'])}"
    return ""
