"""What makes a pixel's kernel useful: its parameters, its image, its place, or its own pixel?

The same phi makes all kernels, from a learned constant, a learned map of positions, the image's mean, another pixel of
the same image (the pixels are permuted: the same values in the wrong places), or the pixel itself. Each network is
evaluated again with its kernels averaged over h, w and over b, h, w: what is lost then is due to their variation.

    python -m studies.controls
    python -m studies.controls --data cifar10 --root data
"""

from dataclasses import replace
from functools import partial
from typing import Any

from dynops import Dynamic, Operator, Permuted, zoo
from dynops.ablation import Difference, Exceeds, Hypothesis, Study
from dynops.cli import command
from dynops.parts.context import Source
from studies.conducting import conduct
from studies.setting import Setting, operators

CONTEXTS: dict[str, Source] = {
    "constant": "constant",
    "position": "position",
    "global": "global",
    "permuted": Permuted(),
    "pixel": "pixel",
}


def made_from(operator: Operator, context: Source) -> Operator:
    """Return the operator with its kernel made from another context."""
    return replace(operator, kernel=Dynamic(context=context))


def study(setting: Setting) -> Study:
    """Return the study: involution, its kernel made from several contexts by the same phi."""
    own = {name: Difference("context", "pixel", name) for name in CONTEXTS if name != "pixel"}
    return setting.study(
        zoo.involution(kernel_size=3),
        name="controls",
        question="What makes a pixel's kernel useful: its parameters, its image, its place, or its own pixel?",
        factors=(
            operators("context", {name: partial(made_from, context=context) for name, context in CONTEXTS.items()}),
        ),
        family=tuple(own.values()),
        hypotheses=(
            Hypothesis(
                "own-pixel", "Its own pixel serves a kernel better than another one.", (Exceeds((own["permuted"],)),)
            ),
            Hypothesis(
                "beyond-the-image", "The pixel serves better than the image's mean.", (Exceeds((own["global"],)),)
            ),
            Hypothesis(
                "beyond-the-place", "The pixel serves better than its position.", (Exceeds((own["position"],)),)
            ),
        ),
    )


def main(**options: Any) -> None:
    """Run the study and print its verdicts; started again, it goes on where it was."""
    conduct("controls", study, average=True, **options)


if __name__ == "__main__":
    command(main, "What makes a pixel's kernel useful: its parameters, its image, its place, or its own pixel?")
