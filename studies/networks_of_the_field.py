"""Do networks with involution learn as well as those with convolution that they were published beside?

The Keras example trains a small convolutional network and an involutional one on CIFAR-10, and finds that the latter
learns more slowly with a 24th of the parameters. Involution's paper finds RedNet above ResNet on ImageNet, with fewer
parameters. Here each pair learns as much of the same data: the example's at its learning rate, 0.001, and ResNet-26 and
RedNet-26 at half their width and at 0.01, unless `--tune` finds better ones.

    python -m studies.networks_of_the_field --data cifar10 --root data --tune false --epochs 3 --seeds 3
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from dynops import zoo
from dynops.ablation import Difference, Exceeds, Factor, Hypothesis, Study
from dynops.cli import command
from dynops.nets import KerasCNN, KerasINN, Network, ResNet
from dynops.training import Experiment
from studies.conducting import conduct
from studies.setting import MARGIN, Setting

EXAMPLE_RATE = 1e-3  # Keras' default for Adam
WIDTH = 32


def level(network: Network, rate: float | None = None) -> Callable[[Experiment], Experiment]:
    """Return the change to a network, and to a learning rate where one is given."""

    def changed(experiment: Experiment) -> Experiment:
        recipe = experiment.recipe if rate is None else replace(experiment.recipe, learning_rate=rate)
        return replace(experiment, network=network, recipe=recipe)

    return changed


def study(setting: Setting) -> Study:
    """Return the study: four networks on the same data."""
    convolution, involution = zoo.conv2d(3), zoo.involution(kernel_size=7)
    plain = ResNet(depth=26, operators=(convolution,), stem=None if setting.small else convolution, width=WIDTH)
    stem = None if setting.small else zoo.involution(kernel_size=3)
    example, published = Difference("network", "cnn", "inn"), Difference("network", "rednet", "resnet")
    return setting.study(
        convolution,
        name="networks_of_the_field",
        question="Do networks with involution learn as well as those with convolution that they were published beside?",
        factors=(
            Factor(
                "network",
                {
                    "cnn": level(KerasCNN(), EXAMPLE_RATE),
                    "inn": level(KerasINN(), EXAMPLE_RATE),
                    "resnet": level(plain),
                    "rednet": level(replace(plain, operators=(involution,), stem=stem)),
                },
            ),
        ),
        family=(example, published),
        hypotheses=(
            Hypothesis(
                "example",
                "The example's convolutional network is more than a point above its involutional one.",
                (Exceeds((example,), margin=MARGIN),),
            ),
            Hypothesis("published", "RedNet is above ResNet.", (Exceeds((published,)),)),
        ),
    )


def main(**options: Any) -> None:
    """Run the study and print its verdicts; started again, it goes on where it was."""
    conduct("networks_of_the_field", study, **options)


if __name__ == "__main__":
    command(main, "Do networks with involution learn as well as their convolutional pairs?")
