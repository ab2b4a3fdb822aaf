"""How many channels should share one generated kernel?

Involution's paper varies it and takes 16 channels a group: about half the cost of fewer, for little accuracy. The
authors call sharing possible, since channels are redundant, and efficient; they do not claim that it helps.

    python -m studies.group_channels
    python -m studies.group_channels --data cifar10 --root data
"""

from dataclasses import replace
from functools import partial
from typing import Any

from dynops import Channels, Operator, zoo
from dynops.ablation import Difference, Exceeds, Hypothesis, Study
from dynops.cli import command
from studies.conducting import conduct
from studies.setting import MARGIN, Setting, operators

SIZES = (1, 4, 16, 32)


def grouped(operator: Operator, size: int) -> Operator:
    """Return the operator with a kernel for so many channels."""
    return replace(operator, channels=Channels("(g s)", s=size))


def study(setting: Setting) -> Study:
    """Return the study: involution with groups of several sizes, in a network whose first stage has 32 channels."""
    costs = {size: Difference("shared_by", f"{size}", "1") for size in SIZES[1:]}
    return setting.study(
        zoo.involution(kernel_size=3),
        name="group_channels",
        question="How many channels should share one generated kernel?",
        factors=(operators("shared_by", {f"{size}": partial(grouped, size=size) for size in SIZES}, scale=SIZES),),
        family=tuple(costs.values()),
        hypotheses=(
            Hypothesis(
                "groups-16",
                "Sixteen channels to a kernel cost less than a point beside one to a kernel.",
                (Exceeds((costs[16],), margin=-MARGIN),),
            ),
            Hypothesis(
                "groups-32",
                "Thirty-two channels to a kernel, all of the first stage, cost more than sixteen.",
                (Exceeds((Difference("shared_by", "16", "32"),)),),
            ),
        ),
    )


def main(**options: Any) -> None:
    """Run the study and print its verdicts; started again, it goes on where it was."""
    conduct("group_channels", study, **options)


if __name__ == "__main__":
    command(main, "How many channels should share one generated kernel?")
