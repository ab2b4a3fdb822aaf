"""Crops and flips against loops over images, and the properties they must have."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dynops.data import Augmentation, augment
from dynops.errors import ShapeError, SpecError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by_loops(inputs: Tensor, augmentation: Augmentation, random: torch.Generator) -> Tensor:
    batch, channels, height, width = inputs.shape
    crop = augmentation.crop
    corners = torch.randint(2 * crop + 1, (2, batch, 1), generator=random)
    coins = torch.rand(batch, 1, generator=random)
    result = torch.zeros_like(inputs)
    for b in range(batch):
        padded = torch.zeros(channels, height + 2 * crop, width + 2 * crop, dtype=inputs.dtype)
        padded[:, crop : crop + height, crop : crop + width] = inputs[b]
        top, left = int(corners[0, b]), int(corners[1, b])
        window = padded[:, top : top + height, left : left + width]
        result[b] = window.flip(2) if augmentation.flip and coins[b] < 0.5 else window
    return result


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.tuples(st.integers(0, 5), st.integers(1, 3), st.integers(1, 7), st.integers(1, 7)),
    crop=st.integers(0, 4),
    flip=st.booleans(),
    dtype=st.sampled_from([torch.uint8, torch.int64, torch.float32, torch.float64]),
    seed=st.integers(0, 1000),
)
def test_augmentation_equals_a_loop_over_images(
    sizes: tuple[int, ...], crop: int, flip: bool, dtype: torch.dtype, seed: int
) -> None:
    inputs = torch.randint(256, sizes, generator=generator(seed)).to(dtype)
    augmentation = Augmentation(crop=crop, flip=flip)
    result = augment(inputs, augmentation, generator(seed))
    assert result.dtype == dtype
    assert torch.equal(result, by_loops(inputs, augmentation, generator(seed)))


def test_no_augmentation_returns_the_images() -> None:
    inputs = torch.randint(256, (3, 1, 8, 8), dtype=torch.uint8)
    assert torch.equal(augment(inputs, Augmentation(), generator()), inputs)


def test_every_window_and_both_sides_occur_equally_often() -> None:
    inputs = torch.zeros(9000, 1, 3, 3)
    inputs[:, :, 1, 1] = 1
    found = augment(inputs, Augmentation(crop=1), generator()).flatten(1).sum(0) / 9000
    assert torch.allclose(found, torch.full((9,), 1 / 9), atol=0.015)
    inputs = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2).expand(9000, -1, -1, -1)
    assert augment(inputs, Augmentation(flip=True), generator())[..., 0].mean().item() == pytest.approx(0.5, abs=0.02)


def test_flip_leaves_the_windows_as_they_are() -> None:
    inputs = torch.randint(1, 256, (50, 1, 6, 6))
    cropped = augment(inputs, Augmentation(crop=2), generator())
    both = augment(inputs, Augmentation(crop=2, flip=True), generator())
    same = (both == cropped).flatten(1).all(1)
    mirrored = (both == cropped.flip(3)).flatten(1).all(1)
    assert bool((same | mirrored).all())
    assert 0 < int(same.sum()) < 50


def test_inputs_stay_unchanged() -> None:
    inputs = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8)
    before = inputs.clone()
    augment(inputs, Augmentation(crop=2, flip=True), generator())
    assert torch.equal(inputs, before)


def test_negative_crop_is_refused() -> None:
    with pytest.raises(SpecError, match=r"^crop has -1: must be an integer of at least 0\.$"):
        Augmentation(crop=-1)


def test_flip_that_is_no_truth_value_is_refused() -> None:
    with pytest.raises(SpecError, match=r"^flip has 'left': must be one of False, True\.$"):
        Augmentation(flip="left")


def test_a_single_image_without_batch_axis_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"^inputs has shape \(3, 8, 8\) with 3 axes: must have 4, `b c h w`\.$"):
        augment(torch.zeros(3, 8, 8), Augmentation(crop=1), generator())
