"""Views of an image, all of one size: a part drawn at random to learn from, the centre to be evaluated."""

import math
from typing import NamedTuple

import torch
from PIL import Image
from torch import Generator

from dynops.errors import SpecError
from dynops.specs import Spec, one_of, spec

ATTEMPTS = 10  # to draw a part that lies inside the image
CENTRAL_SHARE = 0.875  # of the short side


@spec
class ResizedCrop(Spec):
    """Cut a part of random area and shape out of a training image and bring it to the size of the inputs.

    An area and a ratio, uniform and uniform in the logarithm, are drawn up to ten times, until the part lies inside;
    then its place. Where none does, the largest central part is taken whose ratio is nearest to the image's.

    Source: Szegedy et al., Going Deeper with Convolutions, CVPR 2015, section 6.
    """

    area: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest share of the image's area."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Smallest and largest ratio of width to height."""
    flip: bool = True
    """Whether half of the images are mirrored left to right."""

    def __post_init__(self) -> None:
        for name, (least, most), limit in (("area", self.area, 1.0), ("ratio", self.ratio, math.inf)):
            if not 0 < least <= most <= limit:
                raise SpecError(f"{name} has {(least, most)}: must be a range, above 0 and up to {limit}.")
        one_of("flip", self.flip, (False, True))


class View(NamedTuple):
    """Which part of an image is seen, and how."""

    left: int
    top: int
    width: int
    height: int
    mirrored: bool


def draw(width: int, height: int, crop: ResizedCrop, generator: Generator) -> View:
    """Draw a view of an image; the same numbers are drawn whatever the sizes and the crop.

    Args:
        width: of the image, in pixels.
        height: of the image.
        crop: what may be drawn.
        generator: random numbers, on the CPU.
    """
    *tries, across, down, mirror = torch.rand(2 * ATTEMPTS + 3, dtype=torch.float64, generator=generator).tolist()
    for share, shape in zip(tries[::2], tries[1::2], strict=True):
        area = width * height * _between(crop.area, share)
        ratio = math.exp(_between((math.log(crop.ratio[0]), math.log(crop.ratio[1])), shape))
        columns, rows = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < columns <= width and 0 < rows <= height:
            break
    else:
        ratio = min(max(width / height, crop.ratio[0]), crop.ratio[1])
        columns = max(1, min(width, round(height * ratio)))
        rows = max(1, min(height, round(width / ratio)))
        across = down = 0.5
    left, top = int(across * (width - columns + 1)), int(down * (height - rows + 1))
    return View(left, top, columns, rows, crop.flip and mirror < 0.5)


def show(image: Image.Image, view: View, size: int) -> Image.Image:
    """Return what a view sees, bilinear and smoothed where it shrinks, `size` by `size` pixels."""
    part = image.crop((view.left, view.top, view.left + view.width, view.top + view.height))
    seen = part.resize((size, size), Image.Resampling.BILINEAR)
    return seen.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if view.mirrored else seen


def centre(image: Image.Image, size: int) -> Image.Image:
    """Return the centre, `size` by `size` pixels, of an image whose short side is brought to `size / 0.875`."""
    short = round(size / CENTRAL_SHARE)
    width, height = (short * side // min(image.size) for side in image.size)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return resized.crop((left, top, left + size, top + size))


def _between(limits: tuple[float, float], share: float) -> float:
    return limits[0] + share * (limits[1] - limits[0])
