"""Data sets in memory: normalisation, shapes that fit, messages."""

from typing import Any

import pytest
import torch

from dynops.data import Data, Dataset, Examples
from dynops.errors import ShapeError


def examples(number: int = 4, channels: int = 2, side: int = 3) -> Examples:
    inputs = torch.randint(256, (number, channels, side, side), dtype=torch.uint8)
    return Examples(inputs=inputs, targets=torch.zeros(number, dtype=torch.int64))


def dataset(**changes: Any) -> Dataset:
    fields: dict[str, Any] = {"train": examples(), "test": examples(3), "mean": (0.2, 0.4), "std": (0.5, 0.25)}
    return Dataset(name="made", task="classification", outputs=10, scale=255.0, **{**fields, **changes})


def test_normalise_scales_then_centres_each_channel() -> None:
    inputs = torch.tensor([[[[0]], [[255]]]], dtype=torch.uint8)
    result = dataset().normalise(inputs)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.flatten(), torch.tensor([(0 - 0.2) / 0.5, (1 - 0.4) / 0.25]))


def test_input_shape_is_that_of_one_input() -> None:
    assert dataset().input_shape == (2, 3, 3)


def test_take_follows_the_index() -> None:
    made = examples()
    assert torch.equal(made.take(torch.tensor([2, 0])).inputs, made.inputs[[2, 0]])


def test_targets_of_another_number_are_refused() -> None:
    message = r"^targets has shape \(3,\), inputs has n=4: must have one target for each input\.$"
    with pytest.raises(ShapeError, match=message):
        Examples(inputs=examples().inputs, targets=torch.zeros(3))


def test_test_images_of_another_size_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"^test has h=5 in `n c h w`: must be 3\.$"):
        dataset(test=examples(side=5))


def test_a_mean_for_each_channel_is_demanded() -> None:
    with pytest.raises(ShapeError, match=r"^mean has 1 values, inputs have c=2: must be one a channel\.$"):
        dataset(mean=(0.5,))


def test_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"^mask has h=2 in `h w`: must be 3\.$"):
        dataset(mask=torch.ones(2, 3, dtype=torch.bool))


def test_normalising_other_channels_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"^inputs has c=1 in `b c h w`: must be 2\.$"):
        dataset().normalise(torch.zeros(1, 1, 3, 3))


def test_the_base_of_the_specs_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Data()
