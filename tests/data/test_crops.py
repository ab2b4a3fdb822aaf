"""Views of an image: their distribution against the one that is stated, their pixels against PIL and torch."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from scipy import stats
from torch import Tensor

from dynops.data import ResizedCrop
from dynops.data.crops import View, centre, draw, show
from dynops.errors import SpecError
from dynops.specs import Spec
from dynops.streams import stream

DRAWS = 2000


def drawn(width: int, height: int, crop: ResizedCrop) -> list[View]:
    generator = stream(0, "test")
    return [draw(width, height, crop, generator) for _ in range(DRAWS)]


def picture(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def scaled(image: Image.Image, width: int, height: int) -> Tensor:
    """The image at another size, by torch."""
    pixels = tensor(image).unsqueeze(0).double()
    return F.interpolate(pixels, (height, width), mode="bilinear", antialias=True, align_corners=False)[0]


def test_area_ratio_and_place_are_uniform_where_every_part_fits() -> None:
    side, crop = 4000, ResizedCrop(area=(0.08, 0.7))  # 0.7 * 4/3 < 1
    views = drawn(side, side, crop)
    areas = [view.width * view.height / side**2 for view in views]
    ratios = [math.log(view.width / view.height) for view in views]
    places = [(view.left / (side - view.width), view.top / (side - view.height)) for view in views]
    assert stats.kstest(areas, stats.uniform(0.08, 0.62).cdf).pvalue > 0.01
    assert stats.kstest(ratios, stats.uniform(math.log(3 / 4), math.log(16 / 9)).cdf).pvalue > 0.01
    for place in zip(*places, strict=True):
        assert stats.kstest(place, stats.uniform().cdf).pvalue > 0.01
    assert stats.spearmanr(areas, ratios).pvalue > 0.01
    assert stats.binomtest(sum(view.mirrored for view in views), DRAWS).pvalue > 0.01


def test_views_of_an_oblong_image_are_those_of_a_plain_rejection() -> None:
    random = np.random.default_rng(1)
    area = 500 * 375 * random.uniform(0.08, 1, 20 * DRAWS)
    ratio = np.exp(random.uniform(math.log(3 / 4), math.log(4 / 3), 20 * DRAWS))
    width, height = np.sqrt(area * ratio), np.sqrt(area / ratio)
    inside = (width <= 500) & (height <= 375)
    views = drawn(500, 375, ResizedCrop())
    assert stats.ks_2samp([view.width * view.height for view in views], area[inside]).pvalue > 0.01
    assert stats.ks_2samp([view.width / view.height for view in views], ratio[inside]).pvalue > 0.01


@given(st.integers(1, 400), st.integers(1, 400), st.floats(0.001, 1), st.floats(0.1, 9), st.integers(0, 2**31))
def test_every_view_lies_inside(width: int, height: int, area: float, ratio: float, seed: int) -> None:
    crop = ResizedCrop(area=(area, 1.0), ratio=(ratio, 10.0))
    view = draw(width, height, crop, torch.Generator().manual_seed(seed))
    assert 0 <= view.left <= view.left + view.width <= width
    assert 0 <= view.top <= view.top + view.height <= height
    assert min(view.width, view.height) >= 1


@pytest.mark.parametrize(
    ("size", "ratio", "expected"),
    [
        ((400, 100), (1.0, 1.0), (150, 0, 100, 100)),
        ((100, 400), (1.0, 1.0), (0, 150, 100, 100)),
        ((400, 100), (0.5, 2.0), (100, 0, 200, 100)),
        ((100, 400), (0.5, 2.0), (0, 100, 100, 200)),
    ],
)
def test_the_largest_central_part_is_taken_where_none_fits(
    size: tuple[int, int], ratio: tuple[float, float], expected: tuple[int, int, int, int]
) -> None:
    crop = ResizedCrop(area=(1.0, 1.0), ratio=ratio)
    assert draw(*size, crop, stream(0, "test"))[:4] == expected


def test_flip_leaves_the_parts_as_they_are() -> None:
    flipped, straight = (drawn(500, 375, ResizedCrop(flip=flip)) for flip in (True, False))
    assert [view[:4] for view in flipped] == [view[:4] for view in straight]
    assert not any(view.mirrored for view in straight)


@pytest.mark.parametrize("view", [View(3, 5, 40, 30, False), View(0, 0, 61, 47, True), View(60, 46, 1, 1, True)])
def test_a_view_shows_its_part_smoothed(view: View) -> None:
    image = picture(61, 47)
    seen = tensor(show(image, view, 24))
    part = image.crop((view.left, view.top, view.left + view.width, view.top + view.height))
    expected = scaled(ImageOps.mirror(part) if view.mirrored else part, 24, 24)
    assert (seen - expected).abs().max() <= 1


@pytest.mark.parametrize(
    ("image_size", "size", "resized", "corner"),
    [
        ((500, 375), 224, (341, 256), (58, 16)),
        ((375, 500), 224, (256, 341), (16, 58)),
        ((256, 256), 224, (256, 256), (16, 16)),
        ((33, 47), 16, (18, 25), (1, 4)),
        ((20, 10), 32, (74, 37), (21, 2)),
    ],
)
def test_the_centre_is_that_of_the_image_at_eight_sevenths_of_the_size(
    image_size: tuple[int, int], size: int, resized: tuple[int, int], corner: tuple[int, int]
) -> None:
    image = picture(*image_size)
    left, top = corner
    came = tensor(centre(image, size))
    by_hand = image.resize(resized, Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))
    assert torch.equal(came, tensor(by_hand))
    by_torch = scaled(image, *resized)[:, top : top + size, left : left + size]
    assert (came - by_torch).abs().max() <= 1


def test_a_crop_goes_to_json_and_to_python_and_back() -> None:
    crop = ResizedCrop(area=(0.2, 1.0), ratio=(1.0, 1.0), flip=False)
    assert Spec.from_json(crop.to_json()) == crop == eval(repr(crop), {"ResizedCrop": ResizedCrop})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"area": (0.0, 1.0)}, r"area has \(0\.0, 1\.0\): must be a range, above 0 and up to 1\.0"),
        ({"area": (0.5, 0.2)}, r"area has \(0\.5, 0\.2\): must be a range"),
        ({"area": (0.5, 1.2)}, r"area has \(0\.5, 1\.2\): must be a range"),
        ({"ratio": (-1.0, 2.0)}, r"ratio has \(-1\.0, 2\.0\): must be a range, above 0 and up to inf"),
        ({"flip": 3}, "flip has 3: must be one of False, True"),
    ],
)
def test_a_range_that_is_none_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=rf"^{message}"):
        ResizedCrop(**changes)
