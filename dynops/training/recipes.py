"""Recipes by name; `dataclasses.replace` varies them."""

from dynops.training.recipe import Recipe


def cifar(epochs: int = 24) -> Recipe:
    """Return a short recipe for images of 32 pixels on one GPU: large batches, a high learning rate, compiled steps.

    It goes with the data's own crops and flips. It is evaluated once, at the end.

    Args:
        epochs: passes over the training data.
    Source: Page, How to Train Your ResNet, 2018-2019: 24 epochs of batches of 512, Nesterov's momentum 0.9, learning
        rate 0.4 after five epochs, weight decay 5e-4.
    Deviates: the learning rate falls by half a cosine; weights are averaged, labels are smoothed, and scales and biases
        do not decay; crops are not blanked out in part.
    """
    return Recipe(
        epochs=epochs,
        batch_size=512,
        optimiser="sgd",
        learning_rate=0.4,
        warmup=0.2,
        momentum=0.9,
        weight_decay=5e-4,
        label_smoothing=0.1,
        ema=0.99,
        clip=None,
        evaluate_every=epochs,
        compile=True,
        channels_last=True,
    )


def imagenet() -> Recipe:
    """Return the recipe with which the published RedNets were trained on ImageNet.

    A device that has no room for its part of 2048 images takes it in pieces: `replace(imagenet(), accumulate=8)`.

    Source: Li et al., Involution, CVPR 2021; the authors' schedule `imagenet_bs2048_coslr_130e`, on 64 GPUs.
    Deviates: the cosine begins after the warm-up and falls with each step, theirs begins with it and falls with each
        epoch, which leaves the learning rates less than 0.03 apart; scales and biases do not decay.
    """
    return Recipe(
        epochs=130,
        batch_size=2048,
        optimiser="sgd",
        learning_rate=0.8,
        warmup=3130,
        warmup_from=0.25,
        momentum=0.9,
        weight_decay=1e-4,
        label_smoothing=0.1,
        clip=None,
    )
