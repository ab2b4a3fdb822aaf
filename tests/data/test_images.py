"""Image data sets as a whole: published counts, an independent read, and draws that do not disturb each other."""

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dynops.data import (
    Augmentation,
    Cifar10,
    Cifar100,
    Data,
    Dataset,
    Digits,
    Examples,
    FashionMnist,
    ImageData,
    Mnist,
    SelectorShift,
)
from dynops.errors import SpecError
from dynops.specs import Spec

FIRST_BATCH = [1005, 974, 1032, 1016, 999, 937, 1030, 1001, 1025, 981]
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def rows(examples: Examples) -> set[bytes]:
    return {image.tobytes() for image in examples.inputs.numpy()}


def counts(targets: Tensor) -> list[int]:
    return torch.bincount(targets).tolist()


def plain_read(path: Path) -> dict[bytes, Any]:
    with open(path, "rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded: dict[bytes, Any] = pickle.load(file, encoding="bytes")
    return loaded


def test_cifar10_has_its_published_counts(cifar10: Dataset) -> None:
    assert counts(cifar10.train.targets) == [5000] * 10
    assert counts(cifar10.test.targets) == [1000] * 10
    assert counts(cifar10.train.targets[:10000]) == FIRST_BATCH
    assert cifar10.classes == CLASSES
    assert (cifar10.name, cifar10.outputs, cifar10.input_shape) == ("Cifar10", 10, (3, 32, 32))


@pytest.mark.parametrize(("name", "at"), [("data_batch_1", 0), ("data_batch_5", 40000), ("test_batch", None)])
def test_cifar10_images_equal_a_plain_read(cifar10: Dataset, data_root: Path, name: str, at: int | None) -> None:
    plain = plain_read(data_root / "cifar-10-batches-py" / name)
    examples = cifar10.test if at is None else cifar10.train.take(torch.arange(at, at + 10000))
    for number in (0, 1, 9999):
        row = plain[b"data"][number]
        image = np.stack([row[1024 * colour : 1024 * (colour + 1)].reshape(32, 32) for colour in range(3)])
        np.testing.assert_array_equal(examples.inputs[number].numpy(), image)
        assert int(examples.targets[number]) == plain[b"labels"][number]


def test_cifar10_mean_and_std_are_those_of_its_training_images(cifar10: Dataset) -> None:
    shades = torch.arange(256, dtype=torch.float64) / 255
    for channel, mean, std in zip(range(3), cifar10.mean, cifar10.std, strict=True):
        share = torch.bincount(cifar10.train.inputs[:, channel].flatten(), minlength=256) / (50000 * 1024)
        came = (share * shades).sum()
        assert came.item() == pytest.approx(mean, abs=5e-5)
        assert (share * (shades - came).square()).sum().sqrt().item() == pytest.approx(std, abs=6e-5)


def test_cifar10_is_validated_on_as_many_images_as_it_is_tested_on(cifar10: Dataset, data_root: Path) -> None:
    held = Cifar10(evaluate="validation", fraction=0.02).load(0, root=data_root)
    assert counts(held.test.targets) == [1000] * 10
    assert counts(held.train.targets) == [100] * 10
    assert not rows(held.train) & rows(held.test)
    assert rows(held.test) <= rows(cifar10.train)


def test_digits_are_split_in_proportion_and_whole() -> None:
    data = Digits().load(0)
    assert (len(data.train), len(data.test)) == (1000, 797)
    whole = torch.tensor(counts(data.train.targets)) + torch.tensor(counts(data.test.targets))
    assert whole.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert bool((torch.tensor(counts(data.train.targets)) - whole * 1000 / 1797).abs().max() < 2)
    assert data.train.inputs.dtype == torch.uint8
    assert (int(data.train.inputs.max()), data.scale, data.input_shape) == (16, 16.0, (1, 8, 8))
    assert data.classes == tuple("0123456789")


def test_digits_are_about_normal_after_normalisation() -> None:
    data = Digits().load(0)
    inputs = data.normalise(torch.cat([data.train.inputs, data.test.inputs]))
    assert inputs.mean().item() == pytest.approx(0, abs=1e-3)
    assert inputs.std().item() == pytest.approx(1, abs=1e-3)


def test_all_seeds_are_tested_on_the_same_images() -> None:
    one, other = (Digits().load(seed) for seed in (0, 1))
    assert torch.equal(one.train.inputs, other.train.inputs)
    assert torch.equal(one.test.inputs, other.test.inputs)
    assert torch.equal(one.test.targets, other.test.targets)


def test_each_seed_draws_its_own_part_and_its_own_validation_images() -> None:
    for changes in ({"fraction": 0.1}, {"evaluate": "validation"}):
        one, same, other = (Digits(**changes).load(seed) for seed in (0, 0, 1))
        assert torch.equal(one.train.inputs, same.train.inputs)
        assert not torch.equal(one.train.inputs, other.train.inputs)


def test_fractions_of_the_digits_are_nested() -> None:
    parts = [rows(Digits(fraction=fraction).load(0).train) for fraction in (0.05, 0.2, 0.7, 1.0)]
    assert [len(part) for part in parts] == [50, 200, 700, 1000]
    assert parts[0] < parts[1] < parts[2] < parts[3]


def test_fraction_changes_no_test_image() -> None:
    full, part = (Digits(fraction=fraction).load(0) for fraction in (1.0, 0.1))
    assert torch.equal(full.test.inputs, part.test.inputs)
    assert rows(part.train) < rows(full.train)


@pytest.mark.parametrize(
    ("fraction", "learnt", "evaluated"), [(0.05, 50, 797), (0.2, 200, 797), (0.5, 500, 500), (0.95, 900, 100)]
)
def test_validation_learns_as_many_images_and_evaluates_others(fraction: float, learnt: int, evaluated: int) -> None:
    tuned = Digits(fraction=fraction, evaluate="validation").load(1000)
    assert (len(tuned.train), len(tuned.test)) == (learnt, evaluated)
    assert not rows(tuned.train) & rows(tuned.test)


def test_validation_never_shows_test_images() -> None:
    tested, tuned = Digits().load(0), Digits(evaluate="validation").load(1000)
    assert (len(tuned.train), len(tuned.test)) == (900, 100)
    assert rows(tuned.train) | rows(tuned.test) == rows(tested.train)
    assert not (rows(tuned.train) | rows(tuned.test)) & rows(tested.test)


def test_fraction_and_validation_are_drawn_apart() -> None:
    assert rows(Digits(fraction=0.1).load(0).train) != rows(Digits(evaluate="validation").load(0).test)


def test_augmentation_changes_no_image_that_is_loaded() -> None:
    changed = Digits(augmentation=Augmentation(crop=1)).load(0)
    assert torch.equal(changed.train.inputs, Digits().load(0).train.inputs)


def test_augmentation_defaults_fit_the_images() -> None:
    usual = {each: each().augmentation for each in (Digits, Mnist, FashionMnist, Cifar10, Cifar100)}
    plain, natural = Augmentation(), Augmentation(crop=4, flip=True)
    assert list(usual.values()) == [plain, plain, Augmentation(flip=True), natural, natural]
    assert SelectorShift(task="pixel").augmentation is None


@pytest.mark.parametrize(
    "data",
    [
        Digits(),
        Mnist(fraction=0.1),
        FashionMnist(augmentation=Augmentation()),
        Cifar10(evaluate="validation", augmentation=Augmentation(crop=2)),
        Cifar100(),
        SelectorShift(task="match", train=10),
    ],
)
def test_specs_go_to_json_and_to_python_and_back(data: Data) -> None:
    assert Spec.from_json(data.to_json()) == data
    names = (Augmentation, Cifar10, Cifar100, Digits, FashionMnist, Mnist, SelectorShift)
    assert eval(repr(data), {each.__name__: each for each in names}) == data


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.5, float("nan")])
def test_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(SpecError, match=rf"^fraction has {fraction}: must lie above 0 and be at most 1\.$"):
        Digits(fraction=fraction)


def test_unknown_evaluation_is_refused() -> None:
    with pytest.raises(SpecError, match=r"^evaluate has 'train': must be one of 'test', 'validation'\.$"):
        Digits(evaluate="train")


def test_fraction_that_empties_a_class_is_refused_when_loaded() -> None:
    message = r"^fraction has 0\.004, 4 of 1000 training images with 4 of 10 classes: .* Use at least 0\.0\d+\.$"
    with pytest.raises(SpecError, match=message):
        Digits(fraction=0.004).load(0)


def test_the_template_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="abstract"):
        ImageData()
