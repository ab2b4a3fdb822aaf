"""Train a network on a data set by a recipe, with one seed or with several at once, and return a record for each."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dynops.data import Data
from dynops.errors import SpecError
from dynops.nets import Network
from dynops.records import RunRecord
from dynops.specs import at_least, digest
from dynops.training.devices import train_on_devices
from dynops.training.outcome import Epoch
from dynops.training.program import Program
from dynops.training.recipe import Recipe


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
    averaged: Sequence[str] = (),
    devices: int = 1,
    workers: int | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    on_step: Callable[[], None] | None = None,
) -> RunRecord:
    """Train a network from its initial weights, evaluate it after each epoch, and say what happened.

    On a CPU the same seed gives the same losses, to the bit. A GPU trains as the recipe's `precision` says. The
    last epoch's evaluation is the result; the best epoch's, chosen by hindsight, stands beside it.

    Args:
        network: what is trained.
        data: what it learns and is evaluated on.
        recipe: how it is trained.
        seed: of every random stream: split, subset, initial weights, order and augmentation.
        folder: where checkpoints go; a run that was cut off there goes on from the last one.
        root: folder of the data sets.
        accelerator: `cpu`, `cuda` or `mps`; `auto` takes the best one of this machine.
        images: how many evaluated inputs are kept in the record with their kernels.
        averaged: `h w`, `b h w` or both: the trained network is evaluated again with its kernels averaged along these
            axes, as metrics `accuracy_averaged_hw`, `loss_averaged_hw` and so on; a regression has the losses alone.
            `b` is a batch of evaluated examples: the batch size's number of them, and 500 at least.
        devices: how many GPUs of this machine, or processes on its CPU, share each batch. Batch norm sees each part
            alone, and so does the mixing of images in files; else the result is that of one device, up to the rounding
            of sums. `peak_memory` is that of the first. The processes import the main module anew: a script needs its
            `if __name__ == "__main__":`.
        workers: processes that decode images in files, for each device and split; 0 for none beside the one that
            trains. By default as many as the CPUs, shared out among the devices. The result does not depend on it.
        on_epoch: called with the history's newest entry after each epoch.
        on_step: called after each step and each batch that is evaluated, or now and then where devices share them.
    Returns:
        The record; a training that leaves the finite numbers is recorded as diverged, with its reason, and scored as
        a trivial predictor.
    Raises:
        DataError: the data are missing or corrupt.
        StudyError: the folder holds another run.
        ShapeError: the network cannot be built for the data.
        SpecError: this machine has no such accelerator or fewer devices, the batch size does not divide among them, a
            number is below its least, or kernels are not averaged along such axes.
    """
    program = Program(
        network=network,
        data=data,
        recipe=recipe,
        seeds=(seed,),
        together=False,
        path=None if folder is None else folder / "last.ckpt",
        root=root,
        accelerator=accelerator,
        images={seed: images},
        averaged=averaged,
        on_epoch=on_epoch,
        on_step=on_step,
        devices=devices,
        workers=workers,
    )
    at_least("devices", devices, 1)
    return (program.run() if devices == 1 else train_on_devices(program))[0]


def train_together(
    network: Network,
    data: Data,
    recipe: Recipe,
    seeds: Sequence[int],
    *,
    folder: Path | None = None,
    root: Path | None = None,
    accelerator: str = "auto",
    images: Mapping[int, int] | None = None,
    averaged: Sequence[str] = (),
    on_epoch: Callable[[Epoch], None] | None = None,
    on_step: Callable[[], None] | None = None,
) -> list[RunRecord]:
    """Train a network with several seeds as one program, each as `train` does, up to the rounding of sums.

    The weights are stacked, and each step goes through all networks at once; each has its own data, order,
    augmentation, running statistics and clipping. A seed that diverges leaves the others as they are. What is
    evaluated at once is shared out among the seeds, so that it needs no more memory than for one.

    A record's `seconds` and `step_milliseconds` are those of the program divided by the number of seeds; its
    `peak_memory` is the whole program's, and its `device` says how many seeds ran at once.

    Args:
        network: what is trained.
        data: what it learns and is evaluated on; as many examples for each seed.
        recipe: how it is trained. A GPU without bfloat16 trains in float32, where `train` has mixed precision.
        seeds: one or more, all different.
        folder: where checkpoints go, under names that depend on the seeds; a program that was cut off there goes on
            if it is asked for the same seeds.
        root: folder of the data sets.
        accelerator: as in `train`.
        images: how many evaluated inputs are kept, with their kernels, in the record of a seed; none where left out.
        averaged: as in `train`, with batches as large; seed after seed.
        on_epoch: called after each epoch with the mean of the history's newest entries.
        on_step: as in `train`.
    Returns:
        The records, in the order of the seeds.
    Raises:
        SpecError: the seeds are not all different, their data differ in size, or a layer of the network cannot be
            applied to several seeds at once; or as in `train`.
        DataError, StudyError, ShapeError: as in `train`.
    """
    seeds = tuple(seeds)
    if not seeds or len(set(seeds)) < len(seeds):
        raise SpecError(f"seeds has {seeds}: must be one or more, all different.")
    program = Program(
        network=network,
        data=data,
        recipe=recipe,
        seeds=seeds,
        together=True,
        path=None if folder is None else folder / f"seeds-{digest(seeds)}.ckpt",
        root=root,
        accelerator=accelerator,
        images=images or {},
        averaged=averaged,
        on_epoch=on_epoch,
        on_step=on_step,
    )
    return program.run()
