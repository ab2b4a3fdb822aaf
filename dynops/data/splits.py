"""Stratified subsets: parts of a data set that hold its classes in their proportions."""

import math

import torch
from torch import Generator, Tensor

from dynops.data.dataset import Examples
from dynops.errors import DataError, SpecError


def stratified_order(targets: Tensor, generator: Generator) -> Tensor:
    """Shuffle examples so that each first part holds the classes in their proportions.

    The r-th of the n_c examples of a class c, in random order, stands at the position (r + 1/2) / n_c.

    Args:
        targets: classes, `n`, int64.
        generator: random numbers.
    Returns:
        Index of the examples, `n`; equal positions stand in random order.
    """
    shuffled = torch.randperm(len(targets), generator=generator)
    labels = targets[shuffled]
    counts = torch.bincount(labels)
    by_class = torch.argsort(labels, stable=True)
    rank = torch.empty_like(shuffled)
    rank[by_class] = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels[by_class]]
    position = (rank.double() + 0.5) / counts[labels]
    return shuffled[torch.argsort(position, stable=True)]


def split(examples: Examples, first: int, generator: Generator) -> tuple[Examples, Examples]:
    """Split examples in two, each with the classes in their proportions.

    Args:
        examples: of a classification.
        first: how many examples the first part gets.
        generator: random numbers.
    Returns:
        The first part and the rest, each in the order of `examples`.
    Raises:
        DataError: a class has no example in one of the parts.
    """
    order = stratified_order(examples.targets, generator)
    chosen, rest = (examples.take(index.sort().values) for index in (order[:first], order[first:]))
    present = len(examples.targets.unique())
    for part in (chosen, rest):
        came = len(part.targets.unique())
        if came < present:
            raise DataError(
                f"split of {len(examples)} images has {came} of {present} classes in a part of {len(part)}: "
                "must have each class in both parts. Add images of the rarest classes."
            )
    return chosen, rest


def subset(examples: Examples, fraction: float, generator: Generator) -> Examples:
    """Keep a fraction of the examples, with the classes in their proportions.

    A smaller fraction is a subset of a larger one that is drawn with the same numbers.

    Args:
        examples: of a classification.
        fraction: share that is kept, above 0 and up to 1.
        generator: random numbers.
    Returns:
        The kept examples, in the order of `examples`.
    Raises:
        SpecError: a class is left without images.
    """
    order = stratified_order(examples.targets, generator)
    kept = order[: round(fraction * len(order))]
    present, came = len(examples.targets.unique()), len(examples.targets[kept].unique())
    if came < present:
        least = math.ceil(1e6 * _first_with_all(examples.targets[order]) / len(order)) / 1e6
        raise SpecError(
            f"fraction has {fraction}, {len(kept)} of {len(order)} training images with {came} of {present} classes: "
            f"must leave an image of each class. Use at least {least}."
        )
    return examples.take(kept.sort().values)


def _first_with_all(labels: Tensor) -> int:
    return 1 + max(int((labels == label).nonzero()[0]) for label in labels.unique())
