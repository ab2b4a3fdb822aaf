"""What should phi, the function that makes kernels, look like?

Involution's paper compares a linear map with a bottleneck (1x1 to a part 1/r of the channels, batch norm, ReLU, 1x1) at
r = 1, 4, 16, and takes r = 4.

    python -m studies.function_form
    python -m studies.function_form --data cifar10 --root data
"""

from dataclasses import replace
from functools import partial
from typing import Any

from dynops import Dynamic, Kernel, Linear, Operator, zoo
from dynops.ablation import Difference, Exceeds, Hypothesis, Study, Within
from dynops.cli import command
from studies.conducting import conduct
from studies.setting import MARGIN, Setting, operators

FORMS: dict[str, Kernel] = {
    "linear": Linear(context="pixel"),
    "bottleneck_1": Dynamic(context="pixel", reduction=1),
    "bottleneck_4": Dynamic(context="pixel", reduction=4),
    "bottleneck_16": Dynamic(context="pixel", reduction=16),
}


def formed(operator: Operator, phi: Kernel) -> Operator:
    """Return the operator with another phi."""
    return replace(operator, kernel=phi)


def study(setting: Setting) -> Study:
    """Return the study: involution with four forms of phi."""
    narrow = Difference("phi", "bottleneck_4", "bottleneck_1")
    bent = Difference("phi", "bottleneck_4", "linear")
    tight = Difference("phi", "bottleneck_4", "bottleneck_16")

    return setting.study(
        zoo.involution(kernel_size=3),
        name="function_form",
        question="What should the function that makes kernels look like: linear, or a bottleneck, and how narrow?",
        factors=(operators("phi", {name: partial(formed, phi=phi) for name, phi in FORMS.items()}),),
        family=(narrow, bent, tight),
        hypotheses=(
            Hypothesis(
                "form-narrow",
                "A bottleneck of r = 4 is within a point of r = 1.",
                (Within(narrow, margin=MARGIN),),
            ),
            Hypothesis(
                "form-linear",
                "A bottleneck of r = 4 is not a point worse than a linear map.",
                (Exceeds((bent,), margin=-MARGIN),),
            ),
            Hypothesis("form-tight", "A bottleneck of r = 16 is worse than r = 4.", (Exceeds((tight,)),)),
        ),
    )


def main(**options: Any) -> None:
    """Run the study and print its verdicts; started again, it goes on where it was."""
    conduct("function_form", study, **options)


if __name__ == "__main__":
    command(main, "What should the function that makes kernels look like?")
