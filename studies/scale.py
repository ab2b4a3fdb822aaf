"""Does the gain of generated kernels shrink as networks grow wider and deeper and data more?

H4: in every published ladder of sample-wise dynamics it does, in a unified frame local attention keeps its gain; the
ladders differ in recipe and ceiling. Here one recipe serves all. Width, depth and data are regimes.

    python -m studies.scale
    python -m studies.scale --data cifar10 --root data
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from dynops import Dynamic, zoo
from dynops.ablation import Difference, Exceeds, Factor, Hypothesis, Slope, Study
from dynops.cli import command
from dynops.nets import ResidualNetwork
from dynops.training import Experiment
from studies.conducting import conduct
from studies.setting import Setting, operators, shares_of_data

WIDTHS = (16, 32, 64)
DEPTHS = (1, 2)
SHARES = (0.2, 1.0)
GAIN = Difference("kernel", "pixel", "constant")
LOSS = Difference("kernel", "constant", "pixel")


def on_network(change: Callable[[ResidualNetwork], ResidualNetwork]) -> Callable[[Experiment], Experiment]:
    """Turn a change of the network into one of the experiment."""

    def level(experiment: Experiment) -> Experiment:
        assert isinstance(experiment.network, ResidualNetwork)
        return replace(experiment, network=change(experiment.network))

    return level


def wide(width: int) -> Callable[[Experiment], Experiment]:
    """Make a level of a width."""
    return on_network(lambda network: replace(network, width=width))


def deep(times: int) -> Callable[[Experiment], Experiment]:
    """Make a level with so many times the blocks."""
    return on_network(lambda network: replace(network, depths=tuple(depth * times for depth in network.depths)))


def study(setting: Setting) -> Study:
    """Return the study: pixels' kernels and their static twins, in networks of several sizes and on more and less data.

    The twin has the same phi, so that what is varied is where kernels come from and nothing else.
    """
    return setting.study(
        zoo.involution(kernel_size=3),
        name="scale",
        question="Does the gain of generated kernels shrink with width, depth and data?",
        factors=(
            Factor("width", {f"{width}": wide(width) for width in WIDTHS}, scale=WIDTHS),
            Factor("depth", {f"x{times}": deep(times) for times in DEPTHS}, scale=DEPTHS),
            shares_of_data(setting, SHARES),
            operators(
                "kernel",
                {
                    "constant": lambda operator: replace(operator, kernel=Dynamic(context="constant")),
                    "pixel": lambda operator: replace(operator, kernel=Dynamic(context="pixel")),
                },
            ),
        ),
        regimes=("width", "depth", "data"),
        family=(GAIN, *(Slope(GAIN, along) for along in ("width", "depth", "data"))),
        hypotheses=tuple(
            Hypothesis(f"H4-{each}", f"The gain of generation shrinks with {each}.", (Exceeds((Slope(LOSS, each),)),))
            for each in ("width", "depth", "data")
        ),
    )


def main(**options: Any) -> None:
    """Run the study and print its verdicts; started again, it goes on where it was."""
    conduct("scale", study, **options)


if __name__ == "__main__":
    command(main, "Does the gain of generated kernels shrink with width, depth and data?")
