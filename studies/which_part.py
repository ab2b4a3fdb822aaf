"""Which part of involution drives its gain: kernels that are generated, or kernels that channels share?

Only two things change. `kernel`: a static table; the parameter-matched static twin of a generated kernel, which is made
by the same phi from a learned constant; a kernel made by phi from each pixel. `channels`: a kernel for each channel, or
one for each group of 16. Cells are compared as they are; the report shows what each costs.

    python -m studies.which_part
    python -m studies.which_part --data cifar10 --root data --fraction 0.1 --seeds 3
    python -m studies.which_part --batch-seeds true
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from dynops import Channels, Dynamic, Operator, Static, zoo
from dynops.ablation import Bounded, Difference, Exceeds, Factor, Hypothesis, Interaction, Job, Study, report
from dynops.cli import command, show
from dynops.data import Cifar10, Cifar100, Digits, FashionMnist, ImageData, Mnist
from dynops.errors import SpecError
from dynops.nets import ResidualNetwork
from dynops.records import RunRecord
from dynops.training import Experiment, Recipe

DATA: dict[str, Callable[..., ImageData]] = {
    "digits": Digits,
    "cifar10": Cifar10,
    "cifar100": Cifar100,
    "mnist": Mnist,
    "fashion_mnist": FashionMnist,
}
GENERATION = Difference("kernel", "pixel", "constant")
SHARING = Difference("channels", "grouped", "per_channel")
INTERACTION = Interaction(GENERATION, SHARING)
CHANGE = (Difference("kernel", "pixel", "static"), SHARING)  # from depthwise convolution to involution
MARGIN = 0.01  # one point of accuracy: a smaller difference is none to a user
HYPOTHESES = (
    Hypothesis(
        "H1",
        "Generation and sharing act independently: their interaction is at most a third of the smaller main effect.",
        (Bounded(INTERACTION, by=GENERATION, ratio=1 / 3), Bounded(INTERACTION, by=SHARING, ratio=1 / 3)),
    ),
    Hypothesis(
        "H2",
        "Generation gains more than a point of accuracy over its static twin, and sharing costs less than that gain.",
        (Exceeds((GENERATION,), margin=MARGIN), Exceeds((GENERATION, SHARING))),
    ),
)


def network(operator: Operator, small: bool) -> ResidualNetwork:
    """Return the network of all cells: three blocks of 32 channels on small images, three stages on larger ones."""
    if small:
        return ResidualNetwork(operators=(operator,), depths=(3,), width=32)
    return ResidualNetwork(operators=(operator,), depths=(1, 1, 1), width=32, stem_stride=2)


def on_operator(change: Callable[[Operator], Operator]) -> Callable[[Experiment], Experiment]:
    """Turn a change of the operator into one of the experiment."""

    def level(experiment: Experiment) -> Experiment:
        assert isinstance(experiment.network, ResidualNetwork)
        (operator,) = experiment.network.operators
        assert isinstance(operator, Operator)
        return replace(experiment, network=replace(experiment.network, operators=(change(operator),)))

    return level


def study(
    data: ImageData,
    recipe: Recipe,
    seeds: int,
    run: Callable[[Job], RunRecord],
    name: str = "which_part",
    run_together: Callable[[Sequence[Job]], Sequence[RunRecord]] | None = None,
) -> Study:
    """Return the study: involution in the residual network, its kernel and its channels varied."""
    base = Experiment(
        network=network(zoo.involution(kernel_size=3), isinstance(data, Digits)), data=data, recipe=recipe
    )
    return Study(
        name=name,
        question="Which part of involution drives the gain: generating kernels, or sharing them over channels?",
        base=base,
        factors=(
            Factor(
                "kernel",
                {
                    "static": on_operator(lambda operator: replace(operator, kernel=Static())),
                    "constant": on_operator(lambda operator: replace(operator, kernel=Dynamic(context="constant"))),
                    "pixel": on_operator(lambda operator: replace(operator, kernel=Dynamic(context="pixel"))),
                },
            ),
            Factor(
                "channels",
                {
                    "per_channel": on_operator(lambda operator: replace(operator, channels=Channels("g"))),
                    "grouped": on_operator(lambda operator: replace(operator, channels=Channels("(g s)", s=16))),
                },
            ),
        ),
        seeds=range(seeds),
        run=run,
        run_together=run_together,
        margin=MARGIN,
        family=(GENERATION, SHARING, INTERACTION),
        hypotheses=HYPOTHESES,
        change=CHANGE,
    )


def main(
    data: Literal["digits", "cifar10", "cifar100", "mnist", "fashion_mnist"] = "digits",
    root: Path | None = None,
    download: bool = False,
    fraction: float | None = None,
    seeds: int = 8,
    epochs: int = 20,
    folder: Path | None = None,
    accelerator: str = "auto",
    batch_seeds: bool = False,
    compile: bool = False,  # noqa: A002
) -> None:
    """Run the study and print its verdicts; started again, it goes on where it was.

    Args:
        data: what the networks learn; digits come with scikit-learn, the others are read from the root.
        root: folder of the data sets, in torchvision's layouts; `data` by default.
        download: fetch data that are missing.
        fraction: share of the training data; by default all, and a fifth of the digits, whose networks would
            otherwise come too close to no error to tell them apart.
        seeds: number of blocks; each cell is trained once with each.
        epochs: passes over the training data.
        folder: where records and report go; by default `runs/which_part-` and the data.
        accelerator: `cpu`, `cuda` or `mps`; `auto` takes the best one of this machine.
        batch_seeds: train the seeds of a cell as one program, cell after cell; results are equal up to rounding, and
            times are those of the program divided by the number of seeds.
        compile: let torch compile the training step of each cell, with CUDA graphs on a GPU.
    """
    if data == "digits" and (root is not None or download):
        raise SpecError(f"data has 'digits', root has {root}, download has {download}: digits need no files.")
    share = (0.2 if data == "digits" else 1.0) if fraction is None else fraction
    images = DATA[data](fraction=share)
    batch_size = 32 if data == "digits" else 128
    recipe = Recipe(epochs=epochs, batch_size=batch_size, learning_rate=1e-2, compile=compile)

    def run(job: Job) -> RunRecord:
        assert isinstance(job.spec, Experiment)
        return job.spec.run(
            job.seed,
            folder=job.folder,
            root=root,
            accelerator=accelerator,
            images=4 if job.first_block else 0,
            on_epoch=job.on_epoch,
        )

    def run_together(jobs: Sequence[Job]) -> list[RunRecord]:
        assert isinstance(jobs[0].spec, Experiment)
        return jobs[0].spec.run_together(
            [job.seed for job in jobs],
            folder=jobs[0].folder.parent,
            root=root,
            accelerator=accelerator,
            images={job.seed: 4 for job in jobs if job.first_block},
            on_epoch=jobs[0].on_epoch,
        )

    which_part = study(images, recipe, seeds, run, run_together=run_together if batch_seeds else None)
    images.load(0, root=root, download=download)
    for cell in which_part.cells():
        cell.check(0, root=root, accelerator=accelerator)
    place = folder or Path("runs") / f"which_part-{data}{'' if fraction is None else f'-{fraction:g}'}"
    which_part.execute(place)
    show(report(place))


if __name__ == "__main__":
    command(main, "Which part of involution drives its gain: generated kernels, or kernels that channels share?")
