"""Image data in folders, one for each class, as ImageNet comes."""

import os
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dynops.data.crops import ResizedCrop
from dynops.data.dataset import Examples
from dynops.data.image_files import ImageFiles
from dynops.data.images import ImageData, RawImages
from dynops.errors import DataError, SpecError
from dynops.specs import at_least, spec

EXTENSIONS = (".jpeg", ".jpg", ".png")
SHOWN = 3  # classes in a message


class Listing(NamedTuple):
    """The images of a folder, by class and name."""

    names: npt.NDArray[np.bytes_]
    """Paths from the folder, `n`."""
    targets: Tensor
    """Classes, `n`, int64."""
    classes: tuple[str, ...]
    """Names of the classes' folders, sorted."""


@spec
class ImageFolder(ImageData):
    """Images in `<root>/<folder>/train/<class>/*` and `<root>/<folder>/val/<class>/*`, JPEG or PNG, of any sizes.

    They stay in their files, and are decoded in worker processes while the device computes. To be evaluated, the short
    side is brought to `size / 0.875` pixels and the centre is cut out. Mean and deviation are those of ImageNet.
    """

    mean: ClassVar[tuple[float, ...]] = (0.485, 0.456, 0.406)
    std: ClassVar[tuple[float, ...]] = (0.229, 0.224, 0.225)

    folder: str
    """Name of the folder under the root, such as `imagenet`."""
    size: int = 224
    """Rows and columns of an input."""
    augmentation: ResizedCrop | None = ResizedCrop()
    """Which part of a training image is learnt from; None takes the centre, as an evaluation does."""

    def __post_init__(self) -> None:
        ImageData.__post_init__(self)
        at_least("size", self.size, 1)
        if not isinstance(self.augmentation, ResizedCrop | None):
            raise SpecError(f"augmentation has {self.augmentation!r}: must be a ResizedCrop, or None.")

    def _read(self, root: Path, download: bool) -> RawImages:
        folder = root / self.folder
        train, test = (_listed(folder / part) for part in ("train", "val"))
        _refuse_other_classes(folder, train.classes, test.classes)
        return RawImages(
            train=self._examples(folder / "train", train),
            test=self._examples(folder / "val", test),
            classes=train.classes,
        )

    def _examples(self, folder: Path, found: Listing) -> Examples:
        return Examples(inputs=ImageFiles(folder=folder, names=found.names, size=self.size), targets=found.targets)


def _listed(folder: Path) -> Listing:
    """List a folder, unless that was done and no file has come or gone since."""
    if not folder.is_dir():
        raise DataError(f"{folder.absolute()} does not exist: {_layout(folder)}")
    classes = tuple(sorted(each.name for each in os.scandir(folder) if each.is_dir() and each.name[0] != "."))
    if not classes:
        raise DataError(f"{folder.absolute()} has no folders of classes: {_layout(folder)}")
    return _list(folder, classes, tuple((folder / name).stat().st_mtime_ns for name in classes))


@lru_cache(maxsize=2)  # train and val
def _list(folder: Path, classes: tuple[str, ...], changed: tuple[int, ...]) -> Listing:
    by_class = [_images(folder / name) for name in classes]
    for name, found in zip(classes, by_class, strict=True):
        if not found:
            raise DataError(f"{(folder / name).absolute()} has no images: {_layout(folder)}")
    names = [os.fsencode(Path(name, file)) for name, found in zip(classes, by_class, strict=True) for file in found]
    targets = torch.arange(len(classes)).repeat_interleave(torch.tensor([len(found) for found in by_class]))
    return Listing(np.array(names), targets, classes)


def _images(folder: Path) -> list[str]:
    names = (each.name for each in os.scandir(folder))
    return sorted(name for name in names if name.lower().endswith(EXTENSIONS) and name[0] != ".")


def _layout(folder: Path) -> str:
    """Say what must lie where; the product fetches nothing here, since whoever gives ImageNet away asks for a login."""
    return (
        f"must hold a folder for each class, and in each {', '.join(EXTENSIONS)} files, as {folder.parent.name}/train/"
        f"<class>/* and {folder.parent.name}/val/<class>/*. Put them there, or name another root (`--root`)."
    )


def _refuse_other_classes(folder: Path, train: tuple[str, ...], test: tuple[str, ...]) -> None:
    if train != test:
        only = [
            f"{_some(sorted(set(one) - set(other)))} only in {part}"
            for part, one, other in (("train", train, test), ("val", test, train))
            if set(one) - set(other)
        ]
        raise DataError(
            f"{folder.absolute()} has {len(train)} classes in train, {len(test)} in val, {', '.join(only)}: "
            "must have the same folders of classes in both."
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
