"""Train a network on a data set by a recipe, and return the record of the run."""

import contextlib
import logging
import math
import signal
import statistics
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Literal

import lightning as L
import torch

from dynops.data import Augmentation, Batches, Data, Dataset
from dynops.nets import Network
from dynops.parts import macs, parameters
from dynops.records import RunRecord
from dynops.streams import stream_seed
from dynops.training.checkpoint import Checkpoint, resume_point
from dynops.training.environment import choose_accelerator, commit, device_name, peak_memory, versions
from dynops.training.images import kernel_images
from dynops.training.recipe import Recipe
from dynops.training.start import initialise
from dynops.training.task import DivergedError, Epoch, Task

EVALUATED = 500  # images in a batch of an evaluation, at least


@lru_cache(maxsize=1)
def load(data: Data, seed: int, root: Path | None, download: bool = False) -> Dataset:
    """Load a block's data, once for all of its cells."""
    return data.load(seed, root=root, download=download)


def train(
    network: Network,
    data: Data,
    recipe: Recipe,
    seed: int,
    *,
    folder: Path | None = None,
    root: Path | None = None,
    accelerator: str = "auto",
    images: int = 0,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> RunRecord:
    """Train a network from its initial weights, evaluate it after each epoch, and say what happened.

    On a CPU the same seed gives the same losses, to the bit. A GPU trains in mixed precision. The last epoch's
    evaluation is the result; the best epoch's, chosen by hindsight, stands beside it.

    Args:
        network: what is trained.
        data: what it learns and is evaluated on.
        recipe: how it is trained.
        seed: of every random stream: split, subset, initial weights, order and augmentation.
        folder: where checkpoints go; a run that was cut off there goes on from the last one.
        root: folder of the data sets.
        accelerator: `cpu`, `cuda` or `mps`; `auto` takes the best one of this machine.
        images: how many evaluated inputs are kept in the record with their kernels.
        on_epoch: called with the history's newest entry after each epoch.
    Returns:
        The record; a training that leaves the finite numbers is recorded as diverged, with its reason, and scored as
        a trivial predictor.
    Raises:
        DataError: the data are missing or corrupt.
        StudyError: the folder holds another run.
        ShapeError: the network cannot be built for the data.
        SpecError: this machine has no such accelerator.
    """
    started = time.perf_counter()
    dataset = load(data, seed, root)
    run = {"network": network.to_plain(), "data": data.to_plain(), "recipe": recipe.to_plain()}
    checkpoint = None if folder is None else Checkpoint(folder, {**run, "seed": seed})
    reason = ""
    with _own_settings(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        module = network.build(dataset.input_shape, dataset.outputs)
        initialise(module, seed)
        torch.manual_seed(stream_seed(seed, "training"))
        task = Task(module, dataset, recipe, on_epoch)
        trainer = _trainer(recipe, accelerator, checkpoint)
        device = trainer.strategy.root_device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        try:
            _fit(trainer, task, dataset, data.augmentation, recipe, seed, checkpoint)
        except DivergedError as error:
            reason = str(error)
        return RunRecord(
            seed=seed,
            status="diverged" if reason else "complete",
            reason=reason,
            metrics=_trivial(dataset) if reason else _metrics(task.history),
            history=tuple(task.history),
            parameters=parameters(module),
            macs=macs(module, (1, *dataset.input_shape)),
            seconds=time.perf_counter() - started,
            step_milliseconds=1000 * statistics.median(task.step_seconds),
            peak_memory=peak_memory(device),
            device=device_name(device),
            versions=versions(),
            commit=commit(),
            spec=run,
            images={} if reason else kernel_images(module, dataset, images),
        )


def _trainer(recipe: Recipe, accelerator: str, checkpoint: Checkpoint | None) -> L.Trainer:
    chosen = choose_accelerator(accelerator)
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    if chosen == "cuda":
        precision = "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    return L.Trainer(
        accelerator=chosen,
        devices=1,
        precision=precision,
        max_epochs=recipe.epochs,
        gradient_clip_val=recipe.clip,
        deterministic=chosen == "cpu",
        callbacks=[] if checkpoint is None else [checkpoint],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


def _fit(
    trainer: L.Trainer,
    task: Task,
    dataset: Dataset,
    augmentation: Augmentation | None,
    recipe: Recipe,
    seed: int,
    checkpoint: Checkpoint | None,
) -> None:
    device = trainer.strategy.root_device
    learnt = Batches(
        dataset=dataset,
        split="train",
        batch_size=recipe.batch_size,
        device=device,
        seed=seed,
        augmentation=augmentation,
    )
    evaluated = Batches(dataset=dataset, split="test", batch_size=max(recipe.batch_size, EVALUATED), device=device)
    resume = None if checkpoint is None else resume_point(checkpoint)
    try:
        trainer.fit(task, learnt, evaluated, ckpt_path=resume, weights_only=True)
    except SystemExit:
        # Lightning turns Ctrl-C into an exit of the whole process; the caller may still have work to keep
        raise KeyboardInterrupt from None
    if trainer.interrupted:
        raise KeyboardInterrupt


def _metrics(history: list[Epoch]) -> dict[str, float]:
    last = history[-1]
    metrics: dict[str, float] = {name: last[name] for name in ("accuracy", "loss", "train_loss") if name in last}
    metrics["best_loss"] = min(epoch["loss"] for epoch in history)
    if "accuracy" in last:
        metrics["best_accuracy"] = max(epoch["accuracy"] for epoch in history)
    return metrics


def _trivial(dataset: Dataset) -> dict[str, float]:
    """Score what a guess without a look at the input would earn."""
    if dataset.task == "classification":
        chance, loss = 1 / dataset.outputs, math.log(dataset.outputs)
        return {"accuracy": chance, "best_accuracy": chance, "loss": loss, "best_loss": loss, "train_loss": loss}
    targets = dataset.test.targets if dataset.mask is None else dataset.test.targets[..., dataset.mask]
    loss = float(targets.float().var(correction=0))
    return {"loss": loss, "best_loss": loss, "train_loss": loss}


@contextlib.contextmanager
def _own_settings() -> Iterator[None]:
    """Keep Lightning's tips to itself, and give back the settings that a trainer changes for the whole process."""
    logger = logging.getLogger("lightning.pytorch")
    level, deterministic = logger.level, torch.are_deterministic_algorithms_enabled()
    on_interrupt = signal.getsignal(signal.SIGINT)
    benchmark = torch.backends.cudnn.benchmark
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        logger.setLevel(level)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, on_interrupt)  # Lightning leaves Ctrl-C ignored once it was pressed
        torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.benchmark = benchmark
