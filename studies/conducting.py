"""From the options of a study of image classification to its verdicts, with the same options for all of them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

from dynops.ablation import Study, report
from dynops.ablation.maker import reference, resolve
from dynops.ablation.store import held
from dynops.cli import show
from dynops.errors import SpecError
from studies.running import execute
from studies.setting import RATE, Conditions, Setting, chosen, learning_rate, recipe_for


def made(
    study: str,
    *,
    data: str = "digits",
    root: str | None = None,
    fraction: float | None = None,
    seeds: int = 8,
    first_seed: int = 0,
    epochs: int = 20,
    accelerator: str = "auto",
    batch_seeds: bool = False,
    compile: bool = False,  # noqa: A002  # the option's name
    tune: bool = True,
    rate: float = RATE,
    budget: str = "as_is",
    average: bool = False,
    devices: int = 1,
) -> Study:
    """Make a study from plain values, here or in another process.

    Args:
        study: `module:name` of a function from a setting to a study.
        data, root, fraction, seeds, first_seed, epochs, accelerator, batch_seeds, compile, tune, rate, budget, average,
            devices: as in `conduct`.
    Raises:
        DataError: the data are missing.
        SpecError, StudyError: an option or the name is wrong.
    """
    if batch_seeds and devices > 1:
        raise SpecError(f"devices has {devices}, batch_seeds has True: seeds trained together have one device.")
    folder = None if root is None else Path(root)
    images = chosen(data, fraction, root=folder, download=False)
    averaged = ("h w", "b h w") if average else ()
    conditions = Conditions(root=folder, accelerator=accelerator, averaged=averaged, devices=devices)
    setting = Setting(
        data=images,
        recipe=recipe_for(images, epochs, rate=rate, compile=compile),
        seeds=range(first_seed, first_seed + seeds),
        fraction=fraction,
        run=conditions.run,
        run_together=conditions.run_together if batch_seeds else None,
        budget=budget,
        match=conditions.match,
        tuning=learning_rate() if tune else None,
    )
    found: Study = resolve(study)(setting)
    for cell in found.cells():
        cell.check(0, root=folder, accelerator=accelerator)
    return found


def conduct(
    name: str,
    study: Callable[[Setting], Study],
    *,
    data: Literal["digits", "cifar10", "cifar100", "mnist", "fashion_mnist"] = "digits",
    root: Path | None = None,
    download: bool = False,
    fraction: float | None = None,
    seeds: int = 8,
    first_seed: int = 0,
    epochs: int = 20,
    folder: Path | None = None,
    accelerator: str = "auto",
    batch_seeds: bool = False,
    compile: bool = False,  # noqa: A002  # the option's name
    tune: bool = True,
    rate: float = RATE,
    budget: Literal["as_is", "parameters", "macs", "latency"] = "as_is",
    average: bool = False,
    devices: int = 1,
    **running: Any,
) -> None:
    """Run a study and print its verdicts; started again, it goes on where it was.

    Args:
        name: of the study.
        study: makes it for a setting; a function of a module.
        data: what the networks learn; digits come with scikit-learn, the others are read from the root.
        root: folder of the data sets, in torchvision's layouts; `data` by default.
        download: fetch data that are missing.
        fraction: share of the training data; by default all, and a fifth of the digits, whose networks would
            otherwise come too close to no error to tell them apart.
        seeds: number of blocks; each cell is trained once with each.
        first_seed: from which they are counted: seeds that nobody has looked at, where an earlier look chose something.
        epochs: passes over the training data.
        folder: where records and report go; by default `runs/`, the study and the data.
        accelerator: `cpu`, `cuda` or `mps`; `auto` takes the best one of this machine.
        batch_seeds: train the seeds of a cell as one program, cell after cell; results are equal up to rounding, and
            times are those of the program divided by the number of seeds.
        compile: let torch compile the training step of each cell, with CUDA graphs on a GPU.
        tune: choose each cell's learning rate before the comparison, each of four with four seeds, on training images
            that are held out; else all have the `rate`.
        rate: learning rate of all cells that are not tuned.
        budget: `as_is`, or bring each cell's width to where it costs as much as the base: its `parameters`, its `macs`,
            or the `latency` of a training step.
        average: evaluate each network again with its kernels averaged over h, w and over b, h, w.
        devices: GPUs, or processes on a CPU, that train one run together.
        running: by whom; options of `studies.running.execute`.
    """
    if (known := reference(study)) is None:
        raise SpecError(f"study has {study}: must be a function of a module, so that another process finds it.")
    chosen(data, fraction, root=root, download=download)
    place = folder or Path("runs") / _folder(name, data, fraction, budget)
    maker = partial(
        made,
        known,
        data=data,
        root=None if root is None else str(root.resolve()),
        fraction=fraction,
        seeds=seeds,
        first_seed=first_seed,
        epochs=epochs,
        accelerator=accelerator,
        batch_seeds=batch_seeds,
        compile=compile,
        tune=tune,
        rate=rate,
        budget=budget,
        average=average,
        devices=devices,
    )
    records = execute(maker, place, devices=devices, **running)
    if not records:
        print(f"The study is in {place}. `dynops worker {place}` works on it, `dynops report {place}` reports.")
        return
    with held(place, wait=True):  # others may have worked on it, and now report as well
        show(report(place))


def _folder(name: str, data: str, fraction: float | None, budget: str) -> str:
    share = "" if fraction is None else f"-{fraction:g}"
    return f"{name}-{data}{share}{'' if budget == 'as_is' else f'-equal_{budget}'}"
