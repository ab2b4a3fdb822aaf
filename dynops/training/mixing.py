"""Images of a batch mixed with each other, and their classes in the same shares."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dynops.data.batches import Mix
from dynops.errors import SpecError
from dynops.training.recipe import Recipe


def mixer(recipe: Recipe, outputs: int) -> Mix | None:
    """Return what mixes batches with one class for each image; None where a recipe mixes none.

    Args:
        recipe: says how strongly.
        outputs: number of classes.
    """
    if not (recipe.mixup or recipe.cutmix):
        return None
    return lambda inputs, targets, generator: mix(inputs, F.one_hot(targets, outputs).float(), recipe, generator)


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
