"""What the studies of image classification have in common: data, network, recipe, and tuning.

A study file states its question: a base, factors, hypotheses. `conduct` does the rest, with the same options for all.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from dynops import Operator
from dynops.ablation import Factor, Job, Study, Tuning
from dynops.data import Cifar10, Cifar100, Digits, FashionMnist, ImageData, Mnist
from dynops.errors import SpecError
from dynops.nets import ResidualNetwork
from dynops.parts import Layer
from dynops.records import RunRecord
from dynops.training import Experiment, Recipe

DATA: dict[str, Callable[..., ImageData]] = {
    "digits": Digits,
    "cifar10": Cifar10,
    "cifar100": Cifar100,
    "mnist": Mnist,
    "fashion_mnist": FashionMnist,
}
MARGIN = 0.01  # one point of accuracy: a smaller difference is none to a user
RATE = 1e-2
LEARNING_RATES = (3e-3, 1e-2, 3e-2, 1e-1)
TUNING_SEEDS = (1000, 1001, 1002, 1003)  # none of a comparison's
Change = Callable[[Operator], Layer]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """On what a study is run."""

    data: ImageData
    recipe: Recipe
    seeds: Sequence[int]
    run: Callable[[Job], RunRecord]
    fraction: float | None = None
    """Share of the training data that was asked for; None: what serves the study."""
    run_together: Callable[[Sequence[Job]], Sequence[RunRecord]] | None = None
    budget: str = "as_is"
    match: Callable[[Experiment, Experiment, str], Experiment] | None = None
    tuning: Tuning | None = None

    @property
    def small(self) -> bool:
        """Whether the images are of 8x8 pixels."""
        return isinstance(self.data, Digits)

    def study(self, operator: Layer, **stated: Any) -> Study:
        """Return a study whose base has an operator in every block; the rest is what the study states."""
        return Study(
            base=Experiment(network=network(operator, self.small), data=self.data, recipe=self.recipe),
            seeds=self.seeds,
            run=self.run,
            run_together=self.run_together,
            budget=self.budget,
            match=None if self.budget == "as_is" else self.match,
            tuning=self.tuning,
            **({"margin": MARGIN} | stated),
        )


def network(operator: Layer, small: bool) -> ResidualNetwork:
    """Return the network of all cells: three blocks of 32 channels on small images, three stages on larger ones."""
    if small:
        return ResidualNetwork(operators=(operator,), depths=(3,), width=32)
    return ResidualNetwork(operators=(operator,), depths=(1, 1, 1), width=32, stem_stride=2)


def on_operator(change: Change) -> Callable[[Experiment], Experiment]:
    """Turn a change of the operator into one of the experiment."""

    def level(experiment: Experiment) -> Experiment:
        assert isinstance(experiment.network, ResidualNetwork)
        (operator,) = experiment.network.operators
        assert isinstance(operator, Operator)
        return replace(experiment, network=replace(experiment.network, operators=(change(operator),)))

    return level


def shares_of_data(setting: Setting, shares: Sequence[float]) -> Factor:
    """Return a factor that varies how much is learnt from, in as many steps as the setting has.

    The shares are those of the fraction that was asked for, and of all data where none was. All cells are evaluated as
    often.
    """
    data, recipe, whole = setting.data, setting.recipe, setting.fraction or 1.0

    epochs = max(1, round(recipe.epochs * data.fraction / whole))

    def level(share: float) -> Callable[[Experiment], Experiment]:
        times = round(1 / share)

        def changed(experiment: Experiment) -> Experiment:
            assert isinstance(experiment.data, ImageData)
            return replace(
                experiment,
                data=replace(experiment.data, fraction=whole * share),
                recipe=replace(experiment.recipe, epochs=epochs * times, evaluate_every=times),
            )

        return changed

    return Factor(
        "data", {f"{whole * each:g}": level(each) for each in shares}, scale=[whole * each for each in shares]
    )


def operators(name: str, levels: dict[str, Change], scale: Sequence[float] = ()) -> Factor:
    """Return a factor that varies the operator."""
    return Factor(name, {level: on_operator(change) for level, change in levels.items()}, scale=scale)


def chosen(data: str, fraction: float | None, *, root: Path | None, download: bool, **fields: Any) -> ImageData:
    """Return the data that the options of a study name, once they are there; errors as in `ImageData.load`."""
    if data == "digits" and (root is not None or download):
        raise SpecError(f"data has 'digits', root has {root}, download has {download}: digits need no files.")
    share = (0.2 if data == "digits" else 1.0) if fraction is None else fraction
    images = DATA[data](fraction=share, **fields)
    images.load(0, root=root, download=download)
    return images


def recipe_for(
    data: ImageData,
    epochs: int,
    *,
    rate: float = RATE,
    compile: bool = False,  # noqa: A002  # the option's name
) -> Recipe:
    """Return the recipe of all cells, before any tuning."""
    batch_size = 32 if isinstance(data, Digits) else 128
    return Recipe(epochs=epochs, batch_size=batch_size, learning_rate=rate, compile=compile)


def learning_rate(candidates: Sequence[float] = LEARNING_RATES) -> Tuning:
    """Return the tuning of each cell's learning rate, on training images that it does not learn."""
    factor = Factor("learning_rate", {f"{rate:g}": partial(with_rate, rate=rate) for rate in candidates})
    return Tuning(factor=factor, held_out=held_out, seeds=TUNING_SEEDS)


def with_rate(experiment: Experiment, rate: float) -> Experiment:
    """Return an experiment with another learning rate."""
    return replace(experiment, recipe=replace(experiment.recipe, learning_rate=rate))


def held_out(experiment: Experiment) -> Experiment:
    """Return an experiment that is evaluated on training images which it does not learn."""
    assert isinstance(experiment.data, ImageData)
    recipe = replace(experiment.recipe, evaluate_every=experiment.recipe.epochs)  # the last epoch is what counts
    return replace(experiment, data=replace(experiment.data, evaluate="validation"), recipe=recipe)


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Under which an experiment is run on this machine."""

    root: Path | None = None
    accelerator: str = "auto"
    averaged: Sequence[str] = ()
    devices: int = 1

    def run(self, job: Job) -> RunRecord:
        """Train and evaluate one cell with one seed."""
        assert isinstance(job.spec, Experiment)
        return job.spec.run(
            job.seed,
            folder=job.folder,
            root=self.root,
            accelerator=self.accelerator,
            averaged=self.averaged,
            images=4 if job.first_block else 0,
            devices=self.devices,
            on_epoch=job.on_epoch,
            on_step=job.alive,
        )

    def run_together(self, jobs: Sequence[Job]) -> list[RunRecord]:
        """Train and evaluate one cell with several seeds as one program."""
        assert isinstance(jobs[0].spec, Experiment)
        return jobs[0].spec.run_together(
            [job.seed for job in jobs],
            folder=jobs[0].folder.parent,
            root=self.root,
            accelerator=self.accelerator,
            averaged=self.averaged,
            images={job.seed: 4 for job in jobs if job.first_block},
            on_epoch=jobs[0].on_epoch,
            on_step=jobs[0].alive,
        )

    def match(self, cell: Experiment, base: Experiment, rule: str) -> Experiment:
        """Bring a cell to what the base costs."""
        return cell.matched(base, rule, root=self.root, accelerator=self.accelerator)
