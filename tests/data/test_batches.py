"""Batches: which examples come when, and that any epoch can be repeated on its own."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dynops.data import Augmentation, Batches, Dataset, Digits, Examples, SelectorShift, augment
from dynops.data import batches as module
from dynops.errors import SpecError
from dynops.streams import stream


def numbered(number: int) -> Examples:
    """Examples whose class is their number, with random pixels."""
    pixels = torch.randint(256, (number, 1, 5, 5), dtype=torch.uint8, generator=stream(0, "pixels"))
    return Examples(inputs=pixels, targets=torch.arange(number))


def dataset(number: int = 25) -> Dataset:
    return Dataset(
        name="made",
        train=numbered(number),
        test=numbered(number + 2),
        task="classification",
        outputs=number,
        scale=255.0,
        mean=(0.5,),
        std=(0.25,),
    )


def made(number: int = 25, **changes: Any) -> Batches:
    fields: dict[str, Any] = {"split": "train", "batch_size": 10, "device": "cpu", "seed": 3}
    return Batches(**{"dataset": dataset(number), **fields, **changes})


def epoch(batches: Batches, number: int = 0) -> list[tuple[Tensor, Tensor]]:
    batches.epoch = number
    return list(batches)


def classes(batches: Batches, number: int = 0) -> list[int]:
    return torch.cat([targets for _, targets in epoch(batches, number)]).tolist()


@pytest.mark.parametrize(
    ("number", "sizes"),
    [(25, [10, 10]), (20, [10, 10]), (15, [10, 5]), (10, [10]), (7, [7]), (1, [1])],
)
def test_incomplete_training_batch_is_left_out_after_two_full_ones(number: int, sizes: list[int]) -> None:
    batches = made(number)
    assert [len(targets) for _, targets in batches] == sizes
    assert len(batches) == len(sizes)


def test_training_order_is_that_of_its_stream() -> None:
    expected = torch.randperm(25, generator=stream(3, "order", 4)).tolist()[:20]
    assert classes(made(), 4) == expected


def test_test_examples_come_in_order_and_all() -> None:
    batches = made(split="test")
    assert classes(batches) == list(range(27))
    assert classes(batches, 1) == list(range(27))
    assert [len(targets) for _, targets in batches] == [10, 10, 7]
    assert len(batches) == 3


def test_inputs_are_normalised_and_belong_to_their_targets() -> None:
    data = dataset()
    for inputs, targets in made(dataset=data):
        assert torch.equal(inputs, data.normalise(data.train.inputs[targets]))


def test_an_epoch_can_be_repeated_without_those_before_it() -> None:
    augmentation = Augmentation(crop=1, flip=True)
    straight = made(augmentation=augmentation)
    epochs = [epoch(straight, number) for number in range(3)]
    resumed = epoch(made(augmentation=augmentation), 2)
    for (inputs, targets), (again, same) in zip(epochs[2], resumed, strict=True):
        assert torch.equal(inputs, again)
        assert torch.equal(targets, same)
    assert not torch.equal(epochs[1][0][1], epochs[2][0][1])


def test_augmentation_draws_from_its_own_stream_batch_after_batch() -> None:
    data, augmentation = dataset(), Augmentation(crop=2, flip=True)
    generator = stream(3, "augmentation", 1)
    for inputs, targets in epoch(made(dataset=data, augmentation=augmentation), 1):
        expected = augment(data.train.inputs[targets], augmentation, generator)
        assert torch.equal(inputs, data.normalise(expected))


def test_augmentation_does_not_change_the_order() -> None:
    assert classes(made()) == classes(made(augmentation=Augmentation(crop=3, flip=True)))


def test_order_depends_on_nothing_but_seed_epoch_and_number_of_images() -> None:
    orders = []
    for images_seed in (0, 1):
        data = Digits(fraction=0.5).load(images_seed)
        (inputs, targets), *_ = made(dataset=data, batch_size=len(data.train))
        order = torch.randperm(len(data.train), generator=stream(3, "order", 0))
        orders.append(order)
        assert torch.equal(inputs, data.normalise(data.train.inputs[order]))
        assert torch.equal(targets, data.train.targets[order])
    assert torch.equal(*orders)


def test_seed_changes_the_order() -> None:
    assert classes(made(seed=3)) != classes(made(seed=4))


def test_dense_targets_go_along_with_their_inputs() -> None:
    probe = SelectorShift(task="channel", train=6, test=2).load(0)
    for inputs, targets in made(dataset=probe, batch_size=3):
        assert torch.equal(targets[:, 0, 1:-1], inputs[:, 0, :-2])


@pytest.mark.parametrize("devices", [2, 3, 4])
def test_every_example_is_evaluated_by_one_device(devices: int) -> None:
    parts = [epoch(made(23, split="test", batch_size=8, part=(rank, devices))) for rank in range(devices)]
    found = torch.cat([targets for part in parts for _, targets in part])  # 8, 8, 8 and 1, which one device has
    assert sorted(found.tolist()) == list(range(25))
    assert {len(part) for part in parts} == {4}


@pytest.mark.parametrize(("devices", "sizes"), [(2, [5, 3]), (3, [3, 2]), (5, [2, 1])])
def test_devices_learn_from_every_so_many_examples_of_what_one_has(devices: int, sizes: list[int]) -> None:
    def mix(inputs: Tensor, targets: Tensor, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        partners = torch.from_numpy(generator.permutation(len(inputs)))
        return inputs + 2 * inputs[partners], targets + 100 * targets[partners]

    options: dict[str, Any] = {"augmentation": Augmentation(crop=1, flip=True), "mix": mix}
    whole = epoch(made(16, **options), 2)
    for rank in range(devices):
        part = epoch(made(16, part=(rank, devices), **options), 2)
        assert [len(targets) for _, targets in part] == sizes
        for (inputs, targets), (all_inputs, all_targets), size in zip(part, whole, sizes, strict=True):
            own = [rank + devices * place for place in range(size)]
            assert torch.equal(inputs, all_inputs[own])
            assert torch.equal(targets, all_targets[own])


@pytest.mark.parametrize("part", [(2, 2), (-1, 2), (0, 0)])
def test_a_device_that_there_is_not_is_refused(part: tuple[int, int]) -> None:
    message = rf"^part has {re.escape(str(part))}: must be a device's number, from 0, and how many devices there are\.$"
    with pytest.raises(SpecError, match=message):
        made(part=part)


@pytest.mark.parametrize(("number", "last"), [(3, 3), (13, 3), (20, 10)])
def test_devices_that_would_have_nothing_to_learn_from_are_refused(number: int, last: int) -> None:
    message = rf"^batches has {last} examples in the last one, part has {last + 1} devices: each must have one to learn"
    with pytest.raises(SpecError, match=message):
        made(number, part=(0, last + 1))
    made(number, part=(0, last))
    made(number, split="test", part=(0, last + 1))


def test_unknown_split_is_refused() -> None:
    with pytest.raises(SpecError, match=r"^split has 'validation': must be one of 'train', 'test'\.$"):
        made(split="validation")


def test_batches_without_examples_are_refused() -> None:
    with pytest.raises(SpecError, match=r"^batch_size has 0: must be an integer of at least 1\.$"):
        made(batch_size=0)


@pytest.mark.parametrize(
    ("changes", "split", "task"),
    [
        ({"split": "test"}, "test", "classification"),
        ({"dataset": SelectorShift(task="pixel", train=1, test=1).load(0)}, "train", "regression"),
    ],
)
def test_augmentation_where_answers_would_not_hold_is_refused(changes: dict[str, Any], split: str, task: str) -> None:
    message = (
        rf"^augmentation has Augmentation\(crop=1\), split has '{split}', data have task '{task}': "
        r"must go with training images that have one class each\. Use augmentation=None\.$"
    )
    with pytest.raises(SpecError, match=message):
        made(augmentation=Augmentation(crop=1), **changes)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("share", [0.0, 0.25])
def test_gpu_sees_the_batches_of_the_cpu(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESIDENT_SHARE", share)
    augmentation = Augmentation(crop=1, flip=True)
    expected = epoch(made(augmentation=augmentation), 1)
    came = epoch(made(augmentation=augmentation, device="cuda"), 1)
    for (inputs, targets), (there, same) in zip(expected, came, strict=True):
        assert there.device.type == same.device.type == "cuda"
        torch.testing.assert_close(there.cpu(), inputs)
        assert torch.equal(same.cpu(), targets)


@pytest.mark.parametrize(("free", "expected"), [(4 * 825, True), (4 * 825 - 4, False)])
def test_examples_stay_on_a_gpu_with_four_times_their_size_free(
    free: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10**9))
    examples = numbered(25)
    assert (
        module.fits(examples.inputs, examples.targets, torch.device("cuda")) is expected
    )  # 25 images of 25 bytes, labels of 8
