"""Images of a batch mixed with each other, and their classes in the same shares."""

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dynops.errors import SpecError
from dynops.streams import stream_seed
from dynops.training.feed import Feed
from dynops.training.recipe import Recipe


class Mixed:
    """The batches of a feed, mixed: `(inputs, targets)`, `b c h w` and each class's share of an image, `b outputs`."""

    def __init__(self, feed: Feed, recipe: Recipe, seed: int, outputs: int) -> None:
        """Prepare to mix.

        Args:
            feed: batches with one class for each image.
            recipe: says how strongly; one of `mixup` and `cutmix` is above 0.
            seed: of the stream `mixing`, new for each epoch.
            outputs: number of classes.
        """
        self._feed = feed
        self._recipe = recipe
        self._seed = seed
        self._outputs = outputs

    @property
    def epoch(self) -> int:
        """Which order, augmentation and mixture the next iteration has."""
        return self._feed.epoch

    @epoch.setter
    def epoch(self, number: int) -> None:
        self._feed.epoch = number

    def __len__(self) -> int:
        return len(self._feed)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = np.random.default_rng(stream_seed(self._seed, "mixing", self.epoch))
        for inputs, targets in self._feed:
            yield mix(inputs, F.one_hot(targets, self._outputs).float(), self._recipe, generator)

    def close(self) -> None:
        """Close what is mixed."""
        self._feed.close()


def check_mixing(recipe: Recipe, task: str) -> None:
    """Raise a SpecError if images are to be mixed that have no classes."""
    if (recipe.mixup or recipe.cutmix) and task != "classification":
        raise SpecError(
            f"recipe has mixup={recipe.mixup} and cutmix={recipe.cutmix}, data have task {task!r}: images are mixed "
            "with their classes. Use 0 for both."
        )


def mix(inputs: Tensor, targets: Tensor, recipe: Recipe, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Mix each image of a batch with one of the batch, all in one share, drawn from Beta(alpha, alpha).

    Args:
        inputs: images, `b c h w`.
        targets: each class's share, `b outputs`.
        recipe: gives alpha; with both kinds, a fair coin chooses one.
        generator: random numbers, in the host's memory, so that all devices see the same images.
    Returns:
        Images and shares of classes, of the same axes.
    """
    cuts = recipe.cutmix > 0 and (recipe.mixup == 0 or generator.random() < 0.5)
    alpha = recipe.cutmix if cuts else recipe.mixup
    share = generator.beta(alpha, alpha)
    partners = torch.from_numpy(generator.permutation(len(inputs))).to(inputs.device)
    if cuts:
        inputs, share = cutmix(inputs, partners, share, generator)
    else:
        inputs = blend(inputs, partners, share)
    return inputs, blend(targets, partners, share)


def blend(values: Tensor, partners: Tensor, share: float) -> Tensor:
    """Add up the values of two examples: y[b] = share * x[b] + (1 - share) * x[partners[b]].

    Source: Zhang et al., mixup, ICLR 2018, section 2.
    """
    return share * values + (1 - share) * values[partners]


def cutmix(inputs: Tensor, partners: Tensor, share: float, generator: np.random.Generator) -> tuple[Tensor, float]:
    """Put a box of each image's partner in its place.

    The box has sqrt(1 - share) of the rows and of the columns, and a centre that is anywhere in the image; what lies
    outside is left away.

    Args:
        inputs: images, `b c h w`.
        partners: which image gives the box, `b`.
        share: of an image that is to be kept, from 0 to 1.
        generator: draws the centre.
    Returns:
        Images, and the share of pixels that was kept.
    Source: Yun et al., CutMix, ICCV 2019, eq. 1 and 2.
    """
    sides = []
    for length in inputs.shape[-2:]:
        half = int(length * math.sqrt(1 - share)) // 2
        centre = int(generator.integers(length))
        sides.append(slice(max(0, centre - half), min(length, centre + half)))
    rows, columns = sides
    mixed = inputs.clone()
    mixed[..., rows, columns] = inputs[partners][..., rows, columns]
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return mixed, 1 - area / (inputs.shape[-2] * inputs.shape[-1])
