"""A training from its data to its records: one network, or the networks of several seeds as one program."""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from dynops.data import Batches, Data, Dataset, ImageFiles
from dynops.data.decoder import naming_lost_workers
from dynops.errors import SpecError
from dynops.nets import Network
from dynops.parts import macs, parameters
from dynops.parts.averaged import AXES
from dynops.records import RunRecord
from dynops.specs import digest, one_of
from dynops.streams import stream_seed
from dynops.training.averaging import averaged_metrics
from dynops.training.checkpoint import Checkpoint, resume_point
from dynops.training.environment import choose_accelerator, commit, device_name, peak_memory, versions
from dynops.training.feed import Feed, Handfuls
from dynops.training.images import kernel_images
from dynops.training.mixing import check_mixing, mixer
from dynops.training.outcome import Epoch, metrics, trivial
from dynops.training.recipe import Recipe
from dynops.training.settings import own_settings, precision_of
from dynops.training.start import initialise
from dynops.training.task import DivergedError, Task
from dynops.training.together import FeedTogether, Together, check_together

EVALUATED = 500  # images in a batch of an evaluation, of all seeds, at least


@lru_cache(maxsize=1)
def load(data: Data, seeds: tuple[int, ...], root: Path | None) -> tuple[Dataset, ...]:
    """Load the data of some blocks, once for all cells that follow each other."""
    return tuple(data.load(seed, root=root) for seed in seeds)


@dataclass(frozen=True, kw_only=True)
class Program:
    """What `train` and `train_together` ask for; their arguments say what each field is."""

    network: Network
    data: Data
    recipe: Recipe
    seeds: tuple[int, ...]
    together: bool
    """Whether the networks are stacked; if not, there is one seed."""
    path: Path | None
    """Where the checkpoint goes."""
    root: Path | None
    accelerator: str
    images: Mapping[int, int]
    averaged: Sequence[str]
    on_epoch: Callable[[Epoch], None] | None
    on_step: Callable[[], None] | None = None
    devices: int = 1
    """How many processes, each with a device, train at once."""
    workers: int | None = None
    rank: int = 0
    """Which of them this is."""

    def run(self) -> list[RunRecord]:
        """Train, and return a record for each seed; errors are those of `train_together`.

        Of several processes the first one makes the records, the others none.
        """
        started = time.perf_counter()
        for axes in self.averaged:
            one_of("averaged", axes, AXES)
        datasets = load(self.data, self.seeds, self.root)
        _check_sizes(self.seeds, datasets)
        check_mixing(self.recipe, datasets[0].task)
        gpus = range(torch.cuda.device_count())
        with own_settings(), torch.random.fork_rng(devices=gpus), naming_lost_workers():
            networks = [self._start(seed, dataset) for seed, dataset in zip(self.seeds, datasets, strict=True)]
            task = Task(self._learner(networks, datasets), datasets, self.recipe, self.on_epoch, self.on_step)
            trainer = self._fit(task, datasets)
            if self.rank:
                return []
            device = trainer.strategy.root_device
            if isinstance(task.judged, Together):
                task.judged.unstack(networks)
            else:
                networks[0].load_state_dict(task.judged.state_dict())
            shared = {
                "seconds": (time.perf_counter() - started) / len(self.seeds),
                "step_milliseconds": 1000 * statistics.median(task.step_seconds),
                "peak_memory": peak_memory(device),
                "device": self._device_name(device),
                "versions": versions(),
                "commit": commit(),
                "spec": self._plain(),
            }
            return [
                self._outcome(task, number, networks[number], datasets[number], trainer, shared)
                for number in range(len(self.seeds))
            ]

    def _device_name(self, device: torch.device) -> str:
        at_once = f", {len(self.seeds)} seeds at once" if len(self.seeds) > 1 else ""
        return device_name(device) + at_once + (f", {self.devices} devices" if self.devices > 1 else "")

    def _start(self, seed: int, dataset: Dataset) -> nn.Module:
        module = self.network.build(dataset.input_shape, dataset.outputs)
        initialise(module, seed)
        return module

    def _learner(self, networks: list[nn.Module], datasets: tuple[Dataset, ...]) -> nn.Module:
        if not self.together:
            return networks[0]
        if self.recipe.channels_last:
            raise SpecError("recipe has channels_last=True: must be False for seeds that are trained together.")
        if isinstance(datasets[0].test.inputs, ImageFiles):
            raise SpecError(
                f"data has {self.data}: images in files are decoded for one network at a time. "
                "Train the seeds one by one, without `--batch-seeds`."
            )
        check_together(networks[0], datasets[0].normalise(datasets[0].test.inputs[:2]))
        return Together(networks)

    def _fit(self, task: Task, datasets: tuple[Dataset, ...]) -> L.Trainer:
        """Train until the last epoch or until no network has finite numbers; return the trainer."""
        run = {**self._plain(), **({"seeds": list(self.seeds)} if self.together else {"seed": self.seeds[0]})}
        made = {
            "network": self.network.to_json(),
            "input_shape": list(datasets[0].input_shape),
            "outputs": datasets[0].outputs,
            "seeds": list(self.seeds),
        }
        checkpoint = None if self.path is None else Checkpoint(self.path, run, made)
        trainer = self._trainer(checkpoint)
        device = trainer.strategy.root_device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        learnt, evaluated = self._learnt(datasets, device), self._evaluated(datasets, device)
        resume = None if checkpoint is None else resume_point(checkpoint)
        torch.manual_seed(stream_seed(self.seeds[0], "training", *([self.rank] if self.rank else [])))
        try:
            trainer.fit(task, Handfuls(learnt), evaluated, ckpt_path=resume, weights_only=True)
        except DivergedError:
            return trainer  # the task knows the reasons
        except SystemExit:
            # Lightning turns Ctrl-C into an exit of the whole process; the caller may still have work to keep
            raise KeyboardInterrupt from None
        finally:
            learnt.close()
            evaluated.close()
            if self.recipe.compile:
                torch.compiler.reset()  # no other run has its graphs, and they hold memory
        if trainer.interrupted:
            raise KeyboardInterrupt
        return trainer

    def _trainer(self, checkpoint: Checkpoint | None) -> L.Trainer:
        chosen = choose_accelerator(self.accelerator)
        return L.Trainer(
            accelerator=chosen,
            devices=self.devices,
            strategy="auto" if self.devices == 1 else DDPStrategy(broadcast_buffers=False),
            plugins=None if self.devices == 1 else LightningEnvironment(),
            precision=precision_of(self.recipe.precision, chosen, self.together),
            max_epochs=self.recipe.epochs,
            check_val_every_n_epoch=self.recipe.evaluate_every,
            deterministic=chosen == "cpu",
            callbacks=[] if checkpoint is None else [checkpoint],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )

    def _learnt(self, datasets: tuple[Dataset, ...], device: torch.device) -> Feed:
        return self._feed(
            Batches(
                dataset=dataset,
                split="train",
                batch_size=self.recipe.batch_size,
                device=device,
                seed=seed,
                augmentation=self.data.augmentation,
                mix=mixer(self.recipe, dataset.outputs),
                part=(self.rank, self.devices),
                workers=self.workers,
            )
            for seed, dataset in zip(self.seeds, datasets, strict=True)
        )

    def _evaluated(self, datasets: tuple[Dataset, ...], device: torch.device) -> Feed:
        size = max(self.recipe.batch_size // self.recipe.accumulate, EVALUATED // len(datasets))
        return self._feed(
            Batches(
                dataset=dataset,
                split="test",
                batch_size=size,
                device=device,
                part=(self.rank, self.devices),
                workers=self.workers,
            )
            for dataset in datasets
        )

    def _feed(self, batches: Iterable[Batches]) -> Feed:
        """Return the batches of all seeds as one."""
        feeds = list(batches)
        return FeedTogether(feeds) if self.together else feeds[0]

    def _outcome(
        self,
        task: Task,
        number: int,
        module: nn.Module,
        dataset: Dataset,
        trainer: L.Trainer,
        shared: Mapping[str, Any],
    ) -> RunRecord:
        seed, reason, history = self.seeds[number], task.reasons[number], task.histories[number]
        found = trivial(dataset, self.averaged) if reason else metrics(history)
        if self.averaged and not reason:
            found |= averaged_metrics(
                module,
                dataset,
                self.recipe,
                self.averaged,
                device=trainer.strategy.root_device,
                batch_size=max(self.recipe.batch_size, EVALUATED),
                precision=trainer.precision_plugin.forward_context,
                workers=self.workers,
            )
        return RunRecord(
            seed=seed,
            status="diverged" if reason else "complete",
            reason=reason,
            metrics=found,
            history=tuple(history),
            parameters=parameters(module),
            macs=macs(module, (1, *dataset.input_shape)),
            images={} if reason else kernel_images(module, dataset, self.images.get(seed, 0)),
            **shared,
        )

    def _plain(self) -> dict[str, Any]:
        return {"network": self.network.to_plain(), "data": self.data.to_plain(), "recipe": self.recipe.to_plain()}


def _check_sizes(seeds: tuple[int, ...], datasets: tuple[Dataset, ...]) -> None:
    """Raise a SpecError unless the data of all seeds can lie side by side."""
    for seed, dataset in zip(seeds, datasets, strict=True):
        came, first = _sizes(dataset), _sizes(datasets[0])
        if came != first:
            raise SpecError(
                f"data has {first} for seed {seeds[0]}, {came} for seed {seed}: sizes and judged pixels must be equal "
                "for seeds that are trained together. Train the seeds one by one, without `--batch-seeds`."
            )


def _sizes(dataset: Dataset) -> dict[str, Any]:
    return {
        "train": tuple(dataset.train.inputs.shape),
        "test": tuple(dataset.test.inputs.shape),
        "outputs": dataset.outputs,
        "judged": None if dataset.mask is None else digest(dataset.mask.tolist()),
    }
