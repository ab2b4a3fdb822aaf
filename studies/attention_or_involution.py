"""Is involution attention without keys, and does it lack anything by that?

H6 comes from a talk on involution and from stand-alone self-attention, which lost half a point of accuracy without its
keys. Two parts of attention's scores are varied, both under a softmax: queries times keys, and queries times positions;
without either the kernel is the mean. Involution stands beside them as it was published. That keys decide where the
answer depends on neighbours is known from the probe `match`: 0.75 without, 0 with them (`studies.probes`).

    python -m studies.attention_or_involution
    python -m studies.attention_or_involution --data cifar10 --root data --budget parameters
"""

from dataclasses import replace
from functools import partial
from typing import Any

from dynops import (
    Channels,
    Dynamic,
    Kernel,
    Operator,
    Positions,
    Project,
    QueryKey,
    QueryPosition,
    Static,
    softmax,
    zoo,
)
from dynops.ablation import Difference, Exceeds, Hypothesis, Study
from dynops.cli import command
from studies.conducting import conduct
from studies.setting import Setting, operators

HALF_A_POINT = 0.005
KERNELS: dict[str, Kernel] = {
    "mean": Static(start=0.0, learned=False).then(softmax),
    "keys": QueryKey().then(softmax),
    "positions": QueryPosition().then(softmax),
    "keys_and_positions": QueryKey(positions=Positions()).then(softmax),
    "involution": Dynamic(context="pixel"),
}


def scored(operator: Operator, kernel: Kernel) -> Operator:
    """Return the operator with another kernel."""
    return replace(operator, kernel=kernel)


def study(setting: Setting) -> Study:
    """Return the study: what a window is weighed by, everything else alike."""
    base = zoo.involution(kernel_size=3)
    with_value = replace(base, channels=Channels("(g s)", g=2), value=Project())

    keys = Difference("scores", "keys_and_positions", "positions")
    fewer = Difference("scores", "involution", "keys_and_positions")
    places, bent = Difference("scores", "positions", "mean"), Difference("scores", "involution", "positions")
    return setting.study(
        with_value,
        name="attention_or_involution",
        question="What do attention's keys add to kernels that know the query and the positions?",
        factors=(operators("scores", {name: partial(scored, kernel=kernel) for name, kernel in KERNELS.items()}),),
        family=(keys, fewer, places, bent),
        hypotheses=(
            Hypothesis(
                "H6",
                "Keys add at most half a point to a query that knows the positions.",
                (Exceeds((Difference("scores", "positions", "keys_and_positions"),), margin=-HALF_A_POINT),),
            ),
            Hypothesis(
                "H6-involution",
                "Involution is at most half a point below attention with keys and positions.",
                (Exceeds((fewer,), margin=-HALF_A_POINT),),
            ),
        ),
    )


def main(**options: Any) -> None:
    """Run the study and print its verdicts; started again, it goes on where it was."""
    conduct("attention_or_involution", study, **options)


if __name__ == "__main__":
    command(main, "What do attention's keys add to kernels that know the query and the positions?")
