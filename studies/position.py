"""Does involution know where it is?

H5: equal pixels get equal kernels, so it cannot, but for what the border gives away; coordinates as a second context
can tell. The outcome is the mean square error of the selector-shift probe `position`, where the answer is the neighbour
that a fixed, invisible map of positions points at: 0.75 at best for a kernel that cannot tell, 0 for one that can.

    python -m studies.position
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from dynops import Channels, Dynamic, Kernel, Operator, Static, Window
from dynops.ablation import Difference, Exceeds, Factor, Hypothesis, Job, Study, Within, report
from dynops.cli import command, show
from dynops.data import SelectorShift
from dynops.nets import Bare
from dynops.records import RunRecord
from dynops.training import Experiment, Recipe
from studies.running import execute
from studies.setting import Conditions

NOTHING = 0.02  # of an error that is 0.75 at best without positions
KERNELS: dict[str, Kernel] = {
    "static": Static(),
    "pixel": Dynamic(context="pixel", hidden=24, norm=None, bias=True),
    "pixel_and_coordinates": Dynamic(context=("pixel", "coordinates"), hidden=24, norm=None, bias=True),
    "position": Dynamic(context="position", hidden=24, norm=None, bias=True),
}
BORDERS = ("circular", "zeros")


def _with(**fields: Any) -> Callable[[Experiment], Experiment]:
    """Make a level that changes fields of the operator."""

    def level(experiment: Experiment) -> Experiment:
        assert isinstance(experiment.network, Bare)
        assert isinstance(experiment.network.operator, Operator)
        operator = replace(experiment.network.operator, **fields)
        return replace(experiment, network=replace(experiment.network, operator=operator))

    return level


def study(steps: int, seeds: int, run: Callable[[Job], RunRecord]) -> Study:
    """Return the study: what a kernel is made from, with and without a border that can be seen."""
    batch_size, epochs = 32, 2
    recipe = Recipe(epochs=epochs, batch_size=batch_size, learning_rate=1e-2, weight_decay=0.0, clip=None)
    operator = Operator(kernel=KERNELS["static"], channels=Channels("s"), window=Window(3))
    hidden = ("border", "circular")
    blind = Difference("kernel", "pixel", "static")
    return Study(
        name="position",
        question="Does a kernel that is made from its pixel know where it is?",
        base=Experiment(
            network=Bare(operator=operator),
            data=SelectorShift(task="position", train=steps * batch_size // epochs),
            recipe=recipe,
        ),
        factors=(
            Factor("border", {border: _with(window=Window(3, border=border)) for border in BORDERS}),
            Factor("kernel", {name: _with(kernel=kernel) for name, kernel in KERNELS.items()}),
        ),
        seeds=range(seeds),
        run=run,
        outcome="loss",
        unit="raw",
        higher_is_better=False,
        margin=NOTHING,
        family=(replace(blind, at=(hidden,)), blind, Difference("kernel", "pixel_and_coordinates", "pixel")),
        hypotheses=(
            Hypothesis(
                "H5",
                "With a border that cannot be seen, a pixel's kernel knows no more than a static one.",
                (Within(replace(blind, at=(hidden,)), margin=NOTHING),),
            ),
            Hypothesis(
                "H5-position",
                "A kernel for each position knows: its error is at least half a unit lower.",
                (Exceeds((Difference("kernel", "static", "position"),), margin=0.5),),
            ),
            Hypothesis(
                "H5-coordinates",
                "Coordinates beside the pixel lower its error.",
                (Exceeds((Difference("kernel", "pixel", "pixel_and_coordinates"),)),),
            ),
        ),
    )


def made(steps: int, seeds: int, accelerator: str = "auto") -> Study:
    """Make the study from plain values, here or in another process."""
    found = study(steps, seeds, Conditions(accelerator=accelerator).run)
    for cell in found.cells():
        cell.check(0, accelerator=accelerator)
    return found


def main(
    seeds: int = 8,
    steps: int = 800,
    folder: Path = Path("runs/position"),
    accelerator: str = "auto",
    **running: Any,
) -> None:
    """Run the study and print its verdicts; started again, it goes on where it was.

    Args:
        seeds: number of blocks.
        steps: training steps of each run, an even number.
        folder: where records and report go.
        accelerator: `cpu`, `cuda` or `mps`; `auto` takes the best one of this machine.
        running: by whom; options of `studies.running.execute`.
    """
    execute(partial(made, steps, seeds, accelerator), folder, **running)
    show(report(folder))


if __name__ == "__main__":
    command(main, "Does a kernel that is made from its pixel know where it is?")
