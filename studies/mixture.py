"""Is it enough to choose, at each pixel, among a few static kernels?

H9 is this project's: on probes a mixture of four static depthwise kernels, weighed anew by each pixel, solves all that
a kernel generated for each channel solves, with 36 % of its parameters. Here mixtures stand against involution, by
default at equal parameters.

    python -m studies.mixture
    python -m studies.mixture --data cifar10 --root data --budget macs
"""

from functools import partial
from typing import Any

from dynops import Operator, zoo
from dynops.ablation import Difference, Exceeds, Hypothesis, Study
from dynops.cli import command
from studies.conducting import conduct
from studies.setting import Setting, operators

EXPERTS = (2, 4, 8)


def mixed(operator: Operator, experts: int) -> Operator:
    """Return a mixture in the place of the operator."""
    return zoo.pixel_mixture(experts=experts, kernel_size=3)


def study(setting: Setting) -> Study:
    """Return the study: involution, and mixtures of several numbers of experts."""
    gain = {experts: Difference("kernel", f"mixture_{experts}", "involution") for experts in EXPERTS}

    return setting.study(
        zoo.involution(kernel_size=3),
        name="mixture",
        question="Is a mixture of a few static kernels, weighed anew by each pixel, better than generating kernels?",
        factors=(
            operators(
                "kernel",
                {"involution": lambda operator: operator}
                | {f"mixture_{experts}": partial(mixed, experts=experts) for experts in EXPERTS},
            ),
        ),
        family=tuple(gain.values()),
        hypotheses=(
            Hypothesis(
                "H9",
                "Mixtures of 2, 4 and 8 kernels each beat involution.",
                tuple(Exceeds((each,)) for each in gain.values()),
            ),
        ),
    )


def main(**options: Any) -> None:
    """Run the study and print its verdicts; started again, it goes on where it was."""
    conduct("mixture", study, **options)


if __name__ == "__main__":
    command(main, "Is a mixture of a few static kernels better than generating kernels?")
