"""MNIST and Fashion-MNIST, from their idx files, zipped or not."""

import gzip
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from dynops.data.augment import Augmentation
from dynops.data.dataset import Examples
from dynops.data.download import fetch
from dynops.data.files import read_verified, refuse_missing
from dynops.data.images import ImageData, RawImages
from dynops.errors import DataError
from dynops.specs import spec

TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
UNSIGNED_BYTE = 8


def read_idx(content: bytes, name: str, axes: int) -> Tensor:
    """Read an idx file of bytes.

    Two zero bytes, the code of the type, the number of axes, each size as a big-endian 32-bit number, the values.

    Args:
        content: the file.
        name: what messages call it.
        axes: number of axes that it must have.
    Returns:
        Values, uint8.
    Raises:
        DataError: the header does not say so, or the length is not what the header says.
    """
    again = "Remove the file, and get it again with download=True (`--download true`)."
    start = 4 * (1 + axes)
    magic = bytes((0, 0, UNSIGNED_BYTE, axes))
    if len(content) < start or content[:4] != magic:
        raise DataError(f"{name} has first bytes {content[:4].hex()}: must be {magic.hex()} and {axes} sizes. {again}")
    sizes = tuple(int(size) for size in np.frombuffer(content, dtype=">u4", count=axes, offset=4))
    expected = start + int(np.prod(sizes, dtype=object))
    if len(content) != expected:
        raise DataError(f"{name} has {len(content)} bytes: must be {expected} for the sizes {sizes}. {again}")
    return torch.from_numpy(np.frombuffer(content, dtype=np.uint8, offset=start).reshape(sizes).copy())


@spec
class IdxImages(ImageData):
    """Base of MNIST and its successors: 60000 training and 10000 test images, 1 channel of 28x28 pixels, 10 classes."""

    folder: ClassVar[str]
    url: ClassVar[str]
    checksums: ClassVar[MappingProxyType[str, str]]
    classes: ClassVar[tuple[str, ...]]

    def _read(self, root: Path, download: bool) -> RawImages:
        folder = root / self.folder / "raw"
        missing = [name for name in TRAIN + TEST if not _present(folder, name)]
        if download:
            for name in missing:
                fetch(f"{self.url}{name}.gz", folder / f"{name}.gz", self.checksums[name])
        else:
            refuse_missing(type(self).__name__, folder, missing, self.url)
        return RawImages(train=self._part(folder, *TRAIN), test=self._part(folder, *TEST), classes=self.classes)

    def _part(self, folder: Path, images: str, labels: str) -> Examples:
        inputs = read_idx(self._content(folder, images), str(folder / images), 3)
        targets = read_idx(self._content(folder, labels), str(folder / labels), 1)
        if inputs.shape[1:] != (28, 28) or len(inputs) != len(targets) or len(targets) == 0:
            raise DataError(
                f"{folder / images} has sizes {tuple(inputs.shape)}, {labels} has {len(targets)} labels: "
                "must be 28x28 pixels and one label for each image. Remove both files, and get them again."
            )
        if int(targets.max()) >= len(self.classes):
            raise DataError(
                f"{folder / labels} has label {int(targets.max())}: must be at most {len(self.classes) - 1}. "
                "Remove the file, and get it again."
            )
        return Examples(inputs=inputs.unsqueeze(1), targets=targets.to(torch.int64))

    def _content(self, folder: Path, name: str) -> bytes:
        plain = folder / name
        if plain.is_file():
            return plain.read_bytes()
        return gzip.decompress(read_verified(folder / f"{name}.gz", self.checksums[name]))


@spec
class Mnist(IdxImages):
    """MNIST: handwritten digits.

    Source: LeCun et al., Gradient-Based Learning Applied to Document Recognition, 1998.
    """

    mean: ClassVar[tuple[float, ...]] = (0.1307,)
    std: ClassVar[tuple[float, ...]] = (0.3081,)
    folder: ClassVar[str] = "MNIST"
    url: ClassVar[str] = "https://ossci-datasets.s3.amazonaws.com/mnist/"
    checksums: ClassVar[MappingProxyType[str, str]] = MappingProxyType(
        {
            "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
        }
    )
    classes: ClassVar[tuple[str, ...]] = tuple("0123456789")


@spec
class FashionMnist(IdxImages):
    """Fashion-MNIST: clothes in the format of MNIST.

    Source: Xiao et al., Fashion-MNIST: a Novel Image Dataset for Benchmarking, 2017.
    """

    mean: ClassVar[tuple[float, ...]] = (0.2860,)
    std: ClassVar[tuple[float, ...]] = (0.3530,)
    folder: ClassVar[str] = "FashionMNIST"
    url: ClassVar[str] = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
    checksums: ClassVar[MappingProxyType[str, str]] = MappingProxyType(
        {
            "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
        }
    )
    classes: ClassVar[tuple[str, ...]] = (
        "T-shirt/top",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    )

    augmentation: Augmentation = Augmentation(flip=True)
    """Random changes of the training images; mirrored ones by default, since clothes have no side."""


def _present(folder: Path, name: str) -> bool:
    return (folder / name).is_file() or (folder / f"{name}.gz").is_file()
