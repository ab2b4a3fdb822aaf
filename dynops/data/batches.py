"""Batches of a data set, normalised and augmented on the device that trains."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from dynops.data.augment import Augmentation, augment
from dynops.data.dataset import Dataset, Examples
from dynops.errors import SpecError
from dynops.specs import at_least, one_of
from dynops.streams import stream

RESIDENT_SHARE = 0.25  # of a GPU's free memory


class Batches:
    """Batches of one split: `(inputs, targets)`, `b c h w` float32 and `b ...`, on the device.

    Training examples come shuffled, and the incomplete last batch is left out once two full ones exist; examples that
    are evaluated come in their order, all of them. Each epoch has random streams of its own, so that it can be
    repeated without those before it.
    """

    epoch: int
    """Which order and which augmentation the next iteration has; set it before each epoch."""

    def __init__(
        self,
        *,
        dataset: Dataset,
        split: str,
        batch_size: int,
        device: torch.device | str,
        seed: int = 0,
        augmentation: Augmentation | None = None,
    ) -> None:
        """Put the examples where batches are made: on the device if they fit, else in the host's memory.

        Args:
            dataset: what to take the examples from.
            split: `train` or `test`.
            batch_size: examples in a batch; all there are, if there are fewer.
            device: where batches go.
            seed: of the streams `order` and `augmentation`.
            augmentation: random changes of training inputs.
        Raises:
            SpecError: the split is neither, the size below 1, or the augmentation does not go with the examples.
        """
        one_of("split", split, ("train", "test"))
        at_least("batch_size", batch_size, 1)
        examples = dataset.train if split == "train" else dataset.test
        if augmentation is not None and (split == "test" or examples.targets.dim() > 1):
            raise SpecError(
                f"augmentation has {augmentation}, split has {split!r}, data have task {dataset.task!r}: "
                "must go with training images that have one class each. Use augmentation=None."
            )
        self.epoch = 0
        self._dataset = dataset
        self._shuffled = split == "train"
        self._batch_size = batch_size
        self._device = torch.device(device)
        self._seed = seed
        self._augmentation = augmentation
        place = self._device if fits(examples, self._device) else torch.device("cpu")
        self._examples = Examples(inputs=examples.inputs.to(place), targets=examples.targets.to(place))

    def __len__(self) -> int:
        full, rest = divmod(len(self._examples), self._batch_size)
        return full if rest == 0 or (self._shuffled and full > 1) else full + 1

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = stream(self._seed, "augmentation", self.epoch)
        order = self._order().to(self._examples.inputs.device)
        for index in order.split(self._batch_size)[: len(self)]:
            inputs, targets = self._move(self._examples.inputs[index]), self._move(self._examples.targets[index])
            if self._augmentation is not None:
                inputs = augment(inputs, self._augmentation, generator)
            yield self._dataset.normalise(inputs), targets

    def _order(self) -> Tensor:
        if self._shuffled:
            return torch.randperm(len(self._examples), generator=stream(self._seed, "order", self.epoch))
        return torch.arange(len(self._examples))

    def _move(self, gathered: Tensor) -> Tensor:
        if gathered.device.type == "cpu" and self._device.type == "cuda":
            # The allocator of pinned memory keeps the buffer until its copy is done.
            return gathered.pin_memory().to(self._device, non_blocking=True)
        return gathered


def fits(examples: Examples, device: torch.device) -> bool:
    """Say whether examples may stay on a device: a GPU must have several times their size free."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    size = sum(part.numel() * part.element_size() for part in (examples.inputs, examples.targets))
    return size <= math.floor(RESIDENT_SHARE * free)
