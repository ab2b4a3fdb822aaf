"""Which part of involution drives its gain: kernels that are generated, or kernels that channels share?

Only two things change. `kernel`: a static table; the parameter-matched static twin of a generated kernel, which is made
by the same phi from a learned constant; a kernel made by phi from each pixel. `channels`: a kernel for each channel, or
one for each group of 16. H1 and H2 come from a talk on involution that claims both.

    python -m studies.which_part
    python -m studies.which_part --data cifar10 --root data --fraction 0.1 --seeds 3
    python -m studies.which_part --budget parameters
"""

from dataclasses import replace
from typing import Any

from dynops import Channels, Dynamic, Static, zoo
from dynops.ablation import Bounded, Difference, Exceeds, Hypothesis, Interaction, Study
from dynops.cli import command
from studies.conducting import conduct
from studies.setting import MARGIN, Setting, operators

GENERATION = Difference("kernel", "pixel", "constant")
SHARING = Difference("channels", "grouped", "per_channel")
INTERACTION = Interaction(GENERATION, SHARING)
CHANGE = (Difference("kernel", "pixel", "static"), SHARING)  # from depthwise convolution to involution
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


def study(setting: Setting) -> Study:
    """Return the study: involution in the residual network, its kernel and its channels varied."""
    return setting.study(
        zoo.involution(kernel_size=3),
        name="which_part",
        question="Which part of involution drives the gain: generating kernels, or sharing them over channels?",
        factors=(
            operators(
                "kernel",
                {
                    "static": lambda operator: replace(operator, kernel=Static()),
                    "constant": lambda operator: replace(operator, kernel=Dynamic(context="constant")),
                    "pixel": lambda operator: replace(operator, kernel=Dynamic(context="pixel")),
                },
            ),
            operators(
                "channels",
                {
                    "per_channel": lambda operator: replace(operator, channels=Channels("g")),
                    "grouped": lambda operator: replace(operator, channels=Channels("(g s)", s=16)),
                },
            ),
        ),
        family=(GENERATION, SHARING, INTERACTION),
        hypotheses=HYPOTHESES,
        change=CHANGE,
    )


def main(**options: Any) -> None:
    """Run the study and print its verdicts; started again, it goes on where it was."""
    conduct("which_part", study, **options)


if __name__ == "__main__":
    command(main, "Which part of involution drives its gain: generated kernels, or kernels that channels share?")
