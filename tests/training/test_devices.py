"""Several devices, here processes of one CPU: together they do what one does, and leave what one leaves."""

from pathlib import Path
from typing import Any

import pytest
import torch

from dynops.data import Augmentation, Batches, Digits
from dynops.errors import SpecError, StudyError
from dynops.nets import KerasCNN
from dynops.training import Experiment, Recipe, train
from dynops.training.devices import _listen
from dynops.training.feed import Share

DATA = Digits(fraction=0.1, augmentation=Augmentation(crop=1))
RECIPE = Recipe(epochs=2, batch_size=32, learning_rate=1e-2, accumulate=2, ema=0.8, mixup=0.4, clip=0.5)


def shares(split: str, size: int, count: int, *, equal: bool) -> list[list[tuple[torch.Tensor, torch.Tensor]]]:
    dataset = Digits(fraction=0.1).load(0)
    found = []
    for rank in range(count):
        feed = Share(Batches(dataset=dataset, split=split, batch_size=size, device="cpu"), rank, count, equal=equal)
        feed.epoch = 3
        assert len(feed) == len(list(feed))
        found.append(list(feed))
    return found


@pytest.mark.parametrize("count", [2, 3])
def test_every_example_is_evaluated_by_one_device(count: int) -> None:
    dataset = Digits(fraction=0.1).load(0)
    found = shares("test", 265, count, equal=False)  # 797 images: the last batch has 2, too few for three devices
    images = torch.cat([inputs for share in found for inputs, _ in share])
    expected = dataset.normalise(dataset.test.inputs)
    assert sorted(images.flatten(1).tolist()) == sorted(expected.flatten(1).tolist())
    assert {len(share) for share in found} == {4}


def test_devices_learn_from_disjoint_parts_of_equal_size() -> None:
    found = shares("train", 64, 3, equal=True)  # 100 images: batches of 64 and of 36; one of the 64 is left out
    sizes = [[len(targets) for _, targets in share] for share in found]
    assert sizes == [[21, 12]] * 3
    images = torch.cat([inputs for share in found for inputs, _ in share]).flatten(1).tolist()
    whole = Batches(dataset=Digits(fraction=0.1).load(0), split="train", batch_size=64, device="cpu")
    whole.epoch = 3
    rest = torch.cat([inputs for inputs, _ in whole]).flatten(1).tolist()
    for image in images:
        rest.remove(image)  # fails where two devices have the same
    assert len(rest) == 1


def test_two_devices_do_what_one_does(tmp_path: Path) -> None:
    experiment = Experiment(network=KerasCNN(), data=DATA, recipe=RECIPE)
    one = experiment.run(0, accelerator="cpu", averaged=("h w",), images=1)
    seen: list[dict[str, float]] = []
    options: dict[str, Any] = {"accelerator": "cpu", "averaged": ("h w",), "images": 1, "folder": tmp_path}
    two = experiment.run(0, devices=2, on_epoch=seen.append, **options)
    assert two.metrics == pytest.approx(one.metrics, rel=1e-4)
    assert len(two.history) == 2
    for ours, expected in zip(two.history, one.history, strict=True):
        assert ours == pytest.approx(expected, rel=1e-4)
        assert ours["accuracy"] * 797 == pytest.approx(round(expected["accuracy"] * 797))
    assert seen == list(two.history)
    assert (two.parameters, two.macs, two.spec) == (one.parameters, one.macs, one.spec)
    assert two.device == one.device + ", 2 devices"
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    again = experiment.run(0, **options)  # what two began, one may go on with
    assert again.history == two.history


class Cut(Exception):  # noqa: N818  # stands for whatever ends a process
    """Ends a training after an epoch."""


def test_what_the_caller_raises_ends_all_processes(tmp_path: Path) -> None:
    def on_epoch(epoch: dict[str, float]) -> None:
        raise Cut

    with pytest.raises(Cut):
        train(KerasCNN(), DATA, RECIPE, 0, accelerator="cpu", devices=2, folder=tmp_path, on_epoch=on_epoch)
    assert not list(tmp_path.iterdir())  # the epoch that was cut off is not kept, as on one device
    assert not torch.multiprocessing.active_children()


class Running:
    """Stands for processes that have not ended."""

    def join(self, timeout: float) -> bool:
        return False


def test_an_error_of_a_process_reaches_the_caller_as_such() -> None:
    said = torch.multiprocessing.get_context("spawn").SimpleQueue()
    said.put(StudyError("planted"))
    with pytest.raises(StudyError, match=r"^planted$"):
        _listen(Running(), said, None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("devices", "options", "message"),
    [
        (0, {}, "^devices has 0: must be an integer of at least 1"),
        (3, {}, "^devices has 3, batch_size has 32, accumulate has 2: devices times accumulate must be a divisor of"),
    ],
)
def test_devices_that_do_not_fit_are_refused(devices: int, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        train(KerasCNN(), DATA, RECIPE, 0, accelerator="cpu", devices=devices, **options)


def test_more_gpus_than_there_are_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SpecError, match=r"^devices has 2: this machine has 1 GPUs\.$"):
        train(KerasCNN(), DATA, RECIPE, 0, accelerator="cuda", devices=2)
