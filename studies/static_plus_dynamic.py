"""Is a static kernel for each channel plus a generated one that all share as good as generating them all?

H7 comes from a talk on involution ("convolution with the sharing scheme alone") and from ELSA's ghost head, a sum of
this kind. On probes the sum solves what either part solves; here it stands against both and against a kernel that is
generated for each channel, in blocks with 1x1 convolutions around them.

    python -m studies.static_plus_dynamic
    python -m studies.static_plus_dynamic --data cifar10 --root data --budget parameters
"""

from dataclasses import replace
from typing import Any

from dynops import Channels, Dynamic, Operator, Static, zoo
from dynops.ablation import Difference, Exceeds, Hypothesis, Study
from dynops.cli import command
from studies.conducting import conduct
from studies.setting import MARGIN, Change, Setting, operators

GROUPED, OWN = Channels("(g s)", s=16), Channels("g")


def of(kernel: Any, channels: Channels) -> Change:
    """Make a level with a kernel, spread over channels in a way."""

    def level(operator: Operator) -> Operator:
        return replace(operator, kernel=kernel, channels=channels)

    return level


def study(setting: Setting) -> Study:
    """Return the study: five kernels from shared and static to generated for each channel."""
    over = {name: Difference("kernel", "sum", name) for name in ("static", "shared_dynamic", "dynamic")}
    return setting.study(
        zoo.involution(kernel_size=3),
        name="static_plus_dynamic",
        question="Is a static kernel for each channel plus a shared generated one as good as generating them all?",
        factors=(
            operators(
                "kernel",
                {
                    "static": of(Static(), OWN),
                    "shared_static": of(Static(), GROUPED),
                    "shared_dynamic": of(Dynamic(context="pixel"), GROUPED),
                    "dynamic": of(Dynamic(context="pixel"), OWN),
                    "sum": of(Static() + Dynamic(context="pixel", shared="g"), OWN),
                },
            ),
        ),
        family=(Difference("kernel", "shared_static", "static"), *over.values()),
        hypotheses=(
            Hypothesis(
                "H7-sharing",
                "A static kernel that channels share is within a point of one for each channel.",
                (Exceeds((Difference("kernel", "shared_static", "static"),), margin=-MARGIN),),
            ),
            Hypothesis(
                "H7-sum",
                "The sum is at least as good as either part alone.",
                (Exceeds((over["static"],)), Exceeds((over["shared_dynamic"],))),
            ),
            Hypothesis(
                "H7-all",
                "The sum is within a point of a generated kernel for each channel.",
                (Exceeds((over["dynamic"],), margin=-MARGIN),),
            ),
        ),
    )


def main(**options: Any) -> None:
    """Run the study and print its verdicts; started again, it goes on where it was."""
    conduct("static_plus_dynamic", study, **options)


if __name__ == "__main__":
    command(main, "Is a static kernel plus a shared generated one as good as generating them all?")
