"""Images that stay in their files until they are asked for."""

import os
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from dynops.data.crops import ResizedCrop, centre, draw, show
from dynops.errors import DataError
from dynops.streams import stream

FORMATS = ("JPEG", "PNG")


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageFiles:
    """Stands for a tensor of images, `n 3 size size`, uint8, in RGB; `to` a device decodes them."""

    folder: Path
    """What the names start from."""
    names: npt.NDArray[np.bytes_]
    """Paths of the files, `n`; one array, since a million Python objects would be copied into each worker process."""
    size: int
    """Rows and columns of a decoded image."""

    @property
    def shape(self) -> torch.Size:
        """Sizes of the tensor: n, channels, rows, columns."""
        return torch.Size((len(self.names), 3, self.size, self.size))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: slice | Tensor) -> "ImageFiles":
        """Return the files at an index, `m`, int64 and on the CPU, in its order."""
        return replace(self, names=self.names[index if isinstance(index, slice) else index.numpy()])

    def to(self, device: torch.device | str) -> Tensor:
        """Decode all images as an evaluation sees them; errors as in `central`."""
        pixels = torch.empty(self.shape, dtype=torch.uint8)
        for number in range(len(self)):
            pixels[number] = self.central(number)
        return pixels.to(device)

    def central(self, number: int) -> Tensor:
        """Decode the centre of an image, `3 size size`, uint8.

        Raises:
            DataError: the file is no image, or is cut off.
        """
        return _tensor(centre(read_image(self._path(number)), self.size))

    def cropped(self, number: int, crop: ResizedCrop, seed: int, epoch: int) -> Tensor:
        """Decode a random part of an image, `3 size size`, uint8; errors as in `central`.

        The part depends on seed, epoch and name of the file alone: not on the other images, nor on who decodes them.
        """
        image = read_image(self._path(number))
        view = draw(*image.size, crop, stream(seed, "crop", epoch, self.names[number].decode("latin1")))
        return _tensor(show(image, view, self.size))

    def _path(self, number: int) -> Path:
        return self.folder / os.fsdecode(self.names[number])


def read_image(path: Path) -> Image.Image:
    """Decode a JPEG or PNG file to RGB, 8 bits a channel.

    Grey becomes three equal channels, CMYK is converted, a palette is looked up, alpha is left out, of 16 bits the
    upper 8 are kept. A rotation that the file only notes is not carried out.

    Raises:
        DataError: the file is no such image, or is cut off.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are about notes beside the pixels, and about alpha
            with Image.open(path, formats=FORMATS) as image:
                if image.mode == "I;16":
                    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
                return image.convert("RGB")
    except Exception as error:  # a broken image raises whatever its bytes happen to mean
        raise DataError(
            f"{path} has content that cannot be decoded ({type(error).__name__}: {error}): must be a whole image, "
            f"{' or '.join(FORMATS)}. Get the file again from its source, or remove it."
        ) from error


def _tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
