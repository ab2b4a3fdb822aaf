"""Must a generated kernel be free to have negative taps?

H8: involution lost more than a point with softmax or sigmoid on its kernel, ConvNeXt lost 21 with softmax; a static
term beside it restores the sign on probes. The normaliser and the static term are crossed.

    python -m studies.normalisation
    python -m studies.normalisation --data cifar10 --root data
"""

from dataclasses import replace
from functools import partial
from typing import Any

from dynops import Operator, Static, filter_norm, sigmoid, softmax, zoo
from dynops.ablation import Difference, Exceeds, Hypothesis, Interaction, Study
from dynops.cli import command
from dynops.parts.normalise import Normaliser
from studies.conducting import conduct
from studies.setting import Setting, operators

NORMALISERS: dict[str, Normaliser] = {"softmax": softmax, "sigmoid": sigmoid, "filter_norm": filter_norm}
ALONE = (("static", "without"),)
FREE = Difference("normaliser", "none", "softmax")
RESCUE = Interaction(FREE, Difference("static", "without", "with"))


def normalised(operator: Operator, normaliser: Normaliser) -> Operator:
    """Return the operator with its kernel normalised."""
    return replace(operator, kernel=operator.kernel.then(normaliser))


def study(setting: Setting) -> Study:
    """Return the study: a pixel's kernel, normalised in several ways, with and without a static term."""
    return setting.study(
        zoo.involution(kernel_size=3),
        name="normalisation",
        question="Must a generated kernel be free to have negative taps?",
        factors=(
            operators(
                "normaliser",
                {"none": lambda operator: operator}
                | {name: partial(normalised, normaliser=normaliser) for name, normaliser in NORMALISERS.items()},
            ),
            operators(
                "static",
                {
                    "without": lambda operator: operator,
                    "with": lambda operator: replace(operator, kernel=Static() + operator.kernel),
                },
            ),
        ),
        family=(replace(FREE, at=ALONE), Difference("normaliser", "filter_norm", "softmax", at=ALONE), RESCUE),
        hypotheses=(
            Hypothesis(
                "H8",
                "A kernel with signed taps, free or filter-normalised, beats one under a softmax.",
                (
                    Exceeds((replace(FREE, at=ALONE),)),
                    Exceeds((Difference("normaliser", "filter_norm", "softmax", at=ALONE),)),
                ),
            ),
            Hypothesis("H8-rescue", "A static term makes the softmax cost less.", (Exceeds((RESCUE,)),)),
        ),
    )


def main(**options: Any) -> None:
    """Run the study and print its verdicts; started again, it goes on where it was."""
    conduct("normalisation", study, **options)


if __name__ == "__main__":
    command(main, "Must a generated kernel be free to have negative taps?")
