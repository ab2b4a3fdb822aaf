"""CIFAR-10 and CIFAR-100, from the files of their Python version."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch

from dynops.data.augment import Augmentation
from dynops.data.dataset import Examples
from dynops.data.download import fetch, unpack
from dynops.data.files import read_verified, refuse_missing
from dynops.data.images import ImageData, RawImages
from dynops.data.pickles import load_pickle
from dynops.errors import DataError
from dynops.specs import spec


@dataclass(frozen=True, kw_only=True)
class CifarFiles:
    """Where the files of one CIFAR come from, and what they are called."""

    url: str
    """Address of the archive."""
    md5: str
    """Checksum of the archive."""
    folder: str
    """Folder of the files, in the archive and under the root."""
    train: MappingProxyType[str, str]
    """Checksums of the files with training images, by name."""
    test: MappingProxyType[str, str]
    """Checksum of the file with test images, by name."""
    meta: MappingProxyType[str, str]
    """Checksum of the file with the names of the classes, by name."""
    labels: str
    """Key of the labels."""
    names: str
    """Key of the names of the classes."""


CIFAR10 = CifarFiles(
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    md5="c58f30108f718f92721af3b95e74349a",
    folder="cifar-10-batches-py",
    train=MappingProxyType(
        {
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        }
    ),
    test=MappingProxyType({"test_batch": "40351d587109b95175f43aff81a1287e"}),
    meta=MappingProxyType({"batches.meta": "5ff9c542aee3614f3951f8cda6e48888"}),
    labels="labels",
    names="label_names",
)

CIFAR100 = CifarFiles(
    url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    md5="eb9058c3a382ffc7106e4002c42a8d85",
    folder="cifar-100-python",
    train=MappingProxyType({"train": "16019d7e3df5f24257cddd939b257f8d"}),
    test=MappingProxyType({"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"}),
    meta=MappingProxyType({"meta": "7973b15100ade9c7d40fb424638fde48"}),
    labels="fine_labels",
    names="fine_label_names",
)


@spec
class Cifar(ImageData):
    """Base of both CIFARs: 50000 training and 10000 test images, 3 channels of 32x32 pixels.

    Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """

    files: ClassVar[CifarFiles]

    augmentation: Augmentation = Augmentation(crop=4, flip=True)
    """Random changes of the training images; the usual ones by default."""

    def _read(self, root: Path, download: bool) -> RawImages:
        files = self.files
        folder = root / files.folder
        wanted = {**files.train, **files.test, **files.meta}
        if download and _missing(folder, wanted):
            archive = root / Path(files.url).name
            fetch(files.url, archive, files.md5)
            unpack(archive, wanted, folder)
            archive.unlink()
        refuse_missing(type(self).__name__, folder, _missing(folder, wanted), files.url)
        (meta,) = _load(folder, files.meta)
        classes = tuple(_text(name) for name in _entry(folder, meta, files.names))
        train, test = (_examples(folder, _load(folder, part), files.labels) for part in (files.train, files.test))
        return RawImages(train=train, test=test, classes=classes)


@spec
class Cifar10(Cifar):
    """CIFAR-10: natural images of 10 classes, 5000 of each to train and 1000 to test."""

    files: ClassVar[CifarFiles] = CIFAR10
    mean: ClassVar[tuple[float, ...]] = (0.4914, 0.4822, 0.4465)
    std: ClassVar[tuple[float, ...]] = (0.2470, 0.2435, 0.2616)


@spec
class Cifar100(Cifar):
    """CIFAR-100: natural images of 100 fine classes, 500 of each to train and 100 to test."""

    files: ClassVar[CifarFiles] = CIFAR100
    mean: ClassVar[tuple[float, ...]] = (0.5071, 0.4865, 0.4409)
    std: ClassVar[tuple[float, ...]] = (0.2673, 0.2564, 0.2762)


def _missing(folder: Path, names: "dict[str, str]") -> list[str]:
    return [name for name in names if not (folder / name).is_file()]


def _load(folder: Path, checksums: MappingProxyType[str, str]) -> list[dict[str, Any]]:
    return [load_pickle(read_verified(folder / name, md5), str(folder / name)) for name, md5 in checksums.items()]


def _examples(folder: Path, batches: Sequence[dict[str, Any]], labels: str) -> Examples:
    rows = np.concatenate([_entry(folder, batch, "data") for batch in batches])
    targets = [label for batch in batches for label in _entry(folder, batch, labels)]
    inputs = torch.from_numpy(rows).view(-1, 3, 32, 32)
    return Examples(inputs=inputs, targets=torch.tensor(targets, dtype=torch.int64))


def _entry(folder: Path, loaded: dict[str, Any], key: str) -> Any:
    if key not in loaded:
        raise DataError(f"{folder} has a file with {', '.join(loaded)}: must hold {key}. Get it again from its source.")
    return loaded[key]


def _text(name: bytes | str) -> str:
    return name.decode("ascii") if isinstance(name, bytes) else name
