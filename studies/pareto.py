"""Which operators are on the front of accuracy against parameters and MACs?

A search, not an ablation: it looks through kernels, their size, how many channels share one, and the network's width
for what is worth its cost. Accuracy is that of held-out training images, so that neither the test images nor the seeds
of a study are used up: what the search finds are candidates, which a study must confirm.

    python -m studies.pareto
    python -m studies.pareto --data cifar10 --root data --fraction 0.1 --trials 100
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from dynops import Channels, Dynamic, Operator, Window, zoo
from dynops.ablation import Factor, Job, Objective, Search, search_report
from dynops.cli import command, show_search
from dynops.data import Digits, ImageData
from dynops.nets import ResidualNetwork
from dynops.records import RunRecord
from dynops.training import Experiment, Recipe
from dynops.training.environment import choose_accelerator
from studies.setting import chosen, network, operators, recipe_for

QUESTION = "Which operators are on the front of accuracy against parameters and MACs?"
OPERATORS = {
    "static": zoo.shared_depthwise(),
    "twin": replace(zoo.involution(), kernel=Dynamic(context="constant")),
    "involution": zoo.involution(),
    "static_plus_dynamic": zoo.static_plus_dynamic(),
    "pixel_mixture": zoo.pixel_mixture(),
    "attention": zoo.neighbourhood_attention(),
}
"""The families; how far they look and how many channels share a kernel are factors of their own."""
FIRST_SEED = 2000  # none of a study's
KERNEL_SIZES = (3, 5, 7)
GROUP_CHANNELS = (1, 4, 8, 16)
WIDTHS = (16, 24, 32, 48)


def of_family(family: Operator, operator: Operator) -> Operator:
    """Return the family's operator, looking as far and sharing as much as the one that it replaces."""
    assert isinstance(family.window, Window)
    assert isinstance(operator.window, Window)
    return replace(family, window=replace(family.window, size=operator.window.size), channels=operator.channels)


def of_size(size: int, operator: Operator) -> Operator:
    """Return the operator with a window of that side."""
    assert isinstance(operator.window, Window)
    return replace(operator, window=replace(operator.window, size=size))


def of_group(channels: int, operator: Operator) -> Operator:
    """Return the operator with a kernel for so many channels."""
    return replace(operator, channels=Channels("(g s)", s=channels))


def of_width(width: int, experiment: Experiment) -> Experiment:
    """Return the experiment with a network of that width."""
    assert isinstance(experiment.network, ResidualNetwork)
    return replace(experiment, network=replace(experiment.network, width=width))


def search(
    data: ImageData,
    recipe: Recipe,
    run: Callable[[Job], RunRecord],
    check: Callable[[Experiment], None],
    *,
    trials: int,
    seeds: int,
    sampler: str,
) -> Search:
    """Return the search: the residual network, its operator and its width varied."""
    small = isinstance(data, Digits)
    base = Experiment(network=network(zoo.involution(kernel_size=3), small), data=data, recipe=recipe)
    return Search(
        name="pareto",
        question=QUESTION,
        base=base,
        factors=(
            operators("operator", {name: partial(of_family, each) for name, each in OPERATORS.items()}),
            operators("kernel_size", {str(size): partial(of_size, size) for size in KERNEL_SIZES}),
            operators("group_channels", {str(channels): partial(of_group, channels) for channels in GROUP_CHANNELS}),
            Factor("width", {str(width): partial(of_width, width) for width in WIDTHS}),
        ),
        run=run,
        objectives=(
            Objective("accuracy", "maximise", unit="points"),
            Objective("parameters", "minimise"),
            Objective("macs", "minimise"),
        ),
        trials=trials,
        seeds=range(FIRST_SEED, FIRST_SEED + seeds),
        sampler=sampler,
        check=check,
        constraint="the network can be built: its width is a multiple of the channels that share a kernel",
    )


def main(
    data: Literal["digits", "cifar10", "cifar100", "mnist", "fashion_mnist"] = "digits",
    root: Path | None = None,
    download: bool = False,
    fraction: float | None = None,
    trials: int = 60,
    sampler: Literal["nsga2", "tpe", "random"] = "nsga2",
    seeds: int = 2,
    epochs: int = 20,
    folder: Path | None = None,
    accelerator: str = "auto",
) -> None:
    """Run the search and print its front; started again, it goes on where it was.

    Args:
        data: what the networks learn; digits come with scikit-learn, the others are read from the root.
        root: folder of the data sets, in torchvision's layouts; `data` by default.
        download: fetch data that are missing.
        fraction: share of the training data; by default all, and a fifth of the digits, whose networks would
            otherwise come too close to no error to tell them apart.
        trials: number of different points that are tried; more can be asked for later.
        sampler: what proposes them.
        seeds: number of trainings of each point; its accuracy is their mean.
        epochs: passes over the training data.
        folder: where records and report go; by default `runs/pareto-` and the data.
        accelerator: `cpu`, `cuda` or `mps`; `auto` takes the best one of this machine.
    """
    images = chosen(data, fraction, root=root, download=download, evaluate="validation")
    recipe = recipe_for(images, epochs)
    dataset = images.load(0, root=root)
    choose_accelerator(accelerator)

    def run(job: Job) -> RunRecord:
        assert isinstance(job.spec, Experiment)
        return job.spec.run(job.seed, folder=job.folder, root=root, accelerator=accelerator, on_epoch=job.on_epoch)

    def check(experiment: Experiment) -> None:
        with torch.device("meta"):
            experiment.network.build(dataset.input_shape, dataset.outputs)

    place = folder or Path("runs") / f"pareto-{data}{'' if fraction is None else f'-{fraction:g}'}"
    pareto = search(images, recipe, run, check, trials=trials, seeds=seeds, sampler=sampler)
    pareto.execute(place)
    show_search(search_report(place))


if __name__ == "__main__":
    command(main, QUESTION)
