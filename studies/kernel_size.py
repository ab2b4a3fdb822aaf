"""How large should the window of a generated kernel be?

Involution's paper varies it: cost hardly grows with the window, and 7x7 is its choice; the authors say that "large and
dynamic kernels play a key role". Static depthwise kernels of the same sizes tell what is due to size alone.

    python -m studies.kernel_size
    python -m studies.kernel_size --data cifar10 --root data
"""

from dataclasses import replace
from functools import partial
from typing import Any

from dynops import Channels, Operator, Static, Window, zoo
from dynops.ablation import Difference, Exceeds, Hypothesis, Interaction, Study
from dynops.cli import command
from studies.conducting import conduct
from studies.setting import Setting, operators

SIZES = (3, 5, 7)
LARGER = Difference("size", "7x7", "3x3")
GENERATED = Difference("kernel", "involution", "depthwise")


def sized(operator: Operator, size: int) -> Operator:
    """Return the operator with a window of that side."""
    return replace(operator, window=Window(size))


def study(setting: Setting) -> Study:
    """Return the study: window sizes of involution and of depthwise convolution."""
    larger = replace(LARGER, at=(("kernel", "involution"),))
    return setting.study(
        zoo.involution(kernel_size=3),
        name="kernel_size",
        question="How large should the window be, and is that another size for generated kernels than for static ones?",
        factors=(
            operators("size", {f"{size}x{size}": partial(sized, size=size) for size in SIZES}, scale=SIZES),
            operators(
                "kernel",
                {
                    "depthwise": lambda operator: replace(operator, kernel=Static(), channels=Channels("g")),
                    "involution": lambda operator: operator,
                },
            ),
        ),
        family=(larger, LARGER, GENERATED, Interaction(GENERATED, LARGER)),
        hypotheses=(
            Hypothesis("size", "Involution with 7x7 windows beats that with 3x3.", (Exceeds((larger,)),)),
            Hypothesis(
                "size-and-generation",
                "Larger windows gain more with generated kernels than with static ones.",
                (Exceeds((Interaction(GENERATED, LARGER),)),),
            ),
        ),
    )


def main(**options: Any) -> None:
    """Run the study and print its verdicts; started again, it goes on where it was."""
    conduct("kernel_size", study, **options)


if __name__ == "__main__":
    command(main, "How large should the window of a generated kernel be?")
