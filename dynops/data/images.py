"""Image data sets: the template that all of them follow, and scikit-learn's digits, which need no download."""

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from sklearn.datasets import load_digits

from dynops.data.augment import Augmentation
from dynops.data.crops import ResizedCrop
from dynops.data.dataset import Data, Dataset, Examples
from dynops.data.splits import split, subset
from dynops.errors import SpecError
from dynops.specs import one_of, spec
from dynops.streams import stream

ROOT = Path("data")
VALIDATION_SHARE = 10  # at least one in ten training images


@dataclass(frozen=True, kw_only=True, eq=False)
class RawImages:
    """What the files of a data set hold."""

    train: Examples
    """Official training images."""
    test: Examples
    """Official test images."""
    classes: tuple[str, ...]
    """Names of the classes."""


@spec
class ImageData(Data):
    """Base of the classification data sets; a concrete one reads its images in `_read`."""

    scale: ClassVar[float] = 255.0
    mean: ClassVar[tuple[float, ...]]
    std: ClassVar[tuple[float, ...]]

    fraction: float = 1.0
    """Share of the training images that is used; a smaller one is a subset of a larger one."""
    evaluate: str = "test"
    """`test`, or `validation`: training images that are not learnt from are evaluated, as many as there are test images
    or, where fewer are left, these and a tenth at least; the test images are unused."""
    augmentation: Augmentation | ResizedCrop | None = Augmentation()
    """Random changes of the training images."""

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise SpecError(f"fraction has {self.fraction}: must lie above 0 and be at most 1.")
        one_of("evaluate", self.evaluate, ("test", "validation"))

    def load(self, seed: int, *, root: Path | None = None, download: bool = False) -> Dataset:
        """Read the images, hold out validation images if asked, and keep the fraction; errors as in `Data.load`."""
        raw = self._read(ROOT if root is None else root, download)
        train, test = raw.train, raw.test
        learnt = round(self.fraction * len(train))
        if self.evaluate == "validation":
            held_out = max(round(len(train) / VALIDATION_SHARE), min(len(test), len(train) - learnt))
            test, train = split(train, held_out, stream(seed, "validation"))
        if learnt < len(train):
            train = subset(train, learnt / len(train), stream(seed, "fraction"))
        return Dataset(
            name=type(self).__name__,
            train=train,
            test=test,
            task="classification",
            outputs=len(raw.classes),
            scale=self.scale,
            mean=self.mean,
            std=self.std,
            classes=raw.classes,
        )

    @abstractmethod
    def _read(self, root: Path, download: bool) -> RawImages:
        """Read the raw images from the root, after fetching them if that is asked."""


@spec
class Digits(ImageData):
    """1797 handwritten digits of 8x8 pixels that come with scikit-learn: 1000 to train, 797 to test.

    The images have no official split; theirs was drawn once, each class in its proportion, and is the same for all
    seeds: what is tuned on training images never saw the test images of any seed.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI 1998, its test part.
    """

    scale: ClassVar[float] = 16.0
    mean: ClassVar[tuple[float, ...]] = (0.3053,)
    std: ClassVar[tuple[float, ...]] = (0.3760,)

    def _read(self, root: Path, download: bool) -> RawImages:
        digits = load_digits()
        images = torch.from_numpy(digits.images).to(torch.uint8).unsqueeze(1)  # n 1 h w
        examples = Examples(inputs=images, targets=torch.from_numpy(digits.target).to(torch.int64))
        train, test = split(examples, 1000, stream(0, "split"))
        return RawImages(train=train, test=test, classes=tuple(str(digit) for digit in digits.target_names))
