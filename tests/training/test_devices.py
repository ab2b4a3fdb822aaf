"""Several devices, here processes of one CPU: together they do what one does, and leave what one leaves."""

import importlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.multiprocessing.spawn import ProcessRaisedException

from dynops.data import Augmentation, Digits
from dynops.errors import DataError, SpecError
from dynops.nets import KerasCNN
from dynops.training import Experiment, Recipe, train
from dynops.training.devices import _listen

DATA = Digits(fraction=0.1, augmentation=Augmentation(crop=1))
RECIPE = Recipe(epochs=2, batch_size=32, learning_rate=1e-2, accumulate=2, ema=0.8, mixup=0.4, clip=0.5)


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


NOTED = '''
"""Images in folders; the processes of a training note which of them decodes what, and whose worker it is."""

import multiprocessing
import os
from pathlib import Path

from dynops.data import ImageFolder, image_files
from dynops.specs import spec


@spec
class Noted(ImageFolder):
    pass


def note(path, read=image_files.read_image):
    with Path(__file__).with_name("notes").open("a") as notes:
        notes.write(f"{os.getppid()} {path.parts[-3]} {path.name}\\n")
    return read(path)


if multiprocessing.current_process().name != "MainProcess":
    image_files.read_image = note
'''


class Cut(Exception):  # noqa: N818  # stands for whatever ends a process
    """Ends a training after an epoch."""


def test_images_are_decoded_once_and_what_the_caller_raises_ends_all_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part, count in (("train", 10), ("val", 7)):
        for number in range(count):
            path = tmp_path / "made" / part / ("ant", "bee")[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 256, (11, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    (tmp_path / "noted.py").write_text(NOTED)
    monkeypatch.syspath_prepend(tmp_path)
    data = importlib.import_module("noted").Noted(folder="made", size=8)
    recipe = Recipe(epochs=1, batch_size=4, warmup=0.0)
    seen: list[dict[str, float]] = []

    def on_epoch(epoch: dict[str, float]) -> None:
        seen.append(epoch)
        raise Cut

    options: dict[str, Any] = {"accelerator": "cpu", "root": tmp_path}
    kept = tmp_path / "kept"
    with pytest.raises(Cut):
        train(KerasCNN(), data, recipe, 0, devices=2, workers=1, folder=kept, on_epoch=on_epoch, **options)
    assert not kept.exists()  # the epoch that was cut off is not kept, as on one device
    assert not torch.multiprocessing.active_children()

    notes = [line.split() for line in (tmp_path / "notes").read_text().splitlines()]
    for part, by_device in (("train", [4, 4]), ("val", [3, 4])):
        found = [(device, image) for device, where, image in notes if where == part]
        assert sorted(Counter(device for device, _ in found).values()) == by_device
        assert len({image for _, image in found}) == len(found) == sum(by_device)
    one = train(KerasCNN(), data, recipe, 0, workers=0, **options)
    assert seen == [pytest.approx(one.history[0], rel=1e-4)]


class Processes:
    """Stands for processes: one has said what went wrong, the others run on, or fail for want of it."""

    def __init__(self, *, fail: bool) -> None:
        self.fail = fail

    def join(self, timeout: float) -> bool:
        if self.fail:
            raise ProcessRaisedException("connection closed by peer", 0, 1)
        return False


@pytest.mark.parametrize("fail", [False, True])
def test_an_error_of_a_process_reaches_the_caller_as_such(fail: bool) -> None:
    said = torch.multiprocessing.get_context("spawn").SimpleQueue()
    said.put(DataError("planted"))
    with pytest.raises(DataError, match=r"^planted$"):
        _listen(Processes(fail=fail), said, None, None)  # type: ignore[arg-type]


def test_a_failure_that_no_process_explains_is_raised_itself() -> None:
    said = torch.multiprocessing.get_context("spawn").SimpleQueue()
    with pytest.raises(ProcessRaisedException, match="closed by peer"):
        _listen(Processes(fail=True), said, None, None)  # type: ignore[arg-type]


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
