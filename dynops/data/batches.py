"""Batches of a data set, normalised and augmented on the device that trains."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from dynops.data.augment import Augmentation, augment
from dynops.data.crops import ResizedCrop
from dynops.data.dataset import Dataset, Examples
from dynops.data.decoder import Decoder, usable_cpus
from dynops.data.image_files import ImageFiles
from dynops.errors import SpecError
from dynops.specs import at_least, one_of
from dynops.streams import stream, stream_seed

RESIDENT_SHARE = 0.25  # of a GPU's free memory

Mix = Callable[[Tensor, Tensor, np.random.Generator], tuple[Tensor, Tensor]]
"""Makes another batch of one, `(inputs, targets)`, with random numbers."""


class Batches:
    """Batches of one split: `(inputs, targets)`, `b c h w` float32 and `b ...`, on the device.

    Training examples come shuffled, and the incomplete last batch is left out once two full ones exist; examples that
    are evaluated come in their order, all of them. Each epoch has random streams of its own, so that it can be
    repeated without those before it.
    """

    epoch: int
    """Which order, augmentation and mixture the next iteration has; set it before each epoch."""

    def __init__(
        self,
        *,
        dataset: Dataset,
        split: str,
        batch_size: int,
        device: torch.device | str,
        seed: int = 0,
        augmentation: Augmentation | ResizedCrop | None = None,
        mix: Mix | None = None,
        part: tuple[int, int] = (0, 1),
        workers: int | None = None,
    ) -> None:
        """Put the examples where batches are made: on the device if they fit, else in the host's memory.

        Args:
            dataset: what to take the examples from.
            split: `train` or `test`.
            batch_size: examples in a batch; all there are, if there are fewer.
            device: where batches go.
            seed: of the streams `order`, `augmentation` and `mixing`, and of what is cut out of each file's image.
            augmentation: random changes of training inputs.
            mix: what each batch goes through last, on its device, with the stream `mixing`.
            part: number of a device, from 0, and how many devices share each batch. (1, 3) gets examples 1, 4, 7 and
                so on; what does not divide is left out of training, so that all learn from as many. Inputs in memory
                are changed and mixed as the whole batch is; of images in files the device's own alone are decoded,
                and mixed with each other.
            workers: processes that decode images in files, 0 for none beside this one; by default the device's share
                of the CPUs that this process may use, and never more than batches. What comes does not depend on it.
        Raises:
            SpecError: the split is neither, a number below its least, there is no such device or nothing to learn
                from for one, or the augmentation does not go with the examples.
        """
        one_of("split", split, ("train", "test"))
        at_least("batch_size", batch_size, 1)
        if workers is not None:
            at_least("workers", workers, 0)
        rank, devices = part
        if not 0 <= rank < devices:
            raise SpecError(f"part has {part}: must be a device's number, from 0, and how many devices there are.")
        examples = dataset.train if split == "train" else dataset.test
        if augmentation is not None and (split == "test" or examples.targets.dim() > 1):
            raise SpecError(
                f"augmentation has {augmentation}, split has {split!r}, data have task {dataset.task!r}: "
                "must go with training images that have one class each. Use augmentation=None."
            )
        refuse_other_kind(augmentation, examples)
        self.epoch = 0
        self._dataset = dataset
        self._shuffled = split == "train"
        self._batch_size = batch_size
        self._device = torch.device(device)
        self._seed = seed
        self._mix = mix
        self._part = part
        self._targets = examples.targets
        self._refuse_empty_parts()
        self._source: Resident | Decoder
        if isinstance(examples.inputs, ImageFiles):
            assert not isinstance(augmentation, Augmentation)
            most = max(1, usable_cpus() // devices) if workers is None else workers
            self._source = Decoder(
                examples.inputs,
                augmentation,
                seed=seed,
                workers=min(most, len(self)),
                device=self._device,
            )
        else:
            assert not isinstance(augmentation, ResizedCrop)
            place = self._device if fits(examples.inputs, examples.targets, self._device) else torch.device("cpu")
            self._targets = examples.targets.to(place)
            self._source = Resident(examples.inputs.to(place), augmentation, seed=seed, device=self._device)

    def __len__(self) -> int:
        full, rest = divmod(len(self._targets), self._batch_size)
        return full if rest == 0 or (self._shuffled and full > 1) else full + 1

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order: Sequence[Tensor] = self._order().to(self._targets.device).split(self._batch_size)[: len(self)]
        in_files = isinstance(self._source, Decoder)
        if in_files:
            order = [self._own(index) for index in order]  # decoding costs too much to be done for the others
        generator = np.random.default_rng(stream_seed(self._seed, "mixing", self.epoch))
        for index, raw in zip(order, self._source.inputs(self.epoch, order), strict=True):
            inputs, targets = self._dataset.normalise(raw), move(self._targets[index], self._device)
            if self._mix is not None:
                inputs, targets = self._mix(inputs, targets, generator)
            yield (inputs, targets) if in_files else (self._own(inputs), self._own(targets))

    def close(self) -> None:
        """End the processes that decode images, where there are any; another iteration starts them anew."""
        if isinstance(self._source, Decoder):
            self._source.close()

    def _order(self) -> Tensor:
        if self._shuffled:
            return torch.randperm(len(self._targets), generator=stream(self._seed, "order", self.epoch))
        return torch.arange(len(self._targets))

    def _own(self, batch: Tensor) -> Tensor:
        """Return the device's part of a batch."""
        rank, devices = self._part
        rest = len(batch) % devices if self._shuffled else 0
        return batch[rank : len(batch) - rest : devices]

    def _refuse_empty_parts(self) -> None:
        last = min(self._batch_size, len(self._targets) - (len(self) - 1) * self._batch_size)
        if self._shuffled and last < self._part[1]:
            raise SpecError(
                f"batches has {last} examples in the last one, part has {self._part[1]} devices: each must have one "
                "to learn from. Use fewer devices, or another batch_size."
            )


class Resident:
    """Gives batches of inputs that lie in memory, the device's own if they fit there."""

    def __init__(self, inputs: Tensor, augmentation: Augmentation | None, *, seed: int, device: torch.device) -> None:
        """Remember the inputs, `n c h w`, and where batches of them go."""
        self._inputs = inputs
        self._augmentation = augmentation
        self._seed = seed
        self._device = device

    def inputs(self, epoch: int, order: Sequence[Tensor]) -> Iterator[Tensor]:
        """Gather batches and change them at random.

        Args:
            epoch: which random changes.
            order: for each batch the numbers of its inputs, `b`, int64, where the inputs are.
        Returns:
            The batches, `b c h w`, on the device.
        """
        generator = stream(self._seed, "augmentation", epoch)
        for index in order:
            inputs = move(self._inputs[index], self._device)
            yield inputs if self._augmentation is None else augment(inputs, self._augmentation, generator)


def move(gathered: Tensor, device: torch.device) -> Tensor:
    """Bring part of a batch to the device, while a GPU still computes."""
    if gathered.device.type == "cpu" and device.type == "cuda":
        # The allocator of pinned memory keeps the buffer until its copy is done.
        return gathered.pin_memory().to(device, non_blocking=True)
    return gathered.to(device)


def fits(inputs: Tensor, targets: Tensor, device: torch.device) -> bool:
    """Say whether examples may stay on a device: a GPU must have several times their size free."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    size = sum(part.numel() * part.element_size() for part in (inputs, targets))
    return size <= math.floor(RESIDENT_SHARE * free)


def refuse_other_kind(augmentation: Augmentation | ResizedCrop | None, examples: Examples) -> None:
    """Raise a SpecError if an augmentation is one of images in files, and these are not, or the reverse."""
    in_files = isinstance(examples.inputs, ImageFiles)
    if augmentation is not None and in_files != isinstance(augmentation, ResizedCrop):
        raise SpecError(
            f"augmentation has {augmentation}, images are {'in files' if in_files else 'in memory'}: "
            f"must be {'a ResizedCrop' if in_files else 'an Augmentation'}, or None."
        )
