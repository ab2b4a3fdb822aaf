"""A training as Lightning sees it: losses, evaluation, optimiser, schedule, and the history of each seed's epochs."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import lightning as L
import torch
import torch.distributed
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from dynops.data import Dataset
from dynops.training.ema import Ema
from dynops.training.feed import Feed, Handfuls
from dynops.training.outcome import Epoch
from dynops.training.recipe import Recipe
from dynops.training.schedule import optimiser_of, schedule_of
from dynops.training.together import Together, clip_each


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

    def gather(self, device: torch.device) -> None:
        """Add what the other processes have of it; each then has the sum over all of them."""
        total = torch.as_tensor(self._total, dtype=torch.float64, device=device).reshape(-1)
        sums = torch.cat([total, total.new_tensor([self._count])])
        torch.distributed.all_reduce(sums)
        self._total, self._count = sums[:-1], int(sums[-1])

    def take(self) -> list[float]:
        """Return the mean for each n, and start anew; waits for the device."""
        assert isinstance(self._total, Tensor), "examples came"
        mean = (self._total / self._count).tolist()
        self._total, self._count = 0.0, 0
        return mean


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
        on_step: Callable[[], None] | None = None,
    ) -> None:
        """Prepare to learn.

        Args:
            network: one network, or networks `Together`.
            datasets: one for each network; all of one task, with one mask.
            recipe: how it is trained.
            on_epoch: called after each epoch with its entry of the history, or with the mean of the networks' entries.
            on_step: called after each step and each batch that is evaluated.
        """
        super().__init__()
        self.automatic_optimization = False
        if recipe.channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types lack it
        self.network = network
        self.ema = None if recipe.ema is None else Ema(self.network, recipe.ema)
        self.together = isinstance(network, Together)
        self.recipe = recipe
        self.classification = datasets[0].task == "classification"
        self.on_epoch = on_epoch
        self.on_step = on_step or (lambda: None)
        self.histories: list[list[Epoch]] = [[] for _ in datasets]
        self.reasons = ["" for _ in datasets]
        self.step_seconds: list[float] = []
        self.train_loss, self.loss, self.accuracy = Mean(), Mean(), Mean()
        self.mask: Tensor | None
        self.register_buffer("mask", datasets[0].mask, persistent=False)

    @property
    def judged(self) -> nn.Module:
        """The network that is evaluated and kept: with a moving average, that."""
        return self.network if self.ema is None else self.ema.network

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
            self._optimiser.zero_grad()
            self.train_loss.add(self._follow(inputs, targets).unsqueeze(1))
            self._step()
            self.on_step()

    def validation_step(self, batch: tuple[Tensor, Tensor], number: int) -> None:
        self.on_step()
        if not len(batch[1]):
            return  # the other devices have it all
        output, target = self._answered(self.judged, *batch)
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
        schedule = schedule_of(optimiser, self.recipe, self.recipe.epochs * len(self._feed()))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        optimiser, schedule = self.optimizers(use_pl_optimizer=False), self.lr_schedulers()
        assert isinstance(optimiser, Optimizer)
        assert isinstance(schedule, LambdaLR)
        self._optimiser, self._schedule = optimiser, schedule
        self._learnt: Callable[[Tensor, Tensor], Tensor] = self._losses
        if self.recipe.compile:
            # a graph's next run overwrites its gradients, which then must have been used
            graphs = self.device.type == "cuda" and self.recipe.accumulate == 1 and not self._shared
            mode = "reduce-overhead" if graphs else "default"
            self._learnt = torch.compile(self._losses, fullgraph=True, dynamic=False, mode=mode)
        self._scaler: torch.amp.GradScaler | None = getattr(self.trainer.precision_plugin, "scaler", None)

    def on_train_epoch_start(self) -> None:
        self._feed().epoch = self.current_epoch
        self._started = time.perf_counter()

    def on_validation_epoch_start(self) -> None:
        if self._shared:
            self.train_loss.gather(self.device)
            self._average_statistics()
        self._train_losses = self.train_loss.take()  # waits for a GPU, so that the time is that of the work
        steps = len(self._feed()) * len(self.histories)
        self.step_seconds.append((time.perf_counter() - self._started) / steps)

    def on_validation_epoch_end(self) -> None:
        if self._shared:
            self.loss.gather(self.device)
            self.accuracy.gather(self.device)
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

    @property
    def _shared(self) -> bool:
        """Whether other processes have a share of each batch."""
        return self.trainer.world_size > 1

    def _average_statistics(self) -> None:
        """Take the mean of all devices' running statistics; each had its own images."""
        for buffer in self.buffers():
            if buffer.is_floating_point():
                torch.distributed.all_reduce(buffer)
                buffer /= self.trainer.world_size

    def _feed(self) -> Feed:
        """Return what is learnt from; Lightning has it before it asks for an optimiser, but not set up."""
        self.trainer.fit_loop.setup_data()
        handfuls = self.trainer.train_dataloader
        assert isinstance(handfuls, Handfuls)
        return handfuls.feed

    def _follow(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Add up a batch's gradients, part by part, and return its losses, `n`."""
        axis = 1 if self.together else 0
        parts = list(zip(*(each.chunk(self.recipe.accumulate, axis) for each in (inputs, targets)), strict=True))
        total = torch.zeros((), device=inputs.device)
        for number, (x, target) in enumerate(parts, start=1):
            losses = self._learnt(x, target) * (x.shape[axis] / inputs.shape[axis])
            total = total + losses.detach()
            loss = losses.sum()  # a network's gradient is that of its own loss: no other depends on its weights
            self._backward(loss, last=number == len(parts))
        return total

    def _backward(self, loss: Tensor, *, last: bool) -> None:
        """Add the gradients of a loss, and with a batch's last one those of the other devices."""
        if self._shared:
            wrapper = self.trainer.strategy.model
            assert isinstance(wrapper, DistributedDataParallel)
            with nullcontext() if last else wrapper.no_sync():
                self.manual_backward(loss)
        else:
            # float16 scales it, so that small numbers are not lost
            (loss if self._scaler is None else self._scaler.scale(loss)).backward()

    def _losses(self, x: Tensor, target: Tensor) -> Tensor:
        """Return what each network learns from, `n`."""
        return self.errors(*self._answered(self.network, x, target), self.recipe.label_smoothing).mean(1)

    def _answered(self, network: nn.Module, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return outputs and targets, both `n b ...`."""
        output = network(x.contiguous(memory_format=torch.channels_last) if self.recipe.channels_last else x)
        return (output, target) if self.together else (output.unsqueeze(0), target.unsqueeze(0))

    def _step(self) -> None:
        """Move the weights along the gradients, and what follows them."""
        if self._scaler is None:
            self._clip()
            self._optimiser.step()
        else:
            self._scaler.unscale_(self._optimiser)
            self._clip()
            self._scaler.step(self._optimiser)
            self._scaler.update()
        self._schedule.step()
        if self.ema is not None:
            self.ema.follow(self.network)

    def _clip(self) -> None:
        if self.recipe.clip is None:
            return
        if self.together:
            clip_each(self.network.parameters(), self.recipe.clip)
        else:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip)


def _reason(epoch: Epoch) -> str:
    """Say what left the finite numbers in an epoch; nothing where all stayed."""
    for name in ("train_loss", "loss"):
        if not math.isfinite(epoch[name]):
            return f"{name} was {epoch[name]} after epoch {int(epoch['epoch'])}"
    return ""
