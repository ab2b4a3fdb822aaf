"""Image folders: which files are listed, which are refused, and a training from files as a whole."""

import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from dynops.data import Augmentation, Dataset, Examples, ImageFiles, ImageFolder, ResizedCrop
from dynops.errors import DataError, SpecError
from dynops.nets import ResidualNetwork
from dynops.parts import zoo
from dynops.specs import Spec
from dynops.training import Recipe, checkpoint, train, train_together

TINY = ImageFolder(folder="tiny", size=16)
NETWORK = ResidualNetwork(operators=(zoo.involution(3, 8),), depths=(1,), width=8)
RECIPE = Recipe(epochs=3, batch_size=9, learning_rate=1e-2)


def names(examples: Examples) -> list[str]:
    assert isinstance(examples.inputs, ImageFiles)
    return [name.decode() for name in examples.inputs.names]


def write(root: Path, *paths: str) -> Path:
    for each in paths:
        path = root / "made" / each
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix:
            Image.new("RGB", (5, 5)).save(path, format="PNG")
        else:
            path.mkdir(exist_ok=True)
    return root


def load(root: Path, **changes: Any) -> Dataset:
    return ImageFolder(folder="made", **changes).load(0, root=root)


def test_images_are_listed_by_class_and_name(image_root: Path) -> None:
    data = TINY.load(0, root=image_root)
    assert (len(data.train), len(data.test), data.outputs) == (36, 15, 3)
    assert data.classes == ("ant", "bee", "cow")
    assert data.input_shape == (3, 16, 16)
    assert names(data.test) == sorted(names(data.test))
    assert names(data.test)[:2] == ["ant/0.JPEG", "ant/1.png"]
    assert [data.classes[target] for target in data.train.targets] == [name[:3] for name in names(data.train)]


def test_inputs_have_the_mean_and_deviation_of_imagenet(image_root: Path) -> None:
    data = TINY.load(0, root=image_root)
    grey = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1) * 255
    assert torch.allclose(data.normalise(grey), torch.zeros(1, 3, 1, 1), atol=1e-6)
    assert torch.allclose(data.normalise(grey + 25.5).flatten(), 0.1 / torch.tensor([0.229, 0.224, 0.225]))


def test_other_files_are_passed_over(tmp_path: Path) -> None:
    root = write(tmp_path, "train/a/1.PNG", "train/a/2.jpeg", "val/a/1.jpg", "train/.cache/1.png", "train/a/._1.png")
    (root / "made" / "train" / "a" / "readme.txt").write_text("no image")
    (root / "made" / "train" / "list.png").write_text("no class")
    assert names(load(root).train) == ["a/1.PNG", "a/2.jpeg"]


def test_names_may_hold_any_character(tmp_path: Path) -> None:
    root = write(tmp_path, "train/a ü/é\udcff.png", "val/a ü/1.png")
    data = load(root, size=4)
    assert isinstance(data.train.inputs, ImageFiles)
    assert data.train.inputs.cropped(0, ResizedCrop(), 0, 0).shape == (3, 4, 4)


def test_files_that_come_later_are_listed(tmp_path: Path) -> None:
    root = write(tmp_path, "train/a/1.png", "val/a/1.png")
    assert len(load(root).train) == 1
    write(tmp_path, "train/a/2.png", "train/b/1.png", "val/b/1.png")
    assert (len(load(root).train), load(root).outputs) == (3, 2)


def test_parts_of_the_training_images_hold_the_classes_in_their_proportions(image_root: Path) -> None:
    half, third = (ImageFolder(folder="tiny", fraction=part).load(4, root=image_root) for part in (1 / 2, 1 / 3))
    assert torch.bincount(half.train.targets).tolist() == [6, 6, 6]
    assert set(names(third.train)) < set(names(half.train))
    assert names(half.test) == names(third.test)
    tuned = ImageFolder(folder="tiny", evaluate="validation").load(4, root=image_root)
    assert (len(tuned.train), len(tuned.test)) == (32, 4)
    assert set(names(tuned.train)) | set(names(tuned.test)) == set(names(TINY.load(0, root=image_root).train))


def test_a_folder_goes_to_json_and_to_python_and_back() -> None:
    for data in (TINY, ImageFolder(folder="x", augmentation=None), ImageFolder(folder="x", augmentation=ResizedCrop())):
        assert Spec.from_json(data.to_json()) == data
        assert eval(repr(data), {"ImageFolder": ImageFolder, "ResizedCrop": ResizedCrop}) == data
    assert repr(TINY) == "ImageFolder(folder='tiny', size=16)"


LAYOUT = (
    r"must hold a folder for each class, and in each \.jpeg, \.jpg, \.png files, as made/train/<class>/\* and "
    r"made/val/<class>/\*\. Put them there, or name another root \(`--root`\)\.$"
)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ((), rf"/made/train does not exist: {LAYOUT}"),
        (("train/a/1.png",), rf"/made/val does not exist: {LAYOUT}"),
        (("train/a/1.png", "val/1.png"), rf"/made/val has no folders of classes: {LAYOUT}"),
        (("train/a/1.png", "train/b", "val/a/1.png"), rf"/made/train/b has no images: {LAYOUT}"),
        (
            ("train/a/1.png", "train/b/1.png", "val/a/1.png", "val/c/1.png", *(f"val/z{n}/1.png" for n in range(4))),
            r"/made has 2 classes in train, 6 in val, b only in train, c, z0, z1 and 2 more only in val: "
            r"must have the same folders of classes in both\.$",
        ),
    ],
)
def test_a_folder_of_another_layout_is_refused(paths: tuple[str, ...], message: str, tmp_path: Path) -> None:
    root = write(tmp_path, *paths)
    with pytest.raises(DataError, match=message):
        load(root)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 0}, r"size has 0: must be an integer of at least 1\."),
        ({"fraction": 2.0}, r"fraction has 2\.0: must lie above 0 and be at most 1\."),
        ({"augmentation": Augmentation()}, r"augmentation has Augmentation\(\): must be a ResizedCrop, or None\."),
    ],
)
def test_an_illegal_field_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=rf"^{message}$"):
        ImageFolder(folder="made", **changes)


class Cut(Exception):  # noqa: N818  # stands for whatever ends a process
    """Ends a training after an epoch."""


def test_a_network_learns_from_files_and_goes_on_after_a_cut(
    image_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(epoch: dict[str, float]) -> None:
        if epoch["epoch"] == 2:
            raise Cut

    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    options: dict[str, Any] = {"root": image_root, "accelerator": "cpu", "images": 2}
    before = set(multiprocessing.active_children())
    running: list[int] = []

    def count(epoch: dict[str, float]) -> None:
        running.append(len(set(multiprocessing.active_children()) - before))

    whole = train(NETWORK, TINY, RECIPE, 0, workers=2, on_epoch=count, **options)
    assert running == [3, 3, 3]  # two read what is learnt, one the only batch that is evaluated
    assert set(multiprocessing.active_children()) == before
    losses = [epoch["train_loss"] for epoch in whole.history]
    assert losses[0] > losses[1] > losses[2]
    assert whole.metrics["accuracy"] > 0.8
    inputs = torch.tensor(whole.images["inputs"])
    test = TINY.load(0, root=image_root).test.inputs
    assert torch.allclose(inputs, test[:2].to("cpu") / 255, atol=1e-4)
    with pytest.raises(Cut):
        train(NETWORK, TINY, RECIPE, 0, folder=tmp_path, on_epoch=cut, workers=1, **options)
    assert set(multiprocessing.active_children()) == before
    resumed = train(NETWORK, TINY, RECIPE, 0, folder=tmp_path, workers=0, **options)
    assert resumed.history == whole.history


def test_a_worker_that_is_killed_while_nobody_waits_for_it_is_an_error(image_root: Path) -> None:
    before = set(multiprocessing.active_children())

    def kill(epoch: dict[str, float]) -> None:
        (set(multiprocessing.active_children()) - before).pop().kill()
        time.sleep(60)  # until the system says so

    with pytest.raises(DataError, match=r"^decoding has lost a worker process \(DataLoader worker \(pid "):
        train(NETWORK, TINY, RECIPE, 0, root=image_root, accelerator="cpu", workers=2, on_epoch=kill)
    assert set(multiprocessing.active_children()) == before


def test_a_number_of_workers_below_none_is_refused(image_root: Path) -> None:
    with pytest.raises(SpecError, match=r"^workers has -1: must be an integer of at least 0\.$"):
        train(NETWORK, TINY, RECIPE, 0, root=image_root, accelerator="cpu", workers=-1)


def test_seeds_together_are_refused(image_root: Path) -> None:
    message = (
        r"^data has ImageFolder\(folder='tiny', size=16\): images in files are decoded for one network at a time\. "
    )
    with pytest.raises(SpecError, match=message):
        train_together(NETWORK, TINY, RECIPE, (0, 1), root=image_root, accelerator="cpu")
