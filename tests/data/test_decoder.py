"""Images decoded in worker processes: the same whoever decodes them, and no process is left."""

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dynops.data import Augmentation, Batches, Dataset, Digits, ImageFiles, ImageFolder, ResizedCrop, decoder
from dynops.data import image_files as module
from dynops.errors import DataError, SpecError
from dynops.streams import stream

CROP = ResizedCrop()


@pytest.fixture(scope="module")
def tiny(image_root: Path) -> Dataset:
    return ImageFolder(folder="tiny", size=16).load(0, root=image_root)


def made(dataset: Dataset, split: str = "train", **changes: Any) -> Batches:
    fields: dict[str, Any] = {"batch_size": 8, "device": "cpu", "seed": 3}
    fields |= {"augmentation": CROP} if split == "train" else {}
    return Batches(dataset=dataset, split=split, **{**fields, **changes})


def epoch(batches: Batches, number: int) -> list[tuple[Tensor, Tensor]]:
    batches.epoch = number
    return list(batches)


def assert_same(one: list[tuple[Tensor, Tensor]], other: list[tuple[Tensor, Tensor]]) -> None:
    for (inputs, targets), (again, same) in zip(one, other, strict=True):
        assert torch.equal(inputs, again)
        assert torch.equal(targets, same)


def children() -> set[int]:
    return {child.pid for child in multiprocessing.active_children() if child.pid is not None}


def test_batches_hold_the_views_of_their_images(tiny: Dataset) -> None:
    files = tiny.train.inputs
    assert isinstance(files, ImageFiles)
    order = torch.randperm(36, generator=stream(3, "order", 5)).split(8)
    batches = epoch(made(tiny, workers=2), 5)
    assert [len(targets) for _, targets in batches] == [8, 8, 8, 8]
    for (inputs, targets), index in zip(batches, order, strict=False):
        expected = torch.stack([files.cropped(number, CROP, 3, 5) for number in index.tolist()])
        assert torch.equal(inputs, tiny.normalise(expected))
        assert torch.equal(targets, tiny.train.targets[index])


def test_evaluated_images_come_in_order_and_central(tiny: Dataset) -> None:
    batches = epoch(made(tiny, "test", workers=2), 0)
    assert [len(targets) for _, targets in batches] == [8, 7]
    assert isinstance(tiny.test.inputs, ImageFiles)
    assert torch.equal(torch.cat([inputs for inputs, _ in batches]), tiny.normalise(tiny.test.inputs.to("cpu")))
    assert torch.equal(torch.cat([targets for _, targets in batches]), tiny.test.targets)


def test_batches_come_to_the_device(tiny: Dataset) -> None:
    ((inputs, targets),) = made(tiny, batch_size=36, device="meta", workers=1)
    assert (inputs.device.type, targets.device.type) == ("meta", "meta")
    assert (inputs.shape, targets.shape) == ((36, 3, 16, 16), (36,))


def test_training_images_without_a_crop_are_central(tiny: Dataset) -> None:
    assert isinstance(tiny.train.inputs, ImageFiles)
    ((inputs, _),) = made(tiny, batch_size=36, augmentation=None, workers=0)
    order = torch.randperm(36, generator=stream(3, "order", 0))
    assert torch.equal(inputs, tiny.normalise(tiny.train.inputs[order].to("cpu")))


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_the_workers(tiny: Dataset, workers: int) -> None:
    alone, helped = made(tiny, workers=0), made(tiny, workers=workers)
    epochs = [epoch(helped, number) for number in (0, 1)]
    assert_same(epochs[0], epoch(alone, 0))
    assert_same(epochs[1], epoch(alone, 1))
    assert not torch.equal(epochs[0][0][1], epochs[1][0][1])
    helped.close()


def test_an_epoch_can_be_repeated_without_those_before_it(tiny: Dataset) -> None:
    straight, resumed = made(tiny, workers=2), made(tiny, workers=1)
    for number in range(2):
        epoch(straight, number)
    assert_same(epoch(straight, 2), epoch(resumed, 2))


def test_an_epoch_that_was_left_does_not_disturb_the_next(tiny: Dataset) -> None:
    batches = made(tiny, workers=2)
    next(iter(batches))
    assert_same(epoch(batches, 1), epoch(made(tiny, workers=0), 1))


def test_workers_are_kept_from_epoch_to_epoch_and_end_with_the_batches(tiny: Dataset) -> None:
    before = children()
    batches = made(tiny, workers=2)
    assert children() == before
    epoch(batches, 0)
    first = children() - before
    assert len(first) == 2
    epoch(batches, 1)
    assert children() - before == first
    batches.close()
    assert children() == before
    epoch(batches, 2)
    assert len(children() - before) == 2
    del batches
    assert children() == before


def test_closing_ends_workers_in_the_middle_of_an_epoch(tiny: Dataset) -> None:
    before = children()
    batches = made(tiny, workers=2)
    left = iter(batches)
    next(left)
    batches.close()
    assert children() == before
    with pytest.raises(SpecError, match=r"^batches has an iteration that was closed, .*: must have one at a time, "):
        next(left)


def test_two_iterations_at_once_are_refused(tiny: Dataset) -> None:
    batches = made(tiny, workers=0)
    with pytest.raises(SpecError, match=r"^batches has an iteration that was closed, or that a newer one replaced: "):
        list(zip(batches, batches, strict=True))


def test_there_are_as_many_workers_as_usable_cpus_and_no_more_than_batches(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert decoder.usable_cpus() == len(os.sched_getaffinity(0))
    monkeypatch.setattr("dynops.data.batches.usable_cpus", lambda: 2)
    for size, expected in ((8, 2), (36, 1)):
        before = children()
        batches = made(tiny, batch_size=size)
        epoch(batches, 0)
        assert len(children() - before) == expected
        batches.close()


@pytest.mark.parametrize(("devices", "expected"), [(2, 2), (3, 1), (8, 1)])
def test_devices_share_the_cpus(tiny: Dataset, monkeypatch: pytest.MonkeyPatch, devices: int, expected: int) -> None:
    monkeypatch.setattr("dynops.data.batches.usable_cpus", lambda: 5)
    before = children()
    batches = made(tiny, part=(0, devices))
    epoch(batches, 0)
    assert len(children() - before) == expected
    batches.close()


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_device_decodes_and_mixes_its_own_images_alone(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch, split: str
) -> None:
    def mix(inputs: Tensor, targets: Tensor, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        return inputs + inputs.flip(0), targets

    decoded: list[Path] = []
    read = module.read_image
    monkeypatch.setattr(module, "read_image", lambda path: decoded.append(path) or read(path))  # type: ignore[func-returns-value]
    whole = epoch(made(tiny, split, workers=0), 4)
    all_decoded = sorted(decoded)
    decoded.clear()
    for rank in range(2):
        own = epoch(made(tiny, split, workers=0, part=(rank, 2), mix=mix), 4)
        for (inputs, targets), (all_inputs, all_targets) in zip(own, whole, strict=True):
            expected = all_inputs[rank::2]
            assert torch.equal(inputs, expected + expected.flip(0))
            assert torch.equal(targets, all_targets[rank::2])
    assert sorted(decoded) == all_decoded


def test_decoding_leaves_the_global_random_numbers_alone(tiny: Dataset) -> None:
    state = torch.get_rng_state()
    epoch(made(tiny, workers=2), 0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_ends_the_workers_and_is_named(workers: int, tmp_path: Path) -> None:
    for part in ("train", "val"):
        (tmp_path / "broken" / part / "ant").mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (9, 7)).save(tmp_path / "broken" / part / "ant" / f"{number}.png")
    (tmp_path / "broken" / "train" / "ant" / "2.png").write_bytes(b"none")
    before = children()
    batches = made(ImageFolder(folder="broken", size=4).load(0, root=tmp_path), batch_size=2, workers=workers)
    with pytest.raises(DataError, match=r"^\S*/broken/train/ant/2\.png has content that cannot be decoded "):
        list(batches)
    assert children() == before


def test_a_worker_that_is_killed_is_an_error(tiny: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(path: Path) -> None:
        time.sleep(0.3)  # until the batch is waited for
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(module, "read_image", kill)
    before = children()
    message = (
        r"^decoding has lost a worker process \(DataLoader worker .*\): all must live to the end\. "
        r"Often memory runs out, of the machine or in /dev/shm: use smaller batches or fewer workers\.$"
    )
    with pytest.raises(DataError, match=message):
        list(made(tiny, workers=2))
    assert children() == before


@pytest.mark.parametrize(
    ("data", "augmentation", "message"),
    [
        ("tiny", Augmentation(flip=True), r"Augmentation\(flip=True\), images are in files: must be a ResizedCrop, or"),
        ("digits", CROP, r"ResizedCrop\(\), images are in memory: must be an Augmentation, or None\.$"),
    ],
)
def test_an_augmentation_of_other_images_is_refused(
    tiny: Dataset, data: str, augmentation: Augmentation | ResizedCrop, message: str
) -> None:
    dataset = tiny if data == "tiny" else Digits().load(0)
    with pytest.raises(SpecError, match=rf"^augmentation has {message}"):
        made(dataset, augmentation=augmentation)


def test_a_negative_number_of_workers_is_refused(tiny: Dataset) -> None:
    with pytest.raises(SpecError, match=r"^workers has -1: must be an integer of at least 0\.$"):
        made(tiny, workers=-1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("workers", [0, 2])
def test_gpu_sees_the_images_of_the_cpu(tiny: Dataset, workers: int) -> None:
    for (inputs, targets), (there, same) in zip(
        epoch(made(tiny, workers=0), 1), epoch(made(tiny, workers=workers, device="cuda"), 1), strict=True
    ):
        assert there.device.type == same.device.type == "cuda"
        torch.testing.assert_close(there.cpu(), inputs)
        assert torch.equal(same.cpu(), targets)
