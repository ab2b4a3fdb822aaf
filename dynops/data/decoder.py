"""Worker processes that decode images while the device computes."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dynops.data.crops import ResizedCrop
from dynops.data.image_files import ImageFiles
from dynops.errors import DataError, SpecError

Request = tuple[int, list[int]]  # epoch, numbers of the images


def usable_cpus() -> int:
    """Return on how many CPUs this process may run, where the system tells; else how many there are."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Decoder:
    """Gives batches of decoded images, each made by one worker, in the order that was asked for.

    What comes does not depend on the number of workers. They start with the first iteration, are kept for the next
    ones, and end with `close` or with the decoder.
    """

    def __init__(
        self, files: ImageFiles, crop: ResizedCrop | None, *, seed: int, workers: int, device: torch.device
    ) -> None:
        """Remember what to decode.

        Args:
            files: the images.
            crop: which random part is taken of each; None takes the centre.
            seed: of the random parts.
            workers: number of processes; 0 decodes in this one.
            device: where batches go; to a GPU from pinned memory, while it computes.
        """
        self._reader = _Reader(files, crop, seed)
        self._workers = workers
        self._device = device
        self._requests = _Requests()
        self._loader: DataLoader[Tensor | DataError] | None = None
        self._batches: Iterator[Tensor | DataError] = iter(())
        self._turn = 0

    def inputs(self, epoch: int, order: Sequence[Tensor]) -> Iterator[Tensor]:
        """Decode batches.

        Args:
            epoch: which random parts are taken.
            order: for each batch the numbers of its images, `b`, int64.
        Returns:
            The batches, `b 3 size size`, uint8, on the device.
        Raises:
            DataError: an image cannot be decoded, or a worker was killed.
            SpecError: a newer iteration has taken the workers, or they were ended.
        """
        self._turn += 1
        turn = self._turn
        self._requests.epoch, self._requests.order = epoch, order
        try:
            with naming_lost_workers():
                if self._loader is None:
                    self._loader = self._start()
                self._batches = iter(self._loader)
                for _ in order:
                    if turn != self._turn:
                        raise SpecError(
                            "batches has an iteration that was closed, or that a newer one replaced: must have one at "
                            "a time, since the workers are shared. Make other Batches for the other."
                        )
                    yield self._next()
        except DataError:
            self.close()
            raise

    def close(self) -> None:
        """End the workers; another iteration starts new ones."""
        self._turn += 1
        self._batches = iter(())
        self._loader = None

    def _start(self) -> "DataLoader[Tensor | DataError]":
        return DataLoader(
            self._reader,
            sampler=self._requests,
            batch_size=None,
            num_workers=self._workers,
            persistent_workers=self._workers > 0,
            pin_memory=self._device.type == "cuda",
            generator=torch.Generator(),  # else it would draw from the one that dropout has
        )

    def _next(self) -> Tensor:
        batch = next(self._batches)
        if isinstance(batch, DataError):
            raise batch
        return batch.to(self._device, non_blocking=True)


@contextmanager
def naming_lost_workers() -> Iterator[None]:
    """Say what it may mean that a worker is gone; torch says so in whatever the process does just then.

    Raises:
        DataError: in the place of torch's error.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            f"decoding has lost a worker process ({str(error).strip()}): all must live to the end. Often memory runs "
            "out, of the machine or in /dev/shm: use smaller batches or fewer workers."
        ) from error


class _Reader(Dataset[Tensor | DataError]):
    """What a worker has: it answers a request with a batch, or with the reason why there is none."""

    def __init__(self, files: ImageFiles, crop: ResizedCrop | None, seed: int) -> None:
        self._files, self._crop, self._seed = files, crop, seed

    def __getitem__(self, request: Request) -> Tensor | DataError:
        epoch, numbers = request
        pixels = torch.empty(len(numbers), *self._files.shape[1:], dtype=torch.uint8)
        try:
            for place, number in enumerate(numbers):
                pixels[place] = self._decode(number, epoch)
        except DataError as error:
            return error  # raised here, it would come with the worker's traceback for a message
        return pixels

    def _decode(self, number: int, epoch: int) -> Tensor:
        if self._crop is None:
            return self._files.central(number)
        return self._files.cropped(number, self._crop, self._seed, epoch)


class _Requests:
    """What the workers are asked for in an epoch; told anew before each, since they live longer."""

    def __init__(self) -> None:
        self.epoch = 0
        self.order: Sequence[Tensor] = ()

    def __iter__(self) -> Iterator[Request]:
        return ((self.epoch, index.tolist()) for index in self.order)
